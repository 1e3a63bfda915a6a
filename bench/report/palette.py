"""The palette and the canvas that all figures share. Colours are Okabe and Ito's: safe for colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image  # matplotlib depends on it

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
RED, SKY, YELLOW, GREY = "#D55E00", "#56B4E9", "#F0E442", "#888888"
STYLES = (("o", BLUE), ("s", ORANGE), ("^", GREEN), ("D", PURPLE), ("X", RED), ("P", SKY))
MARKS = {  # criterion -> marker and colour; any other criterion gets the next free one of STYLES
    "dense": ("*", GREY),
    "shs": STYLES[0],
    "group-lasso": STYLES[1],
    "magnitude": STYLES[2],
    "taylor": STYLES[3],
    "random": STYLES[4],
    "deephoyer": STYLES[0],
    "svd": STYLES[1],
    "penni": STYLES[2],
}
NARROW_PAGE = "(max-width: 760px)"
DARK_PAGE = "(prefers-color-scheme: dark)"
DPI = 160


@dataclass(frozen=True)
class Look:
    """Size in inches and the two colours that suit a light or a dark page; `media` says when a page shows it."""

    width: float = 8.6
    height: float = 5.2
    ink: str = "#1c2330"
    paper: str = "#ffffff"
    media: str = ""


LIGHT, DARK = Look(), Look(ink="#e6e9ef", paper="#151a22", media=DARK_PAGE)
LIGHT_NARROW = Look(4.4, 5.0, media=NARROW_PAGE)
DARK_NARROW = Look(4.4, 5.0, DARK.ink, DARK.paper, f"{NARROW_PAGE} and {DARK_PAGE}")
OTHER_LOOKS = (DARK_NARROW, LIGHT_NARROW, DARK)  # the first whose `media` matches is shown, otherwise LIGHT


def marks(criteria: Iterable[str | None]) -> dict[str, tuple[str, str]]:
    """Return criterion -> (marker, colour) in the order of the legend; rows without a criterion are "unknown"."""
    names = {criterion or "unknown" for criterion in criteria}
    known = [name for name in MARKS if name in names]
    free = [style for style in reversed(STYLES) if style not in {MARKS[name] for name in known}] or list(STYLES)
    others = {name: free[place % len(free)] for place, name in enumerate(sorted(names - MARKS.keys()))}
    return {**{name: MARKS[name] for name in known}, **others}


def canvas(look: Look, height: float = 1.0, *, columns: int = 1) -> tuple[Figure, Any]:
    """Return a figure and its axes (an array of them where `columns` > 1, with a common y axis)."""
    figure = Figure(figsize=(look.width, look.height * height), dpi=DPI, facecolor=look.paper, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, sharey=True)
    for one in axes if columns > 1 else [axes]:
        one.set_facecolor(look.paper)
        one.tick_params(colors=look.ink, which="both")
        one.grid(True, color=look.ink, alpha=0.12, lw=0.6)
        one.set_axisbelow(True)
        for name, spine in one.spines.items():
            spine.set_visible(name in {"left", "bottom"})
            spine.set_color(look.ink)
    return figure, axes


def legend(figure: Figure, look: Look, columns: int, **options: Any) -> None:
    """Put the legend below the axes."""
    style: dict[str, Any] = {"frameon": False, "labelcolor": look.ink, "fontsize": 8} | options
    figure.legend(loc="outside lower center", ncols=columns, **style)


def png(figure: Figure, look: Look) -> bytes:
    """Return the figure as the bytes of a PNG file of 128 colours, a third of the size of one in full colour."""
    drawn, target = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", facecolor=look.paper)
    Image.open(drawn).convert("RGB").quantize(128).save(target, format="png", optimize=True)
    return target.getvalue()
