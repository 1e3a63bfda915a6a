"""The picture of an analysis: block type x layer, colour and number are the share of dead lines, a panel a strength."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from tprune.errors import BadInput
from tprune.sensitivity import TYPES, Row, Sensitivity

GROUPS = (  # heading, stack, sub-blocks whose blocks stand in its columns
    ("encoder\nself-attention and FFN", "encoder", ("self_attn", "ffn")),
    ("decoder\nself-attention and FFN", "decoder", ("self_attn", "ffn")),
    ("decoder\ncross-attention", "decoder", ("encoder_attn",)),
)
NAMES = {"q": "W_Q", "k": "W_K", "v": "W_V", "o": "W_O", "fc1": "FFN 1", "fc2": "FFN 2"}


def draw(found: Sensitivity, path: Path | str) -> None:
    """Write the heat map as PNG, one panel a strength, whole or not at all. Raises BadInput when nothing was run."""
    from matplotlib.figure import Figure  # the object interface: no global state, no display

    strengths = sorted({row.strength for row in found.runs()})
    if not strengths:
        raise BadInput("there is no run of a single block type to draw")
    columns = _columns(found)
    width = max(8.0, 3.2 + 0.62 * len(columns))
    figure = Figure(figsize=(width, 1.5 + 3.0 * len(strengths)), layout="constrained")
    axes = figure.subplots(len(strengths), 1, squeeze=False)[:, 0]
    for axis, strength in zip(axes, strengths, strict=True):
        rows = {row.block_type: row for row in found.runs() if row.strength == strength}
        image = _panel(axis, rows, columns)
        axis.set_title(f"strength {strength:g}", fontsize=11, loc="left", fontweight="bold")
        _losses(axis, found, rows, len(columns))
    _headings(axes[0], columns)
    figure.suptitle(f"Dead lines after BSSL: {found.model['name']}", fontsize=13)
    bar = figure.colorbar(image, ax=list(axes), fraction=0.025, pad=0.02)
    bar.set_label("share of dead lines (%)")
    _save(figure, Path(path))
