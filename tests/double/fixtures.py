"""The doubles that tests ask for by name; a test that asks is skipped where no double can run, and told why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .device import Double, started
from .missing import Missing
from .server import Server, serving


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield an adb server of the tests' own; everything that adb writes is below its environment's HOME."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(serving(tmp_path_factory.mktemp("adb")))
        except Missing as problem:
            pytest.skip(str(problem))
        yield server


@pytest.fixture(scope="session")
def _start(adb_server: Server) -> Iterator[Callable[..., Double]]:
    with ExitStack() as stack:
        yield lambda **settings: _started(stack, adb_server, **settings)


@pytest.fixture(scope="session")
def double(_start: Callable[..., Double]) -> Double:
    """Return a connected arm64-v8a double, the same for all tests: leave it as it was."""
    return _start()


@pytest.fixture(scope="session")
def quick_double(_start: Callable[..., Double]) -> Double:
    """Return a connected x86_64 double, the same for all tests: leave it as it was."""
    return _start(abi="x86_64")


@pytest.fixture
def doubles(adb_server: Server) -> Iterator[Callable[..., Double]]:
    """Yield `started` without its `with`: each double is connected, and ends with the test."""
    with ExitStack() as stack:
        yield lambda **settings: _started(stack, adb_server, **settings)


def _started(stack: ExitStack, server: Server, **settings: Any) -> Double:
    try:
        double = stack.enter_context(started(**settings))
    except Missing as problem:
        pytest.skip(str(problem))
    stack.callback(server.disconnect, double)
    server.connect(double)
    return double


@pytest.fixture(scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder that has what the user's has, but for the locks: each serial would leave one there."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tprune"
    own = tmp_path_factory.mktemp("cache") / "tprune"
    (own / "locks").mkdir(parents=True)
    for entry in users.iterdir() if users.is_dir() else ():
        if not (own / entry.name).exists():
            (own / entry.name).symlink_to(entry)
    return own.parent


@pytest.fixture
def at_adb(adb_server: Server, _own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Let this process, too, talk to that server for one test, as a user with another home."""
    for name in [name for name in os.environ if name.startswith(("ADB", "ANDROID"))]:
        monkeypatch.delenv(name)
    for name in ("ADB_SERVER_SOCKET", "HOME", "TMPDIR"):
        monkeypatch.setenv(name, adb_server.environment[name])
    monkeypatch.setenv("XDG_CACHE_HOME", str(_own_cache))
    return adb_server
