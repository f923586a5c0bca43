"""Facts merge by union in any order; cells are written once; a manifest names exact results."""

from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.ids import NodeId
from p2premap.tasks.job import BlobRef, Outcome, Phase
from p2premap.tasks.ledger import (
    FINAL_CELL,
    FailureFact,
    Final,
    HomeCells,
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


def _merged(*lists: list[tuple[int, int, NodeId, bytes, tuple[BlobRef, ...]]]) -> StageFacts:
    facts = _facts([])
    for added in lists:
        facts.merge(_facts(added))
    return facts


@given(facts_lists)
def test_all_facts_are_kept_and_again_changes_nothing(added: list) -> None:
    facts = _facts(added)
    assert _known(facts) == {tuple(fact) for fact in added}
    facts.merge(_facts(added))
    assert _known(facts) == {tuple(fact) for fact in added}


@given(facts_lists, st.data())
def test_facts_merge_in_any_order_and_grouping(added: list, data: st.DataObject) -> None:
    cut, other = sorted(data.draw(st.tuples(st.integers(0, len(added)), st.integers(0, len(added)))))
    one, two, three = added[:other], added[cut:], data.draw(st.permutations(added))
    assert _known(_merged(one, two)) == _known(_merged(two, one)) == _known(_merged(three))


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
    one, two = StageFacts(2), StageFacts(2)
    one.fail(FailureFact(0, 0, A, Outcome.CRASHED, "signal 9", ""))
    two.fail(FailureFact(0, 0, A, Outcome.CRASHED, "signal 9", ""))
    two.fail(FailureFact(1, 0, B, Outcome.RAISED, "no", ""))
    one.merge(two)
    assert sorted(one.failures) == [(0, 0), (1, 0)]


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


def test_a_cell_is_written_once() -> None:
    cells = HomeCells()
    assert cells.propose(manifest_cell(0, 0), b"one") == (("manifest/0/0", b"one"),)
    assert cells.propose(manifest_cell(0, 0), b"two") == (("manifest/0/0", b"one"),)
    assert cells.propose(manifest_cell(0, 1), b"two") == (("manifest/0/1", b"two"),)
    assert cells.propose(FINAL_CELL, b"end") == (("final", b"end"),)


def test_the_end_survives_its_cell() -> None:
    final = Final(Phase.FAILED, "Task 3 …", "trace")
    assert Final.decode(final.encode()) == final


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x83\x61x\x60\x60", b"\x82\x64done\x60"])
def test_a_cell_of_nonsense_is_refused(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Final.decode(value)
