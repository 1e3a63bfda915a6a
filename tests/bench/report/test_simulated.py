"""Simulations in a report: the paper's targets beside our numbers, in their own section, and what is no simulation."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import DENSE, HALF, quality, write
from tprune.base.errors import BadInput
from tprune.bench.report.evidence import Simulation
from tprune.bench.report.report import SIMULATED, report, simulated


def simulation(network: str = "resnet18-penni", source: str = "trained", **changes: Any) -> dict[str, Any]:
    line = {"network": network, "source": source}
    document = {
        "schema": 1,
        "kind": "simulation",
        "inputs": {network: "c0ffee"},
        "argv": ["tprune", "simulate", f"{network}.json", "--out", "sim"],
        "warnings": [f"{network}: SYNTHETIC densities, our choice."] if source == "synthetic" else [],
        "findings": [f"{network}: ESCALATE simulated at 0.5 ms per image, weights 130.0x smaller."],
        "summary": [
            {**line, "quantity": "compression", "target": {"value": 325, "confidence": "seen"}, "simulated": 130.0},
            {
                **line, "quantity": "latency over dense (eyeriss)", "target": {"value": 17.9, "confidence": "recalled"},
                "simulated": 3.58,
            },
        ],
    }  # fmt: skip
    return document | changes


def save(folder: Path, document: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_a_line_is_target_simulated_and_ratio():
    def cells(document: dict[str, Any]) -> list[list[str]]:
        return simulated("", Simulation.parse(document, Path("report.json")).summary).table.cells()

    assert cells(simulation()) == [
        ["resnet18-penni", "compression", "325x", "in its abstract", "130.00x", "0.40"],
        ["resnet18-penni", "latency over dense (eyeriss)", "17.9x", "given for it, not verified", "3.58x", "0.20"],
    ]
    assert cells(simulation("drawn", "synthetic"))[0][0] == "drawn (SYNTHETIC)"


def test_simulations_stand_beside_what_was_measured(tmp_path):
    runs = write(tmp_path / "runs", [quality(DENSE, 40.0), quality(HALF, 39.0)])
    save(runs / "sim", simulation())
    save(runs / "again", simulation())  # a copy counts once
    save(runs / "drawn", simulation("vgg<16>", "synthetic"))
    document = report([runs], tmp_path / "out")
    assert [(line["network"], line["simulated"]) for line in document["simulated"]] == [
        ("resnet18-penni", 130.0), ("resnet18-penni", 3.58), ("vgg<16>", 130.0), ("vgg<16>", 3.58),
    ]  # fmt: skip
    assert document["warnings"] == ["vgg<16>: SYNTHETIC densities, our choice."]
    assert document["findings"][-2].startswith("resnet18-penni: ESCALATE simulated at")
    assert document["inputs"]["simulation resnet18-penni"] == "c0ffee"
    assert "tprune simulate resnet18-penni.json --out sim" in document["commands"]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    section = text.split(f"## {SIMULATED}")[1].split("\n## ")[0]
    assert "| resnet18-penni | compression | 325x | in its abstract | 130.00x | 0.40 |" in section
    assert (
        "| network | quantity | target (the paper's) | target is | simulated (ours) | simulated / target |" in section
    )
    assert "130.00x" not in text.replace(section, "")  # nowhere among the measured numbers
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"<h2>{SIMULATED}</h2>" in page and "vgg&lt;16&gt; (SYNTHETIC)" in page and "vgg<16>" not in page
    with (tmp_path / "out" / "report.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["dense", "shs-50"]


def test_a_report_without_simulations_says_nothing_of_them(tmp_path):
    document = report([write(tmp_path / "runs", [quality(DENSE, 40.0)])], tmp_path / "out")
    assert document["simulated"] == []
    assert SIMULATED not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_simulations_alone_make_a_report(tmp_path):
    document = report([save(tmp_path / "sim", simulation())], tmp_path / "out")
    assert (document["rows"], document["findings"]) == ([], simulation()["findings"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "130.00x" in page and f"<title>{SIMULATED}</title>" in page


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"summary": None}, "simulation .*report.json' lacks summary"),
        ({"summary": [{"network": "a"}]}, "has a damaged summary: 'source'"),
        ({"summary": ["compression"]}, "has a damaged summary"),
        ({"summary": [{**simulation()["summary"][0], "target": {"value": 3}}]}, "has a damaged summary"),
    ],
)
def test_a_damaged_simulation_is_named(tmp_path, changes, complaint):
    with pytest.raises(BadInput, match=complaint):
        report([save(tmp_path / "sim", simulation(**changes))], tmp_path / "out")
    assert not (tmp_path / "out").exists()
