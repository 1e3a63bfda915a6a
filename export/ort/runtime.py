"""An ONNX artefact opened in Python: greedy and beam search over its two graphs; numpy and onnxruntime only.

    artefact = open("artefacts/dense", threads=1)
    artefact.greedy([73, 9, 512, 0]).ids

Token ids in, token ids out: the ids end with `</s>` where one was produced, hold no start token and never `<pad>`.
Lengths are counted as HF `generate` counts them: `max_length` includes the start token.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is loaded, or it writes a device id into the home folder
import onnxruntime as ort  # noqa: E402
from onnxruntime.capi.onnxruntime_pybind11_state import OrtValue  # noqa: E402

from tprune.base.errors import BadInput  # noqa: E402
from tprune.export import targets  # noqa: E402
from tprune.export.manifest import GRAPHS, Manifest, Scoring, Special, Tensors  # noqa: E402
from tprune.export.search import batch  # noqa: E402
from tprune.export.search.batch import Floats, Ints, Step  # noqa: E402
from tprune.export.search.beam import Beams  # noqa: E402

CPU = ort.OrtDevice.make("cpu", 0)._get_c_device()
ROOM = 64
"""Positions that a cache has room for at first; it doubles when a translation is longer."""


@dataclass(frozen=True)
class Decoded:
    """One translated sentence (or the timing of one batch): ids, and where the time went.

    `encoder_ns`: ids in to cross keys and values bound. `step_ns`: every decoder step, choice of the token included.
    `run_ns`: inside the runtime, both graphs. `total_ns`: ids in to ids out.
    """

    ids: tuple[int, ...]
    encoder_ns: int
    step_ns: tuple[int, ...]
    run_ns: int
    total_ns: int

    @property
    def steps(self) -> int:
        """How often the decoder graph ran."""
        return len(self.step_ns)


def open(folder: str | Path, threads: int = 1) -> Artefact:  # noqa: A001 - `runtime.open(folder)` reads as it is meant
    """Open an ONNX artefact; its files are checked against the manifest first. Raises BadInput for a damaged one.

    Warns (`errors.Caution`) of one that was exported for other processors.
    """
    if threads < 1:
        raise BadInput(f"threads must be at least 1, not {threads}")
    manifest = Manifest.read(folder)
    if manifest.runtime != "onnxruntime":
        raise BadInput(f"{str(folder)!r} is for {manifest.runtime}; this opens onnxruntime artefacts only")
    manifest.check_files(folder)
    targets.warn(f"artefact {str(folder)!r}", manifest.target_cpu)
    encoder, step = (session(Path(folder) / GRAPHS[name], threads) for name in ("encoder", "decoder_step"))
    tensors = manifest.tensors
    return Artefact(manifest, threads, _Encoder(encoder, tensors["encoder"]), _Step(step, tensors["decoder_step"]))


class Encoder(Protocol):
    """An encoder graph, opened by some runtime."""

    def run(self, ids: Ints, mask: Ints) -> tuple[dict[str, Any], int]:
        """Encode (batch, source) ids: (output name -> value for `Step.start`, ns inside the runtime)."""


class Artefact:
    """Two open graphs and the search loops over them. Not safe for use from several threads at once."""

    def __init__(self, manifest: Manifest, threads: int, encoder: Encoder, step: Step) -> None:
        self.manifest = manifest
        self.threads = threads
        self._encoder = encoder
        self._step = step
        # decoder tokens are numbered by the rows of the output matrix, which a trimmed vocabulary makes fewer
        self._ids = manifest.output_ids
        self._rows = {token: row for row, token in enumerate(self._ids or ())}
        self._special = manifest.special if self._ids is None else self._in_rows(manifest.special)
        pad = manifest.special.pad
        self._never = [pad] if self._ids is None else [self._rows[pad]] if pad in self._rows else []

    def _in_rows(self, special: Special) -> Special:
        named = {name: getattr(special, name) for name in ("start", "eos", "forced_eos")}
        return replace(special, **{name: self._rows[token] for name, token in named.items() if token is not None})

    def _tokens(self, rows: Sequence[int]) -> tuple[int, ...]:
        """Return the token ids of rows of the output matrix."""
        return tuple(rows) if self._ids is None else tuple(self._ids[row] for row in rows)

    def encode(self, sources: Sequence[Sequence[int]]) -> dict[str, Floats]:
        """Run the encoder on a batch of sources, padded here: output name -> array (mask, cross keys and values)."""
        return {name: value.numpy() for name, value in self._encode(sources)[0].items()}

    def greedy(self, ids: Sequence[int], max_length: int | None = None) -> Decoded:
        """Translate one sentence, taking the most probable token each time."""
        begin = perf_counter_ns()
        last_position = self._limit(max_length) - 2
        special, step = self._special, self._step
        encoded, run_ns = self._encode([ids])
        step.start(encoded, 1)
        logits, never, eos, forced = step.logits, self._never, special.eos, special.forced_eos
        token, output, times = special.start, list[int](), list[int]()
        encoder_ns = perf_counter_ns() - begin
        last = begin + encoder_ns
        for position in range(last_position + 1):
            run_ns += step.run(position, token)
            logits[:, never] = -np.inf
            token = int(logits.argmax()) if forced is None or position < last_position else forced
            output.append(token)
            now = perf_counter_ns()
            times.append(now - last)
            last = now
            if token == eos:
                break
        return Decoded(self._tokens(output), encoder_ns, tuple(times), run_ns, last - begin)

    def beam(
        self,
        ids: Sequence[int],
        beams: int,
        max_length: int | None = None,
        *,
        length_penalty: float | None = None,
        early_stopping: bool | str | None = None,
    ) -> tuple[int, ...]:
        """Translate one sentence with beam search; what is None is as the checkpoint wants it."""
        scoring = self._scoring(length_penalty, early_stopping)
        return self._beam([ids], beams, self._limit(max_length), scoring)[0]

    def translate(
        self,
        sources: Sequence[Sequence[int]],
        *,
        beams: int = 1,
        batch_size: int = 32,
        max_length: int | None = None,
        length_penalty: float | None = None,
        early_stopping: bool | str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[tuple[int, ...], ...]:
        """Translate many sentences, `batch_size` of like length at a time; one beam is greedy search.

        The ids, in the order of the sources, are those of `greedy` and `beam` up to rounding: products of other sizes
        differ in their last bits, and of two translations with all but the same score the other may win.
        """
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, not {batch_size}")
        scoring, limit = self._scoring(length_penalty, early_stopping), self._limit(max_length)
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        found = dict[int, tuple[int, ...]]()
        for first in range(0, len(order), batch_size):
            bucket = order[first : first + batch_size]
            chosen = [sources[i] for i in bucket]
            if beams == 1:
                self._step.start(self._encode(chosen)[0], len(chosen))
                rows = batch.greedy(self._step, len(chosen), self._special, self._never, limit)
                ids = [self._tokens(row) for row in rows]
            else:
                ids = self._beam(chosen, beams, limit, scoring)
            found |= zip(bucket, ids, strict=True)
            if progress is not None:
                progress(len(found), len(order))
        return tuple(found[i] for i in range(len(sources)))

    def _beam(
        self, sources: Sequence[Sequence[int]], beams: int, limit: int, scoring: Scoring
    ) -> list[tuple[int, ...]]:
        if beams < 1:
            raise BadInput(f"beams must be at least 1, not {beams}")
        self._step.start(self._encode(sources)[0], len(sources) * beams)
        searches = [
            Beams(beams, self._special.eos, limit, scoring.length_penalty, scoring.early_stopping) for _ in sources
        ]
        batch.beam(self._step, searches, self._special, self._never, limit)
        return [self._tokens(search.best()) for search in searches]

    def _scoring(self, length_penalty: float | None, early_stopping: bool | str | None) -> Scoring:
        own = self.manifest.scoring
        return Scoring(
            own.length_penalty if length_penalty is None else length_penalty,
            own.early_stopping if early_stopping is None else early_stopping,
        )

    def logits(self, ids: Sequence[int], target: Sequence[int]) -> Floats:
        """Return the logits (len(target), target vocabulary) that predict each id of `target` after those before it.

        With a trimmed vocabulary the columns end at the last kept id, and those of dropped tokens are -inf.
        """
        self._limit(len(target) + 1)
        step, rows = self._step, list[Floats]()
        step.start(self._encode([ids])[0], 1)
        shifted = [self._rows.get(token, token) for token in target[:-1]]
        for position, token in enumerate((self._special.start, *shifted)):
            step.run(position, token)
            rows.append(step.logits[0].copy())
        found = np.stack(rows)
        if self._ids is None:
            return found
        full = np.full((len(rows), max(self._ids) + 1), -np.inf, dtype=np.float32)
        full[:, list(self._ids)] = found
        return full

    def _encode(self, sources: Sequence[Sequence[int]]) -> tuple[dict[str, Any], int]:
        """(output name -> value for the step, ns inside the runtime)."""
        self._check(sources)
        ids = np.full((len(sources), max(map(len, sources))), self.manifest.special.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
            mask[row, : len(source)] = 1
        return self._encoder.run(ids, mask)

    def _check(self, sources: Sequence[Sequence[int]]) -> None:
        if not sources or not all(sources):
            raise BadInput("a source sentence has no token ids; give at least `</s>`")
        longest, limit = max(map(len, sources)), self.manifest.limits.source
        if longest > limit:
            raise BadInput(f"a source sentence has {longest} token ids; this artefact takes at most {limit}")

    def _limit(self, max_length: int | None) -> int:
        limit = self.manifest.limits.target
        wanted = limit if max_length is None else max_length
        if not 2 <= wanted <= limit:
            raise BadInput(f"max_length must be between 2 and {limit} (the start token counts), not {wanted}")
        return wanted


class _Encoder:
    """An `Encoder` with its outputs left inside ONNX Runtime."""

    def __init__(self, session: ort.InferenceSession, tensors: Tensors) -> None:
        self._session = session._sess
        self._binding = session.io_binding()._iobinding
        self._names = [port.name for port in tensors.outputs]

    def run(self, ids: Ints, mask: Ints) -> tuple[dict[str, Any], int]:
        binding = self._binding
        binding.bind_ortvalue_input("input_ids", _value(ids))
        binding.bind_ortvalue_input("attention_mask", _value(mask))
        for name in self._names:
            binding.bind_output(name, CPU)
        begin = perf_counter_ns()
        self._session.run_with_iobinding(binding, None)
        run_ns = perf_counter_ns() - begin
        values = binding.get_outputs()
        return {name: values[i] for i, name in enumerate(self._names)}, run_ns


class _Step:
    """A `Step` with everything bound: token, position, logits and caches are arrays that the session reads and writes
    in place, the same ones in every step.

    The objects below onnxruntime's Python wrappers are used: the wrappers cost as much again as what they wrap, a few
    percent of a step.
    """

    logits: Floats

    def __init__(self, session: ort.InferenceSession, tensors: Tensors) -> None:
        self._session = session._sess
        self._binding = session.io_binding()._iobinding
        self._inputs = {port.name for port in tensors.inputs}
        past = [port for port in tensors.inputs if "cache" in port.shape]
        self._ports = list(zip(past, tensors.outputs[1:], strict=True))
        self._logits = tensors.outputs[0]
        self._batch = 0
        self._position = np.zeros(1, dtype=np.int64)
        self._bind("position", self._position)

    def start(self, encoded: Mapping[str, Any], batch: int) -> None:
        if batch != self._batch:
            self._allocate(batch)
        self._copies = []  # kept: the session reads them in place
        for name, value in encoded.items():
            if name in self._inputs and value.shape()[0] == batch:
                self._binding.bind_ortvalue_input(name, value)
            elif name in self._inputs:
                self._copies.append(np.repeat(value.numpy(), batch // value.shape()[0], axis=0))
                self._bind(name, self._copies[-1])

    def run(self, position: int, token: int | Ints) -> int:
        if position == self._room:
            self._make_room(2 * self._room)
        self._token[:] = token
        self._position[0] = position
        begin = perf_counter_ns()
        self._session.run_with_iobinding(self._binding, None)
        return perf_counter_ns() - begin

    def reorder(self, rows: Sequence[int]) -> None:
        filled = int(self._position[0]) + 1
        for cache in self._caches:
            cache[:, :, :filled] = cache[list(rows), :, :filled]

    def _allocate(self, batch: int) -> None:
        self._batch, self._caches = batch, list[Floats]()
        self._token = np.zeros(batch, dtype=np.int64)
        self.logits = np.zeros((batch, int(self._logits.shape[1])), dtype=np.float32)
        self._bind("token", self._token)
        self._binding.bind_ortvalue_output(self._logits.name, _value(self.logits))
        self._make_room(ROOM)

    def _make_room(self, room: int) -> None:
        """Give the caches room for more positions; what is in them stays."""
        self._room, old = room, self._caches
        sizes: dict[int | str, int] = {"batch": self._batch, "cache": room}
        shapes = [[sizes[s] if isinstance(s, str) else s for s in port.shape] for port, _ in self._ports]
        self._caches = [np.zeros(shape, dtype=np.float32) for shape in shapes]
        for cache, before in zip(self._caches, old, strict=False):  # none before the first time
            cache[:, :, : before.shape[2]] = before
        for (past, present), cache in zip(self._ports, self._caches, strict=True):
            value = _value(cache)
            self._binding.bind_ortvalue_input(past.name, value)
            self._binding.bind_ortvalue_output(present.name, value)

    def _bind(self, name: str, array: npt.NDArray[Any]) -> None:
        self._binding.bind_ortvalue_input(name, _value(array))


def count_nodes(graph: str | Path) -> dict[str, int]:
    """Return operator -> count of an ONNX file as ONNX Runtime runs it, after all its optimisations."""
    import onnx  # only here: running an artefact needs no onnx

    with tempfile.TemporaryDirectory() as folder:
        options = _options(1)
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node
    return dict(Counter(node.op_type for node in nodes))


def session(path: Path, threads: int) -> ort.InferenceSession:
    """Open an ONNX file as everything here runs one."""
    return ort.InferenceSession(str(path), _options(threads), providers=["CPUExecutionProvider"])


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only
    return options


def _value(array: npt.NDArray[Any]) -> Any:
    """A view of `array` (which must outlive it) as the object that bindings take."""
    return OrtValue.ortvalue_from_numpy(array, CPU)
