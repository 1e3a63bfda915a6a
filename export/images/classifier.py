"""Open the artefact of an image network in Python: `open("artefacts/resnet20").logits(pixels)`.

The reference for parity; what measures is the runner in C++.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tprune.base.errors import BadInput
from tprune.export import targets
from tprune.export.images.manifest import GRAPH, ImageManifest
from tprune.export.marian.open import engine_errors
from tprune.export.ort import runtime
from tprune.export.runtimes import RUNTIMES

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def inputs(pixels: Bytes) -> Iterator[Floats]:
    """Yield uint8 pixels (count, channels, height, width) as a graph takes them: (1, ...) float32, 0 to 1."""
    for one in pixels:
        yield one[None].astype(np.float32) / np.float32(255)


class Classifier:
    """An open graph from one image to its logits. Not thread-safe."""

    def __init__(self, folder: Path, manifest: ImageManifest, run: Callable[[Floats], Floats]) -> None:
        self.manifest = manifest
        self._folder = folder
        self._run = run

    def logits(self, pixels: Bytes) -> Floats:
        """Return logits (count, classes) of uint8 pixels (count, channels, height, width), one image at a time."""
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.manifest.image:
            size = " x ".join(map(str, self.manifest.image))
            raise BadInput(f"images are {pixels.dtype} {pixels.shape[1:]}; this artefact takes uint8, {size} each")
        with engine_errors(self._folder):
            return np.stack([self._run(image)[0] for image in inputs(pixels)])


def open(folder: str | Path, threads: int = 1) -> Classifier:  # noqa: A001 - used as `image_runtime.open(folder)`
    """Open an artefact of either runtime; its file is checked against the manifest first.

    Raises BadInput for a damaged one and for a runtime that is not installed.
    """
    if threads < 1:
        raise BadInput(f"threads must be at least 1, not {threads}")
    folder = Path(folder)
    manifest = ImageManifest.read(folder)
    manifest.check_files(folder)
    targets.warn(f"artefact {str(folder)!r}", manifest.target_cpu)
    (file,) = manifest.files
    start = RUNTIMES[manifest.runtime].load("run_classifier")
    with engine_errors(folder):
        return Classifier(folder, manifest, start(folder / file, manifest, threads))


def run_onnxruntime(path: Path, manifest: ImageManifest, threads: int) -> Callable[[Floats], Floats]:
    session = runtime.session(path, threads)

    def run(image: Floats) -> Floats:
        (logits,) = session.run(["logits"], {"image": image})
        return np.asarray(logits)

    return run


def run_executorch(path: Path, manifest: ImageManifest, threads: int) -> Callable[[Floats], Floats]:
    import torch  # only here, as with ExecuTorch: an ONNX artefact needs neither

    from tprune.export.et import runtime as executorch_runtime

    executorch_runtime.check_installed()
    method: Any
    (method,) = executorch_runtime.load_methods(path, (GRAPH,), manifest.header, threads)

    def run(image: Floats) -> Floats:
        (logits,), _ = executorch_runtime.call(method, [torch.from_numpy(image)], clone=True)
        return logits.numpy()

    return run
