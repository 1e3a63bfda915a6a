"""Checkpoint folders: what goes in comes out bit for bit, and every bad one is refused with all its faults named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, MarianConfig, MarianMTModel, MarianTokenizer

from tests.support.command import small_disk
from tests.support.marians import PLANS, configs, few, generated, inputs, logits, random_plan, stock
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import file_sha256
from tprune.marian import checkpoint
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.plan import from_json
from tprune.pruning.surgery import cut

NAMES = ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def original(tiny_config, tiny_tokenizer_folder: Path, tmp_path_factory) -> Path:
    """A stock checkpoint folder as transformers writes it; copy it before you break it."""
    folder = tmp_path_factory.mktemp("stock") / "model"
    stock(tiny_config()).save_pretrained(folder)
    for name in NAMES:
        shutil.copy(tiny_tokenizer_folder / name, folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the stock folder that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def check_identical(ours: MarianMTModel, theirs: MarianMTModel) -> None:
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


# ---- what works


def test_a_stock_folder(original: Path) -> None:
    loaded = checkpoint.load(original)
    theirs = MarianMTModel.from_pretrained(original)
    check_identical(loaded.model, theirs)
    batch = inputs(theirs.config)
    assert generated(loaded.model, batch) == generated(theirs, batch)
    assert (loaded.name, loaded.facts) == ("model", {})
    assert loaded.id == file_sha256(original / "model.safetensors")[:16]
    assert not loaded.model.training
    assert loaded.tokenizer("A man.")["input_ids"][-1] == 0


def test_a_trailing_slash_and_a_relative_path(original: Path, monkeypatch) -> None:
    monkeypatch.chdir(original.parent)
    assert checkpoint.load("model/").name == "model"
    monkeypatch.chdir(original)
    assert checkpoint.load(".").name == "model"


@few
@given(configs(), st.integers(0, 1000), st.sampled_from(PLANS))
def test_any_pruned_model_comes_back_bit_for_bit(
    tmp_path_factory, tiny_tokenizer_folder: Path, config: MarianConfig, seed: int, kind: str
) -> None:
    """The tokenizer is not looked at here: these vocabularies have no words."""
    big = PrunedMarianMTModel.from_stock(stock(config, seed))
    small = cut(big, random_plan(big, seed, kind))
    folder = tmp_path_factory.mktemp("pruned") / "m"
    tokenizer = MarianTokenizer.from_pretrained(str(tiny_tokenizer_folder))
    saved = checkpoint.save(small, tokenizer, folder, facts={})
    again = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert type(again) is PrunedMarianMTModel
    check_identical(again, small)
    assert again.config.encoder_sizes == small.config.encoder_sizes
    assert again.config.decoder_sizes == small.config.decoder_sizes
    batch = inputs(config)
    torch.testing.assert_close(logits(again, batch), logits(small, batch), atol=1e-5, rtol=1e-5)
    assert generated(again, batch) == generated(small, batch)
    assert saved.id == file_sha256(folder / "model.safetensors")[:16]


def test_save_and_load_with_everything(original: Path, tmp_path: Path) -> None:
    dense = checkpoint.load(original)
    plan = random_plan(dense.model, 3)
    small = cut(dense.model, plan)
    facts = {"criterion": "magnitude", "keep": 0.5, "seed": 3}
    out = tmp_path / "deep" / "pruned"
    saved = checkpoint.save(small, dense.tokenizer, out, facts=facts, plan=plan.to_json(), inputs={"model": dense.id})
    assert {path.stat().st_mode & 0o777 for path in out.glob("*.*")} == {0o644}  # others may read it
    loaded = checkpoint.load(str(out))
    check_identical(loaded.model, small)
    batch = inputs(small.config)
    assert torch.equal(logits(loaded.model, batch), logits(small, batch))
    assert (loaded.id, loaded.name, loaded.facts) == (saved.id, "pruned", facts) == (saved.id, saved.name, saved.facts)
    assert loaded.tokenizer.get_vocab() == dense.tokenizer.get_vocab()
    written = json.loads((out / "plan.json").read_text())
    assert from_json(written) == plan
    assert written["inputs"] == {"model": dense.id}
    assert {path.suffix for path in out.iterdir()} == {".json", ".safetensors", ".spm"}  # and no pickle
    assert [path.name for path in out.parent.iterdir()] == ["pruned"]


def test_saving_twice_gives_the_same_id(original: Path, tmp_path: Path) -> None:
    dense = checkpoint.load(original)
    ids = {checkpoint.save(dense.model, dense.tokenizer, tmp_path / name, facts={}).id for name in "ab"}
    assert len(ids) == 1


def test_split_vocabularies(tiny_config, tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    pieces = json.loads((tiny_tokenizer_folder / "vocab.json").read_text())
    folder = write_split(tiny_config, tiny_tokenizer_folder, tmp_path / "split", pieces | {"extra": 112})
    loaded = checkpoint.load(folder)
    assert loaded.model.lm_head.out_features == 113
    assert loaded.model.model.encoder.embed_tokens.num_embeddings == 112
    saved = checkpoint.save(loaded.model, loaded.tokenizer, tmp_path / "again", facts={})
    check_identical(checkpoint.load(tmp_path / "again").model, loaded.model)
    assert saved.tokenizer.separate_vocabs


def write_split(tiny_config, tokenizer: Path, folder: Path, target: dict[str, int]) -> Path:
    config = tiny_config(decoder_vocab_size=113, share_encoder_decoder_embeddings=False)
    stock(config).save_pretrained(folder)
    for name in NAMES:
        shutil.copy(tokenizer / name, folder)
    (folder / "target_vocab.json").write_text(json.dumps(target))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"separate_vocabs": True}))
    return folder


def test_old_weights_in_a_torch_file(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert torch.equal(checkpoint.load(folder).model.model.shared.weight, tensors["model.shared.weight"])


# ---- what is refused


def test_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file' is a file; name its folder or a hub id such as"):
        checkpoint.load(tmp_path / "file")
    with pytest.raises(BadInput, match=r"no such folder, and not a hub id"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"model 'who/what': no such folder here, and the hub does not give it"):
        checkpoint.load("who/what")


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is no checkpoint: it has no config.json \(it holds nothing\)"):
        checkpoint.load(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadInput, match=r"it has no config.json \(it holds notes.txt\)"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", r"config.json' is not JSON"),
        ("[]", r"names no model_type; only 'marian' and 'pruned_marian'"),
        ('{"model_type": "t5"}', r"is a 't5' checkpoint; only 'marian' and 'pruned_marian' can be treated"),
    ],
)
def test_a_config_of_something_else(folder: Path, text: str, complaint: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(BadInput, match=complaint):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"activation_function": "tanh"}, r"activation_function 'tanh' is not one of swish, silu, gelu, relu"),
        ({"d_model": "16"}, r"d_model '16' is not a whole number above 0"),
        ({"encoder_layers": 0}, r"encoder_layers 0 is not a whole number above 0"),
        ({"decoder_attention_heads": 3}, r"decoder_attention_heads 3 does not divide d_model 16"),
        ({"d_model": 15}, r"d_model 15 is odd"),
        ({"is_encoder_decoder": False}, r"is_encoder_decoder is false"),
        ({"decoder_vocab_size": 99}, r"vocab_size 112 and decoder_vocab_size 99 differ, but the embeddings are shared"),
        ({"quantization_config": {"bits": 8}}, r"quantization_config is set; start from the float checkpoint"),
        ({"pad_token_id": 5}, r"pad_token_id is 5 in config.json, but the tokenizer's is 111"),
        ({"eos_token_id": 7}, r"eos_token_id is 7 in config.json, but the tokenizer's is 0"),
        ({"vocab_size": 90, "decoder_vocab_size": 90}, r"vocab.json holds id 111, but vocab_size is 90"),
        (
            {"vocab_size": 200, "decoder_vocab_size": 200},
            r"ends at id 111, but vocab_size is 200: 88 ids have no piece",
        ),
        ({"encoder_ffn_dim": 40}, r"weight model.encoder.layers.0.fc1.bias: shape \(32,\) in the file, \(40,\) by the"),
        ({"decoder_layers": 3}, r"weight model.decoder.layers.2.\S+ is missing"),
        ({"decoder_layers": 1}, r"weight model.decoder.layers.1.\S+ does not belong"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, changes: dict, complaint: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(BadInput, match=complaint):
        checkpoint.load(folder)


def test_several_complaints_in_one_error(folder: Path) -> None:
    change_config(folder, activation_function="tanh", decoder_attention_heads=5, quantization_config={"bits": 8})
    (folder / "source.spm").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="cannot be treated: ") as caught:
        checkpoint.load(folder)
    for part in ("'tanh'", "heads 5 does not", "quantization_config", "source.spm is missing", "no weights (one of"):
        assert part in str(caught.value)


def test_vocabulary_and_weights_complain_together(folder: Path) -> None:
    change_config(folder, pad_token_id=3)
    change_weights(folder, lambda tensors: tensors.pop("model.encoder.layers.0.fc1.weight"))
    with pytest.raises(BadInput, match=r"pad_token_id is 3 .*; weight model.encoder.layers.0.fc1.weight is missing"):
        checkpoint.load(folder)


@pytest.mark.parametrize("kept", [0, 7, 500, -100])
def test_truncated_weights(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"the weights cannot be loaded, damaged or not of this config"):
        checkpoint.load(folder)


def test_a_truncated_torch_file(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"the weights cannot be loaded, damaged or not of this config"):
        checkpoint.load(folder)


def test_missing_and_foreign_tensors(folder: Path) -> None:
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        tensors["alien.weight"] = tensors.pop("model.decoder.layers.0.self_attn.q_proj.weight").clone()

    change_weights(folder, swap)
    with pytest.raises(BadInput, match=r"self_attn.q_proj.weight is missing; weight alien.weight does not belong"):
        checkpoint.load(folder)


def test_a_tensor_of_another_shape(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"final_logits_bias": torch.zeros(1, 7)}))
    with pytest.raises(
        BadInput, match=r"weight final_logits_bias: shape \(1, 7\) in the file, \(1, 112\) by the config"
    ):
        checkpoint.load(folder)


@pytest.mark.parametrize("text", ["{", '{"a": 0}'])
def test_a_broken_vocabulary(folder: Path, text: str) -> None:
    (folder / "vocab.json").write_text(text)
    with pytest.raises(BadInput, match=r"the tokenizer cannot be loaded"):
        checkpoint.load(folder)


def test_a_broken_sentencepiece_model(folder: Path) -> None:
    (folder / "source.spm").write_bytes(b"no model")
    with pytest.raises(BadInput, match=r"the tokenizer cannot be loaded"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (113, r"target_vocab.json holds id 113, but decoder_vocab_size is 113"),
        (0, r"target_vocab.json ends at id 111, b"),
    ],
)
def test_a_target_vocabulary_that_disagrees(tiny_config, tiny_tokenizer_folder, tmp_path, ids, complaint) -> None:
    pieces = json.loads((tiny_tokenizer_folder / "vocab.json").read_text())
    folder = write_split(
        tiny_config, tiny_tokenizer_folder, tmp_path / "split", pieces | ({"extra": ids} if ids else {})
    )
    with pytest.raises(BadInput, match=complaint):
        checkpoint.load(folder)


def test_two_vocabularies_but_one_list_of_pieces(tiny_config, tiny_tokenizer_folder, tmp_path) -> None:
    folder = write_split(tiny_config, tiny_tokenizer_folder, tmp_path / "split", {})
    shutil.copy(tiny_tokenizer_folder / "tokenizer_config.json", folder)
    with pytest.raises(
        BadInput, match=r"vocab.json ends at id 111, but decoder_vocab_size is 113: 1 ids have no piece"
    ):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c["encoder_sizes"].pop(), r"encoder_sizes: 1 layers, but encoder_layers=2"),
        (
            lambda c: c["decoder_sizes"][0].pop("encoder_attn"),
            r"decoder_sizes\[0\]: .* must have the fields self_attn, e",
        ),
        (lambda c: c["encoder_sizes"][1].update(ffn=31), r"weight model.encoder.layers.1.fc1.bias: shape \(32,\)"),
    ],
)
def test_pruned_sizes_that_do_not_fit(original: Path, tmp_path: Path, change, complaint: str) -> None:
    dense = checkpoint.load(original)
    checkpoint.save(dense.model, dense.tokenizer, tmp_path / "pruned", facts={})
    path = tmp_path / "pruned" / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(BadInput, match=complaint):
        checkpoint.load(tmp_path / "pruned")


def test_a_broken_stamp(folder: Path) -> None:
    (folder / "stamp.json").write_text("[]")
    with pytest.raises(BadInput, match=r"stamp.json' is not a stamp"):
        checkpoint.load(folder)


def test_an_output_folder_that_is_not_empty(original: Path, tmp_path: Path) -> None:
    dense = checkpoint.load(original)
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"exists and is not empty; name a new one or remove it first"):
        checkpoint.save(dense.model, dense.tokenizer, tmp_path, facts={})
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


# ---- a disk that fills up


def test_a_full_disk_leaves_nothing_behind(original: Path, tmp_path: Path) -> None:
    dense, complaint = (
        checkpoint.load(original),
        r"checkpoint '.*out' cannot be written \(.*[Nn]o space left.*nothing was left",
    )
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(WorkFailed, match=complaint):
            checkpoint.save(dense.model, dense.tokenizer, disk / "out", facts={})
        assert list(disk.iterdir()) == []
