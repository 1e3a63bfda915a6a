"""`Manifest`: the description of an artefact folder. Torch-free; everything that runs an artefact reads it.

manifest = Manifest.read("artefacts/dense")
manifest.check_files("artefacts/dense")

This is the manifest of a translation model; `ImageManifest` of an image network shares its header and parts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.base.stamp import SCHEMA, file_sha256, stamp, write_json
from tprune.export import targets
from tprune.export.runtimes import RUNTIMES

FILE = "manifest.json"
KIND = "artefact"
TRANSLATION, IMAGES = "translation", "images"  # the tasks of artefacts
GRAPHS = {"encoder": "encoder.onnx", "decoder_step": "decoder_step.onnx"}  # of an onnxruntime artefact
SHARED = "shared.bin"  # of an onnxruntime artefact: weights that both graphs hold
PROGRAM = "model.pte"  # of an executorch artefact: both graphs are methods of this file
PRECISIONS = ("fp32", "int8")
DTYPES = ("float32", "int64")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph; a string in `shape` names a dynamic size (batch, source, past, present)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BadInput(f"TensorSpec.dtype of {self.name!r}: {self.dtype!r} is not one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class Tensors:
    """The inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class FileEntry:
    """Digest and size of one graph file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Special:
    """Special token ids; `forced_eos` is emitted at the length limit (None: nothing is forced)."""

    start: int
    eos: int
    pad: int
    unk: int | None
    forced_eos: int | None


@dataclass(frozen=True)
class Limits:
    """`source`: maximum source tokens with `</s>`. `target`: HF's max_length, which includes the start token."""

    source: int
    target: int

    def __post_init__(self) -> None:
        if self.source < 1 or self.target < 2:
            raise BadInput(f"Limits: source {self.source} must be at least 1 and target {self.target} at least 2")


@dataclass(frozen=True)
class Scoring:
    """Scoring of finished beam hypotheses, from the checkpoint's HF generation configuration."""

    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        if not isinstance(self.length_penalty, int | float) or not math.isfinite(self.length_penalty):
            raise BadInput(f"length_penalty must be a number, not {self.length_penalty!r}")
        if self.early_stopping not in (False, True, "never"):
            raise BadInput(f"early_stopping must be false, true or 'never', not {self.early_stopping!r}")


@dataclass(frozen=True)
class ModelFacts:
    """The exported checkpoint; `keep` is the share of prunable weights kept, `macs` is as in `marian.count`."""

    id: str
    name: str
    criterion: str
    seed: int | None
    keep: float
    params: int
    macs: int


@dataclass(frozen=True)
class ParityResult:
    """Comparison with PyTorch: sentences, how many have identical tokens, and the largest logit difference."""

    sentences: int
    identical: int
    max_abs_logit_diff: float


@dataclass(frozen=True)
class Delegation:
    """The share of a program's operators that XNNPACK runs, and operator -> count of all others."""

    share: float
    outside: Mapping[str, int]

    @property
    def told(self) -> str:
        """Both numbers in one sentence."""
        outside = ", ".join(f"{count} {name}" for name, count in self.outside.items()) or "nothing"
        return f"XNNPACK runs {self.share:.1%} of the operators; outside it: {outside}"


@dataclass(frozen=True)
class Int8Cost:
    """The BLEU cost of 8-bit components on a split, against the same export in fp32.

    `p_value` is that of the difference (paired bootstrap), `identical` counts sentences with identical tokens. `alone`
    is component -> BLEU loss in per cent if it alone is 8-bit; empty unless a component had to stay fp32.
    """

    split: str
    sentences: int
    identical: int
    bleu: float
    fp32_bleu: float
    p_value: float
    alone: Mapping[str, float]


@dataclass(frozen=True)
class Manifest:
    """One artefact: graphs, their tensors, special ids, limits, source model and parity result.

    A manifest that was read or published knows its `folder`, and can be passed wherever an artefact's path can.
    """

    id: str
    runtime: str
    precision: str
    files: Mapping[str, FileEntry]
    tensors: Mapping[str, Tensors]
    special: Special
    limits: Limits
    model: ModelFacts
    parity: ParityResult
    output_ids: tuple[int, ...] | None = None  # of a trimmed vocabulary: token id of each row; None: row i is token i
    delegation: Delegation | None = None  # of an executorch artefact
    int8: tuple[
        str, ...
    ] = ()  # the components that are 8-bit (see tprune.export.graphs.precision); the others are fp32
    cost: Int8Cost | None = None  # of an int8 artefact
    scoring: Scoring = Scoring()
    target_cpu: str = targets.ALL  # for which processors, see tprune.export.targets
    header: Mapping[str, Any] = field(default_factory=dict, compare=False)
    folder: Path | None = field(default=None, compare=False)  # not in the file

    def __post_init__(self) -> None:
        targets.named(self.target_cpu)
        for name, value, legal in (
            ("runtime", self.runtime, tuple(RUNTIMES)),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in legal:
                raise BadInput(f"Manifest.{name}: {value!r} is not one of {', '.join(legal)}")
        if self.id != artefact_id(self.files):
            raise BadInput(f"Manifest.id: {self.id!r} does not belong to its files ({artefact_id(self.files)!r})")

    def __repr__(self) -> str:
        size = sum(entry.bytes for entry in self.files.values()) / 1e6
        where = "" if self.folder is None else f"{str(self.folder)!r}, "
        return f"Manifest({where}{self.model.name}, {self.runtime} {self.precision}, {size:.1f} MB)"

    def __fspath__(self) -> str:
        if self.folder is None:
            raise TypeError(f"{self!r} has no folder yet; write it, and read it from there")
        return str(self.folder)

    @classmethod
    def read(cls, folder: Path | str) -> Manifest:
        """Read `folder/manifest.json`.

        Raises BadInput for a folder that is no artefact or one of another task, a schema that this version does not
        know, or missing fields.
        """
        document = read_document(folder)
        check_task(folder, document, TRANSLATION)
        with complete(folder):
            return replace(_parse(document), folder=Path(folder))

    def write(self, folder: Path | str) -> None:
        """Write `folder/manifest.json`, whole or not at all."""
        write_json(Path(folder) / FILE, self.document())

    def document(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready data, header included."""
        header = dict(self.header) or stamp(KIND, {"model": self.model.id})
        body = {name: value for name, value in asdict(self).items() if name not in ("header", "folder")}
        return {**header, "task": TRANSLATION, **body}

    def check_files(self, folder: Path | str) -> None:
        """Raise BadInput for every graph file that is missing or differs from the manifest."""
        check_files(folder, self.files)


def read_document(folder: Path | str) -> dict[str, Any]:
    """Return the content of `folder/manifest.json`: a manifest of a known schema, of any task.

    Raises BadInput for everything else.
    """
    path = Path(folder) / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (FileNotFoundError, NotADirectoryError):
        lacks = f"it has no {FILE}" if Path(folder).is_dir() else "there is no such folder"
        raise BadInput(f"{str(folder)!r} is not an artefact: {lacks}; make one with `tprune export`") from None
    except ValueError as error:  # json.JSONDecodeError and UnicodeDecodeError are ValueErrors too
        raise BadInput(f"{str(path)!r} is not JSON ({error}); export the artefact again") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise BadInput(f"{str(path)!r} is not the manifest of an artefact (kind must be {KIND!r})")
    if document.get("schema") != SCHEMA:
        raise BadInput(f"{str(path)!r} has schema {document.get('schema')!r}; this version reads schema {SCHEMA}")
    if task_of(document) not in (TRANSLATION, IMAGES):
        raise BadInput(f"{str(path)!r} has task {task_of(document)!r}; this version knows {TRANSLATION} and {IMAGES}")
    return document


def task_of(document: Mapping[str, Any]) -> str:
    """Return the task in a manifest; older manifests, from before image networks, have none."""
    return str(document.get("task", TRANSLATION))


def check_task(folder: Path | str, document: Mapping[str, Any], task: str) -> None:
    """Raise BadInput unless a manifest is for `task`."""
    if (found := task_of(document)) != task:
        raise BadInput(f"{str(folder)!r} is an artefact for {found}; this takes one for {task}")


@contextmanager
def complete(folder: Path | str) -> Iterator[None]:
    """Raise BadInput for fields of the manifest in `folder` that the block misses."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        path = str(Path(folder) / FILE)
        raise BadInput(f"{path!r} is incomplete or damaged ({error!r}); export the artefact again") from None


def check_files(folder: Path | str, files: Mapping[str, FileEntry]) -> None:
    """Raise BadInput for every one of `files` that is missing in `folder` or has other bytes."""
    complaints = []
    for name, entry in files.items():
        path = Path(folder) / name
        if not path.is_file():
            complaints.append(f"{name} is missing")
        elif (size := path.stat().st_size) != entry.bytes:
            complaints.append(f"{name} has {size} bytes instead of {entry.bytes}")
        elif (digest := file_sha256(path)) != entry.sha256:
            complaints.append(f"{name} has sha256 {digest[:16]}... instead of {entry.sha256[:16]}...")
    if complaints:
        raise BadInput(f"artefact {str(folder)!r} is damaged: {'; '.join(complaints)}; export it again")


def describe_files(folder: Path, names: tuple[str, ...]) -> dict[str, FileEntry]:
    """Return name -> digest and size of files of `folder`."""
    return {name: FileEntry(file_sha256(folder / name), (folder / name).stat().st_size) for name in names}


def artefact_id(files: Mapping[str, FileEntry]) -> str:
    """Return the first 16 hex digits of the sha256 over the graph files' names and digests."""
    lines = "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_tensors(document: Mapping[str, Any]) -> dict[str, Tensors]:
    """Return graph name -> its inputs and outputs."""
    return {
        graph: Tensors(*(tuple(_tensor(port) for port in borders[side]) for side in ("inputs", "outputs")))
        for graph, borders in document["tensors"].items()
    }


def read_files(document: Mapping[str, Any]) -> dict[str, FileEntry]:
    """Return file name -> digest and size."""
    return {name: FileEntry(**entry) for name, entry in document["files"].items()}


def _parse(document: Mapping[str, Any]) -> Manifest:
    body = {entry.name for entry in fields(Manifest)} | {"task"}
    delegation = document.get("delegation")
    return Manifest(
        id=document["id"],
        runtime=document["runtime"],
        precision=document["precision"],
        files=read_files(document),
        tensors=read_tensors(document),
        special=Special(**document["special"]),
        limits=Limits(**document["limits"]),
        model=ModelFacts(**document["model"]),
        parity=ParityResult(**document["parity"]),
        output_ids=None if document.get("output_ids") is None else tuple(document["output_ids"]),
        delegation=None if delegation is None else Delegation(**delegation),
        int8=tuple(document.get("int8", ())),
        cost=None if document.get("cost") is None else Int8Cost(**document["cost"]),
        scoring=Scoring(**document.get("scoring", {})),
        target_cpu=targets.of_document(document),
        header={key: value for key, value in document.items() if key not in body},
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError for a repeated key, which the runner would refuse too."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _tensor(port: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(port["name"], port["dtype"], tuple(port["shape"]))
