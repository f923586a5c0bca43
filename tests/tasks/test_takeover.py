"""A job goes on under another leader: from what is protected, with what runs, and without doing finished work again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.errors import JobError
from p2premap.ids import Ballot
from p2premap.sim.workloads import Shape
from p2premap.tasks import events, journal, messages
from p2premap.tasks.job import AttemptEnd, JobOptions, Outcome, Phase, Spill, StageId
from p2premap.tasks.ledger import FINAL_CELL, Final
from tests.tasks.dialogue import JOB, Led, blob
from tests.tasks.test_gang import Together
from tests.tasks.working import MAP, A, B

ONE_COPY = JobOptions(copies=1)


def _mapped(leader: str = "A") -> Led:
    """A job whose two map tasks have been done, and whose reduce task is out at A."""
    led = Led(Shape(2, 1), options=ONE_COPY, on="AB", leader=leader)
    led.done("A", 0, blobs="m")
    led.done("B", 1, blobs="m")
    return led


def _gathered(led: Led, *letters: str) -> list[str]:
    """Every node says that it runs nothing."""
    led.now += 0.01
    lines: list[str] = []
    for letter in letters:
        lines += led.holding(letter)
    return lines


# --- what is asked before anything is given -----------------------------------------------------------------------


def test_every_node_is_asked_and_nothing_is_given_until_all_have_answered() -> None:
    heir = Led(Shape(4), on="A").heir("B")
    assert heir.seen("A") == ["A: recount  heard 0"]
    assert heir.seen("B") == ["B: recount  heard 0"]
    recounts = [m for _, m in heir.said if isinstance(m, messages.Recount)]
    assert all(m.census and m.ballot == Ballot(0, 1, B) for m in recounts)
    heir.now = 0.01
    assert heir.holding("B") == []
    assert heir.holding("A") == ["B: map 0.1000", "A: map 1.1000"]


def test_a_node_that_does_not_answer_is_waited_for_for_a_moment_only() -> None:
    heir = Led(Shape(4), on="A").heir("B", on="AB")
    heir.now = 0.01
    heir.holding("B")
    assert heir.core.deadline() <= 0.3
    while heir.now < 0.3:
        lines = heir.tick()
    assert lines == ["B: map 0.1000", "A: map 1.1000"]


def test_what_runs_is_adopted_under_its_old_number() -> None:
    led = Led(Shape(2), on="AB")  # task 0 at A, task 1 at B
    heir = led.heir("B", on="AB")
    heir.now = 0.01
    heir.holding("A", (0, 0))
    assert heir.holding("B", (1, 0)) == []
    assert heir.view.stages[0].running == 2
    heir.ended("A", [AttemptEnd(task=0, attempt=0, outcome=Outcome.DONE, blobs=(blob("m0"),), seconds=1.0)])
    heir.ended("B", [AttemptEnd(task=1, attempt=0, outcome=Outcome.DONE, blobs=(blob("m1"),), seconds=1.0)])
    heir.kept()
    assert heir.view.phase is Phase.DONE


def test_an_adopted_attempt_that_fails_is_followed_by_one_of_this_leader() -> None:
    heir = Led(Shape(1), on="A").heir("B", on="A")
    heir.now = 0.01
    heir.holding("A", (0, 0))
    heir.ended("A", [AttemptEnd(task=0, attempt=0, outcome=Outcome.REFUSED, error="full")], free=1)
    assert heir.seen("B") == ["B: recount  heard 0", "B: map 0.1000"]


def test_what_runs_twice_or_is_finished_is_stopped() -> None:
    led = Led(Shape(3), on="AB")
    led.done("A", 0, blobs="m")
    heir = led.heir("B", on="AB")
    heir.now = 0.01
    heir.holding("B", (1, 0))
    assert heir.holding("A", (0, 0), (1, 0))[0] == "A: stop 0 1"


def test_a_node_that_comes_late_is_asked_too() -> None:
    heir = Led(Shape(2), on="A").heir("B", on="B")
    _gathered(heir, "B")
    assert heir.seen("A", slots=0) == ["A: recount  heard 0"]
    assert heir.holding("A", (0, 0)) == ["A: stop 0"]  # given to B meanwhile


def test_what_was_looked_at_ahead_and_turns_out_to_run_already_is_not_given_again() -> None:
    led = Led(Shape(3), on="BAC")  # one task each, in this order
    heir = led.heir("B", on="B")
    heir.now = 0.01
    heir.holding("B", (0, 0))
    refused = AttemptEnd(task=0, attempt=0, outcome=Outcome.REFUSED, error="full")
    heir.ended("B", [refused], free=1)  # so tasks are looked at ahead from now on
    heir.seen("A", slots=0)
    assert heir.seen("C")[-1] == "C: map 0.1000"
    assert heir.holding("A", (1, 0)) == []
    assert heir.done("C", 0) == ["C: map 2.1000"]


def test_tasks_that_started_all_at_once_run_on_and_are_not_stopped() -> None:
    shape = Shape(2)
    plan = shape.encode()
    led = Led(shape, on="AB", director=Together(job=JOB, home=A, plan=plan))
    led.reserved("A", 1)
    assert led.reserved("B", 1)[:2] == ["A: all 0", "B: all 1"]
    heir = Led(shape, on="AB", director=Together(job=JOB, home=A, plan=plan), leader="B", term=1, history=led.batches)
    heir.now = 0.01
    heir.holding("A", (0, 0), free=0)
    assert heir.holding("B", (1, 0), free=0) == []
    heir.ended("A", [AttemptEnd(task=0, attempt=0, outcome=Outcome.DONE, seconds=1.0)])
    assert heir.ended("B", [AttemptEnd(task=1, attempt=0, outcome=Outcome.CRASHED, error="it says so")]) == [
        "A: reserve 1",
        "B: reserve 1",
    ]
    assert heir.reserved("A", 1)[0] == "A: all 1.1000"


# --- finished work ------------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_done_again() -> None:
    heir = _mapped().heir("B", on="AB")
    assert _gathered(heir, "A", "B") == ["B: reduce 0.1000"]
    assert [stage.done for stage in heir.view.stages] == [2, 0]


def test_the_view_goes_on_where_it_was() -> None:
    led = _mapped()
    led.now = 5.0
    led.unlinked("A")
    led.failed("A", 0, Outcome.CRASHED, stage=led.reduce)
    before = led.view
    heir = led.heir("B", on="AB")
    heir.now = 2.0
    after = heir.view
    assert after.age_s == pytest.approx(before.age_s + 2.0)
    assert after.takeovers == before.takeovers + 1
    assert after.nodes == before.nodes == (("a", 1), ("b", 1))
    assert [(s.done, s.failed_attempts) for s in after.stages] == [(s.done, s.failed_attempts) for s in before.stages]
    assert after.leader_name == "b"


def test_results_of_a_node_that_is_gone_are_made_again() -> None:
    heir = _mapped().heir("B", on="B")
    assert _gathered(heir, "B") == ["B: map 0.1000"]
    assert heir.done("B", 0, blobs="m") == ["B: reduce 0.1000"]


def test_results_of_a_node_in_doubt_are_waited_for() -> None:
    heir = _mapped().heir("B", on="B")
    heir.doubt("A")
    assert _gathered(heir, "B") == []
    assert "wait" in heir.view.note


def test_reports_that_nobody_heard_are_taken_from_the_new_leader() -> None:
    led = Led(Shape(2), on="A")
    heir = led.heir("B", on="AB")
    heir.now = 0.01
    heir.holding("B")
    heir.holding("A", (0, 0))
    heir.ended("A", [AttemptEnd(task=0, attempt=0, outcome=Outcome.DONE, blobs=(blob("m0"),), seconds=1.0)])
    assert heir.view.stages[0].done == 1


def test_counted_failures_are_remembered() -> None:
    led = Led(Shape(1), on="A", options=JobOptions(attempts_max=3))
    led.failed("A", 0, Outcome.CRASHED)
    led.failed("A", 0, Outcome.CRASHED)
    heir = led.heir("B", on="A")
    assert _gathered(heir, "A") == ["A: map 0.1000"]
    assert heir.failed("A", 0, Outcome.CRASHED) == ["A: forget", "failed"]


# --- decisions ----------------------------------------------------------------------------------------------------


def _reported() -> Led:
    """Both tasks of a job without reduces are done, and no replica has said anything."""
    led = Led(Shape(2), on="AB", quorum=False)
    led.done("A", 0, blobs="m")
    led.done("B", 1, blobs="m")
    return led


def test_a_manifest_is_proposed_when_its_facts_are_protected() -> None:
    led = _reported()
    assert len(led.batches) == 2
    led.protect(1)
    assert led.asked_for(events.ProposeCell) == []
    led.protect(2)
    (proposal,) = led.asked_for(events.ProposeCell)
    assert proposal.cell == "manifest/0/0"
    led.decide(proposal.cell, proposal.value)
    led.kept()
    assert led.asked_for(events.ProposeCell)[1].cell == FINAL_CELL


def test_a_successor_proposes_the_same_manifest() -> None:
    led = _reported()
    led.protect(2)
    heir = led.heir("B", on="AB", quorum=False)
    _gathered(heir, "A", "B")
    assert heir.asked_for(events.ProposeCell) == []  # nor has it protected what it began with
    heir.protect(1)
    assert [p.value for p in heir.asked_for(events.ProposeCell)] == [p.value for p in led.asked_for(events.ProposeCell)]


def test_a_job_is_as_old_as_its_successor_has_known_it_although_nothing_had_happened_for_long() -> None:
    led = Led(Shape(1), on="A")
    heir = Led(Shape(1), on="AB", leader="B", term=1, history=led.batches, known=-300.0)
    heir.now = 0.01
    heir.holding("A", (0, 0))
    assert heir.view.age_s == pytest.approx(300.0, abs=1.0)
    assert [round(age_s) for _, _, age_s in heir.view.history] == [300]


def test_what_was_put_aside_on_disk_is_added_up_and_a_successor_knows_of_it() -> None:
    led = Led(Shape(3), on="A")
    for task, spilled in enumerate((None, 5, 7)):
        spill = None if spilled is None else Spill(bytes=spilled, seconds=0.5)
        blobs = (blob(f"m{task}"),) if task else ()  # results without blobs are counted elsewhere
        led.ended("A", [AttemptEnd(task=task, attempt=0, outcome=Outcome.DONE, blobs=blobs, seconds=1.0, spill=spill)])
    plain = AttemptEnd(task=0, attempt=0, outcome=Outcome.DONE, seconds=1.0, spill=Spill(bytes=3, seconds=0.1))
    assert led.view.stages[0].spilled_bytes == 12
    assert led.heir("B", on="B").view.stages[0].spilled_bytes == 12
    other = Led(Shape(1), on="A")
    other.ended("A", [plain])
    assert other.view.stages[0].spilled_bytes == 3


def test_a_stage_is_planned_from_facts_that_its_leader_wrote_of_it() -> None:
    led = _mapped()
    led.failed("A", 0, Outcome.CRASHED, stage=led.reduce)
    heir = led.heir("B", on="AB", decided=False)
    assert [stage.name for stage in heir.view.stages] == ["map", "reduce"]


def test_words_of_a_stage_that_is_not_planned_yet_are_kept_for_it() -> None:
    led = _mapped()
    reduce = led.reduce
    heir = led.heir("B", on="AB", decided=False, quorum=False)
    heir.now = 0.01
    heir.holding("A")
    heir.holding("B", (0, 0), stage=reduce)
    end = AttemptEnd(task=0, attempt=0, outcome=Outcome.DONE, blobs=(blob("r0"),), seconds=1.0)
    heir.ended("B", [end], stage=reduce)
    heir.protect(1)
    assert len(heir.view.stages) == 1
    (proposal,) = heir.asked_for(events.ProposeCell)
    heir.decide(proposal.cell, proposal.value)
    assert [stage.done for stage in heir.view.stages] == [2, 1]
    assert not [m for _, m in heir.said if isinstance(m, messages.Assign)]


def test_a_decided_end_is_told_to_every_node_and_concluded() -> None:
    led = Led(Shape(1), on="A")
    led.done("A", 0, blobs="m")
    assert len(led.asked_for(events.Conclude)) == 1
    heir = led.heir("B")
    assert heir.core.deadline() <= heir.now, "at once, whether a node is seen or not"
    assert heir.tick(0.001) == ["done"]
    (conclusion,) = heir.asked_for(events.Conclude)
    assert [part.number for part in conclusion.view.parts] == [0]
    assert heir.seen("A") == ["A: forget"]
    assert heir.seen("A") == []


def test_an_end_that_was_proposed_is_proposed_again() -> None:
    led = Led(Shape(1), on="A", options=JobOptions(attempts_max=1), quorum=False)
    led.failed("A", 0, Outcome.RAISED)
    heir = led.heir("B", on="A")
    assert heir.view.phase is Phase.FAILED
    assert heir.view.error == Final.decode(led.asked_for(events.ProposeCell)[0].value).error


def test_a_cancelled_job_stays_cancelled() -> None:
    led = Led(Shape(2), on="AB")
    led.cancel()
    heir = led.heir("B", on="AB")
    assert heir.view.phase is not Phase.CANCELLED
    heir.now = 0.01
    assert heir.holding("A", (0, 0)) == ["A: stop 0"]
    heir.holding("B")
    heir.ended("B", [], serial=0)
    stopped = AttemptEnd(task=0, attempt=0, outcome=Outcome.STOPPED)
    heir.answers[A] = 1
    assert "cancelled" in heir.ended("A", [stopped])


def test_a_lineage_that_is_not_known_here_is_not_gone_on_with() -> None:
    """Another fork of the job decided a manifest; its facts are not here."""
    led = Led(Shape(1, 1), on="A")
    foreign = {"manifest/0/0": bytes(32)}
    heir = Led(Shape(1, 1), leader="B", term=1, history=led.batches, decided=foreign, on="A")
    heir.now = 0.01
    heir.holding("A", (0, 0))
    heir.ended("A", [AttemptEnd(task=0, attempt=0, outcome=Outcome.DONE, blobs=(blob("m0"),), seconds=1.0)])
    assert "manifest/0/1" in heir.replica.decided
    assert [stage.name for stage in heir.view.stages] == ["map", "reduce"]


# --- what is told only when it is protected -----------------------------------------------------------------------


def test_a_report_is_confirmed_when_its_facts_are_protected() -> None:
    led = Led(Shape(9), on="A", quorum=False)
    led.done("A", 0)
    led.done("A", 1)
    assert led.unlinked("A")[0].endswith("heard 0")
    led.protect(1)
    assert led.unlinked("A")[0].endswith("heard 1")
    led.protect(2)
    assert led.unlinked("A")[0].endswith("heard 2")


def test_the_unprotected_window_is_shown() -> None:
    led = Led(Shape(9), on="A", quorum=False)
    led.done("A", 0)
    led.now = 2.0
    assert (led.view.unprotected, led.view.unprotected_s) == (1, 2.0)
    led.protect(1)
    assert (led.view.unprotected, led.view.unprotected_s) == (0, 0.0)


# --- histories ----------------------------------------------------------------------------------------------------


def test_a_history_of_nonsense_is_refused() -> None:
    with pytest.raises(JobError, match="cannot be read"):
        Led(Shape(1), history=[b"nonsense"])


STAGES = st.sampled_from([MAP, StageId(1, b"lineage1"), StageId(9, b"")])
U32 = st.integers(0, 5) | st.integers(0, 2**32 - 1)
NODES = st.sampled_from([A, B])
FACTS = st.one_of(
    st.builds(
        journal.Results,
        stage=STAGES,
        node=NODES,
        count=st.integers(1, 5),
        first=U32,
        attempt=U32,
        value=st.binary(max_size=2),
        records_out=st.integers(0, 9),
        seconds=st.floats(0, 9),
    ),
    st.builds(
        journal.Failed,
        stage=STAGES,
        task=U32,
        attempt=U32,
        node=NODES,
        outcome=st.sampled_from(Outcome),
        error=st.just("no"),
        detail=st.just(""),
        answer=st.booleans(),
    ),
    st.builds(journal.Chosen, stage=STAGES, generation=st.integers(0, 2), task=U32, attempt=U32, node=NODES),
    st.builds(journal.Held, stage=STAGES, task=U32, attempt=U32, node=NODES, holder=NODES),
    st.builds(journal.Extended, payload=st.binary(max_size=3)),
    st.builds(journal.Pin, stage=STAGES, generation=st.integers(0, 2)),
    st.builds(journal.Cancelled, reason=st.just("enough")),
    st.builds(journal.Term, leader=NODES),
    st.builds(journal.Named, node=NODES, name=st.just("a")),
    st.builds(journal.Said, stage=STAGES, task=U32, attempt=U32, node=NODES, text=st.just("a")),
)


@settings(max_examples=200)
@given(st.lists(st.lists(FACTS, max_size=4), max_size=6))
def test_any_history_of_facts_can_be_gone_on_from(history: list[list[journal.Fact]]) -> None:
    """Facts of leaders that nobody followed may be anything; two leaders make the same of them."""
    batches = [journal.encode(0.0, facts) for facts in history]
    one, two = (Led(Shape(3, 2), history=batches, term=7, leader=letter) for letter in "AB")
    for led in (one, two):
        led.tick(0.001)
        led.seen("A")
        led.now = 1.0
        led.tick(0.001)
    assert [(s.name, s.done, s.failed_attempts) for s in one.view.stages] == [
        (s.name, s.done, s.failed_attempts) for s in two.view.stages
    ]
