"""The worker's core in dialogues. This is node `C`; `A` and `B` lead jobs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.config import TasksConfig
from p2premap.ids import Ballot, NodeId
from p2premap.tasks import events, messages
from p2premap.tasks.job import AttemptEnd, Outcome
from p2premap.tasks.telling import REPORT_BYTES_MAX
from p2premap.tasks.worker import UNFIT_RETRY_S
from tests.tasks.working import MAP, A, B, Working, job_of

# --- places -------------------------------------------------------------------------------------------------------


def test_a_slot_runs_one_batch_and_has_the_next_one_ready() -> None:
    node = Working(slots=1)
    assert node.assign(0, 1) == ["slot 0: run j 0 1"]
    assert node.assign(2) == ["slot 0: run j 2"]
    assert node.assign(3) == ["A: busy j 3 free 0"]
    assert node.core.busy == 1


def test_idle_slots_come_first() -> None:
    node = Working(slots=2)
    assert node.assign(0) == ["slot 0: run j 0"]
    assert node.assign(1) == ["slot 1: run j 1"]
    assert node.assign(2) == ["slot 0: run j 2"]


def test_a_job_goes_where_its_process_is_warm() -> None:
    node = Working(slots=2)
    node.assign(0, job="j")
    node.assign(0, job="k", leader=B)
    node.report(0, 0)
    node.report(1, 0)
    assert node.assign(1, job="k", leader=B) == ["slot 1: run k 1"]


def test_a_node_without_slots_takes_nothing() -> None:
    node = Working(slots=0)
    assert node.assign(0) == ["A: busy j 0 free 0"]
    assert node.hear(events.SetSlots(slots=1)) == ["A: busy j  free 2"]
    assert node.assign(0) == ["slot 0: run j 0"]


def test_fewer_slots_end_what_they_run_and_get_nothing_new() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(1)
    node.hear(events.SetSlots(slots=1))
    assert node.assign(2) == ["slot 0: run j 2"]
    assert node.assign(3) == ["A: busy j 3 free 0"]
    assert node.report(1, 1) == ["A: ended 1 free 0 serial 1"]
    assert node.core.slots == 1


# --- reports ------------------------------------------------------------------------------------------------------


def test_the_end_of_a_batch_is_told_at_once_with_what_ended_before() -> None:
    node = Working()
    node.assign(0, 1, 2)
    assert node.report(0, 0, over=False) == []
    assert node.report(0, 1, 2) == ["A: ended 0 1 2 free 2 serial 1"]


def test_ends_within_a_long_batch_are_told_in_groups() -> None:
    node = Working()
    node.assign(0, 1, 2)
    node.report(0, 0, over=False)
    node.now = 0.02
    node.report(0, 1, over=False)
    assert node.core.deadline() == TasksConfig().report_s
    assert node.tick() == ["A: ended 0 1 free 1 serial 1"]


def test_reports_are_cut_to_what_a_frame_carries() -> None:
    node = Working()
    node.assign(*range(40))
    ends = tuple(
        AttemptEnd(task=t, attempt=0, outcome=Outcome.DONE, value=bytes(REPORT_BYTES_MAX // 16)) for t in range(40)
    )
    lines = node.hear(events.SlotReported(slot=0, ends=ends, batch_over=True))
    assert len(lines) == 3
    told = [e.message for e in node.effects if isinstance(e, events.ToLeader)]
    assert [end.task for m in told if isinstance(m, messages.AttemptsEnded) for end in m.ends] == list(range(40))


def test_an_executor_that_reports_what_it_was_not_given_is_a_bug() -> None:
    node = Working()
    node.assign(0)
    with pytest.raises(AssertionError):
        node.report(0, 7)


# --- fencing ------------------------------------------------------------------------------------------------------


def test_a_deposed_leader_gives_no_orders() -> None:
    node = Working(slots=2)
    new = Ballot(0, 1, B)
    node.assign(0)
    assert node.assign(1, leader=B, ballot=new) == ["slot 1: run j 1"]
    assert node.assign(2) == []
    assert node.forget() == []
    assert node.stop() == []
    assert node.core.fenced == 3


def test_nobody_speaks_under_anothers_ballot() -> None:
    node = Working()
    assert node.assign(0, leader=A, ballot=Ballot(0, 0, B)) == []
    assert node.core.fenced == 1


def test_the_next_leader_hears_what_the_last_one_did_not_confirm() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(1)
    node.report(0, 0)
    lines = node.assign(2, leader=B, ballot=Ballot(0, 1, B))
    assert lines[0] == "B: ended 0 free 3 serial 1"
    assert node.report(1, 1) == ["B: ended 1 free 3 serial 2"]


# --- what may be lost ---------------------------------------------------------------------------------------------


def test_what_was_not_heard_is_told_again() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.assign(1)
    node.assign(2)
    node.report(0, 0)
    assert node.recount(0, 1, 2, 9) == [
        "A: ended 0 free 2 serial 1",
        "A: ended 9 REFUSED free 2 serial 2",
    ]


def test_what_was_heard_is_not_told_again() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.report(0, 0)
    node.assign(1, heard=1)
    assert node.recount(1, heard=1) == ["A: ended  free 3 serial 0"]


def test_a_recount_always_gets_an_answer_and_says_what_is_held() -> None:
    node = Working()
    assert node.recount(3) == ["A: ended 3 REFUSED free 2 serial 1"]
    node.assign(0, 1)
    assert node.recount(0, 1, heard=1, number=7) == ["A: ended  free 1 serial 0"]
    told = node.effects[-1]
    assert isinstance(told, events.ToLeader)
    assert isinstance(told.message, messages.AttemptsEnded)
    assert (told.message.answers, told.message.held) == (7, 2)


def test_an_order_that_comes_twice_is_followed_once() -> None:
    node = Working()
    node.assign(0)
    assert node.assign(0) == []
    node.report(0, 0)
    assert node.assign(0) == []
    assert node.assign(0, attempt=1) == ["slot 0: run j 0.1"]


def test_numbers_go_on_where_the_leader_has_heard_them() -> None:
    node = Working()
    node.assign(0, heard=17)
    assert node.report(0, 0) == ["A: ended 0 free 2 serial 18"]


# --- stopping -----------------------------------------------------------------------------------------------------


def test_stopped_attempts_answer_as_stopped() -> None:
    node = Working()
    node.assign(0, 1)
    assert node.stop(1) == ["slot 0: stop"]
    assert node.stop(1) == []
    assert node.report(0, 0, 1, outcome=Outcome.STOPPED) == ["A: ended 0 STOPPED 1 STOPPED free 2 serial 1"]


def test_a_queued_batch_is_stopped_when_its_turn_comes() -> None:
    node = Working()
    node.assign(0)
    node.assign(1)
    assert node.stop(1) == []
    assert node.report(0, 0) == ["slot 0: stop", "A: ended 0 free 1 serial 1"]


def test_stopping_what_is_not_here_is_answered() -> None:
    node = Working()
    node.assign(0)
    assert node.stop(5) == ["A: ended 5 STOPPED free 1 serial 1"]


def test_a_job_that_is_forgotten_ends_without_a_word() -> None:
    node = Working()
    node.assign(0)
    assert node.forget() == ["slot 0: stop"]
    assert node.report(0, 0, outcome=Outcome.STOPPED) == ["end j"]
    assert node.core.deadline() == float("inf")


def test_an_idle_job_is_forgotten_at_once() -> None:
    node = Working()
    node.assign(0)
    node.report(0, 0)
    assert node.forget() == ["end j"]
    assert node.forget() == ["end j"]


def test_a_job_may_begin_anew_while_its_old_attempts_still_stop() -> None:
    node = Working(slots=2)
    node.assign(0)
    node.forget()
    assert node.assign(1) == ["slot 1: run j 1"]
    assert node.report(0, 0, outcome=Outcome.STOPPED) == []
    assert node.report(1, 1) == ["A: ended 1 free 4 serial 1"]


def test_a_job_that_nobody_speaks_of_is_dropped_in_the_end() -> None:
    node = Working()
    node.assign(0)
    node.report(0, 0)
    lines: list[str] = []
    while not lines:
        lines = node.tick()
        assert node.now < 200
    assert lines == ["end j"]
    assert node.now >= TasksConfig().idle_job_s


# --- several jobs -------------------------------------------------------------------------------------------------


def test_a_job_that_was_refused_is_invited_when_a_place_is_free() -> None:
    node = Working()
    node.assign(0)
    node.assign(1)
    assert node.assign(0, job="k", leader=B) == ["B: busy k 0 free 0"]
    assert node.report(0, 0) == ["A: ended 0 free 0 serial 1", "B: busy k  free 1"]
    assert node.assign(2) == ["A: busy j 2 free 0"]
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"]


def test_jobs_of_equal_priority_share() -> None:
    assert _share({"j": 0, "k": 0}) == {"j": 2, "k": 2}


def test_a_higher_priority_goes_first() -> None:
    assert _share({"j": 0, "k": 5}) == {"j": 0, "k": 4}


def test_a_place_that_nobody_comes_for_is_given_away() -> None:
    node = Working()
    node.assign(0)
    node.assign(1)
    node.assign(0, job="k", leader=B)
    node.report(0, 0)
    node.now = 2.0
    assert node.assign(2) == ["slot 0: run j 2"]


def _share(priorities: dict[str, int]) -> dict[str, int]:
    """Two greedy jobs on two slots; how many places each has after a while."""
    node = Working(slots=2)
    leaders = dict(zip(priorities, (A, B), strict=True))
    attempts = itertools.count()
    places: list[list[tuple[str, int]]] = [[], []]

    def offer(job: str) -> None:
        for line in node.assign(0, job=job, leader=leaders[job], priority=priorities[job], attempt=next(attempts)):
            if line.startswith("slot"):
                batch = next(e for e in node.effects if isinstance(e, events.RunBatch))
                places[batch.slot].append((job, batch.attempts[0].attempt))

    for job in priorities:
        for _ in range(5):
            offer(job)
    for turn in range(40):
        node.now += 0.01
        slot = turn % 2
        _job, attempt = places[slot].pop(0)
        node.report(slot, 0, attempt=attempt)
        for job in priorities:
            offer(job)
    return {job: sum(j == job for place in places for j, _ in place) for job in priorities}


# --- any order of events ------------------------------------------------------------------------------------------


class Books:
    """What was handed in and not answered, kept from effects alone."""

    def __init__(self, slots: int) -> None:
        self.node = Working(slots=slots)
        self.queues: dict[int, list[events.RunBatch]] = {}
        self.open: set[tuple[bytes, int, int]] = set()
        self.forgotten: set[tuple[bytes, int, int]] = set()
        self.told: set[tuple[bytes, int, int]] = set()
        self.attempts = itertools.count()

    def busy(self) -> list[int]:
        """Slots that run something."""
        return [slot for slot, queue in self.queues.items() if queue]

    def assign(self, tasks: int, job: str, leader: NodeId) -> None:
        number = next(self.attempts)
        self.open |= {(job_of(job), t, number) for t in range(tasks)}
        self.node.assign(*range(tasks), job=job, leader=leader, attempt=number)
        self._take()

    def report(self, slot: int) -> None:
        batch = self.queues[slot].pop(0)
        self.node.report(slot, *(a.task for a in batch.attempts), attempt=batch.attempts[0].attempt)
        self._take()

    def forget(self, jobs: str, event: Callable[[], object]) -> None:
        gone = {key for key in self.open | self.told if chr(key[0][0]) in jobs}
        self.open -= gone
        self.forgotten |= gone
        event()
        self._take()

    def also(self, event: Callable[[], object]) -> None:
        event()
        self._take()

    def _take(self) -> None:
        for effect in self.node.effects:
            match effect:
                case events.RunBatch(slot=slot):
                    self.queues.setdefault(slot, []).append(effect)
                    assert len(self.queues[slot]) <= 2
                case events.ToLeader(message=messages.Busy(job=job, attempts=pairs)):
                    for pair in pairs:
                        self.open.remove((job, *pair))
                case events.ToLeader(message=messages.AttemptsEnded(job=job, ends=ends)):
                    for end in ends:
                        key = (job, end.task, end.attempt)
                        assert key not in self.forgotten, "a forgotten job is spoken of"
                        assert key in self.open | self.told, "nobody asked for this"
                        self.open.discard(key)
                        self.told.add(key)
                case _:
                    pass


@settings(max_examples=60)
@given(st.data())
def test_slots_are_never_over_committed_and_every_attempt_is_answered_once(data: st.DataObject) -> None:
    books = Books(data.draw(st.integers(0, 3)))
    node = books.node
    for _ in range(data.draw(st.integers(5, 40))):
        job, leader = data.draw(st.sampled_from([("j", A), ("k", A), ("l", B)]))
        match data.draw(st.sampled_from(["assign", "assign", "report", "report", "stop", "forget", "lose", "slots"])):
            case "assign":
                books.assign(data.draw(st.integers(1, 3)), job, leader)
            case "report" if busy := books.busy():
                books.report(data.draw(st.sampled_from(busy)))
            case "stop":
                books.also(partial(node.stop, job=job, leader=leader))
            case "forget":
                books.forget(job, partial(node.forget, job=job, leader=leader))
            case "lose":
                books.also(partial(node.hear, events.LeaderLost(node=B)))
            case "slots":
                books.also(partial(node.hear, events.SetSlots(slots=data.draw(st.integers(0, 3)))))
            case _:
                pass
    while busy := books.busy():
        books.report(busy[0])
    books.also(partial(node.recount, job="l", leader=B))
    assert not books.open
    assert node.core.busy == 0


def test_orders_of_every_kind_are_known() -> None:
    node = Working()
    assert (
        node.order(
            messages.AttemptsEnded(job=job_of("j"), ballot=Ballot(0, 0, A), stage=MAP, ends=(), free=0), leader=A
        )
        == []
    )


# --- what a node does not run -------------------------------------------------------------------------------------


def test_a_node_that_lacks_the_kind_of_a_job_says_so_and_takes_nothing_of_it() -> None:
    node = Working(slots=2, unfit=lambda runtime, function: "it lacks a package" if function == "map" else "")
    assert node.assign(0, 1) == ["A: busy j 0 1 free 0"]
    (said,) = [effect.message for effect in node.effects if isinstance(effect, events.ToLeader)]
    assert isinstance(said, messages.Busy)
    assert (said.reason, said.retry_s) == ("it lacks a package", UNFIT_RETRY_S)
    node.now += 1.0
    assert node.hear(events.Tick()) == [], "nobody is called for what he would be refused again"
