"""Parsing a device's output: facts, cores, complaints; no output breaks the parser."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.probes import EMULATOR, SHY, WHOLE
from tprune.bench.measure import record
from tprune.bench.measure.conditions import Conditions
from tprune.bench.measure.settings import cpu_list
from tprune.bench.phone import facts as phone
from tprune.bench.phone import pulse
from tprune.bench.phone.facts import PROBE, Core, Phone, preflight
from tprune.bench.phone.pulse import PULSE, Battery, Pulse

any_text = settings(max_examples=300, deadline=None, derandomize=True, database=None)
LINES = WHOLE.splitlines()


def test_a_record_holds_facts_and_conditions_as_before():
    earlier = record.read(Path(__file__).parents[1] / "measure" / "earlier.jsonl")[2]
    found = phone.parse(WHOLE)
    assert found.facts("S1", "arm64-v8a") == earlier.device
    before, after = earlier.conditions["before"], earlier.conditions["after"]
    ours = Conditions(found.pulse, waited_s=5.0).document()
    assert {**ours, "khz": before["khz"]} == before  # the frequencies are those that the runner read
    ours = Conditions(found.pulse, throttled="thermal status 1 (LIGHT)").document()
    assert {**ours, **{name: after[name] for name in ("zones", "switches", "cpu_share")}} == after


def test_a_phone_that_tells_everything():
    found = phone.parse(WHOLE)
    assert (found.name, found.soc, found.android, found.sdk) == ("Google Pixel 6", "Google GS101", "14", 34)
    assert found.abis == ("arm64-v8a", "armeabi-v7a", "armeabi")
    assert found.cores[6] == Core(6, 2802000, 1024, "sched_pixel")
    assert (len(found.cores), found.allowed) == (8, tuple(range(8)))
    assert (found.memory_kib, found.free_kib) == (7721000, 73869900)
    assert found.kernel.startswith("Linux localhost 5.10")
    assert not found.emulated
    assert preflight(found, need_kib=1000) == []


def test_the_pulse_of_a_phone_that_tells_everything():
    found = pulse.parse(WHOLE)
    assert found == phone.parse(WHOLE).pulse
    assert (found.thermal_status, found.case_celsius, found.celsius) == (0, 35.25, 35.25)
    assert found.zones == {"BIG": 52000, "LITTLE": 47000, "skin_therm1": 36900, "vendor zone": 31250}
    assert (found.khz, found.caps) == ({0: 300000, 6: 500000}, {0: 1803000, 6: 2802000, 7: 2802000})
    assert found.battery == Battery(level=84, celsius=27.1, powered=("USB",))
    assert (found.screen, found.loadavg) == ("Awake", (2.15, 1.98, 1.5))


def test_a_phone_that_hides_much():
    found = phone.parse(SHY)
    assert (found.name, found.soc, found.memory_kib, found.free_kib) == (
        "samsung SM-G991B",
        "universal2100",
        None,
        None,
    )
    assert found.usable_cores() == (0, 1, 2)
    assert found.pulse == Pulse(battery=Battery(12, 30.5), screen="Dozing")
    assert found.pulse.celsius == 30.5  # the battery's, for want of a better one


@pytest.mark.parametrize(
    ("line", "abi", "word"),
    [
        ("Features\t: fp asimd evtstrm aes atomics asimdrdm lrcpc dcpop asimddp", "arm64-v8a", "neon-dotprod"),
        ("Features\t: half thumb vfp edsp neon vfpv3", "armeabi-v7a", "neon"),
        ("flags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt", "x86_64", "sse4.1"),
        ("flags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt", "arm64-v8a", None),  # translated: not its own
        ("", "arm64-v8a", None),
    ],
)
def test_instruction_sets(line, abi, word):
    assert phone.parse(f"@@cpuinfo\n{line}\n@@online\n0-7\n").facts("S1", abi)["instruction_set"] == word
    assert phone.parse(WHOLE).facts("S1", abi)["instruction_set"] is None


def test_an_emulator_says_so():
    found = phone.parse(EMULATOR)
    assert found.emulated
    assert found.big_cores() == (0, 1, 2, 3)
    assert phone.parse("@@properties\nro.boot.qemu=1\n").emulated
    assert phone.parse("@@properties\nro.hardware=tprune-double\n").emulated


def test_a_device_that_says_nothing():
    found = phone.parse("")
    assert found == Phone()
    assert (found.name, found.big_cores(), preflight(found, need_kib=1)) == ("a device without a name", (), [])
    assert pulse.parse("").document() == {}


@any_text
@given(st.text())
def test_no_answer_breaks_the_parsers(text):
    preflight(phone.parse(text))
    json.dumps(pulse.parse(text).document(), allow_nan=False)


@any_text
@given(st.lists(st.tuples(st.sampled_from(LINES), st.text(max_size=8), st.integers(0, 60)), max_size=80))
def test_no_damage_of_an_answer_breaks_the_parsers(lines):
    damaged = "\n".join(line[:cut] + noise + line[cut:] for line, noise, cut in lines)
    found = phone.parse(damaged)
    assert set(found.big_cores(2)) <= set(found.usable_cores())
    preflight(found)
    json.dumps(found.pulse.document(), allow_nan=False)


@pytest.mark.parametrize(
    ("threads", "cpus"), [(1, (6, 7)), (2, (6, 7)), (3, (4, 5, 6, 7)), (5, tuple(range(8))), (99, tuple(range(8)))]
)
def test_big_cores_are_whole_clusters(threads, cpus):
    assert phone.parse(WHOLE).big_cores(threads) == cpus


def test_big_cores_by_frequency_where_there_is_no_capacity():
    assert phone.parse(SHY).big_cores() == (2,)  # not 7, which shells may not use
    assert phone.parse(SHY).big_cores(2) == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,6", (0, 1, 2, 3, 6)),
        ("5", (5,)),
        ("7,1", (1, 7)),
        ("", ()),
        ("3-1", ()),
        ("0-99999", ()),
        ("a", ()),
        ("-1", ()),
    ],
)
def test_lists_of_cpus(text, cpus):
    assert cpu_list(text) == cpus


def with_pulse(**changes) -> Phone:
    whole = phone.parse(WHOLE)
    return replace(whole, pulse=replace(whole.pulse, **changes))


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (with_pulse(battery=Battery(level=19)), r"its battery is at 19 %: charge it to 20 % or more"),
        (with_pulse(thermal_status=2), r"its thermal status is 2 \(MODERATE\): let it cool down"),
        (with_pulse(thermal_status=9), r"its thermal status is 9 \(unknown\)"),
        (with_pulse(screen="Asleep"), r"its screen is asleep, which slows it: wake it, or give --keep-awake"),
        (
            replace(phone.parse(WHOLE), free_kib=2048),
            r"it has 2 MiB free where 40 MiB are needed: make room, or remove",
        ),
    ],
)
def test_complaints_say_what_to_do(found, complaint):
    (said,) = preflight(found, need_kib=40 * 1024)
    assert re.match(complaint, said)


def test_the_probe_is_plain_sh():
    done = subprocess.run(["/bin/sh", "-c", f"D=/tmp\n{PROBE}"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "@@end"
    found = phone.parse(done.stdout)
    assert found.cpuinfo.count("\n") == 0 and len(found.cpuinfo.split(":")) == 2
    assert found.cores and found.free_kib > 0 and found.memory_kib > 0
    assert len(found.pulse.loadavg) == 3


def test_the_probe_uses_what_every_android_has():
    known = {"cat", "grep", "echo", "read", "for", "do", "done", "getprop", "dumpsys", "uname", "df", "now=", "cap=",
             "name=", "value=", "top=", "size=", "governor=", "{", "}"}  # fmt: skip
    lines = [line.strip() for line in PROBE.splitlines() if line.strip()]
    first = {part.split()[0] for line in lines for part in line.replace("; ", "\n").splitlines()}
    assert first <= known
    assert PULSE in PROBE
