"""Optional packages: the message names the extra that installs a missing one."""

from __future__ import annotations

import json

import pytest

from tprune.base import extras
from tprune.base.errors import BadInput


def test_an_installed_module_is_returned():
    assert extras.load("json", "demo", "this") is json


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_names_its_extra(module):
    with pytest.raises(BadInput, match=r"the demo needs the package no_such_package: pip install 'tprune\[demo\]'"):
        extras.load(module, "demo", "the demo")


def test_a_broken_package_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "broken_one.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        extras.load("broken_one", "demo", "this")
