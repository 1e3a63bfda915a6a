"""`Settings`: how a benchmark measures, on this host and on a phone."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tprune.base.errors import BadInput
from tprune.bench.runner.contract import Job

MODES = ("warm", "cold", "spaced", "sustained")
GAP_MS = 500  # of the mode `spaced`: long enough for a governor to lower the clock
MOST_MINUTES = 60
SAMPLE_MS = 1000  # between two looks at frequency and temperature in the mode `sustained`


@dataclass(frozen=True)
class Settings:
    """How to measure: `blocks` passes over all sentences; each process first translates `warmup` sentences untimed.

    Modes: `warm`; `cold`, without warm-up; `spaced`, half a second of rest before every sentence; `sustained`, all
    passes in one process without a pause and with temperatures sampled, `blocks` passes or as many as fit `minutes`.
    `cpus` pins the process (None: not pinned). `max_length` is in target tokens, the start token included (None: the
    shortest limit of the artefacts). `split` and `limit` are only recorded, as the source of the sentences.
    """

    threads: int = 1
    blocks: int = 5
    warmup: int = 10
    warmup_ms: int = 0
    mode: str = "warm"
    minutes: float | None = None
    beams: int = 1
    cpus: tuple[int, ...] | None = None
    max_length: int | None = None
    split: str = "test"
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raise BadInput for settings that no place can measure."""
        for name, least in (("threads", 1), ("blocks", 1), ("warmup", 0), ("warmup_ms", 0), ("beams", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name.replace('_', '-')} {getattr(self, name)}: at least {least}")
        if self.mode not in MODES:
            raise BadInput(f"mode {self.mode!r}: must be {' or '.join(MODES)}")
        if self.minutes is not None and self.mode != "sustained":
            raise BadInput(f"minutes {self.minutes:g}: only for the mode sustained, this one is {self.mode}")
        if self.minutes is not None and not 0 < self.minutes <= MOST_MINUTES:
            raise BadInput(f"minutes {self.minutes:g}: more than 0 and at most {MOST_MINUTES}")
        if self.max_length is not None and self.max_length < 2:
            raise BadInput(f"max length {self.max_length}: at least 2 tokens, the start token counts")
        if self.cpus is not None and (not self.cpus or min(self.cpus) < 0):
            raise BadInput(f"cpus {list(self.cpus)}: at least one, by its number")

    @property
    def threads_label(self) -> str:
        """The number of threads as text: "2 threads"."""
        return f"{self.threads} thread{'s' if self.threads != 1 else ''}"

    @property
    def processes(self) -> int:
        """The number of timed processes per artefact."""
        return 1 if self.mode == "sustained" else self.blocks

    def job(self, max_length: int | None) -> Job:
        """Return what one timed process does."""
        cold, sustained = self.mode == "cold", self.mode == "sustained"
        return Job(
            nonce=secrets.token_hex(8),
            threads=self.threads,
            beams=self.beams,
            max_length=max_length,
            warmup=0 if cold else self.warmup,
            warmup_ms=0 if cold else self.warmup_ms,
            passes=self.blocks if sustained and self.minutes is None else 1,
            min_ms=round((self.minutes or 0) * 60_000),
            gap_ms=GAP_MS if self.mode == "spaced" else 0,
            cpus=None if self.cpus is None else tuple(sorted(self.cpus)),
            sample_ms=SAMPLE_MS if sustained else 0,
        )


def sweep(settings: Settings, threads: Sequence[int]) -> tuple[Settings, ...]:
    """Return `settings` once for every number of threads."""
    return tuple(replace(settings, threads=number) for number in dict.fromkeys(threads))


def listed(settings: Settings | Sequence[Settings]) -> tuple[Settings, ...]:
    """Return one or several settings as a tuple."""
    return (settings,) if isinstance(settings, Settings) else tuple(settings)


def parse_threads(text: str) -> tuple[int, ...]:
    """Parse a list such as "1,2,4". Raise BadInput for anything else."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 5 for word in words):
        raise BadInput(f"threads {text!r}: must be a number, or several to compare such as 1,2,4")
    return tuple(map(int, words))


def parse_cpus(text: str) -> tuple[int, ...]:
    """Parse a list of CPUs such as "4,6-7". Raise BadInput for anything else."""
    if found := cpu_list(text):
        return found
    raise BadInput(f"cpus {text!r}: must be a list of CPUs such as 4,6-7")


def cpu_list(text: str) -> tuple[int, ...]:
    """Parse a list of CPUs in the kernel's format (`0-3,6`). Return () for anything else."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
            return ()
        low, high = int(first), int(last)
        if not low <= high < 4096:
            return ()
        found |= set(range(low, high + 1))
    return tuple(sorted(found))
