"""Batches: everything once an epoch, within the budget, the same on every run, padded as the loss expects."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from tprune.marian.batches import IGNORED, collate, in_order, schedule

pairs = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=40)
quick = settings(max_examples=30, derandomize=True, database=None, deadline=None)


def one_epoch(lengths: list, batches: list[list[int]]) -> None:
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))


def check_budget(lengths: list, batches: list[list[int]], tokens: int) -> None:
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(max(lengths[i]) for i in batch) <= tokens


@quick
@given(pairs, st.integers(1, 120), st.integers(0, 5))
def test_every_epoch_covers_everything_within_the_budget(lengths: list, tokens: int, seed: int) -> None:
    stream = schedule(lengths, tokens=tokens, seed=seed)
    for _ in range(2):
        epoch: list[list[int]] = []
        while sum(map(len, epoch)) < len(lengths):
            epoch.append(next(stream))
        one_epoch(lengths, epoch)
        check_budget(lengths, epoch, tokens)


@quick
@given(pairs, st.integers(1, 120))
def test_in_order_covers_everything_shortest_first(lengths: list, tokens: int) -> None:
    batches = in_order(lengths, tokens=tokens)
    one_epoch(lengths, batches)
    check_budget(lengths, batches, tokens)
    targets = [lengths[i][1] for batch in batches for i in batch]
    assert targets == sorted(targets)


LENGTHS = [(i % 13 + 1, i % 7 + 1) for i in range(60)]


def first(count: int, seed: int) -> list[list[int]]:
    return list(islice(schedule(LENGTHS, tokens=40, seed=seed), count))


def test_the_seed_decides() -> None:
    assert first(40, 1) == first(40, 1)
    assert first(40, 1) != first(40, 2)


def test_epochs_differ() -> None:
    batches = first(200, 3)
    epoch = next(n for n in range(1, 200) if sum(map(len, batches[:n])) == len(LENGTHS))
    assert batches[:epoch] != batches[epoch : 2 * epoch]


def test_a_pair_longer_than_the_budget_stands_alone() -> None:
    assert in_order([(50, 50), (1, 1)], tokens=10) == [[1], [0]]


def test_collate_by_hand() -> None:
    batch = collate([[5, 6, 0], [7, 0]], [[8, 0], [9, 3, 0]], pad=99, start=98)
    assert batch.source.tolist() == [[5, 6, 0], [7, 0, 99]]
    assert batch.source_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.decoder_input.tolist() == [[98, 8, 99], [98, 9, 3]]
    assert batch.labels.tolist() == [[8, 0, IGNORED], [9, 3, 0]]
