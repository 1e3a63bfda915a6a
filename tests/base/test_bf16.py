from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tprune.base import bf16
from tprune.base.bf16 import bf16_is_faster


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU tells whether it has bf16")
@pytest.mark.parametrize(("share", "faster"), [(0.25, True), (0.79, True), (0.81, False), (2.0, False)])
def test_the_faster_type_is_found_on_one_thread_though_single_turns_are_held_up(
    share: float, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, threads, now = [0], set[int](), [0.0]

    def work(dtype: torch.dtype) -> Callable[[], None]:
        seconds = 0.004 * (share if dtype is torch.bfloat16 else 1)

        def one() -> None:
            calls[0] += 1
            threads.add(torch.get_num_threads())
            now[0] += seconds + (0.01 if calls[0] % 5 == 0 else 0)

        return one

    monkeypatch.setattr(bf16.time, "perf_counter", lambda: now[0])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert bf16_is_faster(work) is faster
        assert threads == {1} and torch.get_num_threads() == 2
        assert bf16_is_faster(work) is faster and calls == [42]  # measured once
    finally:
        torch.set_num_threads(before)
