"""Open an ExecuTorch artefact in Python through the bindings of its wheel, for parity checks and `evaluate`.

    translator = open("artefacts/dense", threads=1)
    translator.greedy([73, 9, 512, 0]).ids

Batch size is 1. On devices the program `tprune-et` runs artefacts, and is faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tprune.base.errors import BadInput, WorkFailed
from tprune.export.manifest import PROGRAM, Manifest, Tensors
from tprune.export.search.batch import Floats, Ints
from tprune.export.search.translator import Translator

STRIDE = 8
"""Cache rows are passed in multiples of this: XNNPACK plans its memory again whenever a size grows."""


def check_installed() -> None:
    """Raise BadInput with the install command if ExecuTorch is missing."""
    if importlib.util.find_spec("executorch") is None:
        raise BadInput("executorch is not installed: pip install 'tprune[executorch]'")


def open(folder: str | Path, threads: int = 1) -> Translator:  # noqa: A001 - used as `executorch_runtime.open(folder)`
    """Check the file of an ExecuTorch artefact against its manifest and open it. Raises BadInput if it is damaged.

    ExecuTorch has one thread pool per process: the `threads` of the artefact opened last apply to all.
    """
    if threads < 1:
        raise BadInput(f"threads must be at least 1, not {threads}")
    manifest = Manifest.read(folder)
    if manifest.runtime != "executorch":
        raise BadInput(f"{str(folder)!r} is for {manifest.runtime}; this opens executorch artefacts only")
    check_installed()
    manifest.check_files(folder)
    encoder, step = load_methods(Path(folder) / PROGRAM, ("encoder", "decoder_step"), manifest.header, threads)
    tensors = manifest.tensors
    return Translator(
        manifest,
        threads,
        _Encoder(encoder, tensors["encoder"]),
        _Step(step, tensors["decoder_step"], most=manifest.limits.target),
    )


def load_methods(path: Path, names: Sequence[str], header: Mapping[str, Any], threads: int) -> list[Any]:
    """Return the methods `names` of a program; `header` is its manifest's header, which has the exporter's version.

    Raises BadInput for a program that ExecuTorch refuses.
    """
    with _quiet():
        # The public `portable_lib` loads the whole exporter, which takes ten seconds.
        from executorch.extension.pybindings import _C as bindings

        for library in (Path(bindings.__file__).parents[2] / "lib").glob("libexecutorch_kernels_quantized.*"):
            ctypes.CDLL(str(library))  # the bindings lack the kernels of int8 tables
        bindings._unsafe_reset_threadpool(threads)
        try:
            program = bindings._load_program(str(path), program_verification=bindings.Verification.InternalConsistency)
            return [program.load_method(name) for name in names]
        except (RuntimeError, MemoryError) as error:
            here, made = metadata.version("executorch"), header.get("versions", {}).get("executorch")
            why = f"{error}" if made in (here, None) else f"{error}; it was exported with ExecuTorch {made}"
            raise BadInput(f"ExecuTorch {here} cannot open {str(path)!r} ({why}); export it again") from None


class _Encoder:
    """An `Encoder` with batch size 1, which needs no mask."""

    def __init__(self, method: Any, tensors: Tensors) -> None:
        self._method = method
        self._names = [port.name for port in tensors.outputs]

    def run(self, ids: Ints, mask: Ints) -> tuple[dict[str, Any], int]:
        if len(ids) != 1:
            raise BadInput(f"an executorch artefact translates one sentence at a time, not {len(ids)}")
        outputs, run_ns = call(self._method, [torch.from_numpy(ids)], clone=True)
        return dict(zip(self._names, outputs, strict=True)), run_ns


class _Step:
    """A `Step` that runs the rows of a batch one after another, each with a cache for the longest sentence."""

    logits: Floats

    def __init__(self, method: Any, tensors: Tensors, *, most: int) -> None:
        self._method = method
        self._past = [port for port in tensors.inputs if "past" in port.shape]
        self._names = [port.name for port in tensors.inputs[2:]]
        self._most = most
        self._vocabulary = int(tensors.outputs[0].shape[1])
        self._caches: list[dict[str, Tensor]] = []

    def start(self, encoded: Mapping[str, Any], batch: int) -> None:
        self._encoded = encoded
        if batch != len(self._caches):
            self.logits = np.zeros((batch, self._vocabulary), dtype=np.float32)
            self._caches = [
                {
                    port.name: torch.zeros([self._most if s == "past" else int(s) for s in port.shape])
                    for port in self._past
                }
                for _ in range(batch)
            ]

    def run(self, position: int, token: int | Ints) -> int:
        rows = min(self._most, max(STRIDE, -(-position // STRIDE) * STRIDE))
        total, place = 0, torch.tensor([position])
        for row, (cache, one) in enumerate(zip(self._caches, np.broadcast_to(token, len(self._caches)), strict=True)):
            given = {**self._encoded, **{name: states[:, :rows] for name, states in cache.items()}}
            inputs = [torch.tensor([int(one)]), place, *(given[name] for name in self._names)]
            (logits, *new), run_ns = call(self._method, inputs, clone=False)
            self.logits[row] = logits[0].numpy()
            for states, state in zip(cache.values(), new, strict=True):
                states[:, position] = state[:, 0]
            total += run_ns
        return total

    def reorder(self, rows: Sequence[int]) -> None:
        self._caches = [{name: states.clone() for name, states in self._caches[row].items()} for row in rows]


def call(method: Any, inputs: list[Tensor], *, clone: bool) -> tuple[list[Tensor], int]:
    """Run a method; return its outputs and ns. Without `clone` the outputs are valid until the next call only."""
    begin = perf_counter_ns()
    try:
        outputs = method.call(inputs, clone_outputs=clone)
    except RuntimeError as error:
        raise WorkFailed(f"ExecuTorch: {error}; export the artefact again") from None
    return outputs, perf_counter_ns() - begin


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the process's stderr: the bindings write notes about the machine to it, and every error twice."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
