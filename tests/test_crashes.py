"""`make test` goes on after a test process crashed or hung: that test fails by its name, all others run once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFTEST = """
import os, time
from pathlib import Path

MARKS = Path(__file__).parent / "marks"


def mark(name):
    (MARKS / name).touch()


def wait(name):
    for _ in range(30_000):
        if (MARKS / name).exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited five minutes for {name}")


def pytest_runtest_logstart(nodeid):
    if "PYTEST_XDIST_WORKER" in os.environ:
        with (MARKS / "ran").open("a") as ran:
            ran.write(f"{nodeid}\\n")
"""
CRASHES = {
    "test_early.py": """
import os

def test_1(): pass
def test_aborts(): os.abort()
def test_3(): pass
def test_4(): pass
""",
    "test_often.py": """
import ctypes, os, pytest

@pytest.fixture(scope="module")
def costly(): return "built once more in the next process"

@pytest.fixture
def broken(): os.kill(os.getpid(), 9)

@pytest.fixture
def ending():
    yield
    os.abort()

def test_1(costly): pass
def test_reads_nothing(costly): ctypes.string_at(0)
def test_3(costly): pass
def test_is_killed_in_its_fixture(broken): pass
def test_aborts_when_done(ending): pass
class TestsOfAClass:
    @pytest.mark.parametrize("word", ["a::b", "c d"])
    def test_6(self, costly, word): pass
""",
    "test_late.py": """
import os

def test_1(): pass
def test_aborts(): os.abort()
""",
    "test_alone.py": "def test_1(): pass\n",
    "test_always.py": """
import os, pytest

@pytest.mark.parametrize("number", range(4))
def test_aborts(number): os.abort()
""",
    "test_fails.py": "def test_1(): assert False, 'as any test fails'\n",
    "test_more.py": "def test_1(): pass\ndef test_2(): pass\n",
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a tree of tests as `make test` does, but always in so many processes."""
    words = re.search(r"-m pytest (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert words is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["COLUMNS"] = "200"
    (tmp_path / "tests" / "marks").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def run(
        files: dict[str, str], *more: str, processes: int = 2, conftest: str = ""
    ) -> subprocess.CompletedProcess[str]:
        environment["PYTEST_XDIST_AUTO_NUM_WORKERS"] = str(processes)
        for name, text in {**files, "conftest.py": CONFTEST + conftest}.items():
            (tmp_path / "tests" / name).write_text(text)
        command = [sys.executable, "-m", "pytest", *words[1].split(), "-p", "no:cacheprovider", *more]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )

    return run


def check(done: subprocess.CompletedProcess[str], folder: Path, crashed: set[str], count: str, tests: int) -> None:
    """Assert who failed by a crash, what the last line counts, and that all tests were started once."""
    assert done.returncode == 1, done.stdout + done.stderr
    said = re.findall(r"FAILED (\S+) - worker 'gw\d+' crashed while running '(\S+)'", done.stdout)
    assert sorted(said) == [(name, name) for name in sorted(crashed)], done.stdout
    assert re.search(rf"^{count} in ", done.stdout, re.MULTILINE), done.stdout
    ran = (folder / "tests" / "marks" / "ran").read_text().splitlines()
    assert len(ran) == len(set(ran)) == tests


def test_each_crash_costs_its_test(run: Run, tmp_path: Path) -> None:
    crashed = {
        "tests/test_early.py::test_aborts",
        "tests/test_often.py::test_reads_nothing",
        "tests/test_often.py::test_is_killed_in_its_fixture",
        "tests/test_often.py::test_aborts_when_done",
        "tests/test_late.py::test_aborts",
        *(f"tests/test_always.py::test_aborts[{number}]" for number in range(4)),
    }
    # The test that crashed when it was done had passed before.
    check(run(CRASHES), tmp_path, crashed, "10 failed, 12 passed", 21)


def test_a_crash_while_the_successor_of_another_collects(run: Run, tmp_path: Path) -> None:
    """Both processes die, the second before the successor of the first knows its tests."""
    files = {
        "test_first.py": "import os\ndef test_aborts(): os.abort()\ndef test_2(): pass\n",
        "test_second.py": (
            "import os\nfrom conftest import wait\ndef test_aborts(): wait('gw2'); os.abort()\ndef test_2(): pass\n"
        ),
        "test_third.py": "def test_1(): pass\ndef test_2(): pass\n",
        "test_fourth.py": "def test_1(): pass\n",
    }
    slow = """
def pytest_collection_modifyitems(config):
    name = config.workerinput["workerid"]
    mark(name)
    if name == "gw2":
        wait("gw3")  # the successor of the second
"""
    crashed = {"tests/test_first.py::test_aborts", "tests/test_second.py::test_aborts"}
    check(run(files, conftest=slow), tmp_path, crashed, "2 failed, 5 passed", 7)


def test_a_test_that_hangs_says_where_and_costs_itself(run: Run, tmp_path: Path) -> None:
    """With one process, whose successor has but one test left of the file."""
    files = {
        "test_first.py": "import time\ndef test_hangs(): time.sleep(600)\ndef test_2(): pass\n",
        "test_second.py": "def test_1(): pass\n",
    }
    done = run(files, "-o", "faulthandler_timeout=4", processes=1)  # how it ends is as for all tests
    check(done, tmp_path, {"tests/test_first.py::test_hangs"}, "1 failed, 2 passed", 3)
    assert re.search(r'Timeout \(0:00:04\)!\n.*test_first\.py", line 2 in test_hangs', done.stderr, re.DOTALL)


def test_tests_that_hang_are_ended_at_all(pytestconfig: pytest.Config) -> None:
    assert 600 <= float(pytestconfig.getini("faulthandler_timeout")) <= 1800
    assert pytestconfig.getini("faulthandler_exit_on_timeout") is True
