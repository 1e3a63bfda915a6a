"""What each step of the toolkit needs, what of it is installed, and the one command that installs the rest.

doctor.examine()   # only looks: nothing is started, downloaded or changed, and nothing missing is an error
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from tprune.base import processor
from tprune.base.busy import busy_cpus
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries import cache, debs, glibc, wheels
from tprune.bench.libraries.abi import Abi, named
from tprune.bench.measure.conditions import BUSY_CPUS
from tprune.bench.phone import adb
from tprune.bench.runner import build
from tprune.export.runtimes import RUNTIMES

ARM = named("arm64-v8a")
DOUBLE = Path(__file__).resolve().parents[1] / "tests" / "double"
CLONE = "run tprune from a clone of its repository"
REINSTALL = "install tprune again: its C++ sources are missing"
ENGINES = {"torch": "torch", "onednn": "oneDNN", "onnxruntime": "ONNX Runtime", "xnnpack": "XNNPACK"}
SIZES = {"memory": "memory", "disk": "disk free"}
CMAKE = (3, 25)  # the oldest that reads android_runner/CMakePresets.json
SECONDS = 10  # that a program may take to say its version
NAMESPACES = "sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
# program -> (command that installs, its names for Debian's packages; None where it has no such package)
MANAGERS: dict[str, tuple[str, dict[str, str | None]]] = {
    "apt-get": ("apt-get install", {}),
    "dnf": ("dnf install", {"g++": "gcc-c++", f"g++-{ARM.triple}": None, "adb": "android-tools"}),
    "brew": ("brew install", {"g++": "gcc", f"g++-{ARM.triple}": None, "adb": "android-platform-tools"}),
}


@dataclass(frozen=True)
class Need:
    """One thing that a step needs. `found` describes it (None: missing); the other fields say how to install it."""

    name: str
    found: str | None
    package: str = ""  # of Debian
    python: str = ""  # what pip installs
    advice: str = ""  # a command, or a manual action


@dataclass(frozen=True)
class Step:
    """One step of the workflow and everything it needs."""

    name: str
    needs: tuple[Need, ...]

    @property
    def missing(self) -> tuple[Need, ...]:
        """The needs that are not met."""
        return tuple(need for need in self.needs if need.found is None)

    def mend(self) -> str:
        """Return the command that installs everything missing, then advice; "" if nothing is missing."""
        packages = list(dict.fromkeys(need.package for need in self.missing if need.package))
        modules = list(dict.fromkeys(need.python for need in self.missing if need.python))
        commands = [_installation(packages)] if packages else []
        commands += [f"{sys.executable} -m pip install {' '.join(modules)}"] if modules else []
        advice = dict.fromkeys(need.advice for need in self.missing if need.advice)
        return "; ".join([" && ".join(commands)] * bool(commands) + list(advice))

    def document(self) -> dict[str, Any]:
        """Return the step as a JSON object."""
        needs = {need.name: need.found for need in self.needs}
        return {"step": self.name, "possible": not self.missing, "needs": needs, "mend": self.mend() or None}


def examine(step: str | None = None) -> list[Step]:
    """Return all steps, or the named one. Raises BadInput for an unknown name."""
    if step is not None and step not in STEPS:
        raise BadInput(f"step {step!r}: must be one of {', '.join(STEPS)}")
    return [Step(name, tuple(STEPS[name]())) for name in STEPS if step in {None, name}]


def require(steps: list[Step]) -> None:
    """Raise WorkFailed, with what is missing and how to install it, unless all these steps are possible."""
    for step in steps:
        if step.missing:
            names = ", ".join(need.name for need in step.missing)
            raise WorkFailed(f"{step.name} is not possible here, {names} missing: {step.mend()}")


def machine() -> dict[str, Any]:
    """Return facts about this machine, with memory and free disk space in bytes, and the CPUs that are busy now.

    `cores` are the CPUs that may be used, `usable_cpus` those that a container's quota leaves.
    """
    place = cache.folder()
    while not place.exists():
        place = place.parent
    facts: dict[str, Any] = {
        "system": " ".join([platform.system(), platform.release(), platform.machine()]),
        "python": platform.python_version(),
    }
    facts["cores"] = processor.allowed_cpus()
    with suppress(OSError, ValueError):
        facts["memory"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own = processor.here()
    return {
        **facts,
        "disk": shutil.disk_usage(place).free,
        "cache": str(cache.folder()),
        "processor": own.model,
        "instruction_sets": list(processor.instruction_sets(own)),
        "engines": processor.engines(own, os.environ),
        "usable_cpus": processor.usable_cpus(),
        "hazards": processor.hazards(own, os.environ),
        "busy_cpus": busy_cpus(),
    }


def document(steps: list[Step]) -> dict[str, Any]:
    """Return everything as a JSON object."""
    return {"machine": machine(), "steps": [step.document() for step in steps]}


def table(steps: list[Step]) -> Table:
    """Return everything except the commands as a table that fits a screen."""
    drawn = Table("step", "", "here", "missing")
    for step in steps:
        here = ", ".join(f"{need.name} {need.found}".strip() for need in step.needs if need.found is not None)
        sign = "[red]no[/red]" if step.missing else "[green]yes[/green]"
        drawn.add_row(step.name, sign, escape(here), escape(", ".join(need.name for need in step.missing)))
    return drawn


def lines(facts: dict[str, Any], steps: list[Step]) -> list[str]:
    """Return two lines on the machine, one for each hazard, and for each impossible step the command that helps."""
    sizes = [f"{facts[name] / 2**30:.0f} GiB {word}" for name, word in SIZES.items() if name in facts]
    line = ", ".join([facts["system"], f"Python {facts['python']}", f"{facts['cores']} cores", *sizes])
    return [line, *_processor(facts), *(f"{step.name}: {step.mend()}" for step in steps if step.missing)]


def _processor(facts: dict[str, Any]) -> list[str]:
    sets = " ".join(facts["instruction_sets"]) or "instruction sets unknown"
    engines = ", ".join(f"{ENGINES[name]} {word}" for name, word in facts["engines"].items())
    shown = [f"processor: {facts['processor']}, {sets}; {engines}", *(f"hazard: {one}" for one in facts["hazards"])]
    if (busy := facts["busy_cpus"]) is not None and busy > BUSY_CPUS:
        taken = f"{busy:.1f} of {facts['cores']} CPUs busy"
        shown.append(f"busy: other programs keep {taken}; timings and trainings will be slower")
    return shown


def _installation(packages: list[str]) -> str:
    for program, (command, names) in MANAGERS.items():
        if shutil.which(program):
            own = [names.get(package, package) for package in packages]
            there = [name for name in own if name]
            by_hand = [package for package, name in zip(packages, own, strict=True) if not name]
            sudo = "sudo " if os.geteuid() and program != "brew" else ""
            parts = [f"{sudo}{command} {' '.join(there)}"] * bool(there)
            return "; ".join(parts + [f"install {name} by hand" for name in by_hand])
    return f"install {' '.join(packages)} (names as in Debian)"


def _modules(*names: str) -> list[Need]:
    found = []
    for name in names:
        version = None
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
        found.append(Need(name, version, python=wheels.INSTALL.get(name, name)))
    return found


def _runner(abi: Abi | None) -> list[Need]:
    """Return whether the runner for each installed engine exists for `abi` or this machine, or can be built."""
    engines = _installed()
    if not engines:
        return []
    programs = [build.find(engine, abi) for engine in engines]
    if all(programs):
        prebuilt = any(build.PREBUILT in one.parents for one in programs if one)
        return [Need("runner", "prebuilt" if prebuilt else "built")]
    if not build.has_source():
        return [Need("runner", None, advice=REINSTALL)]
    if tools := build.missing_tools(abi):
        return [Need(package, None, package=package) for package in tools]
    version = re.search(r"version (\d+)\.(\d+)", _said("cmake", "--version"))
    if version and (int(version[1]), int(version[2])) < CMAKE:
        least = ".".join(map(str, CMAKE))
        return [Need(f"cmake {least}", None, advice=f"install CMake {least} or newer, say by `pip install cmake`")]
    return [Need("runner", "built when needed")]


def _installed() -> list[str]:
    return [need.name for need in _modules(*RUNTIMES) if need.found]


def _adb() -> list[Need]:
    try:
        program = adb.find()
    except (WorkFailed, BadInput):
        return [Need("adb", None, package="adb")]
    version = re.search(r"^Version (\S+)", _said(str(program), "version"), re.MULTILINE)
    return [Need("adb", f"{version[1] if version else ''} {program}".strip())]


def _phone() -> list[Need]:
    """Return the phones that can be used. An adb server that is not running is not started: that would be a change."""
    try:
        program = adb.find()
    except (WorkFailed, BadInput):
        return []
    if not _server_runs():
        return [Need("adb server", None, advice=f"{program} start-server")]
    try:
        usable = [one.serial for one in adb.attached(program) if one.state == "device"]
        if not usable:
            adb.choose(program, None)
        return [Need("phone", ", ".join(usable))]
    except (WorkFailed, BadInput) as error:
        return [Need("phone", None, advice=str(error))]


def _server_runs() -> bool:
    socket_name = os.environ.get("ADB_SERVER_SOCKET", f"tcp:{os.environ.get('ANDROID_ADB_SERVER_PORT', '5037')}")
    place = re.fullmatch(r"tcp:(?:(.+):)?(\d{1,5})", socket_name)
    if place is None:
        return True  # not a TCP port; only adb can tell
    with suppress(OSError, OverflowError), socket.create_connection((place[1] or "127.0.0.1", int(place[2])), 0.5):
        return True
    return False


def _libraries() -> list[Need]:
    """Return whether the C library and each installed engine for a phone exist or can be downloaded."""
    engines = all(ARM.native or cache.find("wheel", wheels.name(engine, ARM)) for engine in _installed())
    here = glibc.of_compiler(ARM) or cache.find("deb", glibc.entry(ARM))
    if here or shutil.which("apt-get") or os.environ.get(debs.MIRROR):
        return [Need("libraries", "here" if here and engines else "fetched when needed")]
    advice = f"without a cross compiler, set {debs.MIRROR} (docs/phone.md)"
    return [Need("C library", None, package=f"g++-{ARM.triple}", advice=advice)]


def _double() -> list[Need]:
    if not DOUBLE.is_dir():
        return [Need("tests/double", None, advice=CLONE)]
    if shutil.which("unshare") is None:
        spaces = Need("unshare", None, package="util-linux")
    else:
        spaces = Need("user namespaces", "" if _namespaces() else None, advice=NAMESPACES)
    fits = named("x86_64").native and tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 7)
    parts = cache.folder() / "double"
    fetch = f"{sys.executable} -m tests.double fetch"
    return [
        Need("Linux 6.7 on x86-64", "" if fits else None, advice="take such a machine"),
        spaces,
        _tool("cc", "g++"),
        _tool("qemu-aarch64-static", "qemu-user-static"),
        Need("adbd, mksh, toybox", "in the cache" if parts.is_dir() and any(parts.iterdir()) else None, advice=fetch),
    ]


def _tool(name: str, package: str) -> Need:
    return Need(name, "" if shutil.which(name) else None, package=package)


def _namespaces() -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
        return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode == 0
    return False


def _said(*command: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        return done.stdout
    return ""


STEPS: dict[str, Callable[[], list[Need]]] = {
    "prune": lambda: _modules("torch", "transformers", "sentencepiece", "sacrebleu"),
    **{f"export-{one.flag}": partial(_modules, *one.exports) for one in RUNTIMES.values()},
    "bench-host": lambda: [*_modules("onnxruntime"), *_runner(None)],
    "bench-adb": lambda: [*_modules("onnxruntime"), *_adb(), *_phone(), *_runner(ARM), *_libraries()],
    "device-double": lambda: [*_adb(), *_double(), *_runner(ARM), *_libraries()],
}
