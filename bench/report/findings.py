"""The sentences at the top of a report: what the rows show, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tprune.bench.measure.conditions import BUSY_CPUS
from tprune.bench.report.row import Joined, Row, numbered

TOLERATED = (1.0, 8.0)  # percent of BLEU; the second is the upper end of what the paper reports
TOLERATED_POINTS = (0.5, 1.2)  # of accuracy, in percentage points
SIGNIFICANT = 0.05
OVERHEAD = 5.0  # percent of a sentence's time that may pass outside the engine before it is worth a warning
MEANING = {
    "THROTTLED": "Blocks that ran hot are not in the numbers.",
    "MIGRATED": "What ran on other CPUs than asked is not in the numbers.",
    "INTERRUPTED": "What did not come to its end is not in the numbers.",
    "WRONG_TOKENS": "What translates otherwise is not the same program, however fast: its times are left out.",
}
LENGTH = 0.1  # relative difference in output length from which a speed-up is told per token as well
BUSY = 0.95  # share of the wall time a single-threaded run should have been on a CPU


def labels(joined: Sequence[Joined]) -> list[str]:
    """Return a name for every row that no other row has: its own, and as much of its setting as that takes."""
    rows = [item.row for item in joined]
    found = [_label(row, [other for other in rows if other.name == row.name]) for row in rows]
    return numbered(found)


def _label(row: Row, same: Sequence[Row]) -> str:
    parts = [row.name]
    for key, text in (
        ("device", f"{row.device}"),
        ("precision", f"{row.precision}"),
        ("beams", f"{row.beams} beams" if row.beams != 1 else "greedy"),
        ("threads", f"{row.threads} thread{'s' if row.threads != 1 else ''}"),
        ("mode", f"{row.mode}"),
        ("runtime", f"{row.runtime}"),
    ):
        own = getattr(row, key)
        if own is not None and len({getattr(other, key) for other in same} - {None}) > 1:
            parts.append(text)
            same = [other for other in same if getattr(other, key) == own]
    return ", ".join(parts)


def findings(joined: Sequence[Joined]) -> list[str]:
    """Return the findings, most important first; each sentence rests on rows that were measured."""
    names = dict(zip(map(id, joined), labels(joined), strict=True))
    return [
        *_best_by_device(joined),
        *_over_fp32(joined, names),
        *_threads(joined),
        *_endurance(joined, names),
        *_lengths(joined, names),
        *_criteria(joined),
        *_significance(joined),
        *_calm(joined, names),
    ]


def warnings(joined: Sequence[Joined]) -> list[str]:
    """Say which rows stand on runs that are not to be trusted; why is among the notes."""
    found: dict[str, list[str]] = {}
    for item, name in zip(joined, labels(joined), strict=True):
        if item.row.verdict not in {None, "VALID", "EMULATED"}:
            found.setdefault(str(item.row.verdict), []).append(name)
    return [f"{verdict}: {', '.join(listed)}. {MEANING[verdict]}" for verdict, listed in sorted(found.items())]


def _best_by_device(joined: Sequence[Joined]) -> list[str]:
    """Return the best of every device that was timed; no finding spans two devices."""
    devices = list(dict.fromkeys(item.row.device for item in joined if item.details))
    if len(devices) < 2:
        return _best(joined)
    groups = {device: [item for item in joined if item.row.device == device] for device in devices}
    return [f"{device}: {sentence}" for device, own in groups.items() for sentence in _best(own)]


def _pruned(joined: Sequence[Joined]) -> list[Joined]:
    return [item for item in joined if item.row.criterion != "dense"]


def _best(joined: Sequence[Joined]) -> list[str]:
    """Say which point is the fastest within each tolerated loss."""
    images = [item for item in joined if item.row.accuracy is not None]
    rest = [item for item in joined if item.row.accuracy is None]
    return [*(_best_network(images) if images else ()), *(_best_translation(rest) if rest or not images else ())]


def _best_network(joined: Sequence[Joined]) -> list[str]:
    names = dict(zip(map(id, joined), labels(joined), strict=True))
    timed = [item for item in _pruned(joined) if item.row.speedup is not None and item.row.accuracy_loss is not None]
    if not timed:
        if any(item.details.get("over_fp32") for item in joined):
            return []  # the dense network in int8, say
        return ["No compressed network was timed against the dense one, so nothing can be said about its speed."]
    sentences = []
    for within, most, fastest in _fastest_within(timed, TOLERATED_POINTS, lambda row: 100 * (row.accuracy_loss or 0.0)):
        if fastest is None:
            sentences.append(f"No timed network stays within {most} points of accuracy.")
        elif _not_faster(fastest.row):
            sentences.append(f"No timed network within {most} points of accuracy is faster than the dense one.")
        else:
            row = fastest.row
            assert row.accuracy is not None and row.accuracy_loss is not None
            change = f"{0.0 - 100 * row.accuracy_loss:+.2f} points".replace("-", "−")
            told = f"{names[id(fastest)]}, accuracy {100 * row.accuracy:.2f} % ({change}), {_gain(row)}"
            where = f"{row.runtime} {row.precision}, {_threads_of(row)}, batch 1"
            sentences.append(f"Fastest within {within} points of accuracy: {told}; {where}.")
    return sentences


def _best_translation(joined: Sequence[Joined]) -> list[str]:
    names = dict(zip(map(id, joined), labels(joined), strict=True))
    timed = [item for item in _pruned(joined) if item.row.speedup is not None and item.row.speedup_low is not None]
    if not timed:
        if any(item.row.speedup is None for item in _pruned(joined) if item.details):
            return ["A pruned model's speed-up is over the dense one of the same runtime and precision: time that too."]
        return ["No pruned model was timed against the dense one, so nothing can be said about its speed."]
    if all(item.row.bleu_loss_percent is None for item in timed):
        which = ", ".join(names[id(item)] for item in timed)
        return [f"No BLEU stands beside the times of {which}, so what the speed costs is not known: tprune evaluate."]
    sentences = []
    scored = [item for item in timed if item.row.bleu_loss_percent is not None]
    for within, most, fastest in _fastest_within(scored, TOLERATED, lambda row: row.bleu_loss_percent or 0.0):
        if fastest is None:
            sentences.append(f"No timed model stays within {most} % BLEU loss.")
        elif _not_faster(fastest.row):
            sentences.append(f"No timed model within {most} % BLEU loss is faster than the dense one.")
        else:
            sentences.append(_best_sentence(fastest.row, names[id(fastest)], within))
    return sentences


def _fastest_within(
    timed: Sequence[Joined], tolerated: Sequence[float], loss: Callable[[Row], float]
) -> list[tuple[str, str, Joined | None]]:
    """Return the losses tolerated, rising, the largest of them, and what is fastest within; equal answers once."""
    found: list[tuple[list[float], Joined | None]] = []
    for most in tolerated:
        inside = [item for item in timed if loss(item.row) <= most]
        faster = [item for item in inside if not _not_faster(item.row)]  # than the dense one of their own precision
        fastest = min(faster or inside, key=lambda item: item.row.median_ms or math.inf, default=None)
        if found and found[-1][1] is fastest:
            found[-1][0].append(most)
        else:
            found.append(([most], fastest))
    return [(" and within ".join(f"{one:g}" for one in within), f"{within[-1]:g}", item) for within, item in found]


def _over_fp32(joined: Sequence[Joined], names: Mapping[int, str]) -> list[str]:
    """Say how much faster int8 rows are than the dense fp32 model; `speedup` compares rows of one precision."""
    told = []
    for item in joined:
        if gain := item.details.get("over_fp32"):
            change = ""
            if (loss := item.row.bleu_loss_percent) is not None:
                change = f", BLEU {0.0 - loss:+.1f} %"
            elif (loss := item.row.accuracy_loss) is not None:
                change = f", accuracy {0.0 - 100 * loss:+.2f} points"
            if change and item.row.p_value is not None:
                change += f" (p = {item.row.p_value:.2g})"
            change = change.replace("-", "−")
            interval = f"95 % interval {gain['low']:.2f}–{gain['high']:.2f}"
            told.append(f"{names[id(item)]} {gain['ratio']:.2f}x ({interval}){change}")
    return [f"Over the dense fp32 model of the same runtime: {'; '.join(told)}."] if told else []


def _best_sentence(row: Row, name: str, within: str) -> str:
    assert row.bleu is not None and row.bleu_loss_percent is not None
    change = f"{-row.bleu_loss_percent:+.1f} %".replace("-", "−")
    where = f"{row.runtime} {row.precision}, {_threads_of(row)}, batch 1, {_conduct(row)}"
    return f"Fastest within {within} % BLEU loss: {name}, BLEU {row.bleu:.2f} ({change}), {_gain(row)}; {where}."


def _not_faster(row: Row) -> bool:
    return row.speedup is not None and row.speedup <= 1


def _gain(row: Row) -> str:
    assert row.speedup is not None and row.speedup_low is not None and row.speedup_high is not None
    told = f"speed-up {row.speedup:.2f}x (95 % interval {row.speedup_low:.2f}–{row.speedup_high:.2f})"
    return told + (", which the measurement cannot tell from none" if row.speedup_low <= 1 <= row.speedup_high else "")


def _threads_of(row: Row) -> str:
    return f"{row.threads} thread{'s' if row.threads != 1 else ''}"


def _conduct(row: Row) -> str:
    search = "one image at a time" if row.beams is None else "greedy" if row.beams == 1 else f"{row.beams} beams"
    return search if row.mode == "warm" else f"{search}, {row.mode}"


def _threads(joined: Sequence[Joined]) -> list[str]:
    """Say, where several numbers of threads were measured side by side, which is the fastest for each model."""
    groups: dict[str, dict[str, list[Joined]]] = {}
    for item in joined:
        row = item.row
        if item.details.get("sweep"):
            where = f"{row.device}, {row.runtime} {row.precision}, {_conduct(row)}"
            groups.setdefault(where, {}).setdefault(row.name, []).append(item)
    return [
        f"Fastest number of threads ({where}): {'; '.join(told)}."
        for where, models in groups.items()
        if (told := [_fastest(name, own) for name, own in models.items() if len(own) > 1])
    ]


def _fastest(name: str, sweep: Sequence[Joined]) -> str:
    """Return the number of threads that is fastest: the fewest, unless more are faster beyond doubt."""
    surely = [item for item in sweep if item.details["sweep"]["low"] > 1]
    if not surely:
        return f"{sweep[0].details['sweep']['threads']} for {name}"
    best = max(surely, key=lambda item: item.details["sweep"]["ratio"])
    gain = best.details["sweep"]
    told = f"{gain['ratio']:.2f} times as fast as {gain['threads']}"
    return f"{best.row.threads} for {name}, {told} (95 % interval {gain['low']:.2f}–{gain['high']:.2f})"


def _endurance(joined: Sequence[Joined], names: Mapping[int, str]) -> list[str]:
    """Say what became of the speed of every sustained run."""
    told = []
    for item in joined:
        if item.row.mode == "sustained" and (ends := item.details.get("endurance")):
            end = "minute" if ends["end_s"] >= 60 else f"{ends['end_s']:.1f} s"
            medians = f"{ends['first_ms']:.2f} ms in the first {end}, {ends['last_ms']:.2f} ms in the last"
            lasted = f"{names[id(item)]}, {ends['minutes']:.2g} minutes without a pause"
            told.append(f"{lasted}: median {medians} ({ends['ratio']:.2f} times).")
    return told


def _lengths(joined: Sequence[Joined], names: Mapping[int, str]) -> list[str]:
    """Say where a model writes so much more or less than the dense one that the time of a sentence misleads."""

    def setting(row: Row) -> tuple[Any, ...]:
        return (row.device, row.runtime, row.precision, row.threads, row.beams, row.mode)

    dense = {setting(item.row): item for item in joined if item.row.criterion == "dense" and item.row.speedup == 1}
    sentences = []
    for item in _pruned(joined):
        baseline, speedup = dense.get(setting(item.row)), item.row.speedup
        if baseline is None or speedup is None or not item.details or item.details["tokens"] is None:
            continue
        ratio = item.details["tokens"] / baseline.details["tokens"]
        if abs(ratio - 1) > LENGTH:
            sentences.append(
                f"{names[id(item)]} writes {ratio:.2f} times the tokens of the dense model, which is part of its "
                f"{speedup:.2f}x; per token it is {speedup * ratio:.2f}x."
            )
    return sentences


def _criteria(joined: Sequence[Joined]) -> list[str]:
    """Rank the criteria by mean BLEU wherever several of them kept the same share under the same conditions."""
    groups: dict[tuple[Any, ...], dict[str, dict[tuple[int | None, str], float]]] = {}
    for item in _pruned(joined):
        row = item.row
        if row.bleu is not None and row.keep is not None and row.criterion is not None:
            group = groups.setdefault((round(row.keep, 2), row.precision, row.beams, row.scored or 0), {})
            # the same model with a trimmed vocabulary is not a second observation
            group.setdefault(row.criterion, {})[row.seed, row.name.removesuffix("+trim")] = row.bleu
    sentences = []
    several = len({scored for *_, scored in groups}) > 1
    for (keep, precision, beams, scored), group in sorted(
        groups.items(), key=lambda entry: (-entry[0][0], *entry[0][1:])
    ):
        if len(group) < 2:
            continue
        means = sorted(((sum(own.values()) / len(own), name, len(own)) for name, own in group.items()), reverse=True)
        ranked = ", ".join(f"{name} {mean:.2f}" + (f" (mean of {n})" if n > 1 else "") for mean, name, n in means)
        where = f"{precision}, {'greedy' if beams == 1 else f'{beams} beams'}"
        where += f", {scored} sentences" if several else ""
        sentences.append(f"BLEU at {100 * keep:.0f} % kept ({where}): {ranked}.")
    return sentences


def _significance(joined: Sequence[Joined]) -> list[str]:
    """Say for which rows the difference of BLEU or accuracy could be chance."""
    translations = [item for item in joined if item.row.accuracy is None]
    networks = [item for item in joined if item.row.accuracy is not None]
    return [
        *_by_chance(translations, "BLEU", "paired bootstrap", "model"),
        *_by_chance(networks, "accuracy", "McNemar's exact test", "network"),
    ]


def _by_chance(joined: Sequence[Joined], score: str, test: str, what: str) -> list[str]:
    scores = {
        (row.name, row.precision, row.beams, row.device, row.p_value): item
        for item in _pruned(joined)
        if (row := item.row).p_value is not None
    }
    tested = list(scores.values())  # once, with however many threads and in whatever mode its time was measured
    names = dict(zip(map(id, tested), labels(tested), strict=True))
    same = [names[id(item)] for item in tested if (item.row.p_value or 0.0) >= SIGNIFICANT]
    if not tested:
        return []
    if not same:
        return [f"Every {score} difference to the dense {what} is significant ({test}, p < {SIGNIFICANT})."]
    told = f"{score[0].upper()}{score[1:]} difference not significant"
    return [f"{told} ({test} against the dense {what}, p ≥ {SIGNIFICANT}): {', '.join(same)}."]


def _calm(joined: Sequence[Joined], names: Mapping[int, str]) -> list[str]:
    """Warn when the loop around the engine, or other work on the machine, took a share of the times."""
    timed = [(names[id(item)], item) for item in joined if item.details]
    sentences = []
    outside = [(item.details["overhead_percent"], name, item) for name, item in timed]
    if outside and max(share for share, *_ in outside) > OVERHEAD:
        share, name, most = max(outside, key=lambda one: one[:2])
        what = "a sentence" if most.row.accuracy is None else "an image"
        sentences.append(f"Up to {share:.1f} % of {what}'s time passed outside the engine ({name}).")
    shares = [
        (item.details["cpu_share"], name)
        for name, item in timed
        if item.row.threads == 1 and item.details["cpu_share"] is not None
    ]
    others = [(item.details["others"], name) for name, item in timed if item.details["others"] is not None]
    why = []
    if shares and min(shares)[0] < BUSY:
        share, name = min(shares)
        why.append(f"in one block {name} had a CPU for only {100 * share:.0f} % of the time")
    if others and max(others)[0] > BUSY_CPUS:
        most, name = max(others)
        why.append(f"beside {name} other programs kept up to {most:.1f} CPUs busy")
    if why:
        sentences.append(
            f"The machine was busy with other work: {' and '.join(why)}. Medians and intervals still compare, since "
            "blocks were interleaved; absolute times are too long."
        )
    return sentences
