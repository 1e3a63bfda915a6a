"""Export translation models and image networks to ONNX Runtime and ExecuTorch.

from tprune.export import to_onnx

to_onnx(checkpoint, "onnx/small", dev=dev, precision="int8")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tprune.base.lazy import exports

if TYPE_CHECKING:
    from tprune.export.et.export import network_to_executorch as network_to_executorch
    from tprune.export.et.export import to_executorch as to_executorch
    from tprune.export.graphs.precision import Precision as Precision
    from tprune.export.images.manifest import ImageManifest as ImageManifest
    from tprune.export.manifest import Manifest as Manifest
    from tprune.export.marian.open import open_translator as open_translator
    from tprune.export.marian.publish import ungated as ungated
    from tprune.export.ort.export import network_to_onnx as network_to_onnx
    from tprune.export.ort.export import to_onnx as to_onnx

_PUBLIC = {
    "ImageManifest": "tprune.export.images.manifest",
    "Manifest": "tprune.export.manifest",
    "Precision": "tprune.export.graphs.precision",
    "network_to_executorch": "tprune.export.et.export",
    "network_to_onnx": "tprune.export.ort.export",
    "open_translator": "tprune.export.marian.open",
    "to_executorch": "tprune.export.et.export",
    "to_onnx": "tprune.export.ort.export",
    "ungated": "tprune.export.marian.publish",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the table above is the one list

if not TYPE_CHECKING:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
