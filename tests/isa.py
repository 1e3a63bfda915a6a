"""Run the tests that compute under every instruction set that this processor has: `python -m tests.isa [pytest words]`.

PyTorch, oneDNN and MKL are capped by variables; for ONNX Runtime, XNNPACK and other processors see
`test_processors.py`, `test_strided.py` and `test_runner_qemu.py`, which take an emulator.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tprune.base import processor

ROOT = Path(__file__).resolve().parents[1]
# name -> flags that it needs, oneDNN's, torch's and MKL's word for it
CAPS = {
    "SSE4.1": ({"sse4_1"}, "SSE41", "default", "SSE4_2"),
    "AVX2": ({"avx2", "fma"}, "AVX2", "avx2", "AVX2"),
    "AVX2 with VNNI": ({"avx2", "fma", "avx_vnni"}, "AVX2_VNNI", "avx2", "AVX2"),
    "AVX-512": (processor.AVX512, "AVX512_CORE", "avx512", "AVX512"),
    "AVX-512 with VNNI": ({*processor.AVX512, "avx512_vnni"}, "AVX512_CORE_VNNI", "avx512", "AVX512"),
}
TESTS = (
    "bf16", "channels", "cnn_count", "cnn_escalate", "cnn_train", "deephoyer", "hoyer", "marian", "objective",
    "own_networks", "penalty", "penni", "shrink", "structure", "surgery", "svd", "teacher", "train", "verify",
)  # fmt: skip


def environment(cap: str) -> dict[str, str]:
    """Return the variables that cap the engines."""
    _, onednn, aten, mkl = CAPS[cap]
    return {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten, "MKL_ENABLE_INSTRUCTIONS": mkl}


def narrower(here: processor.Processor) -> list[str]:
    """Return the caps that mean something here: those below the processor's own, which the whole suite runs under."""
    fits = [name for name, (flags, *_) in CAPS.items() if here.x86 and flags <= here.flags]
    own = processor.engines(here, {})["onednn"]
    return [name for name in fits if CAPS[name][1] != own]


def main() -> None:
    """Run them all; exit with 1 when one of the runs failed."""
    files = [str(path) for name in TESTS for path in (ROOT / "tests").rglob(f"test_{name}.py")]
    failed = []
    caps = narrower(processor.here())
    print(f"{processor.here().model}: {', '.join(caps) or 'no narrower instruction set'}", flush=True)  # noqa: T201
    for cap in caps:
        print(f"== under {cap}", flush=True)  # noqa: T201 - a program for a person and a log
        command = [sys.executable, "-m", "pytest", *files, *sys.argv[1:]]
        if subprocess.run(command, cwd=ROOT, env=os.environ | environment(cap), check=False).returncode:
            failed.append(cap)
    if failed:
        sys.exit(f"failed under {', '.join(failed)}")


if __name__ == "__main__":
    main()
