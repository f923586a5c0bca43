"""Second holders of results: made in the background, and made anew when one of two is lost."""

from __future__ import annotations

from p2premap.ids import NodeId
from p2premap.sim.workloads import Shape
from p2premap.tasks import events, messages
from p2premap.tasks.job import JobOptions, Phase
from p2premap.tasks.roster import DOUBT_S
from tests.tasks.dialogue import BALLOT, JOB, Led, blob
from tests.tasks.working import A, B, C


def orders(led: Led) -> list[tuple[NodeId, messages.Keep]]:
    """Who was told to keep what, so far."""
    return [(to, message) for to, message in led.said if isinstance(message, messages.Keep)]


def keep(led: Led, order: tuple[NodeId, messages.Keep]) -> None:
    """The node has done it."""
    kept = messages.Kept(job=JOB, ballot=BALLOT, number=order[1].number)
    led.hear(events.FromWorker(node=order[0], message=kept))


def test_another_node_is_to_keep_a_result_with_blobs() -> None:
    led = Led(Shape(4), on="AB")
    led.done("A", 0, blobs="m")
    ((keeper, message),) = orders(led)
    assert keeper == B
    assert [(s.blob, s.holders) for s in message.sources] == [(blob("m0").digest, (A,))]


def test_with_two_holders_a_lost_one_costs_no_repetition() -> None:
    led = Led(Shape(4), on="AB")
    led.done("A", 0, blobs="m")
    keep(led, orders(led)[0])
    led.lost("A")
    assert led.view.stages[0].done == 1


def test_a_third_node_takes_the_place_of_a_holder_that_was_lost() -> None:
    led = Led(Shape(4), on="ABC")
    led.done("A", 0, blobs="m")
    first = orders(led)[0]
    keep(led, first)
    led.lost("A")
    again = orders(led)[1]
    assert {first[0], again[0]} == {B, C}
    assert [s.holders for s in again[1].sources] == [(first[0],)], "it is read from the one that lives"
    keep(led, again)
    led.lost("B")
    assert led.view.stages[0].done == 1


def test_what_a_dead_node_was_to_keep_another_keeps() -> None:
    led = Led(Shape(4), on="ABC")
    led.done("A", 0, blobs="m")
    ((first, _),) = orders(led)
    led.lost("B" if first == B else "C")
    assert {node for node, _ in orders(led)} == {B, C}


def test_what_a_node_in_doubt_was_to_keep_another_keeps_at_once() -> None:
    led = Led(Shape(4), on="ABC")
    led.done("A", 0, blobs="m")
    ((first, _),) = orders(led)
    led.doubt("B" if first == B else "C")
    assert {node for node, _ in orders(led)} == {B, C}
    keep(led, orders(led)[1])
    assert led.view.unprotected == 0


def test_of_a_job_that_wants_one_copy_nothing_is_kept_twice() -> None:
    led = Led(Shape(4), options=JobOptions(copies=1), on="ABC")
    led.done("A", 0, blobs="m")
    led.lost("B")
    assert orders(led) == []


def test_until_somebody_keeps_it_too_a_result_is_not_protected() -> None:
    led = Led(Shape(4), on="AB")
    led.done("A", 0, blobs="m")
    led.now += 2.0
    assert (led.view.unprotected, led.view.unprotected_s) == (1, 2.0)
    keep(led, orders(led)[0])
    assert (led.view.unprotected, led.view.unprotected_s) == (0, 0.0)


def test_an_order_that_was_lost_with_a_link_is_given_again() -> None:
    led = Led(Shape(4), on="AB")
    led.done("A", 0, blobs="m")
    led.unlinked("B")
    first, again = orders(led)
    keep(led, first)
    assert led.view.unprotected == 1
    keep(led, again)
    assert led.view.unprotected == 0


def test_a_job_is_not_done_while_only_a_node_in_doubt_has_a_part_of_its_output() -> None:
    led = Led(Shape(2), on="AB")
    led.done("B", 1, blobs="m")
    led.doubt("B")
    led.done("A", 0, blobs="m")
    assert not led.core.over, "it may be dead, and the part lost with it"
    led.seen("B")
    assert led.view.phase is Phase.DONE


def test_and_what_it_has_is_made_again_when_it_stays_away() -> None:
    led = Led(Shape(2), on="AB")
    led.done("B", 1, blobs="m")
    led.doubt("B")
    led.done("A", 0, blobs="m")
    while (NodeId(A), 1) not in {(to, task) for (_, task), (to, _) in led.given.items()}:
        led.tick()
    assert led.now <= 2 * DOUBT_S
    led.done("A", 1, blobs="m")
    assert led.view.phase is Phase.DONE


def test_the_parts_of_a_job_are_those_of_the_results_that_are_left() -> None:
    """Two attempts of a task that is not steady have both ended; the node that has the chosen one dies."""
    led = Led(Shape(2), on="ABC")
    led.doubt("B")
    led.tick(0.01)  # a backup of what it runs
    led.done("B", 1, blobs="b")
    led.seen("B")
    led.ended("C", [led.end(1, blobs=(blob("c1"),))])
    led.lost("B")
    led.done("A", 0, blobs="a")
    assert led.view.phase is Phase.DONE
    assert [part.source.digest for part in led.view.parts] == [blob("a0").digest, blob("c1").digest]
