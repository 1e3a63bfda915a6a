from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from tprune.base.errors import BadInput
from tprune.base.stamp import (
    SCHEMA,
    check_file,
    check_vacant,
    file_sha256,
    new_folder,
    stamp,
    versions,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_stamp_says_what_when_from_what_and_with_what(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/tprune", "export", "model"])
    header = stamp("artefact", {"model": "0123456789abcdef"})
    assert header["schema"] == SCHEMA
    assert header["kind"] == "artefact"
    assert header["inputs"] == {"model": "0123456789abcdef"}
    assert header["argv"] == ["tprune", "export", "model"]  # the folder of the command is nobody's business
    assert header["created"].endswith("+00:00")
    assert header["versions"] == versions()
    assert header["versions"]["python"] == "{}.{}.{}".format(*sys.version_info)
    json.dumps(header, allow_nan=False)


def test_the_digest_of_a_file_is_the_known_one(tmp_path):
    file = tmp_path / "abc"
    file.write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert file_sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_text_is_written_in_new_folders_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "new" / "text"
    write_text(path, "eins\n")
    write_text(path, "größer\n")
    assert path.read_text(encoding="utf-8") == "größer\n"
    assert names(path.parent) == ["text"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_keeps_the_old_text_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "text"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_text(path, "half \ud800")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": math.nan})
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["text"]


def test_a_new_folder_appears_whole(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert names(out) == ["a"]
    assert names(out.parent) == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_may_become_the_output(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path / "out") == ["a"]


@pytest.mark.parametrize("error", [RuntimeError("parity lost"), KeyboardInterrupt("stop"), OSError(28, "disk full")])
def test_a_new_folder_vanishes_when_its_block_fails(tmp_path, error):
    with pytest.raises(type(error), match="parity lost|stop|disk full"), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise error
    assert names(tmp_path) == []


def test_an_output_that_would_overwrite_something_is_refused(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(BadInput, match=r"output folder '.*full' exists and is not empty; name a new one"):
        check_vacant(tmp_path / "full")
    with pytest.raises(BadInput, match=r"output '.*/a' is a file; name a folder"):
        check_vacant(tmp_path / "full" / "a")
    with pytest.raises(BadInput, match=r"output '.*/link' is a file"):
        check_vacant(tmp_path / "link")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(BadInput, match=r"output folder '\.' is a link, a mount point or the current folder"):
        check_vacant(".")
    assert check_vacant(tmp_path / "none") == tmp_path / "none"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # as a file system mounted read-only
    message = r"output folder '.*a/b' cannot be created: '.*' is not writable; choose another location"
    with pytest.raises(BadInput, match=message):
        check_vacant(tmp_path / "a" / "b")
    with pytest.raises(BadInput, match=message), new_folder(tmp_path / "a" / "b"):
        pass
    assert names(tmp_path) == []


def test_a_place_below_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out", tmp_path / "file" / "a" / "out"):
        with pytest.raises(BadInput, match=r"output folder '.*out' cannot be created: '.*/file' is not a folder"):
            check_vacant(out)
        with pytest.raises(BadInput, match=r"--out '.*out' cannot be created: '.*/file' is not a folder; choose"):
            check_file("--out", out)
    with pytest.raises(BadInput, match="--out '.*' is a folder; name a file in it"):
        check_file("--out", tmp_path)
    check_file("--out", None)
    check_file("--out", tmp_path / "file")
    check_file("--out", tmp_path / "new" / "file")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc, where even root creates nothing")
def test_a_place_where_even_root_creates_nothing_is_refused():
    with pytest.raises(BadInput, match=r"output folder '/proc/x' cannot be created: '/proc' is not writable"):
        check_vacant("/proc/x")


WRITER = """
import sys, time
from tprune.base.stamp import new_folder
with new_folder(sys.argv[1]) as folder:
    (folder / "half").touch()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Start a process that is busy writing the folder `out`, and end it afterwards."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_what_a_killed_process_left_goes_when_the_folder_is_written_again(tmp_path, writer):
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert [name for name in names(tmp_path) if name.endswith(".part")]
    assert not (tmp_path / "out").exists()
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["whole"]


def test_what_a_living_process_is_writing_is_left_alone(tmp_path, writer):
    write_text(tmp_path / "out", "text")  # the same name, which is what would make it look for leftovers
    assert writer.poll() is None
    assert [name for name in names(tmp_path) if name.startswith(".out.") and name.endswith(".part")]
