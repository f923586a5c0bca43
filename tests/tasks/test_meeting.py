"""Dealing the tasks of a gang out over slots: evenly, near their data, and as they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2premap.ids import Ballot, NodeId
from p2premap.tasks.director import TaskInput
from p2premap.tasks.job import Source, StageId
from p2premap.tasks.meeting import MEETING_BYTES, deal, name_of
from tests.tasks.dialogue import blob
from tests.tasks.working import A, B, C, job_of, node

PLAIN = TaskInput(params=b"")
ONE_EACH = {A: A, B: B, C: C}


def at(*holders: NodeId, size: int = 10) -> TaskInput:
    """A task that reads a blob of this size."""
    digest = blob(f"{holders}{size}").digest
    return TaskInput(params=b"", sources=(Source(digest=digest, start=0, end=size, holders=holders, blob=digest),))


def test_tasks_are_dealt_out_evenly_in_order() -> None:
    assert deal([PLAIN] * 6, {A: 2, B: 1}, ONE_EACH, {}) == ((A, (0, 1)), (A, (2, 3)), (B, (4, 5)))
    assert deal([PLAIN] * 5, {A: 1, B: 1}, ONE_EACH, {}) == ((A, (0, 1, 2)), (B, (3, 4)))


def test_fewer_tasks_than_slots_are_one_a_node_first() -> None:
    assert deal([PLAIN] * 3, {A: 2, B: 2}, ONE_EACH, {}) == ((A, (0,)), (A, (1,)), (B, (2,)))
    assert deal([PLAIN], {A: 2, B: 2}, ONE_EACH, {}) == ((A, (0,)),)


def test_tasks_go_where_their_data_is() -> None:
    inputs = [at(B, A), at(A, B), at(B, A), at(A, B)]
    assert deal(inputs, {A: 1, B: 1}, ONE_EACH, {}) == ((B, (0, 2)), (A, (1, 3)))


def test_where_more_of_the_data_is_comes_first_and_another_node_of_that_machine_before_the_rest() -> None:
    both = TaskInput(params=b"", sources=(*at(A, size=10).sources, *at(B, size=30).sources))
    assert deal([both, PLAIN], {A: 1, B: 1}, ONE_EACH, {}) == ((B, (0,)), (A, (1,)))
    machines = {A: A, B: C, C: C}
    assert deal([PLAIN, at(C)], {A: 1, B: 1}, machines, {}) == ((A, (0,)), (B, (1,)))


def test_tasks_stay_where_they_were() -> None:
    inputs = [at(A), at(A), at(B), at(B)]
    before = {0: B, 1: B, 2: A, 3: A}
    assert deal(inputs, {A: 1, B: 1}, ONE_EACH, before) == ((B, (0, 1)), (A, (2, 3)))


def test_a_new_node_is_given_tasks_and_the_others_keep_the_rest() -> None:
    before = {0: A, 1: A, 2: A, 3: B, 4: B, 5: B}
    seats = dict(deal([PLAIN] * 6, {A: 1, B: 1, C: 1}, ONE_EACH, before))
    assert seats == {A: (0, 1), B: (3, 4), C: (2, 5)}


def test_what_a_lost_node_had_goes_to_the_others() -> None:
    before = {0: A, 1: A, 2: B, 3: B, 4: C, 5: C}
    assert dict(deal([PLAIN] * 6, {A: 1, B: 1}, ONE_EACH, before)) == {A: (0, 1, 4), B: (2, 3, 5)}


NODES = [node(letter) for letter in "ABCDE"]


@given(
    st.dictionaries(st.sampled_from(NODES), st.integers(1, 4), min_size=1),
    st.lists(st.lists(st.sampled_from(NODES), max_size=3, unique=True), min_size=1, max_size=30),
    st.dictionaries(st.integers(0, 29), st.sampled_from(NODES)),
)
def test_every_task_is_dealt_once_and_evenly_and_the_same_again(
    slots: dict[NodeId, int], holders: list[list[NodeId]], before: dict[int, NodeId]
) -> None:
    inputs = [at(*where) if where else PLAIN for where in holders]
    seats = deal(inputs, slots, {}, before)
    assert sorted(task for _, tasks in seats for task in tasks) == list(range(len(inputs)))
    sizes = [len(tasks) for _, tasks in seats]
    assert len(sizes) == min(len(inputs), sum(slots.values()))
    assert max(sizes) - min(sizes) <= 1
    assert all(sum(of == node for of, _ in seats) <= slots[node] for node, _ in seats)
    again = {task: node for node, tasks in seats for task in tasks}
    assert deal(inputs, slots, {}, again) == seats


def test_every_hand_out_has_another_name() -> None:
    names = {
        name_of(job_of(letter), StageId(number, lineage), Ballot(0, term, leader), attempt)
        for letter in "jk"
        for number, lineage in ((1, b"a" * 8), (1, b"b" * 8), (2, b"a" * 8))
        for term, leader in ((0, A), (1, A), (1, B))
        for attempt in (0, 1)
    }
    assert len(names) == 2 * 3 * 3 * 2
    assert {len(name) for name in names} == {MEETING_BYTES}
