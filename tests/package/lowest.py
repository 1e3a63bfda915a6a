"""Run the quick tests with the lowest release of every direct dependency: `python -m tests.package.lowest FOLDER`.

FOLDER becomes a virtual environment. torch is the release that is installed here, since every other one is a download
of gigabytes; constraints.txt names the lowest that pyproject.toml allows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (f"{ROOT}[datasets,demo]", "pip>=24", "pytest>=9,<10", "pytest-xdist>=3.8,<4", "hypothesis>=6.130,<7")
TESTS = (
    *("tests/base", "tests/marian", "tests/pruning/test_plan.py", "tests/pruning/test_surgery.py"),
    *("tests/cnn/test_cnn_count.py", "tests/export/test_export.py", "tests/export/test_runtime.py"),
    *("tests/bench/accel/test_accel_onnx.py", "tests/bench/libraries/test_elf.py", "tests/bench/report"),
)


def main(folder: Path) -> int:
    """Make the environment, print what is in it, run the tests, and return pytest's exit code."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    constraints = folder.with_suffix(".txt")
    constraints.write_text(f"torch=={metadata.version('torch')}\n", encoding="utf-8")
    environment = {**os.environ, "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS") or _find_links()}
    uv = [sys.executable, "-m", "uv"]
    python = folder / "bin" / "python"
    lowest = ["--resolution", "lowest-direct", "--constraint", constraints, "--editable"]
    for command in (
        ["venv", "--quiet", "--allow-existing", "--python", sys.executable, folder],
        ["pip", "install", "--quiet", "--python", python, *lowest, *PACKAGES],
        ["pip", "list", "--python", python],
    ):
        subprocess.run([*uv, *command], env=environment, check=True)
    words = ["--numprocesses", "logical", "--maxprocesses", "4", "-m", "not slow and not phone"]
    return subprocess.run([python, "-m", "pytest", *words, *TESTS], cwd=ROOT, check=False).returncode


def _find_links() -> str:
    """Return the folders of wheels that pip is configured with, since uv does not read pip's configuration."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    return ",".join(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
