"""What `p2premap why` says, from what the leader knows. `A` leads; `B` and `C` are other nodes."""

from __future__ import annotations

from p2premap.sim.workloads import Shape
from p2premap.tasks import events
from p2premap.tasks.job import JobOptions, Outcome
from tests.tasks.dialogue import Led


def why(led: Led, task: int = -1, stage: int = -1) -> str:
    """One sentence."""
    return led.core.why(led.now, stage=stage, task=task)


# --- jobs ---------------------------------------------------------------------------------------------------------


def test_a_job_without_a_node() -> None:
    led = Led(Shape(3, 1))
    assert why(led) == "0 of 3 tasks of stage map are done; 3 wait: no node offers a worker slot."
    led.seen("B", slots=0)
    assert why(led) == "0 of 3 tasks of stage map are done; 3 wait: b offers no slot."


def test_a_job_whose_nodes_are_full_dead_silent_or_busy() -> None:
    led = Led(Shape(20, 1))
    for letter in "ABCD":
        led.seen(letter)
    led.doubt("B")
    led.lost("C")
    task = next(task for (_, task), (holder, _) in led.given.items() if holder[0] == ord("D"))
    led.busy("D", task, reason="other jobs are waiting for their share")
    text = why(led)
    assert text.startswith("0 of 20 tasks of stage map are done; ")
    assert "2 are out at a, b;" in text
    assert "a is at work; b does not answer; c is dead or has left; d says: other jobs are waiting for their" in text


def test_a_job_that_is_cancelled_waits_for_those_that_still_run_it() -> None:
    led = Led(Shape(2, 1), on="AB")
    led.cancel()
    assert why(led) == "Waits for these nodes to confirm that nothing of it runs: a, b."


def test_a_job_without_a_quorum_says_so() -> None:
    led = Led(Shape(2, 1), on="A")
    led.hear(events.ReplicasKnown(copies=1, note="2 of 3 replicas are needed; no answer from b, c."))
    assert why(led).endswith(" 2 of 3 replicas are needed; no answer from b, c.")


def test_a_job_that_is_over_has_nothing_to_explain() -> None:
    led = Led(Shape(1), on="A")
    led.done("A", 0)
    assert why(led) == ""


# --- tasks --------------------------------------------------------------------------------------------------------


def test_a_task_that_runs_waits_is_done_or_is_not_there() -> None:
    led = Led(Shape(8, 1), on="A")
    led.now = 2.5
    assert why(led, 0) == "Task 0.0 (map) is at a as attempt 0 for 2.5 s."
    assert why(led, 7) == "Task 0.7 (map) waits to be handed out: a is at work."
    assert why(led, 8) == "Stage 0 (map) has no task 8; it has 8."
    assert why(led, 0, stage=1) == "Stage 1 is not planned yet: 0 of 8 tasks of map are done."
    led.done("A", 0, blobs="m")
    assert why(led, 0) == "Task 0.0 (map) is done, on a, by attempt 0."


def test_a_task_that_failed_says_how_where_and_what_is_left() -> None:
    led = Led(Shape(2, 1), on="AB", options=JobOptions(attempts_max=3))
    holder = chr(led.given[next(iter(led.given))][0][0])
    (_, task), _ = next(iter(led.given.items()))
    led.failed(holder, task, Outcome.CRASHED, error="it died of SIGSEGV.")
    text = why(led, task)
    assert "after one that crashed" in text or "crashed on" in text, text
    other = "B" if holder == "A" else "A"
    led.doubt(other)
    led.lost(other)
    text = why(led, task)
    assert text, "whatever it does now, there is a sentence"


def test_a_task_that_is_to_be_tried_again_tells_of_its_failure() -> None:
    led = Led(Shape(1, 1), on="A")
    led.failed("A", 0, Outcome.REFUSED, error="the disk is full")
    assert "refuses: the disk is full" in why(led, 0)
    led = Led(Shape(1, 1), on="AB", options=JobOptions(attempts_max=3))
    holder = chr(led.given[next(iter(led.given))][0][0])
    for letter in "AB":
        if letter != holder:
            led.lost(letter)
    led.failed(holder, 0, Outcome.CRASHED, error="it died of SIGSEGV.")
    led.doubt(holder)
    text = why(led, 0)
    assert text.startswith(f"Task 0.0 (map) is to be tried again: attempt 0 crashed on {holder.lower()}") or (
        "does not answer" in text
    )


def test_a_task_whose_node_does_not_answer() -> None:
    led = Led(Shape(1, 1), on="B")
    led.doubt("B")
    assert why(led, 0) == "Task 0.0 (map) is at b as attempt 0 for 0.0 s; that node does not answer now."


def test_a_task_that_was_left_out_keeps_its_reason() -> None:
    led = Led(Shape(2, 1), on="A", options=JobOptions(skip_failed=True))
    led.failed("A", 0, Outcome.RAISED, error="ValueError: bad")
    assert why(led, 0).startswith("Task 0.0 (map) failed for good and was left out: Task 0 of stage map raised")
