"""The director of actions: inputs that become further inputs, and what is merged in which order."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import JobError, JobFailed, JobRejected
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks import action as actions
from p2premap.tasks.action import (
    ActionDirector,
    ActionPlan,
    Added,
    Given,
    InputFile,
    MergeParams,
    Saved,
    UnitParams,
    UnitResult,
    pack_plan,
    pack_result,
    unpack_result,
)
from p2premap.tasks.director import Pinned, TaskInput, Unfolds
from p2premap.tasks.inputs import ReadsInputs
from p2premap.tasks.job import INLINE_BYTES_MAX, SAVED_PARTS_FIRST, BlobRef, StageId

JOB, HOME, OTHER = JobId(b"j" * 16), NodeId(b"h" * 16), NodeId(b"o" * 16)
UNITS = StageId(0, b"")
FILE = InputFile(path="/data/a.txt", mtime_ns=7, size=10, digest=Digest(b"F" * 32))


def director(*inputs: object, merges: bool = False, unordered: bool = False) -> ActionDirector:
    plan = ActionPlan(
        version=1,
        action="Try",
        inputs=tuple(Given(value=json.dumps(value).encode()) for value in inputs),
        options=b'{"width": 3}',
        merges=merges,
        unordered=unordered,
    )
    return ActionDirector(job=JOB, home=HOME, plan=pack_plan(plan))


def result(value: object = None, *, adds: tuple[object, ...] = (), blobs: tuple[BlobRef, ...] = (), **more) -> Pinned:
    told = UnitResult(
        added=tuple(Added(value=json.dumps(one).encode()) for one in adds),
        inline=b"" if value is None else json.dumps(value).encode(),
        **more,
    )
    return Pinned(value=pack_result(told), blobs=blobs, holders=(OTHER,))


def blob(letter: bytes, size: int = 5) -> BlobRef:
    return BlobRef(digest=Digest(letter * 32), size=size)


def unfolded(d: ActionDirector, task: int, pinned: Pinned) -> tuple[int, bool]:
    """What came of a result: tasks, and whether no more will come."""
    payload = d.unfold(task, pinned)
    if payload is None:
        return 0, False
    extension = d.extend(payload)
    return extension.tasks, extension.closed


def value_of(input: TaskInput) -> object:
    return json.loads(msgspec.msgpack.decode(input.params, type=UnitParams).value)


def merged(input: TaskInput) -> list[object]:
    return [json.loads(one) for one in msgspec.msgpack.decode(input.params, type=MergeParams).results]


def test_inputs_are_tasks_and_the_last_result_closes_the_stage() -> None:
    d = director("a", 2)
    first = d.first()
    assert (first.tasks, first.open, first.grows, first.final, first.function) == (2, True, True, True, "Try/unit")
    assert [value_of(d.task(UNITS, task)) for task in (0, 1)] == ["a", 2]
    assert unfolded(d, 1, result(1)) == (0, False)
    assert unfolded(d, 0, result(1)) == (0, True)
    assert d.next(0, [result(1)] * 2) is None


def test_what_a_result_adds_is_processed_and_not_split_again() -> None:
    d = director("a")
    assert unfolded(d, 0, result(adds=("x", "y"))) == (2, False)
    params = [msgspec.msgpack.decode(d.task(UNITS, task).params, type=UnitParams) for task in range(3)]
    assert [one.splits for one in params] == [True, False, False]
    assert [one.options for one in params] == [b'{"width": 3}'] * 3
    assert unfolded(d, 0, result(adds=("x", "y"))) == (0, False), "asked about again"
    assert unfolded(d, 1, result(1)) == (0, False)
    assert unfolded(d, 2, result(1, adds=("z",))) == (1, False), "process may add inputs, too"
    assert unfolded(d, 3, result(1)) == (0, True)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_a_successor_that_knows_less_comes_to_the_same(order: list[int], known: int) -> None:
    """Tasks 0 and 1 add two each; a successor has read some payloads, and is asked about everything again."""
    results = {0: result(adds=("a", "b")), 1: result(adds=("c", "d"))}
    first, payloads = director(1, 2), []
    waiting, done = [task for task in order if task < 2], []
    while waiting:
        task = waiting.pop(0)
        done.append(task)
        if (payload := first.unfold(task, results.get(task, result(0)))) is not None:
            payloads.append(payload)
            before = len(first._orders)
            first.extend(payload)
            waiting += [task for task in order if before <= task < len(first._orders)]
    assert first._closed
    heir = director(1, 2)
    closed = False
    for payload in payloads[:known]:
        closed = heir.extend(payload).closed
    tasks = [task for task in done if task < len(heir._orders)]
    while tasks:
        task = tasks.pop(0)
        before = len(heir._orders)
        _, now = unfolded(heir, task, results.get(task, result(0)))
        closed = closed or now
        tasks += range(before, len(heir._orders))
    assert closed
    assert len(heir._orders) == 6
    assert sorted(heir._orders) == sorted(first._orders)


def test_a_task_that_failed_for_good_is_left_out() -> None:
    d = director("a", "b", merges=True)
    failed = Pinned(value=b"", blobs=(), holders=(), failed=True)
    assert unfolded(d, 0, failed) == (0, False)
    assert unfolded(d, 1, result("B")) == (0, True)
    assert d.next(0, [failed, result("B")]) is not None
    assert merged(d.task(StageId(1, b"l"), 0)) == ["B"]
    assert d.parts(0, failed) == ()


def test_results_are_merged_in_the_order_of_the_inputs_whichever_ended_first() -> None:
    d = director("a", "b", merges=True)
    assert not d.first().final
    unfolded(d, 1, result(adds=("b1", "b2")))  # tasks 2, 3
    unfolded(d, 0, result(adds=("a1",)))  # task 4
    plan = d.next(0, [result(), result(), result("B1"), result("B2"), result("A1")])
    assert plan is not None
    assert (plan.name, plan.tasks, plan.final, plan.function) == ("merge", 1, True, "Try/merge")
    assert merged(d.task(StageId(1, b"l"), 0)) == ["A1", "B1", "B2"]
    assert d.next(1, [result("all")]) is None


def test_a_merge_of_nothing_is_a_merge_all_the_same() -> None:
    d = director("a", merges=True)
    plan = d.next(0, [result()])
    assert plan is not None
    assert merged(d.task(StageId(1, b"l"), 0)) == []


def test_without_order_results_are_merged_in_groups_until_one_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MERGED_MAX", 2)
    d = director(*range(5), merges=True, unordered=True)
    shape = []
    results = [result(number) for number in range(5)]
    for stage in range(10):
        plan = d.next(stage, results)
        if plan is None:
            break
        shape.append((plan.tasks, plan.final))
        inputs = [d.task(StageId(stage + 1, b"l"), task) for task in range(plan.tasks)]
        results = [result(sum(merged(one))) for one in inputs]
    assert shape == [(3, False), (2, False), (1, True)]
    assert json.loads(unpack_result(results[0].value).inline) == 0 + 1 + 2 + 3 + 4


def test_many_results_are_gathered_before_they_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "GATHERED_MAX", 2)
    d = director(*range(3), merges=True)
    saved = result(0, blobs=(blob(b"S"),), saved=("s.png",))
    plan = d.next(0, [saved, result(1), result(2)])
    assert plan is not None
    assert (plan.name, plan.tasks, plan.final) == ("gather", 2, False)
    assert [merged(d.task(StageId(1, b"l"), task)) for task in (0, 1)] == [[0, 1], [2]]
    plan = d.next(1, [result(blobs=(blob(b"1"),), blob=True), result(blobs=(blob(b"2"),), blob=True)])
    assert plan is not None
    assert (plan.name, plan.final) == ("merge", True)
    task = d.task(StageId(2, b"m"), 0)
    assert [source.blob for source in task.sources] == [b"1" * 32, b"2" * 32, b"S" * 32], "lists, then files"
    assert msgspec.msgpack.decode(task.params, type=MergeParams).lists
    assert d.next(2, [result("all")]) is None


def test_files_that_a_task_saved_are_brought_to_who_is_given_them() -> None:
    d = director("a", merges=True)
    item = Added(value=b'"p2premap:..."', files=(Saved(digest=Digest(b"S" * 32), size=9),))
    split = Pinned(
        value=pack_result(UnitResult(added=(item,), saved=("page.png",))), blobs=(blob(b"S", 9),), holders=(OTHER,)
    )
    unfolded(d, 0, split)
    (source,) = d.task(UNITS, 1).sources
    assert (source.blob, source.end, source.holders) == (b"S" * 32, 9, (OTHER,))
    d.next(0, [split, result("x", names=(Digest(b"S" * 32),))])
    assert [source.blob for source in d.task(StageId(1, b"l"), 0).sources] == [b"S" * 32], "the result names it"


def test_parts_are_results_and_the_files_that_were_saved() -> None:
    d = director("a", "b")
    done = result(blobs=(blob(b"R"), blob(b"S")), blob=True, saved=("s.png",))
    parts = d.parts(1, done)
    assert [(part.number, part.name, part.source.blob) for part in parts] == [
        (1, "", b"R" * 32),
        (SAVED_PARTS_FIRST + 1_000, "00001/s.png", b"S" * 32),
    ]
    assert [part.name for part in director("a", merges=True).parts(0, done)] == ["", "s.png"]
    assert d.parts(0, result(adds=("x",))) == [], "a split input gives nothing itself"


def test_a_file_is_read_from_the_machine_that_submitted_it_and_from_who_copied_it() -> None:
    plan = ActionPlan(version=1, action="Try", inputs=(Given(value=b'"a.txt"', file=FILE),), options=b"{}")
    d = ActionDirector(job=JOB, home=HOME, plan=pack_plan(plan))
    assert isinstance(d, ReadsInputs)
    assert isinstance(d, Unfolds)
    assert (d.input_bytes, list(d.input_files())) == (10, ["/data/a.txt"])
    d.spread((OTHER, HOME))
    (source,) = d.task(UNITS, 0).sources
    assert (source.path, source.mtime_ns, source.end, source.holders) == ("/data/a.txt", 7, 10, (HOME, OTHER))
    assert list(d.inputs()) == [source]


@pytest.mark.parametrize("plan", [b"", b"\x90", pack_plan(ActionPlan(version=9, action="A", inputs=(), options=b""))])
def test_a_senseless_plan_is_refused(plan: bytes) -> None:
    with pytest.raises(JobRejected):
        ActionDirector(job=JOB, home=HOME, plan=plan)


@pytest.mark.parametrize("value", [b"", b"\x78nonsense", b"\x93\x01"])
def test_a_senseless_result_fails_the_job(value: bytes) -> None:
    with pytest.raises(JobFailed, match="nonsense"):
        director("a").unfold(0, Pinned(value=value, blobs=(), holders=()))


@pytest.mark.parametrize("payload", [b"", b"\x93\x07\x90\xc2"])
def test_nobody_else_adds_inputs(payload: bytes) -> None:
    with pytest.raises(JobError):
        director("a").extend(payload)


def test_inputs_that_fit_only_when_compressed_do_so_and_others_are_refused() -> None:
    many = tuple(Added(value=b'"http://example.com/%d"' % number) for number in range(9_000))
    packed = pack_result(UnitResult(added=many))
    assert len(packed) <= INLINE_BYTES_MAX
    assert unpack_result(packed).added == many
    with pytest.raises(JobFailed, match="90000 further inputs"):
        pack_result(UnitResult(added=many * 10))


def test_what_two_leaders_both_wrote_down_counts_once() -> None:
    d = director("a", "b")
    payload = d.unfold(0, result(adds=("x", "y")))
    assert payload is not None
    assert d.extend(payload).tasks == 2
    assert d.extend(payload).tasks == 0, "its successor had not heard of it, and then both were read"
    assert d.unfold(0, result(adds=("x", "y"))) is None, "nothing need be written down again"
    assert [value_of(d.task(UNITS, task)) for task in range(4)] == ["a", "b", "x", "y"]
