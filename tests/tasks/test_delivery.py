"""Output that goes to a URL: one stage behind the last, of pinned parts only, whoever leads."""

from __future__ import annotations

import msgspec

from p2premap.sim.workloads import Shape
from p2premap.tasks import messages
from p2premap.tasks.delivery import DELIVER, DeliverParams, pack_names, unpack_names
from p2premap.tasks.job import JobOptions, Outcome, Phase, StageId
from tests.tasks.dialogue import Led
from tests.tasks.working import MAP

URL = "s3://bucket/out"
TO_URL = JobOptions(copies=1, strict=True, output=URL)


def delivered(led: Led) -> tuple[StageId, dict[int, DeliverParams]]:
    """The stage that was given out last, and what its tasks were told."""
    orders = [message for _, message in led.said if isinstance(message, messages.Assign)]
    stage = orders[-1].stage
    assert all(order.function == DELIVER for order in orders if order.stage == stage)
    told = {spec.task: spec.params for order in orders if order.stage == stage for spec in order.attempts}
    return stage, {task: msgspec.msgpack.decode(params, type=DeliverParams) for task, params in sorted(told.items())}


def mapped(options: JobOptions = TO_URL) -> Led:
    """A job whose two parts are there."""
    led = Led(Shape(2), options=options, on="AB")
    led.done("A", 0, blobs="part")
    led.done("B", 1, blobs="part")
    return led


def test_each_part_is_written_once_all_are_there_and_then_the_job_is_done() -> None:
    led = mapped()
    stage, told = delivered(led)
    assert stage.number == 1
    assert told == {n: DeliverParams(url=URL, name=f"part-0000{n}") for n in (0, 1)}
    assert [source.size for source in led.sources("B")] == [5]
    assert led.view.phase is Phase.RUNNING
    assert led.view.output == URL
    assert led.done("A", 0, stage=stage) == []
    assert "done" in led.done("B", 1, stage=stage)
    assert [part.file_name for part in led.view.parts] == ["part-00000", "part-00001"]


def test_nothing_is_written_before_the_results_are_pinned() -> None:
    led = Led(Shape(2), options=TO_URL, on="AB")
    led.done("A", 0, blobs="part")
    assert {message.stage for _, message in led.said if isinstance(message, messages.Assign)} == {MAP}


def test_a_successor_goes_on_writing_the_same_parts() -> None:
    led = mapped()
    stage, told = delivered(led)
    led.done("A", 0, stage=stage)
    heir = led.heir("B", on="AB")
    heir.now = 0.01
    heir.holding("A", stage=stage)
    heir.holding("B", stage=stage)
    assert delivered(heir) == (stage, {1: told[1]})
    assert "done" in heir.done(chr(heir.given[stage, 1][0][0]), 1, stage=stage)


def test_a_part_that_cannot_be_written_fails_the_job_even_where_failed_tasks_are_skipped() -> None:
    led = mapped(JobOptions(copies=1, output=URL, skip_failed=True))
    stage, _ = delivered(led)
    assert "failed" in led.failed("A", 0, Outcome.RAISED, stage=stage, error="access denied")
    assert led.view.error == "Task 0 of stage deliver raised an exception on a: access denied"
    assert len(led.view.parts) == 2, "they can be fetched all the same"


def test_one_attempt_removes_the_parts_of_an_earlier_job() -> None:
    _, told = delivered(mapped(JobOptions(copies=1, output=URL, overwrite=True)))
    assert unpack_names(told[0].others) == ["part-00000", "part-00001"]
    assert told[1].others == b""
    assert len(pack_names([f"part-{number:05d}" for number in range(10_000)])) < 50_000


def test_a_job_without_parts_has_nothing_to_write() -> None:
    led = Led(Shape(1), options=TO_URL, on="A")
    assert "done" in led.done("A", 0)
