"""`Sensitivity`: the result of BSSL. Per run and block the share of dead lines and the quality, and factors for SHS.

Torch-free.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from tprune.base import html
from tprune.base.errors import BadInput
from tprune.base.stamp import SCHEMA, stamp, write_json
from tprune.pruning.settings import TYPES

KIND = "sensitivity"
EASY, HARD = ("q", "k", "v"), ("o", "fc1", "fc2")  # as reported for the paper
SITE_KINDS = {"q": "qk", "k": "qk", "v": "vo", "o": "vo"}
LOW, HIGH = 0.5, 2.0  # a site's strength factor stays in here
SMOOTHING = 0.01  # added to every ease: hardly any dead lines means no preference
CLEAR = 0.05  # smaller differences of dead shares (or log prices) count as none
REPORTED = (
    "Reported for the paper (secondary source): W_Q, W_K and W_V become sparse to some extent, W_O, FFN1 and FFN2 "
    "hardly do; layers, and encoder and decoder, need different ratios; lines are columns of W_Q, W_K, W_V, FFN1 and "
    "rows of W_O, FFN2."
)


@dataclass(frozen=True, slots=True)
class Block:
    """One matrix after a run, such as `decoder.layers.2.encoder_attn.v`: its number of lines, and of dead lines.

    `norm` is the root mean square of its line norms, relative to before the run.
    """

    name: str
    lines: int
    dead: int
    norm: float

    def __post_init__(self) -> None:
        if not 0 <= self.dead <= self.lines or not self.lines:
            raise BadInput(f"Block {self.name}: {self.dead} dead of {self.lines} lines cannot be")

    @property
    def dead_share(self) -> float:
        return self.dead / self.lines

    @property
    def type(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def site(self) -> str:
        """The name of the site whose coupled lines this block's lines belong to."""
        sub_block, _, kind = self.name.rpartition(".")
        return f"{sub_block}.{SITE_KINDS[kind]}" if kind in SITE_KINDS else sub_block


@dataclass(frozen=True, slots=True)
class Row:
    """One run. `block_type` is `dense` (no training), `none` (training without penalty), one of TYPES, or `all`.

    The strength of the penalty was `strength * unit`; at `unit` the model's median line dies within the budget.
    Losses are nats per target token on dev: as trained, and with the dead lines set to zero. `bleu` is greedy, with the
    dead lines set to zero; None if not measured.
    """

    block_type: str
    direction: str
    strength: float
    unit: float
    dev_loss: float
    dev_loss_zeroed: float
    bleu: float | None
    blocks: tuple[Block, ...]

    @property
    def dead_share(self) -> float:
        """The share of all penalised lines that are dead; 0 for a run without penalty."""
        lines = sum(block.lines for block in self.blocks)
        return sum(block.dead for block in self.blocks) / lines if lines else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values; `dead_share` is for readers and is not read back."""
        return {**asdict(self), "dead_share": round(self.dead_share, 6)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Return the row that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        blocks = tuple(
            Block(str(b["name"]), int(b["lines"]), int(b["dead"]), float(b["norm"])) for b in values["blocks"]
        )
        bleu = None if values["bleu"] is None else float(values["bleu"])
        strength, unit, loss, zeroed = (float(values[n]) for n in ("strength", "unit", "dev_loss", "dev_loss_zeroed"))
        return cls(str(values["block_type"]), str(values["direction"]), strength, unit, loss, zeroed, bleu, blocks)


@dataclass(frozen=True)
class Sensitivity:
    """All runs of one analysis. Row 0 is the dense model, row 1 the same training without any penalty."""

    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]  # id, name
    inputs: Mapping[str, str]  # name -> id of model and data

    def __post_init__(self) -> None:
        if [row.block_type for row in self.rows[:2]] != ["dense", "none"]:
            raise BadInput("Sensitivity.rows: the first two must be 'dense' and 'none' (trained without penalty)")

    def __repr__(self) -> str:
        dead = {kind: _dead(rows) for kind in TYPES if (rows := self.runs(types=[kind]))}
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in dead.items())
        return f"Sensitivity({self.model['name']!r}, {len(self.rows)} runs; dead lines on average: {shares or 'none'})"

    def _repr_html_(self) -> str:
        rows = (
            (row.block_type, row.direction, f"{row.strength:g}", f"{row.dead_share:.0%}", _quality(row))
            for row in self.rows
        )
        return html.table(
            f"Sensitivity of {self.model['name']}",
            ("block", "direction", "strength", "dead lines", "dev loss with them zeroed"),
            rows,
        )

    @property
    def dense(self) -> Row:
        return self.rows[0]

    @property
    def unpenalised(self) -> Row:
        return self.rows[1]

    def runs(self, *, direction: str = "paper", types: Iterable[str] = TYPES) -> list[Row]:
        """Return the penalised runs of one direction, in the order they were made."""
        wanted = set(types)
        return [row for row in self.rows[2:] if row.direction == direction and row.block_type in wanted]

    def damage(self, row: Row) -> float:
        """Return the cost of the penalty in nats: dev loss with dead lines zeroed minus that of the unpenalised run."""
        return row.dev_loss_zeroed - self.unpenalised.dev_loss

    def strengths(self) -> dict[str, float]:
        """Return the strength factor of every measured site for SHS, in [0.5, 2], mean 1.

            ease(block) = mean over strengths of  dead share(block) * exp(-max(0, damage(run)))
            ease(site)  = mean over its (two) blocks
            factor      = clip(c * (ease(site) + 0.01), 0.5, 2),  c such that the factors' mean is 1

        exp(-damage) is the share of the probability of a right token that is left, so a death that ruins the model
        counts little. Only single-type runs in the paper's direction enter. The formula is this toolkit's own; the
        paper's is not public.
        """
        by_block: dict[Block | str, list[float]] = defaultdict(list)
        by_site: dict[str, list[float]] = defaultdict(list)
        for row in self.runs():
            for block in row.blocks:
                by_block[block.name].append(block.dead_share * math.exp(-max(0.0, self.damage(row))))
        for block in {block.name: block for row in self.runs() for block in row.blocks}.values():
            by_site[block.site].append(fmean(by_block[block.name]))
        return _normalised({site: fmean(eases) + SMOOTHING for site, eases in by_site.items()})

    def agreement(self) -> list[str]:
        """Return the findings reported for the paper, and for each whether this analysis agrees."""
        return [
            REPORTED,
            *_compare_types(self),
            *_compare_layers(self),
            *_compare_sides(self),
            *_compare_directions(self),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `sensitivity.json`: stamp, model, settings, rows and derived values."""
        return {
            **stamp(KIND, self.inputs),
            "model": dict(self.model),
            "settings": dict(self.settings),
            "rows": [row.to_json() for row in self.rows],
            "strengths": {site: round(factor, 4) for site, factor in self.strengths().items()},
            "agreement": self.agreement(),
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "document") -> Sensitivity:
        """Return the analysis in a document of `to_json`; derived values are recomputed. Raises BadInput otherwise."""
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind != KIND:
            raise BadInput(f"{where} is not a {KIND} file but {kind!r}; `tprune analyse` writes sensitivity.json")
        if document.get("schema") != SCHEMA:
            raise BadInput(
                f"{where}: schema {document.get('schema')!r} is not {SCHEMA}; analyse again with this version"
            )
        try:
            rows = tuple(Row.from_json(row) for row in document["rows"])
            return cls(rows, dict(document["settings"]), dict(document["model"]), dict(document["inputs"]))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadInput(f"{where} is a damaged {KIND} file: {reason}") from error

    @classmethod
    def read(cls, path: Path | str) -> Sensitivity:
        """Read a `sensitivity.json`, or that of a folder. Raises BadInput."""
        path = Path(path)
        path = path / "sensitivity.json" if path.is_dir() else path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"sensitivity {str(path)!r} cannot be read: {error.strerror}") from error
        except ValueError as error:  # not UTF-8, or not JSON
            raise BadInput(f"sensitivity {str(path)!r} is not JSON: {error}") from error
        return cls.from_json(document, repr(str(path)))

    def write(self, path: Path | str) -> None:
        """Write `sensitivity.json`, whole or not at all."""
        write_json(path, self.to_json())

    def table(self) -> Table:
        """Return block type x strength for the terminal: dead lines, dev loss with them zeroed, BLEU if measured."""
        strengths = sorted({row.strength for row in self.rows[2:]})
        table = Table(
            title="Dead lines · dev loss with them zeroed" + (" · BLEU" if self.dense.bleu is not None else ""),
            caption=f"dense: {_quality(self.dense)} · same training, no penalty: {_quality(self.unpenalised)}",
        )
        table.add_column("block")
        table.add_column("direction")
        for strength in strengths:
            table.add_column(f"strength {strength:g}", justify="right", no_wrap=True)
        cells = {(row.block_type, row.direction, row.strength): row for row in self.rows[2:]}
        for block_type, direction in dict.fromkeys((kind, way) for kind, way, _ in cells):
            found = [cells.get((block_type, direction, strength)) for strength in strengths]
            texts = [f"{row.dead_share:4.0%} · {_quality(row)}" if row else "" for row in found]
            table.add_row(block_type, direction, *texts)
        return table


def _quality(row: Row) -> str:
    return f"{row.dev_loss_zeroed:.3f}" + (f" · {row.bleu:.1f}" if row.bleu is not None else "")


def _normalised(eases: Mapping[str, float]) -> dict[str, float]:
    """Return clip(c * ease) with the c, by bisection, that makes the mean 1; it exists because LOW < 1 < HIGH."""
    if not eases:
        return {}
    low, high = LOW / max(eases.values()), HIGH / min(eases.values())  # all at LOW; all at HIGH
    for _ in range(60):
        middle = math.sqrt(low * high)
        mean = fmean(min(max(middle * ease, LOW), HIGH) for ease in eases.values())
        low, high = (middle, high) if mean < 1 else (low, middle)
    return {site: min(max(low * ease, LOW), HIGH) for site, ease in eases.items()}


def _compare_types(found: Sensitivity) -> list[str]:
    """Compare Q, K and V with O and the feed-forward networks: dead share, and cost of a dead line."""
    by_type = {t: found.runs(types=[t]) for t in TYPES if found.runs(types=[t])}
    easy, hard = found.runs(types=EASY), found.runs(types=HARD)
    if not easy or not hard:
        return ["Block types: not compared, both of Q/K/V and O/FFN have to be analysed."]
    shares = ", ".join(f"{t} {_dead(rows):.0%}" for t, rows in by_type.items())
    prices = ", ".join(f"{t} {_price(found, rows):.2f}" for t, rows in by_type.items())
    damages = ", ".join(f"{t} {fmean(found.damage(row) for row in rows):+.3f}" for t, rows in by_type.items())
    low, high = _price(found, easy), _price(found, hard)
    return [
        f"Block types, by dead lines: ours {_verdict(_dead(easy) - _dead(hard))}. Mean over the strengths: "
        f"Q/K/V {_dead(easy):.0%}, O/FFN {_dead(hard):.0%} ({shares}).",
        f"Block types, by price: ours {_verdict(math.log(high / low) if low and high else 0.0)}. Dev loss in nats per "
        f"token for a thousand dead lines (each of d_model weights): Q/K/V {low:.2f}, O/FFN {high:.2f} ({prices}).",
        f"Cost of the whole run against the same training without penalty, mean over the strengths: {damages} nats.",
    ]


def _price(found: Sensitivity, rows: list[Row]) -> float:
    """Return the damage of the runs per thousand dead lines; 0 when nothing died."""
    dead = sum(block.dead for row in rows for block in row.blocks)
    return 1000 * sum(max(0.0, found.damage(row)) for row in rows) / dead if dead else 0.0


def _compare_layers(found: Sensitivity) -> list[str]:
    """Compare the blocks of one type over the layers."""
    spreads = []
    for kind in {row.block_type: None for row in found.runs()}:
        shares = _by_block(found.runs(types=[kind]))
        most, least = max(shares, key=lambda n: shares[n]), min(shares, key=lambda n: shares[n])
        spreads.append((shares[most] - shares[least], kind, most, least, shares))
    if not spreads:
        return []
    spread, kind, most, least, shares = max(spreads, key=lambda s: s[0])
    return [
        f"Layers: ours {_verdict(spread)}. The widest spread is in {kind}: "
        f"{most} {shares[most]:.0%}, {least} {shares[least]:.0%} dead lines, mean over the strengths."
    ]


def _compare_sides(found: Sensitivity) -> list[str]:
    """Compare encoder and decoder, per block type."""
    gaps = {}
    for kind in {row.block_type: None for row in found.runs()}:
        shares = _by_block(found.runs(types=[kind]))
        sides = [[s for name, s in shares.items() if name.startswith(side)] for side in ("encoder", "decoder")]
        if all(sides):
            gaps[kind] = (fmean(sides[0]), fmean(sides[1]))
    if not gaps:
        return []
    widest = max(abs(encoder - decoder) for encoder, decoder in gaps.values())
    listed = ", ".join(f"{kind} {encoder:.0%} / {decoder:.0%}" for kind, (encoder, decoder) in gaps.items())
    return [f"Encoder and decoder: ours {_verdict(widest)}. Dead lines, encoder / decoder: {listed}."]


def _compare_directions(found: Sensitivity) -> list[str]:
    """Compare the paper's direction with the opposite one, on the runs that both have."""
    others = {(row.block_type, row.strength): row for row in found.runs(direction="opposite")}
    both = [(row, others[key]) for row in found.runs() if (key := (row.block_type, row.strength)) in others]
    if not both:
        return ["Direction: not compared, the opposite one was not run."]
    ours, other = [row for row, _ in both], [row for _, row in both]
    costs = [fmean(found.damage(row) for row in rows) for rows in (ours, other)]
    return [
        f"Direction: at equal strength the paper's lines are {_dead(ours):.0%} dead at {costs[0]:+.3f} nats, the "
        f"opposite ones {_dead(other):.0%} at {costs[1]:+.3f}. Only the paper's can be cut without touching "
        "the residual width."
    ]


def _verdict(difference: float) -> str:
    if difference >= CLEAR:
        return "agrees"
    return "disagrees" if difference <= -CLEAR else f"shows no clear difference (below {CLEAR:g})"


def _dead(rows: list[Row]) -> float:
    return fmean(row.dead_share for row in rows)


def _by_block(rows: list[Row]) -> dict[str, float]:
    """Return block -> mean dead share over the runs."""
    shares: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for block in row.blocks:
            shares[block.name].append(block.dead_share)
    return {name: fmean(values) for name, values in shares.items()}
