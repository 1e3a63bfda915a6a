"""Every bad call ends with one line and exit code 1 or 2 and leaves nothing behind; a stopped one can be continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import ROOT, contents, small_disk, start, tprune, wait_for, write_data, write_model
from tprune.base.stamp import file_sha256

CHEAP = ("--criterion", "magnitude", "--steps", "0", "--finetune-steps", "0", "--round-to", "2")
SHORT = ("--steps", "7", "--finetune-steps", "3", "--round-to", "2")


@pytest.fixture(scope="module")
def originals(tiny_config, tiny_tokenizer_folder: Path, tmp_path_factory) -> Path:
    """A folder with `dense` and `data`; copy them before you break them."""
    folder = tmp_path_factory.mktemp("originals")
    write_model(folder / "dense", tiny_config(encoder_layers=1, decoder_layers=1), tiny_tokenizer_folder)
    write_data(folder / "data")
    return folder


@pytest.fixture
def here(originals: Path, tmp_path: Path, monkeypatch) -> Path:
    """The current folder of a test, with `dense` and `data` that it may break."""
    for name in ("dense", "data"):
        shutil.copytree(originals / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- checkpoints that cannot be treated


def no_config(dense: Path) -> None:
    (dense / "config.json").unlink()


def t5(dense: Path) -> None:
    (dense / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 512}))


def truncated_weights(dense: Path) -> None:
    weights = dense / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def smaller_vocabulary(dense: Path) -> None:
    pieces = json.loads((dense / "vocab.json").read_text(encoding="utf-8"))
    (dense / "vocab.json").write_text(json.dumps(pieces | {"one too many": 112}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (no_config, "'dense' is no checkpoint: it has no config.json (it holds "),
        (t5, "'dense' is a 't5' checkpoint; only 'marian' and 'pruned_marian' can be treated"),
        (truncated_weights, "the weights cannot be loaded, damaged or not of this config"),
        (smaller_vocabulary, "vocab.json holds id 112, but vocab_size is 112"),
    ],
)
@pytest.mark.parametrize("verb", ["prune", "evaluate", "verify", "expand", "export"])
def test_a_model_that_cannot_be_treated(here: Path, verb: str, spoil: Callable[[Path], None], complaint: str) -> None:
    spoil(here / "dense")
    before = contents(here)
    data = () if verb in {"verify", "expand"} else ("--data", "data")
    out = () if verb == "verify" else ("--out", "out")
    tprune(verb, "dense", *data, *out).check_failed(2, complaint)
    assert contents(here) == before


def test_names_that_are_nothing(here: Path) -> None:
    before = contents(here)
    tprune("verify", "no/such/folder").check_failed(2, "'no/such/folder': no such folder, and not a hub id")
    tprune("verify", "dense/config.json").check_failed(2, "is a file; name its folder")
    tprune("evaluate", "dense", "--data", "no/such/data").check_failed(2, "data 'no/such/data'")
    for dry in ((), ("--dry-run",)):
        tprune("bench", "dense", "--data", "data", *dry).check_failed(
            2, "'dense' is not an artefact: it has no manifest"
        )
    tprune("report", "data", "--out", "report").check_failed(2, "")
    assert contents(here) == before


# ---- text that cannot be used


def drop_a_line(file: Path) -> None:
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


def empty_a_line(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([lines[0], "", *lines[2:]]) + "\n", encoding="utf-8")


def latin_1(file: Path) -> None:
    file.write_bytes(file.read_bytes() + "Ein Hund läuft.\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (drop_a_line, "6 source sentences but 5 target sentences; they must be aligned one to one"),
        (empty_a_line, "line 2 is empty; remove that line from both languages"),
        (latin_1, "line 7, byte 11: 0xe4 is not UTF-8; convert the file, for example with iconv"),
    ],
)
@pytest.mark.parametrize(
    ("verb", "split"), [("prune", "train"), ("prune", "val"), ("analyse", "val"), ("evaluate", "test")]
)
def test_text_that_cannot_be_used(
    here: Path, verb: str, split: str, spoil: Callable[[Path], None], complaint: str
) -> None:
    spoil(here / "data" / f"{split}.de")
    before = contents(here)
    tprune(verb, "dense", "--data", "data", "--out", "out").check_failed(2, complaint)
    assert contents(here) == before


@pytest.fixture
def with_a_long_sentence(here: Path) -> None:
    for split in ("train", "test"):
        for language in ("en", "de"):
            with (here / "data" / f"{split}.{language}").open("a", encoding="utf-8") as file:
                file.write("dog " * 5000 + "\n")


@pytest.mark.usefixtures("with_a_long_sentence")
def test_a_sentence_of_5000_words(here: Path) -> None:
    """It is translated as far as the model's positions reach, and that is said; training leaves the pair out."""
    found = tprune("evaluate", "dense", "--data", "data")
    assert found.code == 0
    assert "1 of 7 sentences were longer than the model takes and were truncated" in found.out
    quality = tprune("evaluate", "dense", "--data", "data", "--json").json
    assert (quality["truncated"], quality["sentences"], len(quality["hypotheses"])) == (1, 7, 7)
    assert tprune("prune", "dense", "--data", "data", "--out", "small", *SHORT).code == 0


# ---- calls that are wrong

WRONG = [
    (("--keep", "1.5"), "--keep 1.5: the share of prunable weights to keep must lie in (0, 1], e.g. 0.5"),
    (("--keep", "0"), "--keep 0: the share of prunable weights to keep must lie in (0, 1], e.g. 0.5"),
    (("--keep", "half"), "Invalid value for '--keep': 'half' must be a number"),
    (("--keep", "0.5", "--max-bleu-drop", "1"), "--keep and --max-bleu-drop exclude each other: give one of --keep, "),
    (("--keep", "0.5", "--strength", "1"), "--keep and --strength exclude each other"),
    (("--max-bleu-drop", "100"), "--max-bleu-drop 100: must be a relative loss in per cent, from 0 to below 100"),
    (("--strength", "0"), "--strength 0: must be above 0"),
    (("--criterion", "luck"), "--criterion 'luck': must be one of shs, group-lasso, magnitude, taylor, random"),
    (("--steps", "-1"), "--steps -1: must be at least 0"),
    (("--limit", "0"), "Invalid value for '--limit': "),
    (("--sensitivity", "data/none.json"), "none.json"),
    (("--nonsense",), "No such option: --nonsense"),
    (("surplus",), "surplus"),
    (("--source", "fr"), "has no train.fr[.gz]; it has "),
    (("--target", "en"), "source and target are both 'en'"),
]


@pytest.mark.parametrize(("flags", "complaint"), WRONG, ids=[" ".join(flags) for flags, _ in WRONG])
def test_a_wrong_call_of_prune(here: Path, flags: tuple[str, ...], complaint: str) -> None:
    before = contents(here)
    tprune("prune", "dense", "--data", "data", "--out", "out", *flags).check_failed(2, complaint)
    assert contents(here) == before


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (("prune", "dense", "--out", "out"), "Missing option '--data'"),
        (("verify",), "Missing argument 'MODEL'"),
        (
            ("export", "dense", "--data", "data", "--out", "o", "--to", "tflite"),
            "--to 'tflite': must be onnx or executorch",
        ),
        (
            ("export", "dense", "--data", "data", "--out", "o", "--precision", "int4"),
            "--precision 'int4': must be fp32 or int8",
        ),
        (
            ("export", "dense", "--data", "data", "--out", "o", "--precision", "int8", "--keep-float", "lm_head"),
            "unknown component lm_head; an export has encoder, decoder, output, embedding",
        ),
        (("export", "dense", "--data", "data", "--out", "o", "--max-bleu-drop", "1"), "--max-bleu-drop"),
        (("translate", "dense", "--data", "data", "--out", "o", "--keep", "dev"), "dev"),
        (
            ("translate", "dense", "--data", "data", "--out", "o", "--keep", "val,train"),
            "is the split that is translated",
        ),
        (
            ("export", "dense", "--data", "data", "--out", "o", "--precision", "int8", "--keep-float", ","),
            "--keep-float names no component",
        ),
        (("bench", "dense", "--data", "data", "--on", "phone"), "--on 'phone': must be host"),
        (("evaluate", "dense", "--data", "data", "--baseline", "dense/config.json"), "is no quality document"),
        (("evaluate", "dense", "--data", "data", "--beams", "0"), "Invalid value for '--beams'"),
        (("fly",), "No such command 'fly'"),
    ],
)
def test_a_wrong_call_of_another_verb(here: Path, call: tuple[str, ...], complaint: str) -> None:
    before = contents(here)
    tprune(*call).check_failed(2, complaint)
    assert contents(here) == before


@pytest.mark.parametrize("verb", ["analyse", "prune", "expand", "translate", "export", "report"])
def test_an_output_folder_that_is_not_empty(here: Path, verb: str) -> None:
    (here / "out").mkdir()
    (here / "out" / "mine").write_text("precious")
    before = contents(here)
    data = () if verb in {"expand", "report"} else ("--data", "data")
    tprune(verb, "dense", *data, "--out", "out").check_failed(2, "output folder 'out' exists and is not empty")
    assert contents(here) == before
    assert (here / "out" / "mine").read_text() == "precious"


def test_no_arguments_at_all_is_a_call_for_help() -> None:
    said = tprune()
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: ") and "\n  expand " in said.err


@pytest.mark.parametrize("words", [(), ("prune",), ("cnn",), ("cnn", "train")])
def test_the_short_flag_for_help(words: tuple[str, ...]) -> None:
    assert tprune(*words, "-h").out == tprune(*words, "--help").out != ""


def test_help_is_cheap() -> None:
    code = """
import sys
sys.argv = ["tprune", "--help"]
from tprune.cli.main import main
main()
assert not {"torch", "transformers", "onnxruntime", "matplotlib"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for verb in ("analyse", "prune", "verify", "expand", "evaluate", "export", "bench", "report", "demo"):
        assert verb in done.stdout


# ---- what a call says and does


def test_json_is_one_object_and_nothing_else(here: Path) -> None:
    data = ("--data", "data")
    analysed = tprune("analyse", "dense", *data, "--out", "analysis", "--quick", "--steps", "1", "--json").json
    assert analysed["kind"] == "sensitivity"
    pruned = tprune("prune", "dense", *data, "--out", "small", "--keep", "0.4", *SHORT, "--json").json
    assert (pruned["out"], pruned["criterion"], pruned["keep"]) == ("small", "shs", 0.4)
    assert contents(here / "small") >= {"model.safetensors", "config.json", "plan.json", "stamp.json"}
    verified = tprune("verify", "small", "--json").json
    assert (verified["id"], verified["identical"]) == (pruned["id"], verified["sentences"])
    assert verified["params"] == pruned["params"]
    assert tprune("expand", "small", "--out", "wide", "--json").json == {"out": "wide"}
    quality = tprune("evaluate", "wide", *data, "--out", "quality.json", "--json").json
    assert json.loads((here / "quality.json").read_text()) == quality
    versus = tprune("evaluate", "small", *data, "--baseline", "quality.json", "--json").json
    assert versus["hypotheses"] == quality["hypotheses"]
    assert (versus["baseline"]["name"], versus["baseline"]["p_value"]) == ("wide", 1.0)


def test_a_models_translations_become_a_corpus(here: Path) -> None:
    told = tprune("translate", "dense", "--data", "data", "--out", "taught", "--beams", "2", "--json").json
    assert (told["sentences"] + told["empty"], told["beams"]) == (6, 2)
    taught = {name: (here / "taught" / name).read_text() for name in ("train.en", "train.de", "val.en", "val.de")}
    assert taught["val.de"] == (here / "data" / "val.de").read_text()
    assert taught["train.en"].count("\n") == taught["train.de"].count("\n") == told["sentences"]
    assert taught["train.de"] != (here / "data" / "train.de").read_text()


def test_an_int8_export_says_what_it_costs(here: Path) -> None:
    call = ("export", "dense", "--data", "data", "--out", "small8", "--precision", "int8", "--max-bleu-drop", "100")
    told = tprune(*call, "--keep-float", "encoder", "--json").json
    assert told["int8"] == ["decoder", "output", "embedding"]
    assert (told["cost"]["split"], told["cost"]["sentences"]) == ("val", 6)
    assert tprune("evaluate", "small8", "--data", "data", "--json").json["precision"] == "int8"


@pytest.mark.parametrize(
    "call",
    [
        ("prune", "dense", "--data", "data", "--out", "out"),
        ("prune", "dense", "--data", "data", "--out", "out", "--max-bleu-drop", "1"),
        ("analyse", "dense", "--data", "data", "--out", "out"),
    ],
)
def test_a_dry_run_writes_nothing(here: Path, call: tuple[str, ...]) -> None:
    before = contents(here)
    assert tprune(*call, "--dry-run", "--json").json["dry_run"] is True
    said = tprune(*call, "--dry-run")
    assert said.code == 0 and said.out.count("\n") == 1
    assert said.out.startswith(f"would {call[0]} dense ") and said.out.endswith(", and write out\n")
    assert contents(here) == before


def test_verify_against_another_model(here: Path) -> None:
    assert tprune("prune", "dense", "--data", "data", "--out", "small", *CHEAP).code == 0
    assert tprune("expand", "small", "--out", "wide").code == 0
    assert "8 of 8 greedy translations identical" in tprune("verify", "small", "--against", "wide").out
    assert "nothing is pruned" not in tprune("verify", "small").out
    assert "nothing is pruned in it" in tprune("verify", "dense").out
    tprune("verify", "small", "--against", "dense").check_failed(1, "small: the cut model differs from the masked one")


def test_the_largest_loss_of_quality_is_searched_for(here: Path) -> None:
    """A random model has BLEU 0 and loses nothing, whatever is cut: the search must go down to its lower end."""
    found = tprune("prune", "dense", "--data", "data", "--out", "small", "--max-bleu-drop", "1", *CHEAP, "--json").json
    assert [trial["keep"] for trial in found["trials"]] == [0.525, 0.2875, 0.1687, 0.1094, 0.0797]
    assert found["keep"] == 0.0797
    assert found["kept"] <= 0.0797


# ---- disks that fill up, kills and Ctrl-C


def test_a_disk_that_is_full_while_training(here: Path) -> None:
    with small_disk(here / "disk", "64k") as disk:
        call = ("prune", here / "dense", "--data", here / "data", "--out", disk / "small", *SHORT)
        tprune(*call).check_failed(1, "training state ")
        assert not (disk / "small").exists()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert tprune(*call).code == 0
        assert {path.name for path in disk.iterdir()} == {"small"}


def test_a_disk_that_is_full_while_saving(here: Path) -> None:
    with small_disk(here / "disk", "40k") as disk:
        call = ("prune", here / "dense", "--data", here / "data", "--out", disk / "small", *CHEAP)
        tprune(*call).check_failed(1, "No space left on device")
        tprune("expand", here / "dense", "--out", disk / "wide").check_failed(1, "No space left on device")
        big = "x" * 50_000
        (here / "data" / "long.jsonl").write_text(json.dumps({"en": "A dog.", "de": f"Ein Hund. {big}"}) + "\n")
        (disk / "filler").write_bytes(b"0" * 40_000)
        quality = disk / "quality.json"
        tprune("evaluate", here / "dense", "--data", here / "data", "--out", quality).check_failed(1, "No space left")
        assert {path.name for path in disk.iterdir()} == {"filler"}


LONG = ("--steps", "7", "--finetune-steps", "250", "--round-to", "2", "--threads", "1")
KILLED_WHILE_SAVING = """
import os
from tprune.cli import main as cli
from tprune.marian import checkpoint
checkpoint.write_json = lambda *_: os.kill(os.getpid(), 9)
cli.main()
"""


def test_a_prune_that_is_stopped_goes_on_to_the_same_bits(here: Path) -> None:
    """Ctrl-C in fine-tuning, kill -9 later in fine-tuning, kill -9 while saving; then it is let through."""
    dense = ("prune", here / "dense", "--data", here / "data")
    unbroken = tprune(*dense, "--out", here / "unbroken", *LONG)
    assert unbroken.code == 0
    call = (*dense, "--out", here / "small", *LONG)
    run = here / ".small.run" / "keep-0.5"
    before = contents(here) - contents(here / ".small.run")

    first = start(*call)
    wait_for(first, (run / "sparsify" / "state.safetensors").exists)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=300)
    assert (first.returncode, out) == (1, "")
    assert err == "tprune: interrupted; give the same command again to continue\n"

    second = start(*call)
    wait_for(second, (run / "finetune" / "state.safetensors").exists)
    second.kill()
    second.communicate(timeout=300)
    assert second.returncode == -signal.SIGKILL
    assert not (here / "small").exists()

    third = start(*call, code=KILLED_WHILE_SAVING)
    third.communicate(timeout=300)
    assert third.returncode == -signal.SIGKILL
    assert not (here / "small").exists()
    assert list(here.glob(".small.*.part"))

    assert tprune(*call).code == 0
    assert file_sha256(here / "small" / "model.safetensors") == file_sha256(here / "unbroken" / "model.safetensors")
    small = {f"small/{name}" for name in contents(here / "small")}
    assert contents(here) == before | {"small"} | small
