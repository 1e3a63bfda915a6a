"""`tprune.cnn` as a Python package: lazy public names, cheap to import, never torch without its repaired operator."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.test_imports import MODULES, within
from tprune import cnn
from tprune.base.errors import BadInput
from tprune.cnn.network import Entry

ROOT = Path(__file__).resolve().parents[2]


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_importable_and_listed():
    assert dir(cnn) == cnn.__all__ == sorted(cnn._PUBLIC)
    assert {
        "train",
        "compress",
        "quantise",
        "evaluate",
        "load",
        "save",
    } <= set(dir(cnn))
    assert all(getattr(cnn, name).__name__ == name for name in cnn.__all__ if name != "load_images")
    with pytest.raises(AttributeError, match="'tprune.cnn' has no attribute 'prune'; it has Compression, DeepHoyer"):
        cnn.prune  # noqa: B018


def test_type_checkers_see_every_public_name():
    tree = ast.parse((ROOT / "cnn" / "__init__.py").read_text(encoding="utf-8"))
    names = [a.asname or a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names]
    assert set(cnn.__all__) <= set(names)


def test_no_module_shadows_a_public_name():
    assert not {f"tprune.cnn.{name}" for name in cnn.__all__} & MODULES.keys()


def loaded_with(module: str) -> set[str]:
    """Return what a module of `tprune.cnn` imports at its top level, through others of them too."""
    names, todo = set(), [module]
    while todo:
        for node in ast.parse(MODULES[todo.pop()].read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                source = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                for name in (source, *(f"{source}.{alias.name}" for alias in node.names)):
                    if name not in names and name in MODULES and within(name, "tprune.cnn"):
                        todo.append(name)
                    names.add(name)
    return names


def test_every_module_with_torch_repairs_its_operator_first():
    found = {name: loaded_with(name) for name in MODULES if within(name, "tprune.cnn") and name != "tprune.cnn"}
    with_torch = {name for name, names in found.items() if "torch" in names} - {"tprune.cnn.strided"}
    assert len(with_torch) > 10
    assert {name for name in with_torch if "tprune.cnn.strided" not in found[name]} == set()


def test_the_operator_is_repaired_on_first_use_and_when_torch_is_there_already():
    code = "import sys, tprune.cnn; print('torch' in sys.modules); tprune.cnn.fresh; import tprune.cnn.strided as s; "
    assert ran(code + "print(s.mend.cache_info().currsize)").split() == ["False", "1"]
    assert ran("import torch, sys, tprune.cnn; print('tprune.cnn.strided' in sys.modules)") == "True"


def test_results_have_one_line_reprs():
    images = cnn.Images(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4), tuple("abcd"), "four")
    assert repr(images) == "Images(four: 4 of 3 x 32 x 32, 4 classes)"
    network = cnn.fresh("resnet20", images)
    assert repr(network) == "Network(resnet20, images 3 x 32 x 32, 4 classes, 0 steps)"
    assert repr(cnn.evaluate(network, images)).startswith("Score(25.00 % of 4 images right, loss ")
    entry = Entry(verb="train", epochs=3, accuracy_held_out=0.5)
    assert repr(entry) == "<train: 3 epochs, 50.00 % of the held-out images right>"


def test_training_takes_settings_by_name():
    images = cnn.Images(torch.zeros(12, 1, 28, 28, dtype=torch.uint8), torch.arange(12) % 2, ("a", "b"), "twelve")
    network = cnn.fresh("lenet-300-100", images)
    done = cnn.train(network, images, held=images, epochs=1, batch=4)
    assert (done["recipe"]["epochs"], done["recipe"]["batch"], done["recipe"]["optimiser"]) == (1, 4, "adam")
    with pytest.raises(BadInput, match="lr: give either a recipe or its settings"):
        cnn.train(network, images, cnn.Recipe(1), held=images, lr=1.0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("evaluate", "nosuch", "--data", "x/y"), "a trained network: it does not exist; `tprune cnn train`"),
        (("train", "--net", "nosuch", "--data", "x/y", "--out", "o"), "there is no network 'nosuch'"),
        (("train", "--net", "lenet-5", "--data", "nosuch", "--out", "o"), "data 'nosuch' is neither a local folder"),
        (("train", "--net", "lenet-5", "--data", "x/y", "--out", "o", "--method", "m"), "there is no method 'm'"),
        (("train", "--net", "lenet-5", "--data", "x/y", "--out", "o", "--lr", "0"), "lr 0.0 must be above 0"),
        (("compress", "nosuch", "--cut", "1", "--data", "x/y", "--out", "o"), "'nosuch' is not the folder"),
        (("quantise", "nosuch", "--data", "x/y", "--out", "o"), "'nosuch' is not the folder"),
        (("pace", "--net", "nosuch", "--data", "x/y"), "there is no network 'nosuch'"),
        (("workload", "nosuch", "--data", "x/y", "--out", "o"), "'nosuch' is not the folder"),
        (("export", "nosuch", "--out", "o"), "'nosuch' is not the folder"),
    ],
)
def test_a_wrong_path_or_flag_is_refused_before_torch_is_imported(words, part):
    code = f"""
import io, sys
from contextlib import redirect_stderr
from tprune.cli.main import main
sys.argv = ["tprune", "cnn", *{words!r}]
err = io.StringIO()
try:
    with redirect_stderr(err):
        main()
except SystemExit as end:
    print(end.code, "torch" in sys.modules, err.getvalue())
"""
    told = ran(code)
    assert told.startswith("2 False tprune: ") and part in told
