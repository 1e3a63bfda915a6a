"""Benchmark artefacts on Android phones: probe, push what is missing, run, pull, believe only what the phone proves.

    run([dense, pruned], sentences, serials=["R58M123"], settings=Settings(threads=2), out=Path("records.jsonl"))

Several phones are measured at once, each by a thread of its own; `tprune.bench.measure.blocks` explains blocks. Ctrl-C
and SIGTERM end the runs on all phones, put back what was changed there, and lose nothing.
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
from tprune.bench.measure.inputs import Inputs
from tprune.bench.measure.record import Record
from tprune.bench.measure.settings import Settings, listed
from tprune.bench.phone import adb as adbs
from tprune.bench.phone import remote
from tprune.bench.phone.adb import Device
from tprune.bench.phone.remote import Remote
from tprune.bench.phone.station import Handling, opened
from tprune.bench.runner.contract import Ids

Progress = Callable[[str, int, int, str], None]  # (device, done, in all, what happens now)


def run(
    artefacts: Sequence[Path | str],
    sentences: Inputs,
    *,
    out: Path | str,
    serials: Sequence[str] = (),
    settings: Settings | Sequence[Settings] | None = None,
    handling: Handling | None = None,
    adb: str | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Measure every artefact on the devices with these serials (none: the only one) and return their records of `out`.

    Raises BadInput when the call is wrong and WorkFailed in one line when a device or an artefact failed; what was
    measured is in `out`, and the same call goes on from there.
    """
    sweep, handling = listed(settings or Settings()), handling or Handling()
    subjects = blocks.read_subjects(artefacts, sentences)
    stop = threading.Event()
    devices = _devices(serials, adb, stop)
    show = progress or (lambda device, done, total, what: None)
    reference = _references(artefacts, sentences, sweep[0])

    def on(device: Device) -> list[Record]:
        def tell(done: int, total: int, what: str) -> None:
            show(device.serial, done, total, what)

        with _alone(device.serial), opened(device, subjects, sweep, handling, tell) as station:
            return blocks.run(
                artefacts,
                sentences,
                place=station.place(),
                settings=station.sweep,
                out=out,
                reference=reference,
                progress=station.show,
            )

    with as_interrupts(), ThreadPoolExecutor(len(devices)) as pool:
        futures = {device.serial: pool.submit(on, device) for device in devices}
        try:
            wait(futures.values())
        except BaseException:
            stop.set()  # every thread ends its run and puts things back; leaving the pool waits for that
            raise
    return _results(futures)


def serials(on: str) -> tuple[str, ...]:
    """Return the serials of `adb` (none: the only device) or `adb:SERIAL[,SERIAL...]`; BadInput for anything else."""
    place, colon, names = on.partition(":")
    found = tuple(name.strip() for name in names.split(",")) if colon else ()
    if place != "adb" or not all(found):
        raise BadInput(f"--on {on!r}: must be host, adb, or adb:SERIAL[,SERIAL...]")
    return found


def remarks(records: Sequence[Record]) -> list[str]:
    """Return what a person has to know about the verdicts of these records, one sentence each."""
    hot = sum(found.verdict == "THROTTLED" for found in records)
    remarks = []
    if hot:
        remarks.append(
            f"heat slowed down {hot} blocks; give the same command again on a cool phone to measure them anew"
        )
    if (others := max((found.others or 0.0 for found in records), default=0.0)) > BUSY_CPUS:
        remarks.append(
            f"other programs kept up to {others:.1f} CPUs busy meanwhile: ratios still compare, times are too long"
        )
    if any(found.device["kind"] == "phone" and found.samples_ns and found.identical is None for found in records):
        remarks.append(
            "the answers were not compared with this machine's, which could give none: tprune bench --on host says why"
        )
    if any(found.verdict == "EMULATED" for found in records):
        remarks.append("measured on an emulated device: its answers count, its times say nothing about a phone")
    return remarks


def clean(serials: Sequence[str] = (), adb: str | None = None) -> list[str]:
    """Remove all that is ours from the devices, runs that go on included, and return their serials."""
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


def _references(artefacts: Sequence[Path | str], sentences: Inputs, settings: Settings) -> dict[str, Ids]:
    """Return the tokens that this machine gives, as far as it has a runner for these artefacts."""
    with suppress(BadInput, WorkFailed):
        return host.references(artefacts, sentences, settings)
    return {}


def _results(futures: Mapping[str, Future[list[Record]]]) -> list[Record]:
    """Return all records, or raise what went wrong: as it is when it was one, else in one line."""
    errors = {serial: error for serial, future in futures.items() if (error := future.exception())}
    for error in errors.values():
        if len(futures) == 1 or not isinstance(error, (BadInput, WorkFailed)):
            raise error
    if errors:
        told = "; ".join(f"{serial}: {error}" for serial, error in errors.items())
        kind = BadInput if all(isinstance(error, BadInput) for error in errors.values()) else WorkFailed
        raise kind(f"{len(errors)} of {len(futures)} devices failed ({told})")
    return [found for future in futures.values() for found in future.result()]


@contextmanager
def _alone(serial: str) -> Iterator[None]:
    """Hold this machine's lock of a device: two benchmarks on one phone would spoil each other."""
    path = cache.folder() / "locks" / quote(serial, safe="")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _lock(path)
    if handle is None:
        raise WorkFailed(f"device {serial} is being used by another tprune bench; wait for its end")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path) -> int | None:
    """Return an open handle that holds the lock of this file, or None when somebody else holds it."""
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
            pass  # who held it before has just removed it: make it anew
        os.close(handle)
