"""Stragglers: near the end of a stage a task runs a second time elsewhere; the first commit wins."""

from __future__ import annotations

from p2premap.sim.workloads import Shape
from p2premap.tasks.job import AttemptEnd, JobOptions, Outcome, Phase
from p2premap.tasks.roster import DOUBT_S
from tests.tasks.dialogue import Led, blob, node
from tests.tasks.working import MAP

ONE_COPY = JobOptions(copies=1)


def _slow(tasks: int = 4, on: str = "AB") -> Led:
    """All tasks but the last are done; attempts take 10 s, and the last has been out for 50 s at A."""
    led = Led(Shape(tasks), options=ONE_COPY)
    led.seen("A")
    for task in range(tasks - 1):
        led.now += 10.0
        led.done("A", task, blobs="m", free=1)
    for letter in on[1:]:
        led.seen(letter)
    led.tick(0.1)
    return led


def _wait(led: Led, seconds: float, on: str = "AB") -> list[str]:
    """Time passes, tick by tick; what is said meanwhile."""
    until, lines = led.now + seconds, []
    while led.core.deadline() <= until:
        lines += [line for line in led.tick() if "recount" not in line]
        for letter in on:
            led.ended(letter, [], serial=0, free=0 if letter == "A" else 2)
    led.now = until
    return lines


def _result(attempt: int, task: int = 3) -> AttemptEnd:
    return AttemptEnd(task=task, attempt=attempt, outcome=Outcome.DONE, blobs=(blob("m3"),), seconds=10.0)


def test_a_straggler_runs_a_second_time_elsewhere() -> None:
    led = _slow()
    assert _wait(led, 35.0) == []
    assert _wait(led, 10.0) == ["B: map 3.1"]
    assert led.view.backups == 1


def test_when_the_backup_wins_the_straggler_is_stopped() -> None:
    led = _slow()
    _wait(led, 45.0)
    assert led.ended("B", [_result(1)])[0] == "A: stop 3"
    assert led.view.phase is Phase.DONE


def test_when_the_straggler_wins_the_backup_is_stopped() -> None:
    led = _slow()
    _wait(led, 45.0)
    assert led.ended("A", [_result(0)])[0] == "B: stop 3"
    assert led.view.phase is Phase.DONE


def test_a_backup_that_fails_leaves_the_first_attempt_alone() -> None:
    led = _slow()
    _wait(led, 45.0)
    led.ended("B", [AttemptEnd(task=3, attempt=1, outcome=Outcome.CRASHED, error="signal 9")], free=0)
    assert led.view.stages[0].running == 1
    led.ended("A", [_result(0)])
    assert led.view.phase is Phase.DONE


def test_a_straggler_that_is_lost_leaves_the_backup_alone() -> None:
    led = _slow()
    _wait(led, 45.0)
    assert led.lost("A") == []
    assert led.view.stages[0].running == 1
    # three others were at the lost node alone
    assert led.ended("B", [_result(1)], free=1)[0].startswith("B: map")


def test_a_lost_backup_costs_nothing() -> None:
    led = _slow()
    _wait(led, 45.0)
    assert led.lost("B") == []
    led.ended("A", [_result(0)])
    assert led.view.phase is Phase.DONE


def test_there_is_no_backup_on_the_same_node() -> None:
    led = _slow(on="A")
    assert _wait(led, 100.0) == []


def test_there_is_no_backup_while_much_is_left() -> None:
    led = Led(Shape(4), on="ABC", options=ONE_COPY)
    led.now = 10.0
    led.done("A", 0, blobs="m", free=1)
    assert _wait(led, 300.0) == []


def test_there_are_few_backups_at_once() -> None:
    nodes = "ABCDEFGHIJKL"
    led = Led(Shape(24), on=nodes, options=ONE_COPY)
    for task in range(18):
        letter = chr(led.given[MAP, task][0][0])
        led.now += 0.01
        led.done(letter, task, blobs="m", free=1)
    assert led.view.stages[0].running == 6
    _wait(led, 60.0, nodes)
    assert led.view.backups == 4


def test_what_a_node_in_doubt_runs_goes_elsewhere_at_once() -> None:
    led = Led(Shape(2), on="AB", options=ONE_COPY)
    assert led.doubt("B") == []  # A is busy
    assert led.done("A", 0, blobs="m") == ["A: map 1.1"]
    assert led.view.backups == 1
    assert led.view.stages[0].lost_attempts == led.view.stages[0].failed_attempts == 0
    # the one in doubt was first: the other may stop
    assert "A: stop 1" in led.ended("B", [_result(0, task=1)])


def test_what_waits_goes_before_backups_for_a_node_in_doubt() -> None:
    led = Led(Shape(3), on="AB", options=ONE_COPY)
    assert led.doubt("B") == []
    assert led.done("A", 0, blobs="m") == ["A: map 2"]
    assert led.done("A", 2, blobs="m") == ["A: map 1.1"]


def _in_doubt_with_an_input() -> Led:
    """A, which has an idle slot, may run the reduce tasks as soon as the map result that only B has can be read."""
    led = Led(Shape(2, 2), on="AB", options=ONE_COPY)
    led.done("A", 0, blobs="m")
    led.done("B", 1, blobs="m")
    led.doubt("B")
    task = next(t for t in (0, 1) if led.given[led.reduce, t][0] == node("A"))
    assert led.failed("A", task, Outcome.INPUT_LOST, stage=led.reduce, missing=[blob("m1").digest]) == []
    return led


def test_what_only_a_node_in_doubt_holds_is_made_again_when_it_has_been_so_for_long() -> None:
    led = _in_doubt_with_an_input()
    assert led.tick(DOUBT_S / 2) == []
    assert led.tick(DOUBT_S / 2) == ["A: map 1.1"]
    assert "A: reduce" in led.done("A", 1, blobs="m")[0]
    assert led.view.stages[0].failed_attempts == 0


def test_what_a_node_in_doubt_holds_is_read_there_when_it_is_back_in_time() -> None:
    led = _in_doubt_with_an_input()
    led.tick(DOUBT_S / 2)
    assert "reduce" in led.seen("B")[0]
    assert led.tick(DOUBT_S) == []
    assert led.view.stages[0].done == 2


def test_what_was_made_again_counts_once_when_the_node_is_back() -> None:
    led = _in_doubt_with_an_input()
    led.tick(DOUBT_S)
    led.seen("B")
    assert led.view.stages[0].done == 2
    assert "A: reduce" in led.done("A", 1, blobs="m")[0]
    assert led.view.stages[0].done == 2
