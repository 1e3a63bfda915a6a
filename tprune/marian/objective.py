"""The training loss: label-smoothed cross-entropy, optionally mixed with a teacher's distribution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tprune.marian.batches import IGNORED, Batch
from tprune.marian.model import PrunedMarianMTModel

EXCLUDED = -1e4  # logit of probability 0 in float32; a larger one would cancel digits of sums


def target_logits(model: PrunedMarianMTModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits (tokens, vocabulary) and labels (tokens,) of the target positions that are not padding."""
    hidden = model.model(
        input_ids=batch.source, attention_mask=batch.source_mask, decoder_input_ids=batch.decoder_input, use_cache=False
    ).last_hidden_state
    real = batch.labels != IGNORED
    return model.lm_head(hidden[real]) + model.final_logits_bias, batch.labels[real]


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy with a smoothed, optionally teacher-mixed target; the gradient p - target is made in place.

    The logits are the largest tensor of a step. Autograd's chain of log-sum-exp, gather and mean reads them a dozen
    times, this function five times.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float, pad: int, soft: Tensor | None) -> Tensor:
        x = logits.float()
        x[:, pad] = EXCLUDED
        log_p = x.log_softmax(-1)
        rest = log_p.shape[1] - 1  # <pad> takes no part
        nll = -log_p.gather(1, labels[:, None])[:, 0]
        loss = (1 - smoothing) * nll - smoothing * (log_p.sum(-1) - log_p[:, pad]) / rest
        if soft is not None:  # soft = share * teacher distribution; the hard target keeps 1 - share
            share = soft.sum(-1)
            loss = (1 - share) * loss - (soft * log_p).sum(-1)
        gradient = log_p.exp_()
        hard = 1.0 if soft is None else 1 - share[:, None]
        gradient -= hard * (smoothing / rest)
        if soft is not None:
            gradient -= soft
        gradient[torch.arange(len(labels)), labels] -= (1.0 if soft is None else 1 - share) * (1 - smoothing)
        gradient[:, pad] = 0
        ctx.save_for_backward((gradient / len(labels)).to(logits.dtype))
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None, None


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float, pad: int, soft: Tensor | None = None) -> Tensor:
    """Return the mean over tokens (nats) of -sum_v target_v log p_v, a scalar; `<pad>` is excluded.

    logits (tokens, vocabulary), labels (tokens,); float32 logits lose their `<pad>` column in place. The target is
    (1 - smoothing) on the label and `smoothing` spread evenly; `soft` (tokens, vocabulary), if given, is a teacher's
    distribution times its share of the target.
    """
    return _CrossEntropy.apply(logits, labels, smoothing, pad, soft)


def teacher_target(teacher: PrunedMarianMTModel, batch: Batch, share: float) -> Tensor:
    """Return `share` times the teacher's next-token distribution (tokens, vocabulary), `<pad>` at zero."""
    with torch.no_grad():
        logits = target_logits(teacher, batch)[0].float()
        logits[:, teacher.config.pad_token_id] = EXCLUDED
        return logits.softmax(-1).mul_(share)


class Objective(nn.Module):
    """The loss of one step as one module, so that data-parallel training wraps all of it."""

    def __init__(
        self,
        model: PrunedMarianMTModel,
        *,
        smoothing: float,
        teacher: PrunedMarianMTModel | None = None,
        distill_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.model = model
        self.smoothing = smoothing
        self.distill_share = distill_share
        self._teacher: list[Any] = [teacher]  # in a list, so that its weights are not parameters of this module

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss to differentiate, a scalar in nats per token."""
        pad = self.model.config.pad_token_id
        logits, labels = target_logits(self.model, batch)
        teacher = self._teacher[0]
        soft = teacher_target(teacher, batch, self.distill_share) if teacher is not None else None
        return cross_entropy(logits, labels, smoothing=self.smoothing, pad=pad, soft=soft)


@torch.inference_mode()
def dev_loss(model: PrunedMarianMTModel, batches: list[Batch]) -> float:
    """Return the mean negative log-likelihood per target token (nats, no smoothing), in evaluation mode."""
    training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches:
        logits, labels = target_logits(model, batch)
        total += float(cross_entropy(logits, labels, smoothing=0.0, pad=model.config.pad_token_id)) * len(labels)
        tokens += len(labels)
    model.train(training)
    return total / max(tokens, 1)
