"""`Beams`: the state of one sentence's beam search, with the result of HF `generate(num_beams=k)`.

No sampling. A hypothesis ends with `</s>` or at the length limit; its score is the sum of its log probabilities divided
by its length, the start token not counted, to the power of the length penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

LOST = -1.0e9  # the score of an empty place
GROUP = 64  # `_top` first compares the maxima of groups of this size


@dataclass
class Beams:
    """The running and the finished hypotheses of one sentence: `width` of each, best first."""

    width: int
    eos: int
    limit: int  # maximum ids of a hypothesis, with the start token
    length_penalty: float = 1.0
    early_stopping: bool | str = False  # True: stop at `width` finished ones; "never": HF's bound
    running: list[tuple[int, ...]] = field(init=False)
    scores: npt.NDArray[np.float32] = field(init=False)
    finished: list[tuple[float, tuple[int, ...], bool]] = field(init=False)
    improvable: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.running = [()] * self.width
        self.scores = np.full(self.width, LOST, dtype=np.float32)  # all beams start equal: use the first only
        self.scores[0] = 0.0
        self.finished = [(LOST, (), False)] * self.width

    def advance(self, log_probs: npt.NDArray[np.float32]) -> tuple[list[int], bool]:
        """Take log probabilities (width, vocabulary); return the parent of each new running beam, and whether to go on.

        Considers twice as many candidates as beams, so that enough are left when some of them end.
        """
        length = len(self.running[0]) + 1  # ids a candidate has
        totals = (log_probs + self.scores[:, None]).ravel()
        best = _top(totals, 2 * self.width)
        parents, tokens = np.divmod(best, log_probs.shape[1])
        grown = [(*self.running[parent], int(token)) for parent, token in zip(parents, tokens, strict=True)]
        ended = np.array([length + 1 >= self.limit or ids[-1] == self.eos for ids in grown])
        open_scores = totals[best] + np.where(ended, np.float32(LOST), np.float32(0.0))
        keep = _top(open_scores, self.width)
        self._finish(grown, totals[best] / self._divisor(length), ended)
        self.running, self.scores = [grown[i] for i in keep], open_scores[keep]
        return [int(parents[i]) for i in keep], self._goes_on(length, bool(ended.all()))

    def best(self) -> tuple[int, ...]:
        """Return the ids of the best finished hypothesis, without the start token."""
        return self.finished[0][1]

    def _finish(
        self, grown: list[tuple[int, ...]], scores: npt.NDArray[np.float32], ended: npt.NDArray[np.bool_]
    ) -> None:
        """Keep the best `width` of the finished ones and those of the top `width` candidates that have just ended."""
        if not self.improvable or (self.early_stopping is True and all(done for _, _, done in self.finished)):
            return
        new = [(float(scores[i]), grown[i], True) for i in range(self.width) if ended[i]]
        self.finished = sorted([*self.finished, *new], key=lambda found: -found[0])[: self.width]

    def _goes_on(self, length: int, all_ended: bool) -> bool:
        full = all(done for _, _, done in self.finished)
        worst = min(score for score, _, _ in self.finished) if full else LOST
        # HF compares with the worst place even when it is empty, and then any running beam can improve
        patient = self.early_stopping == "never" and self.length_penalty > 0
        hoped_for = self.scores[0] / self._divisor(self.limit - 1 if patient else length)
        self.improvable = self.improvable and bool(hoped_for > worst)
        return self.improvable and not (full and self.early_stopping is True) and not all_ended

    def _divisor(self, length: int) -> np.float32:
        return np.float32(length**self.length_penalty)


def _top(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Return the indices of the `count` largest values, largest first; the lower index wins a tie."""
    whole = values.size // GROUP
    if whole <= count:
        return np.argsort(-values, kind="stable")[:count]
    # `count` groups have a maximum of at least the threshold, so smaller values are not among the largest.
    largest = values[: whole * GROUP].reshape(whole, GROUP).max(axis=1)
    (part,) = np.nonzero(values >= np.partition(largest, whole - count)[whole - count])
    return part[np.argsort(-values[part], kind="stable")[:count]]
