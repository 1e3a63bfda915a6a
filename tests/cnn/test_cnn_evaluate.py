"""Whether two networks differ by more than chance: McNemar's exact test on literals and against all coin tosses."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tprune.cnn.score import Score


def scored(*right: bool) -> Score:
    return Score(torch.tensor(right), 0.0)


def test_accuracy_on_literals():
    score = scored(True, False, True, True)
    assert (score.images, score.accuracy) == (4, 0.75)


def test_p_value_on_literals():
    """One image that only the first gets right and eight that only the second does: 2 (1 + 9) / 2^9."""
    first, second = scored(*[True] * 6, *[False] * 8), scored(*[True] * 5, False, *[True] * 8)
    assert first.p_value(second) == second.p_value(first) == pytest.approx(20 / 512)
    assert first.p_value(first) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_p_value_is_the_share_of_coin_tosses_that_differ_as_much(answers):
    first, second = (scored(*each) for each in zip(*answers, strict=True))
    apart = [mine - theirs for mine, theirs in answers if mine != theirs]
    as_far = [abs(sum(toss)) >= abs(sum(apart)) for toss in itertools.product((-1, 1), repeat=len(apart))]
    assert first.p_value(second) == pytest.approx(sum(as_far) / len(as_far))


def test_ten_thousand_images_all_different():
    assert scored(*[True] * 5100, *[False] * 4900).p_value(scored(*[False] * 5100, *[True] * 4900)) < 0.05


def test_scores_of_different_images_are_refused():
    with pytest.raises(ValueError, match="answers to 2 and to 1 images cannot be compared"):
        scored(True, False).p_value(scored(True))
