"""The table of named image networks. Torch-free: the architectures are imported when a network is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tprune.base.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


@dataclass(frozen=True, slots=True)
class Net:
    """One row of the table: the architecture, the image it takes, and how it is usually trained."""

    architecture: str  # a function in `tprune.cnn.architectures`
    image: tuple[int, int, int]  # channels, height, width
    sizes: tuple[object, ...] = ()  # arguments of the function before the number of classes
    optimiser: str = "sgd"
    lr: float = 0.1
    standardise: bool = True  # scale images to mean 0 and deviation 1 per channel; else to 0..1
    shift: int = 4  # images are shifted in training by up to this many pixels at random
    flip: bool = True  # images are mirrored at random
    bf16: bool = True  # where the machine is faster in it

    def build(self, classes: int) -> nn.Module:
        """Return a new network with random weights."""
        from tprune.cnn import architectures

        module: nn.Module = getattr(architectures, self.architecture)(*self.sizes, classes)
        return module


PLAIN: dict[str, Any] = dict(optimiser="adam", lr=1e-3, standardise=False, shift=0, flip=False, bf16=False)
NETS: dict[str, Net] = {
    "lenet-300-100": Net("lenet_300_100", MNIST, **PLAIN),
    "lenet-5": Net("lenet_5", MNIST, **PLAIN),
    "resnet20": Net("resnet", CIFAR, ((16, 32, 64), 3)),
    "resnet32": Net("resnet", CIFAR, ((16, 32, 64), 5)),
    "resnet56": Net("resnet", CIFAR, ((16, 32, 64), 9)),
    "resnet110": Net("resnet", CIFAR, ((16, 32, 64), 18)),
    "resnet18": Net("resnet", CIFAR, ((64, 128, 256, 512), 2)),
    "vgg16": Net("vgg_16", CIFAR),
    "mobilenet-v2": Net("mobilenet_v2", CIFAR),
}


def named(name: str) -> Net:
    """Return the row of a network; BadInput lists the legal names."""
    if name not in NETS:
        raise BadInput(f"there is no network {name!r}; legal are {', '.join(NETS)}")
    return NETS[name]
