"""`tprune simulate`: the folder it writes, what stands in it, and how a wrong call ends."""

from __future__ import annotations

import csv
import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.accel_layers import conv
from tests.support.command import contents, tprune
from tprune.bench.accel import networks, workload
from tprune.bench.accel.layer import Operand, Workload

FIELDS = "network source design cycles utilisation energy_pj dram_bytes latency_ms compression accuracy target command"
LAYERS = (conv("first", inputs=3, coefficients=None), conv("second", inputs=32), conv("third", inputs=32, kernel=1))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A workload.json of three layers with densities only, said to be of a trained network."""
    path = tmp_path_factory.mktemp("workload") / "small.json"
    workload.write(Workload("small & co", "trained", LAYERS, 0.875), path)
    return path


@pytest.fixture(scope="module")
def written(small, tmp_path_factory) -> Path:
    """The report on that network and on a synthetic one."""
    folder = tmp_path_factory.mktemp("simulated")
    workload.write(Workload("drawn", "synthetic", LAYERS[1:], note="SYNTHETIC densities"), folder / "drawn.json")
    called = tprune(
        "simulate", small, folder / "drawn.json", "--out", folder / "out", "--results", folder / "rows.json"
    )
    assert called.code == 0, called.err
    return folder


def document(written: Path) -> dict:
    return json.loads((written / "out" / "report.json").read_text(encoding="utf-8"))


def test_the_folder_holds_the_report_in_four_forms_and_its_figures(written):
    pictures = {
        f"{kind}-{name}.png"
        for kind in ("layers", "energy", "sensitivity-latency", "sensitivity-energy")
        for name in ("small___co", "drawn")
    }
    assert contents(written / "out") == {"report.html", "report.md", "report.csv", "report.json"} | pictures
    for name in pictures:
        data = (written / "out" / name).read_bytes()
        assert data.startswith(b"\x89PNG") and struct.unpack(">2I", data[16:24]) > (1000, 400)


def test_rows_have_the_agreed_fields(written):
    rows = document(written)["rows"]
    assert list(rows[0]) == FIELDS.split()
    assert [row["design"] for row in rows] == ["escalate", "eyeriss", "eyeriss-168", "scnn", "sparten"] * 2
    assert {(row["network"], row["source"], row["accuracy"]) for row in rows} == {
        ("small & co", "trained", 0.875),
        ("drawn", "synthetic", None),
    }
    assert [row["target"] for row in rows] == [325, None, None, None, None] * 2
    assert rows[0]["command"].startswith("tprune simulate ")
    assert json.loads((written / "rows.json").read_text(encoding="utf-8"))["rows"] == rows
    with (written / "out" / "report.csv").open(encoding="utf-8", newline="") as file:
        assert [float(row["cycles"]) for row in csv.DictReader(file)] == [row["cycles"] for row in rows]


def test_the_books_in_the_report_balance(written):
    found = document(written)
    for row in found["rows"]:
        own = [x for x in found["layers"] if (x["network"], x["design"]) == (row["network"], row["design"])]
        assert sum(layer["cycles"] for layer in own) == row["cycles"]
        assert sum(sum(layer["energy_pj"].values()) for layer in own) == pytest.approx(row["energy_pj"])
        assert sum(sum(layer["dram_bytes"].values()) for layer in own) == row["dram_bytes"]
        for layer in own:
            assert layer["useful"] + sum(layer["losses"].values()) == layer["lane_cycles"]


def test_targets_are_the_papers_and_simulated_numbers_ours(written):
    found = document(written)
    lines = [line for line in found["summary"] if line["network"] == "small & co"]
    assert [line["quantity"] for line in lines] == [
        "compression", "latency over dense (eyeriss)", "energy over dense (eyeriss)",
        "latency over dense (eyeriss-168)", "energy over dense (eyeriss-168)",
        "latency over sparse (scnn, sparten)", "energy over sparse (scnn, sparten)",
    ]  # fmt: skip
    assert [line["target"]["value"] for line in lines] == [325, 17.9, 8.3, 17.9, 8.3, 2.16, 3.77]
    assert [line["target"]["confidence"] for line in lines] == ["seen", *["recalled"] * 6]
    for name in ("report.md", "report.html"):
        text = (written / "out" / name).read_text(encoding="utf-8")
        assert "target (the paper" in text and "simulated (ours)" in text and "given for it, not verified" in text


def test_synthetic_densities_are_marked_wherever_their_numbers_stand(written):
    found = document(written)
    assert found["warnings"] == ["drawn: SYNTHETIC densities."]
    assert all("SYNTHETIC" in sentence for sentence in found["findings"] if sentence.startswith("drawn"))
    assert not any("SYNTHETIC" in sentence for sentence in found["findings"] if sentence.startswith("small"))
    text = (written / "out" / "report.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith(("| drawn", "## Designs: drawn", "## Energy by component: drawn")):
            assert "SYNTHETIC" in line


def test_the_html_is_one_well_formed_page(written):
    text = (written / "out" / "report.html").read_text(encoding="utf-8")
    body = text[text.index("<main>") : text.index("</main>") + len("</main>")]
    tree = ElementTree.fromstring(re.sub(r"<(img|source)([^>]*)>", r"<\1\2/>", body))
    assert "small & co" in "".join(tree.itertext()) and "http" not in text
    assert len(tree.findall(".//img")) == 8


def test_validation_and_constants_are_in_the_report(written):
    found = document(written)
    assert len(found["checks"]) == 11 and all(check["passed"] for check in found["checks"])
    assert found["designs"]["escalate"]["adders"]["confidence"] == "chosen"
    assert {row["format"] for row in found["sizes"]} == {"bit mask", "run length", "coordinates"}


def test_json_is_the_report(small, tmp_path):
    called = tprune("simulate", small, "--out", tmp_path / "out", "--design", "escalate,scnn", "--json")
    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert called.json == found and found["sweep"] == []  # nothing to sweep against without a dense design


def test_a_dry_run_writes_nothing(small, tmp_path):
    called = tprune("simulate", small, "resnet18-32", "--out", tmp_path / "out", "--dry-run", "--json")
    assert called.json["networks"] == {"small & co": 3, "resnet18-32": 21}
    assert contents(tmp_path) == set()


def test_a_toml_file_adds_a_design(small, tmp_path):
    (tmp_path / "wide.toml").write_text('design = "escalate"\n[constants]\nadders = 8\n')
    call = ("simulate", small, "--out", tmp_path / "out", "--design", "escalate", "--hardware", tmp_path / "wide.toml")
    rows = tprune(*call, "--json").json["rows"]
    assert [row["design"] for row in rows] == ["escalate", "wide"]


def test_exact_fidelity_can_be_asked_for(small, tmp_path):
    call = ("simulate", small, "--design", "scnn", "--json", "--out")
    asked = tprune(*call, tmp_path / "exact", "--fidelity", "exact").json
    assert asked["fidelity"] == {"small & co": "exact"}
    assert tprune(*call, tmp_path / "auto").json["fidelity"] == {"small & co": "statistical"}


def test_real_masks_are_counted_exactly_by_themselves(tmp_path):
    layer = LAYERS[1]
    mask = np.zeros((layer.shape.outputs, layer.shape.depth, 3, 3))
    mask[0] = 1  # one dense filter: what a density alone would never say
    masked = replace(layer, weights=Operand.of(mask), activations=Operand(1.0))
    workload.write(Workload("masked", "trained", (masked,)), tmp_path / "masked.json")
    call = ("simulate", tmp_path / "masked.json", "--design", "sparten-plain", "--json", "--out")
    exact, drawn = (tprune(*call, tmp_path / kind, "--fidelity", kind).json for kind in ("auto", "statistical"))
    assert exact["fidelity"] == {"masked": "exact"} and exact["warnings"] == []
    assert exact["layers"][0]["compute_cycles"] > 2 * drawn["layers"][0]["compute_cycles"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("lenet",), "network 'lenet' is not known; legal are vgg16-32"),
        (("none.json",), "workload 'none.json' cannot be read"),
        (("none.onnx",), "'none.onnx' is not an ONNX model"),
        (("vgg16-32", "--design", "tpu"), "design 'tpu' is not known; legal are escalate"),
        (("vgg16-32", "--design", ","), "--design is empty; name at least one"),
        (("vgg16-32", "--fidelity", "rough"), "--fidelity 'rough': must be auto or exact or statistical"),
        (("vgg16-32", "--hardware", "none.toml"), "hardware 'none.toml' cannot be read"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    tprune("simulate", *words, "--out", "out").check_failed(2, complaint)
    assert contents(tmp_path) == set()


def test_two_designs_of_one_name_and_a_full_folder_are_refused(small, tmp_path):
    (tmp_path / "d.toml").write_text('design = "scnn"\nname = "scnn"\n[constants]\n')
    call = ("simulate", small, "--design", "scnn")
    tprune(*call, "--hardware", tmp_path / "d.toml", "--out", tmp_path / "out").check_failed(2, "are called 'scnn'")
    tprune(*call, "--out", tmp_path).check_failed(2, "exists and is not empty")


def test_a_buffer_too_small_for_one_tile_is_refused(small, tmp_path):
    (tmp_path / "tiny.toml").write_text('design = "escalate"\n[constants]\nline_bytes = 8\n')
    call = ("simulate", small, "--design", "eyeriss", "--hardware", tmp_path / "tiny.toml", "--out", tmp_path / "out")
    tprune(*call).check_failed(2, "layer 'second': line_bytes = 8 is too small for one tile")
    assert contents(tmp_path) == {"tiny.toml"}


def test_a_network_of_many_layers_still_fits_its_figure(tmp_path):
    many = replace(networks.named("resnet152-32"), layers=tuple(conv(f"layer{n}", inputs=16) for n in range(70)))
    workload.write(many, tmp_path / "many.json")
    called = tprune("simulate", tmp_path / "many.json", "--design", "escalate,eyeriss", "--out", tmp_path / "out")
    assert called.code == 0 and (tmp_path / "out" / "layers-resnet152-32.png").is_file()
