"""Slots that are kept for tasks that start all at once. This is node `C`; `A` and `B` lead jobs."""

from __future__ import annotations

from p2premap.config import TasksConfig
from p2premap.ids import Ballot, Digest
from p2premap.tasks import events, messages
from p2premap.tasks.job import Outcome
from tests.tasks.working import A, B, Working

LAPSE_S = TasksConfig().reserve_s
LOCK = Digest(b"l" * 32)


def test_idle_slots_are_kept_and_given_to_nobody_else() -> None:
    node = Working(slots=3)
    assert node.reserve(2) == ["A: reserved j 2"]
    assert node.assign(0, job="k", leader=B) == ["slot 2: run k 0"]
    assert node.assign(1, job="k", leader=B) == ["slot 2: run k 1"]
    assert node.assign(2, job="k", leader=B) == ["B: busy k 2 free 0"]
    assert node.assign(0) == ["slot 0: run j 0", "A: reserved j 1", "B: busy k  free 1"]
    assert node.assign(1) == ["slot 1: run j 1"]


def test_what_is_busy_gets_nothing_new_and_is_kept_once_it_is_idle() -> None:
    node = Working(slots=2)
    for task in range(2):
        node.assign(task, job="k", leader=B)
    assert node.reserve(2) == ["A: reserved j 0"]
    assert node.assign(2, job="k", leader=B) == ["B: busy k 2 free 0"]
    assert node.report(1, 1) == ["B: ended 1 free 0 serial 1", "A: reserved j 1"]
    assert node.report(0, 0) == ["B: ended 0 free 0 serial 2", "A: reserved j 2"]


def test_a_job_that_reserves_gets_its_kept_slots_only() -> None:
    node = Working(slots=2)
    node.assign(0, job="k", leader=B)
    node.assign(1, job="k", leader=B)
    node.reserve(1)
    assert node.assign(0) == ["A: busy j 0 free 0"]


def test_the_older_job_takes_what_the_younger_was_kept() -> None:
    node = Working(slots=2)
    assert node.reserve(2, job="j", leader=A, age_s=1.0) == ["A: reserved j 2"]
    assert node.reserve(1, job="k", leader=B, age_s=5.0) == ["A: reserved j 1", "B: reserved k 1"]
    assert node.reserve(2, job="k", leader=B, age_s=5.0) == ["A: reserved j 0", "B: reserved k 2"]
    assert node.reserve(0, job="k", leader=B) == ["A: reserved j 2"]


def test_the_higher_priority_comes_before_age() -> None:
    node = Working(slots=1)
    node.reserve(1, job="j", leader=A, age_s=100.0)
    assert node.reserve(1, job="k", leader=B, priority=1) == ["A: reserved j 0", "B: reserved k 1"]


def test_a_job_of_higher_priority_is_not_kept_from_anything() -> None:
    node = Working(slots=1)
    node.reserve(1)
    assert node.assign(0, job="k", leader=B, priority=1) == ["slot 0: run k 0", "A: reserved j 0"]


def test_a_reservation_that_is_not_renewed_lapses_and_who_waits_is_invited() -> None:
    node = Working(slots=1)
    node.reserve(1)
    node.now = 0.5 * LAPSE_S
    assert node.reserve(1) == ["A: reserved j 1"]
    node.now = 1.4 * LAPSE_S
    assert node.assign(0, job="k", leader=B) == ["B: busy k 0 free 0"]
    node.now = 1.5 * LAPSE_S
    assert node.core.deadline() <= node.now
    assert node.hear(events.Tick()) == ["B: busy k  free 2"]


def test_lower_priorities_make_way_after_a_while() -> None:
    node = Working(slots=2)
    for task in range(4):
        node.assign(task, job="k", leader=B)
    node.reserve(2, priority=1)
    node.now = TasksConfig().preempt_s
    assert node.hear(events.Tick()) == ["slot 0: stop", "slot 1: stop"]
    node.report(0, 0, outcome=Outcome.STOPPED)
    assert "A: reserved j 1" in node.report(0, 2, outcome=Outcome.STOPPED)


def test_reservations_end_with_their_job_and_with_its_leader() -> None:
    node = Working(slots=1)
    node.reserve(1)
    node.forget()
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]
    node = Working(slots=1)
    node.reserve(1)
    node.hear(events.LeaderLost(node=A))
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]
    node = Working(slots=1)
    node.reserve(1)
    node.recount(leader=B, ballot=Ballot(0, 1, B), census=True)
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]


def test_a_node_that_does_not_run_such_tasks_keeps_nothing_and_says_why() -> None:
    node = Working(slots=2, unfit=lambda runtime, function: "it lacks a package" if runtime == "r" else "")
    assert node.reserve(2) == ["A: busy j  free 0"]
    (said,) = [effect.message for effect in node.effects if isinstance(effect, events.ToLeader)]
    assert isinstance(said, messages.Busy)
    assert said.reason == "it lacks a package"
    assert node.assign(0, job="k", leader=B, runtime="other") == ["slot 0: run k 0"], "its slots are for others"


def test_slots_are_kept_once_the_environment_is_there() -> None:
    node = Working(slots=2)
    assert node.reserve(2, environment=LOCK) == [f"make {LOCK.hex()[:4]}", "A: busy j  free 0"]
    assert node.hear(events.EnvironmentTold(digest=LOCK, ready=True)) == ["A: busy j  free 4"]
    assert node.reserve(2, environment=LOCK) == ["A: reserved j 2"]


def test_a_leader_of_an_earlier_release_does_not_say_what_it_is_to_run() -> None:
    node = Working(slots=2, unfit=lambda runtime, function: "it lacks a package")
    assert node.reserve(2, runtime="") == ["A: reserved j 2"]
