"""The Python interface: names, types, help, cost of the import, settings as keywords, short results."""

from __future__ import annotations

import ast
import os
import pydoc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tprune
from tests.support import runs

ROOT = Path(__file__).resolve().parents[1]
FACES = {"tprune": "tprune", "tprune.export": "export", "tprune.bench": "bench"}
CONTRACT = {
    "tprune": "load load_corpus analyse prune evaluate verify expand save to_onnx to_executorch run report simulate "
    "Settings AnalysisSettings Checkpoint Corpus Sensitivity Pruned Verdict Quality Record Simulation Plan BadInput "
    "WorkFailed",
    "tprune.export": "to_onnx to_executorch network_to_onnx network_to_executorch Manifest",
    "tprune.bench": "run simulate Settings Record",
}


@pytest.mark.parametrize("face", FACES)
def test_every_promised_name_exists_and_is_listed(face: str) -> None:
    module = import_module(face)
    names = CONTRACT[face].split()
    assert set(names) <= set(module.__all__) == set(dir(module))
    assert all(getattr(module, name).__name__ == name or name == "load_corpus" for name in names)
    with pytest.raises(AttributeError, match=rf"module '{face}' has no attribute 'prun'; it has .*{names[0]}"):
        _ = module.prun


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_see_the_names_that_are_imported(face: str) -> None:
    source = (ROOT / FACES[face] / "__init__.py").read_text(encoding="utf-8")
    checked = {
        alias.asname: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert checked == import_module(face)._PUBLIC


def test_importing_is_cheap() -> None:
    """Measured as CPU time over that of an empty interpreter, the least of a few runs: other programs run here too."""

    def cpu(code: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(cpu("import tprune, tprune.export, tprune.bench") for _ in range(3)) < 0.1 + min(
        cpu("pass") for _ in range(3)
    )


def test_help_shows_the_public_functions() -> None:
    text = pydoc.plain(pydoc.render_doc(tprune))
    for name in ("prune(", "evaluate(", "to_onnx(", "class Quality"):
        assert name in text


SAMPLE = """
from typing_extensions import assert_type
from transformers import MarianMTModel
import tprune
from tprune.bench import run
from tprune.export import to_onnx

dense = tprune.load("dense")
assert_type(dense, tprune.Checkpoint)
train = tprune.load_corpus("data", split="train")
assert_type(train, tprune.Corpus)
found = tprune.analyse(dense, train, train, quick=True)
assert_type(found, tprune.Sensitivity)
pruned = tprune.prune(dense, train, dev=train, keep=0.5)
assert_type(pruned, tprune.Pruned)
small = pruned.save("small")
assert_type(small, tprune.Checkpoint)
assert_type(tprune.verify(small, dense).passed, bool)
quality = tprune.evaluate(small, train, versus=tprune.evaluate(dense, train))
assert_type(quality, tprune.Quality)
assert_type(quality.p_value, float | None)
artefact = tprune.to_onnx(small, "onnx", precision="int8", dev=train)
assert_type(artefact, tprune.Manifest)
assert_type(tprune.to_executorch(small, "et", dev=train), tprune.Manifest)
assert_type(run([artefact, "onnx/dense"], train, on="adb", threads=2), list[tprune.Record])
assert_type(tprune.simulate("resnet18-32").rows[0].cycles, int)
tprune.prun  # type: ignore[attr-defined]
reveal_type(to_onnx)
reveal_type(tprune.report)
"""


@pytest.mark.slow
def test_a_strict_type_checker_sees_real_types(tmp_path: Path) -> None:
    packages = tmp_path / "types" / "tprune"
    packages.mkdir(parents=True)
    for entry in [*(ROOT / "tprune").iterdir(), *(ROOT / name for name in ("cnn", "export", "bench"))]:
        (packages / entry.name).symlink_to(entry)
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE, encoding="utf-8")
    cache = ROOT / ".mypy_cache" / "face"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
        + ["--cache-dir", str(cache), str(sample)],
        env=os.environ | {"MYPYPATH": str(tmp_path / "types")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    revealed = [line.partition("Revealed type is ")[2] for line in done.stdout.splitlines() if "Revealed" in line]
    assert len(revealed) == 2 and all(line.startswith('"def (') for line in revealed), done.stdout


@pytest.mark.parametrize(
    ("call", "legal"),
    [
        (lambda: tprune.prune(None, None, kep=0.5), "keep, criterion, steps"),
        (lambda: tprune.analyse(None, None, None, stepps=3), "strengths, steps"),
        (lambda: tprune.run(["nowhere"], [[0]], thread=2), "threads, blocks"),
    ],
)
def test_an_unknown_keyword_is_refused_with_the_legal_ones(call, legal: str) -> None:
    with pytest.raises(TypeError, match=rf"unexpected keyword '\w+'; legal are {legal}"):
        call()


def test_results_are_one_line_and_a_small_table() -> None:
    half = runs.model("half <b>", "shs", 0.5)
    quality = tprune.Quality(runs.quality(half, 39.0))
    assert repr(quality) == (
        "Quality('half <b>': BLEU 39.00, chrF 61.50 on 1,000 sentences of test_2016_flickr; dense 39.74, p = 0.012)"
    )
    assert (quality.bleu, quality.chrf, quality.p_value) == (39.0, 61.5, 0.012)
    html = quality._repr_html_()
    assert html.startswith("<table>") and "half &lt;b&gt;" in html and "<b>" not in html
    assert repr(runs.timed(half, 0, [5, 15])).endswith("1 thread, block 0: VALID, median 15.00 ms)")
    simulated = tprune.simulate("resnet18-32", designs=("escalate", "eyeriss"))
    assert "\n" not in repr(simulated) and [row.design for row in simulated.rows] == ["escalate", "eyeriss"]
    assert simulated._repr_html_().count("<tr>") == 3
    with pytest.raises(tprune.BadInput, match="fidelity 'rough': must be auto or exact or statistical"):
        tprune.simulate("resnet18-32", fidelity="rough")
