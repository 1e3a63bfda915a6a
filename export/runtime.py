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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is loaded, or it writes a device id into the home folder
import onnxruntime as ort  # noqa: E402
from onnxruntime.capi.onnxruntime_pybind11_state import OrtValue  # noqa: E402

from export.beam import Beams  # noqa: E402
from export.manifest import GRAPHS, Manifest, Special, Tensors  # noqa: E402
from tprune.errors import BadInput  # noqa: E402

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CPU = ort.OrtDevice.make("cpu", 0)._get_c_device()


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
    """Open an ONNX artefact; its files are checked against the manifest first. Raises BadInput for a damaged one."""
    if threads < 1:
        raise BadInput(f"threads must be at least 1, not {threads}")
    manifest = Manifest.read(folder)
    if manifest.runtime != "onnxruntime":
        raise BadInput(f"{str(folder)!r} is for {manifest.runtime}; this opens onnxruntime artefacts only")
    manifest.check_files(folder)
    encoder, step = (_session(Path(folder) / GRAPHS[name], threads) for name in ("encoder", "decoder_step"))
    tensors = manifest.tensors
    return Artefact(manifest, threads, _Encoder(encoder, tensors["encoder"]), _Step(step, tensors["decoder_step"]))


class Encoder(Protocol):
    """An encoder graph, opened by some runtime."""

    def run(self, ids: Ints, mask: Ints) -> tuple[dict[str, Any], int]:
        """Encode (batch, source) ids: (output name -> value for `Step.start`, ns inside the runtime)."""


class Step(Protocol):
    """A decoder graph with its cache, opened by some runtime. `logits` is one array (batch, vocabulary) for a batch."""

    logits: Floats

    def start(self, encoded: Mapping[str, Any], batch: int) -> None:
        """Begin `batch` new sentences with empty caches; what one encoded sentence gave serves all of them."""

    def run(self, position: int, token: int | Ints) -> int:
        """Run one step: `logits` are new, the cache has grown. Returns ns inside the runtime."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Let row i of the cache be what row `rows[i]` was (beam search)."""


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
        logits, eos, forced = step.logits, special.eos, special.forced_eos
        token, output, times = special.start, list[int](), list[int]()
        encoder_ns = perf_counter_ns() - begin
        last = begin + encoder_ns
        for position in range(last_position + 1):
            run_ns += step.run(position, token)
            token = int(logits.argmax()) if forced is None or position < last_position else forced
            output.append(token)
            now = perf_counter_ns()
            times.append(now - last)
            last = now
            if token == eos:
                break
        return Decoded(self._tokens(output), encoder_ns, tuple(times), run_ns, last - begin)

    def greedy_batch(
        self, sources: Sequence[Sequence[int]], max_length: int | None = None
    ) -> tuple[tuple[int, ...], ...]:
        """Translate sentences together, padded to the longest; the same ids as `greedy` up to rounding."""
        last_position = self._limit(max_length) - 2
        special, step = self._special, self._step
        step.start(self._encode(sources)[0], len(sources))
        tokens = np.full(len(sources), special.start, dtype=np.int64)
        outputs: list[list[int]] = [[] for _ in sources]
        left = set(range(len(sources)))
        for position in range(last_position + 1):
            step.run(position, tokens)
            tokens = step.logits.argmax(axis=1)
            if special.forced_eos is not None and position == last_position:
                tokens[:] = special.forced_eos
            for row in sorted(left):
                outputs[row].append(int(tokens[row]))
            left -= {row for row in left if tokens[row] == special.eos}
            if not left:
                break
        return tuple(map(self._tokens, outputs))

    def beam(
        self, ids: Sequence[int], beams: int, max_length: int | None = None, *, early_stopping: bool = False
    ) -> tuple[int, ...]:
        """Translate one sentence with beam search (length penalty 1); a reference, not built for speed.

        Agrees with HF `generate` except that HF lets `<pad>` take its share of the probability before forbidding it.
        """
        if beams < 1:
            raise BadInput(f"beams must be at least 1, not {beams}")
        limit, special, step = self._limit(max_length), self._special, self._step
        step.start(self._encode([ids])[0], beams)
        search = Beams(beams, special.eos, limit, early_stopping)
        tokens = np.full(beams, special.start, dtype=np.int64)
        for position in range(limit - 1):
            step.run(position, tokens)
            log_probs = _log_softmax(step.logits)
            if special.forced_eos is not None and position == limit - 2:
                log_probs[:] = -np.inf
                log_probs[:, special.forced_eos] = 0.0
            parents, goes_on = search.advance(log_probs)
            if not goes_on:
                break
            step.reorder(parents)
            tokens = np.array([hypothesis[-1] for hypothesis in search.running], dtype=np.int64)
        return self._tokens(search.best())

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
    """A `Step` with everything bound. The cache never leaves ONNX Runtime: a step's outputs are bound as the
    next step's inputs; token, position and logits are arrays that the session reads and writes in place.

    The objects below onnxruntime's Python wrappers are used: the wrappers cost as much again as what they wrap, a few
    percent of a step.
    """

    logits: Floats

    def __init__(self, session: ort.InferenceSession, tensors: Tensors) -> None:
        self._session = session._sess
        self._binding = session.io_binding()._iobinding
        self._inputs = {port.name for port in tensors.inputs}
        self._past = [port for port in tensors.inputs if "past" in port.shape]
        self._logits = tensors.outputs[0]
        # (place among the outputs, name there, name among the inputs of the next step)
        present = enumerate(tensors.outputs[1:], start=1)
        self._links = [(i, port.name, past.name) for (i, port), past in zip(present, self._past, strict=True)]
        self._batch = 0
        self._position = np.zeros(1, dtype=np.int64)
        self._bind("position", self._position)

    def start(self, encoded: Mapping[str, Any], batch: int) -> None:
        if batch != self._batch:
            self._allocate(batch)
        bind = self._binding.bind_ortvalue_input
        self._copies = []  # kept: the session reads them in place
        for name, value in encoded.items():
            if name in self._inputs and value.shape()[0] == batch:
                bind(name, value)
            elif name in self._inputs:
                self._copies.append(np.repeat(value.numpy(), batch, axis=0))
                self._bind(name, self._copies[-1])
        for (_, output, following), empty in zip(self._links, self._empty, strict=True):
            bind(following, empty)
            self._binding.bind_output(output, CPU)

    def run(self, position: int, token: int | Ints) -> int:
        self._token[:] = token
        self._position[0] = position
        binding = self._binding
        begin = perf_counter_ns()
        self._session.run_with_iobinding(binding, None)
        run_ns = perf_counter_ns() - begin
        bind_input, bind_output = binding.bind_ortvalue_input, binding.bind_output
        values, self._grown = binding.get_outputs(), []
        for i, output, following in self._links:
            value = values[i]
            bind_input(following, value)
            bind_output(output, CPU)
            self._grown.append(value)
        return run_ns

    def reorder(self, rows: Sequence[int]) -> None:
        self._chosen = [value.numpy()[list(rows)] for value in self._grown]  # kept: the session reads them in place
        for port, array in zip(self._past, self._chosen, strict=True):
            self._bind(port.name, array)

    def _allocate(self, batch: int) -> None:
        self._batch = batch
        self._token = np.zeros(batch, dtype=np.int64)
        self.logits = np.zeros((batch, int(self._logits.shape[1])), dtype=np.float32)
        sizes: dict[int | str, int] = {"batch": batch, "past": 0}
        shapes = [[sizes[s] if isinstance(s, str) else s for s in port.shape] for port in self._past]
        self._empty = [_value(np.zeros(shape, dtype=np.float32)) for shape in shapes]  # nothing in them to be kept
        self._bind("token", self._token)
        self._binding.bind_ortvalue_output(self._logits.name, _value(self.logits))

    def _bind(self, name: str, array: npt.NDArray[Any]) -> None:
        self._binding.bind_ortvalue_input(name, _value(array))


def count_nodes(graph: str | Path) -> dict[str, int]:
    """Return operator -> count of an ONNX file as ONNX Runtime runs it, after all its optimisations."""
    import onnx  # only here: running an artefact needs no onnx

    with tempfile.TemporaryDirectory() as folder:
        options = _options(1)
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return dict(Counter(node.op_type for node in nodes))


def _session(path: Path, threads: int) -> ort.InferenceSession:
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


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
