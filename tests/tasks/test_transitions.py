"""Every event in every state of a task: what it becomes. The table is the state machine.

State of task 0, of which attempt 0 was given up before, on a node with room for more:

- waiting: nobody has it; the only node asked for a pause.
- out: attempt 1 is at the node.
- settled: attempt 1 yielded a blob that the node holds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2premap.ids import Ballot
from p2premap.sim.workloads import Shape
from p2premap.tasks.events import Woke
from p2premap.tasks.job import AttemptEnd, JobOptions, Outcome
from tests.tasks.dialogue import Led, blob
from tests.tasks.working import MAP, B

RETRIED = JobOptions(retries=5, attempts_max=5)


def _state(led: Led) -> str:
    if led.core.over:
        return led.view.phase.value
    run = led.core._phase.state.by_id[MAP]
    return "settled" if run.is_settled(0) else "out" if run.out[0] else "waiting"


def _led(state: str, options: JobOptions) -> Led:
    led = Led(Shape(2), options=options)
    led.seen("A", slots=2)
    led.busy("A", 0, free=1)
    assert led.given[MAP, 0][1] == 1
    if state == "waiting":
        led.busy("A", 0)
    if state == "settled":
        led.ended("A", [_end(1, Outcome.DONE)])
    assert _state(led) == state
    return led


def _end(attempt: int, outcome: Outcome) -> AttemptEnd:
    blobs = (blob("m0"),) if outcome is Outcome.DONE else ()
    return AttemptEnd(task=0, attempt=attempt, outcome=outcome, blobs=blobs, error="it says so", seconds=5.0)


def _tell(attempt: int, outcome: Outcome) -> Callable[[Led], object]:
    return lambda led: led.ended("A", [_end(attempt, outcome)], free=1)


EVENTS: dict[str, Callable[[Led], object]] = {
    **{f"ends {outcome.name}": _tell(1, outcome) for outcome in Outcome},
    **{f"the earlier attempt ends {outcome.name}": _tell(0, outcome) for outcome in Outcome},
    "an attempt that never was ends": _tell(9, Outcome.CRASHED),
    "under another ballot": lambda led: led.ended("A", [_end(1, Outcome.DONE)], ballot=Ballot(0, 1, B)),
    "a stranger says so": lambda led: led.ended("C", [_end(1, Outcome.DONE)]),
    "busy": lambda led: led.busy("A", 0),
    "lost": lambda led: led.lost("A"),
    "doubtful": lambda led: led.doubt("A"),
    "seen": lambda led: led.seen("A", slots=2),
    "unlinked": lambda led: led.unlinked("A"),
    "woke": lambda led: led.hear(Woke(lost_s=9.0)),
    "cancelled": lambda led: led.cancel(),
    "another node is seen": lambda led: led.seen("B"),
}

# what a task becomes, where it does not stay what it is
BECOMES: dict[str, dict[str, str]] = {
    "waiting": {
        "ends DONE": "settled",
        "the earlier attempt ends DONE": "settled",
        # a word from the node with room in it ends the pause
        **{f"ends {o.name}": "out" for o in Outcome if o is not Outcome.DONE},
        **{f"the earlier attempt ends {o.name}": "out" for o in Outcome if o is not Outcome.DONE},
        "an attempt that never was ends": "out",
        "another node is seen": "out",
    },
    "out": {
        "ends DONE": "settled",
        "the earlier attempt ends DONE": "settled",
        "ends REFUSED": "waiting",
        "busy": "waiting",
        "lost": "waiting",
    },
    "settled": {"lost": "waiting"},
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", BECOMES)
def test_transition(state: str, event: str) -> None:
    led = _led(state, RETRIED)
    EVENTS[event](led)
    assert _state(led) == BECOMES[state].get(event, state)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (Outcome.DONE, Outcome.REFUSED)])
def test_an_attempt_that_failed_is_followed_by_another(outcome: Outcome) -> None:
    led = _led("out", RETRIED)
    led.ended("A", [_end(1, outcome)], free=1)
    assert led.given[MAP, 0][1] == 2


@pytest.mark.parametrize("outcome", Outcome)
def test_what_counts_ends_a_job_without_further_tries(outcome: Outcome) -> None:
    led = _led("out", JobOptions(attempts_max=1))
    led.ended("A", [_end(1, outcome)], free=1)
    counts = outcome in (
        Outcome.RAISED,
        Outcome.CRASHED,
        Outcome.TIME_LIMIT,
        Outcome.MEMORY_LIMIT,
        Outcome.INPUT_LOST,
    )
    assert led.core.over == counts


@pytest.mark.parametrize("event", EVENTS)
def test_nothing_happens_to_a_job_that_is_over(event: str) -> None:
    led = _led("settled", RETRIED)
    led.done("A", 1, blobs="m")
    before = led.view
    EVENTS[event](led)
    assert led.view == before
    assert led.core.deadline() == float("inf")
