"""Attempts that wait for other tasks, as the worker's core sees them. This is node `C`; `A` and `B` lead jobs."""

from __future__ import annotations

import pytest

from p2premap.tasks import events
from p2premap.tasks.job import AttemptEnd, Outcome
from tests.tasks.working import A, B, Working

WAITS = events.AttemptWaits(slot=0, batch=1)
GOES_ON = events.AttemptGoesOn(slot=0, batch=1)


def waiting(slots: int = 1) -> Working:
    """The first slot's attempt waits; it is batch 1."""
    node = Working(slots=slots)
    node.assign(0)
    assert node.hear(WAITS) == []
    return node


def ends(node: Working, batch: int, task: int, outcome: Outcome = Outcome.DONE) -> list[str]:
    """The executor reports the only attempt of a batch."""
    end = AttemptEnd(task=task, attempt=0, outcome=outcome)
    return node.hear(events.SlotReported(slot=0, ends=(end,), batch_over=True, batch=batch))


def test_who_waits_makes_room_for_as_much_as_a_slot_takes() -> None:
    node = waiting()
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]
    assert node.assign(1, job="k", leader=B) == ["slot 0: run k 1"]
    assert node.assign(2, job="k", leader=B) == ["B: busy k 2 free 0"]


def test_both_are_told_of_in_any_order() -> None:
    node = waiting()
    node.assign(0, job="k", leader=B)
    assert ends(node, 1, 0) == ["A: ended 0 free 1 serial 1"]
    assert ends(node, 2, 0) == ["B: ended 0 free 1 serial 1"]
    assert node.core.busy == 0


def test_who_goes_on_takes_the_place_of_what_would_have_come_next() -> None:
    node = waiting()
    node.hear(GOES_ON)
    assert node.assign(0, job="k", leader=B) == ["B: busy k 0 free 0"]
    assert ends(node, 1, 0) == ["A: ended 0 free 1 serial 1", "B: busy k  free 1"]
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]


def test_who_waits_again_makes_room_again() -> None:
    node = waiting()
    node.hear(GOES_ON)
    node.hear(WAITS)
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]


def test_what_stands_aside_is_stopped_and_forgotten_like_the_rest() -> None:
    node = waiting()
    assert node.stop(0) == ["slot 0: stop"]
    assert node.stop(0) == []
    assert ends(node, 1, 0, Outcome.STOPPED) == ["A: ended 0 STOPPED free 2 serial 1"]
    node = waiting()
    assert node.forget() == ["slot 0: stop"]
    assert ends(node, 1, 0, Outcome.STOPPED) == ["end j"]


def test_a_stop_that_is_under_way_is_not_given_twice() -> None:
    node = Working()
    node.assign(0)
    assert node.stop(0) == ["slot 0: stop"]
    assert node.hear(WAITS) == []
    assert ends(node, 1, 0, Outcome.STOPPED) == ["A: ended 0 STOPPED free 2 serial 1"]


def test_a_census_counts_what_stands_aside() -> None:
    node = waiting()
    assert node.recount(leader=A, census=True) == ["A: holding 0 free 2", "A: ended  free 2 serial 0"]


def test_only_what_runs_alone_in_its_batch_can_wait() -> None:
    node = Working()
    node.assign(0, 1)
    with pytest.raises(AssertionError):
        node.hear(WAITS)
