"""Convolutions and their gradients under every instruction set that this processor or an emulator can run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from tprune.base import processor
from tprune.base.processor import Processor
from tprune.cnn import strided

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "convolutions.py"
# oneDNN's cap -> torch's own
CAPS = {"SSE41": "default", "AVX2": "avx2", "AVX512_CORE": "avx512", "DEFAULT": "avx512"}
x86 = pytest.mark.skipif(not processor.here().x86, reason="caps of x86 instruction sets")


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment in which every tensor lies before a page that may not be touched."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux to guard the blocks of memory")
    library = tmp_path_factory.mktemp("guard") / "guard.so"
    source = PROGRAM.with_name("guard.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return {"LD_PRELOAD": str(library)}


def compute(*words: str, before: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ONEDNN_", "DNNL_", "ATEN_"))}
    command = [*before, sys.executable, str(PROGRAM), *words]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)


def check_well(done: subprocess.CompletedProcess[str]) -> None:
    last = (done.stdout.splitlines() or ["nothing"])[-1]
    assert (done.returncode, last) == (0, "all is well"), f"{done.returncode} after {last}: {done.stderr[-2000:]}"


@x86
@pytest.mark.parametrize("cap", CAPS)
def test_every_instruction_set_computes_what_einsum_does(guard: dict[str, str], cap: str) -> None:
    wanted = {"SSE41": "sse4_1", "AVX2": "avx2", "AVX512_CORE": "avx512bw"}.get(cap)
    if wanted and wanted not in processor.here().flags:
        pytest.skip(f"this processor has no {wanted}")
    aten = CAPS[cap] if cap != "DEFAULT" else torch.backends.cpu.get_cpu_capability().lower()
    check_well(compute(**guard, ONEDNN_MAX_CPU_ISA=cap, ATEN_CPU_CAPABILITY=aten))


@x86
def test_without_the_mend_the_kernel_writes_past_its_buffer(guard: dict[str, str]) -> None:
    """Where this fails, oneDNN has mended it: `tprune.cnn.strided` can go."""
    if "avx2" not in processor.here().flags:
        pytest.skip("this processor has no AVX2")
    done = compute("few", "plain", **guard, ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2")
    assert done.returncode < 0  # ended by a signal
    assert "kernel=(1, 1)" in done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["Nehalem", "Haswell"])
def test_emulated_processors_compute_it_as_well(model: str) -> None:
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None:
        pytest.skip("needs qemu-x86_64-static (Debian: qemu-user-static)")
    check_well(compute("few", before=(emulator, "-cpu", model)))


@pytest.mark.parametrize(
    ("flags", "environment", "capability", "needed"),
    [
        ({"sse4_1", "avx", "avx2"}, {}, "AVX2", True),  # Zen 3
        ({"sse4_1", "avx", "avx2", "avx_vnni"}, {}, "AVX2", True),  # Alder Lake
        ({"sse4_1", "avx", "avx2", *processor.AVX512}, {}, "AVX512", False),
        ({"sse4_1", "avx", "avx2", *processor.AVX512}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX512", True),
        ({"sse4_1", "avx", "avx2", *processor.AVX512}, {}, "AVX2", True),  # an emulator shows the host's flags
        (set(), {}, "AVX2", True),  # macOS and Windows list none
    ],
)
def test_the_mend_is_for_avx2(flags: set[str], environment: dict[str, str], capability: str, needed: bool) -> None:
    assert strided.is_needed(Processor("x", "x86_64", frozenset(flags)), environment, capability) == needed


def test_arm_needs_no_mend() -> None:
    assert not strided.is_needed(Processor("x", "aarch64", frozenset({"asimd"})), {}, "DEFAULT")


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_gradients_are_those_of_the_operator_itself(dimensions: int, wanted: tuple[bool, bool]) -> None:
    """The mend's own arithmetic, wherever it runs: in double precision, which oneDNN has no part in."""
    torch.manual_seed(0)
    form = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    conv = form(3, 5, 1, stride=2).double()
    x = torch.randn(2, 3, *(5, 6, 7)[:dimensions], dtype=torch.float64, requires_grad=wanted[0])
    conv.weight.requires_grad_(wanted[1])
    y = conv(x)
    slope = torch.randn_like(y)
    asked = [one for one in (x, conv.weight, conv.bias) if one is not None and one.requires_grad]
    expected = torch.autograd.grad(y, asked, slope)
    stride, none = [2] * dimensions, [0] * dimensions
    found = strided._backward(
        torch.library.get_kernel("aten::convolution_backward", "CPU"),
        torch._C.DispatchKeySet(torch._C.DispatchKey.CPU),
        slope, x.detach(), conv.weight.detach(), [5], stride, none, [1] * dimensions, False, none, 1, [*wanted, True],
    )  # fmt: skip
    assert [one is not None for one in found] == [*wanted, True]
    for one, other in zip((one for one in found if one is not None), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("kernel", "settings", "meant"),
    [
        ((1, 1), {"stride": 2}, True),
        ((1, 1), {"stride": (1, 2)}, True),
        ((1, 1), {"stride": 1}, False),
        ((1, 1), {"stride": 2, "padding": 1}, False),
        ((3, 1), {"stride": 2}, False),
    ],
)
def test_only_strided_1x1_convolutions_are_treated(kernel: tuple[int, int], settings: dict, meant: bool) -> None:
    conv = nn.Conv2d(3, 4, kernel, **settings)
    assert strided.reads_once(conv.weight, conv.stride, conv.padding, transposed=False) == meant
    assert not strided.reads_once(conv.weight, conv.stride, conv.padding, transposed=True)


def test_the_guard_dies_of_a_write_past_the_end(guard: dict[str, str]) -> None:
    code = """
import ctypes, torch
for beyond in (0, 1):
    x = torch.ones(1000)
    ctypes.memset(x.data_ptr(), 0, 4000 + beyond)
    del x
    print("alive after", beyond, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | guard, capture_output=True, text=True, check=False
    )
    assert (done.returncode < 0, done.stdout) == (True, "alive after 0\n"), done


def test_one_number_stands_for_all_dimensions() -> None:
    """As PyTorch allows: the lists of a convolution may have a single element."""
    if "avx2" not in processor.here().flags:
        pytest.skip("the mend is for AVX2")
    code = """
import torch
import tprune.cnn
from tprune.cnn import strided
from torch.nn.functional import conv2d
assert strided.mend()
x, w = torch.randn(1, 3, 5, 5, requires_grad=True), torch.randn(2, 3, 1, 1)
conv2d(x, w, None, (2,)).sum().backward()
assert torch.allclose(x.grad[..., ::2, ::2], w.sum(0)[None].expand(1, 3, 3, 3))
assert not x.grad[..., 1::2, :].any() and not x.grad[..., 1::2].any()
"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROGRAM.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_second_gradients_still_exist() -> None:
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, w: functional.conv2d(x, w, stride=2), (x, w))
