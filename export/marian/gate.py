"""The quality gate of int8 exports: components whose 8-bit form costs too much BLEU stay fp32.

    quantize(checkpoint, "out", to_onnx, Gate(corpus, max_bleu_drop=0.5))

The gate translates the development set with the artefact itself (greedy, with its cache, one sentence at a time) and
compares its BLEU with that of the same export in fp32. The manifest records the result.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import check_vacant
from tprune.export import targets
from tprune.export.graphs.precision import FP32, INT8, MAX_BLEU_DROP, PARITY, Precision
from tprune.export.manifest import Int8Cost, Manifest
from tprune.export.marian.publish import Judge
from tprune.export.marian.quality import translate
from tprune.marian.corpus import Corpus
from tprune.marian.quality import compare, score
from tprune.marian.translate import decode

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint

Watch = Callable[[str, int, int], None]
"""watch(artefact being translated, sentences done, total sentences)"""


class Export(Protocol):
    """`to_onnx` or `to_executorch`."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        out: Path,
        *,
        sentences: Sequence[str],
        threads: int,
        precision: Precision,
        judge: Judge | None,
    ) -> Manifest: ...


@dataclass(frozen=True)
class Gate:
    """Allow BLEU on `dev` to fall by at most `max_bleu_drop` per cent below the fp32 export's.

    `wanted` names the components that should be int8. Raises BadInput if there is none, or for a negative drop.
    """

    dev: Corpus
    max_bleu_drop: float = MAX_BLEU_DROP
    wanted: Precision = INT8

    def __post_init__(self) -> None:
        if not self.wanted.int8:
            raise BadInput("int8 export with every component kept in fp32; leave one of them out, or ask for fp32")
        if not self.max_bleu_drop >= 0.0:
            raise BadInput(f"the BLEU drop {self.max_bleu_drop} is not a percentage of at least 0")


@dataclass(frozen=True)
class _Translation:
    ids: list[tuple[int, ...]]
    text: tuple[str, ...]
    bleu: float


class _TooCostly(Exception):
    """The BLEU drop of an artefact is above the limit; it is not published."""


@dataclass
class _Trials:
    """Translations of the development set by one export after another; `drops` has the BLEU drop of each precision."""

    checkpoint: Checkpoint
    gate: Gate
    threads: int
    watch: Watch | None

    def __post_init__(self) -> None:
        self.drops: dict[Precision, float] = {}
        self.alone: dict[str, float] = {}

    def reference(self, folder: Path, manifest: Manifest) -> Manifest:
        """Translate with the fp32 export: a `Judge` that accepts it."""
        self.fp32 = self._translate(folder, FP32)
        return manifest

    def weigh(self, precision: Precision, limit: float) -> Judge:
        """Return the judge of an int8 export: it records the cost in the manifest, or raises if it is above `limit`."""

        def judge(folder: Path, manifest: Manifest) -> Manifest:
            found, dev = self._translate(folder, precision), self.gate.dev
            self.drops[precision] = 100.0 * (1.0 - found.bleu / self.fp32.bleu) if self.fp32.bleu else 0.0
            if self.drops[precision] > limit:
                raise _TooCostly
            cost = Int8Cost(
                split=dev.split,
                sentences=len(dev),
                identical=sum(a == b for a, b in zip(found.ids, self.fp32.ids, strict=True)),
                bleu=found.bleu,
                fp32_bleu=self.fp32.bleu,
                p_value=compare(found.text, self.fp32.text, dev.target, language=dev.language),
                alone={name: round(drop, 3) for name, drop in self.alone.items()},
            )
            return replace(manifest, cost=cost)

        return judge

    def _translate(self, folder: Path, precision: Precision) -> _Translation:
        name = "-".join(precision.components) or "fp32"
        watch = self.watch
        progress = None if watch is None else lambda done, total: watch(name, done, total)
        ids = translate(folder, self.gate.dev.source, threads=self.threads, progress=progress)[0]
        text = decode(self.checkpoint.tokenizer, ids)
        return _Translation(ids, text, score(text, self.gate.dev.target, language=self.gate.dev.language).bleu)


def quantize(
    checkpoint: Checkpoint,
    out: str | Path,
    export: Export,
    gate: Gate,
    *,
    sentences: Sequence[str] = (),
    parity: int = PARITY,
    threads: int = 1,
    watch: Watch | None = None,
) -> Manifest:
    """Export `checkpoint` to the folder `out` with as many of the wanted components in int8 as the gate accepts.

    If all of them together cost too much, each is tried alone, and the most expensive ones go back to fp32 one by one.
    `sentences` (default: the first `parity` of the gate's corpus) are compared with PyTorch. Raises BadInput when `out`
    is taken or this processor cannot judge for the target CPU, WorkFailed when no component may be int8.
    """
    targets.check_gate(gate.wanted.target_cpu)
    out = check_vacant(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    trials, limit = _Trials(checkpoint, gate, threads, watch), gate.max_bleu_drop
    sentences = sentences or gate.dev.source[:parity]

    def attempt(folder: Path, precision: Precision, judge: Judge) -> Manifest:
        return export(checkpoint, folder, sentences=sentences, threads=threads, precision=precision, judge=judge)

    with _scratch(out) as scratch:
        attempt(scratch / "fp32", FP32, trials.reference)
        precision = gate.wanted
        while precision.int8:
            if trials.drops.get(precision, 0.0) <= limit:
                try:
                    return attempt(out, precision, trials.weigh(precision, limit))
                except _TooCostly:
                    pass
            for name in () if trials.alone else precision.components:
                single = precision.only(name)
                if single not in trials.drops:
                    attempt(scratch / name, single, trials.weigh(single, float("inf")))
                trials.alone[name] = trials.drops[single]
            precision = precision.without({max(precision.components, key=lambda name: trials.alone[name])})
    costs = ", ".join(f"{name} {drop:.1f} %" for name, drop in trials.alone.items())
    raise WorkFailed(
        f"no component may be int8 within {limit} % of the fp32 BLEU {trials.fp32.bleu:.2f}: alone they cost {costs}; "
        "export fp32, or raise --max-bleu-drop"
    )


def gated(
    export: Export,
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    sentences: Sequence[str],
    threads: int,
    precision: Precision,
    dev: Corpus | None,
    max_bleu_drop: float,
    watch: Watch | None,
) -> Manifest:
    """Export in int8 through the gate; BadInput without a `dev` corpus."""
    if dev is None:
        raise BadInput(
            "precision int8 needs dev=CORPUS: the BLEU there decides which components may be 8-bit "
            "(for measurements of speed alone: judge=tprune.export.ungated)"
        )
    gate = Gate(dev, max_bleu_drop, precision)
    return quantize(checkpoint, out, export, gate, sentences=sentences, threads=threads, watch=watch)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`, locked so that `stamp.new_folder(out)` does not take it for abandoned."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".part") as folder:
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(lock)
