"""`Phone`: the facts of a device: model, SoC, Android, ABIs, cores, memory; and whether it is fit to be measured.

    phone = parse(device.ask(f"D=/data/local/tmp{PROBE}"))
    complaints = preflight(phone, need_kib=40_000)

Any fact may be missing: vendors hide files, and old or unusual Androids lack commands. Parsing never raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tprune.base import processor
from tprune.bench.measure.record import DeviceFacts
from tprune.bench.measure.settings import cpu_list
from tprune.bench.phone import pulse
from tprune.bench.phone.pulse import PULSE, STATUS, Pulse, cpu_line, number, sections

PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.hardware",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.product.cpu.abilist",
    "ro.product.cpu.abi",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)
EMULATED_HARDWARE = ("ranchu", "goldfish", "tprune-double")
LOWEST_CHARGE = 20  # per cent; below it phones save power

# D must be set to the folder whose free space is wanted.
PROBE = rf"""
{{
echo @@properties
for k in {" ".join(PROPERTIES)}; do echo "$k=$(getprop $k)"; done
echo @@kernel; uname -a
echo @@memory; grep MemTotal /proc/meminfo
echo @@cpuinfo; grep -m1 -e Features -e flags /proc/cpuinfo
echo @@online; cat /sys/devices/system/cpu/online
echo @@allowed; grep Cpus_allowed_list /proc/self/status
echo @@cpus
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  top= size= governor=
  read -r top <$c/cpufreq/cpuinfo_max_freq; read -r size <$c/cpu_capacity; read -r governor <$c/cpufreq/scaling_governor
  echo "${{c##*/cpu}} top=$top size=$size governor=$governor"
done
echo @@space; df -k "$D"
}} 2>/dev/null
{PULSE}"""


@dataclass(frozen=True)
class Core:
    """One CPU; `capacity` is the kernel's measure of its speed, up to 1024."""

    id: int
    max_khz: int | None = None
    capacity: int | None = None
    governor: str | None = None


@dataclass(frozen=True)
class Phone:
    """One device. `allowed`: the CPUs that the shell's processes may use, empty when unknown."""

    manufacturer: str | None = None
    model: str | None = None
    soc: str | None = None
    android: str | None = None
    sdk: int | None = None
    abis: tuple[str, ...] = ()
    kernel: str | None = None
    cores: tuple[Core, ...] = ()
    allowed: tuple[int, ...] = ()
    memory_kib: int | None = None
    free_kib: int | None = None
    emulated: bool = False
    cpuinfo: str = ""  # the line of /proc/cpuinfo that lists the CPU's features
    pulse: Pulse = field(default_factory=Pulse)

    @property
    def name(self) -> str:
        """Maker and model in one line."""
        return " ".join(filter(None, (self.manufacturer, self.model))) or "a device without a name"

    def usable_cores(self) -> tuple[int, ...]:
        """Return the ids of the CPUs that a benchmark may use; empty when unknown."""
        return tuple(core.id for core in self.cores if not self.allowed or core.id in self.allowed)

    def big_cores(self, threads: int = 1) -> tuple[int, ...]:
        """Return the usable CPUs of the fastest cluster, and of the next ones until there is one for every thread.

        Clusters are distinguished by capacity, else by top frequency; without either, return all usable CPUs.
        """
        usable = [core for core in self.cores if core.id in self.usable_cores()]
        for speeds in ([core.capacity for core in usable], [core.max_khz for core in usable]):
            known = [speed for speed in speeds if speed is not None]
            if known and len(known) == len(usable):
                enough = sorted(known, reverse=True)[: max(1, threads)]
                return tuple(core.id for core, speed in zip(usable, known, strict=True) if speed >= enough[-1])
        return tuple(core.id for core in usable)

    def facts(self, serial: str, abi: str) -> DeviceFacts:
        """Return the `device` of a record that was measured on this phone by a program for `abi`."""
        return DeviceFacts(
            kind="phone",
            serial=serial,
            model=self.name,
            abi=abi,
            emulated=self.emulated,
            soc=self.soc,
            android=self.android,
            instruction_set=processor.known(processor.parse(self.cpuinfo, abi)),
        )


def parse(text: str) -> Phone:
    """Parse the output of `PROBE`. Never raise."""
    parts = sections(text)
    pairs = dict(line.split("=", 1) for line in parts.get("properties", ()) if "=" in line)
    properties = {name: " ".join(value.split()) for name, value in pairs.items() if value.strip()}
    maker, chip = properties.get("ro.soc.manufacturer"), properties.get("ro.soc.model")
    board = properties.get("ro.board.platform") or properties.get("ro.hardware")
    abis = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi") or ""
    memory = re.search(r"MemTotal:\s*(\d{1,18})", "\n".join(parts.get("memory", ())), re.ASCII)
    emulated = "1" in {properties.get("ro.kernel.qemu"), properties.get("ro.boot.qemu")}
    return Phone(
        manufacturer=properties.get("ro.product.manufacturer"),
        model=properties.get("ro.product.model"),
        soc=" ".join(filter(None, (maker, chip))) if chip else board,
        android=properties.get("ro.build.version.release"),
        sdk=number(properties.get("ro.build.version.sdk")),
        abis=tuple(abi.strip() for abi in abis.split(",") if abi.strip()),
        kernel=next(iter(parts.get("kernel", ())), None),
        cores=_cores(parts),
        allowed=cpu_list("".join(parts.get("allowed", ())).partition(":")[2]),
        memory_kib=int(memory[1]) if memory else None,
        free_kib=_free(parts.get("space", [])),
        emulated=emulated or properties.get("ro.hardware") in EMULATED_HARDWARE,
        cpuinfo="\n".join(parts.get("cpuinfo", ())),
        pulse=pulse.parse(text),
    )


def preflight(phone: Phone, need_kib: int = 0) -> list[str]:
    """Return the reasons against measuring on this phone now, each with what to do about it."""
    now, complaints = phone.pulse, []
    if now.battery.level is not None and now.battery.level < LOWEST_CHARGE:
        complaints.append(f"its battery is at {now.battery.level} %: charge it to {LOWEST_CHARGE} % or more")
    if now.thermal_status:
        word = STATUS[now.thermal_status] if now.thermal_status < len(STATUS) else "unknown"
        complaints.append(f"its thermal status is {now.thermal_status} ({word}): let it cool down, out of its case")
    if now.screen not in {None, "Awake"}:
        complaints.append(f"its screen is {now.screen.lower()}, which slows it: wake it, or give --keep-awake")
    if phone.free_kib is not None and phone.free_kib < need_kib:
        complaints.append(
            f"it has {phone.free_kib // 1024} MiB free where {-(-need_kib // 1024)} MiB are needed: make room, or "
            "remove what earlier benchmarks left: tprune bench --on adb --clean"
        )
    return complaints


def _cores(parts: dict[str, list[str]]) -> tuple[Core, ...]:
    online = cpu_list("".join(parts.get("online", ())))
    found: dict[int, Core] = {}
    for cpu, pairs in map(cpu_line, parts.get("cpus", ())):
        if cpu is not None and (not online or cpu in online):
            speed = {"max_khz": number(pairs.get("top")), "capacity": number(pairs.get("size"))}
            found[cpu] = Core(cpu, **speed, governor=pairs.get("governor") or None)
    return tuple(found[cpu] for cpu in sorted(found))


def _free(lines: list[str]) -> int | None:
    """Return the `Available` column of `df -k`, counted from the end since device names may contain blanks."""
    words = lines[-1].split() if len(lines) > 1 else []
    return number(words[-3]) if len(words) >= 5 else None
