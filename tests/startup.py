"""CPU time that calls of `tprune` take before any work: `python -m tests.startup [ROUNDS]` prints a table.

Every call is a process of its own. The calls take turns, and each is compared with `python -c pass` of the same round,
so that the ratios hold on a busy machine too.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = "python -c pass"
DATA = ("--data", "nosuch.txt")
OUT = ("--out", "o")
MODEL = ROOT.name + "-nosuch"  # neither a folder nor a hub id
REFUSED = (  # exit code 2: a wrong path or flag
    ("verify", MODEL),
    ("verify", str(ROOT / "tests")),
    ("expand", MODEL, *OUT),
    ("expand", MODEL, "--out", str(ROOT)),
    ("analyse", MODEL, *DATA, *OUT),
    ("prune", MODEL, *DATA, *OUT),
    ("prune", MODEL, *DATA, *OUT, "--keep", "2"),
    ("prune", MODEL, *DATA, *OUT, "--criterion", "luck"),
    ("translate", MODEL, *DATA, *OUT),
    *(("prune", str(ROOT / "tests"), "--data", str(ROOT), "--out", out) for out in (f"{__file__}/x", "/proc/x")),
    ("evaluate", str(ROOT / "tests"), *DATA, "--out", f"{__file__}/x.json"),
    ("bench", str(ROOT / "tests"), *DATA, "--out", f"{__file__}/x.jsonl"),
    ("simulate", "resnet18-32", "--out", f"{__file__}/x"),
    ("simulate", "resnet18-32", *OUT, "--results", f"{__file__}/x.json"),
    ("evaluate", MODEL, *DATA),
    ("evaluate", MODEL, *DATA, "--baseline", "nosuch.json"),
    ("export", MODEL, *DATA, *OUT),
    ("export", MODEL, *DATA, *OUT, "--to", "tflite"),
    ("bench", MODEL, *DATA),
    ("bench", MODEL, *DATA, "--mode", "hot"),
    ("compare", MODEL, *DATA),
    ("compare", "--size", "huge"),
    ("report", "nosuch", *OUT),
    ("simulate", "nosuch", *OUT),
    ("doctor", "--need", "luck"),
    ("demo", "--out", str(ROOT)),
    ("nosuch",),
)
CALLS = {
    BASE: (0, ["-c", "pass"]),
    "import tprune": (0, ["-c", "import tprune"]),
    **{f"tprune {word}": (0, ["-m", "tprune", word]) for word in ("--version", "--help")},
    **{f"tprune {' '.join(call)}": (2, ["-m", "tprune", *call]) for call in REFUSED},
}


def cpu_seconds(arguments: list[str], code: int, folder: Path) -> float:
    """Return the CPU time of one process of Python, which must end with `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    """Measure every call `rounds` times and print medians."""
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    with tempfile.TemporaryDirectory() as folder:
        for name, (code, arguments) in list(CALLS.items()) * (rounds + 1):
            times[name].append(cpu_seconds(arguments, code, Path(folder)))
    base = times[BASE][1:]  # the first round fills caches
    for name, found in times.items():
        ratio = statistics.median(one / least for one, least in zip(found[1:], base, strict=True))
        name = name.replace(str(ROOT), "ROOT").replace(MODEL, "nosuch")
        sys.stdout.write(f"{statistics.median(found[1:]):7.3f} s {ratio:6.1f} x  {name}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
