"""A Marian whose layers have individual sizes: heads, Q/K width and V width per head, FFN width; all may be 0.

The module names are HuggingFace Marian's, so weights move between the two without renaming. `import tprune` registers
the pair with transformers: `AutoModelForSeq2SeqLM.from_pretrained(folder)` and `generate` then work on a pruned folder.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, MarianMTModel
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.marian.modeling_marian import eager_attention_forward

from tprune.marian.config import LayerSizes, PrunedMarianConfig, SubBlock


class PrunedAttention(nn.Module):
    """Multi-head attention with any head count and separate Q/K and V widths. Without heads it is a constant bias.

    Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model).
    """

    def __init__(
        self, config: PrunedMarianConfig, sizes: SubBlock, *, head_dim: int, layer_idx: int, cross: bool, causal: bool
    ) -> None:
        super().__init__()
        d_model = config.d_model
        self.config = config
        self.num_heads, self.qk_width, self.v_width = sizes["heads"], sizes["qk"], sizes["v"]
        self.scaling = head_dim**-0.5
        self.dropout = config.attention_dropout
        self.layer_idx = layer_idx
        self.is_cross = cross
        self.is_causal = causal
        if self.num_heads:
            self.q_proj = nn.Linear(d_model, self.num_heads * self.qk_width)
            self.k_proj = nn.Linear(d_model, self.num_heads * self.qk_width)
            self.v_proj = nn.Linear(d_model, self.num_heads * self.v_width)
        self.out_proj = linear(self.num_heads * self.v_width, d_model)

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attention output and, with the eager implementation, the weights."""
        if not self.num_heads:
            self._count_tokens(hidden_states, past_key_values)
            return self.out_proj(hidden_states[..., :0]), None
        query = self._split(self.q_proj(hidden_states))
        key, value = self._keys_values(hidden_states, key_value_states, past_key_values)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.out_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights

    def _split(self, states: Tensor) -> Tensor:
        """(batch, time, heads * width) -> (batch, heads, time, width)."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _keys_values(self, hidden: Tensor, encoded: Tensor | None, cache: Cache | None) -> tuple[Tensor, Tensor]:
        layers = cache
        if isinstance(cache, EncoderDecoderCache):
            layers = cache.cross_attention_cache if self.is_cross else cache.self_attention_cache
            if self.is_cross and cache.is_updated.get(self.layer_idx):
                return layers.layers[self.layer_idx].keys, layers.layers[self.layer_idx].values
        states = encoded if self.is_cross else hidden
        key, value = self._split(self.k_proj(states)), self._split(self.v_proj(states))
        if layers is not None:
            key, value = layers.update(key, value, self.layer_idx)
            if self.is_cross and isinstance(cache, EncoderDecoderCache):
                cache.is_updated[self.layer_idx] = True
        return key, value

    def _count_tokens(self, hidden: Tensor, cache: Cache | None) -> None:
        """Keep the cache length correct: transformers reads it from layer 0, which may be empty."""
        if cache is None or self.is_cross:
            return
        layers = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        placeholder = hidden.new_zeros(hidden.shape[0], 1, hidden.shape[1], 1)
        layers.update(placeholder, placeholder, self.layer_idx)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a Linear; zero sizes (empty sub-blocks) are legal, and torch's warning about them is suppressed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs)


class PrunedMarianMTModel(MarianMTModel):
    """HuggingFace's MarianMTModel with the sub-blocks of every layer replaced by their pruned sizes."""

    config_class = PrunedMarianConfig

    def __init__(self, config: PrunedMarianConfig) -> None:
        super().__init__(config)
        encoder_dim = config.d_model // config.encoder_attention_heads
        decoder_dim = config.d_model // config.decoder_attention_heads
        for layer, sizes in zip(self.model.encoder.layers, config.encoder_sizes or (), strict=True):
            _resize(layer, config, sizes, head_dim=encoder_dim, layer_idx=0)
        for i, (layer, sizes) in enumerate(zip(self.model.decoder.layers, config.decoder_sizes or (), strict=True)):
            _resize(layer, config, sizes, head_dim=decoder_dim, layer_idx=i)
        self.post_init()

    @classmethod
    def from_stock(cls, stock: MarianMTModel) -> PrunedMarianMTModel:
        """Return a copy of a stock network as a PrunedMarianMTModel with full sizes."""
        values = stock.config.to_dict()
        for key in ("model_type", "architectures", "transformers_version", "encoder_sizes", "decoder_sizes"):
            values.pop(key, None)
        model = cls(PrunedMarianConfig(**values))
        model.load_state_dict(stock.state_dict())
        model.generation_config = copy.deepcopy(stock.generation_config)
        return model.to(next(stock.parameters())).train(stock.training)


def _resize(layer: nn.Module, config: PrunedMarianConfig, sizes: LayerSizes, *, head_dim: int, layer_idx: int) -> None:
    """Give one encoder or decoder layer its own sizes, in place."""
    decoder = "encoder_attn" in sizes
    layer.self_attn = PrunedAttention(
        config, sizes["self_attn"], head_dim=head_dim, layer_idx=layer_idx, cross=False, causal=decoder
    )
    if decoder:
        layer.encoder_attn = PrunedAttention(
            config, sizes["encoder_attn"], head_dim=head_dim, layer_idx=layer_idx, cross=True, causal=False
        )
    layer.fc1 = linear(config.d_model, sizes["ffn"])
    layer.fc2 = linear(sizes["ffn"], config.d_model)


def set_dropout(model: PrunedMarianMTModel, *, dropout: float, attention: float, activation: float) -> None:
    """Set the three dropout rates (shares in [0, 1)) of every layer; they act in training mode only."""
    model.model.encoder.dropout = model.model.decoder.dropout = dropout
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        layer.dropout, layer.activation_dropout = dropout, activation
        layer.self_attn.dropout = attention
        if hasattr(layer, "encoder_attn"):
            layer.encoder_attn.dropout = attention


AutoModelForSeq2SeqLM.register(PrunedMarianConfig, PrunedMarianMTModel, exist_ok=True)
