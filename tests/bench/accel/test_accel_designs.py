"""A design is one module and one row of the table: everything that lists, runs and shows designs finds it there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib.colors
import pytest
from matplotlib.figure import Figure

from tests.support.command import tprune
from tests.support.made_up_design import MADE_UP
from tprune.base.errors import BadInput
from tprune.bench.accel import designs
from tprune.bench.accel.designs import DESIGNS, Place, design

ROOT = Path(__file__).resolve().parents[3]
ROW = Place("tests.support.made_up_design", "MADE_UP")


@pytest.mark.parametrize("name", DESIGNS)
def test_a_row_leads_to_a_design_of_its_name(name):
    assert design(name).name == name and matplotlib.colors.is_color_like(design(name).colour)


def test_the_usual_designs():
    assert designs.usual() == ("escalate", "eyeriss", "eyeriss-168", "scnn", "sparten")


def test_an_unknown_design_is_refused():
    with pytest.raises(BadInput, match="design 'tpu' is not known; legal are escalate, eyeriss"):
        design("tpu")


def test_one_row_is_all_that_a_design_from_outside_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(DESIGNS, "made-up", ROW)
    legends, draw = [], Figure.legend

    def legend(figure, *args, **kwargs):
        made = draw(figure, *args, **kwargs)
        colours = [matplotlib.colors.to_hex(handle.get_facecolor()) for handle in made.get_patches()]
        legends.append(dict(zip((text.get_text() for text in made.get_texts()), colours, strict=False)))
        return made

    monkeypatch.setattr(Figure, "legend", legend)
    out = tmp_path / "out"
    done = tprune("simulate", "resnet18-32", "--design", "eyeriss,made-up", "--out", out, "--json").json
    cycles = {row["design"]: row["cycles"] for row in done["rows"]}
    assert cycles["made-up"] > cycles["eyeriss"] > 0
    assert done["designs"]["made-up"]["lanes"] == {"value": 100, "source": "made up", "confidence": "chosen"}
    assert {"eyeriss": "#999999", "made-up": MADE_UP.colour} in legends
    assert f"{cycles['made-up']:,}" in (out / "report.md").read_text(encoding="utf-8")
    assert "made-up" in (out / "report.html").read_text(encoding="utf-8")


def test_help_lists_every_design_and_loads_neither_numpy_nor_torch():
    code = (
        "import sys; from tprune.bench.accel.designs import DESIGNS, Place\n"
        f"DESIGNS['made-up'] = {ROW!r}\n"
        "from tprune.cli.main import main\n"
        "sys.argv = ['tprune', 'simulate', '--help']\n"
        "try: main()\n"
        "finally: print(*({'numpy', 'torch'} & sys.modules.keys()))"
    )
    env = {"COLUMNS": "200", "PATH": "", "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=env, check=False)
    told = "".join(done.stdout.split())  # the help text is wrapped, at hyphens too
    assert f"commas:{','.join(DESIGNS)},made-up." in told, done.stderr
    assert "numpy" not in done.stdout and "torch" not in done.stdout
