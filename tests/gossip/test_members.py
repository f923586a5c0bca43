"""The merge rule by its laws, and the table against the simplest thing that could be right."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.gossip.events import MemberState
from p2premap.gossip.members import (
    Base,
    Member,
    MemberTable,
    Permutation,
    bucket_of,
    hash_of_fact,
    hash_of_member,
    is_live,
    newer,
    newer_fact,
)
from p2premap.gossip.messages import BUCKETS, FactEntry, MemberEntry
from p2premap.ids import Boot, Incarnation, NodeId
from tests.gossip.harness import node_id

NODES = [node_id(n) for n in range(12)]


def entry(
    node: NodeId = NODES[0],
    *,
    boot: int = 1,
    incarnation: int = 0,
    state: MemberState = MemberState.ALIVE,
    name: str = "n",
    addresses: tuple[tuple[str, int], ...] = (("10.0.0.1", 7321),),
    age: int = 0,
) -> MemberEntry:
    return MemberEntry(
        node=node,
        boot=Boot(boot),
        incarnation=Incarnation(incarnation),
        state=state,
        name=name,
        addresses=addresses,
        age=age,
    )


def entries(nodes: list[NodeId]) -> st.SearchStrategy[MemberEntry]:
    return st.builds(
        entry,
        st.sampled_from(nodes),
        boot=st.integers(0, 3),
        incarnation=st.integers(0, 3),
        state=st.sampled_from(MemberState),
        name=st.sampled_from(["a", "b"]),
        addresses=st.sampled_from([(), (("10.0.0.1", 1),), (("10.0.0.2", 1),)]),
    )


def facts() -> st.SearchStrategy[FactEntry]:
    return st.builds(
        FactEntry,
        node=st.just(NODES[0]),
        boot=st.integers(0, 2).map(Boot),
        version=st.integers(0, 3),
        key=st.just("k"),
        value=st.binary(max_size=2),
    )


# --- the merge rule ------------------------------------------------------------------------------------------------


@given(entries(NODES[:1]), entries(NODES[:1]), entries(NODES[:1]))
def test_the_merge_rule_is_commutative_associative_and_idempotent(
    a: MemberEntry, b: MemberEntry, c: MemberEntry
) -> None:
    assert newer(a, b) == newer(b, a)
    assert newer(a, newer(b, c)) == newer(newer(a, b), c)
    assert newer(a, a) == a


@given(facts(), facts(), facts())
def test_so_is_that_of_facts(a: FactEntry, b: FactEntry, c: FactEntry) -> None:
    assert newer_fact(a, b) == newer_fact(b, a)
    assert newer_fact(a, newer_fact(b, c)) == newer_fact(newer_fact(a, b), c)
    assert newer_fact(a, a) == a


@pytest.mark.parametrize(
    ("older", "later"),
    [
        (entry(boot=1, incarnation=9, state=MemberState.LEFT), entry(boot=2)),
        (entry(incarnation=1, state=MemberState.DEAD), entry(incarnation=2)),
        (entry(), entry(state=MemberState.STALLED)),
        (entry(state=MemberState.STALLED), entry(state=MemberState.SUSPECT)),
        (entry(state=MemberState.SUSPECT), entry(state=MemberState.DEAD)),
        (entry(state=MemberState.DEAD), entry(state=MemberState.LEFT)),
    ],
)
def test_boot_then_incarnation_then_the_worse_state_wins(older: MemberEntry, later: MemberEntry) -> None:
    assert newer(older, later) is later
    assert newer(later, older) is later


def test_the_age_of_a_death_is_not_part_of_what_is_merged() -> None:
    young, old = entry(state=MemberState.DEAD, age=1), entry(state=MemberState.DEAD, age=9)
    assert newer(young, old) is young
    assert newer(old, young) is old
    assert hash_of_member(young) == hash_of_member(old)


def test_passing_doubts_hash_like_health_and_nothing_else_does() -> None:
    alive = hash_of_member(entry())
    assert hash_of_member(entry(state=MemberState.SUSPECT)) == alive
    assert hash_of_member(entry(state=MemberState.STALLED)) == alive
    others = [
        entry(state=MemberState.DEAD),
        entry(state=MemberState.LEFT),
        entry(boot=2),
        entry(incarnation=1),
        entry(name="m"),
        entry(addresses=()),
        entry(NODES[1]),
    ]
    assert len({alive, *map(hash_of_member, others)}) == 1 + len(others)


def test_every_hash_tells_its_bucket() -> None:
    for node in NODES:
        fact = FactEntry(node=node, boot=Boot(1), version=1, key="k", value=b"v")
        assert hash_of_member(entry(node)) % BUCKETS == bucket_of(node)
        assert hash_of_fact(fact) % BUCKETS == bucket_of(node)
        assert hash_of_fact(fact) != hash_of_fact(msgspec.structs.replace(fact, value=b"w"))


# --- the table -----------------------------------------------------------------------------------------------------

operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), entries(NODES)),
        st.tuples(st.just("fact"), st.sampled_from(NODES), st.integers(0, 5)),
        st.tuples(st.just("forget"), st.sampled_from(NODES)),
    ),
    max_size=40,
)


@given(st.lists(entries(NODES[:8]), max_size=8, unique_by=lambda e: e.node), operations, st.sampled_from(NODES))
def test_a_table_over_a_base_equals_a_plain_dictionary(
    shared: list[MemberEntry], operations: list[tuple[object, ...]], seat: NodeId
) -> None:
    table = MemberTable(Base(shared))
    model = {e.node: Member(e) for e in shared}
    for operation in operations:
        match operation:
            case ("put", MemberEntry() as e):
                old = model.get(e.node)
                member = Member(e, old.facts) if old is not None else Member(e)
                table.put(member)
                model[e.node] = member
            case ("fact", bytes() as node, int() as version) if node in model:
                fact = FactEntry(node=NodeId(node), boot=Boot(1), version=version, key="k", value=b"v")
                model[NodeId(node)] = model[NodeId(node)].with_fact(fact)
                table.put(model[NodeId(node)])
            case ("forget", bytes() as node):
                model.pop(NodeId(node), None)
                table.forget(NodeId(node))
    order = sorted(model)
    assert [m.entry.node for m in table] == order
    assert len(table) == len(model)
    root = 0
    for member in model.values():
        for word in member.hashes():
            root ^= word
    assert table.root == root
    by_bucket = [0] * BUCKETS
    for node, member in model.items():
        by_bucket[bucket_of(node)] ^= member.total
    assert list(table.buckets) == by_bucket
    for bucket in range(BUCKETS):
        assert [m.entry.node for m in table.in_bucket(bucket)] == [n for n in order if bucket_of(n) == bucket]
    assert table.live == sum(m.live for m in model.values())
    after = [n for n in order if n > seat] + [n for n in order if n < seat]
    alive = [n for n in after if model[n].live]
    assert table.neighbours(seat, 99) == alive
    assert table.neighbours(seat, 2) == alive[:2]
    assert table.neighbours(seat, 99, forward=False) == alive[::-1]
    drawn = {table.random_live(Random(n), [seat]) for n in range(20)}
    assert drawn <= (set(alive) or {None})


def test_a_table_of_one_has_no_neighbours_and_nobody_to_draw() -> None:
    table = MemberTable()
    table.put(Member(entry()))
    assert table.neighbours(NODES[0], 3) == []
    assert table.random_live(Random(1), [NODES[0]]) is None


def test_one_living_among_many_dead_is_found() -> None:
    table = MemberTable()
    for n in range(300):
        table.put(Member(entry(node_id(n), state=MemberState.ALIVE if n in (7, 8) else MemberState.DEAD)))
    assert {table.random_live(Random(seed), [node_id(7)]) for seed in range(9)} == {node_id(8)}


def test_tables_that_share_a_base_do_not_see_each_other() -> None:
    base = Base([entry(node) for node in NODES])
    one, other = MemberTable(base), MemberTable(base)
    one.put(Member(entry(NODES[3], state=MemberState.DEAD)))
    one.forget(NODES[4])
    member = other.get(NODES[3])
    assert member is not None
    assert is_live(member.entry.state)
    assert (other.live, other.root) == (base.live, base.root)
    assert (one.live, len(one)) == (base.live - 2, len(NODES) - 1)
    assert one.root != other.root


@given(st.integers(1, 200), st.integers(0, 99))
def test_a_round_of_the_shuffled_order_visits_every_position_once(size: int, seed: int) -> None:
    order, rng = Permutation(), Random(seed)
    for _ in range(3):
        assert sorted(order.next(size, rng) for _ in range(size)) == list(range(size))


def test_rounds_differ() -> None:
    order, rng = Permutation(), Random(5)
    rounds = {tuple(order.next(31, rng) for _ in range(31)) for _ in range(10)}
    assert len(rounds) > 5
