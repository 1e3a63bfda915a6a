"""Run a notebook without Jupyter: `python -m tests.support.notebook docs/tour.ipynb` stores the outputs in it."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def outputs(code: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one cell; return what it prints and the value of a last expression, as nbformat 4 stores them."""
    body = ast.parse(code).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    found: list[dict[str, Any]] = []
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)  # noqa: S102 - our own notebook
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # noqa: S307
    if text := printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        found.append({"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": data})
    return found


def run(path: Path) -> dict[str, Any]:
    """Return the notebook with fresh outputs; its cells run in an empty folder."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
            for number, cell in enumerate(cells, 1):
                cell["outputs"], cell["execution_count"] = outputs("".join(cell["source"]), names), number
                for output in cell["outputs"]:
                    if "execution_count" in output:
                        output["execution_count"] = number
        finally:
            os.chdir(before)
    return notebook


if __name__ == "__main__":
    file = Path(sys.argv[1]).resolve()
    file.write_text(json.dumps(run(file), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
