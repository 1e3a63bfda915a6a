"""Blocks in a fake place: order, resume, verdicts, and the records of failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.artefacts import SENTENCES, run_of, write_artefact
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.measure import blocks, record
from tprune.bench.measure.blocks import Place
from tprune.bench.measure.conditions import Conditions
from tprune.bench.measure.plan import plan
from tprune.bench.measure.settings import MODES, Settings, parse_cpus, parse_threads, sweep
from tprune.bench.measure.tasks import Subject
from tprune.bench.measure.tasks import read_subject as read
from tprune.bench.phone.pulse import Pulse
from tprune.bench.runner.contract import Ids, Job, Run, RunFailed

FAST = Settings(blocks=3, warmup=2)
PHONE = {"kind": "phone", "serial": "S1", "model": "Made Up 9", "abi": "arm64-v8a", "emulated": False}


class Fake:
    """A fake phone. `change` modifies its runs; `asked` lists its calls."""

    def __init__(self, change: Callable[[Subject, Job, int], Mapping[str, Any]] | None = None, **facts: Any) -> None:
        self.change = change or (lambda subject, job, number: {})
        self.asked: list[tuple[str, Job, int]] = []
        self.hot = ""
        self.place = Place({**PHONE, **facts}, self.measure, lambda: warm(30.0), self.after, {"engine": "1"})

    def measure(self, subject: Subject, job: Job, sentences: Ids) -> Run:
        self.asked.append((subject.name, job, len(sentences)))
        return run_of(subject, job, sentences, **self.change(subject, job, len(self.asked)))

    def after(self, run: Run) -> Conditions:
        return replace(warm(31.0), throttled=self.hot or None)


def warm(celsius: float) -> Conditions:
    return Conditions(Pulse(case_celsius=celsius))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [write_artefact(tmp_path / name) for name in ("a", "b")]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def measure(fake: Fake, folders, out, settings=FAST, sentences=SENTENCES, **options):
    return blocks.run(plan(folders, sentences, settings), place=fake.place, out=out, **options)


def test_blocks_are_interleaved_and_rotated(folders, out):
    fake = Fake()
    done = measure(fake, folders, out)
    order = [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2), ("a", -1), ("b", -1)]
    assert [(found.name, found.block) for found in done] == order
    assert [name for name, _, _ in fake.asked] == [name for name, _ in order]
    assert record.read(out) == done


def test_every_process_has_its_own_nonce_and_one_session_a_call(folders, out):
    done = measure(Fake(), folders, out)
    assert len({found.nonce for found in done}) == len(done)
    assert len({found.session for found in done}) == 1


def test_what_a_record_says(folders, out):
    timed, *_, weighed = measure(Fake(), folders[:1], out)
    assert (timed.output_ids, timed.steps) == (SENTENCES, [3, 2, 4])
    assert (timed.samples_ns, timed.run_ns, timed.encoder_ns) == ([60, 40, 80], [57, 38, 76], [10] * 3)
    assert (timed.verdict, timed.mode, timed.loop, timed.threads_got) == ("VALID", "warm", "runner", 1)
    assert timed.conditions == {
        "before": {"celsius": 30.0, "khz": {"0": 2_000_000}},
        "after": {"celsius": 31.0, "zones": {"cpu": 40_000}, "switches": 2, "cpu_share": 0.988},
        "during": [],
    }
    assert (timed.identical, timed.engine["version"], timed.machine["page_size"]) == (None, "1.31.1", 4096)
    assert weighed.block == -1
    assert weighed.memory == {"peak_kib": 9000, "base_kib": 4000, "anon_kib": 5000, "file_kib": 4000}
    assert weighed.samples_ns == weighed.output_ids == []


def test_a_finished_benchmark_is_not_measured_again(folders, out):
    first = measure(Fake(), folders, out)
    fake = Fake()
    assert measure(fake, folders, out) == first
    assert fake.asked == []


def test_resume_measures_only_what_is_missing(folders, out):
    measure(Fake(), folders, out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:4]) + lines[4][:80])
    fake = Fake()
    assert len(measure(fake, folders, out)) == 8
    assert [name for name, _, _ in fake.asked] == ["a", "b", "a", "b"]
    assert len(record.read(out)) == 8


@pytest.mark.parametrize(
    ("change", "sentences", "message"),
    [
        ({"blocks": 4}, SENTENCES, "was measured with blocks 3, this call asks for 4"),
        ({"warmup": 0}, SENTENCES, "measured with warmup 2, this call asks for 0"),
        ({"split": "val"}, SENTENCES, "measured with split 'test', this call asks for 'val'"),
        ({"cpus": (0,)}, SENTENCES, r"measured with cpus None, this call asks for \[0\]"),
        ({}, SENTENCES[:2], "measured with sentences 3, this call asks for 2"),
        ({}, [[5, 5, 0], *SENTENCES[1:]], "measured with sentences_id"),
        ({"threads": 2, "max_length": 5}, SENTENCES, "measured with max_length 8, this call asks for 5"),
    ],
)
def test_resume_refuses_other_settings(folders, out, change, sentences, message):
    measure(Fake(), folders, out)
    with pytest.raises(BadInput, match=message):
        measure(Fake(), folders, out, replace(FAST, **change), sentences)


def test_resume_refuses_another_engine_another_loop_and_another_artefact(folders, out):
    fake = Fake()
    measure(fake, folders[:1], out)
    for change, message in (
        ({"versions": {"engine": "2"}}, "measured with engine '1', this call asks for '2'"),
        ({"loop": "python"}, "measured with loop 'runner', this call asks for 'python'"),
    ):
        fake.place = replace(fake.place, **change)
        with pytest.raises(BadInput, match=message):
            measure(fake, folders[:1], out)
    with pytest.raises(BadInput, match=r"holds records of another artefact \(a\)"):
        measure(Fake(), folders[1:], out)


def test_one_file_holds_several_phones_threads_and_modes(folders, out):
    first = measure(Fake(), folders, out)
    for fake, settings in (
        (Fake(serial="S2"), FAST),
        (Fake(), replace(FAST, threads=2, cpus=(6, 7))),
        (Fake(), replace(FAST, mode="cold")),
    ):
        assert len(measure(fake, folders, out, settings)) == len(fake.asked) == 8
    assert len(record.newest(record.read(out))) == 4 * 8
    fake = Fake()
    assert measure(fake, folders, out) == first
    assert fake.asked == []


def test_several_numbers_of_threads_share_the_blocks(folders, out):
    fake = Fake()
    done = measure(fake, folders, out, sweep(replace(FAST, blocks=2), (1, 2)))
    assert [(found.name, found.threads, found.block) for found in done] == [
        ("a", 1, 0), ("b", 1, 0), ("a", 2, 0), ("b", 2, 0),
        ("b", 2, 1), ("a", 2, 1), ("b", 1, 1), ("a", 1, 1),
        ("a", 1, -1), ("b", 1, -1), ("a", 2, -1), ("b", 2, -1),
    ]  # fmt: skip
    assert [job.threads for _, job, _ in fake.asked] == [found.threads for found in done]
    assert len({found.session for found in done}) == 1
    more = Fake()
    assert len(measure(more, folders, out, sweep(replace(FAST, blocks=2), (1, 2, 4)))) == 18
    assert {job.threads for _, job, _ in more.asked} == {4}


def test_a_number_of_threads_that_fails_leaves_the_others(folders, out):
    def die(subject, job, number):
        if job.threads == 2:
            raise RunFailed("no memory")
        return {}

    with pytest.raises(WorkFailed, match=r"1 of 1 artefacts failed \(.*/a with 2 threads: no memory\)"):
        measure(Fake(die), folders[:1], out, sweep(FAST, (1, 2)))
    assert [found.threads for found in record.read(out) if found.valid] == [1] * 4


def test_a_sustained_run_of_minutes_is_resumed_as_such(folders, out):
    settings = replace(FAST, mode="sustained", minutes=0.01)
    fake = Fake()
    first = measure(fake, folders[:1], out, settings)
    (_, job, _), (_, weighing, _) = fake.asked
    assert (job.min_ms, job.passes, weighing.min_ms) == (600, 1, 0)
    assert (len(first[0].samples_ns), len(first[0].output_ids)) == (6, 3)
    assert measure(Fake(), folders[:1], out, settings) == first
    with pytest.raises(BadInput, match="measured with min_ms 600, this call asks for 0"):
        measure(Fake(), folders[:1], out, replace(settings, minutes=None, blocks=1))


def test_modes_are_told_to_the_runner(folders, out):
    asked = {}
    for mode in MODES:
        fake = Fake()
        measure(fake, folders[:1], out, replace(FAST, mode=mode))
        asked[mode] = [job for _, job, _ in fake.asked]
    assert [len(jobs) for jobs in asked.values()] == [4, 4, 4, 2]
    assert [jobs[0].warmup for jobs in asked.values()] == [2, 0, 2, 2]
    assert (asked["spaced"][0].gap_ms, asked["warm"][0].gap_ms) == (500, 0)
    assert (asked["sustained"][0].passes, asked["sustained"][0].sample_ms) == (3, 1000)
    for *_, weighed in asked.values():
        assert (weighed.warmup, weighed.passes, weighed.gap_ms) == (0, 1, 0)
    sustained = [found for found in record.read(out) if found.mode == "sustained"]
    assert (len(sustained[0].samples_ns), len(sustained[0].output_ids)) == (9, 3)


def test_an_artefact_that_fails_is_one_line_and_the_others_go_on(folders, out):
    def die(subject, job, number):
        if (subject.name, number) == ("a", 4):
            raise RunFailed("the runner was killed by SIGSEGV")
        return {}

    with pytest.raises(WorkFailed, match=r"1 of 2 artefacts failed \(.*a: the runner was killed by SIGSEGV\)"):
        measure(Fake(die), folders, out)
    found = [item for item in record.read(out) if item.name == "a"]
    assert [(item.block, item.verdict) for item in found] == [(0, "VALID"), (1, "INTERRUPTED")]
    assert (found[1].error, found[1].samples_ns) == ("the runner was killed by SIGSEGV", [])
    assert found[1].conditions["before"] == {"celsius": 30.0}
    assert sum(item.name == "b" and item.valid for item in record.read(out)) == 4
    done = measure(Fake(), folders, out)
    assert len(done) == 8 and all(item.valid for item in done)


def test_a_place_that_is_lost_ends_the_session(folders, out):
    def lose(subject, job, number):
        if number == 2:
            raise WorkFailed("device S1 is gone")
        return {}

    with pytest.raises(WorkFailed, match="^device S1 is gone$"):
        measure(Fake(lose), folders, out)
    assert [(item.name, item.verdict) for item in record.read(out)] == [("a", "VALID"), ("b", "INTERRUPTED")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"artefact": "other"}, "of artefact 'other', but '.*' was asked for"),
        ({"threads": {"asked": 2, "got": 2}}, "of threads 2, but 1 was asked for"),
        ({"beams": 4}, "of beams 4"),
        ({"max_length": 9}, "of max_length 9, but 8"),
        ({"affinity": {"asked": [1], "got": [1]}}, r"of CPUs \(1,\), but None"),
        ({"output_ids": ((5, 0),)}, "of sentences 1, but 3"),
        ({"samples_ns": (1,) * 6}, "of samples 6, but 3"),
        ({"build": {"optimised": False}}, "built for debugging"),
        ({"build": {"optimised": True, "sanitised": True}}, "built for debugging"),
    ],
)
def test_a_report_of_something_else_is_not_believed(folders, out, change, message):
    with pytest.raises(WorkFailed, match=message):
        measure(Fake(lambda *_: change), folders[:1], out)
    assert [item.verdict for item in record.read(out)] == ["INTERRUPTED"]


OTHER = {"output_ids": ((5, 6, 0), (7, 0), (8, 9, 11, 0))}


def test_other_tokens_in_a_later_block(folders, out):
    fake = Fake(lambda subject, job, number: OTHER if number == 2 else {})
    with pytest.raises(WorkFailed, match="block 1 gave other tokens than an earlier block"):
        measure(fake, folders[:1], out)
    assert [item.verdict for item in record.read(out)] == ["VALID", "WRONG_TOKENS"]


def test_other_tokens_than_the_reference(folders, out):
    right = {read(folders[0]).id: SENTENCES}
    with pytest.raises(WorkFailed, match="block 0 gave other tokens than the reference"):
        measure(Fake(lambda *_: OTHER), folders[:1], out, reference=right)
    assert [(item.verdict, item.identical) for item in record.read(out)] == [("WRONG_TOKENS", 2)]


def test_one_sentence_in_a_hundred_may_differ_from_another_processor(folders, out):
    many = SENTENCES * 40
    rounded = ((5, 0), *map(tuple, many[1:]))
    fake = Fake(lambda subject, job, number: {"output_ids": rounded} if len(fake.asked) <= 3 else {})
    done = measure(fake, folders[:1], out, sentences=many, reference={read(folders[0]).id: many})
    assert [(item.verdict, item.identical) for item in done] == [("VALID", 119)] * 3 + [("VALID", None)]


def test_an_emulated_device_is_never_valid(folders, out):
    fake = Fake(emulated=True)
    fake.hot = "thermal status 2"
    done = measure(fake, folders, out, replace(FAST, cpus=(3,)))
    assert {item.verdict for item in done} == {"EMULATED"}
    again = Fake(emulated=True)
    assert measure(again, folders, out, replace(FAST, cpus=(3,))) == done
    assert again.asked == []
    with pytest.raises(WorkFailed, match="other tokens"):
        measure(
            Fake(lambda *_: OTHER, emulated=True),
            folders[:1],
            out.with_name("x"),
            reference={read(folders[0]).id: SENTENCES},
        )


def test_a_hot_block_is_kept_but_measured_again_next_time(folders, out):
    fake = Fake()
    fake.hot = "thermal status 2 (MODERATE)"
    done = measure(fake, folders[:1], out)
    assert [item.verdict for item in done] == ["THROTTLED"] * 3 + ["VALID"]  # heat says nothing about memory
    assert done[0].conditions["after"]["throttled"] == fake.hot
    assert {item.verdict for item in measure(Fake(), folders[:1], out)} == {"VALID"}
    assert len(record.newest(record.read(out))) == 4


def test_another_cpu_than_asked(folders, out):
    moved = Fake(lambda *_: {"affinity": {"asked": [6, 7], "got": [6]}})
    with pytest.raises(WorkFailed, match=r"ran on CPUs \[6\], not \[6, 7\]"):
        measure(moved, folders[:1], out, replace(FAST, cpus=(7, 6)))
    assert [item.verdict for item in record.read(out)] == ["MIGRATED"]


def test_progress_counts_what_is_done(folders, out):
    said = []
    measure(Fake(), folders[:1], out, progress=lambda done, total, what: said.append((done, total, what)))
    assert said == [
        (0, 4, "a, block 1"),
        (1, 4, "a, block 2"),
        (2, 4, "a, block 3"),
        (3, 4, "a, memory"),
        (4, 4, "done"),
    ]


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "no sentence to translate"),
        ([[1], []], "sentence 2 has 0 tokens; legal are 1 to 4"),
        ([[1] * 5], "sentence 1 has 5 tokens"),
    ],
)
def test_sentences_that_cannot_be_measured(folders, out, sentences, message):
    with pytest.raises(BadInput, match=message):
        measure(Fake(), folders, out, sentences=sentences)
    assert not out.exists()


def test_calls_that_are_wrong(folders, out, tmp_path):
    with pytest.raises(BadInput, match="name at least one artefact"):
        measure(Fake(), [], out)
    with pytest.raises(BadInput, match="is the same artefact as"):
        measure(Fake(), folders[:1] * 2, out)
    with pytest.raises(BadInput, match="is a folder; name a file"):
        measure(Fake(), folders, tmp_path)
    with pytest.raises(BadInput, match="is not an artefact: it has no manifest"):
        measure(Fake(), [tmp_path], out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, "threads 0: at least 1"),
        ({"blocks": 0}, "blocks 0: at least 1"),
        ({"warmup": -1}, "warmup -1: at least 0"),
        ({"beams": 0}, "beams 0: at least 1"),
        ({"mode": "hot"}, "mode 'hot': must be warm or cold or spaced or sustained"),
        ({"cpus": ()}, r"cpus \[\]: at least one"),
        ({"max_length": 1}, "max length 1: at least 2"),
        ({"minutes": 1.0}, "minutes 1: only for the mode sustained, this one is warm"),
        ({"mode": "sustained", "minutes": 61.0}, "minutes 61: more than 0 and at most 60"),
    ],
)
def test_settings_refuse(change, message):
    with pytest.raises(BadInput, match=message):
        Settings(**change)


def test_cpus_are_written_as_the_kernel_writes_them():
    assert parse_cpus("6-7,4") == (4, 6, 7)
    for text in ("", "big", "7-6", "1,,2", "-1"):
        with pytest.raises(BadInput, match=f"cpus '{text}': must be a list of CPUs such as 4,6-7"):
            parse_cpus(text)


def test_numbers_of_threads_are_a_list():
    assert parse_threads("4, 1,2") == (4, 1, 2)
    assert [one.threads for one in sweep(FAST, (2, 1, 2))] == [2, 1]
    for text in ("", "1,", "two", "-1", "1.5", "99999"):
        with pytest.raises(BadInput, match=f"threads '{text}': must be a number, or several to compare such as 1,2,4"):
            parse_threads(text)
