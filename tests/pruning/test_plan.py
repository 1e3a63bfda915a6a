"""A plan refuses to be wrong, says how big it is, and survives JSON."""

from __future__ import annotations

import json

import pytest

from tests.support.marians import PLANS, random_plan
from tprune.base.errors import BadInput
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.plan import AttentionPlan, Plan, from_json
from tprune.pruning.surgery import shapes

SHAPES = {"a": (2, 4, 4), "f": (8,)}


@pytest.mark.parametrize(
    ("heads", "qk", "vo", "complaint"),
    [
        ((1, 0), ((0,), (0,)), ((0,), (0,)), r"AttentionPlan.heads: \[1, 0\] is not strictly ascending"),
        ((-1,), ((0,),), ((0,),), r"AttentionPlan.heads: \[-1\] has an element that is not an index"),
        ((True,), ((0,),), ((0,),), r"AttentionPlan.heads: \[True\] has an element that is not an index"),
        ((0,), ((0,), (1,)), ((0,),), r"AttentionPlan.qk: lines of 2 heads for 1 kept heads"),
        ((0, 1), ((0,), (0, 1)), ((0,), (0,)), r"AttentionPlan.qk: heads of different width \[1, 2\]"),
        ((0,), ((0,),), ((),), r"AttentionPlan.vo: kept heads without a kept line"),
        ((0,), ((2, 2),), ((0, 1),), r"AttentionPlan.qk: \[2, 2\] is not strictly ascending"),
    ],
)
def test_an_impossible_attention(heads: tuple, qk: tuple, vo: tuple, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        AttentionPlan(heads, qk, vo)


def test_an_impossible_feed_forward() -> None:
    with pytest.raises(BadInput, match=r"Plan.ffn\[f\]: \[3, 1\] is not strictly ascending"):
        Plan({}, {"f": (3, 1)})


def test_every_complaint_at_once() -> None:
    plan = Plan({"a": AttentionPlan((2,), ((4,),), ((0,),))}, {"g": (1,)})
    with pytest.raises(BadInput) as caught:  # noqa: PT011 - the message is taken apart below
        plan.check_against(SHAPES)
    for part in (
        "no entry for f",
        "g is not in the model",
        "a: head 2 is not below 2",
        "a: qk line 4 is not below wid",
    ):
        assert part in str(caught.value)


def test_lines_out_of_range() -> None:
    plan = Plan({"a": AttentionPlan((0,), ((0,),), ((4,),))}, {"f": (8,)})
    with pytest.raises(BadInput, match="a: vo line 4 is not below width 4; f: line 8 is not below width 8"):
        plan.check_against(SHAPES)


def test_sizes_by_hand() -> None:
    plan = Plan({"a": AttentionPlan((0, 1), ((0,), (3,)), ((0, 1), (2, 3)))}, {"f": (1, 2, 5)})
    d = 10
    matrices = 2 * (2 * 1 * d) + 2 * (2 * 2 * d) + 2 * (3 * d)  # W_Q, W_K; W_V, W_O; fc1, fc2
    biases = 2 * 1 + 2 * 1 + 2 * 2 + d + 3 + d
    assert plan.kept_weights(d) == matrices
    assert plan.parameters(d) == matrices + biases


@pytest.mark.parametrize("kind", PLANS[2:])
def test_json_and_back(tiny_model, kind: str) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    plan = random_plan(model, 1, kind)
    again = from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    again.check_against(shapes(model))


@pytest.mark.parametrize(
    "document", [{}, {"attention": {"a": {"heads": [0]}}, "ffn": {}}, {"attention": [], "ffn": {}}]
)
def test_not_a_plan(document: dict) -> None:
    with pytest.raises(BadInput, match="not a plan: .* expected 'attention' and 'ffn' tables"):
        from_json(document)


def test_a_plan_with_a_wrong_index_in_json() -> None:
    with pytest.raises(BadInput, match=r"Plan.ffn\[f\]: \['1'\] has an element that is not an index"):
        from_json({"attention": {}, "ffn": {"f": ["1"]}})
