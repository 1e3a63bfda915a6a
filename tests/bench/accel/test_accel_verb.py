"""Simulation from Python: names or workloads in, a typed result with a short repr out; a report only on request."""

from __future__ import annotations

import pytest

from tests.support.accel_layers import conv
from tprune.base.errors import BadInput
from tprune.bench.accel.escalate import ESCALATE
from tprune.bench.accel.layer import Workload
from tprune.verbs.simulate import chosen, read, simulate

SMALL = Workload("small & co", "trained", (conv("first"), conv("second")))


def test_a_workload_on_two_designs_without_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = simulate(SMALL, ["sparten", ESCALATE], fidelity="statistical")
    assert [(row.network, row.design) for row in done.rows] == [("small & co", "sparten"), ("small & co", "escalate")]
    assert [row.cycles for row in done.rows] == [one.cycles for one in done.runs[0].results]
    assert done.document is None and list(tmp_path.iterdir()) == []
    assert repr(done).startswith("Simulation(small & co on sparten ") and repr(done).count("\n") == 0
    assert "<td>small &amp; co</td><td>escalate</td>" in done._repr_html_()
    assert repr(SMALL) == "Workload(small & co, trained, 2 layers)"
    assert repr(ESCALATE) == "Hardware(escalate, 960 multipliers)"
    assert repr(done.runs[0].results[1]).startswith("Result(small & co on escalate: ")


def test_a_report_has_the_same_rows(tmp_path):
    done = simulate([SMALL], ["eyeriss"], out=tmp_path / "out", results=tmp_path / "rows.json")
    assert done.document is not None and (tmp_path / "rows.json").is_file()
    assert [row["cycles"] for row in done.document["rows"]] == [row.cycles for row in done.rows]
    assert (tmp_path / "out" / "report.html").is_file()


def test_what_is_wrong_is_refused():
    with pytest.raises(BadInput, match="--fidelity 'rough': must be auto or exact or statistical"):
        simulate(SMALL, ["eyeriss"], fidelity="rough")
    with pytest.raises(BadInput, match="network 'lenet' is not known; legal are vgg16-32"):
        read(["lenet"])
    with pytest.raises(BadInput, match="--design is empty"):
        chosen([])
    assert [one.name for one in chosen()] == ["escalate", "eyeriss", "eyeriss-168", "scnn", "sparten"]
