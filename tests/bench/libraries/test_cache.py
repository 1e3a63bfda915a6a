"""The cache: an entry is whole or not there, made once, and made again when it was changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.command import ROOT, contents
from tprune.bench.libraries import cache


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Return the folder of a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tprune"


def fill(folder: Path) -> dict[str, str]:
    (folder / "include").mkdir()
    (folder / "include" / "a.h").write_bytes(b"int a;")
    return {"version": "1.2"}


def never(folder: Path) -> dict[str, str]:
    raise AssertionError(f"{folder} was filled again")


def test_an_entry_is_made_once(place):
    made = cache.keep("wheel", "a-1.2", fill)
    assert made.folder == place / "wheels" / "a-1.2"
    assert (list(made.files), made.facts) == (["include/a.h"], {"version": "1.2"})
    assert cache.keep("wheel", "a-1.2", never) == cache.find("wheel", "a-1.2") == made


def test_what_is_not_there_is_not_found(place):
    assert cache.find("wheel", "b") is None
    assert not place.exists()


@pytest.mark.parametrize("damage", ["change", "remove", "document", "not json"])
def test_a_damaged_entry_is_made_again(damage):
    made = cache.keep("wheel", "a", fill)
    if damage == "change":
        (made.folder / "include/a.h").write_bytes(b"int b;")
    elif damage == "remove":
        (made.folder / "include/a.h").unlink()
    else:
        (made.folder / "wheel.json").write_text("[]" if damage == "document" else "{", encoding="utf-8")
    assert cache.find("wheel", "a") is None
    assert cache.keep("wheel", "a", fill) == made == cache.find("wheel", "a")


def test_nothing_stays_of_a_failure(place):
    with pytest.raises(AssertionError, match="was filled again"):
        cache.keep("wheel", "a", never)
    assert contents(place) == {"wheels", "wheels/.a.lock"}


def test_a_relative_folder_is_ignored_as_the_specification_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.folder() == Path("/home/somebody/.cache/tprune")


def test_many_at_once_make_it_once():
    made = []

    def slow(folder: Path) -> dict[str, str]:
        made.append(folder)
        return fill(folder)

    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: cache.keep("wheel", "a", slow), range(8)))
    assert len(made) == 1
    assert entries == [entries[0]] * 8


KILLED = """
import sys
from tprune.bench.libraries import cache
def fill(folder):
    (folder / "half").write_bytes(b"half")
    print("filling", flush=True)
    sys.stdin.read()
cache.keep("wheel", "a", fill)
"""


def test_a_killed_process_leaves_nothing_that_counts(place):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "filling\n"
        assert cache.find("wheel", "a") is None
        os.kill(process.pid, signal.SIGKILL)
    made = cache.keep("wheel", "a", fill)
    assert list(made.files) == ["include/a.h"]
    assert contents(place / "wheels") == {".a.lock", "a", "a/include", "a/include/a.h", "a/wheel.json"}


def test_a_new_entry_takes_the_place_of_what_nobody_uses(place):
    """Of its family goes what is a week old: not what was used since, is being made, or is of another family."""
    for name in ("ort-1", "ort-2", "ort-3", "et-1"):
        cache.keep("bundle", name, fill, "ort-*")
    for name in ("ort-1", "ort-2", "ort-3", "et-1"):
        os.utime(place / "bundles" / name / "bundle.json", (0, 0))
    assert cache.find("bundle", "ort-2")
    with cache._alone(place / "bundles" / "ort-3"):
        made = cache.keep("bundle", "ort-4", fill, "ort-*")
    assert {path.name for path in (place / "bundles").iterdir() if path.is_dir()} == {"ort-2", "ort-3", "ort-4", "et-1"}
    os.utime(made.folder / "bundle.json", (0, 0))
    assert cache.keep("bundle", "ort-4", never, "ort-*") == made  # used again: nothing is removed for that
    assert (place / "bundles" / "ort-3").is_dir()
