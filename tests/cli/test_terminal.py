"""What reaches the screen: one JSON object or lines, and every failure as one line with its exit code."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import warnings
from typing import Annotated, Any

import pytest
import typer
from rich.table import Table
from safetensors import SafetensorError

from tprune.base.errors import BadInput, Caution, WorkFailed, one_of, only_for, only_one
from tprune.base.threads import OPENMP_WAITS, spin_briefly, use_threads
from tprune.cli import terminal


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


@pytest.mark.parametrize(
    ("words", "resumes"),
    [("prune dense", True), ("analyse dense", True), ("bench a", True), ("cnn train", True), ("export dense", False)],
)
def test_ctrl_c_says_where_the_same_command_continues(capsys, monkeypatch, words: str, resumes: bool) -> None:
    def app(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["tprune", *words.split()])
    assert ends(app) == 1
    assert ("again to continue\n" in capsys.readouterr().err) == resumes


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
        (["verb", "good", "--times", "0"], 2, "Invalid value for '--times': '0' must be at least 1"),
        (["verb", "good", "--times", "x"], 2, "Invalid value for '--times': 'x' must be an integer"),
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
    only_one({"--keep": None, "--strength": 0.0})
    only_one({"--keep": None, "--strength": None})
    with pytest.raises(BadInput, match="--keep and --strength exclude each other: give one of --keep, --strength"):
        only_one({"--keep": 0.5, "--strength": 0.0})


def test_one_of_the_legal_values() -> None:
    one_of("--to", "onnx", ("onnx", "tflite"))
    with pytest.raises(BadInput, match="--to 'coreml': must be onnx or tflite"):
        one_of("--to", "coreml", ("onnx", "tflite"))


def test_a_flag_that_means_something_elsewhere_only():
    only_for("records.jsonl", {"--artefact": None})
    with pytest.raises(BadInput, match=r"--artefact and --device: only for records\.jsonl"):
        only_for("records.jsonl", {"--artefact": "x", "--device": "y"})


def test_without_a_terminal_progress_is_log_every_ten_seconds() -> None:
    now = [0.0]
    log = terminal.Log(clock=lambda: now[0])
    said = []
    for step in range(1, 41):
        now[0] += 1.0
        said.append(log.line("train", step, 40, "loss 2.1"))
    assert [line for line in said if line] == [
        "train: 10 of 40, about 30 s left, loss 2.1",
        "train: 20 of 40, about 20 s left, loss 2.1",
        "train: 30 of 40, about 10 s left, loss 2.1",
    ]
    assert log.line("export", 0, 0) is None  # how long it takes is not known
    assert log.line("export", 1, 800) is None
    now[0] += 20.0
    log.restart()
    now[0] += 12.0
    assert log.line("train", 1, 5) == "train: 1 of 5, about 50 s left"  # slow from its first step
    now[0] += 30.0
    assert log.line("test", 1, 5) == "test: 1 of 5, about 5 s left"
    now[0] += 10.0
    assert log.line("test", 2, 5) == "test: 2 of 5, about 15 s left"


def test_progress_is_log_only_where_it_is_asked_for(capsys, monkeypatch) -> None:
    monkeypatch.setattr(terminal, "LOG_EVERY", 0.0)
    with terminal.bar() as show:
        show("train", 1, 2, "")
    assert capsys.readouterr() == ("", "")
    with terminal.logged(), terminal.bar() as show:
        show("train", 1, 2, "")
    assert capsys.readouterr().err.startswith("train: 1 of 2, ")
    with terminal.bar() as show:
        show("train", 2, 2, "")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "about 5 s"), (42, "about 40 s"), (99, "about 100 s"), (100, "about 2 min"), (500, "about 8 min")],
)
def test_a_time_is_told_roughly(seconds: float, words: str) -> None:
    assert terminal.duration(seconds) == words


@pytest.mark.parametrize(
    ("taken", "allowed", "usable", "warned"),
    [(None, 2, 2.0, False), (0.0, 2, 2.0, False), (1.0, 2, 2.0, False), (1.9, 2, 2.0, True), (10.0, 64, 2.0, False)],
)
def test_a_busy_machine_is_named_early(
    capsys, monkeypatch, taken: float | None, allowed: int, usable: float, warned: bool
) -> None:
    monkeypatch.setattr(terminal.busy, "busy_cpus", lambda: taken)
    monkeypatch.setattr(terminal.processor, "allowed_cpus", lambda: allowed)
    monkeypatch.setattr(terminal.processor, "usable_cpus", lambda: usable)
    terminal.warn_if_busy()
    assert ("other programs keep 1.9 of 2 CPUs busy" in capsys.readouterr().err) == warned


def test_cautions_of_the_library_are_one_line_and_other_warnings_stay(capsys, monkeypatch) -> None:
    others = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: others.append(str(message)))
    with terminal.cautions():
        warnings.showwarning(Caution("mind the gap"), Caution, "x.py", 1)
        warnings.showwarning(UserWarning("an other one"), UserWarning, "x.py", 1)
    assert (capsys.readouterr().err, others) == ("mind the gap\n", ["an other one"])


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "'10000'"), ({"GOMP_SPINCOUNT": "77"}, "'77'"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "'0'")]
)
def test_threads_spin_for_a_moment_only_unless_the_caller_chose_otherwise(given: dict[str, str], spins: str) -> None:
    """GNU's OpenMP prints its settings as torch is loaded, after the command line has been imported."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs GNU's OpenMP")
    kept = {key: value for key, value in os.environ.items() if key not in OPENMP_WAITS}
    done = subprocess.run(
        [sys.executable, "-c", "import tprune.cli.main, torch"],
        env={**kept, **given, "OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"GOMP_SPINCOUNT = (\S+)", done.stderr)[1] == spins


def test_child_processes_do_not_inherit_the_spin_count(monkeypatch) -> None:
    for name in OPENMP_WAITS:
        monkeypatch.delenv(name, raising=False)
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    use_threads(1)
    assert not set(OPENMP_WAITS) & set(os.environ)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
