"""A job of higher priority takes slots back. This is node `C`; `A` and `B` lead jobs."""

from __future__ import annotations

from p2premap.config import TasksConfig
from p2premap.tasks import events
from p2premap.tasks.job import Outcome
from tests.tasks.working import A, B, Working

WAIT_S = TasksConfig().preempt_s


def filled(slots: int) -> Working:
    """A node whose slots are full of the job `j`, of priority 0; the batches came 0.01 s apart."""
    node = Working(slots=slots)
    for task in range(2 * slots):
        node.assign(task)
        node.now += 0.01
    return node


def ask(node: Working, task: int = 0) -> list[str]:
    """The job `k`, of priority 5, has a batch."""
    return node.assign(task, job="k", leader=B, priority=5)


def wait(node: Working) -> list[str]:
    """The leader of `k` asks again and again, as it is told to, until something happens."""
    until = node.now + 2 * WAIT_S
    while node.now < until:
        node.now += 0.1
        if lines := [line for line in node.hear(events.Tick()) if line.startswith("slot")]:
            return lines
        ask(node)
    return []


def test_a_higher_priority_takes_the_youngest_slot_back_after_a_while() -> None:
    node = filled(2)
    start = node.now
    assert ask(node) == ["B: busy k 0 free 0"]
    assert wait(node) == ["slot 1: stop"]
    assert WAIT_S <= node.now - start < WAIT_S + 0.2
    stop = next(e for e in node.effects if isinstance(e, events.StopSlot))
    assert (stop.reason, stop.grace_s) == ("a job of higher priority took its place", TasksConfig().stop_grace_s)


def test_both_batches_of_the_slot_end_as_stopped_and_the_place_is_the_others() -> None:
    node = filled(1)
    ask(node)
    assert wait(node) == ["slot 0: stop"]
    assert node.report(0, 0, outcome=Outcome.STOPPED) == [
        "slot 0: stop",
        "A: ended 0 STOPPED free 0 serial 1",
        "B: busy k  free 1",
    ]
    assert node.report(0, 1, outcome=Outcome.STOPPED) == ["A: ended 1 STOPPED free 0 serial 2"]
    assert ask(node) == ["slot 0: run k 0"]


def test_short_batches_end_before_anything_is_taken() -> None:
    node = filled(1)
    ask(node)
    node.now += 0.1
    assert node.report(0, 0) == ["A: ended 0 free 0 serial 1", "B: busy k  free 1"]
    assert ask(node) == ["slot 0: run k 0"]
    node.now += 0.1
    assert node.report(0, 1) == ["A: ended 1 free 0 serial 2"]


def test_a_batch_that_is_queued_behind_a_lower_priority_gets_the_slot() -> None:
    node = Working()
    node.assign(0)
    assert ask(node) == ["slot 0: run k 0"]
    assert node.core.deadline() == WAIT_S
    assert node.tick() == ["slot 0: stop"]
    assert node.report(0, 0, outcome=Outcome.STOPPED)[0].startswith("A: ended 0 STOPPED")
    assert node.report(0, 0) == ["B: ended 0 free 2 serial 1"]


def test_who_has_to_wait_again_takes_twice_as_many() -> None:
    node = filled(4)
    taken = []
    for task in range(0, 8, 2):
        ask(node, task)
        lines = wait(node)
        taken.append(len(lines))
        for line in lines:
            slot = int(line[5])
            for batch in list(node.core._shares.slots[slot].queue):
                (pair,) = batch.left
                node.report(slot, pair[0], outcome=Outcome.STOPPED)
        for number in range(2 * len(lines)):
            ask(node, 100 * task + number)
        node.now += 0.1
    assert taken == [1, 2, 1, 0]


def test_equal_priorities_take_nothing() -> None:
    node = filled(1)
    node.assign(0, job="k", leader=B)
    for _ in range(20):
        node.now += 0.1
        assert not any(line.startswith("slot") for line in node.hear(events.Tick()))
        node.assign(0, job="k", leader=B)


def test_who_stops_asking_takes_nothing() -> None:
    node = filled(1)
    ask(node)
    node.now += 10.0
    assert node.hear(events.Tick()) == []


def test_what_nobody_leads_gives_way_too() -> None:
    node = filled(1)
    node.hear(events.LeaderLost(node=A))
    ask(node)
    assert wait(node) == ["slot 0: stop"]
