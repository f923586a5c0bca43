"""Two cores level what differs between them, and send nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.config import GossipConfig
from p2premap.gossip.events import Dial, Received, SendDatagram, SendLink, SetFact
from p2premap.gossip.messages import MESSAGES, Ack, Buckets, Digests, Entries, Rumours
from p2premap.wire import Registry
from tests.gossip.dialogue import Dialogue, address, fact, load, record
from tests.gossip.harness import node_id

REGISTRY = Registry(MESSAGES, header_bytes_max=64 << 10)


class Pair:
    """Two nodes (both play node 0 to the world, which does not matter here) that only exchange repairs."""

    def __init__(self, a: Dialogue, b: Dialogue, *, link: bool) -> None:
        self.a, self.b = a, b
        self.link = link
        self.messages: list[object] = []

    def repair(self) -> None:
        """What follows from an ack of b that reaches a."""
        where = None if self.link else address(50)
        queue: list[tuple[Dialogue, object]] = [(self.a, Ack(nonce=0, root=self.b.core.root_hash))]
        while queue:
            to, message = queue.pop(0)
            if isinstance(message, (Buckets, Digests, Entries)):
                self.messages.append(message)
                size = len(REGISTRY.encode(message))
                assert size <= (64 << 10 if self.link else to.config.datagram_bytes_max)
            to.now = max(self.a.now, self.b.now)
            other = self.b if to is self.a else self.a
            for effect in to.give(Received(sender=node_id(50), address=where, message=message)):  # type: ignore[arg-type]
                kinds = (SendLink,) if self.link else (SendDatagram,)
                if isinstance(effect, kinds) and isinstance(effect.message, (Buckets, Digests, Entries)):
                    queue.append((other, effect.message))

    def of(self, kind: type) -> list:
        return [m for m in self.messages if isinstance(m, kind)]


def told(d: Dialogue, members: list[int], facts: tuple = ()) -> Dialogue:
    for start in range(0, len(members), 500):
        d.hear(1, Rumours(members=tuple(record(n) for n in members[start : start + 500])))
    d.hear(1, Rumours(facts=facts))
    return d


@pytest.mark.parametrize("link", [True, False])
def test_only_what_differs_is_sent(link: bool) -> None:
    both = list(range(1, 40))
    a = told(Dialogue(), [*both, 50], (fact(1), fact(2, value=b"old")))
    b = told(Dialogue(), [*both, 51, 52], (fact(1), fact(2, value=b"new", version=2)))
    pair = Pair(a, b, link=link)
    pair.repair()
    assert a.core.root_hash == b.core.root_hash
    assert sum(len(m.members) for m in pair.of(Entries)) == 3
    # the older fact travels too: a hash does not tell which of two is the newer
    assert sum(len(m.facts) for m in pair.of(Entries)) <= 2
    assert len(pair.of(Buckets)) == 1


def test_a_newcomer_learns_everything_over_a_link_in_one_go() -> None:
    a = Dialogue()
    b = told(Dialogue(), list(range(1, 1500)), tuple(fact(n) for n in range(1, 60)))
    b.hear(1, Rumours(loads=tuple(load(n, b"12345") for n in range(1, 60))))
    pair = Pair(a, b, link=True)
    pair.repair()
    assert len(a.core.members()) == 1500
    assert len([v for v in a.core.members() if v.load]) == 59
    assert 2 < len(pair.of(Entries)) < 12
    pair.repair()  # a fact that came in a message before its member's waits for the next ping
    assert a.core.root_hash == b.core.root_hash


def test_over_datagrams_it_goes_on_in_pieces() -> None:
    a = Dialogue()
    b = told(Dialogue(), list(range(1, 400)), tuple(fact(n, value=b"x" * 300) for n in range(1, 100)))
    pair = Pair(a, b, link=False)
    rounds = 0
    while a.core.root_hash != b.core.root_hash:
        rounds += 1
        assert rounds < 60
        pair.messages.clear()
        pair.repair()
        assert len(pair.of(Digests)) <= 8
        a.now += 1.0
    assert rounds > 1


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 2)), max_size=20),
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 2)), max_size=20),
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3)), max_size=10),
    st.booleans(),
)
def test_any_two_tables_become_equal(
    ours: list[tuple[int, int]], theirs: list[tuple[int, int]], facts: list[tuple[int, int]], link: bool
) -> None:
    a, b = Dialogue(), Dialogue()
    for d, records in ((a, ours), (b, theirs)):
        for number, incarnation in records:
            d.hear(1, Rumours(members=(record(number, incarnation=incarnation),)))
    for i, (number, version) in enumerate(facts):
        (a if i % 2 else b).hear(1, Rumours(facts=(fact(number, version=version, value=bytes([version])),)))
    pair = Pair(a, b, link=link)
    for _ in range(6):
        pair.repair()
        a.now += 70.0
    assert a.core.root_hash == b.core.root_hash
    assert a.core.members() == b.core.members()


def test_repairs_by_datagram_keep_their_distance() -> None:
    d = Dialogue(3)
    begun = []
    for step in range(100):
        d.now += 0.05
        d.hear(1, Ack(nonce=step, root=12345))
        begun += [d.now] * len(d.sent(Buckets))
    gaps = [b - a for a, b in pairwise(begun)]
    assert min(gaps) >= 0.5


def test_repairs_that_teach_nothing_become_rare() -> None:
    d = Dialogue(3)
    begun = 0
    for step in range(600):
        d.now += 1.0
        d.hear(1, Ack(nonce=step, root=12345))
        begun += len(d.sent(Buckets))
    assert begun < 50
    d.hear(1, Ack(nonce=1, root=d.core.root_hash))
    d.hear(1, Rumours(members=(record(9),)))
    d.now += 40.0
    d.hear(1, Ack(nonce=1, root=12345))
    assert d.sent(Buckets)


def test_a_fact_too_large_for_a_datagram_brings_up_a_link() -> None:
    a, b = told(Dialogue(), [50]), told(Dialogue(), [50])
    b.give(SetFact(key="packages", value=b"x" * 4_000))
    pair = Pair(a, b, link=False)
    pair.repair()
    assert Dial in [type(e) for _, e in b.log]
    pair = Pair(a, b, link=True)
    pair.repair()
    sizes = [len(f.value) for m in pair.of(Entries) for f in m.facts]
    assert sizes == [4_000]


def test_bad_hashes_change_nothing() -> None:
    d = Dialogue(3)
    root = d.core.root_hash
    d.hear(1, Entries(wanted=b"12345678" * 100))
    assert d.effects == []
    d.hear(1, Entries(wanted=b"123"))
    assert (d.effects, d.core.root_hash) == ([], root)
    assert GossipConfig().repair_datagrams_max == 8
