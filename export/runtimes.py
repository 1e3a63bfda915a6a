"""`RUNTIMES`: one row per runtime. A runtime is one module that exports and opens its artefacts, and one row here.

Functions are named as "module:function" and imported on use, since some of them load torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tprune.base.errors import BadInput


@dataclass(frozen=True)
class Runtime:
    """One runtime. `name` is its Python package and its name in manifests and records, `flag` the value of `--to`."""

    name: str
    flag: str
    label: str  # in reports and figures
    program: str  # our native program that runs its artefacts
    image_file: str  # the graph file of an image network
    requirement: str  # for `pip install`, quoted for a shell
    wheel_parts: tuple[str, ...]  # what a device needs of its wheel: libraries, and headers to build against
    loaded_later: tuple[str, ...]  # libraries that the program opens by name at run time
    exports: tuple[str, ...]  # packages that the export needs
    export_translator: str  # checkpoint, folder, ... -> manifest
    export_classifier: str  # network, folder, ... -> manifest
    open_translator: str  # folder, threads -> an artefact that translates
    run_classifier: str  # path, manifest, threads -> a function from an image to logits

    def load(self, function: str) -> Any:
        """Import the function that a field names: `RUNTIMES["onnxruntime"].load("open_translator")`."""
        module, _, name = getattr(self, function).partition(":")
        return getattr(import_module(module), name)


RUNTIMES = {
    "onnxruntime": Runtime(
        name="onnxruntime",
        flag="onnx",
        label="ONNX Runtime",
        program="tprune-ort",
        image_file="model.onnx",
        requirement="onnxruntime",
        wheel_parts=("onnxruntime/capi/libonnxruntime.so",),
        loaded_later=("libonnxruntime.so.1",),
        exports=("torch", "onnx", "onnxscript", "onnxruntime"),
        export_translator="tprune.export.ort.export:to_onnx",
        export_classifier="tprune.export.ort.export:network_to_onnx",
        open_translator="tprune.export.ort.runtime:open",
        run_classifier="tprune.export.images.classifier:run_onnxruntime",
    ),
    "executorch": Runtime(
        name="executorch",
        flag="executorch",
        label="ExecuTorch",
        program="tprune-et",
        image_file="model.pte",
        requirement="'tprune[executorch]'",
        wheel_parts=("executorch/lib/", "executorch/include/", "executorch/version.py"),
        loaded_later=(),
        exports=("torch", "executorch"),
        export_translator="tprune.export.et.export:to_executorch",
        export_classifier="tprune.export.et.export:network_to_executorch",
        open_translator="tprune.export.et.runtime:open",
        run_classifier="tprune.export.images.classifier:run_executorch",
    ),
}


def flags() -> tuple[str, ...]:
    """Return the legal values of `--to`."""
    return tuple(runtime.flag for runtime in RUNTIMES.values())


def by_flag(flag: str) -> Runtime:
    """Return the runtime that `--to` names. Raise BadInput for an unknown one."""
    for runtime in RUNTIMES.values():
        if runtime.flag == flag:
            return runtime
    raise BadInput(f"--to {flag!r}: must be {' or '.join(flags())}")


def label(name: str) -> str:
    """Return the display name of a record's runtime; that of a rival is its own name."""
    return RUNTIMES[name].label if name in RUNTIMES else name
