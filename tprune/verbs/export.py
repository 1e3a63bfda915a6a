"""Export a checkpoint for a runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base import stamp
from tprune.base.errors import BadInput, one_of, only_for
from tprune.export import targets
from tprune.export.graphs.precision import FP32, INT8, MAX_BLEU_DROP, PARITY, Precision
from tprune.marian import folder
from tprune.verbs.inputs import Text, Watch, open_model, silent

if TYPE_CHECKING:
    from tprune.export.manifest import Manifest

RUNTIMES = ("onnx", "executorch")


@dataclass(frozen=True)
class Settings:
    """What to export to: a runtime (`to`), and what is int8. `parity` sentences are compared with PyTorch.

    `keep_float` names components that stay fp32 in an int8 export, separated by commas; `max_bleu_drop` (None: the
    gate's default) limits its BLEU loss in per cent.
    """

    to: str = "onnx"
    precision: str = FP32.name
    keep_float: str | None = None
    max_bleu_drop: float | None = None
    target_cpu: str | None = None
    parity: int = PARITY
    threads: int = 1

    def __post_init__(self) -> None:
        one_of("--to", self.to, RUNTIMES)
        one_of("--precision", self.precision, (FP32.name, INT8.name))
        if self.precision == FP32.name:
            only_for("--precision int8", {"--keep-float": self.keep_float, "--max-bleu-drop": self.max_bleu_drop})
        targets.check(self.target_cpu, to=self.to, precision=self.precision)
        if self.max_bleu_drop is not None and not self.max_bleu_drop >= 0:
            raise BadInput(f"--max-bleu-drop {self.max_bleu_drop:g}: must be at least 0 per cent")
        if self.precision == INT8.name and not self.components.int8:
            raise BadInput("int8 export with every component kept in fp32; leave one of them out, or ask for fp32")

    @property
    def components(self) -> Precision:
        """The components that are to be int8."""
        if self.precision == FP32.name:
            return FP32
        kept = [name.strip() for name in (self.keep_float or "").split(",") if name.strip()]
        if self.keep_float is not None and not kept:
            raise BadInput("--keep-float names no component; an export has encoder, decoder, output, embedding")
        return replace(INT8.without(kept), target_cpu=self.target_cpu or targets.ALL)


def export(
    model: str, text: Text, out: Path, settings: Settings, *, vocabulary: str | None = None, watch: Watch = silent
) -> Manifest:
    """Export `model` to the folder `out` and return the artefact's manifest.

    `text` serves the parity check and the quality gate of int8. With `vocabulary`, the artefact has only the tokens on
    the target side of that split.
    """
    stamp.check_vacant(out)
    folder.check(model)
    dev = text.whole()
    words = text.whole(vocabulary) if vocabulary else None
    checkpoint = open_model(model)
    if settings.to == "onnx":
        from tprune.export.ort.export import to_onnx as write
    else:
        from tprune.export.et.export import to_executorch as write
    if words:
        from tprune.marian.corpus import tokenise
        from tprune.marian.vocabulary import trim

        limit = checkpoint.model.config.max_position_embeddings
        checkpoint = trim(checkpoint, tokenise(words, checkpoint.tokenizer, limit).target)
    return write(
        checkpoint,
        out,
        sentences=dev.source[: settings.parity],
        threads=settings.threads,
        precision=settings.components,
        dev=dev,
        max_bleu_drop=MAX_BLEU_DROP if settings.max_bleu_drop is None else settings.max_bleu_drop,
        watch=lambda name, done, total: watch(name, done, total, ""),
    )
