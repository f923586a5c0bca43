"""The end of a job is told to somebody outside before it is concluded: again and again, and by whoever leads."""

from __future__ import annotations

from itertools import pairwise

import pytest

from p2premap.sim.workloads import Shape
from p2premap.tasks import events
from p2premap.tasks.callback import GIVEN_UP_S, MOST_S
from p2premap.tasks.job import JobOptions, Outcome, Phase
from tests.tasks.dialogue import Led

TOLD = JobOptions(copies=1, callback="http://example.com/done", callback_secret="s")


def done(options: JobOptions = TOLD) -> Led:
    """A job of one task that has just ended."""
    led = Led(Shape(1), options=options, on="A")
    led.done("A", 0)
    return led


def told(led: Led) -> list[events.CallBack]:
    return led.asked_for(events.CallBack)


def answer(led: Led, status: int, error: str = "") -> None:
    led.hear(events.CalledBack(status=status, error=error))


def concluded(led: Led) -> int:
    return len(led.asked_for(events.Conclude))


def test_watchers_hear_of_the_end_at_once_and_the_job_is_concluded_when_somebody_was_told() -> None:
    led = done()
    assert led.shown[-1].phase is Phase.DONE
    assert not led.core.over
    assert concluded(led) == 0
    led.tick()
    (ask,) = told(led)
    assert (ask.url, ask.secret, ask.view.phase) == ("http://example.com/done", "s", Phase.DONE)
    answer(led, 200)
    assert concluded(led) == 1
    assert led.core.over
    assert led.asked_for(events.RemoveJob) == []


def test_without_a_callback_nobody_is_told() -> None:
    led = done(JobOptions(copies=1))
    assert (told(led), concluded(led)) == ([], 1)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_success_is_an_answer(status: int) -> None:
    led = done()
    led.tick()
    answer(led, status)
    assert (concluded(led), led.asked_for(events.RemoveJob)) == (1, [])


def test_who_has_created_something_from_it_needs_the_job_no_more() -> None:
    led = done()
    led.tick()
    answer(led, 201)
    assert concluded(led) == len(led.asked_for(events.RemoveJob)) == 1


def test_it_is_told_again_later_and_later_under_the_same_key() -> None:
    led = done()
    at = []
    for status in (0, 500, 404, 302, 503, *([500] * 10)):
        led.tick()
        at.append(led.now)
        answer(led, status)
    waits = [after - before for before, after in pairwise(at)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, *([MOST_S] * 5)]
    assert len({ask.key for ask in told(led)}) == 1
    assert concluded(led) == 0


def test_after_a_day_nobody_is_told_any_more() -> None:
    led = done()
    while led.now < GIVEN_UP_S:
        led.tick()
        answer(led, 500)
    assert concluded(led) == 1


def test_a_shell_that_says_nothing_is_asked_again() -> None:
    led = done()
    led.tick()
    led.tick(59.0)
    assert len(told(led)) == 1
    led.tick(2.0)
    assert len(told(led)) == 2


def test_a_successor_tells_the_same_end() -> None:
    led = done()
    led.tick()
    answer(led, 500)
    heir = led.heir("B", on="B")
    heir.tick()
    assert heir.shown[-1].phase is Phase.DONE
    assert {ask.key for ask in told(heir)} == {told(led)[0].key}
    answer(heir, 200)
    assert concluded(heir) == 1


def test_the_key_is_of_the_job_and_of_its_end() -> None:
    failed = Led(Shape(1), options=TOLD, on="A")
    failed.failed("A", 0, Outcome.RAISED)
    failed.tick()
    well = done()
    well.tick()
    assert told(failed)[0].view.phase is Phase.FAILED
    assert told(failed)[0].key.partition("-")[0] == told(well)[0].key.partition("-")[0]
    assert told(failed)[0].key != told(well)[0].key


def test_who_still_works_for_a_job_that_is_over_hears_so_meanwhile() -> None:
    led = done()
    led.tick()
    assert led.holding("A", (0, 0)) == ["A: forget"]
    led.core.check_invariants()
