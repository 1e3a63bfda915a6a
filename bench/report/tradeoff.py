"""Accuracy against the weights and MACs left of an image network: the figure of `tprune cnn evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.ticker import FuncFormatter

from tprune.bench.report import palette
from tprune.bench.report.palette import LIGHT, STYLES, Look

RowData = Mapping[str, Any]

PANELS = (("nonzero", "dense_weights", "weights left"), ("effective_macs", "dense_macs", "multiply-accumulates left"))
NEAR = 0.05  # of accuracy: networks further below the dense one are not drawn, the others would be one line


def series(rows: Sequence[RowData]) -> dict[str, list[RowData]]:
    """Return the compressed networks by how they were trained, named by the settings in which they differ.

    Where another setting differs as well, the strengths of one penalty are one series.
    """
    compressed = [row for row in rows if row["method"] != "dense"]
    found: dict[str, list[RowData]] = {}
    for row in compressed:
        same = [other["settings"] for other in compressed if other["method"] == row["method"]]
        differing = [key for key, value in row["settings"].items() if any(one.get(key) != value for one in same)]
        if len(differing) > 1:
            differing = [key for key in differing if key != "strength"]
        words = [_word(key, row["settings"][key]) for key in differing]
        nets = [row["net"]] if len({one["net"] for one in compressed}) > 1 else []
        found.setdefault(" ".join([*nets, row["method"], *words]), []).append(row)
    return found


def draw(rows: Sequence[RowData], look: Look = LIGHT) -> bytes:
    """Return a PNG: accuracy against the weights and against the MACs that are left, a line for each training.

    A line joins what no smaller network of its series beats; the others are pale. Where some come within `NEAR` of the
    dense network, those that do not are left out, and counted. Both shares are of the first row's, the dense network's,
    whose accuracy is the dashed line. Raises ValueError where no row is a compressed network.
    """
    if not series(rows):
        raise ValueError("tradeoff: no row is a compressed network")
    near = [row for row in rows if row["accuracy"] >= rows[0]["accuracy"] - NEAR]
    shown = near if series(near) else rows
    lines, beyond = series(shown), len(rows) - len(shown)
    figure, panels = palette.canvas(look, 0.85, columns=len(PANELS))
    for axes, (left, of, title) in zip(panels, PANELS, strict=True):
        axes.axhline(100 * rows[0]["accuracy"], ls="--", lw=1, color=look.ink, alpha=0.6, label="dense")
        for (name, own), (marker, colour) in zip(lines.items(), cycle(STYLES)):
            points = [(100 * row[left] / row[of], 100 * row["accuracy"]) for row in own]
            axes.plot(*zip(*points, strict=True), marker=marker, color=colour, ms=4, lw=0, alpha=0.35)
            axes.plot(*zip(*front(points), strict=True), marker=marker, color=colour, ms=5, lw=1.2, label=name)
        _dress(axes, f"{title}, % of the dense network's", look)
    panels[0].set_ylabel(f"accuracy on {rows[0]['images']:,} images, %", color=look.ink)
    if beyond:
        panels[0].set_title(
            f"not drawn: {beyond} that lose more than {100 * NEAR:g} points", fontsize=8, color=look.ink
        )
    handles, names = panels[0].get_legend_handles_labels()
    palette.legend(figure, look, 3 if look.width > 6 else 2, handles=handles, labels=names)
    return palette.png(figure, look)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (what is left, accuracy) that no smaller one beats, the smallest first."""
    found: list[tuple[float, float]] = []
    for left, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or accuracy > found[-1][1]:
            found.append((left, accuracy))
    return found


def _word(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else f"not {key}"
    if isinstance(value, str):
        return value
    return f"{key.replace('_', '-')} {value:g}"


def _dress(axes: Any, label: str, look: Look) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    digits = "125" if high > 5 * low else "123456789"
    for kind in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        kind(FuncFormatter(lambda share, _: f"{share:g}" if f"{share:e}"[0] in digits else ""))
    axes.set_xlabel(label, color=look.ink)
    axes.tick_params(labelsize=8)
