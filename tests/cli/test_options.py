"""The flags' defaults are those of the settings, which are the only place that states them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from tprune.bench.measure.settings import Settings as BenchSettings
from tprune.cli import main as cli
from tprune.pruning.settings import Settings
from tprune.verbs.export import Settings as ExportSettings


@pytest.mark.parametrize(
    ("verb", "settings", "differ", "least"),
    [
        (cli.prune, Settings, {"keep"}, 10),  # None: three flags can set the budget
        (cli.export, ExportSettings, set(), 5),
        (cli.bench, BenchSettings, {"threads", "warmup_ms", "cpus", "limit"}, 6),  # text; by place; text; 200
        (cli.compare, BenchSettings, {"limit"}, 5),
    ],
)
def test_a_flag_has_the_default_of_the_setting(verb: Callable[..., Any], settings: Any, differ: set[str], least: int):
    flags = inspect.signature(verb).parameters
    library = {field.name: field.default for field in fields(settings)}
    shared = {name for name in library if name in flags} - differ
    assert len(shared) >= least
    assert {name: flags[name].default for name in shared} == {name: library[name] for name in shared}
