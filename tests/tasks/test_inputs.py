"""Jobs whose inputs are files of one machine: what happens while that machine is away."""

from __future__ import annotations

import pytest

from p2premap.ids import Digest
from p2premap.sim.workloads import Shape, ShapeDirector
from p2premap.tasks.director import TaskInput
from p2premap.tasks.job import JobOptions, Outcome, Source, StageId
from tests.tasks import dialogue
from tests.tasks.dialogue import Led
from tests.tasks.working import MAP, node

HOME = node("H")
DIGEST = Digest(b"d" * 32)
FILE = Source(digest=DIGEST, start=0, end=9, holders=(HOME,), path="/input", mtime_ns=1)


class FileDirector(ShapeDirector):
    """Each map task reads a file of the node H."""

    def task(self, stage: StageId, task: int) -> TaskInput:
        input = super().task(stage, task)
        return input if stage.number else TaskInput(params=input.params, sources=(FILE,))


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> Led:
    monkeypatch.setattr(dialogue, "ShapeDirector", FileDirector)
    return Led(Shape(1), options=JobOptions(attempts_max=2), on="HAB")


def lost(led: Led) -> list[str]:
    """Whoever has the task cannot read its file."""
    return led.failed(chr(led.given[MAP, 0][0][0]), 0, Outcome.INPUT_LOST, missing=[DIGEST])


def test_a_task_whose_file_is_away_is_tried_everywhere_then_waits(led: Led) -> None:
    led.lost("H")
    tried = {chr(led.given[MAP, 0][0][0])}
    (given,) = lost(led)
    tried.add(given[0])
    assert tried == {"A", "B"}
    assert lost(led) == []
    assert led.view.note == "1 tasks wait for files or results of nodes that were lost or do not answer."
    assert led.view.stages[0].failed_attempts == 0
    assert any(": map 0." in line for line in led.seen("H"))


def test_a_node_that_comes_tries_it_too(led: Led) -> None:
    led.lost("H")
    lost(led)
    assert lost(led) == []
    tried = {chr(led.given[MAP, 0][0][0]) for given in [led.seen("C")] if given}
    while led.given[MAP, 0][0] and (given := lost(led)):
        tried.add(given[0][0])
    assert "C" in tried


@pytest.mark.parametrize("away", ["lost", "doubt"])
def test_however_often_it_is_away_the_job_does_not_fail(led: Led, away: str) -> None:
    for _ in range(5):
        getattr(led, away)("H")
        while led.given[MAP, 0][0] != HOME and lost(led):
            pass
        led.seen("H")
    assert led.view.error == ""


def test_a_copy_that_was_not_finished_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = Source(digest=DIGEST, start=0, end=9, holders=(HOME, node("A")), path="/input", mtime_ns=1)
    monkeypatch.setattr("tests.tasks.test_inputs.FILE", copied)
    monkeypatch.setattr(dialogue, "ShapeDirector", FileDirector)
    led = Led(Shape(1), options=JobOptions(attempts_max=1), on="HAB")
    led.lost("H")
    while led.given[MAP, 0][0] and lost(led):
        pass
    assert led.view.error == ""
    assert "wait for files" in led.view.note


def test_a_file_that_a_living_node_does_not_give_is_counted(led: Led) -> None:
    lost(led)
    assert lost(led)[-1] == "failed"
    assert "could not read its input" in led.view.error


def test_a_view_tells_on_whose_files_the_job_depends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(FileDirector):
        home, input_bytes = HOME, 2_500_000_000

        def input_files(self) -> list[str]:
            return ["/input"]

        def inputs(self) -> list[Source]:
            return [FILE]

        def spread(self, holders: object) -> None:
            raise AssertionError("large inputs are not copied")

    monkeypatch.setattr(dialogue, "ShapeDirector", Large)
    led = Led(Shape(2, 1), on="H")
    assert led.view.note == ""
    led.seen("A")
    told = "Its inputs (2.5 GB) are only on h: without that machine the job waits for it."
    assert led.view.note == told
    for task in (0, 1):
        led.done(chr(led.given[MAP, task][0][0]), task, blobs="m")
    assert led.view.note == ""
