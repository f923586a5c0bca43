"""Which tasks go into a batch, and how many."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.config import TasksConfig
from p2premap.ids import Digest
from p2premap.tasks.batches import Candidate, Sizer, TaskQueue, assign_bytes
from p2premap.tasks.director import TaskInput
from p2premap.tasks.job import AttemptSpec, Source
from p2premap.tasks.locations import Locations
from tests.tasks.dialogue import blob
from tests.tasks.working import A, B, C

CONFIG = TasksConfig()


def _source(size: int, *holders: bytes) -> Source:
    return Source(digest=Digest(bytes(32)), start=0, end=size, holders=holders, blob=Digest(bytes(32)))


# --- sizes --------------------------------------------------------------------------------------------------------


def test_nothing_known_means_one() -> None:
    sizer = Sizer(CONFIG)
    assert sizer.size(1_000_000, 2) == 1
    assert not sizer.ahead(1_000_000, 2)


def test_a_batch_is_a_tenth_of_a_second_of_work() -> None:
    sizer = Sizer(CONFIG)
    for _ in range(20):
        sizer.learn(64, 64 * 0.001)
    assert sizer.size(1_000_000, 2) == pytest.approx(100, abs=1)


def test_tasks_of_no_cost_fill_the_largest_batch_and_no_more() -> None:
    sizer = Sizer(CONFIG)
    for _ in range(20):
        sizer.learn(sizer.size(1_000_000, 2), 0.0)
    assert sizer.size(1_000_000, 2) == CONFIG.batch_tasks_max


def test_the_first_tasks_may_be_the_small_ones() -> None:
    sizer = Sizer(CONFIG)
    sizer.learn(1, 1e-6)
    assert sizer.size(1_000_000, 2) == 8


def test_the_end_of_a_stage_is_shared() -> None:
    sizer = Sizer(CONFIG)
    for _ in range(20):
        sizer.learn(512, 512 * 0.001)
    assert sizer.size(40, 2) == 10
    assert sizer.size(1, 2) == 10


def test_long_tasks_go_one_by_one_and_not_ahead() -> None:
    sizer = Sizer(CONFIG)
    sizer.learn(1, 5.0)
    assert sizer.size(1000, 2) == 1
    assert not sizer.ahead(1000, 2)


@given(
    st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 100)), max_size=8), st.integers(0, 10**6), st.integers(0, 64)
)
def test_a_size_is_always_possible(learned: list[tuple[int, float]], pending: int, slots: int) -> None:
    sizer = Sizer(CONFIG)
    for tasks, seconds in learned:
        sizer.learn(tasks, seconds)
    assert 1 <= sizer.size(pending, slots) <= CONFIG.batch_tasks_max


# --- the queue ----------------------------------------------------------------------------------------------------


def test_what_comes_back_goes_first() -> None:
    queue = TaskQueue(3)
    assert queue.pop() == 0
    queue.push(0)
    queue.push(0)
    assert len(queue) == 3
    assert [queue.pop() for _ in range(4)] == [0, 1, 2, None]


def test_a_cleared_queue_is_empty() -> None:
    queue = TaskQueue(3)
    queue.push(queue.pop() or 0)
    queue.clear()
    assert len(queue) == 0
    assert queue.pop() is None


@given(st.integers(0, 6), st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=30))
def test_a_queue_behaves_like_a_list(tasks: int, steps: list[int | None]) -> None:
    queue, model = TaskQueue(tasks), list(range(tasks))
    back: list[int] = []
    for step in steps:
        if step is None:
            expected = back.pop(0) if back else model.pop(0) if model else None
            assert queue.pop() == expected
        elif step < tasks and step not in model:
            queue.push(step)
            if step not in back:
                back.append(step)
        assert len(queue) == len(back) + len(model)
        assert queue.waiting() == {*back, *model}


# --- near and far -------------------------------------------------------------------------------------------------


def test_near_is_also_the_machine_with_the_most_where_none_has_half() -> None:
    machines = {A: b"a", B: b"b", C: b"c"}
    near = Candidate(0, TaskInput(params=b"", sources=(_source(10, A), _source(14, B), _source(12, C))), machines)
    assert near.machines == {b"b"}


def test_near_is_a_machine_with_half_of_the_bytes() -> None:
    machines = {A: b"m", B: b"m", C: b"far"}
    near = Candidate(0, TaskInput(params=b"", sources=(_source(10, A), _source(10, B), _source(15, C))), machines)
    assert near.machines == {b"m"}
    everywhere = Candidate(0, TaskInput(params=b"", sources=(_source(10, A, C),)), machines)
    assert everywhere.machines == {b"m", b"far"}


def test_a_source_held_twice_on_one_machine_counts_once() -> None:
    machines = {A: b"m", B: b"m", C: b"far"}
    near = Candidate(0, TaskInput(params=b"", sources=(_source(10, A, B), _source(19, C))), machines)
    assert near.machines == {b"far"}


def test_what_a_task_takes_of_a_message_is_not_underestimated() -> None:
    sources = tuple(
        Source(digest=blob("x").digest, start=2**40, end=2**41, holders=(A, B), blob=blob("y").digest, path="p" * 50)
        for _ in range(20)
    )
    for input in (TaskInput(params=b"p" * 100), TaskInput(params=b"", sources=sources)):
        spec = AttemptSpec(task=10**6, attempt=300, params=input.params, sources=input.sources)
        encoded = cbor2.dumps(msgspec.to_builtins(spec, builtin_types=(bytes,)))
        assert len(encoded) <= assign_bytes(input)


# --- where blobs are ----------------------------------------------------------------------------------------------


def test_holders_come_and_go() -> None:
    locations, x = Locations(), blob("x").digest
    assert locations.clear
    assert locations.readable(x, (A, B)) == [A, B]
    locations.doubt(A)
    assert locations.known(x, (A, B)) == [A, B]
    assert locations.readable(x, (A, B)) == [B]
    locations.lose(A)
    assert locations.known(x, (A, B)) == [B]
    locations.trust(A)
    assert locations.readable(x, (A, B)) == [A, B]


def test_a_copy_that_could_not_be_read_is_no_copy_until_it_is_made_again() -> None:
    locations, x = Locations(), blob("x").digest
    locations.unreadable(x, A)
    assert locations.known(x, (A,)) == []
    locations.trust(A)
    assert locations.known(x, (A,)) == []
    locations.made(1.0, x, A)
    assert locations.known(x, (A,)) == [A]
    locations.made(2.0, x, B)
    assert locations.readable(x, (A,)) == [A, B]
    assert locations.made_since(x, 1.5)
    assert not locations.made_since(x, 2.0)
