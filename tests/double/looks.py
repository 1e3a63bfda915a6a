"""What the double shows of its hardware: the files below /sys and /proc/cpuinfo, and the properties of its ABI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ABIS = {"arm64-v8a": "arm64-v8a,armeabi-v7a,armeabi", "x86_64": "x86_64,x86"}
# A76 features only: qemu emulates one kind of core, and what is printed here must be what it can execute.
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
PART = "0xd0b"  # Cortex-A76, which the emulator is told to be
ZONES = {"BIG": 52000, "MID": 49000, "LITTLE": 47000, "G3D": 45000, "battery": 31000, "skin_therm": 36500}


@dataclass(frozen=True)
class _Core:
    khz: int
    capacity: int
    cluster: str


CORES = (
    *(_Core(2_802_000, 1024, "0-1"),) * 2,
    *(_Core(2_253_000, 498, "2-3"),) * 2,
    *(_Core(1_803_000, 160, "4-7"),) * 4,
)


def dress(root: Path, abi: str) -> None:
    """Write /sys and /etc below the device's `root`, and what /system/build.prop says of the ABI."""
    cpus = root / "sys" / "devices" / "system" / "cpu"
    everyone = f"0-{len(CORES) - 1}"
    for name in ("possible", "present", "online"):
        _write(cpus / name, everyone)
    for number, core in enumerate(CORES):
        cpu = cpus / f"cpu{number}"
        _write(cpu / "cpu_capacity", core.capacity)
        _write(cpu / "cpufreq" / "cpuinfo_max_freq", core.khz)
        _write(cpu / "cpufreq" / "cpuinfo_min_freq", 300_000)
        _write(cpu / "cpufreq" / "scaling_max_freq", core.khz)
        _write(cpu / "cpufreq" / "scaling_cur_freq", core.khz // 2)
        _write(cpu / "cpufreq" / "scaling_governor", "sched_pixel")
        _write(cpu / "topology" / "core_id", number)
        _write(cpu / "topology" / "physical_package_id", 0)
        _write(cpu / "topology" / "core_siblings_list", everyone)
        _write(cpu / "topology" / "cluster_cpus_list", core.cluster)
    for number, (kind, degrees) in enumerate(ZONES.items()):
        zone = root / "sys" / "class" / "thermal" / f"thermal_zone{number}"
        _write(zone / "type", kind)
        _write(zone / "temp", degrees)
    _write(root / "etc" / "cpuinfo", "\n\n".join(_cpuinfo(number) for number in range(len(CORES))))
    _write(root / "etc" / "passwd", "root:x:0:0::/:/system/bin/sh\nshell:x:2000:2000::/:/system/bin/sh")
    _write(root / "etc" / "group", "root:x:0:\nshell:x:2000:")
    with (root / "system" / "build.prop").open("a") as properties:
        properties.write(f"ro.product.cpu.abi={abi}\nro.product.cpu.abilist={ABIS[abi]}\n")


def _cpuinfo(number: int) -> str:
    return (
        f"processor\t: {number}\nBogoMIPS\t: 49.15\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {PART}\nCPU revision\t: 1"
    )


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
