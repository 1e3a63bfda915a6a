"""Write a checkpoint for the rivals: HuggingFace transformers and CTranslate2.

    write_hf(checkpoint, Path("hf"))
    write_ctranslate2(checkpoint, Path("ct2-int8"), precision="int8")

Each folder holds the files of that tool and a `rival.json` with its facts.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import file_sha256, new_folder, stamp, write_json
from tprune.marian.quality import model_facts
from tprune.marian.translate import generation_settings
from tprune.pruning.surgery import expand

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint

FILE = "rival.json"
QUANTISATION = {"fp32": "float32", "int8": "int8"}  # our name -> CTranslate2's


def write_hf(checkpoint: Checkpoint, out: Path) -> None:
    """Write the checkpoint for transformers: an unpruned one as the stock class, a pruned one as it is."""
    with new_folder(out) as folder:
        model = checkpoint.model if checkpoint.facts else expand(checkpoint.model)
        model.save_pretrained(folder)
        _describe(checkpoint, folder, "transformers", "fp32", ("model.safetensors",))


def write_ctranslate2(checkpoint: Checkpoint, out: Path, *, precision: str) -> None:
    """Convert the checkpoint with CTranslate2's converter; in a pruned one, zeros replace what was removed.

    Raise BadInput, with all reasons, for a model that CTranslate2 cannot represent, and WorkFailed when it fails.
    """
    _check_convertible(checkpoint)
    from ctranslate2.converters import TransformersConverter  # noqa: PLC0415 - an optional dependency

    with new_folder(out) as folder, tempfile.TemporaryDirectory() as stock:
        expand(checkpoint.model).save_pretrained(stock)
        checkpoint.tokenizer.save_pretrained(stock)
        try:
            TransformersConverter(stock).convert(str(folder), quantization=QUANTISATION[precision], force=True)
        except (ValueError, RuntimeError, KeyError, AttributeError, NotImplementedError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise WorkFailed(f"CTranslate2's converter failed on {checkpoint.name!r}: {reason}") from error
        _describe(checkpoint, folder, "ctranslate2", precision, ("model.bin", "shared_vocabulary.json"))


def _check_convertible(checkpoint: Checkpoint) -> None:
    """Raise BadInput for a model that CTranslate2 would silently change, or not convert."""
    config, complaints = checkpoint.model.config, []
    if config.pad_token_id != config.vocab_size - 1:
        complaints.append(
            f"<pad> is {config.pad_token_id}, but CTranslate2 assumes the last id ({config.vocab_size - 1})"
        )
    if not config.share_encoder_decoder_embeddings or config.decoder_vocab_size != config.vocab_size:
        complaints.append("source and target have separate vocabularies")
    if complaints:
        raise BadInput(
            f"CTranslate2 cannot represent {checkpoint.name!r}: {'; '.join(complaints)}; leave it out of --rivals"
        )


def _describe(checkpoint: Checkpoint, folder: Path, runtime: str, precision: str, files: tuple[str, ...]) -> None:
    """Write `rival.json`: what a benchmark needs of an artefact's manifest, with the same field names."""
    digest = hashlib.sha256("".join(f"{name} {file_sha256(folder / name)}\n" for name in files).encode())
    model = checkpoint.model
    write_json(
        folder / FILE,
        {
            **stamp("rival", {"model": checkpoint.id}),
            "id": hashlib.sha256(f"{runtime} {precision} {digest.hexdigest()}".encode()).hexdigest()[:16],
            "runtime": runtime,
            "precision": precision,
            "bytes": sum((folder / name).stat().st_size for name in files),
            "limits": {
                "source": model.config.max_position_embeddings,
                "target": generation_settings(model).max_length,
            },
            "model": model_facts(checkpoint),
        },
    )
