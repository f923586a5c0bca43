"""Repair by hashes: whatever rumours missed is found by any two nodes that ping each other.

Every ping and ack carries the root hash of all records and slow facts. Where an ack's root differs, the pinger sends
its 64 bucket hashes; the peer answers with the hashes of its entries in those buckets that differ; the pinger sends
the entries that the peer lacks and asks for those that it lacks itself. Nothing is sent that both have (anti-entropy:
Demers and others 1987; hash trees of one level suffice for 10,000 members).

Bounds: over datagrams a list of hashes is cut into ranges that each fit into one, at most `repair_datagrams_max` are
sent for one message, and a node begins at most one repair each `repair_s`. Buckets are taken in random order, so what
did not fit comes another time. While repairs teach neither side anything (one refuses what the other keeps, a table
being full), they become rarer. Over a link everything is sent at once, which is how a newcomer learns all members in
three round trips (and their loads with them); an entry too large for a datagram makes the pair bring up a link.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from p2premap.gossip.beliefs import Beliefs
from p2premap.gossip.context import Context
from p2premap.gossip.messages import (
    BUCKETS,
    ENTRIES_MAX,
    HASH_BYTES,
    Buckets,
    DigestRange,
    Digests,
    Entries,
    FactEntry,
)
from p2premap.gossip.spread import OVERHEAD_BYTES, Spreadable, by_kind, size_of
from p2premap.ids import Address, NodeId

LINK_BYTES_MAX: Final = 32 << 10
"""The most entries that one message over a link carries: with their loads below the cap on a datagram's decoder."""
RANGE_BYTES: Final = 32
"""What a range takes besides its hashes."""
WORD_MAX: Final = 2**63 - 1
FRUITLESS_MAX: Final = 8
"""Repairs in a row without a change here; from then on they become rarer, up to `BACKOFF_MAX` times."""
BACKOFF_MAX: Final = 64


class Repair:
    """Finds out what differs from a peer, and levels it."""

    def __init__(self, context: Context, beliefs: Beliefs, reach: Callable[[NodeId], object]) -> None:
        self._context = context
        self._beliefs = beliefs
        self._reach = reach
        self._next_at = context.now
        self._fruitless = 0
        self._root_then = 0

    def compare(self, peer: NodeId, root: int, address: Address | None) -> None:
        """An ack brought this root: begin a repair where it differs and one is due."""
        context = self._context
        if root == context.table.root:
            self._fruitless = 0
            return
        if address is not None and context.now < self._next_at:
            return
        self._fruitless = 0 if context.table.root != self._root_then else self._fruitless + 1
        self._root_then = context.table.root
        rarer = min(BACKOFF_MAX, 1 << max(0, self._fruitless - FRUITLESS_MAX))
        self._next_at = context.now + context.config.repair_s * rarer
        context.counters.repairs += 1
        context.reply(peer, address, Buckets(hashes=_joined(context.table.buckets)))

    def on_buckets(self, peer: NodeId, address: Address | None, message: Buckets) -> None:
        """Answer with the hashes of our entries where the buckets differ."""
        theirs = _parted(message.hashes)
        differing = [i for i, ours in enumerate(self._context.table.buckets) if ours != theirs[i]]
        self._context.rng.shuffle(differing)
        room = self._room(address)
        limit = self._messages_max(address)
        ranges: list[DigestRange] = []
        used = sent = 0
        for part in self._ranges(differing, room):
            size = RANGE_BYTES + len(part.hashes)
            if used + size > room or len(ranges) == ENTRIES_MAX:
                self._context.reply(peer, address, Digests(ranges=tuple(ranges)))
                ranges, used, sent = [], 0, sent + 1
                if sent == limit:
                    return
            ranges.append(part)
            used += size
        if ranges:
            self._context.reply(peer, address, Digests(ranges=tuple(ranges)))

    def _ranges(self, buckets: Sequence[int], room: int) -> Iterator[DigestRange]:
        """Our hashes in these buckets, in ranges small enough for one message; together they cover each bucket."""
        step = min(ENTRIES_MAX, (room - RANGE_BYTES) // HASH_BYTES)
        for bucket in buckets:
            words = sorted(word for member in self._context.table.in_bucket(bucket) for word in member.hashes())
            low = 0
            for start in range(0, max(1, len(words)), step):
                last = start + step >= len(words)
                high = WORD_MAX if last else words[start + step] - 1
                yield DigestRange(bucket=bucket, low=low, high=high, hashes=_joined(words[start : start + step]))
                low = high + 1

    def on_digests(self, peer: NodeId, address: Address | None, message: Digests) -> None:
        """Send what the peer lacks; ask for what we lack."""
        lacking: list[Spreadable] = []
        wanted: list[int] = []
        for part in message.ranges:
            theirs = dict.fromkeys(_parted(part.hashes))
            ours = self._entries(part.bucket)
            lacking += [e for word, e in ours.items() if part.low <= word <= part.high and word not in theirs]
            wanted += [word for word in theirs if word not in ours]
        self._send(peer, address, lacking, wanted)

    def on_entries(self, peer: NodeId, address: Address | None, message: Entries) -> None:
        """Merge what came; send what was asked for."""
        news = self._beliefs.hear(message.members, message.facts, message.loads, peer)
        self._context.counters.entries_repaired += news
        if message.wanted:
            asked: dict[int, list[int]] = {}
            for word in _parted(message.wanted):
                asked.setdefault(word % BUCKETS, []).append(word)
            found: list[Spreadable] = []
            for bucket, words in asked.items():
                ours = self._entries(bucket)
                found += [ours[word] for word in dict.fromkeys(words) if word in ours]
            self._send(peer, address, found, ())

    def _entries(self, bucket: int) -> dict[int, Spreadable]:
        """Our entries in a bucket, by hash."""
        found: dict[int, Spreadable] = {}
        for member in self._context.table.in_bucket(bucket):
            if member.hashed:
                found[member.hash] = member.entry
                for fact in member.facts.values():
                    found[fact.hash] = fact.entry
        return found

    def _send(self, peer: NodeId, address: Address | None, entries: list[Spreadable], wanted: Sequence[int]) -> None:
        room = self._room(address)
        limit = self._messages_max(address)
        fitting = [e for e in entries if size_of(e) <= room]
        if len(fitting) < len(entries) and peer not in self._context.links:
            self._reach(peer)
        # records before facts: a fact of an unknown member is not taken
        fitting.sort(key=lambda e: isinstance(e, FactEntry))
        sent = 0
        while (fitting or wanted) and sent < limit:
            batch, fitting, wanted_now, wanted = _cut(fitting, wanted, room)
            members, facts = by_kind(batch)
            self._context.reply(
                peer,
                address,
                Entries(
                    members=tuple(map(self._beliefs.aged, members)),
                    facts=facts,
                    wanted=_joined(wanted_now),
                    loads=self._beliefs.loads_of(members) if address is None else (),
                ),
            )
            sent += 1

    def _room(self, address: Address | None) -> int:
        return LINK_BYTES_MAX if address is None else self._context.config.datagram_bytes_max - OVERHEAD_BYTES

    def _messages_max(self, address: Address | None) -> int:
        if address is not None:
            return self._context.config.repair_datagrams_max
        return self._context.config.members_max


def _cut(
    entries: list[Spreadable], wanted: Sequence[int], room: int
) -> tuple[list[Spreadable], list[Spreadable], Sequence[int], Sequence[int]]:
    """What fits into one message, and what is left: first what is wanted, then entries."""
    asks = min(len(wanted), ENTRIES_MAX, room // HASH_BYTES)
    room -= asks * HASH_BYTES
    count = 0
    while count < min(len(entries), ENTRIES_MAX) and size_of(entries[count]) <= room:
        room -= size_of(entries[count])
        count += 1
    return entries[:count], entries[count:], wanted[:asks], wanted[asks:]


def _joined(words: Sequence[int]) -> bytes:
    return struct.pack(f">{len(words)}Q", *words)


def _parted(hashes: bytes) -> list[int]:
    count = len(hashes) // HASH_BYTES
    return list(struct.unpack_from(f">{count}Q", hashes))
