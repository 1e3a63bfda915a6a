"""`Pulse`: the state of a device: temperature, frequencies, battery, screen, load.

Any part may be missing or malformed, since vendors differ; it is then None or empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

STATUS = (
    "NONE",
    "LIGHT",
    "MODERATE",
    "SEVERE",
    "CRITICAL",
    "EMERGENCY",
    "SHUTDOWN",
)  # Android's thermal status by number
SKIN = 3  # Android's number for the temperature of the case
DEGREES = 200  # a zone's reading up to this is in degrees, above it in thousandths

# POSIX sh with `cat`, `grep` and Android's own commands only. `read` is a builtin; `cat` would start a process for each
# of a hundred files.
PULSE = r"""
{
echo @@load; cat /proc/loadavg
echo @@frequencies
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  now= cap=; read -r now <$c/cpufreq/scaling_cur_freq; read -r cap <$c/cpufreq/scaling_max_freq
  echo "${c##*/cpu} now=$now cap=$cap"
done
echo @@zones
for z in /sys/class/thermal/thermal_zone*; do
  name= value=; read -r name <$z/type; read -r value <$z/temp; echo "$name $value"
done
echo @@thermal; dumpsys thermalservice
echo @@battery; dumpsys battery
echo @@screen; dumpsys power | grep mWakefulness=
} 2>/dev/null
echo @@end
"""


@dataclass(frozen=True)
class Battery:
    """Charge in per cent, temperature in degrees, and the power sources ("AC", "USB", ...); None where unknown."""

    level: int | None = None
    celsius: float | None = None
    powered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pulse:
    """One reading of a device. `zones` in thousandths of a degree; `khz` and `caps` (current limits) by CPU."""

    thermal_status: int | None = None
    case_celsius: float | None = None
    zones: Mapping[str, int] = field(default_factory=dict)
    khz: Mapping[int, int] = field(default_factory=dict)
    caps: Mapping[int, int] = field(default_factory=dict)
    battery: Battery = field(default_factory=Battery)
    screen: str | None = None  # "Awake", "Asleep", "Dozing", "Dreaming"
    loadavg: tuple[float, ...] = ()

    @property
    def celsius(self) -> float | None:
        """The best estimate of the device's temperature: its case, else a zone named "skin", else its battery."""
        zones = [value / 1000 for name, value in self.zones.items() if "skin" in name.lower()]
        known = (self.case_celsius, max(zones, default=None), self.battery.celsius)
        return next((value for value in known if value is not None), None)

    def document(self) -> dict[str, object]:
        """Return the JSON fields of a record's conditions, without unknown values."""
        battery = {"level": self.battery.level, "celsius": self.battery.celsius, "powered": list(self.battery.powered)}
        found = {
            "thermal_status": self.thermal_status,
            "celsius": self.celsius,
            "battery": battery if self.battery != Battery() else None,
            "screen": self.screen,
            "loadavg": list(self.loadavg),
            "khz": {str(cpu): value for cpu, value in self.khz.items()},
            "caps_khz": {str(cpu): value for cpu, value in self.caps.items()},
            "zones": dict(self.zones),
        }
        return {name: value for name, value in found.items() if value is not None and value not in ([], {})}


def parse(text: str) -> Pulse:
    """Parse the output of `PULSE`. Never raise."""
    parts = sections(text)
    thermal = "\n".join(parts.get("thermal", ()))
    status = re.search(r"^Thermal Status: (\d{1,2})\s*$", thermal, re.MULTILINE)
    frequencies = {cpu: pairs for cpu, pairs in map(cpu_line, parts.get("frequencies", ())) if cpu is not None}
    screen = re.search(r"mWakefulness=(\w{1,20})", "\n".join(parts.get("screen", ())))
    return Pulse(
        thermal_status=int(status[1]) if status else None,
        case_celsius=_case(thermal),
        zones=_zones(parts.get("zones", [])),
        khz={cpu: value for cpu, pairs in frequencies.items() if (value := number(pairs.get("now"))) is not None},
        caps={cpu: value for cpu, pairs in frequencies.items() if (value := number(pairs.get("cap"))) is not None},
        battery=_battery(parts.get("battery", [])),
        screen=screen[1] if screen else None,
        loadavg=_load(parts.get("load", [])),
    )


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines of every section, which begins with a line `@@name`. The first of two equal names counts."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@@"):
            lines = []
            found.setdefault(line[2:].strip(), lines)
        else:
            lines.append(line)
    return found


def cpu_line(line: str) -> tuple[int | None, dict[str, str]]:
    """Parse a line `3 now=1200000 cap=1800000` into the CPU and its pairs; None for a line of another form."""
    first, *rest = line.split() or [""]
    return number(first), dict(pair.split("=", 1) for pair in rest if "=" in pair)


def number(word: str | None) -> int | None:
    """Parse a non-negative integer of at most 18 digits; None for anything else."""
    return int(word) if word and len(word) < 19 and word.isascii() and word.isdecimal() else None


def _real(word: str | None) -> float | None:
    return float(word) if word and re.fullmatch(r"-?\d{1,9}(\.\d{1,12})?", word, re.ASCII) else None


def _case(thermal: str) -> float | None:
    """Return the highest case temperature in `dumpsys thermalservice`; current HAL values come before cached ones."""
    now = thermal.partition("Current temperatures from HAL")[2]
    for part in (now, thermal):
        readings = re.findall(r"Temperature\{mValue=([^,}]*), mType=(\d+)", part)
        values = [value for word, kind in readings if kind == str(SKIN) and (value := _real(word)) is not None]
        if values:
            return max(values)
    return None


def _zones(lines: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in lines:
        name, _, word = line.strip().rpartition(" ")
        value = _real(word)
        if name and value is not None:
            thousandths = round(value * 1000) if abs(value) <= DEGREES else round(value)
            found[name] = max(thousandths, found.get(name, thousandths))
    return found


def _battery(lines: list[str]) -> Battery:
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    level, scale = number(fields.get("level")), number(fields.get("scale")) or 100
    tenths = _real(fields.get("temperature"))
    return Battery(
        level=None if level is None else round(100 * level / scale),
        celsius=None if tenths is None else tenths / 10,
        powered=tuple(
            key.removesuffix(" powered")
            for key, value in fields.items()
            if key.endswith(" powered") and value == "true"
        ),
    )


def _load(lines: list[str]) -> tuple[float, ...]:
    words = lines[0].split()[:3] if lines else []
    values = [value for word in words if (value := _real(word)) is not None]
    return tuple(values) if len(values) == 3 else ()
