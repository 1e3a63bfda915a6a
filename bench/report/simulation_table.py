"""The rows of a simulation as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table


def terminal(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Return a table a network, with what fits 80 characters."""
    networks = dict.fromkeys((row["network"], row["source"]) for row in rows)
    return Group(*(_network(rows, network, source) for network, source in networks))


def _network(rows: Sequence[Mapping[str, Any]], network: str, source: str) -> Table:
    table = Table(title=f"{network}, SYNTHETIC densities" if source == "synthetic" else network)
    table.add_column("design", overflow="fold")
    for heading in ("ms per\nimage", "cycles", "useful", "energy\n(µJ)", "DRAM\n(MB)", "weights\nsmaller"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row["network"] == network:
            table.add_row(
                row["design"],
                f"{row['latency_ms']:.3f}",
                f"{row['cycles']:,}",
                f"{row['utilisation']:.1%}",
                f"{row['energy_pj'] / 1e6:,.1f}",
                f"{row['dram_bytes'] / 1e6:.2f}",
                f"{row['compression']:.1f}x",
            )
    return table
