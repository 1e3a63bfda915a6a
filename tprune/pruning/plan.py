"""`Plan`: per sub-block the kept heads and the kept lines of each head.

Torch-free. Inside one attention all kept heads keep the same number of Q/K lines and the same number of V/O lines, so
that attention stays one dense batched product. A sub-block with nothing kept is empty: only its output bias remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tprune.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Kept heads, and for each of them the kept lines (indices inside the head, ascending)."""

    heads: tuple[int, ...]
    qk: tuple[tuple[int, ...], ...]
    vo: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        _check_ascending("AttentionPlan.heads", self.heads)
        for name, lines in (("qk", self.qk), ("vo", self.vo)):
            if len(lines) != len(self.heads):
                raise BadInput(f"AttentionPlan.{name}: lines of {len(lines)} heads for {len(self.heads)} kept heads")
            widths = {len(of_head) for of_head in lines}
            if len(widths) > 1:
                raise BadInput(
                    f"AttentionPlan.{name}: heads of different width {sorted(widths)}; all must keep the same"
                )
            if self.heads and not self.width(name):
                raise BadInput(f"AttentionPlan.{name}: kept heads without a kept line; drop the heads instead")
            for of_head in lines:
                _check_ascending(f"AttentionPlan.{name}", of_head)

    def width(self, kind: str) -> int:
        """Return the kept lines per head of "qk" or "vo"."""
        lines = self.qk if kind == "qk" else self.vo
        return len(lines[0]) if lines else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Kept lines of every sub-block of one model: attention by name, feed-forward networks by name."""

    attention: Mapping[str, AttentionPlan]
    ffn: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, Any] = field(default_factory=dict)  # criterion, keep, round_to, seed: for readers

    def __post_init__(self) -> None:
        for name, kept in self.ffn.items():
            _check_ascending(f"Plan.ffn[{name}]", kept)

    def check_against(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise BadInput, with every complaint, unless the plan covers exactly the sub-blocks of `shapes`.

        `shapes` maps a sub-block to (heads, qk width, v width) or to (ffn width,).
        """
        complaints = [f"no entry for {name}" for name in shapes if name not in self.attention and name not in self.ffn]
        for name in (*self.attention, *self.ffn):
            if name not in shapes:
                complaints.append(f"{name} is not in the model")
        for name, attention in self.attention.items():
            if name in shapes:
                complaints += _above(name, attention, shapes[name])
        for name, kept in self.ffn.items():
            if name in shapes and kept and kept[-1] >= shapes[name][0]:
                complaints.append(f"{name}: line {kept[-1]} is not below width {shapes[name][0]}")
        if complaints:
            raise BadInput("plan does not fit the model: " + "; ".join(complaints))

    def kept_weights(self, d_model: int) -> int:
        """Return the matrix elements (biases not counted) that stay in the prunable matrices."""
        lines = sum(len(a.heads) * (a.width("qk") + a.width("vo")) for a in self.attention.values())
        return 2 * d_model * (lines + sum(map(len, self.ffn.values())))

    def parameters(self, d_model: int) -> int:
        """Return all parameters of the planned sub-blocks, biases included."""
        biases = 0
        for attention in self.attention.values():
            biases += len(attention.heads) * (2 * attention.width("qk") + attention.width("vo")) + d_model
        biases += sum(len(kept) + d_model for kept in self.ffn.values())
        return self.kept_weights(d_model) + biases

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        attention = {
            name: {"heads": list(a.heads), "qk": [list(x) for x in a.qk], "vo": [list(x) for x in a.vo]}
            for name, a in self.attention.items()
        }
        return {"attention": attention, "ffn": {n: list(k) for n, k in self.ffn.items()}, "facts": dict(self.facts)}


def from_json(document: Mapping[str, Any]) -> Plan:
    """Return the plan written by `Plan.to_json`; raise BadInput naming what is missing or wrong."""
    try:
        attention = {
            name: AttentionPlan(tuple(entry["heads"]), tuple(map(tuple, entry["qk"])), tuple(map(tuple, entry["vo"])))
            for name, entry in document["attention"].items()
        }
        ffn = {name: tuple(kept) for name, kept in document["ffn"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"not a plan: {type(error).__name__} {error}; expected 'attention' and 'ffn' tables") from error
    return Plan(attention, ffn, document.get("facts", {}))


def _above(name: str, plan: AttentionPlan, shape: tuple[int, ...]) -> list[str]:
    heads, qk, vo = shape
    complaints = []
    if plan.heads and plan.heads[-1] >= heads:
        complaints.append(f"{name}: head {plan.heads[-1]} is not below {heads}")
    for kind, lines, width in (("qk", plan.qk, qk), ("vo", plan.vo, vo)):
        worst = max((of_head[-1] for of_head in lines if of_head), default=-1)
        if worst >= width:
            complaints.append(f"{name}: {kind} line {worst} is not below width {width}")
    return complaints


def _check_ascending(name: str, indices: tuple[int, ...]) -> None:
    if any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in indices):
        raise BadInput(f"{name}: {list(indices)} has an element that is not an index >= 0")
    if any(a >= b for a, b in zip(indices, indices[1:], strict=False)):
        raise BadInput(f"{name}: {list(indices)} is not strictly ascending")
