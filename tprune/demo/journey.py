"""The demo's journey: the calls of `tprune` that it makes, and the time they take. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STEPS = ["--tokens", "768", "--steps", "40", "--finetune-steps", "340", "--finetune-lr", "3e-3"]  # of a pruning run
# Seconds on two cores with AVX2; only their proportions count, the time left is computed from the time taken so far
TRAINING = 23
SECONDS = {"analyse": 15, "prune": 16, "verify": 1, "export": 4, "evaluate": 1, "bench": 2, "report": 1}


@dataclass(frozen=True)
class Demo:
    """What the journey starts from: a data folder of `SPLIT.LANG` files and a trained stock Marian's folder."""

    data: Path
    dense: Path


def journey(out: Path | str, demo: Demo, *, threads: int = 2) -> list[list[str]]:
    """Return the calls of the `tprune` command that make the whole journey of a built demo, each as its arguments."""
    dense, data, onnx = str(demo.dense), ["--data", str(demo.data)], f"{out}/onnx"
    models = {"dense": dense, **{f"keep-{keep}": f"{out}/keep-{keep}" for keep in (50, 25)}}
    cores = ["--threads", str(threads)]
    calls = [["analyse", dense, *data, "--out", f"{out}/analysis", "--quick", *cores]]
    for name in list(models)[1:]:
        budget = ["--keep", f"0.{name[-2:]}", "--sensitivity", f"{out}/analysis/sensitivity.json"]
        calls.append(["prune", dense, *data, "--out", models[name], *budget, *STEPS, *cores])
        calls.append(["verify", models[name]])
    for name, folder in models.items():
        trim = [] if name == "dense" else ["--trim-vocabulary", "train"]
        versus = [] if name == "dense" else ["--baseline", f"{out}/quality/dense.json"]
        calls.append(["export", folder, *data, "--out", f"{onnx}/{name}", "--limit", "30", *trim])
        calls.append(["evaluate", f"{onnx}/{name}", *data, "--out", f"{out}/quality/{name}.json", *versus])
    records = f"{out}/records.jsonl"
    calls.append(
        ["bench", *(f"{onnx}/{n}" for n in models), *data, "--out", records, "--blocks", "3", "--limit", "100"]
    )
    calls.append(["report", f"{out}/quality", records, onnx, "--out", f"{out}/report"])
    return calls


def share_done(calls: Sequence[Sequence[str]], number: int) -> float:
    """Return the share (0 to 1) of the journey's time that the training and the first `number` of its calls take."""
    done, rest = (sum(SECONDS[call[0]] for call in some) for some in (calls[:number], calls[number:]))
    return (TRAINING + done) / (TRAINING + done + rest)
