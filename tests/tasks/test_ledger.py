"""Facts only grow; every decision has its own cell; a manifest names exact results."""

from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.ids import NodeId
from p2premap.tasks.job import BlobRef, Outcome, Phase, StageId
from p2premap.tasks.ledger import (
    FINAL_CELL,
    FailureFact,
    Final,
    PinnedResults,
    Results,
    StageFacts,
    manifest_cell,
)
from tests.tasks.dialogue import blob
from tests.tasks.working import A, B, C

TASKS = 4

results = st.tuples(
    st.integers(0, TASKS - 1),
    st.integers(0, 3),
    st.sampled_from([A, B, C]),
    st.binary(max_size=4),
    st.lists(st.sampled_from([blob("x"), blob("y"), blob("z")]), max_size=2, unique=True).map(tuple),
)
# one attempt of a task ran on one node and yielded one result: that is what makes it a fact
facts_lists = st.lists(results, max_size=12, unique_by=lambda f: (f[0], f[1], f[2]))


def _facts(added: list[tuple[int, int, NodeId, bytes, tuple[BlobRef, ...]]]) -> StageFacts:
    facts = StageFacts(TASKS)
    for task, attempt, node, value, blobs in added:
        facts.add(task, attempt, node, value, blobs, 1)
    return facts


def _known(facts: StageFacts) -> set[tuple[int, int, NodeId, bytes, tuple[BlobRef, ...]]]:
    return {
        (task, fact.attempt, fact.node, *facts.results.get(fact.result)[:2])
        for task in range(facts.tasks)
        for fact in facts.facts(task)
    }


@given(facts_lists)
def test_all_facts_are_kept_and_again_changes_nothing(added: list) -> None:
    facts = _facts(added)
    assert _known(facts) == {tuple(fact) for fact in added}
    for fact in added:
        facts.add(*fact, 1)
    assert _known(facts) == {tuple(fact) for fact in added}
    assert len([f for task in range(TASKS) for f in facts.facts(task)]) == len(added)


@given(facts_lists)
def test_the_chosen_result_is_the_first_one(added: list) -> None:
    facts = _facts(added)
    for task in range(TASKS):
        mine = [f for f in added if f[0] == task]
        if mine:
            assert facts.pinned(task).value == mine[0][3]
            assert facts.pinned(task).blobs == mine[0][4]
        else:
            assert not facts.chosen(task)


def test_whoever_yielded_the_same_holds_it() -> None:
    facts = StageFacts(1)
    facts.add(0, 0, A, b"v", (blob("x"),), 1)
    facts.add(0, 1, B, b"v", (blob("x"),), 1)
    facts.add(0, 2, C, b"w", (blob("y"),), 1)
    assert facts.holders(0) == (A, B)
    assert set(facts.held_by(C)) == {0}
    assert set(facts.held_by(NodeId(b"D" * 16))) == set()


def test_failures_are_facts_too() -> None:
    facts = StageFacts(2)
    for _ in range(2):
        facts.fail(FailureFact(0, 0, A, Outcome.CRASHED, "signal 9", ""))
    facts.fail(FailureFact(1, 0, B, Outcome.RAISED, "no", ""))
    assert sorted(facts.failures) == [(0, 0), (1, 0)]


def test_another_holder_is_one_more_fact() -> None:
    facts = StageFacts(1)
    facts.add(0, 0, A, b"v", (blob("x"),), 1)
    assert facts.hold(0, 0, A, B)
    assert not facts.hold(0, 0, A, B)
    assert not facts.hold(0, 1, A, C)  # nobody knows that result
    assert facts.holders(0) == (A, B)
    assert set(facts.held_by(B)) == {0}


def test_a_task_that_was_given_up_has_no_result_and_is_pinned() -> None:
    facts = StageFacts(2)
    facts.give_up(0, 2, A, b"an exception")
    facts.add(1, 0, A, b"", (), 0)
    one, two = facts.pinned(0), facts.pinned(1)
    assert (one.failed, one.value, one.blobs) == (True, b"an exception", ())
    assert not two.failed
    facts.add(0, 3, B, b"an exception", (), 0)
    assert facts.pinned(0).failed  # too late
    assert len(set(facts.facts(0))) == 2


def test_a_failure_and_an_empty_result_have_other_manifests() -> None:
    one, two = StageFacts(1), StageFacts(1)
    one.give_up(0, 0, A, b"")
    two.add(0, 0, A, b"", (), 0)
    assert one.manifest(0) != two.manifest(0)


def test_a_stage_that_grows_keeps_what_it_has() -> None:
    facts = StageFacts(0)
    for task in range(9):
        facts.grow(1)
        facts.add(task, 0, A, bytes([task]), (), 0)
        facts.hash_ahead()
    assert [facts.pinned(t).value for t in range(9)] == [bytes([t]) for t in range(9)]
    assert facts.manifest(0) == _all_at_once(9).manifest(0)


def _all_at_once(tasks: int) -> StageFacts:
    facts = StageFacts(tasks)
    for task in range(tasks):
        facts.add(task, 0, A, bytes([task]), (), 0)
    return facts


# --- manifests ----------------------------------------------------------------------------------------------------


@given(st.permutations(range(TASKS)), st.lists(st.binary(max_size=3), min_size=TASKS, max_size=TASKS))
def test_a_manifest_does_not_depend_on_the_order_of_arrival(order: list[int], values: list[bytes]) -> None:
    one, two = StageFacts(TASKS), StageFacts(TASKS)
    for task in range(TASKS):
        one.add(task, 0, A, values[task], (), 1)
    for task in order:
        two.add(task, 3, B, values[task], (), 2)
        two.hash_ahead()
    assert one.manifest(0) == two.manifest(0)
    assert one.manifest(0) != one.manifest(1)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ([(b"ab", ()), (b"c", ())], [(b"a", ()), (b"bc", ())]),
        ([(b"", (blob("x"),)), (b"", ())], [(b"", ()), (b"", (blob("x"),))]),
        ([(b"v", (blob("x"),)), (b"", ())], [(b"v", (blob("y"),)), (b"", ())]),
    ],
)
def test_other_results_have_another_manifest(one: list, two: list) -> None:
    manifests = set()
    for contents in (one, two):
        facts = StageFacts(2)
        for task, (value, blobs) in enumerate(contents):
            facts.add(task, 0, A, value, blobs, 1)
        manifests.add(facts.manifest(0))
    assert len(manifests) == 2


def test_choosing_another_result_changes_the_manifest() -> None:
    facts = StageFacts(1)
    facts.add(0, 0, A, b"one", (), 1)
    before = facts.manifest(0)
    facts.add(0, 1, B, b"two", (), 1)
    assert facts.manifest(0) == before
    facts.choose(0, list(facts.facts(0))[1])
    assert facts.manifest(0) != before
    assert facts.pinned(0).value == b"two"
    assert len(list(facts.facts(0))) == 2


def test_a_manifest_needs_every_result() -> None:
    facts = StageFacts(2)
    facts.add(1, 0, A, b"v", (), 1)
    with pytest.raises(AssertionError):
        facts.manifest(0)


def test_pinned_results_are_a_sequence() -> None:
    facts = StageFacts(3)
    for task in range(3):
        facts.add(task, 0, A, bytes([task]), (), task)
    pinned = PinnedResults(facts)
    assert len(pinned) == 3
    assert [p.value for p in pinned] == [b"\0", b"\1", b"\2"]
    assert pinned[-1].records_out == 2
    assert [p.records_out for p in pinned[1:]] == [1, 2]
    with pytest.raises(IndexError):
        pinned[3]


# --- size ---------------------------------------------------------------------------------------------------------


def test_equal_small_results_are_stored_once() -> None:
    results = Results()
    first = results.add(b"none", (), 1)
    size = results.size
    assert results.add(b"none", (), 1) == first
    assert results.size == size
    assert results.add(b"none", (), 2) != first


def test_a_hundred_thousand_tasks_are_a_few_arrays() -> None:
    facts = StageFacts(100_000)
    for task in range(100_000):
        facts.add(task, 0, A, b"", (), 0)
    held = sum(sys.getsizeof(part) for part in vars(facts).values() if isinstance(part, (array, dict, list)))
    assert held < 15 * 100_000


# --- cells --------------------------------------------------------------------------------------------------------


def test_every_lineage_and_generation_has_its_own_cell() -> None:
    stages = (StageId(0, b""), StageId(1, b"lineage1"), StageId(1, b"lineage2"))
    cells = {manifest_cell(stage, generation) for stage in stages for generation in (0, 1)}
    assert len(cells | {FINAL_CELL}) == 7
    assert manifest_cell(stages[0], 0) == "manifest/0/0"


def test_the_end_survives_its_cell() -> None:
    final = Final(Phase.FAILED, "Task 3 …", "trace")
    assert Final.decode(final.encode()) == final


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x83\x61x\x60\x60", b"\x82\x64done\x60"])
def test_a_cell_of_nonsense_is_refused(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Final.decode(value)
