"""Stages that grow: payloads are facts, a number means one task at every leader, and who waits is told."""

from __future__ import annotations

from collections.abc import Sequence

import cbor2
import msgspec
import pytest

from p2premap.config import TasksConfig
from p2premap.errors import JobError
from p2premap.ids import JobId, NodeId
from p2premap.sim.workloads import Shape
from p2premap.tasks import events, messages
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.growth import PAYLOAD_BYTES_MAX
from p2premap.tasks.job import AttemptEnd, JobOptions, Outcome, Part, Phase, Source, StageId
from tests.tasks.dialogue import JOB, Led, blob
from tests.tasks.working import MAP, A, B


class Growing:
    """One open stage; a payload is the fields of an `Extension`."""

    runtime = "none"
    planner = ""
    streams = True

    def __init__(self, *, job: JobId = JOB, home: NodeId = A, plan: bytes = b"") -> None:
        self.pinned: list[Pinned] = []

    def first(self) -> StagePlan:
        return StagePlan(name="calls", function="call", tasks=0, open=True)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        self.pinned = list(results)
        return None

    def extend(self, payload: bytes) -> Extension:
        if payload == b"nonsense":
            raise JobError("That is nonsense.")
        tasks, first, closed, cancelled = cbor2.loads(payload)
        return Extension(tasks=tasks, first=first, closed=closed, cancelled=tuple(cancelled))

    def task(self, stage: StageId, task: int) -> TaskInput:
        return TaskInput(params=b"%d" % task)

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        return ()


def _led(on: str = "A", *, quorum: bool = True, options: JobOptions | None = None) -> Led:
    led = Led(Shape(1), director=Growing(), quorum=quorum, options=options)
    for letter in on:
        led.seen(letter, slots=2)
    return led


def _heir(led: Led, on: str, *, known: int | None = None, quorum: bool = True) -> Led:
    history = (*led.history, *led.batches[:known])
    return Led(
        Shape(1),
        director=Growing(),
        history=history,
        decided=led.replica.decided,
        leader="B",
        term=1,
        quorum=quorum,
        on=on,
    )


def _extend(
    led: Led,
    tasks: int = 0,
    *,
    first: int | None = 0,
    closed: bool = False,
    cancelled: Sequence[int] = (),
    request: int = 0,
) -> list[str]:
    payload = cbor2.dumps((tasks, first, closed, list(cancelled)))
    return led.hear(events.Extend(payload=payload, request=request))


def _write(led: Led) -> None:
    """Whatever was put off is written."""
    led.tick(0.01)


def _told(led: Led) -> list[tuple[int, Outcome]]:
    return [(end.task, end.outcome) for told in led.asked_for(events.TasksEnded) for end in told.ends]


def test_a_stage_without_tasks_waits_for_some() -> None:
    led = _led()
    assert not led.core.over
    assert _extend(led, 2) == ["A: call 0", "A: call 1"]
    led.done("A", 0, 1)
    assert _told(led) == [(0, Outcome.DONE), (1, Outcome.DONE)]
    assert not led.core.over
    _extend(led, first=2, closed=True)
    _write(led)
    assert led.view.phase is Phase.DONE


def test_an_extension_is_answered_when_it_is_protected() -> None:
    led = _led(quorum=False)
    _extend(led, 3, request=7)
    assert led.asked_for(events.Extended) == []
    led.protect(1)
    (answer,) = led.asked_for(events.Extended)
    assert (answer.request, answer.stage, answer.first, answer.tasks, answer.error) == (7, MAP, 0, 3, "")


def test_tasks_that_the_client_numbers_are_handed_out_at_once() -> None:
    assert _extend(_led(quorum=False), 1) == ["A: call 0"]


def test_tasks_that_the_leader_numbers_wait_for_their_protection() -> None:
    led = _led(quorum=False)
    assert _extend(led, 1, first=None) == []
    assert led.protect(1) == ["A: call 0"]


def test_nor_does_a_successor_hand_them_out_before_what_it_began_with_is_protected() -> None:
    led = _led(quorum=False)
    _extend(led, 1, first=None)
    heir = _heir(led, "B", quorum=False)
    heir.now = 0.01
    assert heir.holding("B") == []
    assert heir.protect(1) == ["B: call 0.1000"]


def test_what_is_handed_in_again_adds_nothing() -> None:
    led = _led("AB")
    assert _extend(led, 2) == ["A: call 0", "B: call 1"]
    assert _extend(led, 2) == []
    assert led.view.stages[0].tasks == 2


def test_numbers_may_come_in_any_order() -> None:
    led = _led()
    assert _extend(led, 1, first=5) == ["A: call 5"]
    assert led.view.stages[0].tasks == 1
    assert _extend(led, 1, first=0) == ["A: call 0"]
    led.done("A", 5, 0)
    _extend(led, closed=True)
    _write(led)
    assert led.view.phase is Phase.DONE  # the others were never handed in


def test_results_of_tasks_that_are_not_there_change_nothing() -> None:
    led = _led("A")
    _extend(led, 1, first=5)
    led.ended("A", [AttemptEnd(task=t, attempt=0, outcome=Outcome.DONE) for t in (2, 99)])
    assert _told(led) == []


@pytest.mark.parametrize("payload", [b"nonsense", bytes(PAYLOAD_BYTES_MAX + 1)])
def test_nonsense_is_refused_with_a_sentence(payload: bytes) -> None:
    led = _led()
    led.hear(events.Extend(payload=payload, request=3))
    (answer,) = led.asked_for(events.Extended)
    assert answer.request == 3
    assert answer.error.endswith(".")
    assert led.batches == []


def test_a_closed_stage_takes_no_more() -> None:
    led = _led(quorum=False)
    _extend(led, 1, closed=True)
    _extend(led, 1, first=1, request=2)
    assert "no more tasks" in led.asked_for(events.Extended)[-1].error


def test_a_failure_is_its_tasks_answer_and_the_job_goes_on() -> None:
    led = _led()
    _extend(led, 2)
    led.ended("A", [led.end(0, outcome=Outcome.RAISED, error="boom")])
    assert _told(led) == [(0, Outcome.RAISED)]
    led.done("A", 1)
    _extend(led, first=2, closed=True)
    _write(led)
    assert led.view.phase is Phase.DONE
    assert [pinned.failed for pinned in _pinned(led)] == [True, False]


def _pinned(led: Led) -> list[Pinned]:
    director = led.director
    assert isinstance(director, Growing)
    return director.pinned


def test_what_nobody_wants_any_more_is_stopped() -> None:
    led = _led("AB")
    _extend(led, 3)
    assert _extend(led, cancelled=[0, 2]) == ["A: stop 0", "A: stop 2"]
    assert _told(led) == [(0, Outcome.STOPPED), (2, Outcome.STOPPED)]
    assert led.view.retries == 0, "none of them had failed before"


def test_who_comes_anew_is_told_again() -> None:
    led = _led("AB")
    _extend(led, 4)
    led.done("A", 0)
    led.ended("B", [led.end(1, outcome=Outcome.RAISED, error="boom")])
    _extend(led, cancelled=[3])
    led.asked.clear()
    led.hear(events.Retell(first=0))
    assert _told(led) == [(0, Outcome.DONE), (1, Outcome.RAISED), (3, Outcome.STOPPED)]
    led.asked.clear()
    led.hear(events.Retell(first=2))
    assert _told(led) == [(3, Outcome.STOPPED)]


def test_a_successor_knows_what_was_handed_in_and_answered() -> None:
    led = _led("AB")
    _extend(led, 4)
    led.done("A", 0)
    _write(led)
    led.ended("B", [led.end(1, outcome=Outcome.RAISED, error="boom")])
    _write(led)
    _extend(led, cancelled=[3])
    _write(led)
    heir = _heir(led, "A")
    heir.now = 1.0
    heir.tick(0.01)
    orders = [m for _, m in heir.said if isinstance(m, messages.Assign)]
    assert [[a.task for a in m.attempts] for m in orders] == [[2]]
    heir.hear(events.Retell(first=0))
    assert _told(heir) == [(0, Outcome.DONE), (1, Outcome.RAISED), (3, Outcome.STOPPED)]


def test_a_successor_that_lacks_an_extension_gives_its_numbers_to_nobody_else() -> None:
    """The client hands it in again; what a node still runs of it is its own."""
    led = _led("A", quorum=False)
    _extend(led, 1)
    heir = _heir(led, "A", known=0)
    heir.now = 0.01
    assert heir.holding("A", (0, 0)) == ["A: stop 0"]
    assert _extend(heir, 1) == ["A: call 0.1000"]


# --- skip_failed --------------------------------------------------------------------------------------------------


def test_a_job_may_go_on_without_tasks_that_failed_for_good() -> None:
    options = JobOptions(skip_failed=True, attempts_max=1)
    led = Led(Shape(3, 1), on="AB", options=options)
    led.done("A", 0, blobs="m")
    led.failed("B", 1, Outcome.RAISED, error="bad line")
    led.done("A", 2, blobs="m")
    led.done("B", 0, stage=led.reduce, blobs="r")
    led.kept()
    assert led.view.phase is Phase.DONE
    ((stage, task, error),) = led.view.skipped
    assert (stage, task) == ("map", 1)
    assert "bad line" in error
    assert [s.skipped for s in led.view.stages] == [1, 0]


def test_a_successor_skips_the_same_tasks() -> None:
    led = Led(Shape(3, 1), on="AB", options=JobOptions(skip_failed=True, attempts_max=1))
    led.failed("B", 1, Outcome.RAISED, error="bad line")
    heir = led.heir("B", on="AB")
    assert heir.view.stages[0].skipped == 1
    assert heir.view.skipped[0][:2] == ("map", 1)


def test_without_the_option_a_failed_task_fails_the_job() -> None:
    led = Led(Shape(3), on="A", options=JobOptions(attempts_max=1))
    assert "failed" in led.failed("A", 0, Outcome.RAISED)
    assert B not in {to for to, _ in led.said}


def test_facts_of_many_steps_are_written_down_together() -> None:
    led = Led(Shape(1), director=Growing(), config=TasksConfig(facts_linger_s=0.02), on="A")
    written = len(led.batches)
    for number in range(4):
        _extend(led, 1, first=number)
        led.done("A", number)
    assert len(_told(led)) == 4, "who waits is told at once"
    assert len(led.batches) == written + 1, "the first fact after a pause is written at once"
    assert 0.0 < led.core.deadline() <= 0.02
    led.tick(0.02)
    assert len(led.batches) == written + 2


def test_much_is_written_down_at_once_and_little_put_off() -> None:
    led = Led(Shape(1), director=Growing(), config=TasksConfig(facts_linger_s=1.0))
    large = cbor2.dumps((1, 0, False, [0] * (1 << 20)))
    _extend(led, 1, first=1)  # the first is written at once
    _extend(led, 1, first=2)
    assert len(led.batches) == 1
    led.hear(events.Extend(payload=large))
    assert len(led.batches) == 2


class Splitting:
    """One open stage of two tasks; a result of the form b"+2" adds two more tasks."""

    runtime = "none"
    planner = ""
    streams = False

    def __init__(self) -> None:
        self.tasks = 2
        self.unfolded: set[int] = set()
        self.asked: list[tuple[int, bool]] = []
        self.closed = False

    def first(self) -> StagePlan:
        return StagePlan(name="units", function="unit", tasks=2, open=True, grows=True)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        return None

    def unfold(self, task: int, result: Pinned) -> bytes | None:
        self.asked.append((task, result.failed))
        if task in self.unfolded:
            return None
        if result.value == b"nonsense":
            raise JobError("That is nonsense.")
        return cbor2.dumps((task, int(result.value or b"0")))

    def extend(self, payload: bytes) -> Extension:
        task, more = cbor2.loads(payload)
        if task in self.unfolded:
            more = 0
        self.unfolded.add(task)
        self.tasks += more
        self.closed = len(self.unfolded) == self.tasks
        return Extension(tasks=more, closed=self.closed)

    def task(self, stage: StageId, task: int) -> TaskInput:
        return TaskInput(params=b"%d" % task)

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        return ()


def _splitting(*, quorum: bool = True, options: JobOptions | None = None) -> Led:
    led = Led(Shape(1), director=Splitting(), quorum=quorum, options=options)
    led.seen("A", slots=2)
    return led


def _end(led: Led, task: int, *, value: bytes = b"0", outcome: Outcome = Outcome.DONE, on: str = "A") -> list[str]:
    end = msgspec.structs.replace(led.end(task, outcome=outcome), value=value)
    return led.ended(on, [end])


def test_results_add_tasks_to_their_own_stage_until_no_more_come() -> None:
    led = _splitting()
    assert "A: unit 2" in _end(led, 0, value=b"+2")
    _end(led, 1)
    _end(led, 2)
    assert not led.core.over
    _end(led, 3, value=b"0")
    _write(led)
    assert led.view.phase is Phase.DONE
    assert led.view.stages[0].tasks == 4


def test_what_a_result_adds_is_handed_out_when_it_is_protected() -> None:
    led = _splitting(quorum=False)
    assert _end(led, 0, value=b"+1") == []
    assert "A: unit 2" in led.protect(len(led.batches))


@pytest.mark.parametrize("known", range(5))
def test_a_successor_adds_what_its_predecessor_did_not_write_down(known: int) -> None:
    led = _splitting()
    _end(led, 0, value=b"+1")
    _end(led, 1, value=b"+1")
    batches = list(led.batches)
    heir = Led(Shape(1), director=Splitting(), history=batches[:known], leader="B", term=1, on="B")
    heir.now = 0.01
    heir.holding("B")
    seen: set[int] = set()
    for _ in range(10):
        for _, task in list(heir.given):
            if task not in seen and not heir.core.over:
                seen.add(task)
                _end(heir, task, on="B", value=b"+1" if task < 2 else b"0")
    _write(heir)
    assert heir.view.phase is Phase.DONE
    assert heir.view.stages[0].tasks == 4


def test_a_task_that_failed_for_good_adds_nothing() -> None:
    led = _splitting(options=JobOptions(skip_failed=True))
    _end(led, 0, outcome=Outcome.RAISED)
    _end(led, 1)
    _write(led)
    assert led.view.phase is Phase.DONE
    assert isinstance(led.director, Splitting)
    assert led.director.asked == [(0, True), (1, False)]


def test_a_result_that_makes_no_sense_fails_the_job() -> None:
    led = _splitting()
    _end(led, 0, value=b"nonsense")
    assert led.view.phase is Phase.FAILED
    assert led.view.error == "That is nonsense."


# --- tasks that read what others of the stage have made -----------------------------------------------------------


class Referring(Growing):
    """Odd tasks read the blob that the task before them has made."""

    def task(self, stage: StageId, task: int) -> TaskInput:
        if task % 2 == 0:
            return super().task(stage, task)
        made = blob(f"m{task - 1}")
        source = Source(digest=made.digest, start=0, end=made.size, holders=(A,), blob=made.digest)
        return TaskInput(params=b"", sources=(source,))


def _referring(on: str) -> Led:
    led = Led(Shape(1), director=Referring(), options=JobOptions(copies=1))
    for letter in on:
        led.seen(letter, slots=1)
    return led


@pytest.mark.parametrize("first", [0, 2], ids=["the first blob", "one that was made later"])
def test_a_blob_of_a_stage_that_still_grows_is_made_again_when_nobody_can_read_it(first: int) -> None:
    led = _referring("A")
    _extend(led, 2)
    led.done("A", 0, blobs="m")
    for lost in (0, 2)[: 1 + first // 2]:
        if lost:
            _extend(led, 2, first=2)
            led.done("A", 2, blobs="m")
        assert led.given[MAP, lost + 1] == (A, 0)
        assert led.failed("A", lost + 1, Outcome.INPUT_LOST, missing=[blob(f"m{lost}").digest]) == [f"A: call {lost}.1"]
        assert led.done("A", lost, blobs="m") == [f"A: call {lost + 1}.1"], "it waited for that"
        assert [source.holders for source in led.sources("A")] == [(A,)]
        led.done("A", lost + 1)
    assert led.view.stages[0].done == 2 + first


def test_what_reads_a_blob_of_a_dead_node_waits_until_it_is_made_again() -> None:
    led = _referring("AB")
    assert _extend(led, 2) == ["A: call 0", "B: call 1"]
    led.busy("B", 1)
    led.done("A", 0, blobs="m")
    assert led.given[MAP, 1][0] == A
    led.lost("A")
    led.tick(1.0)
    assert led.given[MAP, 0] == (B, 1)
    assert led.given[MAP, 1][0] == A, "there is nothing to read"
    assert led.done("B", 0, blobs="m") == ["B: call 1.2"]
    assert [source.holders for source in led.sources("B")] == [(B,)]
