"""Turn line scores and a budget into a plan in which attention stays a dense batched product.

One threshold is bisected over the whole model. At a threshold t, a head stays if the mean score of its lines reaches t.
Inside the kept heads of one attention the lines are ranked; rank by rank (in steps of `round_to`) a width stays if its
mean score over the heads reaches t. The same holds for the neurons of a feed-forward network. A sub-block with nothing
left is skipped as a whole. So layers, encoder and decoder get different ratios, as TPrune's analysis suggests.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tprune.base.errors import BadInput
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.plan import AttentionPlan, Plan
from tprune.pruning.settings import check_keep
from tprune.pruning.sites import Site, sites

Scores = Mapping[str, Tensor]  # site name -> score per line (lines,), comparable over the whole model


def allocate(
    model: PrunedMarianMTModel,
    scores: Scores,
    *,
    keep: float,
    round_to: int = 8,
    facts: Mapping[str, object] | None = None,
) -> Plan:
    """Return the plan that keeps the best lines within a share `keep` of the prunable weights, in (0, 1].

    The plan never exceeds the budget. `round_to` is the multiple (in lines per head, or neurons) that widths are
    rounded to. Raises BadInput for a budget outside (0, 1] and for scores that do not fit or are not finite.
    """
    check_keep(keep)
    if round_to < 1:
        raise BadInput(f"--round-to {round_to}: must be at least 1")
    places = sites(model)
    for site in places:
        if scores[site.name].shape != (site.lines,):
            raise BadInput(f"scores of {site.name}: shape {tuple(scores[site.name].shape)} is not ({site.lines},)")
        if not scores[site.name].isfinite().all():
            raise BadInput(f"scores of {site.name} are not all finite; the weights or the calibration loss are broken")
    described = {**(facts or {}), "keep": keep, "round_to": round_to}
    best = plan_at(model, places, scores, float("-inf"), round_to, described)
    if keep == 1 or not places:
        return best
    total = sum(site.lines * site.weights_per_line for site in places)
    everything = torch.cat([scores[site.name].float() for site in places])
    thresholds = [*everything.sort().values.tolist(), float("inf")]  # infinity drops everything: always within budget
    low, high = 0, len(thresholds) - 1  # `low` keeps enough or too much, `high` too little
    d_model = model.config.d_model
    while low <= high:
        middle = (low + high) // 2
        plan = plan_at(model, places, scores, thresholds[middle], round_to, described)
        if plan.kept_weights(d_model) <= keep * total:
            best, high = plan, middle - 1
        else:
            low = middle + 1
    return best


def plan_at(
    model: PrunedMarianMTModel,
    places: list[Site],
    scores: Scores,
    threshold: float,
    round_to: int,
    facts: Mapping[str, object],
) -> Plan:
    """Return the plan for a threshold on the scores."""
    by_block: dict[str, dict[str, Site]] = {}
    for site in places:
        by_block.setdefault(site.sub_block, {})[site.kind] = site
    attention: dict[str, AttentionPlan] = {}
    ffn: dict[str, tuple[int, ...]] = {}
    for name, kinds in by_block.items():
        if "ffn" in kinds:
            ffn[name] = _top(scores[name].float(), threshold, round_to)
        else:
            attention[name] = _attention(kinds, scores, threshold, round_to)
    _add_empty(model, attention, ffn)
    return Plan(attention, ffn, facts)


def _attention(kinds: dict[str, Site], scores: Scores, threshold: float, round_to: int) -> AttentionPlan:
    qk, vo = (scores[kinds[k].name].float().reshape(kinds[k].heads, -1) for k in ("qk", "vo"))
    head_means = torch.cat([qk, vo], 1).mean(1)
    heads = [int(h) for h in torch.nonzero(head_means >= threshold)[:, 0]]
    if not heads:
        return AttentionPlan((), (), ())
    widths = []
    for of in (qk[heads], vo[heads]):
        ranked = of.sort(1, descending=True).values.mean(0)  # the mean score of the r-th best line of every head
        widths.append(_width(ranked, threshold, round_to) or min(round_to, of.shape[1]))
    qk_lines, vo_lines = (
        tuple(tuple(sorted(of[h].topk(width).indices.tolist())) for h in heads)
        for of, width in ((qk, widths[0]), (vo, widths[1]))
    )
    return AttentionPlan(tuple(heads), qk_lines, vo_lines)


def _top(values: Tensor, threshold: float, round_to: int) -> tuple[int, ...]:
    width = _width(values.sort(descending=True).values, threshold, round_to)
    return tuple(sorted(values.topk(width).indices.tolist())) if width else ()


def _width(ranked: Tensor, threshold: float, round_to: int) -> int:
    """Return how many of the descending scores to keep: steps of `round_to` whose mean reaches the threshold."""
    width = 0
    for chunk in ranked.split(round_to):
        if float(chunk.mean()) < threshold:
            break
        width += len(chunk)
    return width


def _add_empty(
    model: PrunedMarianMTModel, attention: dict[str, AttentionPlan], ffn: dict[str, tuple[int, ...]]
) -> None:
    """Add sub-blocks that were already empty: they have no sites, and stay empty."""
    for side in ("encoder", "decoder"):
        for i, sizes in enumerate(getattr(model.config, f"{side}_sizes")):
            for name in sizes:
                full = f"{side}.layers.{i}.{name}"
                if name == "ffn":
                    ffn.setdefault(full, ())
                else:
                    attention.setdefault(full, AttentionPlan((), (), ()))
