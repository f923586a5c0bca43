"""How values go along the edges between the partitions of a graph: agreed once, then sent without naming anybody.

Of each pair of partitions, the one that has the edges decides how values cross, when the graph is new:

- *mirror*: one value of each vertex here that has an edge there. The edges themselves are told to the other side once,
  which adds up what arrives.
- *combine*: one value for each vertex there that has an edge from here, added up on this side. The edges stay.

They are combined where that makes it much less: a hub that a million vertices point to costs one value, and so does
one that points to a million. After that a superstep's mail is the values alone, in the order agreed upon (dense), or
places and values where few vertices have something to say (sparse). A partition is its own neighbour like any other,
and reduces in order of source: the bits of a result do not depend on how partitions lie on processes.

Mail is *sections*: a kind, and arrays with their types. Programs that combine nothing want every value by itself, so
there all pairs mirror.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from p2premap.worker.gang import Buffer
from p2premap.worker.vertex.kernels import (
    Array,
    Block,
    Keys,
    Mask,
    Reducer,
    Slots,
    distinct,
    places_of,
    ranges,
)
from p2premap.worker.vertex.owners import owner

DENSE: Final = 1
SPARSE: Final = 2
ROWS: Final = 3
ALONG_EDGES: Final = (DENSE, SPARSE, ROWS)
"""Kinds of sections, of those that follow plans."""
_MIRROR: Final = 0
_COMBINE: Final = 1
MUCH: Final = 2
"""Values are combined where that makes so many times fewer of them. Else those who get them do the work, evenly."""
FEW: Final = 20
"""Edges are gone over one by one where less than a twentieth of them have something to carry (Ligra)."""
_SECTION: Final = struct.Struct("<BB6x")
_ARRAY: Final = struct.Struct("<8sq")
_TYPES: Final = frozenset("biufS")


def pack(kind: int, *arrays: Array) -> list[Buffer]:
    """A section of mail, as pieces."""
    heads = [_ARRAY.pack(array.dtype.str.encode(), array.size) for array in arrays]
    pieces: list[Buffer] = [_SECTION.pack(kind, len(arrays)) + b"".join(heads)]
    for array in arrays:
        pieces.append(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        if array.nbytes % 8:
            pieces.append(bytes(-array.nbytes % 8))
    return pieces


def unpack(mail: memoryview) -> Iterator[tuple[int, list[Array]]]:
    """The sections of some mail; the arrays are views of it.

    Raises:
        ValueError: it is no mail.
    """
    place = 0
    while place < len(mail):
        kind, count = _SECTION.unpack_from(mail, place)
        place += _SECTION.size
        heads = [_ARRAY.unpack_from(mail, place + i * _ARRAY.size) for i in range(count)]
        place += count * _ARRAY.size
        arrays = []
        for name, size in heads:
            dtype = np.dtype(name.rstrip(b"\0").decode())
            if dtype.kind not in _TYPES:
                raise ValueError(f"mail of type {dtype}")
            arrays.append(np.frombuffer(mail, dtype, size, place) if size else np.empty(0, dtype))
            place += -(-size * dtype.itemsize // 8) * 8
        yield kind, arrays


class _Out:
    """What goes to another partition.

    Args:
        slots: whose values, in order; None: of the partial sums, those from `base` on.
        base, count: places in the partial sums.
    """

    def __init__(self, slots: Keys | None, base: int, count: int) -> None:
        self.slots, self.base, self.count = slots, base, count


class _In:
    """What comes from another partition.

    Args:
        slots: which vertices get a value each, -1 for one that does not exist; None: the values are columns.
        base, count: places among the columns.
        here: there is no -1 in `slots`.
    """

    def __init__(self, slots: Keys | None, base: int, count: int) -> None:
        self.slots, self.base, self.count = slots, base, count
        self.here = slots is None or not (slots < 0).any()


class _Edges:
    """Edges that are being collected for a block."""

    def __init__(self, weighted: bool) -> None:
        self._weighted = weighted
        self.rows: list[Array] = []
        self.columns: list[Array] = []
        self.weights: list[Array] = []
        self.width = 0

    def add(self, rows: Array, columns: Array, weights: Array | None) -> None:
        self.rows.append(rows)
        self.columns.append(columns)
        if weights is not None:
            self.weights.append(weights)

    def block(self, height: int, width: int) -> Block:
        rows = np.concatenate(self.rows) if self.rows else np.empty(0, np.int32)
        columns = np.concatenate(self.columns) if self.columns else np.empty(0, np.int32)
        self.rows, self.columns = [], []
        weights = None
        if self._weighted:
            weights = np.concatenate(self.weights) if self.weights else np.empty(0)
        return Block(rows, columns, height, width, weights)


class Exchange:
    """One partition's side of all its plans.

    Args:
        keys: of its vertices, ascending.
        indptr, targets, weights: its edges. Weights only where the program uses them.
        bounds: the `ranges` of `p2premap.worker.vertex.owners.owner`.
        dtype: of the values.
        how: the combiner; None: there is none.
        edge: what a weight does to a value on its way.
    """

    def __init__(
        self,
        keys: Keys,
        indptr: Keys,
        targets: Keys,
        weights: Array | None,
        *,
        partitions: int,
        bounds: Keys | None = None,
        dtype: np.dtype[Any],
        how: Reducer | None,
        edge: np.ufunc | None = None,
    ) -> None:
        self.keys, self.dtype, self.how, self.edge = keys, dtype, how, edge
        self.partitions = partitions
        self._lost = 0
        self._nowhere: Array | None = None
        self._owned = (indptr, targets, weights, bounds)
        self._sorted: tuple[Keys, Slots, Keys] | None = None
        self._out: dict[int, _Out] = {}
        self._in: list[_In] = []
        weighted = weights is not None
        self._pulled, self._pushed = _Edges(weighted), _Edges(weighted)
        self._values: Array | None = None
        self._mask: Mask | None = None
        self._partial: Array | None = None
        self.degrees: Keys = np.diff(indptr)
        """Edges of each vertex."""

    # Agreeing

    def request(self, partition: int) -> list[Buffer]:
        """What this partition tells another one about the edges there; asked once each."""
        _, targets, weights, bounds = self._owned
        if self._sorted is None:
            owners = owner(targets, self.partitions, bounds)
            slots = np.repeat(np.arange(len(self.keys), dtype=np.int32), self.degrees)
            starts = np.zeros(self.partitions + 1, np.int64)
            np.cumsum(np.bincount(owners, minlength=self.partitions), out=starts[1:])
            self._sorted = np.argsort(owners, kind="stable"), slots, starts
        order, slots, starts = self._sorted
        chosen = order[starts[partition] : starts[partition + 1]]
        sources, weights = slots[chosen], weights[chosen] if weights is not None else None
        there, places = distinct(targets[chosen])
        if len(self._out) == self.partitions - 1:
            self._sorted = None
        counts = np.bincount(sources, minlength=len(self.keys))
        here = np.flatnonzero(counts)
        if self.how is not None and len(there) * MUCH < len(here):
            self._out[partition] = _Out(None, self._pushed.width, len(there))
            self._pushed.add(places + self._pushed.width, sources, weights)
            self._pushed.width += len(there)
            return pack(_COMBINE, there)
        # those with the most edges first: what is looked at again and again lies together
        ranked = here[np.argsort(-counts[here], kind="stable")]
        self._out[partition] = _Out(ranked, 0, len(ranked))
        ranks = np.empty(len(self.keys), np.int32)
        ranks[ranked] = np.arange(len(ranked), dtype=np.int32)
        told = pack(_MIRROR, there, ranks[here], counts[here].astype(np.int32), places)
        return told + (pack(_MIRROR, weights) if weights is not None else [])

    def agree(self, source: int, request: memoryview) -> list[Buffer]:
        """What another partition told of its edges to here, in order of source; the answer, [] = none: which of the
        vertices that they lead to do not exist."""
        assert source == len(self._in), "every partition tells, in order"
        sections = list(unpack(request))
        kind, arrays = sections[0]
        slots = places_of(self.keys, arrays[0])
        missing = arrays[0][slots < 0]
        answer = pack(kind, missing) if len(missing) else []
        if kind == _COMBINE:
            self._in.append(_In(slots.astype(np.int64), 0, len(slots)))
            return answer
        _, ranks, counts, places = arrays
        rows, columns = slots[places], np.repeat(ranks, counts)
        columns += self._pulled.width
        weights = sections[1][1][0] if len(sections) > 1 else None
        if len(missing):
            known = rows >= 0
            rows, columns = rows[known], columns[known]
            weights = weights[known] if weights is not None else None
        elif weights is not None:
            weights = weights.copy()  # the request does not stay
        self._in.append(_In(None, self._pulled.width, len(ranks)))
        self._pulled.add(rows, columns, weights)
        self._pulled.width += len(ranks)
        return answer

    def miss(self, answer: memoryview) -> None:
        """Take such an answer: what is sent there is lost, and counted."""
        indptr, targets, _, _ = self._owned
        _, (missing,) = next(unpack(answer))
        passed = np.zeros(len(targets) + 1, np.int64)
        np.cumsum(np.isin(targets, missing), out=passed[1:])
        lost = np.diff(passed[indptr])
        self._nowhere = lost if self._nowhere is None else self._nowhere + lost

    def lost(self) -> int:
        """How many values went along edges that lead nowhere, since this was last asked."""
        lost, self._lost = self._lost, 0
        return lost

    def settle(self) -> None:
        """Everybody has told: build what values go through."""
        self.pulled = self._pulled.block(len(self.keys), self._pulled.width)
        self.pushed = self._pushed.block(self._pushed.width, len(self.keys))
        if self.how is not None:
            self.pulled.prepare(self.how, self.dtype, self.edge)
            self.pushed.prepare(self.how, self.dtype, self.edge)
        self._columns = np.empty(self.pulled.width, self.dtype)
        self.begin()

    # Sending

    def still(self) -> None:
        """Nothing is sent along edges, so far."""
        self._values = self._mask = self._partial = None
        self._rows: tuple[Keys, tuple[Array, ...]] | None = None

    def put(self, values: Array, mask: Mask | None) -> int:
        """Send these values along the edges of the vertices in `mask`, or of all; how many edges that are.

        The arrays must stay as they are until the mail has been fetched.
        """
        active = int(self.degrees[mask].sum()) if mask is not None else int(self.degrees.sum())
        if not active:
            return 0
        self._values, self._mask = values, mask
        if self._nowhere is not None:
            self._lost += int(self._nowhere.sum() if mask is None else self._nowhere[mask].sum())
        if self.how is not None and self.pushed.height:
            if mask is None:
                self._partial = self.pushed.reduce(self.how, values, self.edge)
            elif active * FEW < self.degrees.sum():
                slots = np.flatnonzero(mask)
                self._partial = self.pushed.scatter(self.how, slots, values[slots], self.edge)
            else:
                quiet = np.where(mask, values, self.how.identity)
                self._partial = self.pushed.reduce(self.how, quiet, self.edge)
        return active

    def put_rows(self, offsets: Keys, arrays: tuple[Array, ...]) -> int:
        """Send each vertex's part of some arrays to all partitions in which it has an edge, where everything is
        mirrored; how many entries it are that are sent on.

        Args:
            offsets: where each vertex's part begins; one more than there are vertices.
        """
        assert self.how is None, "without a combiner everything is mirrored"
        self._rows = offsets, arrays
        return int(offsets[-1])

    def mail(self, partition: int) -> list[Buffer]:
        """The sections for another partition; [] = none."""
        return self._along(partition) + self._rows_for(partition)

    def _rows_for(self, partition: int) -> list[Buffer]:
        out = self._out[partition]
        if self._rows is None or not out.count:
            return []
        assert out.slots is not None, "everything is mirrored"
        offsets, arrays = self._rows
        counts = offsets[out.slots + 1] - offsets[out.slots]
        entries = ranges(offsets[out.slots], counts)
        return pack(ROWS, counts.astype(np.int32), *(array[entries] for array in arrays))

    def _along(self, partition: int) -> list[Buffer]:
        out, values = self._out[partition], self._values
        if values is None or not out.count:
            return []
        if out.slots is None:
            assert self._partial is not None, "put made the partial sums"
            assert self.how is not None, "without a combiner everything is mirrored"
            values = self._partial[out.base : out.base + out.count]
            places = np.flatnonzero(values != self.how.identity) if self._mask is not None else None
        elif self._mask is not None:
            places = np.flatnonzero(self._mask[out.slots])
            out_slots = out.slots[places]
            values = values[out_slots]
            return self._section(places, values, out.count)
        else:
            return pack(DENSE, values.take(out.slots))
        if places is None:
            return pack(DENSE, values)
        return self._section(places, values[places], out.count)

    def _section(self, places: Keys, values: Array, count: int) -> list[Buffer]:
        """Dense where that is shorter and possible: without a combiner, nothing stands for no value."""
        if not len(places):
            return []
        size = values.dtype.itemsize
        if self.how is None or len(places) * (size + 4) < count * size:
            return pack(SPARSE, places.astype(np.int32), values)
        whole = np.full(count, self.how.identity, values.dtype)
        whole[places] = values
        return pack(DENSE, whole)

    # Receiving

    def begin(self) -> None:
        """An empty inbox."""
        self._came: list[tuple[int, Array | None, Array]] = []
        self._rows_came: list[tuple[int, Sequence[Array]]] = []

    def take(self, source: int, kind: int, arrays: Sequence[Array]) -> None:
        """A section of another partition; in order of source. Views into mail are used up by `reduce`."""
        if kind == DENSE:
            self._came.append((source, None, arrays[0]))
        elif kind == ROWS:
            self._rows_came.append((source, arrays))
        else:
            self._came.append((source, arrays[0], arrays[1]))

    def reduce(self) -> Array | None:
        """What came, reduced by vertex; None: nothing did. The inbox is empty afterwards."""
        assert self.how is not None, "a program without a combiner asks for columns"
        if not self._came:
            return None
        result = self._reduce_columns(self.how)
        for source, places, values in self._came:
            plan = self._in[source]
            if plan.slots is None:
                continue
            slots = plan.slots if places is None else plan.slots[places]
            if not plan.here:
                known = slots >= 0
                slots, values = slots[known], values[known]
            result[slots] = self.how.ufunc(result[slots], values)
        self._came = []
        return result

    def _reduce_columns(self, how: Reducer) -> Array:
        mirrored = [(self._in[s], places, values) for s, places, values in self._came if self._in[s].slots is None]
        if all(places is not None for _, places, _ in mirrored):
            columns = [places + plan.base for plan, places, _ in mirrored if places is not None]
            active = np.concatenate(columns) if columns else np.empty(0, np.int64)
            if int(self.pulled.degrees[active].sum()) * FEW < self.pulled.edges or not len(active):
                values = np.concatenate([values for _, _, values in mirrored]) if columns else self._columns[:0]
                return self.pulled.scatter(how, active, values, self.edge)
        whole = self._columns
        if len(mirrored) < sum(1 for plan in self._in if plan.slots is None) or any(
            places is not None for _, places, _ in mirrored
        ):
            whole[:] = how.identity
        self._fill(mirrored)
        return self.pulled.reduce(how, whole, self.edge)

    def _fill(self, mirrored: Sequence[tuple[_In, Array | None, Array]]) -> None:
        for plan, places, values in mirrored:
            column = self._columns[plan.base : plan.base + plan.count]
            if places is None:
                column[:] = values
            else:
                column[places] = values

    def columns(self) -> tuple[Array, Mask | None]:
        """Without a combiner: the value of each column of `pulled`, 0 where nothing came, and which have one (None:
        all). The inbox is empty afterwards."""
        mirrored = [(self._in[s], places, values) for s, places, values in self._came]
        self._fill(mirrored)
        whole = len(mirrored) == sum(1 for plan in self._in if plan.count)
        self._came = []
        if whole and all(places is None for _, places, _ in mirrored):
            return self._columns, None
        there = np.zeros(self.pulled.width, np.bool_)
        for plan, places, _ in mirrored:
            column = there[plan.base : plan.base + plan.count]
            column[slice(None) if places is None else places] = True
        self._columns[~there] = 0
        return self._columns, there

    def rows(self) -> tuple[Keys, list[Array]] | None:
        """Without a combiner: where each column's entries begin, and the arrays that `put_rows` was given; None:
        nothing came."""
        if not self._rows_came:
            return None
        counts = np.zeros(self.pulled.width, np.int64)
        for source, (each, *_) in self._rows_came:
            plan = self._in[source]
            counts[plan.base : plan.base + plan.count] = each
        offsets = np.zeros(self.pulled.width + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        columns = zip(*(arrays[1:] for _, arrays in self._rows_came), strict=True)
        joined = [np.concatenate(several) for several in columns]
        self._rows_came = []
        return offsets, joined
