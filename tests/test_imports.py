"""Who may import whom: one ordered list of packages, and what stays out of the light-weight modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"tprune": "tprune", "tprune.cnn": "cnn", "tprune.export": "export", "tprune.bench": "bench"}
# A module imports from its own package and from those above it in this list.
ORDER = (
    "tprune.base",
    "tprune.marian",
    "tprune.pruning",
    "tprune.cnn",
    "tprune.export",
    "tprune.bench.accel",
    "tprune.bench.libraries",
    "tprune.bench.runner",
    "tprune.bench.measure",
    "tprune.bench.phone",
    "tprune.bench.report",
    "tprune.bench.compare",
    "tprune.bench",
    "tprune.rivals",
    "tprune.demo",
    "tprune.verbs",
    "tprune.cli",
    "tprune",
)
# What a package leaves alone although the order allows it.
BANS = {
    "tprune.cnn": ("tprune.marian", "tprune.pruning"),
    "tprune.bench.accel": ("tprune.marian", "tprune.pruning", "tprune.cnn", "tprune.export"),
    "tprune.bench": ("tprune.marian", "tprune.pruning", "tprune.cnn", "torch", "transformers"),
}
HEAVY = ("torch", "transformers")
LIGHT = (
    "tprune.base.stamp",
    "tprune.base.errors",
    "tprune.base.pixels",
    "tprune.cli.main",
    "tprune.export.manifest",
    "tprune.export.ort.runtime",
)


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


MODULES = modules()


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def home(module: str) -> str:
    """Return the package of `ORDER` that a module belongs to: the longest that fits."""
    return max((package for package in ORDER if within(module, package)), key=len)


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, at any depth; `from a import b` gives a.b when that is a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrow"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and "import_module" in (
            getattr(node.func, "attr", ""),
            getattr(node.func, "id", ""),
        ):
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield str(name.value)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_its_own_package_or_a_lower_one(module):
    own = home(module)
    ours = {name for name in imports(MODULES[module]) if within(name, "tprune") and name != "tprune"}
    wrong = {name for name in ours if ORDER.index(home(name)) > ORDER.index(own)}
    assert not wrong, f"{module} may not import {sorted(wrong)}: higher in the order than {own}"


@pytest.mark.parametrize("module", [name for name in MODULES if any(within(name, ban) for ban in BANS)])
def test_bans(module):
    banned = [name for package, names in BANS.items() if within(module, package) for name in names]
    wrong = {name for name in imports(MODULES[module]) if any(within(name, ban) for ban in banned)}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


def test_no_module_imports_itself_through_others():
    arrows = {name: set(imports(path)) & MODULES.keys() for name, path in MODULES.items()}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in sorted(arrows[name]):
                walk(other, (*path, name))
            done.add(name)

    for name in MODULES:
        walk(name, ())


def test_the_wheel_holds_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    data = ["tprune.android_runner"]  # C++ sources
    assert sorted(listed) == sorted([*data, *(name for name, path in MODULES.items() if path.name == "__init__.py")])


def test_files_and_functions_are_short():
    long = []
    for name, path in MODULES.items():
        source = path.read_text(encoding="utf-8")
        if source.count("\n") > 400:
            long.append(f"{name}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{name}.{node.name}: {node.end_lineno - node.lineno + 1} lines")
    assert not long, "longer than 400 lines a file or 60 a function:\n" + "\n".join(long)


def test_light_modules_load_without_torch_even_indirectly():
    light = [name for name in MODULES if name in LIGHT or within(name, "tprune.bench")]
    assert loaded_after(light) == []


def test_importing_the_package_alone_loads_no_torch():
    assert loaded_after(["tprune"]) == []


def loaded_after(names: list[str]) -> list[str]:
    """Return the heavy packages that a fresh interpreter holds after importing `names`."""
    lines = [f"import {name}" for name in names]
    lines.append(f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_rule_sees_imports_inside_functions_and_by_name(tmp_path):
    file = tmp_path / "late.py"
    file.write_text(
        'def f():\n    from tprune.base import stamp\n    import torch.nn\n    import_module("tprune.cnn")\n',
        encoding="utf-8",
    )
    assert list(imports(file)) == ["tprune.base.stamp", "torch.nn", "tprune.cnn"]
