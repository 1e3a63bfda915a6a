"""The loss and its hand-written gradient against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import MarianConfig

from tests.support.marians import configs, few, stock
from tprune.marian.batches import IGNORED, collate
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.objective import Objective, cross_entropy, dev_loss, target_logits, teacher_target

PAD = 4


def naive(logits, labels, smoothing, soft=None):
    """Cross-entropy with the target spelled out as a table; <pad> is cut from the vocabulary beforehand."""
    words = [i for i in range(logits.shape[1]) if i != PAD]
    log_p = logits[:, words].log_softmax(-1)
    hard = torch.full_like(logits, smoothing / len(words))
    hard[torch.arange(len(labels)), labels] += 1 - smoothing
    target = hard[:, words]
    if soft is not None:
        target = (1 - soft.sum(-1, keepdim=True)) * target + soft[:, words]
    return -(target * log_p).sum(-1).mean()


@few
@given(st.integers(0, 100), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([None, 0.0, 0.5, 1.0]))
def test_value_and_gradient(seed: int, smoothing: float, share: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(6, 9, generator=generator)).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 5, 8])
    soft = None
    if share is not None:
        soft = torch.randn(6, 9, generator=generator)
        soft[:, PAD] = -torch.inf
        soft = share * soft.softmax(-1)
    expected = naive(logits, labels, smoothing, soft)
    (their_gradient,) = torch.autograd.grad(expected, logits)
    value = cross_entropy(logits * 1, labels, smoothing=smoothing, pad=PAD, soft=soft)
    (our_gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-6, rtol=1e-5)
    assert (our_gradient[:, PAD] == 0).all()


def test_without_smoothing_it_is_pytorchs() -> None:
    logits, labels = torch.randn(5, 8), torch.tensor([0, 1, 2, 3, 7])
    masked = logits.clone()
    masked[:, PAD] = -torch.inf
    expected = functional.cross_entropy(masked, labels)
    torch.testing.assert_close(cross_entropy(logits, labels, smoothing=0.0, pad=PAD), expected)


def test_half_precision_keeps_its_gradient_type() -> None:
    logits = torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 1, 2, 3, 7]), smoothing=0.1, pad=PAD)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16


@few
@given(configs())
def test_target_logits_are_the_models(config: MarianConfig) -> None:
    model = PrunedMarianMTModel.from_stock(stock(config))
    batch = collate([[3, 4, 0], [5, 0]], [[6, 7, 8, 0], [9, 0]], pad=22, start=22)
    logits, labels = target_logits(model, batch)
    assert labels.tolist() == [6, 7, 8, 0, 9, 0]
    full = model(input_ids=batch.source, attention_mask=batch.source_mask, decoder_input_ids=batch.decoder_input).logits
    torch.testing.assert_close(logits, full[batch.labels != IGNORED])
    nll = torch.stack([functional.cross_entropy(_without(row, 22), label) for row, label in zip(logits, labels)])  # noqa: B905
    assert dev_loss(model, [batch, batch]) == pytest.approx(float(nll.detach().mean()), abs=1e-5)


def _without(row, pad):
    row = row.clone()
    row[pad] = -torch.inf
    return row


@pytest.fixture
def model(tiny_model) -> PrunedMarianMTModel:
    return PrunedMarianMTModel.from_stock(tiny_model)


@pytest.fixture
def batch(model):
    pad = model.config.pad_token_id
    return collate([[3, 4, 0], [5, 0]], [[6, 7, 8, 0], [9, 0]], pad=pad, start=pad)


def test_the_teachers_share(model, batch) -> None:
    soft = teacher_target(model, batch, 0.3)
    torch.testing.assert_close(soft.sum(-1), torch.full((6,), 0.3))
    assert (soft[:, model.config.pad_token_id] == 0).all()
    assert not soft.requires_grad


def test_the_teacher_is_not_trained(model, batch, tiny_model) -> None:
    teacher = PrunedMarianMTModel.from_stock(tiny_model)
    objective = Objective(model, smoothing=0.0, teacher=teacher, distill_share=1.0)
    assert {id(p) for p in objective.parameters()} == {id(p) for p in model.parameters()}
    objective(batch).backward()
    assert all(p.grad is None for p in teacher.parameters())
    # a student that is its teacher has nothing to learn: the loss is the teacher's entropy, its gradient zero
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-5


def test_dev_loss_leaves_the_mode_alone(model, batch) -> None:
    model.train()
    dev_loss(model, [batch])
    assert model.training
    assert dev_loss(model, []) == 0
