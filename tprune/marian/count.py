"""Count parameters and multiply-accumulates (MACs) of a Marian from its sizes.

MACs are those of the matrix products for one sentence of `source` and `target` tokens, batch 1, greedy with a cache:
projections, attention scores and sums, feed-forward networks and the output projection; embeddings and norms are free.
"""

from __future__ import annotations

from dataclasses import dataclass

from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.vocabulary import kept_ids

TOKENS = 16  # of source and of target: a caption-length sentence


@dataclass(frozen=True, slots=True)
class Size:
    """`params` counts every trained parameter once, `prunable` the elements of the six prunable matrix types."""

    params: int
    prunable: int
    encoder_macs: int
    decoder_macs: int

    @property
    def macs(self) -> int:
        return self.encoder_macs + self.decoder_macs


def count(model: PrunedMarianMTModel, *, source: int = TOKENS, target: int = TOKENS) -> Size:
    """Return the size of `model`; MACs for `source` input tokens and `target` decoded tokens."""
    d = model.config.d_model
    prunable = encoder = decoder = 0
    for sizes in model.config.encoder_sizes:
        own, mix = _attention(sizes["self_attn"], d)
        prunable += own + 2 * d * sizes["ffn"]
        encoder += source * (own + 2 * d * sizes["ffn"]) + source * source * mix
    seen = target * (target + 1) // 2  # sum over steps of the tokens that self-attention sees
    for sizes in model.config.decoder_sizes:
        own, mix = _attention(sizes["self_attn"], d)
        cross, cross_mix = _attention(sizes["encoder_attn"], d)
        prunable += own + cross + 2 * d * sizes["ffn"]
        decoder += target * (own + 2 * d * sizes["ffn"]) + seen * mix
        decoder += target * cross // 2 + source * cross // 2 + target * source * cross_mix
    decoder += target * d * len(kept_ids(model))
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Size(params, prunable, encoder, decoder)


def _attention(sizes: dict[str, int], d: int) -> tuple[int, int]:
    """Return (elements of the four projections, MACs per query-key pair)."""
    width = sizes["heads"] * (sizes["qk"] + sizes["v"])
    return 2 * d * width, width
