"""Scores of lines, comparable over the whole model; `tprune.pruning.criteria` lists the criteria that use them.

Criteria with a penalty train first and then rank lines by the weight that is left (`tprune.pruning.penalty`); without
training steps they use the scores here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprune.marian.batches import Batch
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.objective import cross_entropy, target_logits
from tprune.pruning.sites import line_norms, line_sums, site_parameters, sites

LineScores = dict[str, Tensor]  # site name -> (lines,)


@dataclass(frozen=True)
class Evidence:
    """What a criterion may use besides the model: calibration batches and a seed."""

    batches: Sequence[Batch] = ()
    seed: int = 0


def relative_norms(model: PrunedMarianMTModel, evidence: Evidence) -> LineScores:
    """Return every line's norm relative to the root mean square norm of its site, so that sites are comparable."""
    found = {site.name: line_norms(model, site) for site in sites(model)}
    return {name: norms / norms.square().mean().sqrt().clamp_min(1e-12) for name, norms in found.items()}


def taylor(model: PrunedMarianMTModel, evidence: Evidence) -> LineScores:
    """Return the mean over batches of (sum over a line's weights of w * dL/dw)^2 (Molchanov et al., CVPR 2019)."""
    totals = {site: torch.zeros(site.lines) for site in sites(model)}
    model.eval()
    for batch in evidence.batches:
        logits, labels = target_logits(model, batch)
        loss = cross_entropy(logits, labels, smoothing=0.0, pad=model.config.pad_token_id)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for site, total in totals.items():
                members = site_parameters(model, site)
                total += line_sums(members, _first_order).square().cpu()
    model.zero_grad()
    return {site.name: total / max(len(evidence.batches), 1) for site, total in totals.items()}


def _first_order(parameter: Tensor) -> Tensor:
    """Return w * dL/dw; zero where no gradient arrives (an encoder that no cross-attention reads)."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter * parameter.grad


def random_scores(model: PrunedMarianMTModel, evidence: Evidence) -> LineScores:
    """Return uniform random scores in [0, 1) from the evidence's seed."""
    generator = torch.Generator().manual_seed(evidence.seed)
    return {site.name: torch.rand(site.lines, generator=generator) for site in sites(model)}
