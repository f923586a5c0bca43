"""The mail of a partition becomes messages for its vertices.

Blocks of mail (`p2premap.worker.vertex.outbox`) name targets by numbers of their sender's; a table for each sender says
which *slot*, a place in the partition's list of vertices, that is. Where all senders send to the same targets as
before, the order that brings the messages together is that of before, too.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from p2premap.worker.vertex.columns import DTYPES, OBJECTS, Column, Growing, Ints, Longs, column, kind_of, stable_order
from p2premap.worker.vertex.combining import Combiner
from p2premap.worker.vertex.outbox import CHANNELS, HEAD, Block

NOBODY: Final = -1
"""The slot of an id that is no vertex."""
LISTED_AT_ONCE: Final = 1 << 14
"""Numbers take a quarter of the room until they are Python's: so many of them are at a time, or all of one vertex."""

Mask = npt.NDArray[np.bool_]


class Letter(NamedTuple):
    """The mail of one sender, unpacked.

    Args:
        ids: that it tells the numbers of.
        changes: of the graph, and of subscriptions.
        blocks: each with the numbers of its targets (None: as before) and its values.
    """

    source: int
    ids: list[Hashable]
    changes: list[Any]
    blocks: list[tuple[Block, Ints | None, Column | list[Any]]]


def unpack(source: int, mail: memoryview) -> Letter:
    """What a sender's outbox packed."""
    (size,) = HEAD.unpack_from(mail)
    at = HEAD.size + size
    ids, changes, heads = pickle.loads(mail[HEAD.size : at])  # noqa: S301  (of a member, in a worker)
    blocks: list[tuple[Block, Ints | None, Column | list[Any]]] = []
    for head in heads:
        block = Block(*head)
        targets: Ints | None = None
        if not block.known:
            targets = np.frombuffer(mail, np.int32, block.messages, at)
            at += targets.nbytes
        data = mail[at : at + block.size]
        at += block.size
        blocks.append((block, targets, _values(block.kind, data)))
    return Letter(source, ids, changes, blocks)


def _values(kind: str, data: memoryview) -> Column | list[Any]:
    if kind != OBJECTS:
        return np.frombuffer(data, DTYPES[kind])
    objects: list[Any] = pickle.loads(data)  # noqa: S301  (of a member, in a worker)
    return objects


class Tables:
    """Which slot each number of each sender is.

    Args:
        partitions: of the graph: the senders.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self.renew()

    def renew(self) -> None:
        """Senders number anew."""
        self._slots = [Growing() for _ in range(self._partitions)]
        self._ids: list[list[Hashable]] = [[] for _ in range(self._partitions)]
        self._strangers: dict[Hashable, list[tuple[int, int]]] = {}
        self._targets: dict[tuple[int, int], tuple[Ints, Ints]] = {}

    def learn(self, source: int, ids: Sequence[Hashable], index: dict[Hashable, int]) -> None:
        """A sender tells which ids it has numbered next."""
        slots = [index.get(id, NOBODY) for id in ids]
        known = len(self._ids[source])
        if NOBODY in slots:
            for number, (id, slot) in enumerate(zip(ids, slots, strict=True), known):
                if slot == NOBODY:
                    self._strangers.setdefault(id, []).append((source, number))
        self._slots[source].extend(slots)
        self._ids[source] += ids

    def appear(self, id: Hashable, slot: int) -> None:
        """There is a vertex of this id now."""
        for source, number in self._strangers.pop(id, ()):
            self._slots[source].all[number] = slot
            self._forget(source)

    def vanish(self, gone: dict[int, Hashable]) -> None:
        """These slots have no vertex any more."""
        slots = np.fromiter(gone, np.int32, len(gone))
        for source, table in enumerate(self._slots):
            for number in np.flatnonzero(np.isin(table.all, slots)).tolist():
                self._strangers.setdefault(gone[int(table.all[number])], []).append((source, number))
                table.all[number] = NOBODY
                self._forget(source)

    def _forget(self, source: int) -> None:
        for channel in range(CHANNELS):
            if (source, channel) in self._targets:
                numbers, _ = self._targets[source, channel]
                self._targets[source, channel] = numbers, self._slots[source].all[numbers]

    def slots(self, source: int, block: Block, targets: Ints | None) -> Ints:
        """The slot of each message of a block; the same array as before where nothing has changed."""
        if targets is not None:
            self._targets[source, block.channel] = np.array(targets), self._slots[source].all[targets]
        return self._targets[source, block.channel][1]

    def ids(self, source: int, channel: int) -> Iterator[Hashable]:
        """The ids of the targets of the block that came last."""
        return map(self._ids[source].__getitem__, self._targets[source, channel][0].tolist())


class Messages(NamedTuple):
    """The messages of all vertices, grouped by slot.

    Args:
        values: of all, one after the other. Numbers may stay an array where there are `starts`.
        starts: where those of each slot begin; one more than there are slots. None: `slots` have one each.
        slots: those that have one, where each has at most one; ascending.
        size: how many slots there were.
    """

    values: list[Any] | Column
    starts: Longs | None
    slots: Ints | None
    size: int

    def rows(self) -> Mask:
        """Which slots have any."""
        if self.slots is not None:
            mask = np.zeros(self.size, bool)
            mask[self.slots] = True
            return mask
        assert self.starts is not None, "one or the other"
        mask = self.starts[1:] > self.starts[:-1]
        return mask

    def of(self, rows: Longs | None, count: int) -> Iterable[Sequence[Any]]:
        """Those of each of these slots, ascending.

        Args:
            rows: None: all.
            count: of slots, now.
        """
        if self.slots is not None:
            return self._ones(self.slots, rows, count)
        assert self.starts is not None, "one or the other"
        starts = self.starts
        if count > self.size:
            starts = np.concatenate((starts, np.full(count - self.size, starts[-1])))
        first, end = (starts[:-1], starts[1:]) if rows is None else (starts[rows], starts[rows + 1])
        if isinstance(self.values, list):
            return map(self.values.__getitem__, map(slice, first.tolist(), end.tolist()))
        return chain.from_iterable(_listed_by_and_by(self.values, first, end))

    def _ones(self, slots: Ints, rows: Longs | None, count: int) -> Iterable[Sequence[Any]]:
        wanted = count if rows is None else len(rows)
        if len(slots) == wanted:  # all have one
            return zip(self.values)
        given: list[Sequence[Any]] = [()] * wanted
        places = slots if rows is None else np.searchsorted(rows, slots)
        for place, value in zip(places.tolist(), self.values, strict=True):
            given[place] = (value,)
        return given


NONE: Final = Messages([], None, np.zeros(0, np.int32), 0)


class Sorter:
    """Brings the messages of blocks together.

    Args:
        combiner: of the program.
    """

    def __init__(self, combiner: Combiner | None) -> None:
        self._combiner = combiner
        self._last: list[Ints] = []
        self._order: Longs | None = None
        self._starts: Longs | None = None

    def sort(self, blocks: Sequence[tuple[Ints, Column | list[Any]]], count: int) -> Messages:
        """The messages by slot.

        Args:
            blocks: slots and values, all of vertices that there are; in order of source.
            count: of slots.
        """
        if not blocks:
            return Messages([], None, np.zeros(0, np.int32), count)
        if self._combiner is not None:
            return self._combined(self._combiner, blocks, count)
        slots = [block[0] for block in blocks]
        same = len(slots) == len(self._last) and all(map(_is, slots, self._last))
        if not same or self._order is None or self._starts is None or len(self._starts) != count + 1:
            keys = slots[0] if len(slots) == 1 else np.concatenate(slots)
            self._order = stable_order(keys, count)
            self._starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(keys, minlength=count))))
            self._last = slots
        kinds = {kind_of(values) for _, values in blocks}
        arrays = [values for _, values in blocks if not isinstance(values, list)]
        if len(kinds) == 1 and OBJECTS not in kinds:
            return Messages(np.concatenate(arrays)[self._order], self._starts, None, count)
        flat = list(chain.from_iterable(_listed(values) for _, values in blocks))
        return Messages(list(map(flat.__getitem__, self._order.tolist())), self._starts, None, count)

    def _combined(self, combiner: Combiner, blocks: Sequence[tuple[Ints, Column | list[Any]]], count: int) -> Messages:
        arrays = [values for _, values in blocks if not isinstance(values, list)]
        alike = len(arrays) == len(blocks) and len({values.dtype for values in arrays}) == 1
        if not alike or not combiner.takes(arrays, len(blocks)):
            into: dict[int, Any] = {}
            for slots, values in blocks:
                combiner.fold(into, slots.tolist(), _listed(values))
            rows = sorted(into)
            return Messages([into[row] for row in rows], None, np.array(rows, np.int32), count)
        sums = np.zeros(count, arrays[0].dtype)
        has = np.zeros(count, bool)
        for (slots, _), values in zip(blocks, arrays, strict=True):
            there = has[slots]
            old = slots[there]
            fresh = values if not len(old) else np.where(there, combiner.pairs(sums[slots], values), values)
            sums[slots] = fresh
            has[slots] = True
        filled = np.flatnonzero(has).astype(np.int32)
        return Messages(sums[filled].tolist(), None, filled, count)


def _listed_by_and_by(values: Column, first: Longs, end: Longs) -> Iterator[Iterable[list[Any]]]:
    """Slices of an array as lists, several at a time; between one and the next there is nothing."""
    at = 0
    while at < len(first):
        start = first[at]
        to = max(int(np.searchsorted(end, start + LISTED_AT_ONCE, side="right")), at + 1)
        some: list[Any] = values[start : end[to - 1]].tolist()
        yield map(some.__getitem__, map(slice, (first[at:to] - start).tolist(), (end[at:to] - start).tolist()))
        at = to


def _is(left: Ints, right: Ints) -> bool:
    return left is right


def _listed(values: Column | list[Any]) -> list[Any]:
    return values if isinstance(values, list) else values.tolist()


def packed(messages: Messages) -> tuple[Any, ...]:
    """For a snapshot: numbers take eight bytes each."""
    values = column(messages.values) if isinstance(messages.values, list) else messages.values
    listed = messages.values if values is None else (kind_of(values), values.tobytes())
    starts = None if messages.starts is None else messages.starts.tobytes()
    slots = None if messages.slots is None else messages.slots.tobytes()
    return listed, starts, slots, messages.size


def unpacked(said: tuple[Any, ...]) -> Messages:
    """What `packed` packed."""
    listed, starts, slots, count = said
    values = listed if isinstance(listed, list) else np.frombuffer(listed[1], DTYPES[listed[0]])
    return Messages(
        values if starts is not None else _listed(values),
        None if starts is None else np.frombuffer(starts, np.int64),
        None if slots is None else np.frombuffer(slots, np.int32),
        count,
    )
