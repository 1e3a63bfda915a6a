"""The command line called inside the test's own process, and the small folders that its tests start from."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import MarianConfig, MarianMTModel
from transformers.utils import logging

from tests.conftest import SENTENCES, randomised
from tprune.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 16  # target tokens at most: random models do not know when to stop


@dataclass(frozen=True)
class Called:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert self.code == 0, self.err
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def check_failed(self, code: int, part: str) -> None:
        """Assert that it ended with `code` and one line on stderr that holds `part`, and said nothing on stdout."""
        assert (self.code, self.out) == (code, ""), self.err
        assert self.err.count("\n") == 1 and self.err.startswith("tprune: "), self.err
        assert part in self.err


def tprune(*args: object) -> Called:
    """Run `tprune *args` in this process, on one thread where the verb has a choice."""
    words = [str(arg) for arg in args]
    if words and words[0] in {"analyse", "prune", "evaluate"}:
        words += ["--threads", "1"]
    logging.disable_progress_bar()  # the command's own environment does it, but here transformers came first
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tprune", *words])
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Called(code, out.getvalue(), err.getvalue())


def start(*args: object, code: str = "from tprune.cli.main import main; main()") -> subprocess.Popen[str]:
    """Start `tprune *args` (or Python `code` with these arguments) in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_model(folder: Path, config: MarianConfig, tokenizer: Path) -> Path:
    """Write a random stock Marian with its tokenizer to `folder`."""
    model = randomised(MarianMTModel(config))
    model.generation_config.max_length = LENGTH
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copy(file, folder)
    return folder


def write_data(folder: Path) -> Path:
    """Write the splits train, val and test, six sentence pairs each."""
    folder.mkdir()
    for split in ("train", "val", "test"):
        for language, lines in (("en", SENTENCES[:6]), ("de", SENTENCES[6:])):
            (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def contents(folder: Path) -> set[str]:
    """Return the names of everything below a folder, hidden things too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of `size` at the new folder `place`; the test is skipped where that is not allowed."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs (root)")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], capture_output=True, check=True)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait until something became true that a running process does, five minutes at most."""
    for _ in range(60_000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError("waited five minutes in vain")


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something became true, five minutes at most: a busy machine needs many times what a free one does."""
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.025)
    raise AssertionError("waited five minutes in vain")
