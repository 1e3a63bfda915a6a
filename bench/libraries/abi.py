"""The ABIs that bundles can be made for, with the names that other tools use for them."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from tprune.base.errors import BadInput


@dataclass(frozen=True)
class Abi:
    """One ABI; `name` is Android's name for it (`ro.product.cpu.abilist`)."""

    name: str
    machine: str  # the name in the kernel, ELF readers, wheels and GNU triples
    debian: str
    loader: str  # file name of glibc's program interpreter
    page: int  # bytes: the largest memory page of such machines; every LOAD segment must be aligned to it

    @property
    def triple(self) -> str:
        """The prefix of GNU tools for this ABI."""
        return f"{self.machine}-linux-gnu"

    @property
    def native(self) -> bool:
        """Whether this computer runs programs for this ABI natively."""
        return platform.system() == "Linux" and platform.machine() == self.machine


ABIS = (
    Abi("arm64-v8a", machine="aarch64", debian="arm64", loader="ld-linux-aarch64.so.1", page=16384),
    Abi("x86_64", machine="x86_64", debian="amd64", loader="ld-linux-x86-64.so.2", page=4096),
)


def named(name: str) -> Abi:
    """Return the ABI with this name. Raises BadInput for one that has no bundles."""
    for abi in ABIS:
        if abi.name == name:
            return abi
    raise BadInput(f"ABI {name!r}: there are bundles for {' and '.join(abi.name for abi in ABIS)} only")
