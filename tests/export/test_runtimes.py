"""One row of `RUNTIMES`, added from outside, is all that the rest of the package needs to know of a runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.artefacts import write_manifest
from tests.support.runs import DENSE, HALF, timed, write
from tprune.base.errors import BadInput
from tprune.export import runtimes
from tprune.export.manifest import FileEntry
from tprune.export.runtimes import RUNTIMES

ROOT = Path(__file__).resolve().parents[2]
ROW = """
import sys
from dataclasses import replace
from tprune.export.runtimes import RUNTIMES
RUNTIMES["madeup"] = replace(
    RUNTIMES["onnxruntime"], name="madeup", flag="fancy", label="Made-up Engine", program="tprune-madeup",
    requirement="madeup==7", exports=("madeup",), open_translator="tests.export.test_runtimes:open_made_up",
)
"""


def open_made_up(folder: Path, threads: int) -> tuple[str, int]:
    """Stand in for an artefact."""
    return Path(folder).name, threads


def python(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run code after the row was added, in a new process that has imported nothing else."""
    argv = [sys.executable, "-c", ROW + code, *map(str, words)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


CLI = "from tprune.__main__ import main; sys.argv[0] = 'tprune'; sys.exit(main())"


@pytest.mark.parametrize("verb", [("export",), ("cnn", "export")])
def test_the_command_line_offers_it(verb):
    assert "Runtime: onnx or executorch or fancy." in " ".join(python(CLI, *verb, "--help").stdout.split())


def test_a_wrong_runtime_is_refused_with_all_legal_ones(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "madeup", replace(RUNTIMES["onnxruntime"], name="madeup", flag="fancy"))
    assert runtimes.by_flag("fancy").name == "madeup"
    with pytest.raises(BadInput, match="--to 'tflite': must be onnx or executorch or fancy"):
        runtimes.by_flag("tflite")


KNOWN = """
import json
import os
from pathlib import Path
from tests.support.artefacts import write_manifest
from tprune.bench import doctor
from tprune.bench.libraries import wheels
from tprune.bench.measure.tasks import read_subject
from tprune.bench.report.report import report
from tprune.bench.runner.contract import PROGRAMS
from tprune.export.manifest import FileEntry
from tprune.export.marian.open import open_translator
folder, runs, out = map(Path, sys.argv[1:])
folder.mkdir()
write_manifest(folder, {"a.bin": FileEntry("0" * 64, 1)}, "madeup")
assert (read_subject(folder).runtime, open_translator(folder, 3)) == ("madeup", ("mine", 3))
assert (PROGRAMS["madeup"], wheels.INSTALL["madeup"]) == ("tprune-madeup", "madeup==7")
assert [need.name for need in doctor.STEPS["export-fancy"]()] == ["madeup"]
report([runs], out)
"""


def test_artefacts_doctor_runner_and_report_know_it(tmp_path):
    facts = {"runtime": "madeup", "engine": {"name": "madeup", "version": "7.1"}}
    records = [timed(model, block, [5, 6], **facts) for block in range(2) for model in (DENSE, HALF)]
    done = python(KNOWN, tmp_path / "mine", write(tmp_path / "runs", records=records), tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "Made-up Engine 7.1" in (tmp_path / "report" / "report.md").read_text()
    assert {row["runtime"] for row in json.loads((tmp_path / "report" / "report.json").read_text())["rows"]} == {
        "madeup"
    }


def test_without_a_row_it_is_refused(tmp_path):
    with pytest.raises(BadInput, match="'madeup' is not one of onnxruntime, executorch"):
        write_manifest(tmp_path, {"a.bin": FileEntry("0" * 64, 1)}, "madeup")


def test_a_rival_is_called_by_its_own_name():
    assert [runtimes.label(name) for name in ("onnxruntime", "executorch", "ctranslate2")] == [
        "ONNX Runtime", "ExecuTorch", "ctranslate2",
    ]  # fmt: skip


@pytest.mark.parametrize("runtime", RUNTIMES.values())
@pytest.mark.parametrize("field", ["export_translator", "export_classifier", "open_translator", "run_classifier"])
def test_every_function_of_the_table_exists(runtime, field):
    module, _, name = getattr(runtime, field).partition(":")
    path = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")  # read, not imported: that takes torch
    assert f"\ndef {name}(" in path.read_text(encoding="utf-8")
