"""Simulation from Python: names or workloads in, a typed result with a short repr out."""

from __future__ import annotations

import pytest

from tests.support.accel_layers import conv
from tprune.base.errors import BadInput
from tprune.bench.accel.designs import usual
from tprune.bench.accel.escalate import ESCALATE
from tprune.bench.accel.layer import Workload
from tprune.bench.api import read_network, simulate

SMALL = Workload("small & co", "trained", (conv("first"), conv("second")))


def test_a_workload_on_two_designs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = simulate(SMALL, designs=["sparten", ESCALATE], fidelity="statistical")
    assert [(row.network, row.design) for row in done.rows] == [("small & co", "sparten"), ("small & co", "escalate")]
    assert [row.cycles for row in done.rows] == [one.cycles for one in done.results]
    assert list(tmp_path.iterdir()) == []
    assert repr(done).startswith("Simulation(small & co on sparten ") and repr(done).count("\n") == 0
    assert "<td>small &amp; co</td>" in done._repr_html_()
    assert repr(SMALL) == "Workload(small & co, trained, 2 layers)"
    assert repr(ESCALATE) == "Hardware(escalate, 960 multipliers)"
    assert repr(done.results[1]).startswith("Result(small & co on escalate: ")


def test_what_is_wrong_is_refused():
    with pytest.raises(BadInput, match="fidelity 'rough': must be auto or exact or statistical"):
        simulate(SMALL, designs=["eyeriss"], fidelity="rough")
    with pytest.raises(BadInput, match="network 'lenet' is not known; legal are vgg16-32"):
        read_network("lenet")
    with pytest.raises(BadInput, match="designs is empty"):
        simulate(SMALL, designs=[])
    assert usual() == ("escalate", "eyeriss", "eyeriss-168", "scnn", "sparten")
