"""Designs are data with sources; a TOML file overrides constants and nothing else."""

from __future__ import annotations

import pytest

from tprune.base.errors import BadInput
from tprune.bench.accel.designs import DESIGNS, design, from_toml
from tprune.bench.accel.escalate import ESCALATE


@pytest.mark.parametrize("name", DESIGNS)
def test_every_constant_has_a_source_and_a_confidence(name):
    for field, constant in design(name).constants.items():
        assert constant.source, field
        assert constant.confidence in {"seen", "inferred", "recalled", "chosen", "given"}, field


def test_designs_have_equal_resources():
    for name in ("eyeriss", "scnn", "sparten"):
        assert design(name).multipliers == 1024
        for field in ("clock_mhz", "bits", "buffer_bytes", "dram_gb_s"):
            assert design(name).number(field) == ESCALATE.number(field)
    assert ESCALATE.multipliers == 960 and ESCALATE.bytes_per_cycle == 16


def test_a_toml_file_overrides_constants(tmp_path):
    path = tmp_path / "big.toml"
    path.write_text('design = "escalate"\n[constants]\nblocks = 64\ndram_gb_s = 25.6\n')
    found = from_toml(path)
    assert (found.name, found.model.name, found.count("blocks"), found.number("dram_gb_s")) == (
        "big",
        "escalate",
        64,
        25.6,
    )
    assert found.constants["blocks"].source == "big.toml" and found.count("slices") == ESCALATE.count("slices")
    path.write_text('design = "scnn"\nname = "mine"\n[constants]\n')
    assert from_toml(path).name == "mine"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("blocks = ", "cannot be read"),
        ('design = "escalate"', "d.toml: the field 'constants' is missing"),
        ("[constants]\nblocks = 3", "d.toml: the field 'design' is missing; legal are design, name and"),
        ('design = "escalate"\nspeed = 1\n[constants]', "d.toml: unknown field 'speed'"),
        ('design = "tpu"\n[constants]', "design 'tpu' is not known; legal are escalate, eyeriss"),
        ('design = "escalate"\n[constants]\nrows = 3', "escalate has no constant 'rows'; legal are clock_mhz, bits"),
        (
            'design = "escalate"\n[constants]\nblocks = 2.5',
            "constants.blocks is 2.5; it must be a whole number, such as 32",
        ),
        ('design = "escalate"\n[constants]\nblocks = "8"', "constants.blocks is '8'"),
        ('design = "escalate"\n[constants]\nblocks = 0', "Hardware.blocks of .* is 0; it must be above 0"),
        ('design = "scnn"\n[constants]\nqueued = 2', "Hardware.queued of .* is 2; it must be 0 or 1"),
        ('design = "escalate"\nconstants = 3', "d.toml: constants must be a table"),
    ],
)
def test_a_wrong_toml_file_is_refused(tmp_path, text, complaint):
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=complaint):
        from_toml(path)


def test_a_missing_toml_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="hardware .* cannot be read"):
        from_toml(tmp_path / "none.toml")


def test_an_unknown_design_is_refused():
    with pytest.raises(BadInput, match="design 'x' is not known; legal are escalate, "):
        design("x")
