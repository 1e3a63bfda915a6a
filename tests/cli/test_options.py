"""The command line repeats the library's defaults (it must not import the library to know them); they must agree."""

from __future__ import annotations

import inspect
from dataclasses import fields

from tprune.cli import main as cli
from tprune.pruning.prune import Settings


def test_prune_has_the_librarys_defaults():
    flags = inspect.signature(cli.prune).parameters
    library = {field.name: field.default for field in fields(Settings)}
    shared = {name for name in library if name in flags} - {"keep"}  # None there: three flags can set the budget
    assert len(shared) >= 8
    assert {name: flags[name].default for name in shared} == {name: library[name] for name in shared}
