"""The Pareto figure: BLEU or accuracy against speed-up, one mark a row, and the range that TPrune claims.

`chart` lays it out once: the template `page.html.j2` writes the layout as SVG, `pareto` draws it as PNG.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.patches import Rectangle

from tprune.base.significance import p_text
from tprune.bench.report import metrics, palette, table
from tprune.bench.report.palette import LIGHT, Look
from tprune.bench.report.row import Row, counted

CLAIM = (1.16, 1.92, 0.0, 8.0)  # speed-up from, to; BLEU loss in percent from, to (TPrune's abstract)
LETTER, LINE = 6.4, 14.0  # estimated size of a label's letters, in pixels
PLACES = ((9, -8), (9, 14), (-9, -8), (-9, 14), (0, -13), (0, 20), (13, 4), (-13, 4))  # of a label beside its mark
SIZES = ((860.0, 440.0, "wide"), (360.0, 360.0, "narrow"))  # for the widths of a page
Box = tuple[float, float, float, float]  # left, right, top, bottom in pixels


@dataclass(frozen=True)
class Mark:
    """One row in the figure; `low` and `high` are the ends of its bar, `label` is empty where there is no room."""

    x: float
    y: float
    low: float
    high: float
    criterion: str
    shape: str
    colour: str
    lines: Sequence[str]
    tags: Mapping[str, str]
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True)
class Drawing:
    """The figure for one width of the page, in pixels."""

    kind: str
    width: float
    height: float
    frame: Box
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    marks: Sequence[Mark]
    fronts: Sequence[tuple[Sequence[tuple[float, float]], Mapping[str, str]]]
    claim: Box | None


@dataclass(frozen=True)
class Chart:
    """The figure in several sizes, its axis titles and its legend: criterion -> (marker, colour)."""

    drawings: Sequence[Drawing]
    x_title: str
    y_title: str
    legend: Mapping[str, tuple[str, str]]
    caption: str


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


def chart(groups: Sequence[Sequence[Row]], sizes: Sequence[tuple[float, float, str]] = SIZES) -> Chart:
    """Return the figure of groups of comparable rows, each with its own Pareto front."""
    rows = [row for own in groups for row in own]
    metric = metrics.of(rows)
    drawings = [_drawing(groups, *size) for size in sizes]
    caption = "Each mark is a row of the tables below that has both a score and a speed-up."
    caption += " Dashed: Pareto front." if any(len(line) > 1 for one in drawings for line, _ in one.fronts) else ""
    caption += " Bars: 95 % interval of the speed-up."
    if any(one.claim for one in drawings):
        left, right, least, most = CLAIM
        caption += (
            f" Shaded: the range that the TPrune paper claims on its own phones, {left}–{right}x at {least:g}–{most:g} "
            "% BLEU loss. That is other hardware, other models and other data, so it is no comparison."
        )
    legend = palette.marks(row.criterion for row in rows)
    return Chart(drawings, f"speed-up over the dense {metric.model}", metric.axis, legend, caption)


def _drawing(groups: Sequence[Sequence[Row]], width: float, height: float, kind: str) -> Drawing:
    rows = [row for own in groups for row in own]
    frame = left, right, top, bottom = (52.0, width - 16, 14.0, height - 46)
    x_low, x_high = _margin([end for row in rows if (gain := row.gain) for end in (gain.low, gain.high)])
    y_low, y_high = _margin([position(row)[1] for row in rows])

    def x(value: float) -> float:
        return round(left + (min(max(value, x_low), x_high) - x_low) / (x_high - x_low) * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - (min(max(value, y_low), y_high) - y_low) / (y_high - y_low) * (bottom - top), 1)

    styles, marks = palette.marks(row.criterion for row in rows), []
    for row in rows:
        (speedup, score), gain, criterion = position(row), row.gain, row.criterion or "unknown"
        ends = (x(gain.low), x(gain.high)) if gain else (x(speedup), x(speedup))
        marks.append(Mark(x(speedup), y(score), *ends, criterion, *styles[criterion], lines(row), row.tags))
    fronts = [([(x(at[0]), y(at[1])) for at in map(position, front(own))], own[0].tags) for own in groups]
    dense = [row.bleu for row in groups[0] if row.dense and row.bleu is not None]
    least, most = (1 - loss / 100 for loss in CLAIM[2:])
    claim = (x(CLAIM[0]), x(CLAIM[1]), y(dense[0] * least), y(dense[0] * most)) if dense else None
    return Drawing(
        kind, width, height, frame,
        [(x(tick), f"{tick:g}x") for tick in _ticks(x_low, x_high, 8 if width > 500 else 4)],
        [(y(tick), f"{tick:g}") for tick in _ticks(y_low, y_high, 6)],
        _labelled(marks, list(map(_name, rows)), frame), fronts,
        claim if claim and claim[1] > claim[0] and claim[3] > claim[2] else None,
    )  # fmt: skip


def lines(row: Row) -> list[str]:
    """Return the text of a mark: model, quality, latency, speed-up, size, setting."""
    metric = row.metric
    score = f"{metric.label} {metric.value_text(row)}"
    if not row.dense and metric.lost(row) is not None:
        p = f", {p_text(row.p_value)}" if row.p_value is not None else ""
        score += f" ({metric.change_text(row)}{p})"
    found = [row.label, score]
    if row.median_ms is not None and row.details:
        interval = f"{row.details.median_low_ms:.2f}–{row.details.median_high_ms:.2f}"
        found.append(f"median latency {row.median_ms:.2f} ms (95 % interval {interval})")
    if row.gain and not row.dense:
        found.append(f"speed-up {row.gain.ratio:.2f}x (95 % interval {row.gain.low:.2f}–{row.gain.high:.2f})")
    if row.bytes is not None:
        found.append(f"size {table.decimals(row.bytes / 1e6, 1)} MB")
    return [*found, f"{row.device}, {row.runtime} {row.precision}, {counted(row.threads, 'thread')}, {row.search}"]


def _name(row: Row) -> str:
    """Return the text beside a mark: the kept share, or the name of a dense model or an image network."""
    if row.dense or row.keep is None or row.accuracy is not None:
        return "dense" if row.dense else row.name
    return f"{100 * row.keep:.0f} %"


def _margin(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that shows these values with some room around them."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` round numbers between the ends."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most)
    return [round(step * place, 10) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _labelled(marks: Sequence[Mark], names: Sequence[str], frame: Box) -> list[Mark]:
    """Return the marks with labels where those cover no other mark, bar or label."""
    taken: list[Box] = [(mark.x - 6, mark.x + 6, mark.y - 6, mark.y + 6) for mark in marks]
    taken += [(mark.low, mark.high, mark.y - 2, mark.y + 2) for mark in marks]
    found = []
    for mark, name in zip(marks, names, strict=True):
        width = LETTER * len(name)
        for across, down in PLACES:
            x, y = mark.x + across, mark.y + down
            start = x if across > 0 else x - width if across < 0 else x - width / 2
            box = (start, start + width, y - LINE + 3, y + 3)
            inside = box[0] >= frame[0] and box[1] <= frame[1] and box[2] >= frame[2] and box[3] <= frame[3]
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                anchor = "start" if across > 0 else "end" if across < 0 else "middle"
                mark = replace(mark, label=name, label_x=x, label_y=y, anchor=anchor)
                break
        found.append(mark)
    return found


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def pareto(rows: Sequence[Row], look: Look = LIGHT) -> bytes:
    """Return the figure as PNG bytes; ValueError when no row has both a quality and a speed-up."""
    shown = points(rows)
    if not shown:
        raise ValueError("pareto: no row has both BLEU or accuracy and a measured speed-up")
    whole = chart([shown], [(100 * look.width, 100 * look.height, "png")])
    one = whole.drawings[0]
    figure, axes = palette.canvas(look)
    axes.set(xlim=one.frame[:2], ylim=one.frame[:1:-1], ylabel=whole.y_title)
    axes.set_xlabel(f"{whole.x_title} (bars: 95 % interval)")
    for axis, ticks in ((axes.xaxis, one.x_ticks), (axes.yaxis, one.y_ticks)):
        axis.set_ticks(*zip(*ticks, strict=True))
        axis.label.set_color(look.ink)
    if one.claim:
        left, right, top, bottom = one.claim
        label = f"TPrune paper's claim: {CLAIM[0]}–{CLAIM[1]}x at {CLAIM[2]:g}–{CLAIM[3]:g} % loss (other hardware)"
        box: dict[str, Any] = {"color": "#8c7ae6", "alpha": 0.13, "lw": 0, "zorder": 0, "label": label}
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, **box))
    if len(line := one.fronts[0][0]) > 1:
        axes.plot(*zip(*line, strict=True), "--", lw=1, color=look.ink, alpha=0.6, label="Pareto front", zorder=2)
    sides = {"start": "left", "end": "right", "middle": "center"}
    for criterion, (marker, colour) in whole.legend.items():
        own = [mark for mark in one.marks if mark.criterion == criterion]
        style = {"ms": 13 if criterion == "dense" else 7.5, "mec": look.paper, "mew": 0.7, "zorder": 4}
        axes.plot([mark.x for mark in own], [mark.y for mark in own], marker, color=colour, label=criterion, **style)
        for mark in own:
            axes.plot((mark.low, mark.high), (mark.y, mark.y), "|-", color=colour, lw=1.2, ms=6, zorder=3)
            text = {"ha": sides[mark.anchor], "fontsize": 8, "color": look.ink}
            axes.text(mark.label_x, mark.label_y, mark.label, **text)
    palette.legend(figure, look, 4 if look.width > 6 else 3, fontsize=8.5)
    return palette.png(figure, look)
