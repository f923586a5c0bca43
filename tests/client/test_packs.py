"""Which calls go into which pack: by what is known of their function, and by how much is under way."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2premap.client.packs import AHEAD_PACKS, CALLS_MAX, PACK_S, Call, Mapped, Pack, Packer
from p2premap.tasks.calls import INLINE_BYTES_MAX

SLOTS = 2


def call(function: int = 0, data: bytes = b"x") -> Call:
    return Call(function, data, Future())


def packs_of(packer: Packer) -> list[Pack]:
    """All that may go now, sent."""
    packs: list[Pack] = []
    while packer.open:
        pack = packer.next()
        if pack is None:
            break
        packer.sent(pack, max(packer.under_way, default=-1) + 1)
        packs.append(pack)
    return packs


def end(packer: Packer, pack: Pack, seconds_each: float, answer_bytes: int = 4) -> None:
    calls = len(pack.calls) or pack.stop - pack.start
    assert packer.ended(pack.number) is pack
    packer.learn(pack, calls, calls * seconds_each, calls * answer_bytes)


def taught(seconds_each: float, answer_bytes: int = 4) -> Packer:
    """A packer that has seen many calls of function 0."""
    packer = Packer(SLOTS)
    for many in (1, 8, 64, 512):
        packer.learn(Pack(0), many, many * seconds_each, many * answer_bytes)
    return packer


def test_the_first_calls_go_alone_and_no_more_than_there_are_places() -> None:
    packer = Packer(SLOTS)
    for _ in range(100):
        packer.add(call())
    packs = packs_of(packer)
    assert [len(pack.calls) for pack in packs] == [1] * (AHEAD_PACKS * SLOTS)
    assert not packer.open
    assert len(packer.waiting()) == 100 - len(packs)


def test_quick_calls_go_together_and_slow_ones_alone() -> None:
    quick, slow = taught(1e-5), taught(1.0)
    for packer in (quick, slow):
        for _ in range(2_000):
            packer.add(call())
    sizes = [len(pack.calls) for pack in packs_of(quick)]
    assert max(sizes) > 100
    assert {len(pack.calls) for pack in packs_of(slow)} == {1}


def test_packs_grow_step_by_step() -> None:
    packer = Packer(SLOTS)
    for _ in range(9_000):
        packer.add(call())
    sizes = []
    while packs := packs_of(packer):
        sizes.append(max(len(pack.calls) for pack in packs))
        end(packer, packs[0], 1e-6)
        for pack in packs[1:]:
            end(packer, pack, 1e-6)
    assert sizes[0] == 1
    assert all(after <= 8 * before for before, after in pairwise(sizes))
    assert max(sizes) == CALLS_MAX


def test_large_arguments_and_answers_make_small_packs() -> None:
    packer = taught(1e-6, answer_bytes=10_000)
    for _ in range(1_000):
        packer.add(call())
    assert max(len(pack.calls) for pack in packs_of(packer)) <= INLINE_BYTES_MAX // 10_000
    packer = taught(1e-6)
    for _ in range(200):
        packer.add(call(data=b"x" * 20_000))
    assert all(sum(len(c.data) for c in pack.calls) <= INLINE_BYTES_MAX for pack in packs_of(packer))


def test_a_pack_has_one_function_and_functions_take_turns() -> None:
    packer = taught(1e-6)
    for n in range(100):
        packer.add(call(function=n % 2))
    packs = packs_of(packer)
    assert all(len({c.function for c in pack.calls}) == 1 for pack in packs)
    assert {pack.function for pack in packs[:2]} == {0, 1}


def test_a_cancelled_call_is_not_sent() -> None:
    packer = Packer(SLOTS)
    calls = [call() for _ in range(3)]
    for each in calls:
        packer.add(each)
    calls[1].future.cancel()
    assert [pack.calls for pack in packs_of(packer)] == [[calls[0]], [calls[2]]]


def test_what_was_left_undone_goes_first() -> None:
    packer = taught(1e-4)
    calls = [call() for _ in range(60)]
    for each in calls:
        packer.add(each)
    pack = packer.next()
    assert pack is not None
    assert len(pack.calls) > 3
    packer.sent(pack, 0)
    packer.ended(0)
    packer.rest(pack, 2)
    following = packer.next()
    assert following is not None
    assert following.calls[0] is calls[2]


def test_a_pack_without_an_answer_is_taken_apart() -> None:
    packer = taught(1e-6)
    for _ in range(50):
        packer.add(call())
    (pack, *_) = packs_of(packer)
    assert len(pack.calls) > 1
    packer.ended(pack.number)
    packer.apart(pack)
    again = [packer.next() for _ in pack.calls]
    assert [p.calls for p in again if p is not None] == [[c] for c in pack.calls]


def test_chunks_of_a_map() -> None:
    packer = Packer(SLOTS)
    mapped = Mapped(0, list(range(100_000)), star=False, chunk=0, sink=lambda row, answer: None)
    packer.add_map(mapped)
    rows: list[int] = []
    while packs := packs_of(packer):
        for pack in packs:
            rows += range(pack.start, pack.stop)
            end(packer, pack, 1e-6)
    assert sorted(rows) == list(range(100_000))
    assert packer.idle
    fixed = Mapped(0, list(range(10)), star=False, chunk=4, sink=lambda row, answer: None)
    packer.add_map(fixed)
    assert [(pack.start, pack.stop) for pack in packs_of(packer)] == [(0, 4), (4, 8), (8, 10)]


def test_a_map_that_nobody_wants_is_dropped() -> None:
    packer = Packer(SLOTS)
    mapped = Mapped(0, list(range(1_000)), star=False, chunk=1, sink=lambda row, answer: None)
    packer.add_map(mapped)
    packs = packs_of(packer)
    assert packer.maps() == [mapped]
    assert packer.drop_map(mapped) == packs
    assert packs_of(packer) == []
    packer.ended(packs[0].number)
    packer.rest(packs[0], 0)
    packer.apart(packs[0])
    assert packer.next() is None, "nothing of it comes back"


@given(
    seconds=st.lists(st.floats(1e-7, 2.0), min_size=1, max_size=30),
    calls=st.integers(1, 400),
    slots=st.integers(1, 16),
    undone=st.integers(0, 3),
)
def test_every_call_goes_exactly_once_at_a_time(seconds: list[float], calls: int, slots: int, undone: int) -> None:
    packer = Packer(slots)
    all_calls = [call(function=n % 3) for n in range(calls)]
    for each in all_calls:
        packer.add(each)
    done: list[Call] = []
    number = 0
    while packs := packs_of(packer):
        for pack in packs:
            each = seconds[number % len(seconds)]
            number += 1
            kept = max(1, len(pack.calls) - undone)
            packer.ended(pack.number)
            packer.learn(pack, kept, kept * each, 4 * kept)
            packer.rest(pack, kept)
            done += pack.calls[:kept]
            assert pack.seconds <= max(8 * PACK_S, 2.0 + PACK_S)
    assert sorted(map(id, done)) == sorted(map(id, all_calls))
    assert packer.idle
