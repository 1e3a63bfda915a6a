"""The Pareto figure as PNG: BLEU or accuracy against speed-up, one mark a row, and the range that TPrune claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.patches import Rectangle
from matplotlib.ticker import FormatStrFormatter

from tprune.bench.report import metrics, palette
from tprune.bench.report.palette import LIGHT, Look
from tprune.bench.report.row import Row

BAND = (1.16, 1.92, 0.0, 8.0)  # speed-up from, to; BLEU loss in percent from, to (TPrune's abstract)
BAND_LABEL = "TPrune paper's own claim on its phones\n1.16–1.92x at 0–8 % loss (other hardware)"
PLACES = ((7, 6), (7, -12), (-7, 6), (-7, -12), (0, 12), (0, -18), (18, 0), (-18, 0), (16, 16), (-16, 16), (16, -22))


def points(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that can be drawn: those with a quality and a measured speed-up."""
    return [row for row in rows if row.speedup is not None and row.metric.value(row) is not None]


def position(row: Row) -> tuple[float, float]:
    """Return where a row of `points` is drawn: speed-up and score."""
    return (row.speedup or 0.0, row.metric.value(row) or 0.0)


def front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other row beats in both quality and speed-up, slowest first."""
    best: list[Row] = []
    for row in sorted(points(rows), key=lambda row: (-position(row)[0], -position(row)[1])):
        if not best or position(row)[1] > position(best[-1])[1]:
            best.append(row)
    return best[::-1]


def band(rows: Sequence[Row]) -> tuple[float, float, float, float] | None:
    """Return left, right, bottom and top of TPrune's claim relative to our dense BLEU; None without that."""
    dense = [row.bleu for row in rows if row.dense and row.bleu is not None]
    left, right, least, most = BAND
    return (left, right, dense[0] * (1 - most / 100), dense[0] * (1 - least / 100)) if dense else None


def name(row: Row) -> str:
    """Return the text beside a mark: the kept share, or the name of a dense model or an image network."""
    if row.dense or row.keep is None or row.accuracy is not None:
        return "dense" if row.dense else row.name
    return f"{100 * row.keep:.0f} %"


def pareto(rows: Sequence[Row], look: Look = LIGHT) -> bytes:
    """Return the figure as PNG bytes; ValueError when no row has both a quality and a speed-up."""
    shown = points(rows)
    if not shown:
        raise ValueError("pareto: no row has both BLEU or accuracy and a measured speed-up")
    metric = metrics.of(shown)
    figure, axes = palette.canvas(look)
    claim = None
    if box := band(shown):
        left, right, bottom, top = box
        patch = Rectangle((left, bottom), right - left, top - bottom, color="#8c7ae6", alpha=0.13, lw=0, zorder=0)
        axes.add_patch(patch)
        style: Any = {"va": "bottom", "ha": "left", "fontsize": 7.5, "color": look.ink, "alpha": 0.75, "zorder": 1}
        claim = axes.text(left + 0.01, bottom, BAND_LABEL, **style)
    line = [position(row) for row in front(shown)]
    axes.plot(*zip(*line, strict=True), "--", lw=1, color=look.ink, alpha=0.6, label="Pareto front", zorder=2)
    for criterion, (marker, colour) in palette.marks(row.criterion for row in shown).items():
        own = [row for row in shown if (row.criterion or "unknown") == criterion]
        x, y = zip(*map(position, own), strict=True)
        spread = [
            [max(0.0, at - (row.speedup_low or at)) for row, at in zip(own, x, strict=True)],
            [max(0.0, (row.speedup_high or at) - at) for row, at in zip(own, x, strict=True)],
        ]
        axes.errorbar(
            x, y, xerr=spread, fmt=marker, color=colour, ecolor=colour, elinewidth=1.2, capsize=3,
            markersize=13 if criterion == "dense" else 7.5, markeredgecolor=look.paper, markeredgewidth=0.7,
            label=criterion, zorder=3,
        )  # fmt: skip
    axes.set_xlabel(f"speed-up over the dense {metric.model} (bars: 95 % interval)", color=look.ink)
    axes.set_ylabel(metric.axis, color=look.ink)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%gx"))
    axes.margins(0.08)
    palette.legend(figure, look, 4 if look.width > 6 else 3, fontsize=8.5)
    _labels(axes, shown, figure.canvas, look, [claim] if claim else [])
    return palette.png(figure, look)


def _labels(axes: Any, rows: Sequence[Row], canvas: Any, look: Look, texts: Sequence[Any]) -> None:
    """Write a name beside each mark where it covers no other mark, label or text, and nowhere if there is no room."""
    canvas.draw()
    along = [  # points on every mark's error bar
        (low + part / 8 * (high - low), position(row)[1])
        for row in rows
        for low, high in [(row.speedup_low or position(row)[0], row.speedup_high or position(row)[0])]
        for part in range(9)
    ]
    marks = axes.transData.transform(along + [position(row) for row in rows])
    frame = axes.get_window_extent()
    taken: list[Any] = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    for row in sorted(rows, key=lambda row: -position(row)[1]):
        for across, up in PLACES:
            label = axes.annotate(
                name(row), position(row), (across, up), textcoords="offset points", fontsize=8,
                ha="left" if across > 0 else "right" if across < 0 else "center", color=look.ink,
            )  # fmt: skip
            box = label.get_window_extent(canvas.get_renderer())
            around = box.expanded(1.05, 1.1)
            free = not any(around.contains(*mark) for mark in marks) and not any(around.overlaps(old) for old in taken)
            if free and box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1:
                taken.append(box)
                break
            label.remove()
