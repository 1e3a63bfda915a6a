"""The sentences at the top of a report: which model to take, what the rows show, and what they do not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tprune.base.significance import p_text
from tprune.bench.measure.conditions import BUSY_CPUS
from tprune.bench.measure.stats import Speedup
from tprune.bench.report import metrics
from tprune.bench.report.metrics import SIGNIFICANT
from tprune.bench.report.row import Row, counted, labelled

OVERHEAD = 5.0  # percent of a sentence's time outside the engine that is worth a warning
MEANING = {
    "THROTTLED": "Blocks that ran hot are not in the numbers.",
    "MIGRATED": "Blocks that ran on other CPUs than asked are not in the numbers.",
    "INTERRUPTED": "Blocks that did not finish are not in the numbers.",
    "WRONG_TOKENS": "Their outputs differ from the reference, so their times are left out.",
}
LENGTH = 0.1  # relative difference in output length that is worth a finding
BUSY = 0.95  # least share of the wall time that a single-threaded run should have had a CPU


@dataclass(frozen=True)
class Summary:
    """The sentences at the top of a report; `verdict` has two sentences for each device that was timed."""

    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    findings: tuple[str, ...]


def summary(rows: Sequence[Row]) -> Summary:
    """Return the sentences about these rows."""
    timed = [row for row in rows if row.functional is None]
    devices = list(dict.fromkeys(row.device for row in timed if row.median_ms is not None))
    verdicts = [_verdict(labelled(row for row in timed if row.device == device)) for device in devices]
    return Summary(tuple(verdicts), tuple(_warnings(rows)), tuple(_findings(timed) if rows else ()))


def recommended(rows: Sequence[Row]) -> Row | None:
    """Return the fastest row within the least tolerated loss that any row keeps; None where none beats the dense."""
    for most in metrics.of(rows).tolerated:
        fitting = [row for row in rows if (loss := row.metric.lost(row)) is not None and loss <= most]
        faster = [row for row in fitting if (gain := _over_dense(row)) is not None and gain.low > 1]
        if faster:
            return min(faster, key=lambda row: (row.mode != "warm", row.median_ms or math.inf))
    return None


def _over_dense(row: Row) -> Speedup | None:
    """Return the speed-up over the dense fp32 model where that was timed, otherwise over the dense one of its own."""
    if row.dense and row.precision == "fp32":
        return None
    over_fp32 = row.details.over_fp32 if row.details else None
    return over_fp32 or (None if row.dense else row.gain)


def _verdict(rows: Sequence[Row]) -> str:
    metric, row = metrics.of(rows), recommended(rows)
    where = f"on {rows[0].device}"
    if row is None:
        if any(_over_dense(one) is not None and metric.lost(one) is not None for one in rows):
            most = metric.within.format(f"{metric.tolerated[-1]:g}")
            return f"Keep the dense {metric.model} {where}. Nothing else is faster within {most}."
        why = f"No other {metric.model} was both scored and timed beside the dense {metric.model}."
        return f"There is no recommendation {where}. {why}"
    gain = _over_dense(row)
    assert gain is not None
    dense = next((one for one in rows if one.dense and one.precision == "fp32" and one.runtime == row.runtime), None)
    size, fp32 = "", "fp32 " if row.details and row.details.over_fp32 else ""
    if dense is not None and dense.bytes and row.bytes:
        change = 100 * (1 - row.bytes / dense.bytes)
        size = f"{abs(change):.0f} % {'smaller' if change >= 0 else 'larger'} and "
    fast = f"{gain.ratio:.2f} times as fast as the dense {fp32}{metric.model} {where}"
    first = f"Take {row.label}: it is {size}{fast} (95 % interval {gain.low:.2f}–{gain.high:.2f})."
    p = f", {p_text(row.p_value)}" if row.p_value is not None else ""
    doubt = ""
    if row.p_value is not None:
        doubt = ", a significant difference" if row.p_value < SIGNIFICANT else ", which may be chance"
    score = f"{metric.label} is {metric.value_text(row)}"
    return f"{first} Its {score} ({metric.change_text(row)} against the dense {metric.model}{p}{doubt})."


def _findings(rows: Sequence[Row]) -> list[str]:
    """Return the findings, most important first; each rests on rows that were measured."""
    return [
        *_best_by_device(rows),
        *_over_fp32(rows),
        *_threads(rows),
        *_endurance(rows),
        *_lengths(rows),
        *_criteria(rows),
        *_significance(rows),
        *_overhead(rows),
        *_busy(rows),
    ]


def _warnings(rows: Sequence[Row]) -> list[str]:
    """Return one sentence for each kind of failure, with the rows it affects; the reasons are among the notes."""
    failed: dict[str, list[str]] = {}
    for row in rows:
        if not row.trusted:
            failed.setdefault(str(row.verdict), []).append(row.label)
    return [f"{kind}: {', '.join(names)}. {MEANING[kind]}" for kind, names in sorted(failed.items())]


def _best_by_device(rows: Sequence[Row]) -> list[str]:
    devices = list(dict.fromkeys(row.device for row in rows if row.details))
    if len(devices) < 2:
        return _best(rows)
    groups = {device: labelled(row for row in rows if row.device == device) for device in devices}
    return [f"{device}: {sentence}" for device, own in groups.items() for sentence in _best(own)]


def _best(rows: Sequence[Row]) -> list[str]:
    """Name the fastest row within each tolerated loss."""
    metric = metrics.of(rows)
    pruned = [row for row in rows if not row.dense]
    timed = [row for row in pruned if row.gain is not None]
    kind = "compressed network" if metric is metrics.ACCURACY else "pruned model"
    if not timed:
        if any(row.details for row in pruned):
            return [
                f"The speed-up of a {kind} is over the dense one of the same runtime and precision: time that as well."
            ]
        if any(row.details and row.details.over_fp32 for row in rows):
            return []  # only the dense model in int8
        return [f"No {kind} was timed beside the dense one, so its speed is not known."]
    scored = [row for row in timed if metric.lost(row) is not None]
    if not scored:
        which = ", ".join(row.label for row in timed)
        return [f"There is no {metric.label} beside the times of {which}, so the loss is not known: tprune evaluate."]
    sentences = []
    for within, most, fastest in _fastest_within(scored, metric.tolerated):
        limit = metric.within.format(most)
        if fastest is None:
            sentences.append(f"No {kind} that was timed stays within {limit}.")
        elif not _faster(fastest):
            if recommended(rows):  # otherwise the verdict says so
                sentences.append(f"No timed {kind} within {limit} is faster than the dense one of its precision.")
        else:
            score = f"{metric.label} {metric.value_text(fastest)} ({metric.change_text(fastest)})"
            where = f"{fastest.runtime} {fastest.precision}, {counted(fastest.threads, 'thread')}, batch 1"
            where += f", {fastest.search}" if fastest.beams is not None else ""
            sentences.append(
                f"Fastest within {metric.within.format(within)}: {fastest.label}, {score}, {_gain(fastest)}; {where}."
            )
    return sentences


def _fastest_within(timed: Sequence[Row], tolerated: Sequence[float]) -> list[tuple[str, str, Row | None]]:
    """Return the tolerated losses in words, the largest of them, and the fastest row within; equal answers once."""
    found: list[tuple[list[float], Row | None]] = []
    for most in tolerated:
        inside = [row for row in timed if (row.metric.lost(row) or 0.0) <= most]
        faster = [row for row in inside if _faster(row)]
        fastest = min(faster or inside, key=lambda row: row.median_ms or math.inf, default=None)
        if found and found[-1][1] is fastest:
            found[-1][0].append(most)
        else:
            found.append(([most], fastest))
    return [(" and within ".join(f"{one:g}" for one in within), f"{within[-1]:g}", row) for within, row in found]


def _faster(row: Row) -> bool:
    return row.speedup is None or row.speedup > 1


def _interval(gain: Speedup) -> str:
    return f"95 % interval {gain.low:.2f}–{gain.high:.2f}"


def _gain(row: Row) -> str:
    gain = row.gain
    assert gain is not None
    text = f"speed-up {gain.ratio:.2f}x ({_interval(gain)})"
    return text + (", which may be no difference at all" if gain.low <= 1 <= gain.high else "")


def _over_fp32(rows: Sequence[Row]) -> list[str]:
    """Say how much faster int8 rows are than the dense fp32 model; `speedup` compares rows of one precision."""
    texts = []
    for row in rows:
        if row.details and (gain := row.details.over_fp32):
            metric, change = row.metric, ""
            if metric.lost(row) is not None:
                change = f", {metric.label} {metric.change_text(row)}"
                change += f" ({p_text(row.p_value)})" if row.p_value is not None else ""
            texts.append(f"{row.label} {gain.ratio:.2f}x ({_interval(gain)}){change}")
    return [f"Over the dense fp32 model of the same runtime: {'; '.join(texts)}."] if texts else []


def _threads(rows: Sequence[Row]) -> list[str]:
    """Name the fastest number of threads of each model where several were measured side by side."""
    groups: dict[str, dict[str, list[tuple[Row, Any]]]] = {}
    for row in rows:
        if row.details and row.details.sweep:
            where = f"{row.device}, {row.runtime} {row.precision}, {row.search}"
            groups.setdefault(where, {}).setdefault(row.name, []).append((row, row.details.sweep))
    sentences = []
    for where, models in groups.items():
        texts = []
        for name, own in models.items():
            surely = [(row, sweep) for row, sweep in own if sweep.low > 1]  # else the fewest threads are as fast
            if len(own) > 1 and surely:
                best, gain = max(surely, key=lambda pair: pair[1].ratio)
                faster = f"{gain.ratio:.2f} times as fast as {gain.threads} ({_interval(gain)})"
                texts.append(f"{best.threads} for {name}, {faster}")
            elif len(own) > 1:
                texts.append(f"{own[0][1].threads} for {name}")
        sentences += [f"Fastest number of threads ({where}): {'; '.join(texts)}."] if texts else []
    return sentences


def _endurance(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for row in rows:
        if row.mode == "sustained" and row.details and (ends := row.details.endurance):
            end = "minute" if ends.end_s >= 60 else f"{ends.end_s:.1f} s"
            medians = f"{ends.first_ms:.2f} ms in the first {end}, {ends.last_ms:.2f} ms in the last"
            lasted = f"{row.label}, {ends.minutes:.2g} minutes without a pause"
            sentences.append(f"{lasted}: median {medians} ({ends.ratio:.2f} times).")
    return sentences


def _lengths(rows: Sequence[Row]) -> list[str]:
    """Name the models whose outputs are so much longer or shorter that the time of a sentence misleads."""
    dense = {row.setting: row for row in rows if row.dense and row.speedup == 1}
    sentences = []
    for row in rows:
        base = dense.get(row.setting)
        if row.dense or base is None or row.speedup is None or not (row.details and base.details):
            continue
        if row.details.tokens is None or not base.details.tokens:
            continue
        ratio = row.details.tokens / base.details.tokens
        if abs(ratio - 1) > LENGTH:
            sentences.append(
                f"{row.label} writes {ratio:.2f} times the tokens of the dense model: its speed-up is "
                f"{row.speedup:.2f}x per sentence and {row.speedup * ratio:.2f}x per token."
            )
    return sentences


def _criteria(rows: Sequence[Row]) -> list[str]:
    """Rank the criteria by mean BLEU wherever several of them kept the same share under the same conditions."""
    groups: dict[tuple[Any, ...], dict[str, dict[tuple[int | None, str], float]]] = {}
    for row in rows:
        if not row.dense and row.bleu is not None and row.keep is not None and row.criterion is not None:
            group = groups.setdefault((round(row.keep, 2), row.precision, row.beams, row.scored or 0), {})
            # the same model with a trimmed vocabulary is not a second observation
            group.setdefault(row.criterion, {})[row.seed, row.name.removesuffix("+trim")] = row.bleu
    several = len({scored for *_, scored in groups}) > 1
    sentences = []
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


def _significance(rows: Sequence[Row]) -> list[str]:
    """Name the rows whose difference in quality is significant, and the others; threads and modes do not change it."""
    sentences = []
    for metric in metrics.METRICS:
        unique = {
            (row.name, row.precision, row.beams, row.device, row.p_value): row for row in rows if row.metric is metric
        }
        tested = [row for row in labelled(unique.values()) if row.p_value is not None]
        chance = [row.label for row in tested if (row.p_value or 0.0) >= SIGNIFICANT]
        clear = [row.label for row in tested if row.label not in chance]
        for names, standing, limit in ((clear, "significant", "<"), (chance, "not significant", "≥")):
            start = f"{metric.label[0].upper()}{metric.label[1:]} difference {standing}"
            versus = f"{metric.test} against the dense {metric.model}, p {limit} {SIGNIFICANT}"
            sentences += [f"{start} ({versus}): {', '.join(names)}."] if names else []
    return sentences


def _overhead(rows: Sequence[Row]) -> list[str]:
    outside = [(row.details.overhead_percent, row.label, row.metric.item) for row in rows if row.details]
    if not outside or (most := max(outside))[0] <= OVERHEAD:
        return []
    what = "a sentence" if most[2] == "sentence" else f"an {most[2]}"
    return [f"Up to {most[0]:.1f} % of {what}'s time passed outside the engine ({most[1]})."]


def _busy(rows: Sequence[Row]) -> list[str]:
    """Warn when other programs took a share of the CPU time."""
    timed = [(row, row.details) for row in rows if row.details]
    shares = [
        (behind.cpu_share, row.label) for row, behind in timed if row.threads == 1 and behind.cpu_share is not None
    ]
    others = [(behind.others, row.label) for row, behind in timed if behind.others is not None]
    why = []
    if shares and (least := min(shares))[0] < BUSY:
        why.append(f"in one block {least[1]} had a CPU for only {100 * least[0]:.0f} % of the time")
    if others and (most := max(others))[0] > BUSY_CPUS:
        why.append(f"beside {most[1]} other programs kept up to {most[0]:.1f} CPUs busy")
    if not why:
        return []
    return [
        f"The machine was busy with other work: {' and '.join(why)}. Times are too long, and speed-ups are "
        "disturbed too: another run may give one outside these intervals. Measure again on a quiet machine."
    ]
