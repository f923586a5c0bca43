"""Second holders of results: made in the background, and made anew when one of two is lost."""

from __future__ import annotations

import pytest

from p2premap.ids import NodeId
from p2premap.sim.workloads import Shape
from p2premap.tasks import events, messages
from p2premap.tasks.copies import PATIENCE_S
from p2premap.tasks.job import JobOptions, Phase
from p2premap.tasks.roster import DOUBT_S
from tests.tasks.dialogue import BALLOT, JOB, Led, blob
from tests.tasks.working import MAP, A, B, C


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
    led.kept()
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
    led.kept()
    assert led.view.phase is Phase.DONE
    assert [part.source.digest for part in led.view.parts] == [blob("a0").digest, blob("c1").digest]


def fail(led: Led, order: tuple[NodeId, messages.Keep]) -> None:
    """The node could not get it."""
    kept = messages.Kept(job=JOB, ballot=BALLOT, number=order[1].number, error="no holder has it")
    led.hear(events.FromWorker(node=order[0], message=kept))


def letter(node: NodeId) -> str:
    """Its first one."""
    return chr(node[0])


def test_what_one_node_cannot_get_another_is_to_keep_and_until_one_does_it_is_not_protected() -> None:
    led = Led(Shape(4), on="ABC")
    led.done("A", 0, blobs="m")
    fail(led, orders(led)[0])
    fail(led, orders(led)[1])
    assert {node for node, _ in orders(led)} == {B, C}
    assert (len(orders(led)), led.view.unprotected) == (2, 1)
    led.seen("C")
    keep(led, orders(led)[2])
    assert led.view.unprotected == 0


def test_a_second_holder_that_no_quorum_knows_of_protects_nothing() -> None:
    led = Led(Shape(4), on="AB", quorum=False)
    led.done("A", 0, blobs="m")
    led.protect(1)
    keep(led, orders(led)[0])
    assert led.view.unprotected == 1
    led.protect(2)
    assert led.view.unprotected == 0


def test_what_a_node_has_kept_that_is_in_doubt_for_long_a_third_one_keeps() -> None:
    led = Led(Shape(4), on="ABC")
    led.done("A", 0, blobs="m")
    ((first, _),) = orders(led)
    keep(led, orders(led)[0])
    led.doubt(letter(first))
    assert len(orders(led)) == 1
    led.tick(DOUBT_S)
    assert {node for node, _ in orders(led)} == {B, C}


def test_what_only_a_node_has_that_was_away_another_is_to_keep_once_it_is_back() -> None:
    led = Led(Shape(4), on="ABC")
    led.done("B", 0, blobs="m")
    led.lost("B")
    led.seen("B")
    assert led.view.stages[0].done == 1
    assert len(orders(led)) == 2


# --- the end of the job -------------------------------------------------------------------------------------------


def test_a_part_is_told_with_all_who_hold_it() -> None:
    led = Led(Shape(2), on="AB")
    led.done("A", 0, blobs="m")
    assert [part.source.holders for part in led.view.parts] == [(A,)]
    keep(led, orders(led)[0])
    assert [part.source.holders for part in led.view.parts] == [(A, B)]


def test_a_job_ends_when_its_output_has_two_holders() -> None:
    led = Led(Shape(1), on="AB")
    led.done("A", 0, blobs="m")
    assert not led.core.over
    assert "copied to a second node: 1" in led.view.note
    assert led.view.note == led.core.why(led.now)
    keep(led, orders(led)[0])
    assert led.view.phase is Phase.DONE
    assert [part.source.holders for part in led.view.parts] == [(A, B)]


@pytest.mark.parametrize(("on", "options"), [("A", JobOptions()), ("AB", JobOptions(copies=1))])
def test_a_job_ends_at_once_where_no_second_holder_is_to_be_had(on: str, options: JobOptions) -> None:
    led = Led(Shape(1), on=on, options=options)
    led.done("A", 0, blobs="m")
    assert led.view.phase is Phase.DONE
    assert led.view.note == "", "nobody expected another"


def test_a_job_ends_where_nobody_can_keep_its_output() -> None:
    led = Led(Shape(1), on="AB")
    led.done("A", 0, blobs="m")
    fail(led, orders(led)[0])
    assert led.view.phase is Phase.DONE
    assert "one holder only: 1, at a; no other node took a copy: fetch them while it is there." in led.view.note


def test_a_job_ends_where_a_copy_takes_for_ever() -> None:
    led = Led(Shape(1), on="AB")
    led.done("A", 0, blobs="m")
    led.now += PATIENCE_S - 0.1
    led.tick(0.01)
    assert not led.core.over
    led.tick(0.1)
    assert led.view.phase is Phase.DONE
    assert "one holder only: 1, at a;" in led.view.note
    keep(led, orders(led)[-1])
    assert "one holder only: 1, at a;" in led.view.note, "the end is what it was"


def test_a_job_does_not_end_while_a_part_is_only_on_a_node_in_doubt() -> None:
    led = Led(Shape(2), on="ABC")
    led.done("B", 0, blobs="m")
    led.doubt("B")
    led.done("A", 1, blobs="m")
    keep(led, orders(led)[-1])
    assert not led.core.over
    assert "only on nodes that do not answer now: b" in led.view.note
    led.tick(DOUBT_S)
    assert led.given[MAP, 0][0] != B, "it is made again"
    led.done("A", 0, blobs="m")
    keep(led, orders(led)[-1])
    assert led.view.phase is Phase.DONE
    assert all(B not in part.source.holders[1:] for part in led.view.parts)


def test_a_job_whose_node_in_doubt_is_back_ends_with_what_it_has() -> None:
    led = Led(Shape(2), on="ABC")
    led.done("B", 0, blobs="m")
    led.doubt("B")
    led.done("A", 1, blobs="m")
    keep(led, orders(led)[-1])
    led.seen("B")
    assert not led.core.over
    keep(led, orders(led)[-1])
    assert led.view.phase is Phase.DONE
    assert led.given[MAP, 0][1] == 0, "nothing ran again"


def test_nobody_waits_for_what_a_lost_node_was_to_give() -> None:
    led = Led(Shape(1), on="ABCD")
    led.done("B", 0, blobs="m")
    led.lost("B")
    led.done("A", 0, blobs="m")
    keep(led, orders(led)[-1])
    assert led.view.phase is Phase.DONE
