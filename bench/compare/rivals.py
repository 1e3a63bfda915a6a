"""Rivals: other tools that run the same model, measured like artefacts, each by its own program.

    programs(chosen("hf,ctranslate2"))  # runtime -> argv, for `host.run`

The programs follow the runner's contract (`tprune.bench.runner.loop`), so blocks, memory and samples are recorded as
for any artefact.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import BadInput
from tprune.bench.measure.tasks import Subject

FILE = "rival.json"  # tprune.rivals.write writes it


@dataclass(frozen=True)
class Rival:
    """Another tool: its name in `--rivals` and in tables, its package (a record's `runtime`) and its precisions.

    `method` says how it is run, for the report.
    """

    name: str
    short: str
    package: str
    precisions: tuple[str, ...]
    program: str
    method: str

    @property
    def installed(self) -> bool:
        """Whether its package is installed, without importing it."""
        return importlib.util.find_spec(self.package) is not None


RIVALS = (
    Rival(
        "hf",
        "hf",
        "transformers",
        ("fp32",),
        "tprune.rivals.hf",
        "eager PyTorch, `generate` in inference mode, `<pad>` forbidden",
    ),
    Rival(
        "ctranslate2",
        "ct2",
        "ctranslate2",
        ("fp32", "int8"),
        "tprune.rivals.ctranslate2",
        "one translator, `translate_batch` of one sentence, kernels for this CPU as it chooses itself",
    ),
)


def chosen(names: str | None) -> tuple[Rival, ...]:
    """Return the rivals in a list such as "hf,ctranslate2"; None selects the installed ones.

    Raise BadInput for an unknown or repeated name, and for a package that is not installed.
    """
    if names is None:
        return tuple(rival for rival in RIVALS if rival.installed)
    known = {rival.name: rival for rival in RIVALS}
    words = [word.strip() for word in names.split(",")]
    if unknown := [word for word in words if word not in known]:
        raise BadInput(f"--rivals {unknown[0]!r}: must be of {', '.join(known)}, or several with commas")
    if len(set(words)) < len(words):
        raise BadInput(f"--rivals {names!r} names one twice")
    found = tuple(known[word] for word in words)
    if missing := [rival.package for rival in found if not rival.installed]:
        raise BadInput(
            f"--rivals: {', '.join(missing)} is not installed: pip install 'tprune[rivals]', or leave it out"
        )
    return found


def programs(rivals: Sequence[Rival]) -> dict[str, tuple[str, ...]]:
    """Return the argv of the program of each runtime."""
    return {rival.package: (sys.executable, "-m", rival.program) for rival in rivals}


def read(folder: Path) -> Subject:
    """Read a folder written by `tprune.rivals.write`."""
    facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Subject(
        folder=folder,
        id=facts["id"],
        model=facts["model"],
        runtime=facts["runtime"],
        precision=facts["precision"],
        bytes=facts["bytes"],
        max_source=facts["limits"]["source"],
        max_target=facts["limits"]["target"],
        argv=tuple(facts["argv"]),
    )
