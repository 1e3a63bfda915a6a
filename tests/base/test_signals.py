"""SIGTERM and SIGHUP end a command as Ctrl-C does: one line, exit 1, nothing left, and the same call goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.artefacts import SENTENCES, write_artefact
from tests.support.command import wait_until
from tprune.base.signals import as_interrupts
from tprune.bench.measure import record, scratch
from tprune.cli import terminal

ROOT = Path(__file__).resolve().parents[2]
BENCH = """
import json, sys
from tprune.bench.measure import host
from tprune.cli import terminal
programs = {"onnxruntime": sys.argv[4:]}
terminal.run(lambda **_: host.run([sys.argv[1]], json.loads(sys.argv[2]), out=sys.argv[3], programs=programs))
"""
INTERRUPTED = "tprune: interrupted; give the same command again\n"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interrupt_in_the_block_only(how):
    before = signal.getsignal(how)
    with pytest.raises(KeyboardInterrupt, match="^$"), as_interrupts():
        try:
            os.kill(os.getpid(), how)
        finally:  # a second one does not disturb the unwinding
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(how) is before


def test_what_is_ignored_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_line_says_one_line(capsys):
    with pytest.raises(SystemExit, match="^1$"):
        terminal.run(lambda **_: os.kill(os.getpid(), signal.SIGTERM))
    assert capsys.readouterr() == ("", INTERRUPTED)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_benchmark_leaves_nothing_behind(tmp_path, how, monkeypatch):
    """After a kill -9, whose victim can clean nothing, the next benchmark does."""
    folder, out, temporary = write_artefact(tmp_path / "a", hang=2), tmp_path / "r.jsonl", tmp_path / "tmp"
    temporary.mkdir()
    fake = [sys.executable, str(Path(__file__).resolve().parents[1] / "support" / "fake_runner.py")]
    argv = [sys.executable, "-c", BENCH, str(folder), json.dumps(SENTENCES), str(out), *fake]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    wait_until(lambda: out.exists() and len(record.read(out)) >= 1 and any(temporary.glob("*/out")))
    process.send_signal(how)
    _, said = process.communicate(timeout=120)
    if how == signal.SIGKILL:
        (left,) = temporary.iterdir()
        os.utime(left, (time.time() - 2 * scratch.YOUNG,) * 2)
    else:
        assert (process.returncode, said) == (1, INTERRUPTED)
        assert not any(temporary.iterdir())
    (folder / "behave.json").write_text("{}")
    assert subprocess.run(argv, cwd=ROOT, check=False, env=environment).returncode == 0
    assert len(record.newest(record.read(out))) == 6
    assert not any(temporary.iterdir())


def test_scratch_of_others_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    young, mine = tmp_path / f"{scratch.PREFIX}young{scratch.SUFFIX}", tmp_path / "tprune-run"
    young.mkdir()
    mine.mkdir()
    with scratch.folder() as used:
        os.utime(used, (0, 0))
        with scratch.folder():
            assert used.is_dir()
    os.utime(young, (0, 0))
    with scratch.folder():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"tprune-run"}


def test_ctrl_c_while_the_command_is_imported():
    code = """
import sys
class Impatient:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient())
from tprune.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tprune: interrupted\n")
