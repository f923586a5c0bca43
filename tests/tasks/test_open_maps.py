"""Map tasks that nobody has counted: one for each node, late ones included, and those of an endless datasource."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import JobError, JobRejected
from p2premap.sim.workloads import Shape
from p2premap.tasks import events, messages
from p2premap.tasks.director import Pinned
from p2premap.tasks.job import JobOptions, Outcome, Phase
from p2premap.tasks.mapreduce import MapReduce
from p2premap.tasks.mapreduce_open import AT_ONCE, TASKS_MAX, OpenMap
from p2premap.tasks.mapreduce_plan import ENDED, MapParams, pack_plan, unpack_plan
from tests.tasks.dialogue import JOB, Led
from tests.tasks.working import MAP, A, node


def director(open: str = "node", *, keys: int = 4, lasts_s: float = 0.0, partitions: int = 0) -> MapReduce:
    plan = pack_plan(
        files=(), tasks=(), partitions=partitions, compression="none", keys=keys, open=open, lasts_s=lasts_s
    )
    return MapReduce(job=JOB, home=A, plan=plan)


def led(it: MapReduce, on: str = "", *, options: JobOptions | None = None, quorum: bool = True) -> Led:
    return Led(Shape(1), director=it, on=on, options=options, quorum=quorum)


def heir(former: Led, it: MapReduce, on: str) -> Led:
    history = (*former.history, *former.batches)
    decided = former.replica.decided
    return Led(Shape(1), director=it, history=history, decided=decided, leader="B", term=1, on=on)


def orders(leader: Led) -> dict[str, list[int]]:
    """Which tasks each node has been told to run."""
    found: dict[str, list[int]] = {}
    for to, message in leader.said:
        if isinstance(message, messages.Assign):
            found.setdefault(chr(to[0]), []).extend(spec.task for spec in message.attempts)
    return found


def params(leader: Led, task: int) -> MapParams:
    assert isinstance(leader.director, MapReduce)
    return msgspec.msgpack.decode(leader.director.task(MAP, task).params, type=MapParams)


# --- one for each node ----------------------------------------------------------------------------------------------


def test_each_node_is_given_a_task_of_its_own_and_the_job_ends_when_all_have_answered() -> None:
    it = led(director(), on="ABC")
    assert orders(it) == {"A": [0], "B": [1], "C": [2]}
    assert [params(it, task).names for task in range(3)] == [("a",), ("b",), ("c",)]
    it.done("A", 0)
    it.done("C", 2)
    assert not it.core.over
    it.done("B", 1)
    assert it.view.phase is Phase.DONE
    assert it.view.stages[0].tasks == 3


def test_who_comes_before_all_have_answered_is_given_one_too() -> None:
    it = led(director(), on="AB")
    it.done("A", 0)
    assert it.seen("C") == ["C: map 2"]
    it.done("B", 1)
    assert not it.core.over
    it.done("C", 2)
    assert it.view.phase is Phase.DONE


def test_a_job_that_lasts_takes_late_comers_until_its_time_is_over() -> None:
    it = led(director(lasts_s=60.0), on="A")
    it.done("A", 0)
    assert not it.core.over
    it.tick(59.0)
    assert it.seen("B") == ["B: map 1"]
    while it.now < 60.0:
        it.tick()
    assert it.now == 60.0, "it asked to be called then"
    assert not it.core.over, "who was there is waited for"
    assert it.core.deadline() > 60.0
    it.done("B", 1)
    assert it.view.phase is Phase.DONE


def test_a_node_that_goes_before_it_has_answered_is_left_out_and_named() -> None:
    it = led(director(), on="AB")
    it.done("A", 0)
    it.lost("B")
    assert it.view.phase is Phase.DONE
    ((stage, task, why),) = it.view.skipped
    assert (stage, task) == ("map", 1)
    assert why == "b has gone, or offers no slot any more"


def test_a_node_that_comes_back_in_time_runs_its_task_again() -> None:
    it = led(director(), on="AB")
    it.lost("B")
    assert not it.core.over, "nobody has answered yet"
    assert "B: map 1.1" in it.seen("B")
    it.done("A", 0)
    it.done("B", 1)
    assert it.view.phase is Phase.DONE
    assert it.view.skipped == ()


def test_a_node_in_doubt_is_waited_for_and_its_task_runs_nowhere_else() -> None:
    it = led(director(), on="ABC")
    it.done("A", 0)
    it.done("C", 2)
    it.doubt("B")
    it.tick(1.0)
    assert orders(it) == {"A": [0], "B": [1], "C": [2]}
    assert not it.core.over


def test_a_task_that_crashes_its_own_node_is_tried_there_and_then_fails_the_job() -> None:
    it = led(director(), on="AB")
    assert it.failed("A", 0, Outcome.CRASHED) == ["A: map 0.1"]
    assert it.failed("A", 0, Outcome.CRASHED) == ["A: map 0.2"]
    it.failed("A", 0, Outcome.CRASHED)
    assert it.view.phase is Phase.FAILED
    assert "crashed its worker process 3 times" in it.view.error


def test_a_node_that_cannot_run_it_now_is_asked_again() -> None:
    it = led(director(), on="AB")
    it.busy("B", 1)
    it.done("A", 0)
    assert not it.core.over
    assert "B: map 1.1" in it.tick(1.0)


def test_a_node_that_offers_no_slot_is_none_that_is_there() -> None:
    it = led(director(), on="A")
    it.seen("B", slots=0)
    it.done("A", 0)
    assert it.view.phase is Phase.DONE
    assert orders(it) == {"A": [0]}


def test_tasks_wait_until_most_replicas_know_whose_they_are() -> None:
    it = led(director(), quorum=False)
    assert it.seen("A") == []
    assert it.protect(len(it.batches)) == ["A: map 0"]


def test_a_successor_knows_who_was_met_and_who_was_not() -> None:
    first = led(director(), on="AB")
    first.done("A", 0)
    second = heir(first, director(), on="B")
    second.now = 0.01
    second.holding("B", (1, 0))
    second.seen("C")
    assert orders(second) == {"C": [2]}
    second.done("C", 2)
    assert not second.core.over
    second.ended("B", [msgspec.structs.replace(second.end(2), task=1, attempt=0)])
    assert second.view.phase is Phase.DONE
    assert second.view.stages[0].tasks == 3


def test_why_says_for_whom_a_task_is() -> None:
    it = led(director(), on="AB")
    it.busy("B", 1, reason="all slots are taken")
    assert it.core.why(0.0, stage=0, task=1).endswith("it is for b alone, which says: all slots are taken.")


def test_reduce_begins_when_everybody_has_answered() -> None:
    it = led(director("key", partitions=2), on="AB")
    assert params(it, 1).count == 1
    assert (params(it, 1).first, params(it, 1).keyed) == (1, True)
    assert isinstance(it.director, MapReduce)
    plan = it.director.first()
    assert (plan.final, plan.open, plan.each_node, plan.grows) == (False, True, True, False)


# --- endless --------------------------------------------------------------------------------------------------------


def end(leader: Led, task: int, value: bytes = b"") -> list[str]:
    done = msgspec.structs.replace(leader.end(task), value=value)
    return leader.ended("A", [done])


def test_a_window_of_tasks_is_open_and_each_that_ends_lets_another_begin() -> None:
    it = led(director("endless", lasts_s=math.inf), on="A")
    assert it.view.stages[0].tasks == 4
    for task in range(40):
        end(it, task)
        assert it.view.stages[0].tasks == task + 5
    assert not it.core.over
    assert orders(it)["A"][:41] == list(range(41)), "in the order of the keys"
    it.cancel()
    it.ended("A", [it.end(task, outcome=Outcome.STOPPED) for task in orders(it)["A"][40:]])
    assert it.view.phase is Phase.CANCELLED


def test_a_datasource_that_ends_ends_the_job() -> None:
    it = led(director("endless", lasts_s=math.inf), on="A")
    end(it, 0)
    end(it, 1, ENDED)
    assert not it.core.over
    while not it.core.over:
        task = orders(it)["A"][-1]
        end(it, task, ENDED)
    assert it.view.phase is Phase.DONE
    assert it.view.stages[0].tasks == 5
    assert it.view.skipped == ()


def test_when_its_time_is_over_what_has_not_begun_does_not_begin() -> None:
    it = led(director("endless", lasts_s=30.0), on="A")
    end(it, 0)
    it.tick(30.0)
    assert not it.core.over
    begun = orders(it)["A"]
    for task in begun[1:]:
        end(it, task)
    assert it.view.phase is Phase.DONE
    assert orders(it)["A"] == begun
    assert it.view.skipped == (), "nobody needs to hear of tasks that were not begun"


def test_a_successor_goes_on_with_the_same_keys() -> None:
    first = led(director("endless", lasts_s=math.inf), on="A")
    for task in range(3):
        end(first, task)
    second = heir(first, director("endless", lasts_s=math.inf), on="A")
    second.now = 0.01
    second.holding("A")
    assert second.view.stages[0].tasks == 7
    assert min(orders(second)["A"]) == 3


@given(st.integers(0, TASKS_MAX - 2))
def test_each_task_has_the_keys_after_those_of_the_one_before(task: int) -> None:
    it = OpenMap(unpack_plan(pack_plan(files=(), tasks=(), partitions=0, compression="", keys=4, open="endless")))
    here, after = it.keys(task), it.keys(task + 1)
    assert after.first == here.first + here.number
    assert here.number == 1 << task // AT_ONCE


def test_there_are_never_more_tasks_than_parts_can_be() -> None:
    it = OpenMap(unpack_plan(pack_plan(files=(), tasks=(), partitions=0, compression="", keys=4, open="endless")))
    closed = False
    for task in range(TASKS_MAX):
        payload = it.unfold(task, _result())
        if payload is not None:
            assert not closed
            closed = it.extend(payload).closed
    assert closed
    assert it.tasks == TASKS_MAX


def _result() -> Pinned:
    return Pinned(value=b"", blobs=(), holders=(node("A"),))


# --- nonsense -------------------------------------------------------------------------------------------------------


def test_payloads_from_outside_are_refused() -> None:
    it = led(director(lasts_s=9.0), on="A")
    it.hear(events.Extend(payload=b"nonsense", request=3))
    (answer,) = it.asked_for(events.Extended)
    assert "no further tasks" in answer.error
    counted = MapReduce(job=JOB, home=A, plan=pack_plan(files=(), tasks=(), partitions=0, compression="", keys=4))
    with pytest.raises(JobError, match="no more tasks"):
        counted.extend(b"nonsense")


@pytest.mark.parametrize(
    "wrong", [{"open": "sometimes", "keys": 4}, {"open": "node"}, {"open": "endless", "keys": 4, "partitions": 1}]
)
def test_plans_that_contradict_themselves_are_refused(wrong: dict[str, object]) -> None:
    given = {"files": (), "tasks": (), "partitions": 0, "compression": "", **wrong}
    with pytest.raises(JobRejected):
        unpack_plan(pack_plan(**given))  # type: ignore[arg-type]
