"""What the README and the documentation tell people to type: commands, flags and their values, and Python."""

from __future__ import annotations

import ast
import importlib.util
import re
from importlib import import_module
from pathlib import Path

import pytest
import tomllib
from typer.main import get_command

from tests.support import pages
from tests.support.pages import PAGES, ROOT, Block
from tprune.cli.main import app

SHELL = pages.blocks("sh", "bash", "console")
LANGUAGES = {"sh", "python", "text", "toml", ""}
OTHERS = {"source", "adb"}  # programs that are not ours
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def verb(words: list[str]):
    """Return the command that the words after `tprune` name, and the words after that name."""
    command, rest = get_command(app), list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def check(words: list[str]) -> None:
    """Raise unless this command line could be run: its verb, flags and values for ours, its name for others."""
    if re.fullmatch(r"[A-Z_]+=.*", words[0]):
        return
    if words[0] == "tprune":
        command, rest = verb(words[1:])
        assert not getattr(command, "commands", None) or rest == ["--help"], f"{' '.join(words)}: no such verb"
        command.make_context(words[1], rest)
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), f"no module {words[2]}"
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), f"no file {words[1]}"
    elif words[0] == "make":
        assert set(words[1:]) <= TARGETS, f"Makefile has no {words[1:]}"
    else:
        assert words[0] in OTHERS, f"{words[0]}: a program that this test does not know"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_line_parses(block: Block) -> None:
    for words in pages.commands(block):
        check(words)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tprune prnue model", "no such verb"),
        ("tprune verify small --fast", "No such option"),
        ("tprune bench a --data d --blocks many", "valid integer"),
        ("tprune export small --out x", "Missing parameter: data"),
        ("python -m tprune.bench.bundle", "no module"),
        ("make demos", "Makefile has no"),
        ("curl x", "does not know"),
    ],
)
def test_a_command_line_that_cannot_be_run_is_seen(line: str, message: str) -> None:
    (words,) = pages.commands(Block("x", 1, "sh", line))
    with pytest.raises(Exception, match=message):
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_flags_in_the_text_exist(page: Path) -> None:
    known = {flag for command in every(get_command(app)) for parameter in command.params for flag in parameter.opts}
    known |= {"--help", "--preset", "--build", "--count"}  # CMake's and tests/fuzz.py's
    native = set(re.findall(r"`(--[a-z-]+)", pages.text("android_runner/README.md")))
    for span in pages.spans(page):
        words = span.split()
        if words[0] == "tprune" and len(words) > 1:
            command, rest = verb(words[1:])
            assert command is not get_command(app) or not rest or rest[0].startswith(("-", "[")), (
                f"`{span}`: no such verb"
            )
            flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert flags <= {flag for parameter in command.params for flag in parameter.opts} | {"--help"}, f"`{span}`"
        elif words[0].startswith("--") and page.parent.name != "android_runner":
            flags = {word for word in words if word.startswith("--")}
            assert flags <= known | native, f"`{span}`: no verb has {sorted(flags - known)}"
        elif words[:2] == ["python", "-m"] and len(words) > 2:
            assert importlib.util.find_spec(words[2]), f"`{span}`: no such module"
        elif words[0] == "make":
            assert set(words[1:]) <= TARGETS, f"`{span}`: no such target"
        elif words[:2] == ["pip", "install"]:
            extras = re.findall(r"\[(.*)\]", span)
            assert not extras or set(extras[0].split(",")) <= EXTRAS.keys(), f"`{span}`: no such extra"


def every(command) -> list:
    """Return a command and all below it."""
    return [command, *(one for child in getattr(command, "commands", {}).values() for one in every(child))]


def test_every_block_names_a_language_that_a_test_knows() -> None:
    for page in PAGES:
        if page.parent.name not in {"android_runner", "results"}:
            for language, code in pages.FENCE.findall(page.read_text(encoding="utf-8")):
                assert language in LANGUAGES - {""}, f"{page.name}: {language!r} {code[:40]!r}"


@pytest.mark.parametrize("block", pages.blocks("python"), ids=str)
def test_python_compiles_and_what_it_imports_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                assert hasattr(import_module(node.module), alias.name) or importlib.util.find_spec(full), full


@pytest.mark.parametrize("block", pages.blocks("toml"), ids=str)
def test_toml_parses(block: Block) -> None:
    tomllib.loads(block.code)
