"""Register the pruned Marian with transformers without importing transformers.

`import tprune` must make `AutoModelForSeq2SeqLM` know `pruned_marian`, yet `tprune --help` and a benchmark process must
not wait seconds for torch. So the configuration class is registered as soon as transformers' auto classes
have been imported (now, if they are there), and the first configuration made registers its model class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

AUTO = "transformers.models.auto.modeling_auto"


class _Waiting(MetaPathFinder):
    """A finder for exactly one module, which registers after the module was executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != AUTO:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    """The module's own loader, followed by the registration."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Waiting)]
        _register()


def register_with_transformers() -> None:
    """Make transformers' auto classes know `pruned_marian`, now or as soon as they are imported."""
    if AUTO in sys.modules:
        _register()
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


def _register() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from tprune.marian.config import BEFORE_FIRST, PrunedMarianConfig

    AutoConfig.register("pruned_marian", PrunedMarianConfig, exist_ok=True)
    BEFORE_FIRST.append(_import_model)


def _import_model() -> None:
    import tprune.marian.model  # noqa: F401 - it registers its class; transformers must have been loaded completely
