"""Parallel text from a folder, a file, a hub dataset or a sacreBLEU test set, checked line by line.

Only hub ids import `datasets`, and only sacreBLEU test sets import `sacrebleu`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tprune.base import extras
from tprune.base.errors import BadInput
from tprune.marian.folder import hub

Row = dict[str, Any]
Sides = tuple[tuple[str, ...], tuple[str, ...]]
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?")
FILE_SUFFIX = re.compile(r"\.(csv|de|en|gz|jsonl?|parquet|tmx|tsv|txt|zip)", re.IGNORECASE)
FORMS = (
    "a folder with SPLIT.LANG[.gz], a jsonl, csv, tsv or parquet file, a hub id NAME[:CONFIG], or sacrebleu:SET/PAIR"
)


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs of one split; `id` is the first 16 hex digits of the SHA-256 over all source, then target, lines.

    `limit` is the requested number of sentences (None: all); `language` is the code of the target, if known. Raises
    BadInput when it is empty, the sides differ in length, or a sentence is blank.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    name: str
    split: str
    limit: int | None = None
    language: str | None = None
    id: str = field(init=False)

    def __post_init__(self) -> None:
        where = f"corpus {self.name!r}, split {self.split!r}"
        if len(self.source) != len(self.target):
            raise BadInput(
                f"{where}: {len(self.source)} source sentences but {len(self.target)} target sentences; "
                "they must be aligned one to one"
            )
        if not self.source:
            raise BadInput(f"{where} holds no sentences")
        for side, lines in (("source", self.source), ("target", self.target)):
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    raise BadInput(f"{where}: {side} sentence {number} is empty; remove the pair")
        object.__setattr__(self, "id", _text_id([*self.source, *self.target], where))

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {self.split}, {len(self):,} sentence pairs, id {self.id})"


@dataclass(frozen=True)
class Pairs:
    """Token ids of sentence pairs, each ending in </s>; `dropped` counts the pairs left out for being too long."""

    source: list[list[int]]
    target: list[list[int]]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.source)


def load(data: str | Path, *, split: str, source: str = "en", target: str = "de", limit: int | None = None) -> Corpus:
    """Load the first `limit` sentence pairs (None: all) of a split of `data`.

    A single file is one split unless it has a column `split`. A sacreBLEU set is the split `test`.
    Raises BadInput unless it gives clean, aligned, non-empty UTF-8 sentences.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit {limit} is below 1; leave it out to take every sentence")
    if source == target:
        raise BadInput(f"source and target are both {source!r}; they must be two different languages or columns")
    name, path = str(data), Path(data).expanduser()
    if name.startswith("sacrebleu:"):
        sides = _sacrebleu(name.removeprefix("sacrebleu:"), split, source, target)
    elif path.is_dir():
        sides = _folder(path, split, source, target)
        name = path.resolve().name
    elif path.is_file():
        sides = _columns(_read_rows(path, split), source, target, str(path))
        name = path.name
    elif _may_be_hub_id(name):
        sides = _hub(name, split, source, target)
    else:
        raise BadInput(f"data {name!r} does not exist; give {FORMS}")
    if len(sides[0]) == len(sides[1]):  # otherwise Corpus reports that they differ
        sides = sides[0][:limit], sides[1][:limit]
    return Corpus(*sides, name=name, split=split, limit=limit, language=target)


load_corpus = load  # the name in `tprune`


def check(**given: object) -> None:
    """Raise BadInput, with the name of the argument, for anything that is neither a corpus nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Corpus):
            raise BadInput(f"{name} {value!r:.60}: give a Corpus, such as tprune.load_corpus('data', split='train')")


def tokenise(corpus: Corpus, tokenizer: Any, max_tokens: int) -> Pairs:
    """Return the token ids of the pairs with at most `max_tokens` tokens (with </s>) on both sides, for training.

    Raises BadInput when no pair is left.
    """
    sources = tokenizer(list(corpus.source), verbose=False)["input_ids"]
    targets = tokenizer(text_target=list(corpus.target), verbose=False)["input_ids"]
    kept = [(s, t) for s, t in zip(sources, targets, strict=True) if max(len(s), len(t)) <= max_tokens]
    if not kept:
        shortest = min(max(len(s), len(t)) for s, t in zip(sources, targets, strict=True))
        raise BadInput(
            f"corpus {corpus.name!r}: no pair has both sides within {max_tokens} tokens; the shortest has {shortest}"
        )
    return Pairs([s for s, _ in kept], [t for _, t in kept], dropped=len(sources) - len(kept))


def _text_id(lines: Iterable[str], where: str) -> str:
    try:
        return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()[:16]
    except UnicodeEncodeError as error:  # JSON can encode half a surrogate pair, UTF-8 cannot
        raise BadInput(f"{where}: a sentence holds {error.object[error.start]!a}, which is no character") from error


def _may_be_hub_id(name: str) -> bool:
    """Return whether a name may be a hub id, so that the hub is not asked about a mistyped path."""
    first, slash, _ = name.partition("/")
    looks_local = FILE_SUFFIX.fullmatch(Path(name).suffix) or (slash and Path(first).is_dir())
    return HUB_ID.fullmatch(name) is not None and not looks_local


def _folder(folder: Path, split: str, source: str, target: str) -> Sides:
    files = [_find(folder, f"{split}.{language}") for language in (source, target)]
    if files[0] is None or files[1] is None:
        table = next(filter(None, (_find(folder, f"{split}{suffix}") for suffix in READERS)), None)
        if table is not None:
            return _columns(_read_rows(table, split), source, target, str(table))
        missing = " or ".join(f"{split}.{n}[.gz]" for n, f in zip((source, target), files, strict=True) if f is None)
        raise BadInput(f"folder {str(folder)!r} has no {missing}; {_inventory(folder, split)}")
    return _read_lines(files[0]), _read_lines(files[1])


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _inventory(folder: Path, split: str) -> str:
    """Describe the splits and languages of a folder, and say which flag to change when `split` was asked for."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        name, dot, language = path.name.removesuffix(".gz").rpartition(".")
        if dot and name and path.is_file() and re.fullmatch(r"[A-Za-z]{2,3}([_-]\w+)?", language):
            found.setdefault(name, []).append(language)
    if not found:
        return f"it has no SPLIT.LANG files at all; data may be {FORMS}"
    there = ", ".join(f"{name} ({', '.join(languages)})" for name, languages in found.items())
    return f"it has {there}; {'change --source or --target' if split in found else '--split takes another name'}"


def _read_lines(path: Path) -> tuple[str, ...]:
    lines = tuple(text.strip() for text in _decode(path))
    for number, line in enumerate(lines, 1):
        if not line:
            raise BadInput(f"file {str(path)!r}, line {number} is empty; remove that line from both languages")
    return lines


def _decode(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file. Only a line feed ends a line; U+2028 and similar characters are text."""
    for number, raw in enumerate(_read_bytes(path), 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(
                f"file {str(path)!r}, line {number}, byte {error.start + 1}: 0x{raw[error.start]:02x} is not UTF-8; "
                "convert the file, for example with iconv -t utf-8"
            ) from error


def _read_bytes(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:  # the last two: a truncated or damaged gzip file
        raise BadInput(f"file {str(path)!r} cannot be read: {error}") from error


def _read_rows(path: Path, split: str) -> list[Row]:
    suffix = _suffix(path)
    if suffix not in READERS:
        raise BadInput(f"file {str(path)!r} has the suffix {suffix or path.suffix!r}; it must be {', '.join(READERS)}")
    rows = READERS[suffix](path)
    return _of_split(rows, split, path) if rows and "split" in rows[0] else rows


def _suffix(path: Path) -> str:
    """Return the suffix without .gz if it is that of a table, else an empty string."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return suffix if suffix in READERS else ""


def _of_split(rows: list[Row], split: str, path: Path) -> list[Row]:
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        there = ", ".join(sorted({repr(row["split"]) for row in rows}))
        raise BadInput(f"file {str(path)!r} has no split {split!r}; its column 'split' has {there}")
    return chosen


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_decode(path), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"file {str(path)!r}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadInput(f"file {str(path)!r}, line {number} is not a JSON object but {type(row).__name__}")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[Row]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB refuses a long paragraph
    try:
        return list(csv.DictReader(_decode(path), delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True))
    except csv.Error as error:
        raise BadInput(f"file {str(path)!r} is not well-formed: {error}") from error


def _read_parquet(path: Path) -> list[Row]:
    pa = extras.load("pyarrow", "datasets", "reading parquet files")
    pq = extras.load("pyarrow.parquet", "datasets", "reading parquet files")
    try:
        return list(pq.read_table(path).to_pylist())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadInput(f"file {str(path)!r} is no readable parquet file: {str(error).splitlines()[0]}") from error


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}


def _columns(rows: Sequence[Row], source: str, target: str, where: str) -> Sides:
    """Return two columns of the rows, or of their column `translation`, as in hub datasets."""
    if not rows:
        raise BadInput(f"{where!r} holds no rows")
    nested = source not in rows[0] and isinstance(rows[0].get("translation"), dict)
    tables = [row.get("translation") if nested else row for row in rows]
    return _column(tables, source, where), _column(tables, target, where)


def _column(rows: Sequence[Any], column: str, where: str) -> tuple[str, ...]:
    texts = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or column not in row:
            there = ", ".join(map(repr, row)) if isinstance(row, dict) else repr(row)
            raise BadInput(f"{where!r}, row {number} has no column {column!r}; it has {there}")
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            what = "is empty" if text is None or isinstance(text, str) else f"is {type(text).__name__}, not text"
            raise BadInput(f"{where!r}, row {number}: column {column!r} {what}")
        texts.append(re.sub(r"[\r\n]+", " ", text.strip()))  # a sentence is one line
    return tuple(texts)


def _hub(name: str, split: str, source: str, target: str) -> Sides:
    datasets = extras.load("datasets", "datasets", f"data set {name!r}")
    path, _, config = name.partition(":")
    with hub() as reached:
        try:
            rows = datasets.load_dataset(path, config or None, split=split)
        except ValueError as error:  # unknown split or config; the message lists the legal ones
            raise BadInput(f"hub dataset {name!r}, split {split!r}: {_one_line(error)}") from error
        except (OSError, RuntimeError) as error:  # not found, no network, or offline mode without a cached copy
            reason = _one_line(error) if reached else "it cannot be reached"
            raise BadInput(
                f"data {name!r} is no file or folder here, and the hub does not give it ({reason}); give {FORMS}"
            ) from error
    return _columns(list(rows), source, target, name)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _sacrebleu(name: str, split: str, source: str, target: str) -> Sides:
    from sacrebleu.dataset import DATASETS

    test_set, slash, pair = name.rpartition("/")
    if not slash or "-" not in pair:  # names such as iwslt17/tst2016 hold a slash themselves
        test_set, pair = name, f"{source}-{target}"
    if test_set not in DATASETS:
        raise BadInput(f"sacrebleu has no test set {test_set!r}; it has {', '.join(sorted(DATASETS))}")
    dataset = DATASETS[test_set]
    if pair not in dataset.langpairs:
        raise BadInput(f"sacrebleu's {test_set} has no pair {pair!r}; it has {', '.join(sorted(dataset.langpairs))}")
    if split not in {"test", test_set}:
        raise BadInput(f"sacrebleu:{name} has no split {split!r}; it is a test set: use split 'test'")
    try:
        references = tuple(row[0].strip() for row in dataset.references(pair))  # the first, where there are several
        return tuple(dataset.source(pair)), references
    except (OSError, SystemExit) as error:  # sacrebleu exits the process when a download is damaged
        raise BadInput(f"sacrebleu cannot get {test_set}/{pair}: {_one_line(error)}") from error
