"""Sensitivity of the result to its assumptions: undocumented constants, DRAM and energy prices, one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tprune.bench.accel import energy, storage
from tprune.bench.accel.energy import NORMALISED, Prices
from tprune.bench.accel.hardware import Hardware
from tprune.bench.accel.simulate import LayerResult, Result, simulate_all
from tprune.bench.accel.targets import SPARSE, gain
from tprune.bench.accel.task import coefficients

# Constants that are undocumented, or documented inconsistently, with the values to try
CONSTANTS: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("escalate", "blocks"): (16, 32, 64),
    ("escalate", "multipliers"): (3, 5, 9),
    ("escalate", "adders"): (1, 2, 4, 8, 16),
    ("escalate", "word"): (16, 32, 64, 128),
    ("escalate", "skip_zero_activations"): (0, 1),
    ("scnn", "queued"): (0, 1),
    ("sparten", "balanced"): (0, 1),
}
BANDWIDTHS = (6.4, 12.8, 25.6, 51.2, 1e6)  # GB/s for all designs; the last one never causes stalls
DRAM_PRICES = (32.0, 64.0, 128.0, 160.0)  # pJ per byte for all designs: 4, 8, 16 and 20 pJ/bit
SELECT_PRICES = (0.05, 0.25, 1.0)  # pJ per addition for ESCALATE's control


@dataclass(frozen=True, slots=True)
class Setting:
    """ESCALATE's gains with one assumption set to `value`; `usual` marks the default, which the tables use."""

    parameter: str
    value: float | str
    usual: bool
    latency_dense: float
    latency_sparse: float
    energy_dense: float
    energy_sparse: float


def sweep(results: Sequence[Result], *, seed: int = 0) -> list[Setting]:
    """Return the gains over `eyeriss` and over the sparse designs for every assumption.

    `results` are those of one network; without escalate, eyeriss and at least one sparse design the list is empty.
    """
    by_name = {result.hardware.name: result for result in results}
    rivals = [by_name[name] for name in SPARSE if name in by_name]
    if "escalate" not in by_name or "eyeriss" not in by_name or not rivals:
        return []
    ours, dense = by_name["escalate"], by_name["eyeriss"]

    def setting(parameter: str, value: float | str, usual: bool, change: Callable[[Result], Result]) -> Setting:
        changed = change(ours)
        time, spent = gain(changed, [change(dense)])
        sparse = gain(changed, [change(rival) for rival in rivals])
        return Setting(parameter, value, usual, time, sparse[0], spent, sparse[1])

    found = [
        setting(f"{old.hardware.name} {parameter}", value, new is old, partial(_swapped, old, new))
        for old, parameter, value, new in _variants(by_name, seed)
    ]
    for speed in BANDWIDTHS:
        label = speed if speed < 1e6 else "endless"
        found.append(setting("dram_gb_s", label, speed == ours.hardware.number("dram_gb_s"), _at(speed)))
    found.append(setting("feature maps", "through DRAM", True, lambda result: result))
    found.append(setting("feature maps", "kept on chip", False, _resident))
    for name, index in storage.FORMATS.items():
        usual_format = index is storage.BITMASK
        other = ours if usual_format else _indexed(ours, index, seed)
        found.append(setting("escalate weights as", name, usual_format, partial(_swapped, ours, other)))
    for parameter, price, usual_price, prices in _price_lists(ours.prices):
        found.append(setting(parameter, price, usual_price, _priced(prices)))
    return found


def spans(settings: Sequence[Setting], field: str) -> dict[str, tuple[float, float]]:
    """Return the minimum and maximum gain (`field`) over the values of each parameter, widest span first."""
    values: dict[str, list[float]] = {}
    for setting in settings:
        values.setdefault(setting.parameter, []).append(getattr(setting, field))
    found = {parameter: (min(gains), max(gains)) for parameter, gains in values.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1][1] / item[1][0]))


def _variants(by_name: Mapping[str, Result], seed: int) -> list[tuple[Result, str, float, Result]]:
    """Return (result, constant, value, result with that value); new values are simulated together."""
    wanted = [
        (by_name[name], parameter, value)
        for (name, parameter), values in CONSTANTS.items()
        if name in by_name
        for value in sorted({*values, by_name[name].hardware.number(parameter)})
    ]
    designs = [
        result.hardware.having("sweep", **{parameter: value})
        for result, parameter, value in wanted
        if value != result.hardware.number(parameter)
    ]
    one = next(iter(by_name.values()))
    simulated = iter(simulate_all(one.workload, designs, one.prices, exact=one.exact, seed=seed))
    return [
        (result, parameter, value, next(simulated) if value != result.hardware.number(parameter) else result)
        for result, parameter, value in wanted
    ]


def _at(speed: float) -> Callable[[Result], Result]:
    def changed(result: Result) -> Result:
        hardware: Hardware = result.hardware.having("sweep", dram_gb_s=speed)
        layers = tuple(
            replace(x, time=max(x.counts.cycles, math.ceil(x.counts.dram_bytes / hardware.bytes_per_cycle)))
            for x in result.layers
        )
        return replace(result, hardware=hardware, layers=layers)

    return changed


def _swapped(ours: Result, other: Result, result: Result) -> Result:
    return other if result is ours else result


def _resident(result: Result) -> Result:
    """Return the result with every feature map that fits into half of the buffer kept on the chip."""
    half = result.hardware.number("buffer_bytes") / 2
    kept = [layer.counts.compulsory["outputs"] <= half for layer in result.layers[:-1]]
    layers = []
    for layer, before, behind in zip(result.layers, [False, *kept], [*kept, False], strict=True):
        inside = {name: 0 for name, stays in (("inputs", before), ("outputs", behind)) if stays}
        moved, needed = {**layer.counts.dram, **inside}, {**layer.counts.compulsory, **inside}
        layers.append(_moving(result, layer, moved, needed))
    return replace(result, layers=tuple(layers))


def _indexed(result: Result, index: storage.IndexFormat, seed: int) -> Result:
    """Return the result with ESCALATE's weights in another index format in DRAM."""
    layers, bits = [], result.hardware.count("bits")
    for layer in result.layers:
        mask = coefficients(layer.layer, exact=result.exact, seed=seed)
        size = math.ceil(storage.weight_bits(layer.layer.shape, mask, index, bits) / 8)
        times = round(layer.counts.dram["weights"] / layer.counts.compulsory["weights"])
        moved = {**layer.counts.dram, "weights": size * times}
        layers.append(_moving(result, layer, moved, {**layer.counts.compulsory, "weights": size}))
    return replace(result, layers=tuple(layers))


def _moving(result: Result, layer: LayerResult, dram: Mapping[str, int], compulsory: Mapping[str, int]) -> LayerResult:
    """Return a layer's result with other DRAM traffic."""
    counts = replace(layer.counts, dram=dram, compulsory=compulsory)
    stall_free = math.ceil(counts.dram_bytes / result.hardware.bytes_per_cycle)
    return replace(
        layer, counts=counts, time=max(counts.cycles, stall_free), energy=energy.spent(counts, result.prices)
    )


def _price_lists(usual: Prices) -> list[tuple[str, float | str, bool, Prices]]:
    select = usual.operations["select"]
    return [
        *(("pJ/byte of DRAM", price, price == usual.dram, replace(usual, dram=price)) for price in DRAM_PRICES),
        *(
            ("pJ/select", price, price == select, replace(usual, operations={**usual.operations, "select": price}))
            for price in SELECT_PRICES
        ),
        *(("energy table", prices.name, prices is usual, prices) for prices in (usual, NORMALISED)),
    ]


def _priced(prices: Prices) -> Callable[[Result], Result]:
    def changed(result: Result) -> Result:
        layers = tuple(replace(layer, energy=energy.spent(layer.counts, prices)) for layer in result.layers)
        return replace(result, prices=prices, layers=layers)

    return changed
