"""What the vertices of a partition send in a superstep, and how it becomes mail: lists first, arrays at the end.

There are three ways to send (to one, to a list, along all edges), each a `Batch`: values, and for every message a
*code*, which stands for the target's id. A sender numbers the ids that it sends to (`Codes`); each of them is told to
the partition that owns it once, and then goes by its number there.

Programs such as PageRank send to the same vertices in each superstep, in the same order. Then nothing of how the
messages are sorted changes (`Plan`), and mail holds values only.

Mail from one partition to another::

    bytes of head (4) | head, pickled: new ids, changes, blocks | the blocks' arrays
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np

from p2premap.worker.gang import Buffer
from p2premap.worker.vertex.columns import Column, Growing, Ints, Longs, column, kind_of, stable_order
from p2premap.worker.vertex.combining import Combiner
from p2premap.worker.vertex.owners import Keys, owners_of

CHANNELS: Final = 3
ONE, MANY, ALONG = range(CHANNELS)

HEAD: Final = struct.Struct("<I")


class Block(NamedTuple):
    """One batch's share for a partition, as its head says; the arrays follow.

    Args:
        channel: of the batch.
        known: the targets are those of the last block of this channel; else their numbers come first.
        messages: how many (or, combined, how many targets).
        kind: of values: see `columns`; if objects, they are pickled.
        size: of the values, in bytes.
    """

    channel: int
    known: bool
    messages: int
    kind: str
    size: int


class Batch(NamedTuple):
    """Messages that were sent in one way.

    Args:
        codes: of the targets; the same array as before where the targets are the same.
        values: each once, however many it goes to.
        which: of the values each message is; None: one after the other.
    """

    codes: Ints
    values: list[Any]
    which: Longs | None


class Codes(dict[Hashable, int]):
    """The numbers of ids.

    Args:
        partitions: of the graph.
        ranges: see `owners.owner`.
    """

    def __init__(self, partitions: int, ranges: Keys | None) -> None:
        super().__init__()
        self._partitions = partitions
        self._ranges = ranges
        self._new: list[Hashable] = []
        self._owners = Growing()
        self._locals = Growing()
        self._counts = [0] * partitions
        self.untold: list[list[Hashable]] = [[] for _ in range(partitions)]
        """Ids that their owners do not know the numbers of yet."""

    def __missing__(self, id: Hashable) -> int:
        number = self[id] = len(self)
        self._new.append(id)
        return number

    def of(self, ids: Sequence[Hashable]) -> Ints:
        """The code of each id."""
        return np.fromiter(map(self.__getitem__, ids), np.int32, len(ids))

    def _settle(self) -> None:
        if not self._new:
            return
        owners = owners_of(self._new, self._partitions, self._ranges)
        numbers = []
        for id, owner in zip(self._new, owners, strict=True):
            numbers.append(self._counts[owner])
            self._counts[owner] += 1
            self.untold[owner].append(id)
        self._owners.extend(owners)
        self._locals.extend(numbers)
        self._new = []

    @property
    def owners(self) -> Ints:
        """Of each code, the partition that owns it."""
        self._settle()
        return self._owners.all

    @property
    def locals(self) -> Ints:
        """Of each code, its number there."""
        self._settle()
        return self._locals.all


class Plan:
    """How the messages of a batch are sorted.

    Args:
        codes: of their targets.
        names: what the codes stand for.
        combines: messages to one target come together.
    """

    def __init__(self, codes: Ints, names: Codes, *, combines: bool) -> None:
        self.codes = codes
        self.told = False
        self.order: Longs
        self.starts: Longs | None = None
        partitions = len(names.untold)
        targets = codes
        if combines:
            self.order = stable_order(codes, len(names))
            targets = codes[self.order]
            first = np.ones(len(targets), bool)
            np.not_equal(targets[1:], targets[:-1], out=first[1:])
            self.starts = np.flatnonzero(first)
            targets = targets[self.starts]
        owners = names.owners[targets]
        self.split = np.argsort(owners.astype(np.uint16), kind="stable")
        self.bounds = [0, *np.cumsum(np.bincount(owners, minlength=partitions)).tolist()]
        self.targets = names.locals[targets][self.split]
        self._index: Longs | None = None
        self._sorted: Longs | None = None

    def sorted_index(self, index: Longs | None) -> Longs:
        """Which value each message is, in the order in which they are sent (or combined)."""
        order = self.split if self.starts is None else self.order
        if index is None:
            return order
        if self._sorted is None or self._index is not index:
            self._index, self._sorted = index, index[order]
        return self._sorted


class Outbox:
    """Makes mail of batches.

    Args:
        partitions, ranges: see `Codes`.
        combiner: of the program.
    """

    def __init__(self, partitions: int, ranges: Keys | None, combiner: Combiner | None) -> None:
        self._partitions = partitions
        self._ranges = ranges
        self._combiner = combiner
        self.renew()

    def renew(self) -> None:
        """Receivers may be others: number ids anew."""
        self.codes = Codes(self._partitions, self._ranges)
        self._plans: list[Plan | None] = [None] * CHANNELS

    def flush(self, batches: Iterable[tuple[int, Batch]], changes: Sequence[Sequence[object]]) -> list[list[Buffer]]:
        """The mail for each partition, in pieces.

        Args:
            batches: by channel, ascending.
            changes: what else to tell each partition.
        """
        blocks: list[list[Block]] = [[] for _ in range(self._partitions)]
        pieces: list[list[Buffer]] = [[] for _ in range(self._partitions)]
        for channel, batch in batches:
            plan = self._plans[channel]
            if plan is None or plan.codes is not batch.codes:
                plan = self._plans[channel] = Plan(batch.codes, self.codes, combines=self._combiner is not None)
            self._add(channel, batch, plan, blocks, pieces)
            plan.told = True
        mails: list[list[Buffer]] = []
        for to in range(self._partitions):
            ids, self.codes.untold[to] = self.codes.untold[to], []
            if not (ids or changes[to] or blocks[to]):
                mails.append([])
                continue
            head = pickle.dumps((ids, list(changes[to]), [tuple(block) for block in blocks[to]]), 5)
            mails.append([HEAD.pack(len(head)) + head, *pieces[to]])
        return mails

    def _add(
        self, channel: int, batch: Batch, plan: Plan, blocks: list[list[Block]], pieces: list[list[Buffer]]
    ) -> None:
        values, told = self._values(batch, plan), plan.told
        for to in range(self._partitions):
            start, end = plan.bounds[to], plan.bounds[to + 1]
            if start == end:
                continue
            part = values[start:end]
            kind = kind_of(part)
            data: Buffer = pickle.dumps(part, 5) if isinstance(part, list) else part.data.cast("B")
            blocks[to].append(Block(channel, told, end - start, kind, len(data)))
            if not told:
                pieces[to].append(plan.targets[start:end].data.cast("B"))
            pieces[to].append(data)

    def _values(self, batch: Batch, plan: Plan) -> Column | list[Any]:
        """What goes to each partition, one after the other; combined where there is a combiner."""
        values = column(batch.values)
        combiner = self._combiner
        index = plan.sorted_index(batch.which)
        if values is not None and (combiner is None or combiner.takes((values,), len(batch.codes))):
            taken = values[index]
            if combiner is None or plan.starts is None:
                return taken
            return combiner.groups(taken, plan.starts)[plan.split]
        chosen = list(map(batch.values.__getitem__, index.tolist()))
        if combiner is None or plan.starts is None:
            return chosen
        return self._folded(combiner, chosen, plan)

    @staticmethod
    def _folded(combiner: Combiner, values: list[Any], plan: Plan) -> list[Any]:
        assert plan.starts is not None, "there is a combiner"
        sizes = np.diff(plan.starts, append=len(values))
        groups = np.repeat(np.arange(len(plan.starts)), sizes)
        into: dict[int, Any] = {}
        combiner.fold(into, groups.tolist(), values)
        return list(map(into.__getitem__, plan.split.tolist()))


class Ones:
    """Messages to one vertex each."""

    def __init__(self) -> None:
        self.targets: list[Hashable] = []
        self.values: list[Any] = []
        self._last: list[Hashable] = []
        self._codes: Ints | None = None

    def forget(self) -> None:
        """Codes are given anew."""
        self._codes = None

    def drop(self) -> None:
        """Nothing has been sent."""
        self.targets, self.values = [], []

    def take(self, codes: Codes) -> Batch:
        """What has been sent."""
        if self._codes is None or self.targets != self._last:
            self._codes = codes.of(self.targets)
        batch = Batch(self._codes, self.values, None)
        self._last = self.targets
        self.drop()
        return batch


class Manies(Ones):
    """Messages to lists of vertices: `targets` of all one after the other, and `counts` of how many each went to."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []
        self._last_counts: list[int] = []
        self._index: Longs | None = None

    def drop(self) -> None:
        """Nothing has been sent."""
        super().drop()
        self.counts = []

    def take(self, codes: Codes) -> Batch:
        """What has been sent."""
        if self._index is None or self.counts != self._last_counts:
            self._index = np.repeat(np.arange(len(self.counts)), np.array(self.counts, np.int64))
        self._last_counts = self.counts
        return super().take(codes)._replace(which=self._index)


class Alongs:
    """Messages along all edges of vertices."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.values: list[Any] = []
        self._last: list[int] = []
        self._batch: tuple[Ints, Longs] | None = None
        self._edges: tuple[Ints, Longs] | None = None

    def forget(self) -> None:
        """Codes are given anew, or edges have changed."""
        self._batch = self._edges = None

    def drop(self) -> None:
        """Nothing has been sent."""
        self.rows, self.values = [], []

    def take(self, codes: Codes, edges_of: Callable[[], Sequence[Sequence[Hashable]]]) -> Batch:
        """What has been sent, along the edges of each row."""
        if self._edges is None:
            edges = edges_of()
            degrees = np.fromiter(map(len, edges), np.int64, len(edges))
            flat = codes.of(list(chain.from_iterable(edges)))
            self._edges = flat, np.concatenate((np.zeros(1, np.int64), np.cumsum(degrees)))
        if self._batch is None or self.rows != self._last:
            self._batch = self._along(np.array(self.rows, np.int64), *self._edges)
        batch = Batch(self._batch[0], self.values, self._batch[1])
        self._last = self.rows
        self.drop()
        return batch

    @staticmethod
    def _along(rows: Longs, flat: Ints, starts: Longs) -> tuple[Ints, Longs]:
        degrees = starts[rows + 1] - starts[rows]
        index = np.repeat(np.arange(len(rows)), degrees)
        if len(flat) == len(index) and np.array_equal(rows, np.arange(len(rows))):
            return flat, index
        ends = np.cumsum(degrees)
        places = np.arange(len(index)) + np.repeat(starts[rows] - (ends - degrees), degrees)
        return flat[places], index
