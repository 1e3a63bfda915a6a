"""Benchmark artefacts on Android phones: probe, push what is missing, run, pull and verify.

    run([dense, pruned], sentences, serials=["R58M123"], settings=Settings(threads=2), out=Path("records.jsonl"))

Several phones are measured at once, each by its own thread; `tprune.bench.measure.blocks` explains blocks. Ctrl-C and
SIGTERM end the runs on all phones and undo what was changed there; finished blocks are kept.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.signals import as_interrupts
from tprune.bench.libraries import cache
from tprune.bench.measure import blocks, host
from tprune.bench.measure.conditions import BUSY_CPUS
from tprune.bench.measure.plan import Plan, plan
from tprune.bench.measure.record import Record
from tprune.bench.measure.settings import Settings
from tprune.bench.measure.tasks import Inputs, Subject
from tprune.bench.phone import adb as adbs
from tprune.bench.phone import remote
from tprune.bench.phone.adb import Device
from tprune.bench.phone.remote import Remote
from tprune.bench.phone.station import PhoneOptions, opened
from tprune.bench.runner.contract import Ids

Progress = Callable[[str, int, int, str], None]  # (device, done, in all, what happens now)


def run(
    artefacts: Sequence[Path | str | Subject],
    sentences: Inputs,
    *,
    out: Path | str,
    serials: Sequence[str] = (),
    settings: Settings | Sequence[Settings] | None = None,
    options: PhoneOptions | None = None,
    adb: str | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Measure every artefact on the devices with these serials (none: the only one) and return their records of `out`.

    Raise BadInput when the call is wrong, and WorkFailed in one line when a device or an artefact failed. What was
    measured is in `out`; the same call resumes there.
    """
    asked = plan(artefacts, sentences, settings)
    stop = threading.Event()
    devices = _devices(serials, adb, stop)
    show = progress or (lambda device, done, total, what: None)
    reference = _references(asked)

    def on(device: Device) -> list[Record]:
        def tell(done: int, total: int, what: str) -> None:
            show(device.serial, done, total, what)

        with _alone(device.serial), opened(device, asked, options or PhoneOptions(), tell) as station:
            return blocks.run(station.plan, place=station.place(), out=out, reference=reference, progress=station.show)

    with as_interrupts(), ThreadPoolExecutor(len(devices)) as pool:
        futures = {device.serial: pool.submit(on, device) for device in devices}
        try:
            wait(futures.values())
        except BaseException:
            stop.set()  # every thread ends its run and cleans up; leaving the pool waits for that
            raise
    return _results(futures)


def serials(on: str) -> tuple[str, ...]:
    """Parse `adb` (no serial: the only device) or `adb:SERIAL[,SERIAL...]`. Raise BadInput for anything else."""
    place, colon, names = on.partition(":")
    found = tuple(name.strip() for name in names.split(",")) if colon else ()
    if place != "adb" or not all(found):
        raise BadInput(f"--on {on!r}: must be host, adb, or adb:SERIAL[,SERIAL...]")
    return found


def remarks(records: Sequence[Record]) -> list[str]:
    """Return one sentence for each thing that a user has to know about these records."""
    hot = sum(found.verdict == "THROTTLED" for found in records)
    remarks = []
    if hot:
        remarks.append(f"heat slowed down {hot} blocks; repeat the command on a cool phone to measure them again")
    if (others := max((found.others or 0.0 for found in records), default=0.0)) > BUSY_CPUS:
        remarks.append(
            f"other programs kept up to {others:.1f} CPUs busy: times are too long, and speed-ups are disturbed too; "
            "measure again on a quiet machine, into a new file"
        )
    if any(found.device["kind"] == "phone" and found.samples_ns and found.identical is None for found in records):
        remarks.append(
            "the outputs could not be compared with this machine's, which ran none: see tprune bench --on host"
        )
    if any(found.verdict == "EMULATED" for found in records):
        remarks.append("measured on an emulated device: its outputs are valid, its times say nothing about a phone")
    return remarks


def clean(serials: Sequence[str] = (), adb: str | None = None) -> list[str]:
    """Remove our folder from the devices, end runs still going on, and return the serials."""
    devices = _devices(serials, adb, threading.Event())
    for device in devices:
        with _alone(device.serial):
            Remote(device, remote.root()).remove()
    return [device.serial for device in devices]


def _devices(serials: Sequence[str], adb: str | None, stop: threading.Event) -> list[Device]:
    if len(set(serials)) < len(serials):
        raise BadInput(f"serials {', '.join(serials)}: every device once")
    program = adbs.find(adb)
    return [adbs.choose(program, serial, stop) for serial in serials or (None,)]


def _references(asked: Plan) -> dict[str, Ids]:
    """Return the outputs of this machine, or nothing when it has no runner for these artefacts."""
    with suppress(BadInput, WorkFailed):
        return host.references(asked)
    return {}


def _results(futures: Mapping[str, Future[list[Record]]]) -> list[Record]:
    """Return all records. Raise the error of a single device as it is, those of several in one line."""
    errors = {serial: error for serial, future in futures.items() if (error := future.exception())}
    for error in errors.values():
        if len(futures) == 1 or not isinstance(error, (BadInput, WorkFailed)):
            raise error
    if errors:
        each = "; ".join(f"{serial}: {error}" for serial, error in errors.items())
        kind = BadInput if all(isinstance(error, BadInput) for error in errors.values()) else WorkFailed
        raise kind(f"{len(errors)} of {len(futures)} devices failed ({each})")
    return [found for future in futures.values() for found in future.result()]


@contextmanager
def _alone(serial: str) -> Iterator[None]:
    """Hold this machine's lock of a device, since two benchmarks on one phone would disturb each other."""
    path = cache.folder() / "locks" / quote(serial, safe="")
    with cache.writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _lock(path)
    if handle is None:
        raise WorkFailed(f"device {serial} is being used by another tprune bench; wait until it ends")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path) -> int | None:
    """Lock this file and return its open handle, or None when another process holds the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass  # the previous holder has just removed it: create it again
        os.close(handle)
