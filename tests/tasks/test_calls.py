"""The director of calls: extensions in any order of repetition, the same tasks; and packing, there and back."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import JobError, JobRejected, RemoteProtocolError
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks import calls, calls_results
from p2premap.tasks.calls import Calls
from p2premap.tasks.calls_refs import COPY, BlobAt, Ref
from p2premap.tasks.director import StagePlan
from p2premap.tasks.job import AttemptEnd, Outcome, StageId

HOME = NodeId(b"h" * 16)
OTHER = NodeId(b"o" * 16)
STAGE = StageId(0, b"")
BLOB = BlobAt(Digest(b"d" * 32), 100_000, HOME)
FUNCTION = calls.pack_function(b"pickled function")


def director() -> Calls:
    return Calls(job=JobId(bytes(16)), home=HOME, plan=b"")


def body(data: bytes | BlobAt, function: int = 0, flags: int = 0) -> bytes:
    return calls.pack_body(flags, function, data)


def test_it_has_one_stage_that_stays_open() -> None:
    it = director()
    assert it.first() == StagePlan(name="calls", function="calls", tasks=0, open=True)
    assert it.next(0, ()) is None
    assert it.streams


def test_a_plan_is_refused() -> None:
    with pytest.raises(JobRejected):
        Calls(job=JobId(bytes(16)), home=HOME, plan=b"x")


def test_a_task_is_a_pack_with_its_function() -> None:
    it = director()
    two = [body(b"one"), body(b"two", flags=calls.CHUNK)]
    assert it.extend(calls.pack_extension(functions=[FUNCTION], packs=two)).tasks == 2
    given = it.task(STAGE, 1)
    assert not given.sources
    work = calls.unpack_params(given.params)
    assert (work.flags, work.code) == (calls.CHUNK, b"pickled function")
    assert bytes(work.data or b"") == b"two"


def test_large_arguments_and_functions_are_sources() -> None:
    it = director()
    large = BlobAt(Digest(b"f" * 32), 50_000, HOME)
    it.extend(calls.pack_extension(functions=[calls.pack_function(large)], packs=[body(BLOB)]))
    given = it.task(STAGE, 0)
    assert given.sources == (large.source(), BLOB.source())
    work = calls.unpack_params(given.params)
    assert work.code is None
    assert work.data is None


def test_a_blob_that_has_moved_is_read_from_its_new_holder() -> None:
    it = director()
    it.extend(calls.pack_extension(functions=[FUNCTION], packs=[body(BLOB)]))
    it.extend(calls.pack_extension(first=1, first_function=1, moved=[(BLOB.digest, OTHER)]))
    assert it.task(STAGE, 0).sources[0].holders == (OTHER,)


def test_a_call_may_be_for_one_node() -> None:
    it = director()
    large = Ref(COPY, BLOB)
    packs = [body(b"any"), calls.pack_body(0, 0, b"one", node=OTHER), calls.pack_body(0, 0, b"two", [large], OTHER)]
    it.extend(calls.pack_extension(functions=[FUNCTION], packs=packs[:1]))
    extension = it.extend(calls.pack_extension(functions=[FUNCTION], packs=packs))
    assert (extension.first, extension.tasks, extension.nodes) == (1, 2, ((0, OTHER), (1, OTHER)))
    works = [calls.unpack_params(it.task(STAGE, number).params) for number in range(3)]
    assert [bytes(work.data or b"") for work in works] == [b"any", b"one", b"two"]
    assert [work.flags & calls.NODE for work in works] == [0, 0, 0], "that is not the worker's business"
    assert works[2].refs == [large]
    with pytest.raises(JobError, match="too short"):
        it.extend(calls.pack_extension(first_function=1, first=3, packs=[packs[1][:9]]))


def test_handing_in_again_adds_only_what_is_not_known() -> None:
    it = director()
    packs = [body(b"%d" % n) for n in range(5)]
    it.extend(calls.pack_extension(functions=[FUNCTION], packs=packs[:3]))
    assert it.extend(calls.pack_extension(functions=[FUNCTION], packs=packs[:3])).tasks == 0
    assert it.extend(calls.pack_extension(functions=[FUNCTION], first=1, packs=packs[1:])).tasks == 2
    assert [bytes(calls.unpack_params(it.task(STAGE, n).params).data or b"") for n in range(5)] == [
        b"%d" % n for n in range(5)
    ]


def test_the_end_is_closed_for_good() -> None:
    it = director()
    assert it.extend(calls.pack_extension(functions=[FUNCTION], packs=[body(b"")], closed=True)).closed
    assert it.extend(calls.pack_extension(functions=[FUNCTION], packs=[body(b"")])).closed, "again: nothing new"
    with pytest.raises(JobError, match="closed"):
        it.extend(calls.pack_extension(first_function=1, first=1, packs=[body(b"")]))


def test_what_is_cancelled_is_passed_on() -> None:
    it = director()
    packs = [body(b"")] * 3
    assert it.extend(calls.pack_extension(functions=[FUNCTION], packs=packs, cancelled=[0, 2])).cancelled == (0, 2)


def test_a_void_pack_needs_no_function() -> None:
    it = director()
    it.extend(calls.pack_extension(packs=[body(b"", function=7, flags=calls.VOID)]))
    assert calls.unpack_params(it.task(STAGE, 0).params).flags == calls.VOID


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x07" * 40,
        calls.pack_extension(functions=[FUNCTION], packs=[body(b"x")])[:-1],
        calls.pack_extension(functions=[FUNCTION], packs=[body(b"x")]) + b"x",
        calls.pack_extension(functions=[FUNCTION], first=1, packs=[body(b"x")]),
        calls.pack_extension(first_function=1),
        calls.pack_extension(packs=[body(b"x")]),
        calls.pack_extension(functions=[b""]),
        calls.pack_extension(functions=[b"\x01short"]),
        calls.pack_extension(functions=[FUNCTION], packs=[b"abc"]),
        calls.pack_extension(functions=[FUNCTION], packs=[body(b"x")], cancelled=[1]),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(payload: bytes) -> None:
    it = director()
    with pytest.raises(JobError):
        it.extend(payload)
    assert it.extend(calls.pack_extension(functions=[FUNCTION], packs=[body(b"x")])).tasks == 1


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    again=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=6),
)
def test_whatever_is_handed_in_again_the_tasks_are_the_same(sizes: list[int], again: list[tuple[int, int]]) -> None:
    it, packs = director(), [body(b"%d" % n) for n in range(sum(sizes))]
    known = 0
    for position, size in enumerate(sizes):
        it.extend(calls.pack_extension(functions=[FUNCTION], first=known, packs=packs[known : known + size]))
        known += size
        for when, back in again:
            if when == position:
                start = max(0, known - back)
                it.extend(calls.pack_extension(functions=[FUNCTION], first=start, packs=packs[start:known]))
    told = [bytes(calls.unpack_params(it.task(STAGE, n).params).data or b"") for n in range(known)]
    assert told == [b"%d" % n for n in range(known)]


@given(data=st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    for payload in (data, calls.pack_extension(functions=[FUNCTION])[:5] + data):
        it = director()
        try:
            it.extend(payload)
        except JobError:
            continue


def test_a_hundred_thousand_packs_are_no_objects() -> None:
    it = director()
    packs = [body(b"x" * 10)] * 1_000
    tracemalloc.start()
    for n in range(100):
        it.extend(calls.pack_extension(functions=[FUNCTION], first=1_000 * n, packs=packs))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 40 * 100_000


@given(pickles=st.lists(st.binary(max_size=20), max_size=20), data=st.data())
def test_packing_there_and_back(pickles: list[bytes], data: st.DataObject) -> None:
    assert [bytes(piece) for piece in calls.unpack_calls(calls.pack_calls(pickles))] == pickles
    raised = sorted(data.draw(st.sets(st.integers(0, len(pickles) - 1)))) if pickles else []
    value = calls_results.pack_done(0, len(pickles), 1.5, 0.5, calls_results.pack_answers(pickles, raised))
    done = calls_results.unpack_done(value)
    assert (done.calls, done.seconds, done.longest) == (len(pickles), 1.5, 0.5)
    pieces, failed = calls_results.unpack_answers(done.data, done.calls)
    assert [bytes(piece) for piece in pieces] == pickles
    assert failed == raised


@given(data=st.binary(max_size=60), count=st.integers(0, 100))
def test_no_results_make_it_fail_otherwise(data: bytes, count: int) -> None:
    for unpack in (
        lambda: calls_results.unpack_done(data),
        lambda: calls_results.unpack_answers(memoryview(data), count),
        lambda: calls_results.unpack_chunk(memoryview(data)),
        lambda: calls_results.unpack_ends(data),
    ):
        try:
            unpack()
        except RemoteProtocolError:
            continue


def test_ends_there_and_back() -> None:
    ends = (AttemptEnd(task=3, attempt=1, outcome=Outcome.DONE, value=b"v"),)
    groups = (calls_results.EndsOfNode(node=HOME, ends=ends),)
    assert calls_results.unpack_ends(calls_results.pack_ends(groups)) == groups
