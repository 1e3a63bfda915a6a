"""A benchmark on a fake phone: its bundle starts fake_runner.py, and its artefacts choose how that behaves."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.artefacts import write_manifest
from tests.support.fake_adb import FakePhone
from tprune.base.stamp import file_sha256
from tprune.bench.libraries.abi import named
from tprune.bench.measure import host
from tprune.bench.measure.record import Record
from tprune.bench.measure.settings import Settings
from tprune.bench.phone import fleet, station
from tprune.bench.phone.bundle import Bundle, identity
from tprune.bench.runner.contract import PROGRAMS
from tprune.export.manifest import FileEntry

RUNNER = Path(__file__).with_name("fake_runner.py")
SENTENCES = [[5, 6, 0], [7, 0], [8, 9, 10, 0]]
FAST = Settings(blocks=2, warmup=1)
# Instead of the loader: drops the loader's own words, obeys `faults/run` and becomes the fake runner.
LOADER = """#!/bin/sh
[ ! -e {phone}/faults/run ] || . {phone}/faults/run
shift 3
exec {python} -SE {runner} "$@"
"""


@pytest.fixture
def fake_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    """Return an attached fake phone with fake bundles; this machine computes no reference outputs."""
    phone = FakePhone(tmp_path / "phone")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TPRUNE_REMOTE", str(phone.storage))
    monkeypatch.setattr(host, "references", lambda plan: {})
    monkeypatch.setattr(station.bundle, "assemble", lambda abi, runtime, **_: make_bundle(phone.folder, abi, runtime))
    return phone


def make_bundle(phone: Path, abi: str, runtime: str) -> Bundle:
    """Write a bundle whose loader becomes the fake runner."""
    folder = phone.parent / f"bundle-{abi}-{runtime}"
    folder.mkdir(exist_ok=True)
    loader = LOADER.format(phone=phone, python=sys.executable, runner=RUNNER)
    (folder / named(abi).loader).write_text(loader)
    (folder / PROGRAMS[runtime]).write_text("")
    files = {path.name: file_sha256(path) for path in folder.iterdir()}
    return Bundle(folder, abi, runtime, identity(files), files, {runtime: "1.0"})


def hangs(phone: FakePhone) -> None:
    """Block the runner unless there is a file `fast`; the file `runner` holds its process id."""
    os.mkfifo(phone.folder / "fifo")
    phone.fault("run", "[ -e $phone/fast ] || { echo $$ >$phone/runner; read line <$phone/fifo; }")


@pytest.fixture
def fake_artefact(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes an artefact; its only graph controls the fake runner."""

    def make(name: str, runtime: str = "onnxruntime", file: str = "behave.json", **behave: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "behave.json").write_text(json.dumps({"name": name, **behave}))
        data = (folder / "behave.json").read_bytes()
        files = {file: FileEntry(hashlib.sha256(data).hexdigest(), len(data))}
        write_manifest(folder, files, runtime)
        return folder

    return make


@pytest.fixture
def measure(fake_phone: FakePhone, tmp_path: Path) -> Callable[..., list[Record]]:
    """Return a function that calls fleet.run with shared arguments; `out` is records.jsonl."""

    def call(*artefacts: Path, settings: Settings = FAST, **options: Any) -> list[Record]:
        options = {"adb": str(fake_phone.adb), "out": tmp_path / "records.jsonl", **options}
        return fleet.run(artefacts, SENTENCES, settings=settings, **options)

    return call
