"""An `adb` as a shell script, and a fake phone behind it: local files, and Android's commands as scripts.

`phone.folder` holds the phone's output: `bin/NAME` are its commands, `dumpsys/NAME` the output of dumpsys, `properties`
that of getprop, `devices` that of `adb devices -l`. A file `faults/VERB` is sourced before that verb of adb runs ($1..
are the verb and its arguments), for example to pull the cable. `log` has one line per call of adb.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

ADB = """#!/bin/sh
phone={folder}
echo "$@" | head -1 >>"$phone/log"
if [ "$1" = devices ]; then cat "$phone/devices"; exit; fi
serial=$2
shift 2
if [ "$serial" != S1 ]; then  # every phone but the first has a storage of its own beside it
  mkdir -p "$phone/storage-$serial"
  for word do
    shift
    set -- "$@" "$(printf %s "$word" | sed "s|$phone/storage|$phone/storage-$serial|g")"
  done
fi
if [ -e "$phone/faults/$1" ]; then . "$phone/faults/$1"; fi
if [ -e "$phone/lost" ]; then echo "error: device '$serial' not found" >&2; exit 1; fi
verb=$1
shift
case $verb in
  get-state) echo device ;;
  shell) echo $$ >"$phone/client"; exec env PATH="$phone/bin:$PATH" /bin/sh -c "$*" ;;
  push) cp "$1" "$2" || {{ echo "adb: error: failed to copy '$1' to '$2': remote couldn't create file" >&2; exit 1; }}
    echo "$1: 1 file pushed" ;;
  pull) cp "$1" "$2" 2>/dev/null || {{ echo "adb: error: failed to stat remote object '$1'" >&2; exit 1; }} ;;
esac
"""
COMMANDS = {
    "getprop": 'while IFS="=" read -r name value; do [ "$name" = "$1" ] && echo "$value"; done <{folder}/properties; :',
    "dumpsys": "cat {folder}/dumpsys/$1",
    "settings": 'case $1 in get) cat {folder}/setting ;; put) echo "$4" >{folder}/setting ;; esac',
    "svc": "[ \"$*\" = 'power stayon true' ] && echo 7 >{folder}/setting",
    "input": 'echo "mWakefulness=${{2#KEYCODE_}}" | sed s/WAKEUP/Awake/ >{folder}/dumpsys/power',
    "cmd": 'echo "$@" >>{folder}/cmd',
}
PROPERTIES = {
    "ro.product.manufacturer": "Acme",
    "ro.product.model": "One",
    "ro.soc.manufacturer": "Chips",
    "ro.soc.model": "C9",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abilist": "x86_64,x86",
}
BATTERY = "Current Battery Service state:\n  USB powered: true\n  level: {level}\n  scale: 100\n  temperature: 271\n"
THERMAL = """IsStatusOverride: false
Thermal Status: {status}
Current temperatures from HAL:
	Temperature{{mValue={skin}, mType=3, mName=skin, mStatus=0}}
"""


class FakePhone:
    """One attached phone named S1, fit to be measured; `storage` is our folder on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "storage" / "tprune"
        for name in ("bin", "dumpsys", "faults", "storage"):
            (folder / name).mkdir(parents=True)
        self.adb = self.script(folder / "adb", ADB)
        for name, text in COMMANDS.items():
            self.script(folder / "bin" / name, f"#!/bin/sh\n{text}\n")
        self.attach("S1 device product:acme model:One")
        self.set_properties()
        self.set_battery(83)
        self.set_heat()
        (folder / "dumpsys" / "power").write_text("  mWakefulness=Awake\n")
        (folder / "setting").write_text("0\n")

    def script(self, path: Path, text: str) -> Path:
        path.write_text(text.format(folder=self.folder))
        path.chmod(0o755)
        return path

    def attach(self, *lines: str) -> None:
        (self.folder / "devices").write_text("\n".join(["List of devices attached", *lines, ""]))

    def set_properties(self, **changes: str) -> None:
        known = PROPERTIES | {name.replace("_", "."): value for name, value in changes.items()}
        (self.folder / "properties").write_text("".join(f"{name}={value}\n" for name, value in known.items()))

    def set_battery(self, level: int) -> None:
        (self.folder / "dumpsys" / "battery").write_text(BATTERY.format(level=level))

    def set_heat(self, status: int = 0, skin: float = 31.0) -> None:
        (self.folder / "dumpsys" / "thermalservice").write_text(THERMAL.format(status=status, skin=skin))

    def fault(self, verb: str, script: str) -> None:
        (self.folder / "faults" / verb).write_text(script.replace("$phone", str(self.folder)))

    def mend(self) -> None:
        for path in (*(self.folder / "faults").iterdir(), self.folder / "lost"):
            path.unlink(missing_ok=True)

    def calls(self, verb: str) -> list[str]:
        """Return the first line of each call of one verb so far."""
        lines = (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []
        return [line for line in lines if line.split()[2:3] == [verb]]

    def is_clean(self) -> bool:
        """Return whether no run has left files."""
        return not list(self.storage.glob("r-*")) and not (self.storage / "undo").exists()


def late_after(file: Path) -> SimpleNamespace:
    """Return a `time` that jumps by an hour once `file` is not empty, so that calls time out only from then on."""
    return SimpleNamespace(
        monotonic=lambda: time.monotonic() + 3600 * (file.exists() and file.read_text().strip() != "")
    )


def path_without_adb() -> str:
    """Return a PATH without adb."""
    return os.pathsep.join(
        place for place in os.environ["PATH"].split(os.pathsep) if not (Path(place) / "adb").exists()
    )
