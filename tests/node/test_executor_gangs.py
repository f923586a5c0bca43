"""Gangs in real worker processes: their attempts run at once, and end alike."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import trio

from p2premap.ids import Digest
from p2premap.tasks.events import StopSlot
from p2premap.tasks.job import AttemptEnd, Limits, Outcome, Source
from p2premap.tasks.meeting import Meeting
from tests.node.slots_house import LIMITED, ME, UNLIMITED, Bench, bench, exists, file_source, until

pytestmark = pytest.mark.trio
SEATS = ((0, 1), (2,))
_names = itertools.count(1)


@pytest.fixture(autouse=True)
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "worker"))


def begin(b: Bench, call: str, limits: Limits = UNLIMITED, sources: tuple[Source, ...] = ()) -> None:
    """A gang of two processes."""
    seats = tuple((ME, tasks) for tasks in SEATS)
    name = next(_names).to_bytes(16)
    b.reports.clear()
    for seat, tasks in enumerate(SEATS):
        b.executor.perform(
            b.batch(
                *[call] * len(tasks),
                slot=seat,
                first=tasks[0],
                limits=limits,
                sources=sources if seat == 0 else (),
                meeting=Meeting(id=name, seats=seats, seat=seat),
            )
        )


async def ends(b: Bench) -> list[AttemptEnd]:
    """How all of them ended."""
    await b.over(len(SEATS))
    told = sorted((end for report in b.reports for end in report.ends), key=lambda end: end.task)
    assert [end.task for end in told] == [0, 1, 2], "each once"
    await until(lambda: not list(b.doors.iterdir()))  # no door is left
    return told


def outcomes(told: list[AttemptEnd]) -> list[Outcome]:
    return [end.outcome for end in told]


async def test_they_talk_and_the_next_time_they_are_the_same_processes(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        begin(b, "sum")
        first = await ends(b)
        assert outcomes(first) == [Outcome.DONE] * 3
        assert {end.value.split()[0] for end in first} == {b"3"}
        begin(b, "sum")
        assert [end.value for end in await ends(b)] == [end.value for end in first]


async def test_ordinary_attempts_run_between_two_meetings(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        begin(b, "sum")
        first = await ends(b)
        pid = (await b.end("pid")).value
        begin(b, "sum")
        assert [end.value for end in await ends(b)] == [end.value for end in first]
        assert first[0].value.split()[1] == pid


@pytest.mark.parametrize(
    ("what", "outcome", "error"),
    [
        ("fail", Outcome.RAISED, "ValueError: bad (exercise.py, line "),
        ("segfault", Outcome.CRASHED, "The worker process was killed by SIGSEGV"),
    ],
)
async def test_one_that_ends_without_a_result_stops_the_other(
    tmp_path: Path, what: str, outcome: Outcome, error: str
) -> None:
    async with bench(tmp_path) as b:
        begin(b, f"misbehave {what}")
        told = await ends(b)
        assert outcomes(told) == [outcome, outcome, Outcome.STOPPED]
        assert told[1].error == told[0].error
        assert told[0].error.startswith(error)
        assert told[2].error.startswith("It was stopped: seat 0 of the gang is gone")
        begin(b, "sum")
        assert outcomes(await ends(b)) == [Outcome.DONE] * 3


async def test_the_time_limit_is_of_all_of_them(tmp_path: Path) -> None:
    async with bench(tmp_path) as b, trio.open_nursery() as nursery:
        nursery.start_soon(b.run_out, tmp_path / "loop")
        begin(b, f"misbehave loop {tmp_path}/loop", LIMITED)
        told = await ends(b)
        assert {Outcome.TIME_LIMIT} <= {*outcomes(told)} <= {Outcome.TIME_LIMIT, Outcome.STOPPED}
        assert told[0].outcome is told[1].outcome


async def test_it_stops_on_request_and_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        begin(b, f"talk {tmp_path / 'talked'}")
        await exists(tmp_path / "talked")
        (batch,) = [running for running in b.executor.running() if running.slot == 0]
        assert batch.task == 0
        number = b.last - 1
        b.executor.perform(StopSlot(slot=0, batch=number, grace_s=2.0, reason="enough"))
        told = await ends(b)
        assert outcomes(told) == [Outcome.STOPPED] * 3
        assert [end.error for end in told[:2]] == ["enough", "enough"]
        assert "seat 0 of the gang is gone" in told[2].error


async def test_an_input_that_is_not_to_be_had_stops_all_and_is_named(tmp_path: Path) -> None:
    lost = Source(digest=Digest(b"l" * 32), start=0, end=5, holders=(ME,), blob=Digest(b"l" * 32))
    async with bench(tmp_path) as b:
        begin(b, "sum", sources=(lost,))
        await b.over()
        told = sorted((end for report in b.reports for end in report.ends), key=lambda end: end.task)
        assert outcomes(told) == [Outcome.INPUT_LOST, Outcome.INPUT_LOST]
        assert told[0].missing == (lost.digest,)


async def test_an_input_that_turns_out_to_be_another_is_lost_to_who_reads_it(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"as announced")
    source = file_source(text)
    text.write_bytes(b"something els")
    os.utime(text, ns=(source.mtime_ns, source.mtime_ns))
    async with bench(tmp_path) as b:
        begin(b, "read", sources=(source,))
        told = await ends(b)
        assert outcomes(told[:2]) == [Outcome.INPUT_LOST] * 2


async def test_a_kind_that_breaks_its_promise_is_told_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        begin(b, "few")
        told = await ends(b)
        assert told[0].error.startswith("TypeError: the job's kind returned 1 results for 2 tasks")
