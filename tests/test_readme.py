"""What the README promises can be typed in: its Python runs, its commands and flags exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from tests.support import pictures
from tests.support.command import write_data, write_model
from tprune.cli.main import app
from tprune.cnn import nets, network

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_python_example_runs(tiny_config, tiny_tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "dense", tiny_config(), tiny_tokenizer_folder)
    write_data(tmp_path / "my-corpus")
    code = next(block for block in blocks("python") if block.startswith("import tprune"))
    code = code.replace("Helsinki-NLP/opus-mt-en-de", "./dense")
    code = code.replace("distill=True", "distill=True, steps=6, finetune_steps=1, round_to=2")
    assert "steps=6" in code
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - the README's own lines
    assert type(names["model"]).__name__ == "PrunedMarianMTModel"
    assert (tmp_path / "small" / "plan.json").is_file()


def test_the_python_example_of_an_image_network_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures.write(tmp_path / "cifar10", (3, 32, 32), train=60, test=10)
    code = next(block for block in blocks("python") if block.startswith("from tprune import cnn"))
    code = code.replace("hold_out(5000)", "hold_out(20)").replace("epochs=12", "epochs=1")
    names: dict[str, object] = {"my_module": nets.NETS["resnet20"].build(10)}
    exec(code, names)  # noqa: S102 - the README's own lines
    again = network.load(tmp_path / "small", build=nets.NETS["resnet20"].build)
    assert again.net == "mine" and again.id == names["mine"].id


@pytest.mark.parametrize(
    "line", [x for x in "\n".join(blocks("sh")).replace("\\\n", " ").splitlines() if x.startswith("tprune ")]
)
def test_every_command_and_flag_exists(line):
    words = line.partition("#")[0].split()
    verb = get_command(app).commands[words[1]]
    verb = verb.commands[words[2]] if words[1] == "cnn" else verb
    known = {flag for parameter in verb.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
