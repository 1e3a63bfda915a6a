"""Corpus: every form of DATA, and every way in which it can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tprune.base.errors import BadInput
from tprune.marian import corpus

SOURCE = ("a dog runs", "two men sit", "a red car")
TARGET = ("ein Hund rennt", "zwei Männer sitzen", "ein rotes Auto")
ROWS = [{"en": en, "de": de} for en, de in zip(SOURCE, TARGET, strict=True)]
NESTED = [{"id": number, "translation": row} for number, row in enumerate(ROWS)]


def write_folder(folder: Path, source=SOURCE, target=TARGET, split="train") -> Path:
    (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in source), encoding="utf-8")
    with gzip.open(folder / f"{split}.de.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in target)
    return folder


def write_jsonl(path: Path, rows) -> Path:
    opened = gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8")
    with opened as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def write_parquet(path: Path, rows) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_csv(path: Path, separator: str) -> Path:
    lines = [f'"{en}"{separator}"{de}"' for en, de in [("en", "de"), *zip(SOURCE, TARGET, strict=True)]]
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")  # as spreadsheets write it
    return path


def test_folder_with_plain_and_compressed_text(tmp_path):
    got = corpus.load(write_folder(tmp_path), split="train")
    assert (got.source, got.target) == (SOURCE, TARGET)
    assert (got.name, got.split, got.language, got.limit, len(got)) == (tmp_path.name, "train", "de", None, 3)
    assert got.id == hashlib.sha256("".join(f"{line}\n" for line in SOURCE + TARGET).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_jsonl(folder / "pairs.jsonl", ROWS),
        lambda folder: write_jsonl(folder / "pairs.jsonl.gz", ROWS),
        lambda folder: write_jsonl(folder / "nested.jsonl", NESTED),
        lambda folder: write_csv(folder / "pairs.csv", ","),
        lambda folder: write_csv(folder / "pairs.tsv", "\t"),
        lambda folder: write_parquet(folder / "pairs.parquet", ROWS),
        lambda folder: write_parquet(folder / "nested.parquet", NESTED),
        lambda folder: write_jsonl(folder / "train.jsonl", ROWS).parent,
    ],
    ids=["jsonl", "jsonl.gz", "nested jsonl", "csv", "tsv", "parquet", "nested parquet", "folder of jsonl"],
)
def test_every_file_form_is_the_same_corpus(tmp_path, write):
    got = corpus.load(write(tmp_path), split="train")
    assert (got.source, got.target) == (SOURCE, TARGET)
    assert got.id == corpus.Corpus(SOURCE, TARGET, "x", "y").id


def test_columns_may_have_any_name_and_a_split_column_is_obeyed(tmp_path):
    rows = [{"src": "a", "tgt": "b", "split": "train"}, {"src": "c", "tgt": "d", "split": "val"}]
    path = write_jsonl(tmp_path / "pairs.jsonl", rows)
    assert corpus.load(path, split="val", source="src", target="tgt").source == ("c",)
    with pytest.raises(BadInput, match=r"no split 'test'; its column 'split' has 'train', 'val'"):
        corpus.load(path, split="test", source="src", target="tgt")


def test_limit_takes_the_first_and_changes_the_id(tmp_path):
    whole, first = (corpus.load(write_folder(tmp_path), split="train", limit=limit) for limit in (None, 2))
    assert first.source == SOURCE[:2]
    assert first.limit == 2
    assert first.id != whole.id
    assert corpus.load(tmp_path, split="train", limit=99).id == whole.id


def test_only_a_line_feed_ends_a_line(tmp_path):
    write_folder(tmp_path, source=("one\u2028still one\r", "\ufefftwo"), target=("eins\x0ceins", "zwei"))
    got = corpus.load(tmp_path, split="train")
    assert got.source[0] == "one\u2028still one"
    assert len(got) == 2


def test_line_breaks_inside_a_table_cell_become_spaces(tmp_path):
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"en": "a\r\nb", "de": "c\nd"}])
    assert corpus.load(path, split="train").source == ("a b",)
    assert corpus.load(path, split="train").target == ("c d",)


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one_is_refused(tmp_path, limit):
    with pytest.raises(BadInput, match=f"limit {limit} is below 1"):
        corpus.load(write_folder(tmp_path), split="train", limit=limit)


def test_same_language_twice_is_refused(tmp_path):
    with pytest.raises(BadInput, match="source and target are both 'de'"):
        corpus.load(write_folder(tmp_path), split="train", source="de")


def test_missing_split_or_language_lists_what_is_there(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(BadInput, match=r"has no test\.en\[\.gz\] or test\.de\[\.gz\]; it has train \(de, en\)"):
        corpus.load(tmp_path, split="test")
    with pytest.raises(BadInput, match=r"has no train\.fr\[\.gz\]; it has train \(de, en\)"):
        corpus.load(tmp_path, split="train", target="fr")


def test_folder_without_any_text(tmp_path):
    with pytest.raises(BadInput, match=r"it has no SPLIT\.LANG files at all; data may be a folder"):
        corpus.load(tmp_path, split="train")


def test_different_lengths_give_both_counts_even_under_a_limit(tmp_path):
    write_folder(tmp_path, target=TARGET[:2])
    for limit in (None, 1):
        with pytest.raises(BadInput, match="3 source sentences but 2 target sentences"):
            corpus.load(tmp_path, split="train", limit=limit)


@pytest.mark.parametrize("empty", ["", "  \t"])
def test_empty_line_names_file_and_line(tmp_path, empty):
    write_folder(tmp_path, target=(TARGET[0], empty, TARGET[2]))
    with pytest.raises(BadInput, match=r"train\.de\.gz', line 2 is empty"):
        corpus.load(tmp_path, split="train")


def test_empty_file(tmp_path):
    with pytest.raises(BadInput, match="holds no sentences"):
        corpus.load(write_folder(tmp_path, source=(), target=()), split="train")


def test_text_that_is_not_utf8_names_file_line_and_byte(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "train.en").write_bytes(b"a dog\nna\xefve\nthree\n")
    with pytest.raises(BadInput, match=r"train\.en', line 2, byte 3: 0xef is not UTF-8"):
        corpus.load(tmp_path, split="train")


def test_gzip_that_was_cut_off(tmp_path):
    path = write_folder(tmp_path) / "train.de.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInput, match=r"train\.de\.gz' cannot be read: Compressed file ended"):
        corpus.load(tmp_path, split="train")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", r"a\.txt' has the suffix '\.txt'; it must be \.jsonl, \.csv, \.tsv, \.parquet"),
        ("a.jsonl", '{"en": "x", "de": "y"}\nno\n', r"a\.jsonl', line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object but list"),
        ("a.jsonl", '{"en": "x", "fr": "y"}\n', "row 1 has no column 'de'; it has 'en', 'fr'"),
        ("a.jsonl", '{"translation": {"en": "x", "fr": "y"}}\n', "row 1 has no column 'de'; it has 'en', 'fr'"),
        ("a.jsonl", '{"en": "x", "de": " "}\n', "row 1: column 'de' is empty"),
        ("a.jsonl", '{"en": "x", "de": 3}\n', "row 1: column 'de' is int, not text"),
        ("a.jsonl", '{"en": "\\ud800", "de": "y"}\n', r"a sentence holds '\\ud800', which is no character"),
        ("a.jsonl", "", "holds no rows"),
        ("a.csv", "en,fr\nx,y\n", "row 1 has no column 'de'; it has 'en', 'fr'"),
        ("a.csv", "en,de\nx\n", "row 1: column 'de' is empty"),
        ("a.csv", 'en,de\n"x,y\n', r"a\.csv' is not well-formed: unexpected end of data"),
        ("a.parquet", "PAR1", r"a\.parquet' is no readable parquet file"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        corpus.load(tmp_path / name, split="train")


@pytest.mark.parametrize("data", ["no/such/folder", "./nothing", "missing.txt", "tests/nothing"])
def test_nothing_there_is_said_without_asking_the_hub(data, monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with pytest.raises(BadInput, match=f"data '{data}' does not exist; give a folder with"):
        corpus.load(data, split="train")


def test_hub_dataset_with_a_translation_column(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(path, config, *, split):
        asked.append((path, config, split))
        return datasets.Dataset.from_list(NESTED)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    got = corpus.load("wmt/wmt14:de-en", split="validation")
    assert asked == [("wmt/wmt14", "de-en", "validation")]
    assert (got.source, got.target, got.name) == (SOURCE, TARGET, "wmt/wmt14:de-en")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("Unknown split 'dev'.\nShould be one of ['train']."), r"split 'dev': Unknown split .* \['train'\]"),
        (FileNotFoundError("Dataset 'a/b' doesn't exist"), "and the hub does not give it .* or sacrebleu:SET/PAIR"),
    ],
)
def test_hub_errors_are_one_line(monkeypatch, error, message):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(BadInput, match=message) as caught:
        corpus.load("a/b", split="dev")
    assert "\n" not in str(caught.value)


def test_offline_mode_is_respected(tmp_path):
    load = "try: corpus.load('nobody/nothing', split='train')\nexcept ValueError as e: print(e)"
    code = f"from tprune.marian import corpus\n{load}"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "the hub does not give it (it cannot be reached); give a folder with" in done.stdout


def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again(tmp_path):
    """One request to a closed port; it would be five with pauses, each of them logged."""
    load = "try: corpus.load('nobody', split='train')\nexcept ValueError as e: print(e)"
    code = f"from tprune.marian import corpus\n{load}"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "NO_PROXY": "*", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=15
    )
    assert done.stderr == ""
    assert done.stdout.startswith("data 'nobody' is no file or folder here, and the hub does not give it (it cannot")
    assert corpus.FORMS in done.stdout


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"split": "train", "target": "fr"}, "change --source or --target"),
        ({"split": "x"}, "--split takes another name"),
    ],
)
def test_the_hint_names_the_flag_at_fault(tmp_path, asked, hint):
    with pytest.raises(BadInput, match=rf"it has train \(.*\); {hint}$"):
        corpus.load(write_folder(tmp_path), **asked)


def test_local_files_import_no_network_code(tmp_path):
    code = (
        "import sys; from tprune.marian import corpus\n"
        f"corpus.load({str(write_folder(tmp_path))!r}, split='train')\n"
        "print(sorted({'datasets', 'sacrebleu', 'huggingface_hub', 'socket'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def wmt14(tmp_path, monkeypatch):
    """Put a two-line test set where sacreBLEU keeps what it downloaded."""
    from sacrebleu.dataset import DATASETS

    (tmp_path / "wmt14.en-de.src").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "wmt14.en-de.ref").write_text("eins\nzwei\n", encoding="utf-8")
    monkeypatch.setattr(DATASETS["wmt14"], "_outdir", str(tmp_path))
    monkeypatch.setattr(DATASETS["wmt14"], "fieldnames", lambda _: ["src", "ref"])
    return DATASETS["wmt14"]


@pytest.mark.parametrize("data", ["sacrebleu:wmt14/en-de", "sacrebleu:wmt14"])
def test_sacrebleu_test_set(wmt14, data):
    got = corpus.load(data, split="test")
    assert (got.source, got.target, got.name) == (("one", "two"), ("eins", "zwei"), data)


@pytest.mark.parametrize(
    ("data", "split", "message"),
    [
        ("sacrebleu:wmt1/en-de", "test", r"no test set 'wmt1'; it has .*wmt14"),
        ("sacrebleu:wmt14/en-xx", "test", r"wmt14 has no pair 'en-xx'; it has .*en-de"),
        ("sacrebleu:wmt14/en-de", "train", "no split 'train'; it is a test set: use split 'test'"),
    ],
)
def test_sacrebleu_names_what_there_is(data, split, message):
    with pytest.raises(BadInput, match=message):
        corpus.load(data, split=split)


@pytest.mark.parametrize("error", [OSError("no network"), SystemExit(1)])
def test_sacrebleu_download_that_fails(wmt14, monkeypatch, error):
    def get_files(_):
        raise error

    monkeypatch.setattr(wmt14, "get_files", get_files)
    with pytest.raises(BadInput, match="sacrebleu cannot get wmt14/en-de"):
        corpus.load("sacrebleu:wmt14/en-de", split="test")


class WordTokenizer:
    """A token a word, and </s> (0)."""

    def __call__(self, texts=None, *, text_target=None, verbose=True):
        del verbose
        return {"input_ids": [[len(word) for word in text.split()] + [0] for text in texts or text_target]}


def test_tokenise_drops_and_counts_what_is_too_long():
    long = corpus.Corpus((*SOURCE, "word " * 5000, "short"), (*TARGET, "kurz", "Wort " * 5000), "x", "train")
    pairs = corpus.tokenise(long, WordTokenizer(), 4)
    assert pairs.dropped == 2
    assert len(pairs) == 3
    assert pairs.source[0] == [1, 3, 4, 0]
    assert pairs.target[0] == [3, 4, 5, 0]


def test_tokenise_with_nothing_left():
    with pytest.raises(BadInput, match="no pair has both sides within 3 tokens; the shortest has 4"):
        corpus.tokenise(corpus.Corpus(SOURCE, TARGET, "x", "train"), WordTokenizer(), 3)


def test_a_corpus_checks_itself():
    with pytest.raises(BadInput, match="corpus 'x', split 'y': target sentence 2 is empty"):
        corpus.Corpus(("a", "b"), ("c", ""), "x", "y")
