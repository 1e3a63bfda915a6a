"""One line of a result table: a network, how well it classifies, how large and how fast it is, and how it was made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cnn.count import count
from cnn.evaluate import Score
from cnn.network import Network


def row(
    name: str,
    network: Network,
    score: Score,
    *,
    data: str,
    median_ms: float | None = None,
    peak_mib: float | None = None,
) -> dict[str, Any]:
    """Return the row of one network, not yet compared with a dense one.

    `weights` and `macs` are of the network as it is stored; `nonzero` and `effective_macs` are what its method left
    (PENNI: coefficients and bases), with zero weights free; `converted` counts the training form before any cut.
    median_ms and peak_mib: of one image and of the process, as a runtime was measured.
    """
    counted = count(network.module, network.image)
    last = network.history[-1] if network.history else {}
    left = last.get("counts") or {"nonzero": counted.nonzero, "effective_macs": counted.effective_macs}
    trained: dict[str, Any] = next((step for step in reversed(network.history) if step.get("method")), {})
    settings = dict(trained.get("settings") or {})
    return {
        "name": name,
        "net": network.net,
        "data": data,
        "method": trained.get("method") or "dense",
        "settings": settings,
        "level": last.get("level"),
        "seed": network.history[0]["recipe"]["seed"] if network.history else None,
        "accuracy": score.accuracy,
        "images": score.images,
        "held_out": last.get("accuracy_held_out"),
        "weights": counted.weights,
        "nonzero": left["nonzero"],
        "macs": counted.macs,
        "effective_macs": left["effective_macs"],
        "converted": last.get("converted"),
        "median_ms": median_ms,
        "peak_mib": peak_mib,
        "epochs": sum(step["epochs"] for step in network.history),
        "command": " && ".join(shlex.join(step["argv"]) for step in network.history),
    }


DENSE = {
    "dense_accuracy": "accuracy", "dense_weights": "weights", "dense_macs": "macs", "dense_ms": "median_ms",
    "dense_peak_mib": "peak_mib", "dense_epochs": "epochs",
}  # fmt: skip


def against(one: Mapping[str, Any], dense: Mapping[str, Any], *, p_value: float) -> dict[str, Any]:
    """Return the row with the dense network's figures beside its own, as `dense_...`, and `Score.p_value`."""
    return {**one, "p_value": p_value, **{name: dense[field] for name, field in DENSE.items()}}


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows as a table for a terminal."""
    shown = Table("network", "method", "accuracy", "p", "weights", "left", "products", "fewer", "ms", "faster", "MiB")
    for row in rows:
        times, faster = row["median_ms"], _ratio(row["dense_ms"], row["median_ms"])
        shown.add_row(
            row["name"], row["method"], f"{100 * row['accuracy']:.2f} %", f"{row['p_value']:.3f}",
            f"{row['nonzero']:,}",
            f"{100 * row['nonzero'] / row['dense_weights']:.2f} %", f"{row['effective_macs'] / 1e6:.2f} M",
            _ratio(row["dense_macs"], row["effective_macs"]), f"{times:.3f}" if times else "", faster,
            f"{row['peak_mib']:.0f}" if row["peak_mib"] else "",
        )  # fmt: skip
    return shown


def _ratio(large: float | None, small: float | None) -> str:
    return f"{large / small:.2f}x" if large and small else ""
