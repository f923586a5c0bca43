"""The member table: records under one merge rule, their hashes, and the ring.

**The merge rule.** A member's record is ordered by (boot, incarnation, state); the newest wins, whatever the order of
arrival. Only the owner raises boot and incarnation (SWIM, 4.2), so within one incarnation others can make a belief
worse (ALIVE < STALLED < SUSPECT < DEAD < LEFT), never better, and the owner refutes by raising its incarnation. Name
and address are attributes that belong to a (boot, incarnation); they end the order only so that it is total. A
maximum in a total order is commutative, associative and idempotent, so tables that heard the same things are equal.

**Hashes.** Each record and each slow fact has a 63-bit hash; buckets and the root are their exclusive or, kept up with
each change. ALIVE, STALLED and SUSPECT hash alike: a passing doubt is spread by rumour and ends in a refutation or a
death, both of which are hashed; repairing it would cost more than it is worth.

**Bases.** Ten thousand simulated nodes cannot each hold ten thousand records: they share one immutable `Base`, and a
table holds only what differs from it. A real node has an empty base.
"""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from p2premap.gossip.events import MemberState
from p2premap.gossip.messages import BUCKETS, FactEntry, MemberEntry
from p2premap.ids import Boot, Incarnation, NodeId

RANDOM_TRIES: Final = 16
"""Draws before a search for a random live member walks the ring instead: only when most are dead."""

_WORD: Final = 2**63 - 1

Precedence: TypeAlias = tuple[Boot, Incarnation, int, str, tuple[tuple[str, int], ...]]


def precedence(entry: MemberEntry) -> Precedence:
    """What orders the records of one member."""
    return (entry.boot, entry.incarnation, int(entry.state), entry.name, entry.addresses)


def newer(a: MemberEntry, b: MemberEntry) -> MemberEntry:
    """The one merge rule: of two records of one member, the one that stands.

    Commutative, associative and idempotent (`age` aside, which is not part of what is merged).
    """
    if a is b:
        return a
    return b if precedence(b) > precedence(a) else a


def newer_fact(a: FactEntry, b: FactEntry) -> FactEntry:
    """Of two facts of one node under one key, the one that its writer wrote last.

    The value ends the order only so that it is total: two lives of one boot (an old disk) may use a version twice.
    """
    return b if (b.boot, b.version, b.value) > (a.boot, a.version, a.value) else a


def is_live(state: MemberState) -> bool:
    """Whether a member in this state still counts: probed, told, asked."""
    return state < MemberState.DEAD


def bucket_of(node: NodeId) -> int:
    """The bucket that holds everything about this node."""
    return zlib.crc32(node) % BUCKETS


def hash_of_member(entry: MemberEntry) -> int:
    """63 bits that stand for a record in the root hash; the lowest six of every hash are its bucket."""
    state = entry.state if entry.state >= MemberState.DEAD else MemberState.ALIVE
    where = ";".join(f"{host}|{port}" for host, port in entry.addresses)
    text = f"{entry.boot}|{entry.incarnation}|{int(state)}|{where}|{entry.name}"
    return _word(b"member", entry.node, text)


def hash_of_fact(entry: FactEntry) -> int:
    """63 bits that stand for a slow fact, its value included: with an old disk a version may have been used before."""
    return _word(b"fact", entry.node, f"{entry.boot}|{entry.version}|{entry.key}|", entry.value)


def _word(kind: bytes, node: NodeId, text: str, value: bytes = b"") -> int:
    digest = hashlib.blake2b(node + text.encode(errors="surrogatepass") + value, digest_size=8, person=kind).digest()
    word = int.from_bytes(digest, "big") & _WORD
    return word - word % BUCKETS + bucket_of(node)


class Fact(NamedTuple):
    """A slow fact and its hash."""

    entry: FactEntry
    hash: int


NO_FACTS: Final[Mapping[str, Fact]] = MappingProxyType({})


class Member:
    """One member; never changed, only replaced, because a base shares it between tables.

    Args:
        entry: the record.
        facts: its slow facts of this boot, by key.
        hashed: False for one that has been dead for so long that it is no longer repaired, only remembered.
        live: whether it still counts.
    """

    __slots__ = ("entry", "facts", "hash", "live", "total")

    def __init__(self, entry: MemberEntry, facts: Mapping[str, Fact] = NO_FACTS, *, hashed: bool = True) -> None:
        self.entry = entry
        self.facts = facts
        self.live = is_live(entry.state)
        self.hash = hash_of_member(entry) if hashed else 0
        total = self.hash
        if hashed:
            for fact in facts.values():
                total ^= fact.hash
        self.total = total

    @property
    def hashed(self) -> bool:
        """Whether it counts in the root hash."""
        return self.hash != 0

    def with_fact(self, entry: FactEntry) -> Member:
        """The same member, with this fact."""
        return Member(self.entry, {**self.facts, entry.key: Fact(entry, hash_of_fact(entry))}, hashed=self.hashed)

    def hashes(self) -> Iterator[int]:
        """The hash of each of its entries that is repaired."""
        if self.hashed:
            yield self.hash
            for fact in self.facts.values():
                yield fact.hash


class Base:
    """Members that many tables of one process share: immutable."""

    __slots__ = ("buckets", "by_bucket", "ids", "live", "members", "root")

    def __init__(self, entries: Iterable[MemberEntry]) -> None:
        members = {entry.node: Member(entry) for entry in entries}
        self.ids: Sequence[NodeId] = tuple(sorted(members))
        self.members: Mapping[NodeId, Member] = members
        self.live = sum(member.live for member in members.values())
        buckets = [0] * BUCKETS
        by_bucket: list[list[NodeId]] = [[] for _ in range(BUCKETS)]
        for node in self.ids:
            buckets[bucket_of(node)] ^= members[node].total
            by_bucket[bucket_of(node)].append(node)
        self.buckets = tuple(buckets)
        self.by_bucket = tuple(map(tuple, by_bucket))
        self.root = 0
        for value in buckets:
            self.root ^= value


EMPTY: Final = Base(())


class MemberTable:
    """What one node believes of all members, itself included.

    A change costs O(log n), and a memory move of 8 bytes a member where the id is new. Whoever changes it sees to
    its limits (`p2premap.gossip.beliefs`).
    """

    __slots__ = ("_added", "_added_by_bucket", "_base", "_buckets", "_changed", "_forgotten", "live", "root")

    def __init__(self, base: Base = EMPTY) -> None:
        self._base = base
        self._changed: dict[NodeId, Member] = {}
        self._added: list[NodeId] = []
        self._added_by_bucket: list[dict[NodeId, None]] | None = None
        self._forgotten: dict[NodeId, None] = {}
        self._buckets: list[int] | None = None
        self.root = base.root
        self.live = base.live

    def __len__(self) -> int:
        return len(self._base.ids) + len(self._added) - len(self._forgotten)

    def __iter__(self) -> Iterator[Member]:
        """All members in the order of their ids."""
        for node in sorted((*self._base.ids, *self._added)):
            member = self.get(node)
            if member is not None:
                yield member

    def get(self, node: NodeId) -> Member | None:
        """The member, None where it is unknown."""
        member = self._changed.get(node)
        if member is None:
            member = self._base.members.get(node)
            if member is not None and self._forgotten and node in self._forgotten:
                return None
        return member

    @property
    def buckets(self) -> Sequence[int]:
        """The hash of each bucket."""
        return self._base.buckets if self._buckets is None else self._buckets

    def put(self, member: Member) -> None:
        """Take this member's record in place of the one before."""
        node = member.entry.node
        old = self.get(node)
        if old is None:
            self._add(node)
        self._changed[node] = member
        self._account(node, old, member)

    def forget(self, node: NodeId) -> None:
        """Know nothing of this member any more."""
        old = self.get(node)
        if old is None:
            return
        self._changed.pop(node, None)
        if node in self._base.members:
            self._forgotten[node] = None
        else:
            del self._added[bisect_left(self._added, node)]
            del self._added_index()[bucket_of(node)][node]
        self._account(node, old, None)

    def _add(self, node: NodeId) -> None:
        if node in self._forgotten:
            del self._forgotten[node]
        else:
            insort(self._added, node)
            self._added_index()[bucket_of(node)][node] = None

    def _added_index(self) -> list[dict[NodeId, None]]:
        if self._added_by_bucket is None:
            self._added_by_bucket = [{} for _ in range(BUCKETS)]
        return self._added_by_bucket

    def _account(self, node: NodeId, old: Member | None, new: Member | None) -> None:
        change = (old.total if old is not None else 0) ^ (new.total if new is not None else 0)
        self.live += (new is not None and new.live) - (old is not None and old.live)
        if change:
            if self._buckets is None:
                self._buckets = list(self._base.buckets)
            self.root ^= change
            self._buckets[bucket_of(node)] ^= change

    # --- who else ----------------------------------------------------------------------------------------------

    def in_bucket(self, bucket: int) -> Iterator[Member]:
        """The members of a bucket, in the order of their ids."""
        added: Iterable[NodeId] = () if self._added_by_bucket is None else self._added_by_bucket[bucket]
        for node in sorted((*self._base.by_bucket[bucket], *added)):
            member = self.get(node)
            if member is not None:
                yield member

    def around(self, node: NodeId, *, forward: bool = True) -> Iterator[Member]:
        """All other live members in the order of the ring, from this id on, forward or backward."""
        if not self._base.ids:
            yield from self._around_added(node, forward=forward)
            return
        for other in _walk(self._base.ids, self._added, node, forward=forward):
            member = self.get(other)
            if member is not None and member.live:
                yield member

    def _around_added(self, node: NodeId, *, forward: bool) -> Iterator[Member]:
        """The same where there is no base, as in a real node."""
        ids, changed = self._added, self._changed
        before, after = bisect_left(ids, node), bisect_right(ids, node)
        upper, lower = range(after, len(ids)), range(before)
        for place in chain(upper, lower) if forward else chain(reversed(lower), reversed(upper)):
            member = changed[ids[place]]
            if member.live:
                yield member

    def neighbours(self, node: NodeId, count: int, *, forward: bool = True) -> list[NodeId]:
        """The `count` live members that follow (or precede) this id on the ring; fewer where there are not so many."""
        found: list[NodeId] = []
        if count:
            for member in self.around(node, forward=forward):
                found.append(member.entry.node)
                if len(found) == count:
                    break
        return found

    def at(self, index: int) -> Member | None:
        """The member at a position from 0 to `positions`; None for one that was forgotten."""
        base = self._base.ids
        return self.get(base[index] if index < len(base) else self._added[index - len(base)])

    @property
    def positions(self) -> int:
        """How many positions `at` knows."""
        return len(self._base.ids) + len(self._added)

    def random_live(self, rng: Random, exclude: Sequence[NodeId]) -> NodeId | None:
        """A live member drawn at random, None where all live ones are excluded."""
        base, added = self._base.ids, self._added
        positions = len(base) + len(added)
        for _ in range(RANDOM_TRIES if positions else 0):
            index = int(rng.random() * positions)
            node = base[index] if index < len(base) else added[index - len(base)]
            if node not in exclude and (member := self.get(node)) is not None and member.live:
                return node
        start = self.at(int(rng.random() * positions)) if positions else None
        for member in self.around(start.entry.node if start is not None else NodeId(b"")):
            if member.entry.node not in exclude:
                return member.entry.node
        if start is not None and start.live and start.entry.node not in exclude:
            return start.entry.node
        return None


def _walk(a: Sequence[NodeId], b: Sequence[NodeId], node: NodeId, *, forward: bool) -> Iterator[NodeId]:
    """Two disjoint sorted sequences as one ring: every id but `node`, once."""
    if forward:
        i, j = bisect_right(a, node), bisect_right(b, node)
        yield from _merge(a, b, range(i, len(a)), range(j, len(b)), forward=True)
        yield from _merge(a, b, range(i), range(j), forward=True, stop=node)
    else:
        i, j = bisect_left(a, node) - 1, bisect_left(b, node) - 1
        yield from _merge(a, b, range(i, -1, -1), range(j, -1, -1), forward=False)
        yield from _merge(a, b, range(len(a) - 1, i, -1), range(len(b) - 1, j, -1), forward=False, stop=node)


def _merge(
    a: Sequence[NodeId], b: Sequence[NodeId], of_a: range, of_b: range, *, forward: bool, stop: NodeId | None = None
) -> Iterator[NodeId]:
    i, j = 0, 0
    while i < len(of_a) or j < len(of_b):
        if j == len(of_b) or (i < len(of_a) and (a[of_a[i]] < b[of_b[j]]) == forward):
            node = a[of_a[i]]
            i += 1
        else:
            node = b[of_b[j]]
            j += 1
        if node == stop:
            return
        yield node


class Permutation:
    """A shuffled order over the table's positions without a list: i -> (a * i + b) mod m, a and m coprime.

    Every position comes once a round; a round begins anew when the number of positions has changed.
    """

    __slots__ = ("_factor", "_index", "_offset", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._index = 0
        self._factor = 1
        self._offset = 0

    def next(self, size: int, rng: Random) -> int:
        """The next position of `size`."""
        if self._index >= self._size or size != self._size:
            self._shuffle(size, rng)
        self._index += 1
        return (self._factor * self._index + self._offset) % size

    def _shuffle(self, size: int, rng: Random) -> None:
        self._size = size
        self._index = 0
        self._offset = int(rng.random() * size)
        self._factor = 1 + int(rng.random() * size)
        while _common_divisor(self._factor, size) != 1:
            self._factor += 1


def _common_divisor(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a
