"""The measures of quality that a report knows: one row of `METRICS` each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """How a report names, scales, rounds and tests one measure of quality.

    `score` and `loss` are fields of `Row`; multiplied by their scales they are in the units that readers see.
    `tolerated` are the losses, in the unit of the change, within which the fastest model is named.
    """

    label: str
    score: str
    loss: str
    scale: float
    loss_scale: float
    text: str
    change: str
    change_heading: str
    axis: str
    tolerated: tuple[float, float]
    within: str
    test: str
    model: str
    item: str
    title: str

    def value(self, row: Any) -> float | None:
        """Return the score of a row as readers see it."""
        score = getattr(row, self.score)
        return None if score is None else self.scale * score

    def lost(self, row: Any) -> float | None:
        """Return the loss of a row against the dense model as readers see it; negative where the row is better."""
        loss = getattr(row, self.loss)
        return None if loss is None else self.loss_scale * loss

    def value_text(self, row: Any) -> str:
        """Return the score of a row, rounded, with its unit."""
        return self.text.format(self.value(row))

    def change_text(self, row: Any) -> str:
        """Return the change of a row against the dense model, signed, with its unit."""
        return signed(self.change, 0.0 - (self.lost(row) or 0.0))


METRICS = (
    Metric(
        label="BLEU", score="bleu", loss="bleu_loss_percent", scale=1, loss_scale=1, text="{:.2f}", change="{:+.1f} %",
        change_heading="BLEU change", axis="BLEU", tolerated=(1.0, 8.0), within="{} % BLEU loss",
        test="paired bootstrap", model="model", item="sentence", title="Pruned Marian models: quality and speed",
    ),
    Metric(
        label="accuracy", score="accuracy", loss="accuracy_loss", scale=100, loss_scale=100, text="{:.2f} %",
        change="{:+.2f} points", change_heading="change (points)", axis="accuracy (%)", tolerated=(0.5, 1.2),
        within="{} points of accuracy", test="McNemar's exact test", model="network", item="image",
        title="Compressed image networks: accuracy and speed",
    ),
)  # fmt: skip
BLEU, ACCURACY = METRICS
SIGNIFICANT = 0.05  # the p-value below which a difference is called significant


def of(rows: Iterable[Any]) -> Metric:
    """Return the metric of these rows: the one that a row has a score of, otherwise BLEU."""
    rows = list(rows)
    return next((one for one in reversed(METRICS) if any(one.value(row) is not None for row in rows)), BLEU)


def signed(pattern: str, value: float) -> str:
    """Return a number with its sign, the minus as typography has it."""
    return pattern.format(value).replace("-", "−")
