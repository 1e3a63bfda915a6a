"""`Station`: one phone prepared for a benchmark: known, fit, with everything on it that a run needs.

with opened(device, subjects, [settings], Handling(cpus="big"), tell) as station:
    blocks.run(..., place=station.place(), settings=station.sweep, progress=station.show)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries import glibc
from tprune.bench.libraries.abi import ABIS, named
from tprune.bench.measure import inputs, scratch
from tprune.bench.measure.artefact import Artefact
from tprune.bench.measure.blocks import Place, Progress
from tprune.bench.measure.inputs import Inputs
from tprune.bench.measure.settings import Settings
from tprune.bench.phone import bundle, pulse, remote
from tprune.bench.phone import facts as phone
from tprune.bench.phone.adb import AdbFailed, Device, Done, Stopped, quote
from tprune.bench.phone.bundle import Bundle
from tprune.bench.phone.changes import changed
from tprune.bench.phone.facts import PROBE, Phone, preflight
from tprune.bench.phone.gate import Gate, Start
from tprune.bench.phone.pulse import PULSE, Pulse
from tprune.bench.phone.remote import Parcel, Remote
from tprune.bench.runner.contract import OUTPUT, REPORT, Job, Run, RunFailed, how_it_ended, read_run
from tprune.export.manifest import FILE as MANIFEST
from tprune.export.manifest import check_files, read_document, read_files

SPARE_KIB = 16 * 1024  # free space that a run needs on top of what is copied
FRESH = 2.0  # seconds for which the look behind a run also serves the next one
WARMUP_MS = 500  # of a phone, if nothing else is asked for: governors need some time to raise the clock
EMULATED_TIMES = 10  # by which an emulated device may be slower


@dataclass(frozen=True)
class Handling:
    """How phones are treated: on which CPUs the runner is put ("big", "all" or a list), and what may be changed there.

    `patience` is how many seconds a block waits for a warm phone; a block is given up after a minute and `sentence`
    seconds for each of its sentences.
    """

    cpus: str | tuple[int, ...] = "big"
    keep_awake: bool = False
    fixed_performance: bool = False
    patience: float = 600.0
    sentence: float = 10.0

    def __post_init__(self) -> None:
        """Refuse CPUs that no device can have (BadInput)."""
        if isinstance(self.cpus, str) and self.cpus not in {"big", "all"}:
            raise BadInput(f"cpus {self.cpus!r}: must be big, all, or a list such as 4,6-7")

    def on(self, there: Phone, threads: int) -> tuple[int, ...] | None:
        """Return the CPUs to ask for on this phone; None leaves it to its kernel."""
        usable = there.usable_cores()
        if usable and threads > len(usable):
            raise BadInput(f"threads {threads}: {there.name} has {len(usable)} CPUs to run them on")
        if isinstance(self.cpus, str):
            return (there.big_cores(threads) or None) if self.cpus == "big" else None
        if usable and not set(self.cpus) <= set(usable):
            raise BadInput(f"cpus {list(self.cpus)}: {there.name} has {list(usable)}")
        return self.cpus


@contextmanager
def opened(
    device: Device, subjects: Sequence[Artefact], sweep: Sequence[Settings], handling: Handling, tell: Progress
) -> Iterator[Station]:
    """Yield a phone that is ready to be measured; afterwards what was changed on it is put back.

    Raises BadInput when the phone cannot do what is asked, and WorkFailed when it is not fit to be measured.
    """
    here = Remote(device, remote.root())
    there = phone.parse(here.open(f"D={quote([here.root])}\n{PROBE}"))
    abi = _abi(there, device.serial)
    asked = tuple(replace(one, cpus=handling.on(there, one.threads)) for one in sweep)
    runtimes = sorted({subject.runtime for subject in subjects})
    bundles = {runtime: bundle.assemble(abi, runtime, progress=tell) for runtime in runtimes}
    system, engines = _bundle_parcels(bundles)
    models = {subject.id: _model_parcel(subject) for subject in subjects}
    with changed(here, there, keep_awake=handling.keep_awake, fixed_performance=handling.fixed_performance):
        if handling.keep_awake:
            there = replace(there, pulse=pulse.parse(device.ask(PULSE)))
        missing = here.missing([system, *engines.values(), *models.values()])
        need = sum(one.bytes for one in missing) // 1024 + SPARE_KIB
        if complaints := preflight(there, need):
            raise WorkFailed(
                f"device {device.serial} ({there.name}) is not fit to be measured: {'; '.join(complaints)}"
            )
        here.store(missing, lambda done, total: tell(done >> 10, total >> 10, "KiB copied to it"))
        yield Station(here, there, abi, asked, handling, bundles, system, engines, models, tell)


def _abi(there: Phone, serial: str) -> str:
    legal = [abi.name for abi in ABIS]
    for abi in there.abis:
        if abi in legal:
            return abi
    raise WorkFailed(
        f"device {serial} ({there.name}) runs {', '.join(there.abis) or 'nothing that it tells of'}; the runner exists "
        f"for {' and '.join(legal)}"
    )


def _bundle_parcels(bundles: Mapping[str, Bundle]) -> tuple[Parcel, dict[str, Parcel]]:
    """Return the C library that these bundles share, so that a device has it once, and by runtime what each adds."""
    system: dict[str, Path] = {}
    digests: dict[str, str] = {}
    engines = {}
    for runtime, made in bundles.items():
        shared = {name for name in made.files if name in {*glibc.LIBRARIES, named(made.abi).loader}}
        system |= {name: made.folder / name for name in shared}
        digests |= {name: made.files[name] for name in shared}
        own = {name: made.folder / name for name in made.files if name not in shared}
        engines[runtime] = Parcel("b", own, made.files)
    return Parcel("l", system, digests), engines


def _model_parcel(subject: Artefact) -> Parcel:
    """Return what the runner needs of an artefact: its graphs, which must be as the manifest says, and the manifest."""
    files = read_files(read_document(subject.folder))
    check_files(subject.folder, files)
    return remote.parcel("m", subject.folder, [MANIFEST, *files])


@dataclass
class Station:
    """One phone in one session; `sweep` names the CPUs of this phone. `bundles` and `engines` are by runtime.

    `system` is the C library of them all.
    """

    remote: Remote
    phone: Phone
    abi: str
    sweep: tuple[Settings, ...]
    handling: Handling
    bundles: Mapping[str, Bundle]
    system: Parcel
    engines: Mapping[str, Parcel]
    models: Mapping[str, Parcel]
    tell: Progress
    gate: Gate = field(init=False)
    start: Start | None = None
    looked: tuple[float, Pulse] | None = None
    shown: tuple[int, int] = (0, 1)
    stored: set[str] = field(default_factory=set)  # folders of sentences or images that are on the phone for certain

    def __post_init__(self) -> None:
        self.gate = Gate(self._look, self._rest, self.handling.patience)

    @property
    def device(self) -> Device:
        return self.remote.device

    def place(self) -> Place:
        """Return this phone as a place to measure in."""
        versions = {runtime: made.versions[runtime] for runtime, made in self.bundles.items()}
        versions |= {f"{runtime} bundle": made.id[:12] for runtime, made in self.bundles.items()}
        versions["clocks"] = "fixed" if self.handling.fixed_performance else "free"  # a resumed file must agree in it
        document = self.phone.document(self.device.serial, self.abi)
        return Place(document, self.measure, self.ready, self.after, versions)

    def show(self, done: int, total: int, what: str) -> None:
        """Say what is measured now, and remember it for what is said while waiting."""
        self.shown = (done, total)
        self.tell(done, total, what)

    def ready(self) -> dict[str, Any]:
        """Wait until the phone is as cool as at the first block, or patience is over."""
        self.start = self.gate.wait(lambda why: self.tell(*self.shown, why))
        waited = {"waited_s": self.start.waited, "too_warm": self.start.still}
        return {**self.start.pulse.document(), **{name: value for name, value in waited.items() if value}}

    def after(self, run: Run) -> dict[str, Any]:
        """Look at the phone behind a run, and say whether heat slowed it; when sustained, heat is what is measured."""
        now = self._look()
        reason = (self.start.still if self.start else None) or self.gate.throttled(now, run.affinity["got"] or ())
        return {**now.document(), **({"throttled": reason} if reason and self.sweep[0].mode != "sustained" else {})}

    def measure(self, subject: Artefact, job: Job, sentences: Inputs) -> Run:
        """Run one job on the phone and return its report, pulled and proved to be this job's."""
        with scratch.folder() as here:
            file = inputs.write(sentences, here).name
            given = remote.parcel("s", here, [file])
            if given.folder not in self.stored:
                self.remote.store(self.remote.missing([given]))
                self.stored.add(given.folder)
            root, model = self.remote.root, self.models[subject.id]
            folder = f"{root}/r-{job.nonce}"
            job_words = job.arguments(f"{root}/{model.folder}", f"{root}/{given.folder}/{file}", f"{folder}/out")
            words = ["env", "ORT_DISABLE_TELEMETRY=1", f"HOME={folder}", f"TMPDIR={folder}"]
            words += [*self.bundles[subject.runtime].command(f"../{self.system.folder}"), *job_words]
            engine = quote([f"{root}/{self.engines[subject.runtime].folder}"])
            into = quote([folder])
            script = f"mkdir {into} && cd {engine} && echo $$ >{into}/pid && exec {quote(words)}"
            try:
                done = self.device.shell(script, timeout=self._limit(job, len(sentences)))
                return self._fetch(done, f"{folder}/out", here, job.nonce)
            finally:
                with suppress(AdbFailed):  # the device is gone: the next session does it
                    self.looked = (time.monotonic(), pulse.parse(self.remote.end_run(job.nonce, PULSE)))

    def _fetch(self, done: Done, there: str, here: Path, nonce: str) -> Run:
        """Pull what a run left, and believe it only when it is whole; say what happened when there is nothing."""
        for name in (REPORT, OUTPUT):
            try:
                self.device.pull(f"{there}/{name}", here / name)
            except Stopped:
                raise
            except AdbFailed:
                if not self.device.is_there():
                    raise AdbFailed(self.device.lost(done)) from None
                break  # a run that failed has no such file; its report or its end says why
        if not (here / REPORT).is_file():
            if done.code in {0, 255}:  # what adb says of a device that vanished, and is back already
                raise AdbFailed(self.device.lost(done))
            raise RunFailed(how_it_ended(done.code, done.err))
        found = read_run(here, nonce)
        if done.code:
            raise RunFailed(how_it_ended(done.code, done.err))
        return found

    def _limit(self, job: Job, sentences: int) -> float:
        one = self.handling.sentence * (EMULATED_TIMES if self.phone.emulated else 1) + job.gap_ms / 1000
        return 60.0 + (job.warmup_ms + job.min_ms) / 1000 + one * (job.warmup + job.passes * sentences)

    def _look(self) -> Pulse:
        if self.looked is None or time.monotonic() - self.looked[0] > FRESH:
            self.looked = (time.monotonic(), pulse.parse(self.device.ask(PULSE)))
        return self.looked[1]

    def _rest(self, seconds: float) -> None:
        if self.device.stop.wait(seconds):
            raise Stopped("stopped by Ctrl-C or a signal")
