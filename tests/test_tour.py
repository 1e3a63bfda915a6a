"""The notebook of the documentation runs, without network, and its stored outputs are those of its cells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOUR = ROOT / "docs" / "tour.ipynb"
RUN = """
import json, sys
from pathlib import Path
from tests.support.notebook import run
print(json.dumps(run(Path(sys.argv[1]))))
"""


def shown(notebook: dict[str, Any]) -> list[int]:
    """Return the number of outputs of every code cell; their content differs from run to run."""
    return [len(cell["outputs"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_tour_runs() -> None:
    done = subprocess.run([sys.executable, "-c", RUN, str(TOUR)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    stored, fresh = json.loads(TOUR.read_text(encoding="utf-8")), json.loads(done.stdout)
    assert shown(stored) == shown(fresh), "store the outputs: python -m tests.support.notebook docs/tour.ipynb"
    assert all(shown(stored)), "a cell shows nothing"
