"""Load and save Marian checkpoints, stock or pruned. One error lists every fault of a folder.

A pruned folder holds `model.safetensors`, `config.json` (`model_type: pruned_marian` and the sizes of every layer), the
tokenizer's files, `plan.json` and `stamp.json`. A loaded model is always a `PrunedMarianMTModel`; a stock checkpoint
becomes one with full sizes, so that everything downstream handles one class.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import MarianMTModel, MarianTokenizer
from transformers.activations import ACT2FN

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import file_sha256, new_folder, stamp, write_json
from tprune.marian.folder import HUB_ID, locate
from tprune.marian.model import PrunedMarianMTModel

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
TOKENIZER = ("source.spm", "target.spm", "vocab.json")
ACTIVATIONS = ("swish", "silu", "gelu", "relu")  # what the exported graphs spell out
COUNTS = (
    *("d_model", "vocab_size", "max_position_embeddings"),
    *(f"{side}_{name}" for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")),
)


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode with its tokenizer; `id` is the first 16 hex digits of its weights' SHA-256.

    `facts` records how it was made (criterion, keep, seed, ...); empty for a stock checkpoint.
    """

    model: PrunedMarianMTModel
    tokenizer: MarianTokenizer
    id: str
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        facts, size = self.facts, sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        made = f", {facts['criterion']}, keep {facts['keep']}" if {"criterion", "keep"} <= facts.keys() else ""
        return f"Checkpoint({self.name!r}, {size:,} parameters{made}, id {self.id})"


def load(source: str | Path) -> Checkpoint:
    """Return the checkpoint in a folder or at a hub id (downloaded by transformers' own client, or from its cache).

    Raises BadInput with all faults at once.
    """
    folder, config = locate(source)
    complaints = _config_complaints(config)
    loadable = not complaints
    complaints += _file_complaints(folder)
    tokenizer = _load_tokenizer(folder, complaints)
    if tokenizer is not None and loadable:
        complaints += _vocabulary_complaints(config, tokenizer)
    model = _load_model(folder, config["model_type"], complaints) if loadable else None
    _refuse(source, complaints)
    assert model is not None and tokenizer is not None
    name = str(source) if HUB_ID.fullmatch(str(source)) and not Path(source).exists() else folder.resolve().name
    return Checkpoint(model, tokenizer, weights_id(folder), name, _facts(folder))


def opened(model: Checkpoint | str | os.PathLike[str]) -> Checkpoint:
    """Return a checkpoint as it is, or load it from a folder or hub id."""
    return model if isinstance(model, Checkpoint) else load(os.fspath(model))


def save(
    model: PrunedMarianMTModel,
    tokenizer: MarianTokenizer,
    out: Path | str,
    *,
    facts: Mapping[str, Any],
    plan: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Write a checkpoint folder, whole or not at all, and return it.

    Raises BadInput when `out` is not vacant and WorkFailed when it cannot be written (a full disk).
    """
    with _writing(out), new_folder(out) as folder:
        model.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):
            weights.chmod(0o644)  # safetensors writes files with mode 600
        tokenizer.save_pretrained(folder)
        if plan is not None:
            write_json(folder / "plan.json", {**stamp("plan", inputs), **plan})
        write_json(folder / "stamp.json", {**stamp("checkpoint", inputs), "facts": dict(facts)})
        identity = weights_id(folder)
    return Checkpoint(model.eval(), tokenizer, identity, Path(out).resolve().name, dict(facts))


@contextlib.contextmanager
def _writing(out: Path | str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"checkpoint {str(out)!r} cannot be written ({error}); nothing was left behind") from error


def weights_id(folder: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 over the weight files of a checkpoint folder."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    digests = [file_sha256(file) for file in files]
    joined = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return joined[:16]


def _config_complaints(config: Mapping[str, Any]) -> list[str]:
    found = []
    activation = config.get("activation_function", "gelu")
    if activation not in ACTIVATIONS or activation not in ACT2FN:
        found.append(f"activation_function {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    wrong = [name for name in COUNTS if not _is_count(config.get(name, 1))]
    found += [f"{name} {config[name]!r} is not a whole number above 0" for name in wrong]
    d_model = config.get("d_model", 1024) if "d_model" not in wrong else 0
    for side in ("encoder", "decoder"):
        heads = config.get(f"{side}_attention_heads", 16)
        if _is_count(heads) and d_model % heads:
            found.append(f"{side}_attention_heads {heads} does not divide d_model {d_model}")
    if d_model % 2:
        found.append(f"d_model {d_model} is odd, sinusoidal positions need it even")
    if not config.get("is_encoder_decoder", True):
        found.append("is_encoder_decoder is false (a decoder-only Marian)")
    vocabularies = (
        config.get("vocab_size", 58101),
        config.get("decoder_vocab_size") or config.get("vocab_size", 58101),
    )
    if config.get("share_encoder_decoder_embeddings", True) and len(set(vocabularies)) > 1:
        found.append(
            "vocab_size {} and decoder_vocab_size {} differ, but the embeddings are shared".format(*vocabularies)
        )
    if config.get("quantization_config"):
        found.append("quantization_config is set; start from the float checkpoint")
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _file_complaints(folder: Path) -> list[str]:
    found = [f"{name} is missing" for name in TOKENIZER if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHTS):
        found.append(f"no weights (one of {', '.join(WEIGHTS)})")
    return found


def _load_tokenizer(folder: Path, complaints: list[str]) -> MarianTokenizer | None:
    if not all((folder / name).is_file() for name in TOKENIZER):
        return None  # reported already
    try:
        return MarianTokenizer.from_pretrained(str(folder))
    except Exception as error:  # noqa: BLE001 - sentencepiece, json and transformers each raise their own
        complaints.append(f"the tokenizer cannot be loaded ({_one_line(error)})")
        return None


def _vocabulary_complaints(config: Mapping[str, Any], tokenizer: MarianTokenizer) -> list[str]:
    found = []
    sizes = [("vocab.json", tokenizer.encoder, "vocab_size", config.get("vocab_size", 58101))]
    wanted = config.get("decoder_vocab_size") or config.get("vocab_size", 58101)
    if tokenizer.separate_vocabs:
        sizes.append(("target_vocab.json", tokenizer.target_encoder, "decoder_vocab_size", wanted))
    elif wanted != config.get("vocab_size", 58101):
        sizes.append(("vocab.json", tokenizer.encoder, "decoder_vocab_size", wanted))
    for file, table, name, size in sizes:
        top = max(table.values(), default=-1)
        if top >= size:
            found.append(f"{file} holds id {top}, but {name} is {size}")
        elif top + 1 < size:
            found.append(f"{file} ends at id {top}, but {name} is {size}: {size - top - 1} ids have no piece")
    for name in ("pad", "eos"):
        ours, theirs = getattr(tokenizer, f"{name}_token_id"), config.get(f"{name}_token_id")
        if theirs is not None and ours != theirs:
            found.append(f"{name}_token_id is {theirs} in config.json, but the tokenizer's is {ours}")
    return found


def _load_model(folder: Path, kind: str, complaints: list[str]) -> PrunedMarianMTModel | None:
    """Return the model, or None after adding a complaint for every weight that does not fit."""
    if not any((folder / name).is_file() for name in WEIGHTS):
        return None  # reported already
    cls = MarianMTModel if kind == "marian" else PrunedMarianMTModel
    try:
        model, info = cls.from_pretrained(
            str(folder), dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # noqa: BLE001 - safetensors, torch, pickle and transformers each raise their own
        complaints.append(f"the weights cannot be loaded, damaged or not of this config ({_one_line(error)})")
        return None
    found = [f"weight {key} is missing" for key in sorted(info["missing_keys"])]
    found += [f"weight {key} does not belong" for key in sorted(info["unexpected_keys"])]
    found += [
        f"weight {key}: shape {tuple(stored)} in the file, {tuple(wanted)} by the config"
        for key, stored, wanted in sorted(info["mismatched_keys"])
    ]
    complaints += [complaint for complaint in found if "embed_positions" not in complaint]  # a fixed position table
    # Copy out of the memory-mapped file: products with unaligned weights differ in the last bit.
    model = copy.deepcopy(model).eval()
    for stack in (model.model.encoder, model.model.decoder):
        stack.embed_positions.weight.requires_grad_(False)  # loading makes the fixed position table trainable
    return model if isinstance(model, PrunedMarianMTModel) else PrunedMarianMTModel.from_stock(model)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "stamp.json"
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8")).get("facts", {})
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise BadInput(f"{str(path)!r} is not a stamp: {error}") from error
    return dict(facts)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _refuse(source: str | Path, complaints: list[str]) -> None:
    if complaints:
        shown = complaints if len(complaints) <= 12 else [*complaints[:12], f"and {len(complaints) - 12} more"]
        raise BadInput(f"{str(source)!r} cannot be treated: " + "; ".join(shown))
