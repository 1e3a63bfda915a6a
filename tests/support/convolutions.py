"""A program of its own process: convolutions of many shapes, forward and backward, against einsum in double precision.

    ONEDNN_MAX_CPU_ISA=AVX2 python tests/support/convolutions.py [few] [plain]

`few` takes a small selection, `plain` leaves our mend out. Each case is printed before it is computed, so that the last
line names what a crash was in; a wrong result is an error.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


class Case(NamedTuple):
    """A convolution: batch, input and output channels, kernel, stride, padding, groups, layout and data type."""

    batch: int
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    layout: str
    dtype: torch.dtype

    @property
    def padding(self) -> tuple[int, int]:
        return self.kernel[0] // 2, self.kernel[1] // 2


def cases(*, few: bool) -> Iterator[Case]:
    """Yield what is computed: odd numbers of channels, all strides and layouts; 1 x 1 kernels in most detail."""
    single, half = torch.float32, torch.bfloat16
    odd = (3, 5) if few else (1, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 33)
    strides = ((2, 2), (1, 2)) if few else ((1, 1), (2, 2), (1, 2), (2, 1), (3, 3))
    for batch, inputs, outputs, stride, layout in itertools.product(
        (1, 20), odd, (5,) if few else (5, 32), strides, LAYOUTS
    ):
        yield Case(batch, inputs, outputs, (1, 1), stride, 1, layout, single)
    kernels = ((3, 3), (1, 3)) if few else ((3, 3), (3, 1), (1, 3), (5, 5), (2, 2))
    for inputs, kernel, stride, layout in itertools.product(odd[:3], kernels, strides, LAYOUTS):
        yield Case(3, inputs, 7, kernel, stride, 1, layout, single)
    for groups, kernel, stride, layout in itertools.product((2, 3, 6), ((1, 1), (3, 3)), strides, LAYOUTS):
        yield Case(2, 6, 12 if groups < 6 else 6, kernel, stride, groups, layout, single)
    for inputs, kernel, stride, layout in itertools.product(
        (3, 8, 17)[: 1 if few else 3], ((1, 1), (3, 3)), strides, LAYOUTS
    ):
        yield Case(2, inputs, 6, kernel, stride, 1, layout, half)


def reference(x: Tensor, weight: Tensor, case: Case) -> Tensor:
    """Return the convolution by windows and einsum: no convolution kernel of any library has a part in it."""
    (top, side), (down, across) = case.padding, case.stride
    padded = functional.pad(x, (side, side, top, top))
    windows = padded.unfold(2, case.kernel[0], down).unfold(3, case.kernel[1], across)
    windows = windows.unflatten(1, (case.groups, -1))
    grouped = weight.unflatten(0, (case.groups, -1))
    return torch.einsum("bgcyxhw,gochw->bgoyx", windows, grouped).flatten(1, 2)


def check(case: Case) -> None:
    """Compare the outputs and both gradients of one case; AssertionError names what is wrong."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(case.batch, case.inputs, 9, 14, generator=draw).to(case.dtype)
    conv = nn.Conv2d(
        case.inputs, case.outputs, case.kernel, case.stride, case.padding, groups=case.groups, bias=False
    ).to(case.dtype)
    x = x.contiguous(memory_format=LAYOUTS[case.layout]).requires_grad_()
    y = conv(x)
    slope = torch.randn(y.shape, generator=draw).to(case.dtype)
    y.backward(slope)
    exact_x, exact_weight = (one.detach().double().contiguous().requires_grad_() for one in (x, conv.weight))
    exact_y = reference(exact_x, exact_weight, case)
    exact_y.backward(slope.double())
    pairs = {"output": (y, exact_y), "input's gradient": (x.grad, exact_x.grad)}
    pairs["weight's gradient"] = (conv.weight.grad, exact_weight.grad)
    for name, (found, wanted) in pairs.items():
        apart = float((found.detach().double() - wanted.detach()).abs().max() / wanted.detach().abs().max())
        assert apart < (1e-5 if case.dtype == torch.float32 else 2e-2), f"{name} of {case} is off by {apart:.1e}"


def main() -> None:
    """Compute all cases, by name."""
    words = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if "plain" not in words:
        import tprune.cnn.strided

        print("mended" if tprune.cnn.strided.mend() else "not at risk", flush=True)  # noqa: T201 - for the caller
    for case in cases(few="few" in words):
        print(case, flush=True)  # noqa: T201
        check(case)
    print("all is well", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
