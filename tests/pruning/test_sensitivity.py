"""The table that an analysis yields: what is derived from it, what it says, and how it is read back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from rich.console import Console

from tprune.base.errors import BadInput
from tprune.pruning.heatmap import draw
from tprune.pruning.sensitivity import TYPES, Block, Row, Sensitivity

ATTENTIONS = ("encoder.layers.0.self_attn", "decoder.layers.0.self_attn", "decoder.layers.0.encoder_attn")
FFNS = ("encoder.layers.0.ffn", "decoder.layers.0.ffn")


def sensitivity(shares: dict[str, float], *, loss: float = 1.0, opposite: bool = True, bleu: float | None = None):
    """Return an analysis at strengths 1 and 2; `shares` says what dies per block type, half of it in the encoder."""
    rows = [Row("dense", "paper", 0, 0, 0.9, 0.9, bleu, ()), Row("none", "paper", 0, 0.01, 1.0, 1.0, bleu, ())]
    for kind, share in shares.items():
        for direction, strength in [("paper", 1.0), ("paper", 2.0), *([("opposite", 2.0)] if opposite else [])]:
            blocks = tuple(
                Block(f"{place}.{kind}", 100, round(100 * share * (0.5 if place.startswith("e") else 1)), 0.5)
                for place in (FFNS if kind.startswith("fc") else ATTENTIONS)
            )
            rows.append(Row(kind, direction, strength, 0.01, loss, loss, bleu, blocks))
    return Sensitivity(tuple(rows), {"steps": 1}, {"id": "0" * 16, "name": "toy"}, {"model": "0" * 16})


PAPER_LIKE = {"q": 0.9, "k": 0.9, "v": 0.6, "o": 0.1, "fc1": 0.1, "fc2": 0.0}


def test_block_names_its_site():
    names = ["encoder.layers.0.self_attn.k", "decoder.layers.1.encoder_attn.o", "decoder.layers.1.ffn.fc2"]
    assert [Block(name, 1, 0, 1.0).site for name in names] == [
        "encoder.layers.0.self_attn.qk", "decoder.layers.1.encoder_attn.vo", "decoder.layers.1.ffn",
    ]  # fmt: skip


def test_strengths_favour_what_dies_easily():
    factors = sensitivity(PAPER_LIKE).strengths()
    assert len(factors) == 8
    assert fmean(factors.values()) == pytest.approx(1)
    assert all(0.5 <= factor <= 2 for factor in factors.values())
    assert factors["decoder.layers.0.self_attn.qk"] > 1 > factors["decoder.layers.0.ffn"]
    assert factors["decoder.layers.0.self_attn.qk"] > factors["encoder.layers.0.self_attn.qk"]


def test_strengths_follow_the_formula():
    """Nothing is clipped here, so the factors stand in the ratio of the eases, written out by hand."""
    factors = sensitivity({"v": 0.5, "o": 0.3}, loss=1.2).strengths()
    encoder = math.exp(-0.2) * (0.25 + 0.15) / 2 + 0.01
    decoder = math.exp(-0.2) * (0.5 + 0.3) / 2 + 0.01
    mean = (encoder + 2 * decoder) / 3
    assert factors["encoder.layers.0.self_attn.vo"] == pytest.approx(encoder / mean)
    assert factors["decoder.layers.0.encoder_attn.vo"] == pytest.approx(decoder / mean)


def test_strengths_are_all_one_when_nothing_died():
    assert list(sensitivity(dict.fromkeys(TYPES, 0.0)).strengths().values()) == pytest.approx([1] * 8)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (PAPER_LIKE, "ours agrees"),
        (dict.fromkeys(TYPES, 0.4), "no clear difference"),
        ({"q": 0.1, "k": 0.1, "v": 0.1, "o": 0.9, "fc1": 0.9, "fc2": 0.9}, "ours disagrees"),
        ({"q": 0.5}, "not compared"),
    ],
)
def test_agreement_says_so(shares, expected):
    sentences = sensitivity(shares).agreement()
    assert "secondary source" in sentences[0]
    assert expected in sentences[1]


def test_agreement_gives_the_numbers():
    text = " ".join(sensitivity(PAPER_LIKE).agreement())
    assert "q 60%" not in text  # three attentions: 0.45, 0.9, 0.9
    for part in ("q 75%", "fc2 0%", "encoder / decoder: q 45% / 90%", "decoder.layers.0.self_attn.q 90%", "Direction:"):
        assert part in text
    assert "not compared" in sensitivity(PAPER_LIKE, opposite=False).agreement()[-1]


def test_written_and_read_back(tmp_path: Path):
    found = sensitivity(PAPER_LIKE, bleu=30.0)
    found.write(tmp_path / "sensitivity.json")
    assert Sensitivity.read(tmp_path) == found
    assert json.loads((tmp_path / "sensitivity.json").read_text())["strengths"].keys() == found.strengths().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "plan"}, "is not a sensitivity file but 'plan'"),
        ({"schema": 99}, "schema 99 is not 1"),
        ({"rows": []}, "first two must be 'dense' and 'none'"),
        ({"rows": [{"block_type": "dense"}]}, "field 'blocks' is missing"),
        ({"model": None}, "damaged sensitivity file"),
    ],
)
def test_wrong_document_is_refused(change, message):
    with pytest.raises(BadInput, match=message):
        Sensitivity.from_json(sensitivity(PAPER_LIKE).to_json() | change)


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "is not JSON"), (b"[1]", "not a sensitivity file but None")]
)
def test_wrong_file_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        Sensitivity.read(tmp_path / "f.json")


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"no\.json' cannot be read: No such file"):
        Sensitivity.read(tmp_path / "no.json")


def test_impossible_block_is_refused():
    with pytest.raises(BadInput, match="3 dead of 2 lines"):
        Block("encoder.layers.0.self_attn.q", 2, 3, 1.0)


def test_table_shows_types_by_strength():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(sensitivity(PAPER_LIKE, loss=1.25, bleu=31.5).table())
    text = console.export_text()
    for part in ("strength 1", "strength 2", "opposite", "75% · 1.250 · 31.5", "dense: 0.900"):
        assert part in text


def test_heatmap_is_a_png(tmp_path: Path):
    draw(sensitivity(PAPER_LIKE), tmp_path / "heat.png")
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["heat.png"]


def test_reading_needs_no_torch():
    code = "import sys, tprune.pruning.sensitivity, tprune.pruning.heatmap; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
