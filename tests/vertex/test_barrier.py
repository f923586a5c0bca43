"""The superstep barrier: events in, effects out; and what it does not let pass."""

from __future__ import annotations

from typing import Any

import pytest

from p2premap.vertex import barrier
from p2premap.vertex.barrier import (
    Agree,
    Barrier,
    Carried,
    Compute,
    Computed,
    Count,
    Counted,
    End,
    Globals,
    Head,
    Hello,
    Met,
    Share,
    State,
    Tell,
    Told,
    Turn,
    VertexError,
)
from p2premap.vertex.digests import digest_of
from p2premap.vertex.plan import ROWS_MAX, Settings
from p2premap.vertex.program import STOP, Aggregator, Hooks, Program, Verdict

QUIET = {"active": 1, "computed": 1, "sent": 1, "dropped": 0, "changes": 0}


class Summing(Program):
    aggregators = {"sum": "sum", "ever": Aggregator("sum", persistent=True)}  # noqa: RUF012

    def master(self, now: Globals) -> Verdict | None:
        return STOP if now.aggregates.get("sum") == 99 else None


def settings(**more: Any) -> Settings:
    return Settings(form="objects", partitions=2, **more)


def start(seat: int = 0, *, fresh: bool = False, carried: Carried | None = None, **more: Any) -> tuple[Barrier, Any]:
    made = Barrier(
        settings=settings(**more), program=Hooks(Summing()), seat=seat, superstep=0, carried=carried or Carried()
    )
    hellos = (Hello(0, fresh, ((0, 3, 5),)), Hello(0, False, ((1, 4, 6),)))
    return made, made.step(0.0, Met(hellos))


def share(partition: int, aggregates: dict[str, object] | None = None, **more: int) -> Share:
    return Share(partition, **{**QUIET, **more}, aggregates=aggregates or {})


def superstep(made: Barrier, first: Share, second: Share, now: float = 0.0) -> list[barrier.Effect]:
    """The process of partition 0 computes, and hears of the other."""
    (tell,) = made.step(now, Computed((first,)))
    assert isinstance(tell, Tell)
    other = Head(tell.head.superstep, (second,), digest=tell.head.digest)
    return made.step(now, Told((tell.head, other)))


def test_a_gang_that_meets_knows_how_large_the_graph_is_and_agrees_where_somebody_is_new() -> None:
    _, effects = start()
    assert effects == [Compute(Globals(0, 7, 11))]
    _, effects = start(fresh=True)
    assert effects == [Agree(), Compute(Globals(0, 7, 11))]


def test_the_next_superstep_is_told_what_all_did_in_order_of_partition() -> None:
    made, _ = start()
    effects = superstep(made, share(0, {"sum": 0.1, "ever": 1}), share(1, {"sum": 0.2}, active=2, sent=5))
    assert effects == [Turn(), Compute(Globals(1, 7, 11, 3, 6, {"sum": 0.1 + 0.2, "ever": 1}))]
    effects = superstep(made, share(0), share(1, {"ever": 2}))
    assert effects == [Turn(), Compute(Globals(2, 7, 11, 2, 2, {"ever": 3}))]


def test_it_is_over_when_nobody_is_active_and_nothing_was_sent() -> None:
    made, _ = start()
    rest = {"active": 0, "sent": 0}
    assert superstep(made, share(0, **rest), share(1, active=0, sent=1)) == [
        Turn(),
        Compute(Globals(1, 7, 11, 0, 1)),
    ]
    turn, end = superstep(made, share(0, **rest), share(1, **rest))
    assert (turn, made.state) == (Turn(), State.OVER)
    assert isinstance(end, End)
    assert (end.over, end.why, len(end.rows)) == (True, "All vertices have halted after 2 supersteps.", 2)
    assert end.carried.globals == Globals(2, 7, 11)


def test_the_master_hook_ends_it_and_so_does_the_number_of_supersteps() -> None:
    made, _ = start()
    *_, end = superstep(made, share(0, {"sum": 98}), share(1, {"sum": 1}))
    assert isinstance(end, End)
    assert end.over
    made, _ = start(supersteps=1)
    *_, end = superstep(made, share(0), share(1))
    assert isinstance(end, End)
    assert end.why == "It has run for 1 superstep, as was asked for."
    made, _ = start(supersteps_max=1)
    with pytest.raises(VertexError, match="not ended by itself after 1 superstep: 2 vertices are active and 2 mess"):
        superstep(made, share(0), share(1))


def test_after_a_change_everybody_counts_and_agrees_anew() -> None:
    made, _ = start()
    assert superstep(made, share(0, changes=1), share(1)) == [Turn(), Count()]
    hellos = (Hello(1, True, ((0, 4, 5),)), Hello(1, False, ((1, 4, 6),)))
    assert made.step(0.0, Counted(hellos)) == [Agree(changed=True), Compute(Globals(1, 8, 11, 2, 2))]
    made, _ = start(unknown="create")
    assert superstep(made, share(0), share(1)) == [Turn(), Count()]
    assert superstep(start(unknown="create")[0], share(0, sent=0), share(1, sent=0))[1:] == [
        Compute(Globals(1, 7, 11, 2, 0))
    ]


# --- epochs -------------------------------------------------------------------------------------------------------


def due(made: Barrier, now: float) -> bool:
    (tell,) = made.step(now, Computed((share(0),)))
    assert isinstance(tell, Tell)
    made.step(now, Told((tell.head, Head(tell.head.superstep, (share(1),), digest=tell.head.digest))))
    return tell.head.ends


def test_an_epoch_ends_by_the_clock_of_the_first_process() -> None:
    made, _ = start()
    assert [due(made, 1.0), due(made, 1.9), due(made, 2.0)] == [False, False, True]
    assert made.state is State.OVER
    assert not due(start(seat=1)[0], 1000.0)


def test_a_change_that_takes_long_is_made_seldom_and_old_jobs_have_longer_epochs() -> None:
    made = Barrier(settings=settings(), program=Hooks(Summing()), seat=0, superstep=0, carried=Carried())
    made.step(0.0, Met((Hello(0, False, ((0, 1, 0), (1, 1, 0))),), 1.0))
    assert [due_alone(made, now) for now in (18.9, 19.0)] == [False, True]
    made = Barrier(settings=settings(), program=Hooks(Summing()), seat=0, superstep=0, carried=Carried(ran_s=490.0))
    made.step(0.0, Met((Hello(0, False, ((0, 1, 0), (1, 1, 0))),)))
    assert [due_alone(made, now) for now in (9.9, 10.1)] == [False, True]


def due_alone(made: Barrier, now: float) -> bool:
    (tell,) = made.step(now, Computed((share(0), share(1))))
    assert isinstance(tell, Tell)
    made.step(now, Told((tell.head,)))
    return tell.head.ends


def test_an_epoch_ends_after_so_many_supersteps_and_goes_on_where_it_was() -> None:
    made, _ = start(checkpoint_every=2)
    assert not due(made, 100.0)
    (tell,) = made.step(100.0, Computed((share(0, {"ever": 5}, dropped=3),)))
    assert isinstance(tell, Tell)
    head = Head(1, (share(1),), digest=tell.head.digest)
    *_, end = made.step(101.0, Told((tell.head, head)))
    assert isinstance(end, End)
    assert (end.over, end.carried.ran_s, end.carried.dropped) == (False, 101.0, 3)
    after = Barrier(settings=settings(), program=Hooks(Summing()), seat=0, superstep=2, carried=end.carried)
    hellos = (Hello(2, False, ((0, 3, 5),)), Hello(2, False, ((1, 4, 6),)))
    assert after.step(500.0, Met(hellos)) == [Compute(Globals(2, 7, 11, 2, 2, {"ever": 5}))]


def test_a_report_has_room_for_the_last_supersteps() -> None:
    made, _ = start(checkpoint_every=ROWS_MAX + 5, supersteps_max=10_000)
    for _ in range(ROWS_MAX + 5):
        effects = superstep(made, share(0), share(1))
    assert isinstance(effects[-1], End)
    assert [row.superstep for row in effects[-1].rows] == list(range(5, ROWS_MAX + 5))


def test_rows_show_aggregates_that_are_numbers() -> None:
    class Mixed(Program):
        aggregators = {"a": "sum", "b": "sum", "c": "max", "d": "any"}  # noqa: RUF012

    made = Barrier(settings=settings(), program=Hooks(Mixed()), seat=0, superstep=0, carried=Carried())
    made.step(0.0, Met((Hello(0, False, ((0, 1, 0), (1, 1, 0))),)))
    given = {"a": 1, "b": 10**400, "c": "text", "d": True}
    (tell,) = made.step(0.0, Computed((share(0, given, active=0, sent=0), share(1, active=0, sent=0))))
    assert isinstance(tell, Tell)
    *_, end = made.step(0.0, Told((tell.head,)))
    assert isinstance(end, End)
    assert end.rows[0].values == (("a", 1.0), ("d", 1.0))


# --- what it does not let pass ------------------------------------------------------------------------------------


def told(**wrong: Any) -> None:
    made, _ = start()
    (tell,) = made.step(0.0, Computed((share(0),)))
    assert isinstance(tell, Tell)
    right = {"superstep": 0, "shares": (share(1),), "digest": tell.head.digest}
    made.step(0.0, Told((tell.head, Head(**{**right, **wrong}))))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"superstep": 1}, "Process 1 is at superstep 1, others at 0"),
        ({"shares": ()}, "Not every partition has its share in superstep 0"),
        ({"shares": (share(1), share(1))}, "Not every partition has its share"),
        ({"digest": b"other"}, "The master hook has said different things in different processes before superstep 0"),
    ],
)
def test_heads_that_do_not_fit_end_it_with_a_sentence(wrong: Any, sentence: str) -> None:
    told()
    with pytest.raises(VertexError, match=sentence):
        told(**wrong)


@pytest.mark.parametrize(
    ("hello", "sentence"),
    [
        (Hello(3, False, ((1, 0, 0),)), "Process 1 is at superstep 3, others at 0"),
        (Hello(0, False, ()), r"Partitions \[0\] have met, of 2"),
        (Hello(0, False, ((0, 1, 1),)), r"Partitions \[0, 0\] have met"),
    ],
)
def test_a_gang_that_does_not_fit_does_not_begin(hello: Hello, sentence: str) -> None:
    made = Barrier(settings=settings(), program=Hooks(Summing()), seat=0, superstep=0, carried=Carried())
    with pytest.raises(VertexError, match=sentence):
        made.step(0.0, Met((Hello(0, False, ((0, 1, 1),)), hello)))


def test_events_that_are_not_due_are_our_bugs() -> None:
    events = {"meeting": Met(()), "computing": Computed(()), "telling": Told(()), "counting": Counted(())}
    for state in State:
        for due, event in events.items():
            made, _ = start()
            made.state = state
            if state.value != due:
                with pytest.raises(AssertionError, match="is due"):
                    made.step(0.0, event)


def test_digests_depend_on_what_is_said_alone() -> None:
    assert digest_of({"a": 1, "b": [0.5, {1, 2}]}) == digest_of({"b": [0.5, {2, 1}], "a": 1})
    assert len({digest_of(said) for said in (None, {}, {"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": [1]})}) == 6
    assert digest_of(object()) == digest_of(object())
