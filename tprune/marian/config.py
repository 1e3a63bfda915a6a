"""The configuration of a pruned Marian: HuggingFace's, plus the sizes of every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.models.marian.configuration_marian import MarianConfig

SubBlock = dict[str, int]  # {"heads", "qk", "v"}: qk and v are widths of one head
LayerSizes = dict[str, Any]  # {"self_attn": SubBlock, "encoder_attn": SubBlock (decoder only), "ffn": int}
BEFORE_FIRST: list[Callable[[], None]] = []  # called once, before the first configuration is complete


@strict
class PrunedMarianConfig(MarianConfig):
    """Marian's configuration plus the sizes of every layer.

    `encoder_sizes` and `decoder_sizes` hold one `LayerSizes` a layer; None means the stock sizes. The stock fields
    (`encoder_attention_heads`, `encoder_ffn_dim`, ...) keep the values of the model that was pruned: the softmax is
    still scaled by its head width, and `expand` returns to it.
    """

    model_type = "pruned_marian"

    encoder_sizes: list[dict[str, Any]] | None = None
    decoder_sizes: list[dict[str, Any]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        while BEFORE_FIRST:
            BEFORE_FIRST.pop()()
        self.encoder_sizes = self.encoder_sizes or stock_sizes(self, "encoder")
        self.decoder_sizes = self.decoder_sizes or stock_sizes(self, "decoder")
        for side, layers in (("encoder", self.encoder_sizes), ("decoder", self.decoder_sizes)):
            wanted = getattr(self, f"{side}_layers")
            if len(layers) != wanted:
                raise ValueError(f"PrunedMarianConfig.{side}_sizes: {len(layers)} layers, but {side}_layers={wanted}")
            for i, (sizes, stock) in enumerate(zip(layers, stock_sizes(self, side), strict=True)):
                _check_sizes(f"PrunedMarianConfig.{side}_sizes[{i}]", sizes, stock)


def _check_sizes(where: str, sizes: LayerSizes, stock: LayerSizes) -> None:
    """Raise ValueError unless `sizes` has the fields of `stock`, each a whole number between 0 and stock's."""
    if not isinstance(sizes, dict) or sizes.keys() != stock.keys():
        raise ValueError(f"{where}: {sizes!r} must have the fields {', '.join(stock)}")
    for name, most in stock.items():
        if isinstance(most, dict):
            _check_sizes(f"{where}.{name}", sizes[name], most)
        elif type(sizes[name]) is not int or not 0 <= sizes[name] <= most:
            raise ValueError(f"{where}.{name}: {sizes[name]!r} is not a whole number from 0 to {most}")


def stock_sizes(config: MarianConfig, side: str) -> list[LayerSizes]:
    """Return the sizes of every layer of `side` ("encoder" or "decoder") in an unpruned Marian."""
    heads = getattr(config, f"{side}_attention_heads")
    attention = {"heads": heads, "qk": config.d_model // heads, "v": config.d_model // heads}
    names = ("self_attn",) if side == "encoder" else ("self_attn", "encoder_attn")
    ffn = getattr(config, f"{side}_ffn_dim")
    layers = getattr(config, f"{side}_layers")
    return [{**{name: dict(attention) for name in names}, "ffn": ffn} for _ in range(layers)]
