"""How the numbers of a report were measured: what all runs share, and the conditions on every device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tprune.bench.measure.record import Record, place_name
from tprune.bench.report.evidence import Evidence
from tprune.bench.report.join import device_names
from tprune.export import runtimes
from tprune.export.manifest import IMAGES, TRANSLATION

STATISTIC = (
    "Batch 1, one process per artefact and block, warm-up discarded. Blocks of all artefacts ran in turn, back to "
    "back. {times} {ratio}Peak memory is that of a fresh process over {heaviest}, the engine included{python}."
)
TIMES = {
    TRANSLATION: "Times are of a whole sentence, from token ids to token ids, without tokenisation.",
    IMAGES: "Times are of one image, from pixels in memory to its class, without reading and decoding the image. "
    "Accuracy is that of the classes that the device itself gave.",
}
RATIO = (
    "The speed-up is the ratio of the summed times of the same {inputs} in the same blocks on the same device; its "
    "95 % interval comes from 2,000 bootstrap draws over {inputs} and blocks. "
)


def measured(found: Evidence, *, compared: bool) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return what holds for all runs, heading -> text, and the same for each device by its name."""
    timed = [item for item in found.records if item.complete and item.samples_ns]
    devices: dict[str, list[Record]] = {}
    for place, name in device_names(found).items():
        if own := [item for item in timed if place_name(item.device) == place]:
            devices[name] = own
    return _shared(found, timed, compared=compared), {name: _device(own) for name, own in devices.items()}


def _shared(found: Evidence, records: Sequence[Record], *, compared: bool) -> dict[str, str]:
    """Return what holds for all runs; a text lists every value where there are several."""
    facts: dict[str, list[Any]] = {
        "blocks": [item.blocks for item in records],
        "sentences": [len(item.output_ids) for item in records if item.task == TRANSLATION],
        "images": [len(item.output_ids) for item in records if item.task == IMAGES],
        "data": [item.settings.get("data") for item in records],
        "warm-up per block": [item.settings.get("warmup") or "none" for item in records],
        "split": [item.split for item in records] or [quality.split for quality in found.qualities],
        "sentences scored": [quality.sentences for quality in found.qualities],
        "sacreBLEU signature": [quality.signature for quality in found.qualities],
        "chrF signature": [quality.chrf_signature for quality in found.qualities],
        "PyTorch (quality)": [quality.torch for quality in found.qualities],
    }
    texts = _texts(facts)
    if records:
        images = any(item.task == IMAGES for item in records)
        tasks = [task for task in TIMES if any(item.task == task for item in records)]
        texts["method"] = STATISTIC.format(
            times=" ".join(TIMES[task] for task in tasks),
            ratio=RATIO.format(inputs="images" if images else "sentences") if compared else "",
            heaviest="some of the images" if images else "the longest sentences",
            python=", and Python" if any(item.loop == "python" for item in records) else "",
        )
    return texts


def _device(records: Sequence[Record]) -> dict[str, str]:
    device = records[0].device
    android = f"Android {device['android']}" if device.get("android") else None
    emulated = "emulated" if device["emulated"] else None
    facts: dict[str, list[Any]] = {
        "device": [", ".join(str(part) for part in (device["kind"], device.get("abi"), android, emulated) if part)],
        "SoC": [device.get("soc")],
        "instruction set": [device.get("instruction_set")],
        "threads": [item.threads for item in records],
        "CPUs allowed": [_cpus(item.affinity) for item in records],
        "engine": [_engine(item) for item in records],
        "measured by": ["the runner" if item.loop == "runner" else "a loop in Python" for item in records],
        "load average before a block": [_range(records, _load, "{:.2f}")],
        "temperature before a block": [_range(records, lambda item: _before(item, "celsius"), "{:.1f} °C")],
        "thermal status before a block": [_range(records, lambda item: _before(item, "thermal_status"), "{}")],
        "battery": [_range(records, _battery, "{} %")],
        "screen": [_before(item, "screen") for item in records],
        "governor": [_governor(item) for item in records],
    }
    return _texts(facts)


def _texts(facts: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    texts = {name: ", ".join(dict.fromkeys(str(v) for v in values if v)) for name, values in facts.items()}
    return {name: text for name, text in texts.items() if text}


def _cpus(affinity: Mapping[str, list[int] | None]) -> str:
    got = affinity["got"] or []
    return f"{' '.join(map(str, got))} ({'pinned' if affinity['asked'] else 'not pinned'})"


def _engine(item: Record) -> str:
    return f"{runtimes.label(item.runtime)} {item.engine.get('version') or ''}".strip()


def _before(item: Record, key: str) -> Any:
    return item.conditions["before"].get(key)


def _load(item: Record) -> Any:
    return next(iter(_before(item, "loadavg") or ()), None)


def _battery(item: Record) -> Any:
    return (_before(item, "battery") or {}).get("level")


def _governor(item: Record) -> str | None:
    """Return the frequency governors of the allowed CPUs, as the runner or the host saw them."""
    own = item.affinity["got"] or []
    seen = [cpu.get("governor") for cpu in item.machine.get("cpus", ()) if cpu.get("id") in own]
    return " ".join(dict.fromkeys(word for word in seen if word)) or _before(item, "governor")


def _range(records: Sequence[Record], value: Callable[[Record], Any], pattern: str) -> str:
    known = [one for item in records if (one := value(item)) is not None]
    ends = list(dict.fromkeys(pattern.format(end) for end in (min(known), max(known)))) if known else []
    return " to ".join(ends)
