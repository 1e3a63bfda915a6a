"""What reaches the screen: one JSON object or lines, and every failure as one line with its exit code."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
import typer
from rich.table import Table
from safetensors import SafetensorError

from tprune import terminal
from tprune.errors import BadInput, WorkFailed


def test_json_is_one_line_on_stdout(capsys) -> None:
    terminal.answer({"bleu": 1.5, "text": "läuft"}, as_json=True, lines=["not this"], table=Table("nor this"))
    said = capsys.readouterr()
    assert (said.out, said.err) == ('{"bleu": 1.5, "text": "läuft"}\n', "")
    assert json.loads(said.out) == {"bleu": 1.5, "text": "läuft"}


def test_a_person_gets_the_table_and_the_lines_as_they_are(capsys) -> None:
    table = Table("model", "BLEU")
    table.add_row("dense", "39.74")
    long = "[bold]no markup[/bold] " + "a path/that/is/long " * 20
    terminal.answer({"bleu": 1.5}, as_json=False, lines=[long, "second"], table=table)
    said = capsys.readouterr()
    assert "39.74" in said.out
    assert said.out.splitlines()[-2:] == [long, "second"]  # not wrapped: paths must stay whole
    assert (said.err, "bleu" in said.out) == ("", False)


def test_progress_is_for_terminals_only(capsys) -> None:
    with terminal.bar() as show:
        show("train", 1, 10, "loss 2.3")
        show("train", 2, 10, "loss 2.2")
    assert capsys.readouterr() == ("", "")


def ends(app: Any) -> int:
    with pytest.raises(SystemExit, match=r"^\d$") as caught:
        terminal.run(app)
    code = caught.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BadInput("--keep 1.5: must be less"), 2, "--keep 1.5: must be less"),
        (WorkFailed("loss is nan at step 3"), 1, "loss is nan at step 3"),
        (BadInput("two\nlines  and\tblanks"), 2, "two lines and blanks"),
        (FileNotFoundError(2, "No such file or directory", "a/b.json"), 1, "No such file or directory (a/b.json)"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (SafetensorError("I/O error: No space left"), 1, "I/O error: No space left"),
        (KeyboardInterrupt(), 1, "interrupted; give the same command again"),
        (typer.Abort(), 1, "interrupted; give the same command again"),
        (typer.BadParameter("must be a number"), 2, "Invalid value: must be a number"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(capsys, error: BaseException, code: int, line: str) -> None:
    def app(**_: object) -> None:
        raise error

    assert ends(app) == code
    assert capsys.readouterr() == ("", f"tprune: {line}\n")


def test_a_bug_keeps_its_traceback() -> None:
    def app(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        terminal.run(app)


@pytest.fixture
def app(monkeypatch) -> typer.Typer:
    """A command line of one verb, which can be told how to end."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

    @app.command()
    def verb(end: str, times: Annotated[int, typer.Option(min=1)] = 1) -> None:
        if end == "interrupted":
            raise KeyboardInterrupt
        if end == "bad":
            raise BadInput("end 'bad': must be good")
        typer.echo(f"{end} {times}")

    @app.command()
    def other() -> None:
        """A second verb, so that verbs have to be named."""

    return app


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["verb", "interrupted"], 1, "interrupted; give the same command again"),
        (["verb", "bad"], 2, "end 'bad': must be good"),
        (["verb", "good", "--times", "0"], 2, "Invalid value for '--times'"),
        (["verb"], 2, "Missing argument 'end'"),
        (["verb", "good", "--nothing"], 2, "No such option: --nothing"),
        (["nothing"], 2, "No such command 'nothing'"),
    ],
)
def test_typer_and_its_ctrl_c(app, monkeypatch, capsys, words: list[str], code: int, line: str) -> None:
    """Typer brings its own click and turns Ctrl-C into a return value; neither may reach the user."""
    monkeypatch.setattr("sys.argv", ["tprune", *words])
    assert ends(app) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"tprune: {line}") and said.err.count("\n") == 1


def test_a_verb_that_is_done(app, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["tprune", "verb", "good", "--times", "2"])
    terminal.run(app)
    assert capsys.readouterr() == ("good 2\n", "")


def test_no_arguments_give_the_help(app, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["tprune"])
    assert ends(app) == 2
    assert capsys.readouterr().err.startswith("Usage: ")


def test_a_call_within_a_call_lets_everything_through(app) -> None:
    with pytest.raises(KeyboardInterrupt, match="^$"):
        terminal.call(app, ["verb", "interrupted"])
    with pytest.raises(BadInput, match="must be good"):
        terminal.call(app, ["verb", "bad"])


def test_one_budget_only() -> None:
    terminal.only_one({"--keep": None, "--strength": 0.0})
    terminal.only_one({"--keep": None, "--strength": None})
    with pytest.raises(BadInput, match="--keep and --strength exclude each other: give one of --keep, --strength"):
        terminal.only_one({"--keep": 0.5, "--strength": 0.0})


def test_one_of_the_legal_values() -> None:
    terminal.one_of("--to", "onnx", ("onnx", "tflite"))
    with pytest.raises(BadInput, match="--to 'coreml': must be onnx or tflite"):
        terminal.one_of("--to", "coreml", ("onnx", "tflite"))


def test_a_flag_that_means_something_elsewhere_only():
    terminal.only_for("records.jsonl", {"--artefact": None})
    with pytest.raises(BadInput, match=r"--artefact and --device: only for records\.jsonl"):
        terminal.only_for("records.jsonl", {"--artefact": "x", "--device": "y"})
