"""The kinds of Android machine that the toolkit makes bundles for, and what each is called elsewhere."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from tprune.base.errors import BadInput


@dataclass(frozen=True)
class Abi:
    """One kind of machine: `name` is Android's word for it (`ro.product.cpu.abilist`)."""

    name: str
    machine: str  # what the kernel, ELF readers, wheels and GNU triples say
    debian: str
    loader: str  # file name of glibc's program interpreter
    page: int  # bytes: the largest memory page of such machines, which every LOAD segment must be aligned to

    @property
    def triple(self) -> str:
        """The name of GNU tools for this machine."""
        return f"{self.machine}-linux-gnu"

    @property
    def native(self) -> bool:
        """Whether this computer runs programs for it as they are."""
        return platform.system() == "Linux" and platform.machine() == self.machine


ABIS = (
    Abi("arm64-v8a", machine="aarch64", debian="arm64", loader="ld-linux-aarch64.so.1", page=16384),
    Abi("x86_64", machine="x86_64", debian="amd64", loader="ld-linux-x86-64.so.2", page=4096),
)


def named(name: str) -> Abi:
    """Return the ABI of this name. Raises BadInput for one that no bundle can be made for."""
    for abi in ABIS:
        if abi.name == name:
            return abi
    raise BadInput(f"ABI {name!r}: there are bundles for {' and '.join(abi.name for abi in ABIS)} only")
