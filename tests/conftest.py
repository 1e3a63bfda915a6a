"""Fixtures that every test file may use: a tiny random Marian, a real tokeniser for it, and the shared data."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the hub, not even to ask whether a file is there
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores are shared with whatever else runs: for what tests start, too
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # those that ask for two threads do not let them spin

import hypothesis
import pytest
import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel

pytest_plugins = ("tests.double.fixtures", "tests.support.fake_fleet")

# A shell that starts us in the background has us ignore Ctrl-C, nohup a closed terminal, and what a test starts to be
# interrupted would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
logging.getLogger("torch.__trace").propagate = True  # or pytest listens to it, and torch writes out every graph
gc.set_threshold(50_000, 20, 20)  # larger portions: exports make millions of objects that stay
torch.set_num_threads(1)  # tiny matrices gain nothing from a second
# How long an example takes on a busy machine says nothing about what it shows.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_configure() -> None:
    """Let torch read its table of ONNX translations once a process; it does so for every graph, which takes 0.3 s."""
    with contextlib.suppress(ImportError, AttributeError, KeyError):  # of private names
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        read = ONNXRegistry.__dict__["from_torchlib"].__func__
        ONNXRegistry.from_torchlib = classmethod(cache(read))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the imported modules and the tests: looking through them costs a fifth of an export.

    What a test leaves behind is collected as before.
    """
    gc.collect()
    gc.freeze()


VOCABULARY = 112
SENTENCES = (
    "A man in a blue shirt is standing on a ladder.",
    "Two young boys play football in the park.",
    "The dog runs across the green grass.",
    "A woman reads a book to three children.",
    "Five people are waiting for the train at eight o'clock.",
    "The bicycle costs two hundred and forty euros.",
    "Ein Mann in einem blauen Hemd steht auf einer Leiter.",
    "Zwei kleine Jungen spielen Fußball im Park.",
    "Der Hund läuft über das grüne Gras.",
    "Eine Frau liest drei Kindern ein Buch vor.",
    "Fünf Leute warten um acht Uhr auf den Zug.",
    "Das Fahrrad kostet zweihundertvierzig Euro.",
)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., MarianConfig]:
    """Return a function that makes a tiny stock config: width 16, 2 + 2 layers, 4 heads, vocabulary 112."""
    return _config


def _config(**changes: Any) -> MarianConfig:
    vocabulary = changes.get("vocab_size", VOCABULARY)
    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "decoder_vocab_size": vocabulary,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "activation_function": "swish",
        "max_position_embeddings": 64,
        "scale_embedding": True,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "forced_eos_token_id": 0,
        "pad_token_id": vocabulary - 1,
        "decoder_start_token_id": vocabulary - 1,
    }
    return MarianConfig(**(settings | changes))


@pytest.fixture
def tiny_model(tiny_config: Callable[..., MarianConfig]) -> MarianMTModel:
    """Return a seeded random stock Marian in eval mode whose biases, norms and final_logits_bias are all non-zero."""
    return randomised(MarianMTModel(tiny_config()))


def randomised(model: MarianMTModel, seed: int = 0) -> MarianMTModel:
    """Return `model` with every trained tensor redrawn, so that a forgotten bias or norm changes its outputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "embed_positions" in name:
                continue  # a fixed table of sines, not trained
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("norm.weight"):
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(0.2 * noise if tensor.ndim == 1 else 2 * noise / tensor.shape[-1] ** 0.5)
        for embedding in {model.get_input_embeddings(), model.model.decoder.embed_tokens}:
            embedding.weight[embedding.padding_idx].zero_()  # Marian starts decoding from a zero embedding
        # Tied embeddings make a random Marian repeat its last token for ever; mirrored outputs say something.
        model.model.decoder.layers[-1].final_layer_norm.weight[::2] *= -1
        model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape, generator=generator))
    model.generation_config.bad_words_ids = [[model.config.pad_token_id]]  # as published Marians have it
    return model.eval()


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a MarianTokenizer of 112 entries (`</s>` 0, `<unk>` 1, `<pad>` 111)."""
    folder = tmp_path_factory.mktemp("tokenizer")
    text = folder / "text"
    text.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "source"),
        vocab_size=VOCABULARY - 1,  # its <unk> and </s> are two of ours; <pad> is not its business
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        minloglevel=2,
        num_threads=1,
    )
    text.unlink()
    (folder / "source.vocab").unlink()
    (folder / "source.model").rename(folder / "source.spm")
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    vocabulary = {processor.id_to_piece(i): i for i in range(VOCABULARY - 1)} | {"<pad>": VOCABULARY - 1}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of shared models and data beside the repository; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "models").is_dir():
        pytest.skip(f"needs the shared models and data in {folder.name}/ beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_artefact(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., MarianConfig], tiny_tokenizer_folder: Path
) -> Callable[[str], Path]:
    """Return a function from "onnxruntime" or "executorch" to a randomly pruned tiny Marian, exported once for it.

    The processes of pytest-xdist share one export: they lock a file beside it.
    """
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "artefacts"
    place.mkdir(exist_ok=True)

    @cache
    def exported(runtime: str) -> Path:
        with (place / f"{runtime}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / runtime).exists():
                from tests.support.exports import export  # exporters take seconds to import

                export(runtime, tiny_config(), tiny_tokenizer_folder, place / runtime)
        return place / runtime

    return exported
