"""What attempts printed last is in the job's ledger: for a successor, and for when their node is gone."""

from __future__ import annotations

import cbor2

from p2premap.ids import NodeId
from p2premap.sim.workloads import Shape
from p2premap.tasks import events
from p2premap.tasks.job import AttemptEnd, JobOptions, Outcome
from p2premap.tasks.words import CHARACTERS_MAX, KEPT_BYTES_MAX, LastWords, Words
from tests.tasks.dialogue import Led
from tests.tasks.test_growth import Growing
from tests.tasks.working import MAP, A, B

ONE_COPY = JobOptions(copies=1)


def _told(led: Led) -> list[tuple[int, NodeId, str, str]]:
    return [(one.task, NodeId(one.node), one.outcome, one.detail) for one in led.core.remembered()]


def _done(task: int, said: str) -> AttemptEnd:
    return AttemptEnd(task=task, attempt=0, outcome=Outcome.DONE, seconds=1.0, detail=said)


def test_a_successor_knows_what_was_printed_and_so_does_who_asks_at_the_end() -> None:
    led = Led(Shape(3, inline=True), options=ONE_COPY, on="ABC")
    led.ended("A", [_done(0, "hello")])
    led.ended("B", [_done(1, "")])
    assert _told(led) == [(0, A, "done", "hello")]
    heir = led.heir("B", on="B")
    assert _told(heir) == [(0, A, "done", "hello")]
    heir.now = 0.01
    heir.holding("B")
    heir.ended("B", [AttemptEnd(task=2, attempt=1000, outcome=Outcome.DONE, seconds=1.0, detail="bye")])
    assert heir.view.phase.over
    assert _told(heir) == [(2, B, "done", "bye"), (0, A, "done", "hello")]
    assert _told(heir) == [(one.task, one.node, one.outcome, one.detail) for one in heir.shown[-1].failures]


def test_a_report_that_comes_again_says_nothing_new_and_one_of_no_attempt_nothing() -> None:
    led = Led(Shape(2, inline=True), options=ONE_COPY, on="AB")
    for _ in range(2):
        led.ended("A", [_done(0, "x" * 5_000)])
    led.ended("A", [AttemptEnd(task=1, attempt=7, outcome=Outcome.DONE, detail="never given out")])
    led.ended("A", [_done(9, "no such task")])
    assert _told(led) == [(0, A, "done", "x" * CHARACTERS_MAX)]


def test_what_failed_and_what_was_printed_are_told_side_by_side() -> None:
    led = Led(Shape(2, inline=True), options=JobOptions(copies=1, retries=3), on="AB")
    led.ended("A", [AttemptEnd(task=0, attempt=0, outcome=Outcome.RAISED, error="no", detail="trace and words")])
    led.ended("B", [_done(1, "fine")])
    assert _told(led) == [(0, A, "raised", "trace and words"), (1, B, "done", "fine")]
    assert [(row.task, row.tries[0].detail) for row in led.core.tasks((0, 0), 9).rows] == [
        (0, "trace and words"),
        (1, "fine"),
    ]


def test_a_job_that_prints_without_end_has_a_bounded_ledger() -> None:
    words = LastWords()
    taken = sum(words.take(Words(MAP, task, 0, A, "x" * CHARACTERS_MAX)) for task in range(10_000))
    assert 200 < taken < 260
    assert len(list(words)) == taken
    last = words.last(KEPT_BYTES_MAX)
    assert [one.task for one in last] == list(range(taken - 1, taken - 15, -1))


def test_who_waits_for_a_call_is_not_told_what_it_printed_on_the_way() -> None:
    led = Led(Shape(1), director=Growing())
    led.seen("A", slots=2)
    led.hear(events.Extend(payload=cbor2.dumps((2, 0, False, [])), request=0))
    led.ended(
        "A", [_done(0, "hello"), AttemptEnd(task=1, attempt=0, outcome=Outcome.RAISED, error="no", detail="trace")]
    )
    told = [end for told in led.asked_for(events.TasksEnded) for end in told.ends]
    assert [(end.task, end.detail) for end in told] == [(0, ""), (1, "trace")]
    assert _told(led) == [(1, A, "raised", "trace"), (0, A, "done", "hello")]
