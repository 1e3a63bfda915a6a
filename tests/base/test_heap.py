"""Freed memory stays with the process, so that the next step finds its pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tprune.base import heap

FAULTS = """
import resource, sys, torch
from tprune.base import heap
if sys.argv[1] == "keep":
    assert heap.keep()
torch.set_num_threads(1)
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4_000_000)  # 16 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)  # the second time
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap can be told")
def test_kept_memory_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072")  # as it is before it moves by itself
    assert faults("keep") < 0.1 * faults("leave")


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert heap.keep() is False
