"""What an engine says of an artefact whose manifest lies is one line of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import tprune, write_data
from tprune.base.errors import BadInput, WorkFailed
from tprune.export.marian.open import engine_errors


def rename(document: dict[str, Any]) -> None:
    document["tensors"]["decoder_step"]["inputs"][0]["name"] = "nobody"


def shrink(document: dict[str, Any]) -> None:
    for port in document["tensors"]["decoder_step"]["inputs"]:
        port["shape"] = [size + 1 if isinstance(size, int) and size > 1 else size for size in port["shape"]]


def forget(document: dict[str, Any]) -> None:
    document["tensors"]["encoder"]["outputs"].pop()


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
@pytest.mark.parametrize("lie", [rename, shrink, forget])
def test_a_manifest_that_lies(tiny_artefact, tmp_path: Path, runtime: str, lie: Callable[[Any], None]) -> None:
    if runtime == "executorch":
        pytest.importorskip("executorch")
    folder = tmp_path / "artefact"
    shutil.copytree(tiny_artefact(runtime), folder)
    document = json.loads((folder / "manifest.json").read_text())
    lie(document)
    (folder / "manifest.json").write_text(json.dumps(document))
    done = tprune("evaluate", folder, "--data", write_data(tmp_path / "data"), "--limit", 1)
    if done.code:  # what nobody reads may be a lie and do no harm
        assert done.err.splitlines()[-1].startswith("tprune: ") and "Traceback" not in done.err
        assert "; export the artefact again" in done.err or ": export it again" in done.err
    elif runtime == "onnxruntime":
        assert lie is rename  # Python binds the token by its own name


def test_only_what_an_engine_says_is_put_into_words() -> None:
    with pytest.raises(WorkFailed, match=r"artefact 'a' does not run here: RuntimeError: bad graph; its manifest"):
        with engine_errors("a"):
            raise RuntimeError("bad graph\nat line 3")
    for ours in (BadInput("x"), WorkFailed("x"), FileNotFoundError("x"), KeyboardInterrupt("x")):
        with pytest.raises(type(ours), match="^x$"), engine_errors("a"):
            raise ours
