"""The instruction sets of the processor, which of them each engine uses, and known hazards.

    here = processor.here()
    processor.best(here)                      # "avx512-vnni"
    processor.hazards(here, os.environ)       # sentences; usually empty

Standard library only. Data comes from /proc and /sys; on systems without them, flags are empty.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath

from tprune.base.errors import BadInput

UNKNOWN = "unknown"
X86 = {"x86_64", "amd64", "x86", "i386", "i486", "i586", "i686"}  # Linux, Windows, Android
CGROUPS = Path("/sys/fs/cgroup")

AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}  # the minimum that every engine requires
X86_SETS = {  # name -> flags of /proc/cpuinfo, ascending
    "sse4.1": {"sse4_1"},
    "avx2": {"avx2"},
    "avx-vnni": {"avx2", "avx_vnni"},
    "avx512": AVX512,
    "avx512-vnni": {*AVX512, "avx512_vnni"},
    "amx-int8": {"amx_tile", "amx_int8"},
    "amx-bf16": {"amx_tile", "amx_bf16"},
}
ARM_SETS = {"dotprod": "asimddp", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve"}
BEST = {  # instruction set -> name in records and messages, best first
    "amx-int8": "avx512-amx",
    "avx512-vnni": "avx512-vnni",
    "avx512": "avx512",
    "avx-vnni": "avx2-vnni",
    "avx2": "avx2",
    "sse4.1": "sse4.1",
    "i8mm": "neon-i8mm",
    "dotprod": "neon-dotprod",
    "neon": "neon",
}

# oneDNN 3: name -> CPU flags. A cap allows the sets whose flags are a subset of its own, which are not always those
# listed before it: AVX512_CORE excludes AVX-VNNI. Same order as in oneDNN.
_AVX2 = {"sse4_1", "avx", "avx2"}
_CORE = _AVX2 | AVX512
_BF16 = _CORE | {"avx512_vnni", "avx512_bf16"}
_AVX10_1 = _BF16 | {"avx512_fp16", "avx_vnni"}
_AMX = _AVX10_1 | {"amx_tile", "amx_int8", "amx_bf16"}
_AVX10_2 = {"avx10_2", "avx_vnni_int8", "avx_ne_convert"}
ONEDNN = {
    "SSE41": {"sse4_1"},
    "AVX": {"sse4_1", "avx"},
    "AVX2": _AVX2,
    "AVX2_VNNI": _AVX2 | {"avx_vnni"},
    "AVX2_VNNI_2": _AVX2 | {"avx_vnni", "avx_vnni_int8", "avx_ne_convert"},
    "AVX512_CORE": _CORE,
    "AVX512_CORE_VNNI": _CORE | {"avx512_vnni"},
    "AVX512_CORE_BF16": _BF16,
    "AVX10_1_512": _AVX10_1,
    "AVX10_1_512_AMX": _AMX,
    "AVX10_1_512_AMX_FP16": _AMX | {"amx_fp16"},
    "AVX10_2": _AVX10_1 | _AVX10_2,
    "AVX10_2_AMX_2": _AMX | {"amx_fp16"} | _AVX10_2,
}
ONEDNN_ALIASES = {
    "AVX512_CORE_FP16": "AVX10_1_512",
    "AVX512_CORE_AMX": "AVX10_1_512_AMX",
    "AVX512_CORE_AMX_FP16": "AVX10_1_512_AMX_FP16",
    "AVX10_2_512": "AVX10_2",
    "AVX10_2_512_AMX_2": "AVX10_2_AMX_2",
}
ONEDNN_DEFAULT = "DEFAULT"
ONEDNN_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # the first non-empty one wins
WRITES_PAST = ("AVX2", "AVX2_VNNI", "AVX2_VNNI_2")  # the oneDNN caps whose strided 1x1 kernel is defective
ATEN_CAP = "ATEN_CPU_CAPABILITY"
ATEN = {"default": set[str](), "avx2": {"avx2", "fma"}, "avx512": {*AVX512, "fma"}}
OMP = "OMP_NUM_THREADS"
OMP_COUNT = re.compile(r"\s*\+?0*[1-9][0-9]{0,17}\s*", re.ASCII)  # what libgomp accepts


@dataclass(frozen=True)
class Processor:
    """A processor; `flags` as in /proc/cpuinfo, empty where they are not known."""

    model: str
    machine: str
    flags: frozenset[str] = frozenset()

    @property
    def x86(self) -> bool:
        """Whether this is an x86 processor, 32 or 64 bits."""
        return self.machine.lower() in X86

    @property
    def arm(self) -> bool:
        """Whether this is an ARM processor, 32 or 64 bits; `machine` may be an Android ABI name."""
        return self.machine.lower().startswith(("arm", "aarch64"))


@cache
def here() -> Processor:
    """Return this machine's processor."""
    machine = platform.machine()
    found = parse(_read(Path("/proc/cpuinfo")) or "", machine)
    return found if found.model != machine else replace(found, model=platform.processor() or machine)


def parse(cpuinfo: str, machine: str) -> Processor:
    """Parse the first processor in the text of /proc/cpuinfo; the model defaults to `machine`."""
    model, flags, key_of_flags = "", "", "Features" if Processor("", machine).arm else "flags"
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in {"model name", "Hardware", "Model"}:
            model = model or " ".join(value.split())
        elif key == key_of_flags:
            flags = flags or value
    return Processor(model or machine, machine, frozenset(flags.split()))


def instruction_sets(processor: Processor) -> tuple[str, ...]:
    """Return the relevant instruction sets of the processor, ascending; empty where its flags are not known."""
    if processor.x86:
        return tuple(name for name, flags in X86_SETS.items() if flags <= processor.flags)
    if processor.arm and processor.flags & {"asimd", "neon"}:
        return ("neon", *(name for name, flag in ARM_SETS.items() if flag in processor.flags))
    return ()


def best(processor: Processor) -> str:
    """Return the name of the best instruction set for records and messages, or "unknown"."""
    sets = instruction_sets(processor)
    return next((word for name, word in BEST.items() if name in sets), UNKNOWN)


def known(processor: Processor) -> str | None:
    """Return `best`, or None where the instruction sets are not known."""
    word = best(processor)
    return None if word == UNKNOWN else word


def has_exact_u8s8(processor: Processor) -> bool:
    """Return whether sums of 8-bit products (unsigned activations, signed weights) are exact.

    x86 with AVX2 or AVX-512 but without VNNI adds two products in 16 bits, which saturates. ONNX Runtime's SSE4.1
    kernel widens first. An x86 whose flags are not known counts as one without VNNI.
    """
    if not processor.x86:
        return True
    if processor.flags & {"avx_vnni", "avx512_vnni", "amx_int8"}:
        return True
    return bool(processor.flags) and not processor.flags & {"avx2", "avx512f"}


def engines(processor: Processor, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the instruction set that each engine will use, in its own terms. Nothing caps ONNX Runtime or XNNPACK."""
    own = best(processor)
    asked = environment.get(ATEN_CAP, "")
    fits = [word for word, flags in ATEN.items() if processor.x86 and flags <= processor.flags]
    torch = asked if processor.x86 and asked in ATEN else (fits or ["default"])[-1]
    return {"torch": torch, "onednn": _onednn(processor, environment), "onnxruntime": own, "xnnpack": own}


def check_environment(environment: Mapping[str, str], machine: str | None = None) -> None:
    """Raise BadInput for an invalid environment variable that an engine would ignore.

    oneDNN ignores unknown values silently; torch and libgomp only warn. ARM values are not checked.
    """
    if Processor("", platform.machine() if machine is None else machine).x86:
        name, word = _cap(environment)
        legal = [*ONEDNN, *ONEDNN_ALIASES, ONEDNN_DEFAULT]
        if name and word.upper() not in legal:
            raise BadInput(f"{name} {word!r}: must be one of {', '.join(legal)}; or unset it")
        word = environment.get(ATEN_CAP, "") or "default"
        if word not in ATEN:
            raise BadInput(f"{ATEN_CAP} {word!r}: must be one of {', '.join(ATEN)}, in lower case; or unset it")
    threads = environment.get(OMP, "") or "1"
    if not all(OMP_COUNT.fullmatch(part) for part in threads.split(",")):
        raise BadInput(
            f"{OMP} {threads!r}: must be a whole number of at least 1, or several with commas between; or unset it"
        )


def hazards(processor: Processor, environment: Mapping[str, str]) -> list[str]:
    """Return known problems, and avoidable slowness, of this processor and environment, one sentence each."""
    allowed, most, own = allowed_cpus(), usable_cpus(), best(processor)
    now, uncapped = engines(processor, environment), engines(processor, {})
    found = []
    try:
        check_environment(environment, processor.machine)
    except BadInput as error:
        found.append(f"every other command refuses to start: {error}")
    if own != UNKNOWN and not has_exact_u8s8(processor):
        found.append(
            f"int8 products saturate at 16 bits here ({own}, no VNNI): ONNX artefacts exported with --target-cpu vnni "
            "give different translations; the default --target-cpu all is exact"
        )
    if now["onednn"] in WRITES_PAST:
        found.append("oneDNN's AVX2 kernel for strided 1x1 convolutions writes past its buffer; tprune replaces it")
    threads = environment.get(OMP, "").partition(",")[0].strip()
    if threads.isdecimal() and int(threads) > most:
        found.append(f"{OMP}={threads} asks for more threads than the {most:g} CPUs that this process may use")
    if most < allowed:
        found.append(f"a quota limits this process to {most:g} of {allowed} CPUs: use --threads {usable_threads()}")
    name, word = _cap(environment)
    if now["onednn"] != uncapped["onednn"]:
        found.append(f"{name}={word} caps oneDNN: {now['onednn']} instead of {uncapped['onednn']}")
    if processor.flags and (asked := now["torch"]) != uncapped["torch"]:
        lacking = not ATEN[asked] <= processor.flags
        crash = "which this processor does not have: torch will crash with an illegal instruction"
        effect = f"selects {asked}, {crash}" if lacking else f"caps torch: {asked} instead of {uncapped['torch']}"
        found.append(f"{ATEN_CAP}={asked} {effect}")
    return found


def _cap(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that caps oneDNN and its value; both "" if there is none."""
    return next(((name, word) for name in ONEDNN_CAPS if (word := environment.get(name, ""))), ("", ""))


def _onednn(processor: Processor, environment: Mapping[str, str]) -> str:
    """Return oneDNN's instruction set. On ARM, /proc does not show the vector length in oneDNN's names."""
    if processor.arm:
        return "SVE" if "sve" in processor.flags else "ASIMD" if "asimd" in processor.flags else UNKNOWN
    word = _cap(environment)[1].upper()
    cap = ONEDNN.get(ONEDNN_ALIASES.get(word, word))
    usable = processor.flags if cap is None else processor.flags & cap
    fits = [name for name, flags in ONEDNN.items() if processor.x86 and flags <= usable]
    return fits[-1] if fits else UNKNOWN


def usable_cpus() -> float:
    """Return how many CPUs this process may use, from its affinity and container quota; may be a fraction."""
    return min(allowed_cpus(), quota() or math.inf)


def usable_threads() -> int:
    """Return how many threads can run at once: the whole CPUs of `usable_cpus`, at least 1."""
    return max(1, math.floor(usable_cpus()))


def affinity() -> set[int]:
    """Return the numbers of the CPUs that this process may run on; all CPUs where there is no affinity."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def allowed_cpus() -> int:
    """Return the number of CPUs that this process may run on."""
    return len(affinity())


def quota(own: str | None = None, root: Path = CGROUPS) -> float | None:
    """Return the CPU limit of the control groups, the lowest up the hierarchy; None without a limit.

    `own` is the text of /proc/self/cgroup, `root` the mount point of the groups.
    """
    text = _read(Path("/proc/self/cgroup")) or "" if own is None else own
    limits = [limit for folder in group_folders(text, root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def group_folders(own: str, root: Path) -> Iterator[Path]:
    """Yield the folders of the groups that may limit CPU time, innermost first; some may not exist."""
    for line in own.splitlines():
        controllers, path = (line.split(":", 2) + ["", ""])[1:3]
        if not path.startswith("/"):
            continue
        if not controllers:
            bases = [root, root / "unified"]  # version 2, alone or beside version 1
        else:
            bases = [root / controllers, root / "cpu"] if "cpu" in controllers.split(",") else []
        inner = PurePosixPath("/" if ".." in PurePosixPath(path).parts else path)  # a group outside this container
        for base in bases:
            yield from (base / str(part).lstrip("/") for part in (inner, *inner.parents))


def _limit(folder: Path) -> float | None:
    limit = _read(folder / "cpu.max")
    if limit is None:
        limit = f"{_read(folder / 'cpu.cfs_quota_us') or ''} {_read(folder / 'cpu.cfs_period_us') or ''}"
    return limit_of(limit)


def limit_of(limit: str) -> float | None:
    """Parse a limit "QUOTA PERIOD" in microseconds to CPUs; None for "max", -1 or anything else."""
    words = limit.split()
    if len(words) != 2 or not all(word.isdecimal() and int(word) > 0 for word in words):
        return None
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
