"""Rivals: what a user would run instead of us, measured as artefacts are, each by a program of its own.

    programs(chosen("hf,ctranslate2"))  # runtime -> argv, for `host.run`

The programs speak the runner's contract (`tprune.bench.runner.loop`), so blocks, memory and raw samples are those of
any artefact.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import BadInput
from tprune.bench.measure.artefact import Artefact

FILE = "rival.json"  # tprune.rivals.write writes it


@dataclass(frozen=True)
class Rival:
    """A program of others: its name in `--rivals` and in tables, its package (a record's `runtime`), its precisions."""

    name: str
    short: str
    package: str
    precisions: tuple[str, ...]
    program: str
    how: str  # it is run, in words for a person

    @property
    def installed(self) -> bool:
        """Whether its package is here; it is not imported."""
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
    """Return the rivals of a list such as "hf,ctranslate2", those that are installed when it is None.

    Raises BadInput for a name that is unknown, there twice or of a package that is not installed.
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
    """Return runtime -> argv of the program that runs it."""
    return {rival.package: (sys.executable, "-m", rival.program) for rival in rivals}


def read(folder: Path) -> Artefact:
    """Return a folder of `tprune.rivals.write` as a benchmark sees an artefact."""
    facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Artefact(
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
