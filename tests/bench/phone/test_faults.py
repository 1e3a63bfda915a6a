"""What goes wrong with devices, against the real adbd: one clear line, no record that looks valid, the next run works.

Nothing here is about ARM, so the doubles run native programs; that the tools see faults that adb itself would hide is
what these tests are for.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench.phone.test_bundle import real
from tests.double.device import Double
from tests.double.server import Server, serving
from tests.support.command import ROOT, wait_for
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries import abi
from tprune.bench.measure import record
from tprune.bench.measure.record import Record
from tprune.bench.measure.settings import Settings
from tprune.bench.phone import fleet, station

IDS = [[5, 6, 7, 0], [9, 8, 0]]
SLOW = Settings(blocks=1, warmup=0, mode="spaced")  # half a second of rest before each sentence: time to interfere
OURS = Path("data/local/tmp/tprune")


@pytest.fixture
def artefact(tiny_artefact: Callable[[str], Path]) -> Path:
    real(abi.named("x86_64"), "onnxruntime")
    return tiny_artefact("onnxruntime")


@pytest.fixture
def measure(at_adb: Server, artefact: Path, tmp_path: Path) -> Callable[..., list[Record]]:
    """Return `fleet.run` with what these tests have in common; records go to records.jsonl in tmp_path."""

    def call(*doubles: Double, **changes: Any) -> list[Record]:
        settings: dict[str, Any] = {"out": tmp_path / "records.jsonl", "settings": SLOW}
        settings["serials"] = [double.serial for double in doubles]
        return fleet.run([artefact], IDS, **(settings | changes))

    return call


@contextmanager
def during_a_run(double: Double, act: Callable[[str], object]) -> Iterator[None]:
    """Call `act` with the runner's process number on the device once it runs there; the block starts it."""
    ended = threading.Event()
    problems: list[BaseException] = []

    def watch() -> None:
        while not ended.wait(0.01):
            for pid in (double.root / OURS).glob("r-*/pid"):
                if (pid.parent / "out").is_dir() and (number := pid.read_text().strip()):
                    try:
                        act(number)
                    except BaseException as error:  # noqa: BLE001 - it is raised again below
                        problems.append(error)
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not problems, problems


def shell(server: Server, double: Double, script: str) -> str:
    return server.call("-s", double.serial, "shell", script)


def check_valid(records: list[Record]) -> None:
    """Assert that a benchmark ended normally."""
    assert [(one.block, one.verdict, one.identical) for one in records] == [
        (0, "EMULATED", len(IDS)),
        (-1, "EMULATED", None),
    ]


def check_interrupted(tmp_path: Path, why: str) -> None:
    """Assert that the records hold the failed block with its reason, and nothing that looks like a result."""
    (found,) = record.read(tmp_path / "records.jsonl")
    assert (found.verdict, found.complete) == ("INTERRUPTED", False)
    assert why in str(found.error)
    assert not (found.samples_ns or found.output_ids or found.memory or found.load_ns)


def left_on(double: Double) -> set[str]:
    """Return which kinds of folders are on the device: bundle, model, sentences, run."""
    return {path.name.partition("-")[0] for path in (double.root / OURS).iterdir()}


def replug(server: Server, double: Double) -> None:
    double.unplug()
    double.plug()
    server.connect(double)


def test_lost_while_pushing(at_adb, doubles, measure, tmp_path):
    one = doubles(abi="x86_64")
    one.lose("write", 12_000_000)  # in the middle of the engine
    with pytest.raises(WorkFailed, match=rf"^device {one.serial}: copying libonnxruntime\S+ to it failed: [^\n]+$"):
        measure(one)
    assert not list((one.root / OURS).glob("*/.complete"))
    assert not (tmp_path / "records.jsonl").exists()
    replug(at_adb, one)
    pushed: list[str] = []
    check_valid(measure(one, progress=lambda *words: pushed.append(words[3])))
    assert left_on(one) == {"b", "l", "m", "s"}


def test_lost_while_running(at_adb, doubles, measure, tmp_path):
    one = doubles(abi="x86_64")
    with during_a_run(one, lambda pid: one.unplug()):
        with pytest.raises(WorkFailed, match=rf"^device {one.serial} was lost \([^\n]+\); plug it in again [^\n]+$"):
            measure(one)
    check_interrupted(tmp_path, "was lost")
    assert "r" in left_on(one)  # nobody could tidy up
    replug(at_adb, one)
    check_valid(measure(one))
    assert left_on(one) == {"b", "l", "m", "s"}
    assert "tprune-ort" not in shell(at_adb, one, "ps -A -o ARGS")


def test_lost_while_pulling(at_adb, doubles, measure, tmp_path):
    one = doubles(abi="x86_64")
    one.lose("read", 100)
    with pytest.raises(WorkFailed, match=rf"^device {one.serial}\b[^\n]+$"):
        measure(one)
    check_interrupted(tmp_path, one.serial)
    replug(at_adb, one)
    check_valid(measure(one))
    assert left_on(one) == {"b", "l", "m", "s"}


def test_the_adb_server_is_killed(adb_server, monkeypatch, quick_double, measure, tmp_path):
    with serving(tmp_path / "adb") as server:
        monkeypatch.setenv("ADB_SERVER_SOCKET", server.environment["ADB_SERVER_SOCKET"])
        server.connect(quick_double)
        with during_a_run(quick_double, lambda pid: server.call("kill-server")):
            with pytest.raises(WorkFailed, match=rf"^device {quick_double.serial} was lost \([^\n]+$"):
                measure(quick_double)
        check_interrupted(tmp_path, "was lost")
        server.connect(quick_double)
        check_valid(measure(quick_double))
        assert left_on(quick_double) == {"b", "l", "m", "s"}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_the_runner_is_killed(at_adb, quick_double, measure, tmp_path, name):
    def kill(pid: str) -> None:
        shell(at_adb, quick_double, f"kill -{name[3:]} {pid}")

    with during_a_run(quick_double, kill):
        with pytest.raises(WorkFailed, match=rf"^1 of 1 artefacts failed \([^\n]+ runner was killed by {name}[^\n]*$"):
            measure(quick_double)
    check_interrupted(tmp_path, f"killed by {name}")
    assert left_on(quick_double) == {"b", "l", "m", "s"}
    check_valid(measure(quick_double))


def test_too_little_space(at_adb, doubles, measure, tmp_path):
    one = doubles(abi="x86_64", storage="30m")
    with pytest.raises(WorkFailed, match=r"is not fit to be measured: it has \d+ MiB free where \d+ MiB are needed"):
        measure(one)
    assert not (tmp_path / "records.jsonl").exists()
    assert left_on(one) == set()


def test_no_space_left_on_the_device(at_adb, doubles, measure, tmp_path):
    one = doubles(abi="x86_64", storage="60m")
    shell(at_adb, one, "head -c 40000000 /dev/zero >/data/local/tmp/other")
    df = one.root / "system/bin/df"
    df.unlink()
    df.write_text("#!/system/bin/sh\necho Filesystem\necho data 99999999 1 99999998 1% /data\n")  # nothing is refused
    df.chmod(0o755)
    with pytest.raises(WorkFailed, match=r"^device [^\n]+ failed: [^\n]*No space left on device; free some [^\n]+$"):
        measure(one)
    assert not list((one.root / OURS).glob("*/.complete"))
    assert not (tmp_path / "records.jsonl").exists()
    (one.root / "data/local/tmp/other").unlink()
    check_valid(measure(one))


@pytest.mark.parametrize("folder", ["data/local/tmp", str(OURS)])
def test_a_folder_that_cannot_be_written(at_adb, doubles, measure, tmp_path, folder):
    one = doubles(abi="x86_64")
    shell(at_adb, one, f"mkdir -p /{folder}; chmod 555 /{folder}")
    with pytest.raises(WorkFailed, match=rf"^device {one.serial}: [^\n]*Permission denied[^\n]*$"):
        measure(one)
    assert not (tmp_path / "records.jsonl").exists()
    shell(at_adb, one, f"chmod 755 /{folder}")
    check_valid(measure(one))


def test_a_runner_that_does_not_end(at_adb, quick_double, measure, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(station.Station, "_limit", lambda self, job, sentences: 0.3)
        with pytest.raises(WorkFailed, match=rf"^device {quick_double.serial}: [^\n]+ took more than 0.3 s [^\n]+$"):
            measure(quick_double)
    check_interrupted(tmp_path, "took more than 0.3 s")
    assert left_on(quick_double) == {"b", "l", "m", "s"}
    assert "tprune-ort" not in shell(at_adb, quick_double, "ps -A -o ARGS")
    check_valid(measure(quick_double))


def test_a_device_for_which_there_is_no_runner(at_adb, doubles, measure, tmp_path):
    one = doubles(abi="x86_64")
    one.set_property("ro.product.cpu.abilist", "riscv64")
    with pytest.raises(WorkFailed, match=r"reports the ABIs riscv64; the runner exists for arm64-v8a and x86_64$"):
        measure(one)
    assert not (tmp_path / "records.jsonl").exists()
    assert left_on(one) == set()


def test_a_device_that_lies_about_its_abi(at_adb, doubles, measure, tmp_path):
    real(abi.named("arm64-v8a"), "onnxruntime")
    one = doubles(abi="x86_64")
    one.set_property("ro.product.cpu.abilist", "arm64-v8a")
    with pytest.raises(WorkFailed, match=r"^1 of 1 artefacts failed [^\n]+ runner ended with exit code 126: [^\n]+$"):
        measure(one)
    check_interrupted(tmp_path, "Exec format error")


def test_two_devices_and_no_serial(at_adb, quick_double, doubles, measure, tmp_path):
    other = doubles(abi="x86_64")
    with pytest.raises(BadInput, match=rf"^[23] devices are attached \([^\n]*{other.serial}[^\n]*\): name one [^\n]+$"):
        measure()
    assert not (tmp_path / "records.jsonl").exists()


@pytest.mark.parametrize("state, cure", [("unauthorized", "allow USB debugging"), ("offline", "plug it in again")])
def test_a_device_that_may_not_be_used(measure, tmp_path, state, cure):
    adb = tmp_path / "adb"
    adb.write_text(f"#!/bin/sh\necho 'List of devices attached'\necho 'R58M {state} usb:1-1'\n")
    adb.chmod(0o755)
    with pytest.raises(WorkFailed, match=rf"^device R58M cannot be used, its state is '{state}': [^\n]*{cure}[^\n]*$"):
        measure(adb=str(adb))
    assert not (tmp_path / "records.jsonl").exists()


def test_a_report_of_this_very_nonce_from_an_earlier_run(at_adb, doubles, measure, tmp_path, monkeypatch):
    fresh = doubles(abi="x86_64")  # nobody else's folders are there to be mistaken for ours
    nonce = "0" * 16
    monkeypatch.setattr("tprune.bench.measure.settings.secrets.token_hex", lambda bytes: nonce)
    check_valid(measure(fresh, out=tmp_path / "first.jsonl"))
    job = SLOW.job(12).arguments("$m", "$s/sentences.ids", f"/{OURS}/r-{nonce}/out")
    script = (
        f"cd /{OURS}; mkdir r-{nonce}; m=$PWD/$(echo m-*); s=$PWD/$(echo s-*); cd b-*; "
        f"../l-*/ld-linux-x86-64.so.2 --library-path .:$(echo ../l-*) ./tprune-ort {' '.join(job)}; "
        f"ls /{OURS}/r-{nonce}/out"
    )
    assert shell(at_adb, fresh, script).split() == ["output.ids", "report.json"]
    with during_a_run(fresh, lambda pid: shell(at_adb, fresh, f"kill -9 {pid}")):
        with pytest.raises(WorkFailed, match="the runner was killed by SIGKILL"):
            measure(fresh)
    check_interrupted(tmp_path, "killed by SIGKILL")


SESSION = """
import sys
from tprune.bench.phone import fleet
from tprune.bench.measure.settings import Settings
from tprune.bench.phone.station import PhoneOptions

artefact, serial, out = sys.argv[1:]
fleet.run([artefact], [[5, 6, 7, 0], [9, 8, 0]] * 20, serials=[serial], out=out,
            settings=Settings(blocks=1, warmup=0, mode="spaced"), options=PhoneOptions(keep_awake=True))
"""


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_session_is_ended(at_adb, quick_double, measure, artefact, tmp_path, word):
    awake = "settings get global stay_on_while_plugged_in"
    shell(at_adb, quick_double, "settings put global stay_on_while_plugged_in 3")
    command = (sys.executable, "-c", SESSION, str(artefact), quick_double.serial, str(tmp_path / "records.jsonl"))
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True) as process:
        wait_for(process, lambda: any((quick_double.root / OURS).glob("r-*/out")))
        assert shell(at_adb, quick_double, awake) == "7\n"
        process.send_signal(word)
        process.wait(timeout=120)
    assert process.returncode != 0
    if word == signal.SIGKILL:  # the next benchmark cleans up after this one
        check_valid(measure(quick_double, out=tmp_path / "next.jsonl"))
    assert shell(at_adb, quick_double, awake) == "3\n"
    assert left_on(quick_double) == {"b", "l", "m", "s"}
    assert "tprune-ort" not in shell(at_adb, quick_double, "ps -A -o ARGS")
    if word != signal.SIGKILL:
        check_interrupted(tmp_path, "")
