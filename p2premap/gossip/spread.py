"""Spreading news: to three peers at once, then on ticks, and on the back of every ping and ack.

A rumour is told about 4 + ln n times by each node that hears it for the first time (infection by rumour: Demers and
others 1987; piggybacking: SWIM, 4.1), and a newer one about the same thing replaces it, so there are never more
rumours than things to talk about, and never more than `rumours_max` (then those told most often are dropped: the
repair by hashes needs no rumour).

The three first ones are the successor on the ring, over its link where there is one, and two drawn at random. Random
telling alone leaves out one in twenty; passing news on along the ring leaves out nobody, and the random shortcuts
make it quick.

Load levels have a queue of their own with a budget in bytes a second: the oldest are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

from p2premap.gossip.context import Context
from p2premap.gossip.messages import FactEntry, LoadEntry, MemberEntry, Rumours
from p2premap.gossip.timers import Timer
from p2premap.ids import NodeId

ROUNDS_BASE: Final = 4
EAGER_MAX: Final = 64
"""More news than this in one step is a merger of clusters: it goes on ticks."""
OVERHEAD_BYTES: Final = 48
"""The most that a message takes besides its entries (tag, nonce, root, array heads)."""
MISFITS_MAX: Final = 8
"""A message is full when this many rumours did not fit into what is left."""
RECORD_BYTES: Final = 50
"""What a member's record takes besides its name and addresses."""
ADDRESS_BYTES: Final = 7
"""What an address takes besides its host."""
LOADS_MAX: Final = 512
LOAD_BURST_S: Final = 1.0
LOAD_SHARE_BYTES: Final = 420
"""The most that loads take of one message."""

Spreadable: TypeAlias = MemberEntry | FactEntry
Key: TypeAlias = tuple[NodeId, str | None]
Batch: TypeAlias = tuple[tuple[MemberEntry, ...], tuple[FactEntry, ...], tuple[LoadEntry, ...]]

NOTHING: Final[Batch] = ((), (), ())


def key_of(entry: Spreadable) -> Key:
    """What an entry is about: a newer one with the same key replaces it."""
    return (entry.node, entry.key if isinstance(entry, FactEntry) else None)


def size_of(entry: Spreadable | LoadEntry) -> int:
    """The most bytes that an entry takes on the wire (CBOR heads of up to 9 bytes for numbers)."""
    if isinstance(entry, MemberEntry):
        size = RECORD_BYTES + len(entry.name.encode())
        for host, _ in entry.addresses:
            size += ADDRESS_BYTES + len(host)
        return size
    if isinstance(entry, FactEntry):
        return 44 + len(entry.key.encode()) + len(entry.value)
    return 38 + len(entry.value)


def by_kind(entries: Sequence[Spreadable]) -> tuple[tuple[MemberEntry, ...], tuple[FactEntry, ...]]:
    """Members and facts apart, as messages carry them."""
    return (
        tuple(e for e in entries if isinstance(e, MemberEntry)),
        tuple(e for e in entries if isinstance(e, FactEntry)),
    )


class RumourQueue:
    """Rumours by how often they must still be told; those told least come first.

    Args:
        rumours_max: when full, the one told most often, and of those the oldest, is dropped.
    """

    __slots__ = ("_left", "_levels", "_max", "dropped")

    def __init__(self, rumours_max: int) -> None:
        self._max = rumours_max
        self._left: dict[Key, int] = {}
        self._levels: dict[int, dict[Key, tuple[Spreadable, int]]] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._left)

    def put(self, entry: Spreadable, times: int) -> None:
        """Tell this `times` times, and never again what it replaces."""
        key = key_of(entry)
        self.remove(key)
        if times < 1:
            return
        if len(self._left) >= self._max:
            self._drop_one()
        self._left[key] = times
        self._levels.setdefault(times, {})[key] = (entry, size_of(entry))

    def remove(self, key: Key) -> None:
        """Do not tell this any more."""
        left = self._left.pop(key, 0)
        if left:
            self._take_from(left, key)

    def take(self, budget_bytes: int) -> list[Spreadable]:
        """What to tell now, within the budget; each counts as told once."""
        chosen: list[tuple[Key, Spreadable, int]] = []
        misfits = 0
        for level in sorted(self._levels, reverse=True):
            for key, (entry, size) in self._levels[level].items():
                if size <= budget_bytes:
                    budget_bytes -= size
                    chosen.append((key, entry, size))
                else:
                    misfits += 1
                    if misfits == MISFITS_MAX:
                        break
            if misfits == MISFITS_MAX:
                break
        for key, entry, size in chosen:
            self._told(key, entry, size)
        return [entry for _, entry, _ in chosen]

    def _told(self, key: Key, entry: Spreadable, size: int) -> None:
        left = self._left[key]
        self._take_from(left, key)
        if left == 1:
            del self._left[key]
        else:
            self._left[key] = left - 1
            self._levels.setdefault(left - 1, {})[key] = (entry, size)

    def _take_from(self, level: int, key: Key) -> None:
        del self._levels[level][key]
        if not self._levels[level]:
            del self._levels[level]

    def _drop_one(self) -> None:
        lowest = self._levels[min(self._levels)]
        self.remove(next(iter(lowest)))
        self.dropped += 1


class LoadQueue:
    """Loads to pass on, the newest of each node, within a budget of bytes a second."""

    __slots__ = ("_budget_s", "_loads", "_tokens", "_when", "dropped")

    def __init__(self, bytes_per_s: float, now: float) -> None:
        self._budget_s = bytes_per_s
        self._tokens = bytes_per_s * LOAD_BURST_S
        self._when = now
        self._loads: dict[NodeId, tuple[LoadEntry, int]] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._loads)

    def put(self, entry: LoadEntry, times: int) -> None:
        """Tell this `times` times; when full, the oldest is dropped."""
        self._loads.pop(entry.node, None)
        if len(self._loads) >= LOADS_MAX:
            del self._loads[next(iter(self._loads))]
            self.dropped += 1
        self._loads[entry.node] = (entry, times)

    def take(self, budget_bytes: int, now: float) -> tuple[LoadEntry, ...]:
        """The newest ones that fit into this message and into the budget."""
        self._tokens = min(self._budget_s * LOAD_BURST_S, self._tokens + (now - self._when) * self._budget_s)
        self._when = now
        room = min(budget_bytes, LOAD_SHARE_BYTES, int(self._tokens))
        chosen: list[LoadEntry] = []
        for entry, _ in reversed(self._loads.values()):
            size = size_of(entry)
            if size > room:
                break
            room -= size
            self._tokens -= size
            chosen.append(entry)
        for entry in chosen:
            times = self._loads[entry.node][1]
            if times <= 1:
                del self._loads[entry.node]
            else:
                self._loads[entry.node] = (entry, times - 1)
        return tuple(chosen)


class Spread:
    """Decides what is told to whom, and when."""

    __slots__ = ("_context", "_fresh", "_source", "_timer", "loads", "rumours")

    def __init__(self, context: Context) -> None:
        self._context = context
        self.rumours = RumourQueue(context.config.rumours_max)
        self.loads = LoadQueue(context.config.load_bytes_per_s, context.now)
        self._fresh: list[Spreadable] = []
        self._source: NodeId | None = None
        self._timer: Timer | None = None

    @property
    def times(self) -> int:
        """How often this node tells one rumour."""
        return ROUNDS_BASE + math.ceil(math.log(max(1, self._context.table.live)))

    @property
    def budget_bytes(self) -> int:
        """The room for entries in one datagram."""
        return self._context.config.datagram_bytes_max - OVERHEAD_BYTES

    def news(self, entry: Spreadable, source: NodeId | None) -> None:
        """Heard for the first time: told to others at the end of this step, and on."""
        self._fresh.append(entry)
        self._source = source

    def load(self, entry: LoadEntry) -> None:
        """A load heard for the first time: told on ticks."""
        self.loads.put(entry, self.times)
        self._wake()

    def fill(self, room_bytes: int | None = None) -> Batch:
        """What a ping or an ack carries besides its own."""
        if not self.rumours and not self.loads:
            return NOTHING
        room = self.budget_bytes if room_bytes is None else room_bytes
        told = self.rumours.take(room)
        room -= sum(map(size_of, told))
        members, facts = by_kind(told)
        return members, facts, self.loads.take(room, self._context.now)

    def flush(self) -> None:
        """At the end of a step: tell what was heard in it."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        latest = {key_of(entry): entry for entry in fresh}
        small = [entry for entry in latest.values() if size_of(entry) <= self.budget_bytes]
        self._over_links([entry for entry in latest.values() if size_of(entry) > self.budget_bytes])
        eager = self.first_peers() if len(small) <= EAGER_MAX else []
        for entry in small:
            self.rumours.put(entry, self.times - len(eager))
        for message in _packed(small, self.budget_bytes):
            for peer in eager:
                self._context.tell(peer, message)
        self._source = None
        self._wake()

    def first_peers(self) -> list[NodeId]:
        """Whom to tell at once: the successor on the ring, the others at random; not the one who told us."""
        context = self._context
        avoid = [context.me] if self._source is None else [context.me, self._source]
        peers = [n for n in context.table.neighbours(context.me, 1) if n not in avoid]
        return self._and_random(peers, avoid, context.config.fanout)

    def _and_random(self, peers: list[NodeId], avoid: Sequence[NodeId], count: int) -> list[NodeId]:
        while len(peers) < count:
            peer = self._context.table.random_live(self._context.rng, (*avoid, *peers))
            if peer is None:
                break
            peers.append(peer)
        return peers

    def _over_links(self, large: list[Spreadable]) -> None:
        """Too large for a datagram: along the links, each node to its own; the repair reaches the rest."""
        for entry in large:
            members, facts = by_kind([entry])
            message = Rumours(members=members, facts=facts)
            for peer in self._context.links:
                if peer != self._source:
                    self._context.tell(peer, message)

    def _wake(self) -> None:
        if (self._timer is None or not self._timer.running) and (self.rumours or self.loads):
            self._timer = self._context.timers.at(self._context.now + self._context.config.spread_s, self._tick)

    def _tick(self) -> None:
        """Rumours to a few at random; loads alone, which are many and matter less, to one."""
        context = self._context
        for peer in self._and_random([], [context.me], context.config.fanout if self.rumours else 1):
            members, facts, loads = self.fill()
            if members or facts or loads:
                context.send(peer, Rumours(members=members, facts=facts, loads=loads))
        self._wake()


def _packed(entries: Sequence[Spreadable], budget_bytes: int) -> list[Rumours]:
    """Entries in as few datagrams as they need, in their order."""
    batches: list[list[Spreadable]] = []
    room = 0
    for entry in entries:
        size = size_of(entry)
        if size > room:
            batches.append([])
            room = budget_bytes
        room -= size
        batches[-1].append(entry)
    return [Rumours(members=members, facts=facts) for members, facts in map(by_kind, batches)]
