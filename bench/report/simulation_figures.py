"""The figures of a simulation: time by layer, energy by component, and what the undocumented constants change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tprune.bench.accel.energy import COMPONENTS
from tprune.bench.accel.hardware import Hardware
from tprune.bench.accel.simulate import Result
from tprune.bench.accel.sweep import Setting, spans
from tprune.bench.accel.targets import ENERGY, LATENCY
from tprune.bench.report import palette
from tprune.bench.report.palette import BLUE, GREEN, GREY, LIGHT, ORANGE, PURPLE, RED, SKY, YELLOW, Look

OTHER_COLOURS = (PURPLE, RED, SKY, YELLOW)
COMPONENT_COLOURS = dict(zip(COMPONENTS, (BLUE, PURPLE, SKY, YELLOW, GREEN, ORANGE), strict=True))
MOST_LAYERS = 30  # more are joined to this many groups of neighbours


def layers(results: Sequence[Result], look: Look = LIGHT) -> bytes:
    """Return a PNG of each layer's latency on each design, logarithmic, neighbours joined where there are too many."""
    figure, axes = palette.canvas(look, 0.95)
    names, groups = _groups([one.layer.name for one in results[0].layers], MOST_LAYERS if look.width > 6 else 12)
    width = 0.84 / len(results)
    for number, result in enumerate(results):
        clock = result.hardware.number("clock_mhz") * 1e3  # cycles per ms
        heights = [sum(result.layers[index].time for index in group) / clock for group in groups]
        places = [place + (number - (len(results) - 1) / 2) * width for place in range(len(groups))]
        axes.bar(places, heights, width, color=colour(result.hardware, number), label=result.hardware.name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set_ylabel("ms per image", color=look.ink)
    axes.margins(x=0.01)
    _dress(figure, axes, look, note(results))
    return palette.png(figure, look)


def energy(results: Sequence[Result], look: Look = LIGHT) -> bytes:
    """Return a PNG of the energy of an image by component, a bar a design, as multiples of ESCALATE's where it ran."""
    figure, axes = palette.canvas(look, 0.55)
    ours = next((result for result in results if result.hardware.model.decomposed), results[0])
    unit = sum(ours.energy.values())
    left = [0.0] * len(results)
    for component in COMPONENTS:
        lengths = [result.energy[component] / unit for result in results]
        axes.barh(range(len(results)), lengths, 0.68, left, color=COMPONENT_COLOURS[component], label=component)
        left = [start + length for start, length in zip(left, lengths, strict=True)]
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.3g}x", va="center", color=look.ink, fontsize=8)
    axes.set_yticks(range(len(results)), [result.hardware.name for result in results])
    axes.invert_yaxis()
    axes.margins(x=0.09)
    axes.set_xlabel(f"energy of an image, multiples of {ours.hardware.name}'s", color=look.ink)
    _dress(figure, axes, look, note(results))
    return palette.png(figure, look)


def sensitivity(settings: Sequence[Setting], title: str, look: Look = LIGHT, *, quantity: str = "latency") -> bytes:
    """Return a PNG of ESCALATE's latency or energy gain, a line for each assumption that changes it, widest first."""
    figure, axes = palette.canvas(look, 1.0)
    targets = {"latency": LATENCY, "energy": ENERGY}[quantity]
    order = [name for name, (least, most) in spans(settings, f"{quantity}_sparse").items() if most > 1.001 * least]
    for number, (kind, line) in enumerate((("dense", GREY), ("sparse", ORANGE))):
        field, shift, target = f"{quantity}_{kind}", (number - 0.5) * 0.3, targets[kind].value
        label = f"given for the paper, over {kind}: {target:g}x (unverified)"
        axes.axvline(target, color=line, ls=":", lw=1.4, label=label)
        for place, parameter in enumerate(order):
            own = [setting for setting in settings if setting.parameter == parameter]
            gains = [getattr(setting, field) for setting in own]
            usual = [getattr(setting, field) for setting in own if setting.usual]
            axes.plot(
                [min(gains), max(gains)], [place + shift] * 2, color=line, lw=5, alpha=0.35, solid_capstyle="butt"
            )
            axes.plot(gains, [place + shift] * len(gains), "|", color=line, ms=9, mew=1.6)
            dots = None if place else f"simulated, over {kind}: dot as in the tables, ticks other values"
            axes.plot(usual, [place + shift] * len(usual), "o", color=line, ms=5, label=dots)
    axes.set_yticks(range(len(order)), [_values(settings, parameter, look) for parameter in order], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}x" if value in (2, 3, 5, 20, 50) else ""))
    axes.set_xlabel(f"ESCALATE's {quantity} gain (simulated)", color=look.ink)
    _dress(figure, axes, look, title, columns=1 if look.width < 6 else 2)
    return palette.png(figure, look)


def colour(design: Hardware, number: int) -> str:
    """Return a design's colour; one without a colour of its own gets one by its position."""
    return design.colour or OTHER_COLOURS[number % len(OTHER_COLOURS)]


def note(results: Sequence[Result]) -> str:
    """Return the title of the figures of a network."""
    return title(results[0].workload.network, results[0].workload.source)


def title(network: str, source: str) -> str:
    """Return the display name of a network; invented densities are named as such."""
    return f"{network}, SYNTHETIC densities" if source == "synthetic" else network


def _values(settings: Sequence[Setting], parameter: str, look: Look) -> str:
    values = [setting.value for setting in settings if setting.parameter == parameter]
    text = ", ".join(value if isinstance(value, str) else f"{value:g}" for value in values)
    return f"{parameter}\n{text}" if look.width < 6 else f"{parameter}: {text}"


def _groups(names: Sequence[str], most: int) -> tuple[list[str], list[range]]:
    """Return labels and the layers of each bar."""
    size = -(-len(names) // most)
    groups = [range(start, min(start + size, len(names))) for start in range(0, len(names), size)]
    labels = [names[group[0]] if len(group) == 1 else f"{names[group[0]]} +{len(group) - 1}" for group in groups]
    return labels, groups


def _dress(figure: Figure, axes: Any, look: Look, title: str, *, columns: int | None = None) -> None:
    if axes.get_yscale() == "log":
        axes.yaxis.set_minor_formatter(NullFormatter())
    if title:
        axes.set_title(title, color=look.ink, fontsize=9, loc="left")
    palette.legend(figure, look, columns or (6 if look.width > 6 else 3))
