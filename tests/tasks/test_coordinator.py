"""The leader's core in dialogues: what it is told, what it then says. `A` leads; `B` and `C` are other nodes."""

from __future__ import annotations

import gc
import weakref

import msgspec
import pytest

from p2premap.config import TasksConfig
from p2premap.ids import Ballot
from p2premap.sim.workloads import Shape
from p2premap.tasks import messages
from p2premap.tasks.events import Woke
from p2premap.tasks.job import JobOptions, Outcome, Phase
from tests.tasks.dialogue import Led, blob
from tests.tasks.working import MAP, A, B, node

# --- a job without trouble ----------------------------------------------------------------------------------------


def test_a_job_of_two_stages() -> None:
    led = Led(Shape(2, 1))
    assert led.seen("A") == ["A: map 0"]
    assert led.seen("B") == ["B: map 1"]
    assert led.view.phase is Phase.RUNNING
    assert led.done("A", 0, blobs="m") == []
    assert led.done("B", 1, blobs="m") == ["A: reduce 0"]
    assert [s.digest for s in led.sources("A")] == [blob("m0").digest, blob("m1").digest]
    assert led.done("A", 0, stage=led.reduce, blobs="r") == []
    assert led.kept() == ["A: forget", "B: forget", "done"]
    assert [(p.number, p.source.digest) for p in led.view.parts] == [(0, blob("r0").digest)]
    assert led.view.nodes == (("a", 2), ("b", 1))


def test_a_stage_without_tasks_is_done_at_once() -> None:
    led = Led(Shape(0, 0))
    assert led.seen("A") == ["done"]


def test_the_reduce_stage_is_named_by_what_the_map_stage_pinned() -> None:
    lineages = set()
    for name in ("m", "m", "other"):
        led = Led(Shape(1, 1), on="A")
        led.done("A", 0, blobs=name)
        lineages.add(led.reduce.lineage)
    assert len(lineages) == 2


def test_nothing_is_said_of_a_job_that_is_over_but_to_forget_it() -> None:
    led = Led(Shape(1), on="A")
    led.done("A", 0)
    assert led.core.over
    assert led.core.deadline() == float("inf")
    assert led.ended("A", [], serial=9) == ["A: forget"]
    assert led.busy("A") == ["A: forget"]
    assert led.cancel() == []
    assert led.view.phase is Phase.DONE


def test_a_node_that_was_dead_at_the_end_is_told_when_it_returns() -> None:
    led = Led(Shape(2), on="AB")
    led.lost("B")
    led.done("A", 0)
    assert led.done("A", 1) == ["A: forget", "done"]
    assert led.seen("B") == ["B: forget"]
    assert led.seen("B") == []


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_of_a_job_that_is_over_only_the_last_view_is_kept(end: str) -> None:
    led = Led(Shape(3, 1), on="AB")
    director, facts = _director_of(led), _map_facts_of(led)
    if end == "done":
        for _ in range(3):
            letter, task = next(
                (c, t) for c in "AB" for (s, t), (n, _) in led.given.items() if n == node(c) and _out(led, t)
            )
            led.done(letter, task, blobs="m")
        led.done("A", 0, stage=led.reduce, blobs="r")
        led.kept()
    elif end == "failed":
        led.failed("A", 0, Outcome.RAISED)
    else:
        led.cancel()
        led.ended("A", [], held=0)
        led.failed("A", 0, Outcome.STOPPED)
        led.failed("B", 1, Outcome.STOPPED)
    assert led.view.phase.value == end
    gc.collect()
    assert director() is None, "the director holds the plan"
    assert facts() is None, "the results of the map stage are large"
    assert len(led.view.parts) == (1 if end == "done" else 0)
    assert led.view == msgspec.structs.replace(led.shown[-1], age_s=led.view.age_s)


# --- feeding slots ------------------------------------------------------------------------------------------------


def test_until_something_is_known_a_slot_gets_one_task() -> None:
    led = Led(Shape(100))
    assert led.seen("A", slots=2) == ["A: map 0", "A: map 1"]


def test_batches_grow_to_what_a_tenth_of_a_second_holds() -> None:
    led = Led(Shape(2_000, inline=True), on="A")
    sizes = [len(line.split()) - 2 for line in _run_all(led, seconds=0.001)]
    assert sizes[:5] == [1, 8, 8, 64, 64]
    assert max(sizes) in (99, 100)
    assert sizes[-1] < 99


def test_the_next_batch_lies_ready_while_tasks_are_short_and_many() -> None:
    led = Led(Shape(1000, inline=True), on="A")
    given = led.ended("A", [_quick(led, 0)])
    assert [line.split()[1] for line in given] == ["map", "map"]


def test_long_tasks_wait_for_a_free_slot() -> None:
    led = Led(Shape(1000), on="A")
    assert led.done("A", 0, blobs="m") == ["A: map 1"]


def test_the_last_tasks_are_not_queued_behind_others() -> None:
    led = Led(Shape(4, inline=True), on="AB")
    assert led.ended("A", [_quick(led, 0, seconds=0.1)]) == ["A: map 2"]
    assert led.ended("B", [_quick(led, 1, seconds=0.1)]) == ["B: map 3"]


def test_at_most_parallel_max_attempts_side_by_side() -> None:
    led = Led(Shape(9), options=JobOptions(parallel_max=2))
    assert led.seen("A", slots=4) == ["A: map 0", "A: map 1"]
    assert led.seen("B", slots=4) == []
    assert led.done("A", 0, blobs="m") == ["B: map 2"]


def test_nodes_of_one_machine_are_equally_near() -> None:
    led = Led(Shape(4, 2), config=TasksConfig())
    led.seen("A", machine="M")
    led.seen("B", machine="M")
    led.seen("C", machine="far")
    for letter in "ABCA":
        task = next(t for (s, t), (n, _) in led.given.items() if n == node(letter) and s == MAP and _out(led, t))
        led.done(letter, task, blobs="m")
    given = {line for line in _lines(led) if "reduce" in line}
    assert given == {"A: reduce 0", "B: reduce 1"}


def test_one_assign_stays_small() -> None:
    led = Led(Shape(50, inline=True), config=TasksConfig(assign_bytes_max=100), on="A")
    sizes = [len(line.split()) - 2 for line in _run_all(led, seconds=0.001)]
    assert 1 < max(sizes) <= 4


def test_a_task_that_no_message_can_carry_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2premap.tasks.handout.TASK_BYTES_MAX", 1_000)
    led = Led(Shape(12, 1), on="A")
    for task in range(12):
        lines = led.done("A", task, blobs="m")
    assert lines == ["A: forget", "failed"]
    assert "more than one message carries" in led.view.error


# --- busy nodes ---------------------------------------------------------------------------------------------------


def test_a_busy_node_is_asked_again_after_the_time_it_names() -> None:
    led = Led(Shape(3), on="A")
    assert led.busy("A", 0, reason="the owner plays") == []
    assert led.view.phase is Phase.WAITING
    assert led.view.note == "3 tasks wait; a says: the owner plays"
    assert led.tick(0.49) == []
    assert led.tick(0.02) == ["A: map 0.1"]


def test_what_a_busy_node_does_not_take_goes_to_another_at_once() -> None:
    led = Led(Shape(1), on="A")
    led.seen("B")
    assert led.busy("A", 0) == ["B: map 0.1"]


def test_an_invited_job_need_not_wait() -> None:
    led = Led(Shape(3), on="A")
    led.busy("A", 0)
    assert led.busy("A", free=1, reason="") == ["A: map 0.1"]


def test_busy_costs_a_task_nothing() -> None:
    led = Led(Shape(1), options=JobOptions(attempts_max=1), on="A")
    for attempt in range(1, 6):
        assert led.busy("A", 0, free=1) == [f"A: map 0.{attempt}"]
    assert led.view.stages[0].failed_attempts == 0


# --- nodes that are lost ------------------------------------------------------------------------------------------


def test_attempts_of_a_lost_node_run_elsewhere_at_no_cost() -> None:
    led = Led(Shape(2), options=JobOptions(attempts_max=1), on="AB")
    assert led.lost("B") == []
    assert led.done("A", 0, blobs="m") == ["A: map 1.1"]
    assert led.view.stages[0].lost_attempts == 1


def test_a_doubtful_node_keeps_what_it_has_and_gets_nothing_new() -> None:
    led = Led(Shape(4), on="AB")
    assert led.doubt("B") == []
    assert led.done("B", 1, blobs="m") == []
    assert led.done("A", 0, blobs="m") == ["A: map 2"]
    assert led.seen("B") == ["B: map 3"]


def test_a_finished_task_runs_again_only_if_its_only_holder_is_lost() -> None:
    led = Led(Shape(4), on="AB")
    led.done("A", 0, blobs="m")
    led.done("B", 1, blobs="m")
    assert led.view.stages[0].done == 2
    led.lost("B")
    assert led.view.stages[0].done == 1
    given = {led.done("A", 2, blobs="m")[0], led.done("A", _task_of(led, A), blobs="m")[0]}
    assert given == {"A: map 1.1", "A: map 3.1"}


def test_a_small_result_travels_inside_the_fact_and_outlives_its_node() -> None:
    led = Led(Shape(2), on="AB")
    led.done("B", 1)
    led.lost("B")
    assert led.view.stages[0].done == 1
    assert led.done("A", 0) == ["A: forget", "done"]


def test_a_node_that_returns_in_time_spares_the_repetition() -> None:
    led = Led(Shape(3), on="AB")
    led.done("B", 1, blobs="m")
    led.lost("B")
    assert led.view.stages[0].done == 0
    assert led.seen("B")[:2] == ["B: recount  heard 1", "B: stop all"]
    assert led.view.stages[0].done == 1


def test_a_late_result_of_an_attempt_that_was_given_up_counts() -> None:
    led = Led(Shape(2), on="AB")
    late = led.end(1)
    led.lost("B")
    led.seen("B")
    assert led.ended("B", [late]) == ["B: stop 1"]
    assert led.view.stages[0].done == 1


def test_a_result_of_a_node_that_is_taken_for_dead_is_known_when_it_returns() -> None:
    led = Led(Shape(3), on="AB")
    late = led.end(1, blobs=(blob("m1"),))
    led.lost("B")
    led.ended("B", [late])
    assert led.view.stages[0].done == 0
    led.seen("B")
    assert led.view.stages[0].done == 1


def test_a_result_told_twice_counts_once() -> None:
    led = Led(Shape(2), on="AB")
    end = led.end(1)
    led.ended("B", [end])
    led.ended("B", [end])
    assert led.view.stages[0].done == 1
    assert led.view.nodes == (("b", 1),)


def test_another_ballots_answers_change_nothing() -> None:
    led = Led(Shape(2), on="AB")
    assert led.ended("B", [led.end(1)], ballot=Ballot(0, 7, B)) == []
    assert led.view.stages[0].done == 0


def test_of_two_results_the_first_one_is_pinned() -> None:
    led = Led(Shape(2, 1), on="AB")
    slow = led.end(1, blobs=(blob("slow"),))
    led.doubt("B")
    led.lost("B")
    led.done("A", 0, blobs="m")
    led.seen("B")
    led.done("A", 1, blobs="quick")
    led.ended("B", [slow])
    assert [s.digest for s in led.sources(chr(led.given[led.reduce, 0][0][0]))] == [
        blob("m0").digest,
        blob("quick1").digest,
    ]


# --- results that cannot be read any more -------------------------------------------------------------------------


def _reducing() -> Led:
    """A job of two maps, m0 on A and m1 on B, whose two reduces are about to run on A and C."""
    led = Led(Shape(2, 2), on="AB")
    led.done("A", 0, blobs="m")
    led.done("B", 1, blobs="m")
    return led


def test_what_is_still_read_is_made_again_and_nothing_else() -> None:
    led = _reducing()
    reduce_of_b = next(t for t in (0, 1) if led.given[led.reduce, t][0] == B)
    assert led.lost("B") == []
    # A's reduce ends: now B's reduce is looked at, its source m1 is gone, and exactly map 1 runs again
    assert led.done("A", 1 - reduce_of_b, stage=led.reduce, blobs="r") == ["A: map 1.1"]
    assert led.done("A", 1, blobs="m") == [f"A: reduce {reduce_of_b}.1"]
    assert {s.holders for s in led.sources("A")} == {(A,)}
    assert led.done("A", reduce_of_b, stage=led.reduce, blobs="r") == ["A: forget", "done"]


def test_nothing_is_made_again_that_nobody_reads() -> None:
    led = Led(Shape(2, 1), on="AB")
    led.done("A", 0, blobs="m")
    led.done("B", 1, blobs="m")
    reducer = chr(led.given[led.reduce, 0][0][0])
    other = "B" if reducer == "A" else "A"
    assert led.lost(other) == []
    assert led.done(reducer, 0, stage=led.reduce, blobs="r") == [f"{reducer}: forget", "done"]


def test_lost_inputs_are_made_again_on_living_nodes_then_the_reduce_goes_on() -> None:
    led = _reducing()
    stage = led.reduce
    task = next(t for t in (0, 1) if led.given[stage, t][0] == A)
    # A cannot read m1 from B, although B lives: B's copy is written off
    given = led.failed("A", task, Outcome.INPUT_LOST, stage=stage, missing=[blob("m1").digest])
    assert given == ["A: map 1.1"]
    assert led.done("A", 1, blobs="m") == [f"A: reduce {task}.1"]


def test_an_attempt_that_was_not_told_of_the_new_copy_just_runs_again() -> None:
    led = _reducing()
    stage = led.reduce
    a, b = (next(t for t in (0, 1) if led.given[stage, t][0] == n) for n in (A, B))
    late = led.end(b, stage=stage, outcome=Outcome.INPUT_LOST, missing=(blob("m0").digest,))
    led.now = 1.0
    led.failed("A", a, Outcome.INPUT_LOST, stage=stage, missing=[blob("m0").digest])
    led.now = 2.0
    assert led.done("A", 0, blobs="m") == [f"A: reduce {a}.1"]
    assert led.ended("B", [late], stage=stage) == [f"B: reduce {b}.1"]
    assert led.view.stages[0].done == 2


def test_inputs_on_a_doubtful_node_are_waited_for() -> None:
    led = _reducing()
    stage = led.reduce
    led.doubt("B")
    task = next(t for t in (0, 1) if led.given[stage, t][0] == A)
    assert led.failed("A", task, Outcome.INPUT_LOST, stage=stage, missing=[blob("m1").digest]) == []
    assert led.seen("B") == [f"A: reduce {task}.1"]


def test_a_task_that_yields_something_else_starts_a_new_lineage() -> None:
    led = _reducing()
    old = led.reduce
    a = next(t for t in (0, 1) if led.given[old, t][0] == A)
    late = led.end(a, stage=old, blobs=(blob("old"),))
    led.lost("B")
    led.failed("A", a, Outcome.INPUT_LOST, stage=old, missing=[blob("m1").digest])
    given = led.done("A", 1, blobs="different")
    assert given == ["A: reduce 0"]
    assert led.reduce != old
    assert {s.digest for s in led.sources("A")} == {blob("m0").digest, blob("different1").digest}
    # what was made from the old lineage counts no more
    assert led.ended("A", [late], stage=old) == []
    assert led.done("A", 0, stage=led.reduce, blobs="r") == ["A: reduce 1"]
    assert led.done("A", 1, stage=led.reduce, blobs="r") == ["A: forget", "done"]
    assert [p.source.digest for p in led.view.parts] == [blob("r0").digest, blob("r1").digest]


def test_what_runs_in_an_abandoned_lineage_is_stopped() -> None:
    led = Led(Shape(2, 3), on="ABC")
    led.done("A", 0, blobs="m")
    led.done("B", 1, blobs="m")
    old = led.reduce
    a = next(t for t in range(3) if led.given[old, t][0] == A)
    c = next(t for t in range(3) if led.given[old, t][0] == node("C"))
    led.lost("B")
    assert led.failed("A", a, Outcome.INPUT_LOST, stage=old, missing=[blob("m1").digest]) == ["A: map 1.1"]
    given = led.done("A", 1, blobs="different")
    assert f"C: stop {c}" in given


def test_a_copy_that_can_never_be_read_fails_the_job_in_the_end() -> None:
    led = Led(Shape(1, 1), config=TasksConfig(input_losses_max=3), on="A")
    led.done("A", 0, blobs="m")
    stage = led.reduce
    for _ in range(3):
        assert led.failed("A", 0, Outcome.INPUT_LOST, stage=stage, missing=[blob("m0").digest])[0].startswith("A: map")
        led.done("A", 0, blobs="m")
    assert led.failed("A", 0, Outcome.INPUT_LOST, stage=stage, missing=[blob("m0").digest])[-1] == "failed"
    assert "could not read its input" in led.view.error


# --- failures -----------------------------------------------------------------------------------------------------


def test_an_exception_is_the_tasks_answer() -> None:
    led = Led(Shape(2), on="AB")
    given = led.failed("B", 1, Outcome.RAISED, error="ValueError: no")
    assert given == ["A: forget", "B: forget", "failed"]
    assert led.view.error == "Task 1 of stage map raised an exception on b: ValueError: no"


def test_an_exception_is_tried_again_if_asked() -> None:
    led = Led(Shape(1), options=JobOptions(retries=1), on="A")
    assert led.failed("A", 0, Outcome.RAISED) == ["A: map 0.1"]
    assert led.failed("A", 0, Outcome.RAISED)[-1] == "failed"


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.TIME_LIMIT, Outcome.MEMORY_LIMIT])
def test_three_crashes_are_poison_and_the_second_try_is_elsewhere(outcome: Outcome) -> None:
    led = Led(Shape(1), on="A")
    led.seen("B")
    assert led.failed("A", 0, outcome) == ["B: map 0.1"]
    assert led.failed("B", 0, outcome) == ["A: map 0.2"]
    assert led.failed("A", 0, outcome)[-1] == "failed"
    assert led.view.error.startswith("Task 0 of stage map ")
    assert led.view.error.endswith("3 times, at last on a: it says so")
    assert led.view.stages[0].failed_attempts == 3
    assert led.view.retries == 2, "the third one was the last"


def test_on_one_node_three_crashes_there_are_enough() -> None:
    led = Led(Shape(1), on="A")
    assert led.failed("A", 0, Outcome.CRASHED) == ["A: map 0.1"]
    assert led.failed("A", 0, Outcome.CRASHED) == ["A: map 0.2"]
    assert led.failed("A", 0, Outcome.CRASHED)[-1] == "failed"


def test_three_crashes_on_one_node_are_not_poison_while_another_can_try() -> None:
    led = Led(Shape(1), on="A")
    led.failed("A", 0, Outcome.CRASHED)
    led.failed("A", 0, Outcome.CRASHED)
    led.doubt("B")
    led.seen("B", slots=0)
    assert led.given[MAP, 0] == (A, 2)
    led.seen("B", slots=1)
    assert led.failed("A", 0, Outcome.CRASHED) == ["B: map 0.3"]
    assert led.failed("B", 0, Outcome.CRASHED)[-1] == "failed"


def test_a_task_that_crashed_runs_alone() -> None:
    led = Led(Shape(1000, inline=True), on="A")
    led.ended("A", [_quick(led, 0)])
    out = [t for t in range(1000) if _out(led, t)]
    crashed, others = out[0], out[1:]
    given = led.ended("A", [led.end(crashed, outcome=Outcome.CRASHED), *(_quick(led, t) for t in others)])
    assert f"A: map {crashed}.1" in given


def test_stopped_and_refused_cost_nothing() -> None:
    led = Led(Shape(1), options=JobOptions(attempts_max=1), on="AB")
    assert led.failed("A", 0, Outcome.STOPPED)[0] in ("A: map 0.1", "B: map 0.1")
    holder = chr(led.given[MAP, 0][0][0])
    other = "B" if holder == "A" else "A"
    assert led.failed(holder, 0, Outcome.REFUSED, error="the disk is full") == [f"{other}: map 0.2"]
    assert led.view.stages[0].failed_attempts == 0


def test_a_node_that_refuses_is_asked_less_and_less() -> None:
    led = Led(Shape(1), on="A")
    waits = []
    for _ in range(4):
        assert led.failed("A", 0, Outcome.REFUSED, error="the disk is full") == []
        assert led.view.note == "1 tasks wait; a says: refuses: the disk is full"
        since = led.now
        while led.given[MAP, 0][0] and not _out(led, 0):
            led.tick()
        waits.append(led.now - since)
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]


# --- messages that are lost ---------------------------------------------------------------------------------------


def test_after_a_broken_link_what_may_be_lost_is_asked_for() -> None:
    led = Led(Shape(3), on="AB")
    assert led.unlinked("B") == ["B: recount 1 heard 0"]
    assert led.failed("B", 1, Outcome.REFUSED, error="this node does not know the attempt") == []
    assert led.done("A", 0) == ["A: map 1.1"]


def test_a_link_on_which_nothing_runs_may_break() -> None:
    led = Led(Shape(1), on="AB")
    assert led.unlinked("B") == []


def test_a_recount_of_very_many_attempts_fits_into_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2premap.tasks.roster.RECOUNT_ATTEMPTS_MAX", 2)
    led = Led(Shape(5), on="")
    led.seen("A", slots=5)
    assert led.unlinked("A") == ["A: recount 0 1 heard 0", "A: recount 2 3 heard 0", "A: recount 4 heard 0"]


def test_a_gap_in_the_reports_is_asked_for() -> None:
    led = Led(Shape(4), on="AB")
    given = led.ended("B", [], serial=2)
    assert "B: recount 1 heard 0" in given


def test_a_silent_node_is_asked_and_then_given_up() -> None:
    led = Led(Shape(2, inline=True), on="AB")
    led.done("A", 0)
    lines: list[str] = []
    while not lines:
        lines = led.tick()
        assert led.now < 10
    assert lines == ["B: recount 1 heard 0"]
    asked = led.now
    lines = []
    while not lines:
        lines = led.tick()
    assert lines == ["A: map 1.1"]
    assert led.now - asked >= TasksConfig().unanswered_s
    # it speaks again: what it finished counts, what it runs is stopped
    assert led.ended("B", [], serial=0)[:2] == ["B: recount  heard 0", "B: stop all"]


def test_a_node_that_works_for_long_and_answers_is_left_in_peace() -> None:
    led = Led(Shape(1), on="B")
    for _ in range(100):
        if "B: recount 0 heard 0" in led.tick():
            led.ended("B", [], serial=0, held=1, free=1)
    assert led.now > 60
    assert led.view.stages[0].running == 1
    assert led.view.stages[0].lost_attempts == 0


def test_the_time_in_which_this_process_did_not_run_is_not_silence() -> None:
    led = Led(Shape(1), on="B")
    while not any("recount" in line for line in led.tick()):
        pass
    led.now += 100.0
    led.hear(Woke(lost_s=100.0))
    led.tick(0.001)
    assert led.view.stages[0].lost_attempts == 0


# --- cancelling ---------------------------------------------------------------------------------------------------


def test_a_job_is_cancelled_when_every_node_has_confirmed() -> None:
    led = Led(Shape(4), on="AB")
    assert led.cancel() == ["A: stop all", "B: stop all"]
    assert led.failed("A", 0, Outcome.STOPPED) == []
    assert led.view.note == "Waits for these nodes to confirm that nothing of it runs: b."
    assert led.failed("B", 1, Outcome.STOPPED) == ["A: forget", "B: forget", "cancelled"]
    assert led.view.error == "enough"


def test_a_dead_node_need_not_confirm() -> None:
    led = Led(Shape(4), on="AB")
    led.cancel()
    led.failed("A", 0, Outcome.STOPPED)
    assert led.lost("B") == ["A: forget", "cancelled"]


def test_a_job_of_which_nothing_runs_is_cancelled_at_once() -> None:
    led = Led(Shape(4))
    assert led.cancel() == ["cancelled"]


def test_an_order_to_stop_that_was_lost_is_given_again() -> None:
    led = Led(Shape(4), on="AB")
    led.cancel()
    assert led.unlinked("B") == ["B: recount 1 heard 0", "B: stop all"]


def test_a_node_that_came_back_must_confirm_too() -> None:
    led = Led(Shape(1), on="AB")
    holder = chr(led.given[MAP, 0][0][0])
    led.lost(holder)
    led.seen(holder)
    led.cancel()
    other = "B" if holder == "A" else "A"
    led.failed(other, 0, Outcome.STOPPED)
    assert not led.core.over
    assert led.ended(holder, [], serial=0)[-1] == "cancelled"


# --- what people see ----------------------------------------------------------------------------------------------


def test_a_job_without_nodes_says_so() -> None:
    led = Led(Shape(2))
    assert led.view.phase is Phase.WAITING
    assert led.view.note == "No node offers a worker slot; start one with `p2premap node`."
    led.seen("B")
    led.doubt("B")
    assert led.view.note == "No node can take work now; no answer from b."


def test_watchers_are_told_not_too_often_and_always_the_end() -> None:
    led = Led(Shape(100), on="A")
    for task in range(99):
        led.now += 0.01
        led.done("A", task, blobs="m")
    assert 9 <= len(led.shown) <= 12
    led.done("A", 99, blobs="m")
    assert led.shown[-1].phase is Phase.DONE
    assert len(led.shown[-1].parts) == 100


def test_results_by_value_are_bounded() -> None:
    led = Led(Shape(10), config=TasksConfig(ledger_bytes_max=1), on="A")
    assert led.done("A", 0)[-1] == "failed"
    assert "write them as blobs" in led.view.error


# --- helpers ------------------------------------------------------------------------------------------------------


def _quick(led: Led, task: int, blobs: tuple = (), seconds: float = 0.0001) -> messages.AttemptEnd:
    end = led.end(task, blobs=blobs)
    return type(end)(task=end.task, attempt=end.attempt, outcome=end.outcome, blobs=end.blobs, seconds=seconds)


def _out(led: Led, task: int) -> bool:
    """Whether an attempt of this map task is out."""
    return not led.core.over and bool(led.core._phase.state.by_id[MAP].out[task])


def _director_of(led: Led) -> weakref.ref:
    return weakref.ref(led.core._phase.state.director)


def _map_facts_of(led: Led) -> weakref.ref:
    return weakref.ref(led.core._phase.state.by_id[MAP].facts)


def _task_of(led: Led, holder: bytes) -> int:
    """The map task that this node has now."""
    return next(t for (s, t), (n, _) in led.given.items() if s == MAP and n == holder and _out(led, t))


def _lines(led: Led) -> list[str]:
    return [
        f"{chr(n[0])}: {m.function} {' '.join(str(a.task) for a in m.attempts)}"
        for n, m in led.said
        if isinstance(m, messages.Assign)
    ]


def _run_all(led: Led, *, seconds: float) -> list[str]:
    """Finish batch after batch on A; the lines of all `Assign`s."""
    while not led.core.over:
        batch = next(iter(led.core._phase.state.workers.all[A].batches.values()))
        led.ended("A", [_quick(led, t, seconds=seconds) for t in batch.tasks])
    return _lines(led)


def test_a_job_that_every_node_refuses_says_so() -> None:
    led = Led(Shape(2), on="AB")
    refused = set[str]()
    while len(refused) < 2:
        holder = chr(led.given[MAP, 0][0][0])
        refused.add(holder)
        led.failed(holder, 0, Outcome.REFUSED, error="the disk is full")
        other = chr(led.given[MAP, 1][0][0])
        refused.add(other)
        led.failed(other, 1, Outcome.REFUSED, error="the disk is full")
    assert led.view.note.startswith("2 tasks wait; no node takes them; ")
    assert led.view.note.endswith(" says: refuses: the disk is full")
