"""Rumours and loads: bounded, the newest of each, and no datagram too large."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2premap.config import GossipConfig
from p2premap.gossip.context import Context
from p2premap.gossip.events import MemberState, SendDatagram, SendLink
from p2premap.gossip.facts import HELD_LOOKS, LEVELS, LoadLevels, LoadMeter, load_levels
from p2premap.gossip.members import Member, MemberTable
from p2premap.gossip.messages import MESSAGES, Ack, FactEntry, LoadEntry, MemberEntry, Rumours
from p2premap.gossip.spread import LOADS_MAX, LoadQueue, RumourQueue, Spread, size_of
from p2premap.ids import Boot
from p2premap.wire import Registry
from tests.gossip.harness import node_id
from tests.gossip.test_members import entry

REGISTRY = Registry(MESSAGES)


def fact(number: int, *, size: int = 10, version: int = 1, key: str = "k") -> FactEntry:
    return FactEntry(node=node_id(number), boot=Boot(1), version=version, key=key, value=b"x" * size)


def load(number: int, version: int = 1) -> LoadEntry:
    return LoadEntry(node=node_id(number), boot=Boot(1), version=version, value=b"12345")


def context(members: int, config: GossipConfig | None = None) -> Context:
    table = MemberTable()
    for n in range(members):
        table.put(Member(entry(node_id(n), addresses=((f"10.0.0.{n}", 7321),))))
    return Context(me=node_id(0), config=config or GossipConfig(), rng=Random(1), now=0.0, table=table)


# --- the queue -----------------------------------------------------------------------------------------------------


def test_each_rumour_is_told_so_often_and_then_never_again() -> None:
    queue = RumourQueue(10)
    queue.put(entry(), 3)
    assert [len(queue.take(1000)) for _ in range(5)] == [1, 1, 1, 0, 0]
    assert len(queue) == 0


def test_a_newer_rumour_about_the_same_replaces_the_older() -> None:
    queue = RumourQueue(10)
    queue.put(entry(), 3)
    queue.put(fact(0), 3)
    queue.put(entry(incarnation=1), 3)
    assert queue.take(1000) == [fact(0), entry(incarnation=1)]


def test_what_was_told_least_comes_first() -> None:
    queue = RumourQueue(10)
    queue.put(fact(1), 5)
    queue.take(1000)
    queue.put(fact(2), 5)
    assert queue.take(size_of(fact(2))) == [fact(2)]


def test_a_full_queue_drops_what_was_told_most() -> None:
    queue = RumourQueue(3)
    for n in range(3):
        queue.put(fact(n), 5)
    queue.take(size_of(fact(0)))
    queue.put(fact(3), 5)
    assert (len(queue), queue.dropped) == (3, 1)
    assert fact(0) not in queue.take(10_000)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 900), st.integers(0, 6)), max_size=60), st.integers(0, 2000)
)
def test_the_queue_keeps_its_bounds(puts: list[tuple[int, int, int]], budget: int) -> None:
    queue = RumourQueue(6)
    for number, size, times in puts:
        queue.put(fact(number, size=size), times)
        taken = queue.take(budget)
        assert sum(map(size_of, taken)) <= budget
        assert len(queue) <= 6


long_names = st.text(max_size=255)
hosts = st.tuples(st.text(min_size=1, max_size=40, alphabet="0123456789abcdef:."), st.integers(1, 65535))


@given(
    st.builds(
        entry,
        boot=st.sampled_from([0, 2**53]),
        incarnation=st.sampled_from([0, 2**53]),
        state=st.sampled_from(MemberState),
        name=long_names,
        addresses=st.lists(hosts, max_size=16).map(tuple),
        age=st.sampled_from([0, 2**53]),
    ),
    st.builds(
        FactEntry,
        node=st.just(node_id(1)),
        boot=st.sampled_from([0, 2**53]),
        version=st.sampled_from([0, 2**53]),
        key=st.text(max_size=64),
        value=st.binary(max_size=600),
    ),
    st.binary(max_size=64),
)
def test_no_entry_takes_more_bytes_than_it_was_counted_for(member: MemberEntry, f: FactEntry, value: bytes) -> None:
    about_load = LoadEntry(node=node_id(1), boot=Boot(2**53), version=2**53, value=value)
    empty = len(REGISTRY.encode(Ack(nonce=2**63 - 1, root=2**63 - 1)))
    for batch in ({"members": (member,)}, {"facts": (f,)}, {"loads": (about_load,)}):
        (entries,) = batch.values()
        assert len(REGISTRY.encode(Ack(nonce=2**63 - 1, root=2**63 - 1, **batch))) - empty <= size_of(entries[0])


# --- whom it is told -----------------------------------------------------------------------------------------------


def test_news_goes_to_the_successor_and_two_others_at_once_but_not_back() -> None:
    surroundings = context(20)
    spread = Spread(surroundings)
    successor = surroundings.table.neighbours(node_id(0), 1)[0]
    spread.news(fact(5), node_id(7))
    spread.flush()
    told = [e.peer for e in surroundings.out if isinstance(e, SendDatagram)]
    assert told[0] == successor
    assert len(set(told)) == 3
    assert node_id(7) not in told
    assert node_id(0) not in told
    assert all(e.message == Rumours(facts=(fact(5),)) for e in surroundings.out if isinstance(e, SendDatagram))


def test_the_link_to_the_successor_is_used() -> None:
    surroundings = context(20)
    successor = surroundings.table.neighbours(node_id(0), 1)[0]
    surroundings.links[successor] = Boot(1)
    spread = Spread(surroundings)
    spread.news(fact(5), None)
    spread.flush()
    assert surroundings.out[0] == SendLink(peer=successor, message=Rumours(facts=(fact(5),)))


def test_a_rumour_is_told_about_four_and_ln_n_times_in_all() -> None:
    surroundings = context(20)
    spread = Spread(surroundings)
    spread.news(fact(5), None)
    spread.flush()
    while (timer := surroundings.timers.pop_due(1e9)) is not None:
        timer.fire()
    assert len(surroundings.out) == 4 + 3  # ln 20 = 2.99...


def test_what_is_too_large_for_a_datagram_goes_over_links_only() -> None:
    surroundings = context(20)
    surroundings.links[node_id(3)] = surroundings.links[node_id(4)] = Boot(1)
    spread = Spread(surroundings)
    large = fact(5, size=5_000)
    spread.news(large, node_id(4))
    spread.flush()
    assert surroundings.out == [SendLink(peer=node_id(3), message=Rumours(facts=(large,)))]
    assert len(spread.rumours) == 0


def test_a_merger_of_clusters_goes_on_ticks() -> None:
    surroundings = context(200)
    spread = Spread(surroundings)
    for n in range(100):
        spread.news(fact(n), node_id(7))
    spread.flush()
    assert surroundings.out == []
    assert len(spread.rumours) == 100
    assert surroundings.timers.deadline() == 0.2


# --- loads ---------------------------------------------------------------------------------------------------------


def test_loads_keep_to_their_budget_and_the_newest_go_first() -> None:
    queue = LoadQueue(200.0, 0.0)
    for n in range(10):
        queue.put(load(n), 9)
    first = queue.take(10_000, 0.0)
    assert first == tuple(load(n) for n in (9, 8, 7, 6))
    assert queue.take(10_000, 0.0) == ()
    assert len(queue.take(10_000, 0.5)) == 2


def test_a_newer_load_replaces_the_older_and_the_oldest_is_dropped() -> None:
    queue = LoadQueue(1e9, 0.0)
    queue.put(load(1, version=1), 9)
    queue.put(load(1, version=2), 9)
    assert queue.take(10_000, 0.0) == (load(1, version=2),)
    for n in range(2, LOADS_MAX + 2):
        queue.put(load(n), 9)
    assert (len(queue), queue.dropped) == (LOADS_MAX, 1)


def test_a_load_that_trembles_around_a_limit_stays_where_it_is() -> None:
    meter = LoadMeter()
    first = meter.measure(busy_slots=0.0, cpu=0.49, memory=0.2)
    assert load_levels(first) == LoadLevels(0, 3, 1, 0, 0)
    for cpu in (0.51, 0.49, 0.52, 0.5):
        assert meter.measure(busy_slots=0.0, cpu=cpu, memory=0.2) == first
    for _ in range(HELD_LOOKS - 1):
        assert meter.measure(busy_slots=0.0, cpu=0.56, memory=0.2) == first
    assert load_levels(meter.measure(busy_slots=0.0, cpu=0.56, memory=0.2)).cpu == 4
    for _ in range(HELD_LOOKS):
        assert load_levels(meter.measure(busy_slots=0.0, cpu=0.49, memory=0.2)).cpu == 4
    for _ in range(HELD_LOOKS):
        last = meter.measure(busy_slots=1.0, cpu=0.0, memory=9.9, user_active=True)
    assert load_levels(last) == LoadLevels(7, 0, 7, 0, 7)


def test_what_the_machine_does_counts_once_it_has_lasted_and_the_slots_at_once() -> None:
    meter = LoadMeter()
    quiet = meter.measure(busy_slots=0.0, cpu=0.05, memory=0.2)
    for _ in range(3):  # twitches, each broken off
        for _ in range(HELD_LOOKS - 1):
            assert meter.measure(busy_slots=0.0, cpu=0.9, memory=0.2) == quiet
        assert meter.measure(busy_slots=0.0, cpu=0.05, memory=0.2) == quiet
    for _ in range(HELD_LOOKS):
        last = meter.measure(busy_slots=0.0, cpu=0.9, memory=0.2)
    assert load_levels(last).cpu == 7
    assert load_levels(meter.measure(busy_slots=0.25, cpu=0.9, memory=0.2)).busy_slots == 2
    assert load_levels(meter.measure(busy_slots=0.5, cpu=0.9, memory=0.2)).busy_slots == 4


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=30))
def test_levels_are_within_one_of_the_truth(values: list[float]) -> None:
    meter = LoadMeter()
    for value in values:
        level = load_levels(meter.measure(busy_slots=value, cpu=0, memory=0)).busy_slots
        assert 0 <= level < LEVELS
        assert abs(level + 0.5 - min(max(value, 0), 1) * LEVELS) <= 0.75


def test_a_load_of_a_future_version_can_be_read() -> None:
    assert load_levels(b"\x01\x02") == LoadLevels(1, 2, 0, 0, 0)
    assert load_levels(b"\xff\x02\x03\x04\x05\x06") == LoadLevels(7, 2, 3, 4, 5)
