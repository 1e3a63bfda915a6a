"""Run the quick tests with the lowest release of every direct dependency: `python -m tests.package.lowest FOLDER`.

FOLDER gets a virtual environment and a constraints file with `name==LOWEST` for every `name>=LOWEST` of pyproject.toml.
Further arguments replace single lines of it: `torch==2.13.0`, say, where the lowest torch is a download of gigabytes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import tomli

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("datasets", "demo")  # and what the tests need; ExecuTorch is bound to one release in any case
TOOLS = ("pytest", "hypothesis")  # pytest-xdist too
TESTS = (
    "tests/base",
    "tests/marian",
    "tests/pruning/test_plan.py",
    "tests/pruning/test_surgery.py",
    "tests/pruning/test_pruning.py",
    "tests/cnn/test_cnn_count.py",
    "tests/export/test_export.py",
    "tests/export/test_runtime.py",
    "tests/bench/accel/test_accel_onnx.py",
    "tests/bench/libraries",
    "tests/bench/measure",
    "tests/bench/report",
    "tests/demo",
    "-m",
    "not slow and not phone",
)


def lowest(document: dict[str, object]) -> dict[str, str]:
    """Return package -> `package==VERSION ; marker`, the lowest release that pyproject.toml allows."""
    project = document["project"]
    assert isinstance(project, dict)
    extras = project["optional-dependencies"]
    found = {}
    for line in [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]:
        match = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:,<[\d.]+)?\s*(;.*)?", line)
        assert match, f"{line!r} is not `name>=LOWEST,<NEXT`"
        found[match[1]] = f"{match[1]}=={match[2]} {match[3] or ''}".strip()
    return found


def main(folder: Path, changes: list[str]) -> int:
    """Make the environment, print what is in it, and run the tests; return pytest's exit code."""
    document = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = lowest(document) | {re.split("[=<>]", change)[0]: change for change in changes}
    tools = [line for line in document["project"]["optional-dependencies"]["dev"] if line.startswith(TOOLS)]
    folder.mkdir(parents=True, exist_ok=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in wanted.values()), encoding="utf-8")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints]
    subprocess.run([*install, "--editable", f"{ROOT}[{','.join(EXTRAS)}]", *tools], check=True)
    subprocess.run([python, "-m", "pip", "list"], check=True)
    return subprocess.run([python, "-m", "pytest", "-n", "2", *TESTS], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
