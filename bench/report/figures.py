"""The Pareto figure: BLEU or accuracy against speed-up, one mark a row; beside BLEU the band of the TPrune paper."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FormatStrFormatter

RowData = Mapping[str, Any]

BAND = (1.16, 1.92, 0.0, 8.0)  # speed-up from, to; BLEU loss in percent from, to (TPrune's abstract)
BAND_LABEL = "TPrune paper's own claim on its phones\n1.16–1.92x at 0–8 % loss (other hardware)"
MARKS = {  # criterion -> marker and colour (Okabe and Ito's palette: told apart by the colour-blind too)
    "dense": ("*", "#888888"),
    "shs": ("o", "#0072B2"),
    "group-lasso": ("s", "#E69F00"),
    "magnitude": ("^", "#009E73"),
    "taylor": ("D", "#CC79A7"),
    "random": ("X", "#D55E00"),
    "deephoyer": ("o", "#0072B2"),
    "svd": ("s", "#E69F00"),
    "penni": ("^", "#009E73"),
}
OTHER = ("P", "#56B4E9")
PLACES = ((7, 6), (7, -12), (-7, 6), (-7, -12), (0, 12), (0, -18), (18, 0), (-18, 0), (16, 16), (-16, 16), (16, -22))


@dataclass(frozen=True)
class Look:
    """Size in inches and the two colours that decide whether a figure is for a light or a dark page."""

    width: float = 8.6
    height: float = 5.2
    ink: str = "#1c2330"
    paper: str = "#ffffff"


LIGHT, DARK = Look(), Look(ink="#e6e9ef", paper="#151a22")
LIGHT_NARROW = Look(width=4.4, height=5.0)
DARK_NARROW = Look(width=4.4, height=5.0, ink=DARK.ink, paper=DARK.paper)


def points(rows: Sequence[RowData]) -> list[RowData]:
    """Return the rows that can be drawn: those with a quality and a measured speed-up."""
    return [row for row in rows if row["speedup"] is not None and _scored(row)]


def quality(row: RowData) -> float:
    """Return the row's BLEU, or the accuracy of an image network in percent."""
    return float(100 * row["accuracy"] if row["bleu"] is None else row["bleu"])


def front(rows: Sequence[RowData]) -> list[RowData]:
    """Return the rows that no other row beats in both quality and speed-up, slowest first."""
    best: list[RowData] = []
    for row in sorted(points(rows), key=lambda row: (-row["speedup"], -quality(row))):
        if not best or quality(row) > quality(best[-1]):
            best.append(row)
    return best[::-1]


def of_images(rows: Sequence[RowData]) -> bool:
    """Return whether the rows are image networks."""
    return any(row["accuracy"] is not None for row in rows)


def _scored(row: RowData) -> bool:
    return row["bleu"] is not None or row["accuracy"] is not None


def pareto(rows: Sequence[RowData], look: Look = LIGHT, *, dpi: int = 160) -> bytes:
    """Return the figure as PNG bytes; ValueError when no row has both a quality and a speed-up."""
    shown = points(rows)
    if not shown:
        raise ValueError("pareto: no row has both BLEU or accuracy and a measured speed-up")
    figure = Figure(figsize=(look.width, look.height), dpi=dpi, facecolor=look.paper, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=look.paper)
    claim = None if of_images(shown) else _band(axes, shown, look)
    line = front(shown)
    axes.plot(
        [row["speedup"] for row in line], [quality(row) for row in line], "--", lw=1, color=look.ink, alpha=0.6,
        label="Pareto front", zorder=2,
    )  # fmt: skip
    for criterion in sorted({row["criterion"] for row in shown}, key=_rank):
        _marks(axes, [row for row in shown if row["criterion"] == criterion], criterion, look)
    _dress(axes, look, images=of_images(shown))
    axes.margins(0.08)
    columns = 4 if look.width > 6 else 3
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=look.ink, fontsize=8.5)
    _labels(axes, shown, canvas, look, [claim] if claim else [])
    legend.set_in_layout(True)
    target = io.BytesIO()
    figure.savefig(target, format="png", facecolor=look.paper, metadata={"Software": None})
    return target.getvalue()


def _rank(criterion: str | None) -> tuple[int, str]:
    order = list(MARKS)
    return (order.index(criterion) if criterion in order else len(order), str(criterion))


def _band(axes: Any, rows: Sequence[RowData], look: Look) -> Any:
    """Shade the paper's claim, relative to the BLEU of our dense row, which it needs; return the text that says so."""
    dense = [row["bleu"] for row in rows if row["criterion"] == "dense"]
    if not dense:
        return None
    left, right, least, most = BAND
    top, bottom = dense[0] * (1 - least / 100), dense[0] * (1 - most / 100)
    axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, color="#8c7ae6", alpha=0.13, lw=0, zorder=0))
    return axes.text(
        left + 0.01, bottom, BAND_LABEL, va="bottom", ha="left", fontsize=7.5, color=look.ink, alpha=0.75, zorder=1
    )


def _marks(axes: Any, rows: Sequence[RowData], criterion: str | None, look: Look) -> None:
    marker, colour = MARKS.get(criterion or "", OTHER)
    speed = [row["speedup"] for row in rows]
    spread = [
        [max(0.0, row["speedup"] - row["speedup_low"]) for row in rows],
        [max(0.0, row["speedup_high"] - row["speedup"]) for row in rows],
    ]
    axes.errorbar(
        speed, [quality(row) for row in rows], xerr=spread, fmt=marker, color=colour, ecolor=colour, elinewidth=1.2,
        capsize=3, markersize=13 if criterion == "dense" else 7.5, markeredgecolor=look.paper, markeredgewidth=0.7,
        label=criterion or "unknown", zorder=3,
    )  # fmt: skip


def _dress(axes: Any, look: Look, *, images: bool) -> None:
    what, dense = ("one image", "the dense network") if images else ("a whole sentence", "the dense model")
    axes.set_xlabel(f"speed-up of {what} over {dense} (bars: 95 % interval)", color=look.ink)
    if look.width < 6:
        axes.set_xlabel(f"speed-up over {dense}\n({what.removeprefix('a ')}; bars: 95 % interval)", color=look.ink)
    axes.set_ylabel("accuracy (%)" if images else "BLEU", color=look.ink)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%gx"))
    axes.tick_params(colors=look.ink)
    axes.grid(True, color=look.ink, alpha=0.12, lw=0.6)
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(look.ink)


def _labels(axes: Any, rows: Sequence[RowData], canvas: Any, look: Look, texts: Sequence[Any]) -> None:
    """Write the kept share (dense: its name) beside each mark, wherever it hides no other mark, label or text."""
    canvas.draw()
    along = [  # points on every mark's error bar: what a label must not hide
        (row["speedup_low"] + part / 8 * (row["speedup_high"] - row["speedup_low"]), quality(row))
        for row in rows
        for part in range(9)
    ]
    marks = axes.transData.transform(along + [(row["speedup"], quality(row)) for row in rows])
    taken: list[Any] = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    for row in sorted(rows, key=lambda row: -quality(row)):
        text = "dense" if row["criterion"] == "dense" else _kept(row)
        for across, up in PLACES:
            label = axes.annotate(
                text, (row["speedup"], quality(row)), (across, up), textcoords="offset points", fontsize=8,
                ha="left" if across > 0 else "right" if across < 0 else "center", color=look.ink,
            )  # fmt: skip
            box = label.get_window_extent(canvas.get_renderer())
            around = box.expanded(1.05, 1.1)
            free = not any(around.contains(*mark) for mark in marks) and not any(around.overlaps(old) for old in taken)
            if free and _inside(box, axes.get_window_extent()):
                taken.append(box)
                break
            label.remove()
        else:
            continue  # no room: the table below has the name, and an unreadable heap would help nobody


def _inside(box: Any, frame: Any) -> bool:
    return bool(box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1)


def _kept(row: RowData) -> str:
    return row["name"] if row["keep"] is None or row["accuracy"] is not None else f"{100 * row['keep']:.0f} %"
