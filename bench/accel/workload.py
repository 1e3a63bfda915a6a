"""`workload.json`: a network's layers on disk; the masks are in an .npz file beside it, with its SHA-256.

    {"schema": 1, "kind": "workload", ..., "network": "resnet20", "source": "trained", "accuracy": 0.91, "note": "",
     "masks": {"file": "workload.npz", "sha256": "..."},
     "layers": [{"name": "conv1", "inputs": 16, "outputs": 16, "size": [32, 32], "kernel": [3, 3], "stride": 1,
                 "padding": 1, "groups": 1, "dense": [16, 16],
                 "weights": {"mask": "conv1.weights"}, "activations": {"density": 0.5},
                 "decomposition": {"bases": 6, "coefficients": {"mask": "conv1.coefficients"}}}]}

An operand is `{"density": 0..1}`, `{"mask": NAME}`, or both if the mask is of one image and the density a mean.
`stride` and `padding` are one number, or `[height, width]`. Coefficients are -1, 0 and 1. `plain` has `network`,
`layers`, `accuracy` and `note` of the network for designs without bases. `masks`, `dense`, `decomposition`, `accuracy`,
`note` and `plain` may be null or absent; unknown fields are refused.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.bench.accel.layer import Decomposition, Layer, Operand, Shape, Workload

KIND = "workload"
SHAPE = ("inputs", "outputs", "size", "kernel", "stride", "padding", "groups")
LAYER = {"name", *SHAPE, "weights", "activations", "decomposition", "dense"}
PLAIN = {"network", "accuracy", "note", "layers"}
TOP = PLAIN | {"source", "masks", "plain"}


def write(workload: Workload, path: Path | str, *, inputs: Mapping[str, str] | None = None) -> None:
    """Write `path` (JSON) and, if there are masks, the .npz of the same name beside it."""
    path = Path(path)
    arrays: dict[str, NDArray[Any]] = {}
    plain = workload.plain and {**_about(workload.plain), "layers": _layers_document(workload.plain, arrays, "plain/")}
    layers = _layers_document(workload, arrays, "")
    masks = None
    if arrays:
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its flags
        archive = path.with_suffix(".npz")
        part = archive.with_name(f".{archive.name}.part")
        part.write_bytes(packed.getvalue())
        os.replace(part, archive)
        masks = {"file": archive.name, "sha256": stamp.file_sha256(archive)}
    about = {**_about(workload), "source": workload.source, "masks": masks}
    stamp.write_json(path, {**stamp.stamp(KIND, inputs), **about, "plain": plain, "layers": layers})


def read(path: Path | str) -> Workload:
    """Read a `workload.json`; BadInput names the layer and field that is wrong."""
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        legal = "name a workload.json of `tprune cnn workload`, an ONNX file, or a network such as resnet18-32"
        raise BadInput(f"workload {str(path)!r} cannot be read: {error}; {legal}") from None
    if not isinstance(document, dict) or document.get("kind") != KIND or document.get("schema") != stamp.SCHEMA:
        raise BadInput(f"{str(path)!r} is not a workload (kind must be {KIND!r}, schema {stamp.SCHEMA})")
    where = f"workload {path.name!r}"
    _known(where, document, TOP | set(stamp.stamp(KIND)), required={"network", "source", "layers"})
    arrays, source, plain = _arrays(path, document.get("masks")), document["source"], document.get("plain")
    if plain is not None:
        if not isinstance(plain, dict):
            raise BadInput(f"{where}: plain must be an object, or null")
        _known(f"{where}, plain", plain, PLAIN, required={"network", "layers"})
        plain = Workload(**_network(f"{where}, plain", plain, arrays), source=source)
    return Workload(**_network(where, document, arrays), source=source, id=stamp.file_sha256(path), plain=plain)


def _network(where: str, document: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    if not isinstance(document["layers"], list):
        raise BadInput(f"{where}: layers must be a list")
    accuracy = document.get("accuracy")
    if accuracy is not None and not (isinstance(accuracy, (int, float)) and 0 <= accuracy <= 1):
        raise BadInput(f"{where}: accuracy is {accuracy!r}; it must be a share from 0 to 1, or null")
    layers = tuple(_layer(where, number, entry, arrays) for number, entry in enumerate(document["layers"]))
    note = str(document.get("note") or "")
    return {"network": str(document["network"]), "layers": layers, "accuracy": accuracy, "note": note}


def _about(workload: Workload) -> dict[str, Any]:
    return {"network": workload.network, "accuracy": workload.accuracy, "note": workload.note}


def _layers_document(workload: Workload, arrays: dict[str, NDArray[Any]], prefix: str) -> list[dict[str, Any]]:
    return [_layer_document(layer, arrays, prefix + layer.name) for layer in workload.layers]


def _layer_document(layer: Layer, arrays: dict[str, NDArray[Any]], name: str) -> dict[str, Any]:
    def operand(what: str, of: Operand) -> dict[str, Any]:
        if of.mask is None:
            return {"density": of.density}
        arrays[f"{name}.{what}"] = of.mask.astype(np.int8)
        mean = {"density": of.density} if of.density != of.share(exact=True) else {}
        return {"mask": f"{name}.{what}", **mean}

    split = layer.decomposition
    return {
        "name": layer.name,
        **{name: getattr(layer.shape, name) for name in SHAPE},
        "dense": layer.dense,
        "weights": operand("weights", layer.weights),
        "activations": operand("activations", layer.activations),
        "decomposition": split and {"bases": split.bases, "coefficients": operand("coefficients", split.coefficients)},
    }


def _arrays(path: Path, masks: Any) -> dict[str, NDArray[Any]]:
    if masks is None:
        return {}
    if not isinstance(masks, dict) or set(masks) != {"file", "sha256"}:
        raise BadInput(f"workload {path.name!r}: masks must name a file and its sha256, or be null")
    archive = path.parent / str(masks["file"])
    if archive.parent != path.parent or not archive.is_file():
        raise BadInput(f"workload {path.name!r}: its masks {str(masks['file'])!r} are not beside it")
    if stamp.file_sha256(archive) != masks["sha256"]:
        raise BadInput(f"{str(archive)!r} is not the file that {path.name!r} was written with (sha256 differs)")
    try:
        with np.load(archive, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"masks {str(archive)!r} cannot be read: {error}") from None


def _layer(where: str, number: int, entry: Any, arrays: Mapping[str, NDArray[Any]]) -> Layer:
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: layer {number} must be an object")
    where = f"{where}, layer {entry.get('name', number)!r}"
    required = {"name", "inputs", "outputs", "size", "kernel", "weights", "activations"}
    _known(where, entry, LAYER, required=required)
    sizes = {name: entry[name] for name in SHAPE if name in entry}
    sizes |= {name: tuple(sizes[name]) for name in sizes if isinstance(sizes[name], list)}
    dense = entry.get("dense")
    if dense is not None and not (isinstance(dense, list) and len(dense) == 2 and all(type(n) is int for n in dense)):
        raise BadInput(f"{where}: dense is {dense!r}; it must be [inputs, outputs] before channels were cut, or null")
    try:
        return Layer(
            str(entry["name"]),
            Shape(**sizes),
            _operand("weights", entry["weights"], arrays),
            _operand("activations", entry["activations"], arrays),
            _decomposition(entry.get("decomposition"), arrays),
            (dense[0], dense[1]) if dense else None,
        )
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _decomposition(entry: Any, arrays: Mapping[str, NDArray[Any]]) -> Decomposition | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or set(entry) != {"bases", "coefficients"}:
        raise BadInput("decomposition must hold bases and coefficients, or be null")
    return Decomposition(entry["bases"], _operand("coefficients", entry["coefficients"], arrays))


def _operand(what: str, entry: Any, arrays: Mapping[str, NDArray[Any]]) -> Operand:
    if not isinstance(entry, dict) or not entry or set(entry) - {"density", "mask"}:
        raise BadInput(f'{what} is {entry!r}; it must be {{"density": 0..1}}, {{"mask": NAME}} or both')
    if "mask" not in entry:
        return Operand(entry["density"])
    if entry["mask"] not in arrays:
        raise BadInput(f"{what}: there is no mask {entry['mask']!r} in the .npz file")
    values = arrays[entry["mask"]]
    if values.dtype.kind not in "bui" or not values.size or not np.isin(values, (-1, 0, 1)).all():
        raise BadInput(f"{what}: mask {entry['mask']!r} must hold whole numbers -1, 0 and 1 only")
    of = Operand.of(values)
    return Operand(entry.get("density", of.density), of.mask)


def _known(where: str, entry: Mapping[str, Any], legal: set[str], *, required: set[str]) -> None:
    if unknown := sorted(set(entry) - legal):
        raise BadInput(f"{where}: unknown field {unknown[0]!r}; legal are {', '.join(sorted(legal))}")
    if missing := sorted(required - set(entry)):
        raise BadInput(f"{where}: the field {missing[0]!r} is missing")
