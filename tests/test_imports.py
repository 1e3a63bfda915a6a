"""Who may import whom: the arrows between the packages, and what stays out of the light-weight modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tprune", "cnn", "export", "bench")
FOUNDATION = {
    "tprune.stamp",
    "tprune.errors",
    "tprune.signals",
    "tprune.mcnemar",
    "tprune.processor",
    "tprune.busy",
}  # standard library only, so everybody may
HEAVY = ("torch", "transformers")

# package -> modules (or whole packages) of the siblings that it may import
ALLOWED = {
    "tprune": set(),
    "cnn": FOUNDATION | {"tprune.bf16", "tprune.hoyer", "tprune.pixels", "tprune.state"},
    "export": {"tprune", "cnn"},
    "bench": FOUNDATION
    | {"export.image_manifest", "export.manifest", "export.runtime", "export.targets", "tprune.pixels"},
    "bench.accel": FOUNDATION,
}
LIGHT = ("tprune.stamp", "tprune.errors", "tprune.cli", "tprune.pixels", "export.manifest", "export.runtime")


def modules() -> dict[str, Path]:
    """Return every module of the packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
COMMAND = {
    "tprune.__main__",
    "tprune.cli",
    "tprune.cli_model",
    "tprune.cli_artefact",
    "tprune.cli_compare",
    "tprune.cli_simulate",
    "tprune.cli_translate",
    "tprune.cli_cnn",
    "tprune.cli_cnn_measure",
}
PROGRAMS = {"tprune.rival_hf", "tprune.rival_ctranslate2"}  # started in processes of their own
FREE = COMMAND | PROGRAMS  # may import everybody; nobody imports them


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


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def rule(module: str) -> set[str]:
    return ALLOWED["bench.accel"] if within(module, {"bench.accel"}) else ALLOWED[module.partition(".")[0]]


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FREE])
def test_a_module_imports_only_the_siblings_that_it_may(module):
    own = "bench.accel" if within(module, {"bench.accel"}) else module.partition(".")[0]
    siblings = {name for name in imports(MODULES[module]) if name.partition(".")[0] in PACKAGES}
    wrong = {name for name in siblings if not within(name, {own}) and not within(name, rule(module))}
    assert not wrong, f"{module} may not import {sorted(wrong)}; allowed: {sorted(rule(module))}"


def test_nobody_imports_the_command_line():
    importers = [name for name, path in MODULES.items() if name not in COMMAND and set(imports(path)) & FREE]
    assert not importers


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, {"bench"})])
def test_bench_names_neither_torch_nor_transformers(module):
    assert not [name for name in imports(MODULES[module]) if within(name, set(HEAVY))]


def test_light_modules_load_without_torch_even_indirectly():
    light = [name for name in MODULES if name in LIGHT or within(name, {"bench"})]
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


def test_the_rule_sees_imports_inside_functions(tmp_path):
    file = tmp_path / "late.py"
    file.write_text("def f():\n    from tprune import stamp\n    import torch.nn\n", encoding="utf-8")
    assert list(imports(file)) == ["tprune.stamp", "torch.nn"]
