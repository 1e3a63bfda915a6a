"""A workaround for oneDNN: the gradient of a strided 1 x 1 convolution, without the kernel that writes past its buffer.

With AVX2 and no AVX-512, oneDNN 3.12 (torch 2.13) computes the gradient of the weights of a 1 x 1 convolution of
stride above 1, channels last, by `jit_1x1:avx2`, which writes past a buffer unless the input channels fill its vectors.
The process crashes, or its heap is silently corrupted. Such a convolution reads each pixel once or never, so its
gradient equals that of the same convolution with stride 1 on the pixels that it reads.

Every shrunk ResNet has such layers, and so may the caller's own network. Importing this module therefore replaces
`aten::convolution_backward` on the CPU; every module of `tprune.cnn` that imports torch imports this one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tprune.base import processor

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Gradients of the input, the weight and the bias; None where not requested."""


@functools.cache
def mend() -> bool:
    """Replace the operator in this process where oneDNN would select the broken kernel; return whether it would."""
    if not is_needed(processor.here(), os.environ, torch.backends.cpu.get_cpu_capability()):
        return False
    _library().impl("convolution_backward", functools.partial(_backward, _original()), "CPU", with_keyset=True)
    return True


def is_needed(here: processor.Processor, environment: Mapping[str, str], capability: str) -> bool:
    """Return whether oneDNN may select the broken kernel; `capability` is the instruction set that torch detected.

    It decides where the system does not list the processor's instruction sets, or lists another's (an emulator).
    """
    chosen = processor.engines(here, environment)["onednn"]
    return here.x86 and (chosen in {*processor.WRITES_PAST, processor.UNKNOWN} or capability != "AVX512")


def reads_once(weight: Tensor, stride: Sequence[int], padding: Sequence[int], *, transposed: bool) -> bool:
    """Return whether a convolution with `weight` (outputs, inputs, *kernel) reads single pixels and skips some."""
    return not transposed and not any(padding) and max(stride) > 1 and set(weight.shape[2:]) == {1}


@functools.cache
def _library() -> torch.library.Library:
    return torch.library.Library("aten", "IMPL")  # the replacement lasts as long as this object lives


@functools.cache
def _original() -> Any:
    return torch.library.get_kernel("aten::convolution_backward", "CPU")


def _backward(original: Any, keys: Any, *arguments: Any) -> Gradients:
    """Compute the same as `aten::convolution_backward`."""
    gradient, inputs, weight, bias, stride, padding, dilation, transposed, *rest = arguments
    if not reads_once(weight, stride, padding, transposed=transposed):
        whole: Gradients = original.call_boxed(keys, *arguments)
        return whole
    dimensions = weight.ndim - 2
    steps = [*stride] * dimensions if len(stride) == 1 else stride  # one number for all dimensions
    read: Any = (..., *(slice(None, None, step) for step in steps))
    ones = [1] * dimensions
    found = original.call_boxed(keys, gradient, inputs[read], weight, bias, ones, padding, dilation, transposed, *rest)
    of_read, of_weight, of_bias = found
    if of_read is None:
        return None, of_weight, of_bias
    of_inputs = torch.zeros_like(inputs)
    of_inputs[read] = of_read
    return of_inputs, of_weight, of_bias


mend()
