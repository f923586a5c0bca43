"""Jobs whose leader is dead: what a worker node keeps for the next one. This is node `C`."""

from __future__ import annotations

import math

from p2premap.config import TasksConfig
from p2premap.ids import Ballot
from p2premap.tasks import events, messages
from p2premap.tasks.job import AttemptEnd, BlobRef, Outcome
from tests.tasks.working import CODE, A, B, C, Working, job_of

NEXT = Ballot(0, 1, B)
LOST = events.LeaderLost(node=A)


def finish(node: Working, slot: int, task: int, value: bytes) -> list[str]:
    """A batch of one attempt ends with a value."""
    end = AttemptEnd(task=task, attempt=0, outcome=Outcome.DONE, value=value)
    return node.hear(events.SlotReported(slot=slot, ends=(end,), batch_over=True))


def told(node: Working) -> list[AttemptEnd]:
    """The ends that were told in the last step."""
    said = [e.message for e in node.effects if isinstance(e, events.ToLeader)]
    return [end for message in said if isinstance(message, messages.AttemptsEnded) for end in message.ends]


# --- without a leader ---------------------------------------------------------------------------------------------


def test_what_runs_for_a_dead_leader_runs_on_and_is_told_to_nobody() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(0, job="k", leader=B)
    assert node.hear(LOST) == []
    assert node.report(0, 0) == []
    assert node.report(1, 0) == ["B: ended 0 free 4 serial 1"]


def test_the_successor_hears_what_runs_and_then_what_ended_unheard() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(1, 2)
    node.report(0, 0)
    node.hear(LOST)
    node.report(1, 1, over=False)
    assert node.recount(leader=B, ballot=NEXT, census=True) == [
        "B: holding 0 1 2 free 3",
        "B: ended 0 free 3 serial 1",
        "B: ended 1 free 3 serial 2",
        "B: ended  free 3 serial 0",
    ]
    assert node.report(1, 2) == ["B: ended 2 free 4 serial 3"]
    assert node.recount(leader=B, ballot=NEXT, heard=3) == ["B: ended  free 4 serial 0"]


def test_a_census_where_nothing_is_known_is_answered() -> None:
    node = Working()
    assert node.recount(leader=B, ballot=NEXT, census=True) == ["B: holding  free 2", "B: ended  free 2 serial 0"]


def test_a_successor_that_is_elected_before_the_death_is_known_takes_over_too() -> None:
    node = Working(slots=2)
    node.assign(0)
    assert node.recount(leader=B, ballot=NEXT, census=True)[0] == "B: holding 0 free 3"
    assert node.hear(LOST) == []
    assert node.report(0, 0) == ["B: ended 0 free 4 serial 1"]


def test_a_leader_that_was_thought_dead_hears_what_ended_meanwhile() -> None:
    node = Working()
    node.assign(0)
    node.hear(LOST)
    node.report(0, 0)
    assert node.assign(1) == ["A: ended 0 free 2 serial 1", "slot 0: run j 1"]
    assert node.report(0, 1) == ["A: ended 1 free 2 serial 2"]


def test_the_dead_leader_comes_back_deposed() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.hear(LOST)
    node.recount(leader=B, ballot=NEXT, census=True)
    assert node.forget() == []
    assert node.stop(0) == []
    assert node.core.fenced == 2
    assert node.report(0, 0) == ["B: ended 0 free 4 serial 1"]


def test_the_successor_may_stop_what_it_does_not_want() -> None:
    node = Working()
    node.assign(0)
    node.hear(LOST)
    order = messages.ForgetJob(job=job_of("j"), ballot=NEXT)
    assert node.order(order, leader=B) == ["slot 0: stop"]
    assert node.report(0, 0, outcome=Outcome.STOPPED) == ["end j"]


def test_a_job_without_a_leader_takes_no_place_from_others() -> None:
    node = Working()
    node.assign(0)
    node.assign(1)
    assert node.assign(2) == ["A: busy j 2 free 0"]
    node.hear(LOST)
    assert node.report(0, 0) == []
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]


# --- a fork goes on with it ---------------------------------------------------------------------------------------

FORKED = events.JobForked(job=job_of("j"), fork=job_of("f"))


def test_a_fork_inherits_what_runs_and_what_ended_unheard() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(1)
    node.hear(LOST)
    node.report(0, 0)
    node.hear(FORKED)
    assert node.recount(job="f", leader=C, ballot=Ballot(0, 1, C), census=True) == [
        "C: holding 0 1 free 3",
        "C: ended 0 free 3 serial 1",
        "C: ended  free 3 serial 0",
    ]
    assert node.report(1, 1) == ["C: ended 1 free 4 serial 2"]
    said = [e.message for e in node.effects if isinstance(e, events.ToLeader)]
    assert [message.job for message in said if isinstance(message, messages.AttemptsEnded)] == [job_of("f")]
    assert node.forget(job="f", leader=C, ballot=Ballot(0, 1, C)) == ["end f", "end j"]


def test_a_fork_inherits_from_a_node_that_keeps_no_ledger_of_it_when_its_leader_asks() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(1)
    node.hear(LOST)
    node.report(0, 0)
    assert node.recount(job="f", origin="j", leader=B, ballot=Ballot(0, 1, B), census=True) == [
        "B: holding 0 1 free 3",
        "B: ended 0 free 3 serial 1",
        "B: ended  free 3 serial 0",
    ]
    assert node.report(1, 1) == ["B: ended 1 free 4 serial 2"]
    assert node.forget(job="f", leader=B, ballot=Ballot(0, 1, B)) == ["end f", "end j"]


def test_a_forks_leader_that_asks_gets_nothing_of_a_job_that_is_led() -> None:
    node = Working(slots=2)
    node.assign(0)
    said = node.recount(job="f", origin="j", leader=B, ballot=Ballot(0, 1, B), census=True)
    assert said == ["B: holding  free 3", "B: ended  free 3 serial 0"]
    assert node.report(0, 0) == ["A: ended 0 free 4 serial 1"]


def test_the_forks_ballots_begin_anew_and_the_old_leader_finds_nothing() -> None:
    node = Working(slots=2)
    node.recount(leader=A, ballot=Ballot(3, 9, A), census=True)
    node.assign(0, ballot=Ballot(3, 9, A))
    node.hear(LOST)
    node.hear(FORKED)
    assert node.assign(1, job="f", leader=C, ballot=Ballot(0, 1, C)) == ["slot 1: run f 1"]
    assert node.recount(0, leader=A, ballot=Ballot(3, 9, A), number=2) == ["A: ended 0 REFUSED free 2 serial 1"]
    assert node.report(0, 0) == ["C: ended 0 free 3 serial 1"]


def test_a_job_that_is_led_stays_its_own() -> None:
    node = Working()
    node.assign(0)
    assert node.hear(FORKED) == []
    assert node.report(0, 0) == ["A: ended 0 free 2 serial 1"]


# --- for how long, and how much -----------------------------------------------------------------------------------


def test_a_job_that_nobody_leads_is_forgotten_in_the_end() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(1)
    node.report(0, 0)
    node.hear(LOST)
    while node.core.deadline() < TasksConfig().orphan_s:
        assert node.tick() == []
    assert node.tick() == ["slot 1: stop"]
    assert node.report(1, 1, outcome=Outcome.STOPPED) == ["end j"]
    assert node.core.deadline() == math.inf


def test_too_much_unheard_brings_no_new_batch() -> None:
    node = Working(config=TasksConfig(unheard_bytes_max=2_000))
    node.assign(0)
    finish(node, 0, 0, bytes(2_000))
    assert node.assign(1) == ["A: busy j 1 free 0"]
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]
    assert node.assign(1, heard=1) == ["slot 0: run j 1"]


def test_far_too_much_unheard_costs_the_oldest_values_and_no_blob() -> None:
    node = Working(slots=4, config=TasksConfig(unheard_bytes_max=2_000))
    blob = BlobRef(digest=CODE, size=1 << 30)
    for task in range(4):
        node.assign(task)
    node.hear(LOST)
    finish(node, 0, 0, bytes(3_000))
    end = AttemptEnd(task=1, attempt=0, outcome=Outcome.DONE, blobs=(blob,))
    node.hear(events.SlotReported(slot=1, ends=(end,), batch_over=True))
    finish(node, 2, 2, bytes(3_000))
    node.recount(leader=B, ballot=NEXT, census=True)
    ends = {end.task: end for end in told(node)}
    assert (ends[0].outcome, ends[0].value) == (Outcome.REFUSED, b"")
    assert (ends[1].outcome, ends[1].blobs) == (Outcome.DONE, (blob,))
    assert len(ends[2].value) == 3_000
