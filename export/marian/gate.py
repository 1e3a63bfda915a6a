"""int8 with a gate: components whose 8-bit form costs too much BLEU stay fp32, and the manifest says which.

    quantize(checkpoint, "out", to_onnx, Gate(corpus, max_bleu_drop=0.5))

Quality is measured as the artefact ships: its own greedy loop with its cache, one sentence at a time, against the same
export in fp32.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import check_vacant
from tprune.export import targets
from tprune.export.graphs.precision import COMPONENTS, FP32, INT8, Precision
from tprune.export.manifest import Int8Cost, Manifest
from tprune.export.marian.quality import translate
from tprune.marian.corpus import Corpus
from tprune.marian.quality import compare, score
from tprune.marian.translate import decode

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint

Watch = Callable[[str, int, int], None]
"""watch(what is being translated, sentences done, sentences in all)"""


class Export(Protocol):
    """`to_onnx` or `to_executorch`."""

    def __call__(
        self, checkpoint: Checkpoint, out: Path, *, sentences: Sequence[str], threads: int, precision: Precision
    ) -> Manifest: ...


@dataclass(frozen=True)
class Gate:
    """BLEU on `dev` at most `max_bleu_drop` per cent below that of the fp32 export; `wanted` is what shall be int8.

    Raises BadInput for nothing wanted or a negative drop.
    """

    dev: Corpus
    max_bleu_drop: float = 0.5
    wanted: Precision = INT8

    def __post_init__(self) -> None:
        if not self.wanted.int8:
            raise BadInput("int8 export with every component kept in fp32; leave one of them out, or ask for fp32")
        if not self.max_bleu_drop >= 0.0:
            raise BadInput(f"the BLEU drop {self.max_bleu_drop} is not a percentage of at least 0")


@dataclass(frozen=True)
class _Trial:
    folder: Path
    manifest: Manifest
    ids: list[tuple[int, ...]]
    text: tuple[str, ...]
    bleu: float


def quantize(
    checkpoint: Checkpoint,
    out: str | Path,
    export: Export,
    gate: Gate,
    *,
    parity: int = 50,
    threads: int = 1,
    watch: Watch | None = None,
) -> Manifest:
    """Export `checkpoint` to the folder `out` with as many of the wanted components in int8 as the gate lets pass.

    When all of them cost too much, every component is tried alone, and the dearest ones go back to fp32 until they do
    not. The first `parity` sentences of the gate's corpus are compared with PyTorch. Raises BadInput when `out` is
    taken or this processor cannot judge for the target CPU, WorkFailed when not even one component may be int8.
    """
    dev = gate.dev
    targets.check_gate(gate.wanted.target_cpu)
    out = check_vacant(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".part") as place:

        @functools.cache
        def attempt(precision: Precision) -> _Trial:
            name = "-".join(c for c in COMPONENTS if c in precision.int8) or "fp32"
            folder = Path(place) / name
            manifest = export(checkpoint, folder, sentences=dev.source[:parity], threads=threads, precision=precision)
            told = None if watch is None else lambda done, n: watch(name, done, n)
            ids = translate(folder, dev.source, threads=threads, progress=told)[0]
            text = decode(checkpoint.tokenizer, ids)
            return _Trial(folder, manifest, ids, text, score(text, dev.target, language=dev.language).bleu)

        reference = attempt(FP32)

        def drop(trial: _Trial) -> float:
            return 100.0 * (1.0 - trial.bleu / reference.bleu) if reference.bleu else 0.0

        precision, trial = gate.wanted, attempt(gate.wanted)
        alone: dict[str, float] = {}
        while drop(trial) > gate.max_bleu_drop:
            alone = alone or {c: drop(attempt(gate.wanted.only(c))) for c in COMPONENTS if c in precision.int8}
            precision = precision.without({max(precision.int8, key=lambda c: alone[c])})
            if not precision.int8:
                costs = ", ".join(f"{name} {cost:.1f} %" for name, cost in alone.items())
                raise WorkFailed(
                    f"no component may be int8 within {gate.max_bleu_drop} % of the fp32 BLEU {reference.bleu:.2f}: "
                    f"alone they cost {costs}; export fp32, or raise --max-bleu-drop"
                )
            trial = attempt(precision)
        cost = Int8Cost(
            split=dev.split,
            sentences=len(dev),
            identical=sum(a == b for a, b in zip(trial.ids, reference.ids, strict=True)),
            bleu=trial.bleu,
            fp32_bleu=reference.bleu,
            p_value=compare(trial.text, reference.text, dev.target, language=dev.language),
            alone={name: round(cost, 3) for name, cost in alone.items()},
        )
        manifest = replace(trial.manifest, cost=cost)
        manifest.write(trial.folder)
        _publish(trial.folder, out)
    return manifest


def _publish(folder: Path, out: Path) -> None:
    if out.is_dir():
        out.rmdir()  # it is empty
    folder.rename(out)
