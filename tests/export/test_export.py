"""The exported graphs against HF's own forward pass, over the Marians that a configuration can describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto
from torch import Tensor
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tprune.base.errors import BadInput, WorkFailed
from tprune.export.graphs.marian import EncoderGraph, StepGraph, ports
from tprune.export.manifest import Manifest, ParityResult
from tprune.export.marian import parity
from tprune.export.ort import runtime
from tprune.export.ort.export import to_onnx
from tprune.marian.config import PrunedMarianConfig
from tprune.marian.model import PrunedMarianMTModel


def attention(heads: int, qk: int = 4, v: int = 4) -> dict[str, int]:
    return {"heads": heads, "qk": qk, "v": v}


def layer(own: dict[str, int], ffn: int, cross: dict[str, int] | None = None) -> dict[str, Any]:
    return {"self_attn": own, "ffn": ffn} | ({"encoder_attn": cross} if cross else {})


NONE = attention(0, 0, 0)
RAGGED = {
    "encoder_sizes": [layer(attention(3, 2, 4), 5), layer(NONE, 7)],
    "decoder_sizes": [layer(NONE, 6, attention(1, 4, 2)), layer(attention(2, 1, 3), 0, NONE)],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "stock": {},
    "no-scale-gelu": {"scale_embedding": False, "activation_function": "gelu"},
    "relu-deep-encoder": {"activation_function": "relu", "encoder_layers": 3, "decoder_layers": 1},
    "untied": {"tie_word_embeddings": False},
    "split": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 130, "vocab_size": 112},
    "heads-differ": {"encoder_attention_heads": 2, "decoder_attention_heads": 8, "decoder_ffn_dim": 20},
    "ragged": RAGGED,
    "no-self-attention": {"decoder_sizes": [layer(NONE, 4, attention(2)), layer(NONE, 0, attention(1))]},
    "no-cross-attention": {"decoder_sizes": [layer(attention(2), 4, NONE), layer(attention(1), 0, NONE)]},
    "nothing-left": {"encoder_sizes": [layer(NONE, 0)] * 2, "decoder_sizes": [layer(NONE, 0, NONE)] * 2},
}


def make(config: Callable[..., MarianConfig], variant: str) -> PrunedMarianMTModel:
    changes = dict(VARIANTS[variant])
    sizes = {key: changes.pop(key) for key in ("encoder_sizes", "decoder_sizes") if key in changes}
    if sizes:
        values = config(**changes).to_dict()
        values.pop("model_type")
        return randomised(PrunedMarianMTModel(PrunedMarianConfig(**values, **sizes)))
    return randomised(PrunedMarianMTModel.from_stock(MarianMTModel(config(**changes))))


@dataclass(frozen=True)
class Source:
    """What `to_onnx` needs of a checkpoint."""

    model: PrunedMarianMTModel
    tokenizer: MarianTokenizer
    id: str = "0123456789abcdef"
    name: str = "tiny"
    facts: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def tokenizer(tiny_tokenizer_folder: Path) -> MarianTokenizer:
    return MarianTokenizer.from_pretrained(tiny_tokenizer_folder)


@torch.no_grad()
def teacher_forced(model: MarianMTModel, ids: Tensor, mask: Tensor, target: Sequence[int]) -> Tensor:
    """(batch, len(target), vocabulary) from our two modules."""
    outputs = EncoderGraph(model)(ids, mask)
    encoded = dict(zip((port.name for port in ports(model)["encoder"][1]), outputs, strict=True))
    inputs, results = ports(model)["decoder_step"]
    past = {
        p.name: torch.zeros([{"batch": len(ids), "cache": len(target)}.get(s, s) for s in p.shape])
        for p in inputs
        if "cache" in p.shape
    }
    step, rows = StepGraph(model), []
    for position, token in enumerate(target):
        known = encoded | past
        given = [known[port.name] for port in inputs[2:]]
        logits, *present = step(torch.full((len(ids),), token), torch.tensor([position]), *given)
        assert [tuple(t.shape[1::2]) for t in present] == [(p.shape[1], p.shape[3]) for p in results[1:]]
        past = dict(zip(past, present, strict=True))
        rows.append(logits)
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_modules_equal_the_model(tiny_config: Callable[..., MarianConfig], variant: str) -> None:
    model = make(tiny_config, variant)
    pad = model.config.pad_token_id
    ids = torch.tensor([[5, 6, 7, 8, 0], [9, 4, 0, pad, pad]])
    mask = (ids != pad).long()
    target = [model.config.decoder_start_token_id, 17, 3, 99]
    with torch.no_grad():
        batch = torch.tensor([target, target])
        wanted = model(input_ids=ids, attention_mask=mask, decoder_input_ids=batch).logits
    found = teacher_forced(model, ids, mask, target)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["stock", "split", "ragged", "no-cross-attention"])
def test_export_translates_like_pytorch(
    tmp_path: Path, tiny_config: Callable[..., MarianConfig], tokenizer: MarianTokenizer, variant: str
) -> None:
    model = make(tiny_config, variant)
    model.generation_config.max_length = 12
    manifest = to_onnx(Source(model, tokenizer), tmp_path / "out", sentences=SENTENCES[:4])
    assert manifest == Manifest.read(tmp_path / "out")
    assert (manifest.parity.sentences, manifest.parity.identical) == (4, 4)
    assert manifest.parity.max_abs_logit_diff < 1e-4
    assert manifest.model.criterion == "dense"
    assert manifest.limits.target == 12
    sizes = model.config.decoder_sizes
    past = [t.shape for t in manifest.tensors["decoder_step"].inputs if t.name.startswith("past_")]
    own = [s["self_attn"] for s in sizes if s["self_attn"]["heads"]]
    assert past == [("batch", a["heads"], "cache", 8) for a in own for _ in ("key", "value")]  # filled up to eights
    artefact = runtime.open(tmp_path / "out")
    sources = [tokenizer(text)["input_ids"] for text in SENTENCES]
    assert artefact.translate(sources) == tuple(artefact.greedy(source).ids for source in sources)
    nodes = count_nodes(tmp_path / "out" / "decoder_step.onnx")
    assert sum(nodes.values()) <= 17 * len(sizes) + 8  # dispatch is about a microsecond a node
    assert not {"Concat", "Transpose"} & set(nodes)
    assert [artefact.greedy(s).ids for s in sources] == [parity.greedy(model, s, 12) for s in sources]


def count_nodes(graph: Path) -> Counter[str]:
    """Return operator -> count of an ONNX file after all optimisations of ONNX Runtime."""
    options, optimised = ort.SessionOptions(), graph.with_suffix(".optimised")
    options.optimized_model_filepath, options.log_severity_level = str(optimised), 3
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(optimised, load_external_data=False).graph.node)


def test_nothing_appears_when_parity_fails(
    tmp_path: Path, tiny_model: MarianMTModel, tokenizer: MarianTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = parity.Comparison(ParityResult(2, 1, 0.5), first_different=1)
    monkeypatch.setattr(parity, "compare", lambda *args, **settings: far)
    monkeypatch.setattr("tprune.export.ort.export.trace", lambda graph, borders: ModelProto())
    source = Source(PrunedMarianMTModel.from_stock(tiny_model), tokenizer)
    complaint = "'tiny' refused: 1 of 2 sentences have PyTorch's greedy tokens, first at sentence 1, .* up to 5.00e-01"
    with pytest.raises(WorkFailed, match=complaint):
        to_onnx(source, tmp_path / "out", sentences=SENTENCES[:2])
    assert list(tmp_path.iterdir()) == []


def test_parity_refuses_far_logits() -> None:
    assert parity.Comparison(ParityResult(2, 2, 1e-4), None).passed
    assert not parity.Comparison(ParityResult(2, 2, 0.5), None).passed
    assert not parity.Comparison(ParityResult(2, 1, 1e-4), 0).passed


def test_refuses_an_export_without_sentences(tmp_path: Path, tiny_model: MarianMTModel) -> None:
    with pytest.raises(BadInput, match="no sentences for the parity check"):
        to_onnx(Source(PrunedMarianMTModel.from_stock(tiny_model), None), tmp_path / "out", sentences=[])
