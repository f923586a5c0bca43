"""Blobs that nobody needs any more go while their job runs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2premap.ids import Digest, JobId, NodeId
from p2premap.sim.workloads import Shape, ShapeDirector
from p2premap.tasks import messages
from p2premap.tasks.director import Pinned, StagePlan, TaskInput
from p2premap.tasks.job import Phase, Source, StageId
from p2premap.tasks.shedding import KEPT
from tests.tasks.dialogue import JOB, Led, blob
from tests.tasks.working import A

STAGES = 6


class Rounds(ShapeDirector):
    """One stage of a task after the other; each reads what the one before has yielded."""

    def __init__(self, *, passing: bool = True) -> None:
        super().__init__(job=JobId(JOB), home=A, plan=Shape(1).encode())
        self._passing = passing
        self._last: Pinned | None = None

    def first(self) -> StagePlan:
        return self._stage(0)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        self._last = results[0]
        return self._stage(number + 1) if number + 1 < STAGES else None

    def _stage(self, number: int) -> StagePlan:
        last = number == STAGES - 1
        return StagePlan(name="round", function="map", tasks=1, passing=self._passing and not last, final=last)

    def task(self, stage: StageId, task: int) -> TaskInput:
        found = self._last
        if found is None:
            return TaskInput(params=b"")
        ref = found.blobs[0]
        source = Source(digest=ref.digest, start=0, end=ref.size, holders=found.holders, blob=ref.digest)
        return TaskInput(params=b"", sources=(source,))


def finish(led: Led) -> StageId:
    """Node A does the one task of the stage that runs, and B keeps a copy."""
    stage, task = max(led.given)
    led.done("A", task, stage=stage, blobs=f"round{stage.number}.")
    return stage


def told(led: Led) -> list[tuple[NodeId, tuple[Digest, ...]]]:
    return [(to, message.blobs) for to, message in led.said if isinstance(message, messages.Shed)]


def name(stage: int) -> Digest:
    return blob(f"round{stage}.0").digest


def test_a_stage_that_three_others_follow_goes_wherever_it_is() -> None:
    led = Led(Shape(1), on="A", director=Rounds())
    for _ in range(KEPT + 1):
        assert told(led) == []
        finish(led)
    assert told(led) == [(A, (name(0),))]
    finish(led)
    assert told(led) == [(A, (name(0),)), (A, (name(1),))]
    assert [stage.number for stage in led.view.stages] == [2, 3, 4]
    finish(led)
    finish(led)
    assert led.view.phase is Phase.DONE
    assert told(led) == [(A, (name(number),)) for number in range(3)], "what the end was made from stays"


def test_what_has_gone_is_not_copied_any_more() -> None:
    led = Led(Shape(1), on="AB", director=Rounds())
    for _ in range(KEPT + 1):
        finish(led)
    orders = [message for _, message in led.said if isinstance(message, messages.Keep)]
    led.kept()
    before = len(orders)
    led.lost("B")
    led.seen("C")
    after = [message for _, message in led.said if isinstance(message, messages.Keep)][before:]
    assert {source.blob for order in after for source in order.sources} == {name(1), name(2)}


def test_all_other_stages_stay() -> None:
    led = Led(Shape(1), on="A", director=Rounds(passing=False))
    for _ in range(STAGES):
        finish(led)
    assert told(led) == []
    assert len(led.view.stages) == STAGES


@pytest.mark.parametrize("rounds", [3, 5])
def test_a_successor_does_not_ask_for_what_has_gone(rounds: int) -> None:
    first = Led(Shape(1), on="A", director=Rounds())
    for _ in range(rounds):
        finish(first)
    decided = dict(first.replica.decided)
    second = Led(Shape(1), on="AB", leader="B", term=1, director=Rounds(), history=first.batches, decided=decided)
    assert [stage.number for stage in second.view.stages] == list(range(rounds - KEPT, rounds + 1))
    assert told(second) == []
