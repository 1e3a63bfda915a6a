"""Rows of the result table: accuracy, size, latency and origin of a network."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tprune.base.errors import BadInput
from tprune.base.significance import p_cell
from tprune.cnn import methods
from tprune.cnn.count import Count, count, kept, totals
from tprune.cnn.network import Network
from tprune.cnn.score import Score


def row(
    name: str,
    network: Network,
    score: Score,
    *,
    data: str,
    median_ms: float | None = None,
    peak_mib: float | None = None,
) -> dict[str, Any]:
    """Return the row of one network, before comparison with a dense one.

    `weights` and `macs` count the network as stored; `nonzero` and `effective_macs` what its method left (PENNI:
    coefficients and bases), without zero weights; `converted` the training form before any cut. median_ms: measured
    latency of one image; peak_mib: peak memory of the process.
    """
    counted = count(network.module, network.image)
    last = network.history[-1] if network.history else {}
    left = _left(network, counted)
    trained: dict[str, Any] = next((step for step in reversed(network.history) if step.get("method")), {})
    settings = dict(trained.get("settings") or {})
    return {
        "name": name,
        "net": network.net,
        "data": data,
        "method": trained.get("method") or "dense",
        "settings": settings,
        "teacher": next((step["teacher"] for step in reversed(network.history) if step.get("teacher")), None),
        "level": last.get("level"),
        "seed": next((step["recipe"]["seed"] for step in network.history if step.get("recipe")), None),
        "accuracy": score.accuracy,
        "images": score.images,
        "held_out": last.get("accuracy_held_out"),
        "weights": counted.weights,
        "nonzero": left["nonzero"],
        "macs": counted.macs,
        "effective_macs": left["effective_macs"],
        "converted": next((step["converted"] for step in network.history if step.get("converted")), None),
        "median_ms": median_ms,
        "peak_mib": peak_mib,
        "epochs": sum(step["epochs"] for step in network.history),
        "command": " && ".join(shlex.join(step["argv"]) for step in network.history),
    }


DENSE = {
    "dense_accuracy": "accuracy", "dense_weights": "weights", "dense_macs": "macs", "dense_ms": "median_ms",
    "dense_peak_mib": "peak_mib", "dense_epochs": "epochs",
}  # fmt: skip


def against(
    one: Mapping[str, Any], dense: Mapping[str, Any], *, p_value: float, kept: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the row with the dense network's values as `dense_...`, `Score.p_value` and `shares` added."""
    return {**one, "p_value": p_value, "kept": kept, **{name: dense[field] for name, field in DENSE.items()}}


def shares(network: Network, dense: Network) -> dict[str, float] | None:
    """Return the shares of the parameters of `dense` that PENNI kept (`tprune.cnn.count.Kept`), or None.

    None also if the coefficients are multiplied out and were not counted in the history, or if PENNI cannot have
    started from `dense`.
    """
    method, left = methods.of(network), _left(network, count(network.module, network.image))
    if not isinstance(method, methods.Penni) or not left["coefficients"] or network.net != dense.net:
        return None
    decomposed = copy.deepcopy(dense.module)
    try:
        method.convert(decomposed)
    except BadInput:
        return None
    whole, parts = (count(module, dense.image) for module in (dense.module, decomposed))
    return asdict(kept(whole, parts, left))


def _left(network: Network, counted: Count) -> Mapping[str, int]:
    """Return the counts of a network's last step, before bases were multiplied out, or its current counts."""
    last = network.history[-1] if network.history else {}
    return {**totals(counted), **(last.get("counts") or {})}


def names(folders: Sequence[Path]) -> list[str]:
    """Return the names of the rows: the last part of each path, and as many before it as make them unique."""
    whole = [folder.parts or Path.cwd().parts[-1:] for folder in folders]  # "." has no parts
    most = max(map(len, whole))
    candidates = (["/".join(one[-parts:]) for one in whole] for parts in range(1, most + 1))
    return next(found for found in candidates if len(set(found)) == len(set(whole)))


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows as a table for a terminal; shares and ratios are relative to the first row, the dense network.

    "Left" excludes zeros, "stored" and "computed" include the zeros that a plain runtime stores and multiplies by.
    """
    timed = any(row["median_ms"] for row in rows)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    counts = ("weights left", "stored", "MACs left, M", "computed")
    for heading in ("network", "accuracy", "p", *counts, *(("ms", "MiB") if timed else ())):
        name = heading == "network"
        shown.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows:
        times = (
            [_with(row["median_ms"], ".3f", row["dense_ms"]), f"{row['peak_mib']:.1f}" if row["peak_mib"] else "-"]
            if timed
            else []
        )
        weights = f"{_short(row['nonzero'])} {100 * row['nonzero'] / row['dense_weights']:6.2f} %"
        products = _with(row["effective_macs"] / 1e6, ".2f", row["dense_macs"] / 1e6)
        score = f"{100 * row['accuracy']:.2f} %"
        stored, computed = _short(row["weights"]), f"{row['macs'] / 1e6:.2f}"
        shown.add_row(row["name"], score, p_cell(row["p_value"]), weights, stored, products, computed, *times)
    return shown


def _short(weights: int) -> str:
    return f"{weights / 1e6:.2f} M" if weights >= 1e6 else f"{weights:,}"


def _with(value: float | None, form: str, dense: float | None) -> str:
    """Return the value and the ratio of the dense network's value to it."""
    if not value:
        return "-"
    return f"{value:{form}} {dense / value:6.2f}x" if dense else f"{value:{form}}"
