"""`Station`: one phone prepared for a benchmark: identified, fit, with all files of the runs on it.

with opened(device, plan, PhoneOptions(cpus="big"), tell) as station:
    blocks.run(station.plan, place=station.place(), out=out, progress=station.show)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries import glibc
from tprune.bench.libraries.abi import ABIS, named
from tprune.bench.measure import scratch
from tprune.bench.measure.blocks import Place, Progress
from tprune.bench.measure.conditions import Conditions
from tprune.bench.measure.plan import Plan
from tprune.bench.measure.tasks import TASKS, Inputs, Subject
from tprune.bench.phone import bundle, pulse, remote
from tprune.bench.phone import facts as phone
from tprune.bench.phone.adb import AdbFailed, Device, Done, Stopped, quote
from tprune.bench.phone.bundle import Bundle
from tprune.bench.phone.changes import changed
from tprune.bench.phone.facts import PROBE, Phone, preflight
from tprune.bench.phone.gate import Gate
from tprune.bench.phone.pulse import PULSE
from tprune.bench.phone.remote import Parcel, Remote
from tprune.bench.runner.contract import OUTPUT, REPORT, Job, Run, RunFailed, how_it_ended, read_run
from tprune.export.manifest import FILE as MANIFEST
from tprune.export.manifest import check_files, read_document, read_files

SPARE_KIB = 16 * 1024  # free space that a run needs besides the files copied
WARMUP_MS = 500  # default on a phone: governors need some time to raise the clock
EMULATED_TIMES = 10  # factor by which an emulated device may be slower


@dataclass(frozen=True)
class PhoneOptions:
    """How to use a phone: the CPUs to pin the runner to ("big", "all" or a list), and what may be changed on it.

    `patience` is how many seconds a block waits for a warm phone. A block times out after a minute and `sentence`
    seconds for each of its inputs.
    """

    cpus: str | tuple[int, ...] = "big"
    keep_awake: bool = False
    fixed_performance: bool = False
    patience: float = 600.0
    sentence: float = 10.0

    def __post_init__(self) -> None:
        """Raise BadInput for CPUs that no device can have."""
        if isinstance(self.cpus, str) and self.cpus not in {"big", "all"}:
            raise BadInput(f"cpus {self.cpus!r}: must be big, all, or a list such as 4,6-7")

    def cpus_on(self, there: Phone, threads: int) -> tuple[int, ...] | None:
        """Return the CPUs to request on this phone; None leaves the choice to its kernel."""
        usable = there.usable_cores()
        if usable and threads > len(usable):
            raise BadInput(f"threads {threads}: {there.name} has {len(usable)} CPUs to run them on")
        if isinstance(self.cpus, str):
            return (there.big_cores(threads) or None) if self.cpus == "big" else None
        if usable and not set(self.cpus) <= set(usable):
            raise BadInput(f"cpus {list(self.cpus)}: {there.name} has {list(usable)}")
        return self.cpus


@contextmanager
def opened(device: Device, plan: Plan, options: PhoneOptions, tell: Progress) -> Iterator[Station]:
    """Yield a phone that is ready to be measured; afterwards undo what was changed on it.

    Raise BadInput when the phone cannot do what is planned, and WorkFailed when it is not fit to be measured.
    """
    here = Remote(device, remote.root())
    there = phone.parse(here.open(f"D={quote([here.root])}\n{PROBE}"))
    abi = _abi(there, device.serial)
    sweep = tuple(replace(one, cpus=options.cpus_on(there, one.threads)) for one in plan.sweep)
    runtimes = sorted({subject.runtime for subject in plan.subjects})
    bundles = {runtime: bundle.assemble(abi, runtime, progress=tell) for runtime in runtimes}
    system, engines = _bundle_parcels(bundles)
    models = {subject.id: _model_parcel(subject) for subject in plan.subjects}
    with changed(here, there, keep_awake=options.keep_awake, fixed_performance=options.fixed_performance):
        if options.keep_awake:
            there = replace(there, pulse=pulse.parse(device.ask(PULSE)))
        missing = here.missing([system, *engines.values(), *models.values()])
        need = sum(one.bytes for one in missing) // 1024 + SPARE_KIB
        if complaints := preflight(there, need):
            raise WorkFailed(
                f"device {device.serial} ({there.name}) is not fit to be measured: {'; '.join(complaints)}"
            )
        here.store(missing, lambda done, total: tell(done >> 10, total >> 10, "KiB copied to it"))
        yield Station(here, there, abi, replace(plan, sweep=sweep), options, bundles, system, engines, models, tell)


def _abi(there: Phone, serial: str) -> str:
    legal = [abi.name for abi in ABIS]
    for abi in there.abis:
        if abi in legal:
            return abi
    raise WorkFailed(
        f"device {serial} ({there.name}) reports the ABIs {', '.join(there.abis) or 'none'}; the runner exists "
        f"for {' and '.join(legal)}"
    )


def _bundle_parcels(bundles: Mapping[str, Bundle]) -> tuple[Parcel, dict[str, Parcel]]:
    """Return the C library that the bundles share, stored once on a device, and the rest of each by runtime."""
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


def _model_parcel(subject: Subject) -> Parcel:
    """Return the files of an artefact that the runner reads: its graphs, checked, and the manifest."""
    files = read_files(read_document(subject.folder))
    check_files(subject.folder, files)
    return remote.parcel("m", subject.folder, [MANIFEST, *files])


@dataclass
class Station:
    """One phone during one call. `plan` names the CPUs of this phone; `bundles` and `engines` are by runtime.

    `system` is the C library that all bundles share.
    """

    remote: Remote
    phone: Phone
    abi: str
    plan: Plan
    options: PhoneOptions
    bundles: Mapping[str, Bundle]
    system: Parcel
    engines: Mapping[str, Parcel]
    models: Mapping[str, Parcel]
    tell: Progress
    gate: Gate = field(init=False)
    shown: tuple[int, int] = (0, 1)
    stored: set[str] = field(default_factory=set)  # folders of inputs that are known to be on the phone

    def __post_init__(self) -> None:
        self.gate = Gate(self.device, self.options.patience)

    @property
    def device(self) -> Device:
        return self.remote.device

    def place(self) -> Place:
        """Return this phone as a place to measure in."""
        versions = {runtime: made.versions[runtime] for runtime, made in self.bundles.items()}
        versions |= {f"{runtime} bundle": made.id[:12] for runtime, made in self.bundles.items()}
        versions["clocks"] = "fixed" if self.options.fixed_performance else "free"  # a resumed file must agree
        facts = self.phone.facts(self.device.serial, self.abi)
        return Place(facts, self.measure, self.ready, self.after, versions)

    def show(self, done: int, total: int, what: str) -> None:
        """Report progress, and remember it for messages while waiting."""
        self.shown = (done, total)
        self.tell(done, total, what)

    def ready(self) -> Conditions:
        """Wait until the phone is as cool as at the first block, or patience is over."""
        return self.gate.wait(lambda why: self.tell(*self.shown, why))

    def after(self, run: Run) -> Conditions:
        """Return the conditions after a run, with the reason when heat slowed it down."""
        return self.gate.after(run.affinity["got"] or (), sustained=self.plan.sweep[0].mode == "sustained")

    def measure(self, subject: Subject, job: Job, sentences: Inputs) -> Run:
        """Run one job on the phone and return its report, pulled and verified to be this job's."""
        with scratch.folder() as here:
            file = TASKS[subject.task].write(sentences, here).name
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
                with suppress(AdbFailed):  # the device is gone: the next call cleans up
                    self.gate.note(self.remote.end_run(job.nonce, PULSE))

    def _fetch(self, done: Done, there: str, here: Path, nonce: str) -> Run:
        """Pull and verify the output of a run; raise with the reason when there is none."""
        for name in (REPORT, OUTPUT):
            try:
                self.device.pull(f"{there}/{name}", here / name)
            except Stopped:
                raise
            except AdbFailed:
                if not self.device.is_there():
                    raise AdbFailed(self.device.lost(done)) from None
                break  # a run that failed has no such file; its report or exit code gives the reason
        if not (here / REPORT).is_file():
            if done.code in {0, 255}:  # adb's exit codes for a device that vanished and is back already
                raise AdbFailed(self.device.lost(done))
            raise RunFailed(how_it_ended(done.code, done.err))
        found = read_run(here, nonce)
        if done.code:
            raise RunFailed(how_it_ended(done.code, done.err))
        return found

    def _limit(self, job: Job, sentences: int) -> float:
        one = self.options.sentence * (EMULATED_TIMES if self.phone.emulated else 1) + job.gap_ms / 1000
        return 60.0 + (job.warmup_ms + job.min_ms) / 1000 + one * (job.warmup + job.passes * sentences)
