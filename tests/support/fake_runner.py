"""A program that follows the runner's contract without translating: the output is the source.

`python fake_runner.py seq2seq --artefact DIR ...`. The file `behave.json` in the artefact's folder makes it misbehave:
{"hang": in call n >= 1 it does, "die": signal in block n >= 1, "refuse": message, "drift": tokens change from block n
on, "report": changes of the report, "tuned": true}. Beside the folder it keeps a line for every call: in `calls` the
folder's name, and with `tuned`, in `tuned` the settings of glibc's heap.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    parent = os.getppid()
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    for flag in ("artefact", "ids", "out-dir"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    for flag in ("threads", "beams", "max-length", "warmup", "warmup-ms", "passes", "min-ms", "gap-ms", "sample-ms"):
        parser.add_argument(f"--{flag}", type=int, default=1)
    parser.add_argument("--nonce", default="")
    parser.add_argument("--affinity")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--check-parent", action="store_true")
    asked = parser.parse_args()
    if asked.affinity:
        os.sched_setaffinity(0, map(int, asked.affinity.split(",")))
    behave = json.loads((asked.artefact / "behave.json").read_text())
    with (asked.artefact.parent / "calls").open("a+") as file:
        file.write(f"{asked.artefact.name}\n")
        file.seek(0)
        calls = file.read().split().count(asked.artefact.name)
    if behave.get("tuned"):
        with (asked.artefact.parent / "tuned").open("a") as file:
            tuned = [f"{key}={value}" for key, value in os.environ.items() if key.startswith(("GLIBC_", "MALLOC_"))]
            file.write(f"{' '.join(sorted(tuned))}\n")
    asked.out_dir.mkdir(exist_ok=True)
    head = {"schema": 1, "kind": "run", "nonce": asked.nonce, "task": "seq2seq", "program": "fake", "runner": "0"}
    if "refuse" in behave:
        write(asked.out_dir, {**head, "ok": False, "error": behave["refuse"]})
        return 1
    if calls == behave.get("die"):
        sys.stderr.write("out of luck\n")
        sys.stderr.flush()
        os.kill(os.getpid(), 9)
    sentences = [[int(word) for word in line.split()] for line in asked.ids.read_text().splitlines()]
    for _ in range(60_000 if calls == behave.get("hang") else 0):  # ten minutes
        time.sleep(0.01)
        if asked.check_parent and os.getppid() != parent:
            return 1
    extra = [1] if calls >= behave.get("drift", 10**9) else []
    outputs = [[*ids, *extra] for ids in sentences]
    (asked.out_dir / "output.ids").write_text("".join(" ".join(map(str, ids)) + "\n" for ids in outputs))
    steps = [len(ids) for ids in outputs] * (asked.passes + (asked.min_ms > 1))  # a run that is to last: one pass more
    memory = {"vm_rss_kib": 9000, "vm_hwm_kib": 9000, "rss_anon_kib": 5000, "rss_file_kib": 4000}
    manifest = json.loads((asked.artefact / "manifest.json").read_text())
    report = {
        "ok": True,
        "engine": {"name": "fake", "version": "1.0", "facts": {}},
        "build": {"compiler": "none", "optimised": True, "arch": "x86_64", "sanitised": False},
        "artefact": manifest["id"],
        "threads": {"asked": asked.threads, "got": asked.threads + 1},
        "beams": asked.beams,
        "max_length": asked.max_length,
        "affinity": {
            "asked": [int(cpu) for cpu in asked.affinity.split(",")] if asked.affinity else None,
            "got": sorted(os.sched_getaffinity(0)),
        },
        "load_ns": 5000,
        "first_ns": 600,
        "warmup": {"runs": asked.warmup, "ns": 9},
        "samples_ns": [20 * step for step in steps],
        "encoder_ns": [10] * len(steps),
        "step_ns": [3 * step for step in steps],
        "run_ns": [19 * step for step in steps],
        "steps": steps,
        "outputs": {"ids": "output.ids"},
        "memory": {"start": {**memory, "vm_hwm_kib": 4000}, "loaded": memory, "end": memory},
        "switches": {"voluntary": 1, "involuntary": 2},
        "cpu_share": 0.9876,
        "conditions": {"before": {"t_ns": 1, "khz": {"0": 2000000}}, "after": {"t_ns": 2}, "during": []},
        "machine": {"uname": "fake", "page_size": 4096, "hwcap": "0x0", "hwcap2": "0x0", "cpus": []},
        "profile": None,
        "error": None,
    }
    write(asked.out_dir, {**head, **report, **behave.get("report", {})})
    return 0


def write(folder: Path, report: dict[str, object]) -> None:
    (folder / "report.json.part").write_text(json.dumps(report))
    (folder / "report.json.part").rename(folder / "report.json")


if __name__ == "__main__":
    raise SystemExit(main())
