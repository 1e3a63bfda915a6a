"""Heat map of an analysis: share of dead lines by block type and layer, one panel per strength."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.pruning.sensitivity import Row, Sensitivity
from tprune.pruning.settings import TYPES

GROUPS = (  # heading, stack, sub-blocks whose matrices are in its columns
    ("encoder: self-attention, FFN", "encoder", ("self_attn", "ffn")),
    ("decoder: self-attention, FFN", "decoder", ("self_attn", "ffn")),
    ("decoder: cross-attention", "decoder", ("encoder_attn",)),
)
NAMES = {"q": "W_Q", "k": "W_K", "v": "W_V", "o": "W_O", "fc1": "FFN 1", "fc2": "FFN 2"}
CELL, LEFT, RIGHT = 0.62, 1.3, 1.7  # inches

Column = tuple[int, int]  # group, layer


def draw(found: Sensitivity, path: Path | str) -> None:
    """Write the heat map as PNG, whole or not at all; does nothing if no single block type was analysed."""
    from matplotlib.figure import Figure  # the object interface: no display, no global state

    strengths = sorted({row.strength for row in found.runs()})
    if not strengths:
        return
    columns = _columns(found)
    types = [kind for kind in TYPES if any(row.block_type == kind for row in found.runs())]
    width, height = LEFT + CELL * len(columns) + RIGHT, 1.3 + len(strengths) * (0.85 + 0.42 * len(types))
    figure = Figure(figsize=(max(width, 7.5), height), dpi=150, layout="constrained")
    axes = figure.subplots(len(strengths), 1, squeeze=False)[:, 0]
    for axis, strength in zip(axes, strengths, strict=True):
        rows = {row.block_type: row for row in found.runs() if row.strength == strength}
        image = _panel(axis, [[_share(rows[kind], kind, column) for column in columns] for kind in types])
        axis.set_ylabel(f"strength {strength:g}", fontsize=11, fontweight="bold")
        _label(axis, found, rows, types, columns)
    figure.suptitle(f"{found.model['name']}: share of dead lines per block, one block type penalised at a time")
    figure.colorbar(image, ax=list(axes), fraction=0.03, pad=0.01, aspect=40, format=lambda share, _: f"{share:.0%}")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    stamp.write_bytes(path, content.getvalue())


def _columns(found: Sensitivity) -> list[Column]:
    """Return the (group, layer) pairs with a block, in drawing order."""
    seen = set()
    for row in found.runs():
        for block in row.blocks:
            stack, _, layer, sub_block, _ = block.name.split(".")
            seen |= {(g, int(layer)) for g, (_, side, subs) in enumerate(GROUPS) if stack == side and sub_block in subs}
    return sorted(seen)


def _share(row: Row, kind: str, column: Column) -> float:
    """Return the dead share of the row's block in a column; NaN without such a block."""
    group, layer = column
    _, stack, sub_blocks = GROUPS[group]
    names = {f"{stack}.layers.{layer}.{sub_block}.{kind}" for sub_block in sub_blocks}
    return next((block.dead_share for block in row.blocks if block.name in names), math.nan)


def _panel(axis: Any, shares: list[list[float]]) -> Any:
    axis.set_facecolor("#e8e8e8")  # cells without a block
    image = axis.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for y, line in enumerate(shares):
        for x, share in enumerate(line):
            if not math.isnan(share):
                colour = "white" if share < 0.6 else "black"
                axis.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=colour)
    return image


def _label(axis: Any, found: Sensitivity, rows: Mapping[str, Row], types: list[str], columns: list[Column]) -> None:
    """Label the rows (with their cost at the right), the layers, and the groups of columns."""
    axis.set_yticks(range(len(types)), [NAMES[kind] for kind in types])
    axis.set_xticks(range(len(columns)), [f"L{layer}" for _, layer in columns])
    axis.tick_params(length=0)
    for y, kind in enumerate(types):
        cost = f"{found.damage(rows[kind]):+.3f}"
        axis.text(len(columns) - 0.4, y, cost, va="center", fontsize=9, family="monospace", clip_on=False)
    axis.text(len(columns) - 0.4, -0.62, "dev loss", va="bottom", fontsize=9, clip_on=False)
    for group, (heading, _, _) in enumerate(GROUPS):
        where = [x for x, (own, _) in enumerate(columns) if own == group]
        if where:
            axis.text((where[0] + where[-1]) / 2, -0.62, heading, ha="center", va="bottom", fontsize=9)
            axis.axvline(where[-1] + 0.5, color="white", linewidth=3)
