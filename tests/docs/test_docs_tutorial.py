"""The tutorial's commands, as they are written, run on a tiny random model."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.command import tprune, write_data, write_model

# What makes a step small; nothing of the tutorial's own words is changed.
SMALL = {
    "analyse": ("--quick", "--steps", "1"),
    "prune": ("--steps", "6", "--finetune-steps", "1", "--round-to", "2"),
    "export": ("--limit", "3"),
    "bench": ("--blocks", "1", "--limit", "4", "--warmup", "1"),
    "compare": ("--blocks", "1", "--limit", "4", "--warmup", "0"),
}
LINES = [words for block in pages.blocks("sh", page="docs/journey.md") for words in pages.commands(block)]
PHONE = [words for block in pages.blocks("sh", page="docs/phone.md") for words in pages.commands(block)]


def run(lines: list[list[str]], names: dict[str, str]) -> None:
    """Run command lines in the current folder."""
    for words in lines:
        if words[0] == "tprune" and "--size" not in words:
            given = [names.get(word, word) for word in words[1:]]
            called = tprune(*given, *SMALL.get(given[0], ()))
            assert called.code == 0, f"{' '.join(words)}: {called.err}"


def test_the_tutorial(
    tiny_config, tiny_tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "dense", tiny_config(), tiny_tokenizer_folder)
    write_data(tmp_path / "my-corpus")
    names = {"$MODEL": "dense", "$DATA": "my-corpus"}
    rivals = importlib.util.find_spec("ctranslate2") is not None and shutil.which("cmake") is not None
    run([words for words in LINES if rivals or words[1] != "compare"], names)
    assert {"small", "small-stock", "small-taught", "onnx", "quality", "records.jsonl", "report"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert (tmp_path / "report" / "report.html").is_file()
    assert len(LINES) > 15
