"""Calls whose arguments other calls are to make: kept back, given what the others came to, and never anything else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2premap.errors import JobError
from p2premap.sim.workloads import Shape
from p2premap.tasks import calls, calls_results, events, messages
from p2premap.tasks.calls import Calls
from p2premap.tasks.calls_refs import ANSWER, CALL, INLINE, BlobAt, Ref
from p2premap.tasks.director import Pinned
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Outcome
from tests.tasks.dialogue import JOB, Led, blob
from tests.tasks.working import MAP, A, B

FUNCTION = calls.pack_function(b"f")


def _led(on: str = "A", *, slots: int = 2, history: Sequence[bytes] = (), term: int = 0, leader: str = "A") -> Led:
    director = Calls(job=JOB, home=A, plan=b"")
    led = Led(Shape(1), director=director, history=history, term=term, leader=leader)
    for letter in on:
        led.seen(letter, slots=slots)
    return led


def _of(*packs: int) -> bytes:
    """A call of the results of these packs' first calls."""
    refs = [Ref(CALL, pack=pack) for pack in packs]
    return calls.pack_body(0, 0, calls.pack_calls([b"arguments"]), refs)


PLAIN = calls.pack_body(0, 0, calls.pack_calls([b"arguments"]))


def _submit(led: Led, *packs: bytes, first: int = 0) -> list[str]:
    functions = [FUNCTION] if not first else []
    payload = calls.pack_extension(functions=functions, first_function=min(first, 1), first=first, packs=packs)
    return led.hear(events.Extend(payload=payload))


def _again(led: Led, first: int, *cancelled: int) -> list[str]:
    payload = calls.pack_extension(first_function=1, first=first, cancelled=cancelled, again=True)
    return led.hear(events.Extend(payload=payload))


def _answer(led: Led, task: int, *answers: bytes, raised: Sequence[int] = ()) -> AttemptEnd:
    value = calls_results.pack_done(0, len(answers), 0.001, 0.0, calls_results.pack_answers(answers, raised))
    return AttemptEnd(task=task, attempt=led.given[MAP, task][1], outcome=Outcome.DONE, value=value)


def _large(led: Led, task: int, name: str) -> AttemptEnd:
    value = calls_results.pack_done(calls.BLOB, 1, 0.001, 0.0)
    attempt = led.given[MAP, task][1]
    return AttemptEnd(task=task, attempt=attempt, outcome=Outcome.DONE, value=value, blobs=(blob(name),))


def _specs(led: Led) -> dict[int, AttemptSpec]:
    """What each task was given last."""
    orders = [message for _, message in led.said if isinstance(message, messages.Assign)]
    return {spec.task: spec for order in orders for spec in order.attempts}


def _given(led: Led, task: int) -> list[bytes]:
    """The small values that a task was given."""
    work = calls.unpack_params(_specs(led)[task].params)
    assert all(ref.kind == INLINE for ref in work.refs)
    return [bytes(ref.data) for ref in work.refs]


def _is_void(led: Led, task: int) -> bool:
    return bool(calls.unpack_params(_specs(led)[task].params).flags & calls.VOID)


def test_a_call_waits_for_the_one_whose_result_it_needs_and_is_given_that() -> None:
    led = _led()
    assert _submit(led, PLAIN, _of(0)) == ["A: calls 0"]
    assert "waits for the result of task 0, which is to be its argument." in led.core.why(led.now, task=1)
    assert led.ended("A", [_answer(led, 0, b"one")]) == ["A: calls 1"]
    assert _given(led, 1) == [b"one"]


def test_what_has_its_answer_already_is_not_waited_for() -> None:
    led = _led()
    _submit(led, PLAIN)
    led.ended("A", [_answer(led, 0, b"one")])
    assert _submit(led, _of(0), first=1) == ["A: calls 1"]
    assert _given(led, 1) == [b"one"]


def test_a_diamond() -> None:
    led = _led()
    assert _submit(led, PLAIN, _of(0), _of(0), _of(1, 2, 1)) == ["A: calls 0"]
    assert led.ended("A", [_answer(led, 0, b"one")]) == ["A: calls 1 2"]
    assert led.ended("A", [_answer(led, 2, b"right")]) == []
    assert led.ended("A", [_answer(led, 1, b"left")]) == ["A: calls 3"]
    assert _given(led, 3) == [b"left", b"right", b"left"]


def test_a_long_chain_is_handed_out_link_by_link() -> None:
    led, many = _led(), 300
    assert _submit(led, PLAIN, *map(_of, range(many))) == ["A: calls 0"]
    for task in range(many):
        assert led.ended("A", [_answer(led, task, b"%d" % task)]) == [f"A: calls {task + 1}"]
    assert _given(led, many) == [b"%d" % (many - 1)]


def test_a_call_of_many_others_is_looked_at_a_few_times() -> None:
    led, many = _led(slots=200), 500
    _submit(led, *[PLAIN] * many, _of(*range(many)))
    looks = []
    follow_up = led.core._phase.state.runs[0].follow_up  # type: ignore[union-attr]
    must_wait = follow_up.must_wait
    follow_up.must_wait = lambda task, is_settled: looks.append(task) or must_wait(task, is_settled)
    while len(_specs(led)) < many + 1:
        led.ended("A", [_answer(led, task, b"x") for (_, task) in list(led.given) if task < many])
    assert len(_given(led, many)) == many
    assert looks.count(many) < 10


@pytest.mark.parametrize(
    "how",
    [
        lambda led: led.ended("A", [_answer(led, 0, b"error", raised=[0])]),
        lambda led: led.ended("A", [_answer(led, 0)]),
        lambda led: led.failed("A", 0, Outcome.RAISED),
        lambda led: _again(led, 2, 0),
        lambda led: led.ended("A", [_answer(led, 0, bytes(2 << 20))]),
    ],
    ids=["it raised", "it was left undone", "its process died", "it was cancelled", "too large a message"],
)
def test_what_cannot_be_given_what_it_needs_comes_back_void(how: object) -> None:
    led = _led()
    _submit(led, PLAIN, _of(0))
    assert callable(how)
    how(led)
    assert _is_void(led, 1)


def test_a_large_result_goes_from_where_it_is() -> None:
    led = _led("AB")
    _submit(led, PLAIN, _of(0))
    led.ended("A", [_large(led, 0, "m")])
    (source,) = _specs(led)[1].sources
    assert (source.blob, source.holders) == (blob("m").digest, (A,))
    work = calls.unpack_params(_specs(led)[1].params)
    at = BlobAt(blob("m").digest, blob("m").size, A)
    assert work.refs == [Ref(ANSWER, at, position=0, calls=1)]
    assert work.data is not None
    assert bytes(calls.unpack_calls(work.data)[0]) == b"arguments"


def test_a_large_result_that_is_lost_is_made_again_and_given_as_it_is_then() -> None:
    led = _led("AB", slots=1)
    _submit(led, PLAIN, _of(0))
    assert led.ended("A", [_large(led, 0, "m")]) == ["A: calls 1"]
    assert led.failed("A", 1, Outcome.INPUT_LOST, missing=[blob("m").digest]) == ["A: calls 0.1"]
    assert led.ended("A", [_large(led, 0, "other")]) == ["A: calls 1.1"]
    assert [source.blob for source in _specs(led)[1].sources] == [blob("other").digest]


def test_nobody_refers_to_what_comes_later() -> None:
    director = Calls(job=JOB, home=A, plan=b"")
    for packs in ([_of(0)], [PLAIN, _of(5)]):
        with pytest.raises(JobError, match="one that comes after it"):
            director.extend(calls.pack_extension(functions=[FUNCTION], packs=packs))


def test_results_of_one_pack_are_told_apart() -> None:
    director = Calls(job=JOB, home=A, plan=b"")
    refs = [Ref(CALL, pack=0, position=2), Ref(INLINE, data=b"here"), Ref(CALL, pack=0)]
    extension = director.extend(
        calls.pack_extension(functions=[FUNCTION], packs=[PLAIN, calls.pack_body(0, 0, b"data", refs, node=B)])
    )
    assert (extension.after, extension.nodes) == (((1, (0,)),), ((1, B),))
    value = calls_results.pack_done(0, 3, 0.0, 0.0, calls_results.pack_answers([b"a", b"", b"c"], []))
    work = calls.unpack_params(director.task_after(1, [Pinned(value=value, blobs=(), holders=(A,))]).params)
    assert [bytes(ref.data) for ref in work.refs] == [b"c", b"here", b"a"]
    assert bytes(work.data or b"") == b"data"


def test_an_answer_of_many_calls_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    unpack = calls.unpack_answers
    monkeypatch.setattr(calls, "unpack_answers", lambda data, count: read.append(count) or unpack(data, count))
    director, many = Calls(job=JOB, home=A, plan=b""), 1_000
    refs = [Ref(CALL, pack=0, position=n) for n in range(many)]
    packs = [PLAIN, calls.pack_body(0, 0, b"data", refs)]
    director.extend(calls.pack_extension(functions=[FUNCTION], packs=packs))
    answers = calls_results.pack_answers([b"%d" % n for n in range(many)], [])
    value = calls_results.pack_done(0, many, 0.0, 0.0, answers)
    work = calls.unpack_params(director.task_after(1, [Pinned(value=value, blobs=(), holders=(A,))]).params)
    assert [bytes(ref.data) for ref in work.refs] == [b"%d" % n for n in range(many)]
    assert read == [many]


# --- the leader dies ----------------------------------------------------------------------------------------------


def _heir(led: Led, on: str, *, known: int | None = None) -> Led:
    heir = _led(on, history=(*led.history, *led.batches[:known]), term=1, leader="B")
    heir.now = 0.01
    return heir


def test_a_successor_hands_out_what_follows_once_the_program_has_spoken() -> None:
    led = _led()
    _submit(led, PLAIN, _of(0))
    led.ended("A", [_answer(led, 0, b"one")])
    led.tick(0.1)
    heir = _heir(led, "B")
    assert heir.holding("B") == []
    assert _again(heir, 2) == ["B: calls 1.1000"]
    assert _given(heir, 1) == [b"one"]


def test_what_the_program_has_a_result_of_and_the_successor_not_is_not_used() -> None:
    led = _led()
    _submit(led, PLAIN, _of(0))
    known = len(led.batches)
    led.ended("A", [_answer(led, 0, b"one")])
    heir = _heir(led, "B", known=known)
    assert heir.holding("B") == ["B: calls 0.1000"]
    assert heir.ended("B", [_answer(heir, 0, b"another")]) == [], "the program has not spoken yet"
    assert _again(heir, 2) == ["B: calls 1.1000"]
    assert _given(heir, 1) == [b"another"], "it had not heard of it either"
    other = _heir(led, "B", known=known)
    assert other.holding("B") == ["B: calls 0.1000"]
    assert _again(other, 2, 0) == ["B: stop 0", "B: calls 1.1000"]
    assert _is_void(other, 1)
    third = _heir(led, "B", known=known)
    third.holding("B")
    assert third.ended("B", [_answer(third, 0, b"another")]) == []
    assert _again(third, 2, 0) == ["B: calls 1.1000"]
    assert _is_void(third, 1), "there is a result by now, and it is not the program's"


def test_what_was_made_of_a_result_that_the_successor_does_not_know_does_not_count() -> None:
    led = _led("AB", slots=1)
    _submit(led, PLAIN, _of(0))
    known = len(led.batches)
    assert led.ended("A", [_answer(led, 0, b"one")]) == ["A: calls 1"]
    made = _answer(led, 1, b"of one")
    heir = _heir(led, "AB", known=known)
    heir.holding("B")
    assert heir.holding("A", (1, 0)) == ["A: stop 1", "B: calls 0.1000"]
    assert heir.ended("A", [made]) == []
    assert heir.asked_for(events.TasksEnded) == []
    _again(heir, 2)
    heir.ended("B", [_answer(heir, 0, b"two")])
    assert _given(heir, 1) == [b"two"]


def test_what_runs_on_counts_where_all_that_it_was_made_of_is_known() -> None:
    led = _led("AB", slots=1)
    _submit(led, PLAIN, _of(0))
    led.ended("A", [_answer(led, 0, b"one")])
    led.tick(0.1)
    made = _answer(led, 1, b"of one")
    heir = _heir(led, "A")
    assert heir.holding("A", (1, 0)) == []
    heir.ended("A", [made])
    assert [end.value for told in heir.asked_for(events.TasksEnded) for end in told.ends] == [made.value]


def test_what_was_made_of_a_result_that_is_lost_meanwhile_is_made_again() -> None:
    led = _led()
    _submit(led, PLAIN, _of(0))
    led.ended("A", [_large(led, 0, "m")])
    led.tick(0.1)
    made = _answer(led, 1, b"of m")
    heir = _heir(led, "AB")
    heir.holding("A")
    assert heir.holding("B", (1, 0)) == [], "all that it was made of is known"
    _again(heir, 2)
    assert heir.lost("A") == ["B: calls 0.1000"]
    heir.ended("B", [_large(heir, 0, "other")])
    assert heir.ended("B", [made]) == ["B: calls 1.1000"]
    assert [source.blob for source in _specs(heir)[1].sources] == [blob("other").digest]
