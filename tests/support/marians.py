"""Random tiny Marians of every kind that HuggingFace's config can say, and random plans for them."""

from __future__ import annotations

import random

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MarianConfig, MarianMTModel

from tests.conftest import randomised
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.plan import AttentionPlan, Plan
from tprune.pruning.surgery import shapes

PAD, EOS = 22, 0  # one id each, legal in both vocabularies
# The same few examples on every run: a failure must not depend on the day.
few = settings(max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))

EMBEDDINGS = {
    "joint, tied": {"share_encoder_decoder_embeddings": True, "tie_word_embeddings": True},
    "joint, untied": {"share_encoder_decoder_embeddings": True, "tie_word_embeddings": False},
    "split, tied": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 29, "tie_word_embeddings": True},
    "split, untied": {
        "share_encoder_decoder_embeddings": False,
        "decoder_vocab_size": 29,
        "tie_word_embeddings": False,
    },
}
PLANS = ("random", "random", "random", "nothing", "everything", "no first decoder self-attention", "no cross-attention")


@st.composite
def configs(draw: st.DrawFn) -> MarianConfig:
    """Any kind of Marian, width 8 or 16."""
    d_model = draw(st.sampled_from([8, 16]))
    depths = draw(st.sampled_from([(1, 1), (1, 3), (3, 1), (2, 2)]))
    return MarianConfig(
        vocab_size=23,
        d_model=d_model,
        encoder_layers=depths[0],
        decoder_layers=depths[1],
        encoder_attention_heads=draw(st.sampled_from([1, 2, 4])),
        decoder_attention_heads=draw(st.sampled_from([1, 2, 4])),
        encoder_ffn_dim=draw(st.integers(1, 24)),
        decoder_ffn_dim=draw(st.integers(1, 24)),
        activation_function=draw(st.sampled_from(["swish", "gelu", "relu"])),
        scale_embedding=draw(st.booleans()),
        max_position_embeddings=32,
        pad_token_id=PAD,
        eos_token_id=EOS,
        forced_eos_token_id=EOS,
        decoder_start_token_id=PAD,
        **EMBEDDINGS[draw(st.sampled_from(sorted(EMBEDDINGS)))],
    )


def stock(config: MarianConfig, seed: int = 0) -> MarianMTModel:
    """Return a stock Marian with every weight, bias and final_logits_bias random."""
    torch.manual_seed(seed)
    model = randomised(MarianMTModel(config), seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim == 2 and "embed" not in name and "shared" not in name:
                tensor.mul_(0.5)  # strong weights on eight numbers a token would blow rounding up, not show faults
    return model


def full_plan(model: PrunedMarianMTModel) -> Plan:
    """Return the plan that keeps everything."""
    attention: dict[str, AttentionPlan] = {}
    ffn: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes(model).items():
        if len(shape) == 1:
            ffn[name] = tuple(range(shape[0]))
        else:
            heads, qk, vo = shape
            attention[name] = AttentionPlan(
                tuple(range(heads)), (tuple(range(qk)),) * heads, (tuple(range(vo)),) * heads
            )
    return Plan(attention, ffn)


def random_plan(model: PrunedMarianMTModel, seed: int, kind: str = "random") -> Plan:
    """Return a plan of one of the `PLANS` kinds for `model`, which may be a cut one."""
    chance = random.Random(seed)
    attention: dict[str, AttentionPlan] = {}
    ffn: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes(model).items():
        empty = (
            kind == "nothing"
            or (kind == "no first decoder self-attention" and name == "decoder.layers.0.self_attn")
            or (kind == "no cross-attention" and "encoder_attn" in name)
            or (kind != "everything" and chance.random() < 0.2)
        )
        if len(shape) == 1:
            ffn[name] = () if empty else _some(chance, shape[0], full=kind == "everything")
        else:
            attention[name] = AttentionPlan((), (), ()) if empty else _attention(chance, shape, kind == "everything")
    return Plan(attention, ffn, {"kind": kind})


def _attention(chance: random.Random, shape: tuple[int, ...], full: bool) -> AttentionPlan:
    heads = _some(chance, shape[0], full=full)
    if not heads:
        return AttentionPlan((), (), ())
    widths = [width if full else chance.randint(1, width) for width in shape[1:]]
    lines = [tuple(_of(chance, of, width) for _ in heads) for of, width in zip(shape[1:], widths, strict=True)]
    return AttentionPlan(heads, lines[0], lines[1])


def _some(chance: random.Random, width: int, *, full: bool) -> tuple[int, ...]:
    return _of(chance, width, width if full else chance.randint(min(1, width), width))


def _of(chance: random.Random, width: int, count: int) -> tuple[int, ...]:
    return tuple(sorted(chance.sample(range(width), count)))


def inputs(config: MarianConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return three source rows of 7, 4 and 1 tokens with their mask, and decoder input of 6 tokens."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(1, PAD, (3, 7), generator=generator)
    mask = torch.arange(7)[None] < torch.tensor([7, 4, 1])[:, None]
    target = torch.randint(1, PAD, (3, 6), generator=generator)
    return {
        "input_ids": source.masked_fill(~mask, PAD),
        "attention_mask": mask.long(),
        "decoder_input_ids": torch.cat([torch.full((3, 1), PAD), target[:, 1:]], 1),
    }


@torch.inference_mode()
def logits(model: MarianMTModel, batch: dict[str, Tensor]) -> Tensor:
    """Return the teacher-forced logits (batch, time, vocabulary)."""
    return model(**batch, use_cache=False).logits


@torch.inference_mode()
def generated(model: MarianMTModel, batch: dict[str, Tensor], **options: object) -> list[list[int]]:
    """Return what `generate` produces: greedy and cached unless `options` say otherwise, 12 tokens at most."""
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return model.generate(**source, **({"num_beams": 1, "do_sample": False, "max_length": 12} | options)).tolist()
