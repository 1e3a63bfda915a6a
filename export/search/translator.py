"""Run an open translation artefact, whatever its runtime: greedy and beam search over an encoder and a step.

Token ids in, token ids out: the ids end with `</s>` where one was produced, hold no start token and never `<pad>`.
`max_length` includes the start token, as in HF `generate`. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np

from tprune.base.errors import BadInput
from tprune.export.manifest import Manifest, Scoring, Special
from tprune.export.search import batch
from tprune.export.search.batch import Floats, Ints, Step
from tprune.export.search.beam import Beams


@dataclass(frozen=True)
class Decoded:
    """One translated sentence: its ids and timings.

    `encoder_ns`: from ids in to cross keys and values bound. `step_ns`: each decoder step, including the choice of the
    token. `run_ns`: time inside the runtime, both graphs. `total_ns`: from ids in to ids out.
    """

    ids: tuple[int, ...]
    encoder_ns: int
    step_ns: tuple[int, ...]
    run_ns: int
    total_ns: int

    @property
    def steps(self) -> int:
        """The number of decoder steps."""
        return len(self.step_ns)


class Encoder(Protocol):
    """An encoder graph opened by a runtime."""

    def run(self, ids: Ints, mask: Ints) -> tuple[dict[str, Any], int]:
        """Encode ids (batch, source); return output name -> value for `Step.start`, and ns inside the runtime."""


class Translator:
    """Search loops over an open encoder and decoder step. Not thread-safe."""

    def __init__(self, manifest: Manifest, threads: int, encoder: Encoder, step: Step) -> None:
        self.manifest = manifest
        self.threads = threads
        self._encoder = encoder
        self._step = step
        # With a trimmed vocabulary the output matrix has fewer rows; decoder tokens are row numbers.
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
        """Pad and encode a batch of sources; return output name -> array (mask, cross keys and values)."""
        return {name: value.numpy() for name, value in self._encode(sources)[0].items()}

    def greedy(self, ids: Sequence[int], max_length: int | None = None) -> Decoded:
        """Translate one sentence by greedy search."""
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
        """Translate one sentence with beam search; None takes the checkpoint's setting."""
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
        """Translate many sentences in batches of similar length; one beam is greedy search.

        Return ids in the order of the sources. They equal those of `greedy` and `beam` up to rounding: batched products
        differ in their last bits, which can change the winner between two translations of almost the same score.
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
        """Return teacher-forced logits (len(target), target vocabulary).

        With a trimmed vocabulary the columns end at the last kept id, and dropped tokens have -inf.
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
        """Return output name -> value for the step, and ns inside the runtime."""
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
