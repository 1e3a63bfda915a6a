"""How busy other programs are, from given texts of /proc/stat and on this machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tprune.base import busy
from tprune.base.busy import Others, busy_seconds

STAT = """cpu  900 10 90 8000 500 5 5 0 0 0
cpu0 400 10 40 4000 300 5 5 40 0 0
cpu1 500 0 50 4000 200 0 0 0 0 0
intr 12345 0
"""


def test_what_is_idle_or_waits_for_a_disk_is_not_busy():
    assert busy_seconds(STAT, {0}, 100) == 5.0
    assert busy_seconds(STAT, {1}, 100) == 5.5
    assert busy_seconds(STAT, {0, 1, 7}, 100) == 10.5


@pytest.mark.parametrize("stat", ["", "cpu0 0 0 0 0 0 0 0 0 0 0\n", "cpu 1 2 3 4 5 6 7 8\n", "\n\n"])
def test_a_system_that_does_not_say(stat):
    assert busy_seconds(stat, {0}, 100) is None


def test_only_the_time_between_two_looks_counts(monkeypatch):
    looks = iter([(10.0, 3.0), (12.0, 6.0), (14.0, 5.9), (14.0, 9.0), None])
    monkeypatch.setattr(busy, "_foreign", lambda: next(looks))
    others = Others()
    assert [others.look() for _ in range(5)] == [None, 1.5, 0.0, None, None]


def test_what_this_process_does_is_not_of_others(monkeypatch):
    clock, used = iter([1.0, 3.0]), iter([(1.0, 0.0, 0), (0.0, 0.0, 0), (2.5, 0.5, 0), (0.0, 0.0, 0)])
    stats = iter([10.0, 14.0])
    monkeypatch.setattr(busy.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(busy.resource, "getrusage", lambda who: next(used))
    monkeypatch.setattr(busy, "busy_seconds", lambda *_: next(stats))
    others = Others()
    assert (others.look(), others.look()) == (None, 1.0)  # 4 s busy less 2 s of ours, in 2 s


def test_a_busy_program_is_seen():
    loop = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        loop.stdout.readline()
        found = busy.busy_cpus(0.3)
    finally:
        loop.kill()
        loop.communicate()
    if found is None:
        pytest.skip("this system does not say how busy its CPUs are")
    assert found > 0.2


def test_without_proc_nobody_waits(monkeypatch):
    monkeypatch.setattr(busy, "_foreign", lambda: None)
    assert busy.busy_cpus(60) is None
