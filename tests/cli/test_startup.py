"""Help and refusals are cheap: what is slow to load stays out, and a wrong call is refused before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.startup import REFUSED

RUN = """
import sys
from tprune.cli.main import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
print(code, *sorted({{{names}}} & set(sys.modules)))
"""
SLOW = ("torch", "transformers", "datasets", "onnxruntime", "sacrebleu", "accelerate")
UNUSED = ("rich", "numpy", "matplotlib", "safetensors", "num2words")  # by what only parses and prints plain lines


def loaded(call: tuple[str, ...], names: tuple[str, ...], folder: Path) -> tuple[int, list[str], str]:
    """Return the exit code of a call, which modules it loaded, and what it printed on stderr."""
    code = RUN.format(names=", ".join(map(repr, names)))
    done = subprocess.run([sys.executable, "-c", code, *call], cwd=folder, capture_output=True, text=True, check=False)
    ended, *found = done.stdout.splitlines()[-1].split()
    return int(ended), found, done.stderr


@pytest.mark.parametrize("call", REFUSED, ids=lambda call: " ".join(call[:1] + call[-2:])[:40])
def test_a_wrong_call_is_refused_before_anything_slow_is_loaded(tmp_path: Path, call: tuple[str, ...]):
    code, found, err = loaded(call, SLOW, tmp_path)
    assert (code, found) == (2, []), err
    assert err.startswith("tprune: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [("--help",), ("--version",), ("prune", "--help"), ("verify", "nosuch")])
def test_help_and_plain_refusals_load_what_they_need_only(tmp_path: Path, call: tuple[str, ...]):
    code, found, err = loaded(call, (*SLOW, *UNUSED), tmp_path)
    assert (code, found) == (2 if call[0] == "verify" else 0, []), err


@pytest.mark.parametrize(
    ("verb", "plan"),
    [
        (("prune",), "keep 50% of the prunable weights by shs, 200 steps under the penalty, 400 steps of fine-tuning"),
        (("prune", "--criterion", "random"), "by random, 200 more steps, 400 steps of fine-tuning"),
        (("prune", "--max-bleu-drop", "2"), "keep as few weights as 2 % BLEU loss allows by shs"),
        (("analyse",), "runs of 40 steps for each block type at strengths 0.5, 1, 2"),
    ],
)
def test_a_dry_run_says_what_would_be_done_without_torch(tmp_path: Path, verb: tuple[str, ...], plan: str):
    (tmp_path / "dense").mkdir()
    (tmp_path / "dense" / "config.json").write_text('{"model_type": "marian"}')
    for name in ("train.en", "train.de", "val.en", "val.de"):
        (tmp_path / name).write_text("one\n")
    call = (*verb, "dense", "--data", ".", "--out", "small", "--dry-run")
    code, found, _ = loaded(call, SLOW, tmp_path)
    assert (code, found) == (0, [])
    run = [sys.executable, "-m", "tprune", *call]
    said = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"would {verb[0]} dense ") and plan in said.stdout
    assert said.stdout.endswith(", and write small\n") and not (tmp_path / "small").exists()


def test_the_version_is_one_line():
    done = subprocess.run([sys.executable, "-m", "tprune", "--version"], capture_output=True, text=True, check=True)
    name, number = done.stdout.split()
    assert (name, done.stderr) == ("tprune", "") and number[0].isdigit()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("prune --criterion ", "shs group-lasso magnitude taylor random"),
        ("export --to ", "onnx executorch"),
        ("export --precision i", "int8"),
        ("cnn export --precision f", "fp32"),
        ("bench --mode s", "spaced sustained"),
        ("simulate resnet18-", "resnet18-32 resnet18-224"),
    ],
)
def test_completion_offers_the_legal_values(words: str, offered: str):
    asked = {"_TPRUNE_COMPLETE": "complete_bash", "COMP_WORDS": f"tprune {words}"}
    asked["COMP_CWORD"] = str(words.count(" ") + 1)
    code = "import sys; sys.argv[0] = 'tprune'; from tprune.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert set(offered.split()) <= set(done.stdout.split()), done.stderr


def test_completion_for_bash_lists_the_verbs():
    asked = {"_TPRUNE_COMPLETE": "complete_bash", "COMP_WORDS": "tprune e", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'tprune'; from tprune.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["expand", "evaluate", "export"], done.stderr
