"""Where a checkpoint is, and whether it can be one: checks that need neither torch nor transformers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES = ["*.json", "*.spm", "*.safetensors"]
REACH = 5  # seconds that the hub may take to answer
MODEL_TYPES = ("marian", "pruned_marian")


def locate(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a checkpoint, downloaded if `source` is a hub id, and its configuration.

    Raises BadInput for a path or hub id that does not exist, and for a folder without the config.json of a Marian.
    """
    folder = _download(source) if _names_hub(source) else Path(source)
    return folder, _read_config(folder)


def check(source: str | Path) -> None:
    """Raise BadInput unless `source` is the folder of a Marian, or may be a hub id; nothing is downloaded."""
    if not _names_hub(source):
        _read_config(Path(source))


def _names_hub(source: str | Path) -> bool:
    """Return whether `source` is a hub id rather than a local folder; BadInput when it is neither."""
    if Path(source).is_dir():
        return False
    if Path(source).exists():
        raise BadInput(
            f"model {str(source)!r} is a file; name its folder or a hub id such as Helsinki-NLP/opus-mt-en-de"
        )
    if not isinstance(source, str) or not HUB_ID.fullmatch(source):
        raise BadInput(f"model {str(source)!r}: no such folder, and not a hub id such as Helsinki-NLP/opus-mt-en-de")
    return True


@contextmanager
def hub() -> Iterator[bool]:
    """Yield whether the hub can be reached; if not, its clients use their cache alone, without 25 s of retries."""
    from huggingface_hub import constants, get_session

    reached = False
    with suppress(Exception):  # the kind depends on the version of huggingface_hub
        get_session().head(constants.ENDPOINT, timeout=REACH)
        reached = True
    modules = ("huggingface_hub.constants", "datasets.config")
    flags: list[Any] = [sys.modules[name] for name in modules if name in sys.modules]
    before = [one.HF_HUB_OFFLINE for one in flags]
    try:
        for one in flags:
            one.HF_HUB_OFFLINE = one.HF_HUB_OFFLINE or not reached
        yield reached
    finally:
        for one, value in zip(flags, before, strict=True):
            one.HF_HUB_OFFLINE = value


def _download(source: str | Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    with hub() as reached:
        try:
            found = Path(snapshot_download(str(source), allow_patterns=FILES))
            if not list(found.glob("*.safetensors")):
                found = Path(snapshot_download(str(source), allow_patterns=[*FILES, "pytorch_model.bin"]))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if reached else "it cannot be reached"
            raise BadInput(f"model {source!r}: no such folder here, and the hub does not give it ({reason})") from error
    return found


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise BadInput(f"{str(folder)!r} is no checkpoint: it has no config.json (it holds {held})")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{str(path)!r} is not JSON: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in MODEL_TYPES:
        what = f"is a {kind!r} checkpoint" if kind else "is no checkpoint: its config.json names no model_type"
        raise BadInput(f"{str(folder)!r} {what}; only 'marian' and 'pruned_marian' can be treated")
    return config
