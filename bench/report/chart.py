"""The interactive figure of a page: positions, texts and colours of an SVG; the template `page.html.j2` writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tprune.bench.report import figures, metrics, palette, table
from tprune.bench.report.row import Row, counted

SHAPES = {  # matplotlib's marker -> SVG path around 0, 0
    "o": "M-5.2 0a5.2 5.2 0 1 0 10.4 0a5.2 5.2 0 1 0-10.4 0z",
    "s": "M-4.8-4.8h9.6v9.6h-9.6z",
    "^": "M0-6L5.8 4.6H-5.8z",
    "D": "M0-6.4L6.4 0L0 6.4L-6.4 0z",
    "X": "M-5.8-3L-3-5.8L0-2.8L3-5.8L5.8-3L2.8 0L5.8 3L3 5.8L0 2.8L-3 5.8L-5.8 3L-2.8 0z",
    "P": "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "*": "M0-9L2.3-3H8.6L3.6 1L5.4 7.2L0 3.6L-5.4 7.2L-3.6 1L-8.6-3H-2.3z",
}
LETTER, LINE = 6.4, 14.0  # estimated size of a label's letters, in pixels
PLACES = ((9, -8), (9, 14), (-9, -8), (-9, 14), (0, -13), (0, 20), (13, 4), (-13, 4))
MARGINS = (52.0, 16.0, 14.0, 46.0)  # left, right, top, bottom
SIZES = ((860.0, 440.0, "wide"), (360.0, 360.0, "narrow"))


@dataclass(frozen=True)
class Mark:
    """One row in the figure; `label` is empty where it would cover something."""

    x: float
    y: float
    low: float
    high: float
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
    """The figure for one width of the page, in pixels; `band` is x, y, width and height."""

    kind: str
    width: float
    height: float
    frame: tuple[float, float, float, float]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    marks: Sequence[Mark]
    fronts: Sequence[tuple[str, Mapping[str, str]]]
    band: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Chart:
    """The figure in two widths, its axis titles and its legend of (name, shape, colour)."""

    drawings: Sequence[Drawing]
    x_title: str
    y_title: str
    legend: Sequence[tuple[str, str, str]]
    caption: str


def chart(groups: Sequence[Sequence[Row]]) -> Chart:
    """Return the figure of groups of comparable rows, each with its own Pareto front."""
    rows = [row for own in groups for row in own]
    metric = metrics.of(rows)
    drawings = [_drawing(groups, *size) for size in SIZES]
    caption = "Each mark is one row of the tables below. Dashed: Pareto front. Bars: 95 % interval of the speed-up."
    if drawings[0].band:
        left, right, least, most = figures.BAND
        caption += (
            f" Shaded: the range that the TPrune paper claims on its own phones, {left}–{right}x at {least:g}–{most:g} "
            "% BLEU loss. That is other hardware, other models and other data, so it is no comparison."
        )
    legend = [(name, SHAPES[marker], colour) for name, (marker, colour) in _styles(rows).items()]
    return Chart(drawings, f"speed-up over the dense {metric.model}", metric.axis, legend, caption)


def _styles(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    return palette.marks(row.criterion for row in rows)


def _drawing(groups: Sequence[Sequence[Row]], width: float, height: float, kind: str) -> Drawing:
    rows = [row for own in groups for row in own]
    left, right, top, bottom = MARGINS[0], width - MARGINS[1], MARGINS[2], height - MARGINS[3]
    ends = [end for row in rows if (gain := row.gain) for end in (gain.low, gain.high)]
    x_low, x_high = _margin(ends)
    y_low, y_high = _margin([figures.position(row)[1] for row in rows])

    def x(value: float) -> float:
        return round(left + (value - x_low) / (x_high - x_low) * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - (value - y_low) / (y_high - y_low) * (bottom - top), 1)

    styles, marks = _styles(rows), []
    for row in rows:
        speedup, score = figures.position(row)
        gain = row.gain
        low, high = (gain.low, gain.high) if gain else (speedup, speedup)
        marker, colour = styles[row.criterion or "unknown"]
        position = (x(speedup), y(score), x(low), x(high))
        marks.append(Mark(*position, SHAPES[marker], colour, lines(row), table.tags(row)))
    fronts = [
        (" ".join(f"{x(at[0])},{y(at[1])}" for at in map(figures.position, figures.front(own))), table.tags(own[0]))
        for own in groups
    ]
    claim, box = figures.band(groups[0]), None
    if claim:
        x0, x1 = (min(max(x(end), left), right) for end in claim[:2])
        y0, y1 = (min(max(y(end), top), bottom) for end in (claim[3], claim[2]))
        box = (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None
    x_ticks = [(x(tick), f"{tick:g}x") for tick in _ticks(x_low, x_high, 8 if kind == "wide" else 4)]
    y_ticks = [(y(tick), f"{tick:g}") for tick in _ticks(y_low, y_high, 6)]
    frame = (left, right, top, bottom)
    labelled = _labelled(marks, [figures.name(row) for row in rows], frame)
    return Drawing(kind, width, height, frame, x_ticks, y_ticks, labelled, fronts, box)


def lines(row: Row) -> list[str]:
    """Return the text of a mark: model, quality, latency, speed-up, size, setting."""
    metric = row.metric
    score = f"{metric.label} {metric.value_text(row)}"
    if not row.dense and metric.lost(row) is not None:
        score += f" ({metric.change_text(row)}"
        score += f", p {table.p_value(row.p_value)})" if row.p_value is not None else ")"
    found = [row.label, score]
    if row.median_ms is not None and row.details:
        interval = f"{row.details.median_low_ms:.2f}–{row.details.median_high_ms:.2f}"
        found.append(f"median latency {row.median_ms:.2f} ms (95 % interval {interval})")
    if row.gain and not row.dense:
        found.append(f"speed-up {row.gain.ratio:.2f}x (95 % interval {row.gain.low:.2f}–{row.gain.high:.2f})")
    if row.bytes is not None:
        found.append(f"size {table.decimals(row.bytes / 1e6, 1)} MB")
    found.append(f"{row.device}, {row.runtime} {row.precision}, {counted(row.threads, 'thread')}, {row.search}")
    return found


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


Box = tuple[float, float, float, float]


def _labelled(marks: Sequence[Mark], names: Sequence[str], frame: Box) -> list[Mark]:
    """Return the marks with their labels where they cover no other mark, bar or label."""
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
                mark = Mark(*(getattr(mark, key) for key in list(Mark.__dataclass_fields__)[:8]), name, x, y, anchor)
                break
        found.append(mark)
    return found


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
