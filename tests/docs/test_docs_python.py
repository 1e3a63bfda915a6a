"""The Python blocks of the README and the documentation run, on tiny random models."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import tprune
from tests.support import pages, pictures
from tests.support.command import write_data, write_model
from tprune.cnn import nets, network
from tprune.pruning import criteria, scores

# What makes a step small; the blocks are otherwise run as they are written.
SMALL = {
    "Helsinki-NLP/opus-mt-en-de": "./dense",
    "distill=True)": "distill=True, steps=6, finetune_steps=1, round_to=2)",
    "quick=True": "quick=True, steps=1, dev_limit=2",
    'on="host"': 'on="host", blocks=1, warmup=1',
    "keep=0.5, strengths": "steps=6, finetune_steps=1, round_to=2, strengths",
    "resnet18-32": "vgg16-32",
    "hold_out(5000)": "hold_out(20)",
    "epochs=12": "epochs=1",
}


def code(page: str) -> list[str]:
    """Return the Python blocks of a page with small steps."""
    found = []
    for block in pages.blocks("python", page=page):
        text = block.code
        for big, small in SMALL.items():
            text = text.replace(big, small)
        found.append(text)
    return found


@pytest.fixture
def folder(tiny_config, tiny_tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with a dense model and a corpus."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "dense", tiny_config(), tiny_tokenizer_folder)
    write_data(tmp_path / "my-corpus")
    return tmp_path


def test_the_readme(folder: Path) -> None:
    (block,) = code("README.md")
    exec(block, {})  # noqa: S102 - the page's own lines
    assert (folder / "small" / "plan.json").is_file()


def test_the_page_on_python(folder: Path) -> None:
    names: dict[str, object] = {}
    *translation, _ = code("docs/python.md")
    for block in translation:
        exec(block, names)  # noqa: S102 - the page's own lines
    assert type(names["model"]).__name__ == "PrunedMarianMTModel"
    assert (folder / "report" / "report.html").is_file() and (folder / "quality" / "small.json").is_file()


def test_an_image_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures.write(tmp_path / "cifar10", (3, 32, 32), train=60, test=10)
    names: dict[str, object] = {"my_module": nets.NETS["resnet20"].build(10)}
    exec(code("docs/python.md")[-1], names)  # noqa: S102 - the page's own lines
    again = network.load(tmp_path / "small", build=nets.NETS["resnet20"].build)
    assert again.net == "mine" and again.id == names["mine"].id


def test_the_example_of_a_criterion(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria, "CRITERIA", dict(criteria.CRITERIA))
    monkeypatch.syspath_prepend(folder)
    function, row = code("docs/extending.md")
    (folder / "largest.py").write_text(function, encoding="utf-8")
    exec(row, {})  # noqa: S102 - the page's own lines
    score = criteria.function(criteria.CRITERIA["largest-first"].scores)
    found = score(tprune.load("dense").model, scores.Evidence())
    assert found and all((lines <= 0).all() for lines in found.values())


def test_the_site_generator_is_of_the_extra_docs() -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("needs the extra docs")
    assert importlib.util.find_spec("mkdocstrings_handlers.python")
