"""Inner loops of the array form: what goes over millions of edges, a few nanoseconds for each.

A `Block` is a set of edges between *columns*, which have values, and *rows*, which want them reduced. Two loops go over
it, by two orders of its edges. `Block.reduce` pulls: for each row, all its edges, whatever their columns hold.
`Block.scatter` pushes: only the edges of the columns that have something to say, as in Ligra (Shun and Blelloch, 2013).

Sums of floating point are scipy's products of sparse matrices where that is installed. Everything else is done by
`ufunc.reduceat`, some ten thousand edges at a time, so that what is gathered stays in the processor's cache.
`reduceat` returns a neighbour's value for an empty row, so empty rows are not among those that it sees.

Every loop adds in an order that depends on the edges alone: the same block and the same values give the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Keys: TypeAlias = npt.NDArray[np.int64]
Slots: TypeAlias = npt.NDArray[np.int32]
Mask: TypeAlias = npt.NDArray[np.bool_]

CHUNK_EDGES: Final = 1 << 14
PRODUCT_EDGES: Final = 1 << 17
"""As many ones are kept; scipy takes some 10 µs to begin a product."""
_SPAN: Final = 16
"""Keys are looked up in a table, not by sorting, where it has at most so many entries a key."""
_SPAN_LEAST: Final = 1 << 16


class Reducer(NamedTuple):
    """A combiner: a ufunc, and what it yields for nothing at all."""

    ufunc: np.ufunc
    identity: Any


def reducer(name: str, dtype: np.dtype[Any]) -> Reducer:
    """The combiner of this name for values of this type.

    Raises:
        ValueError: there is none of this name.
    """
    if name == "sum":
        return Reducer(np.add, dtype.type(0))
    if name not in ("min", "max"):
        raise ValueError(f"No combiner is called {name!r}: there are sum, min and max.")
    if dtype.kind == "f":
        ends = (-np.inf, np.inf)
    elif dtype.kind == "b":
        ends = (False, True)
    else:
        info = np.iinfo(dtype)
        ends = (info.min, info.max)
    if name == "min":
        return Reducer(np.minimum, dtype.type(ends[1]))
    return Reducer(np.maximum, dtype.type(ends[0]))


@functools.cache
def matrices() -> Any:  # noqa: ANN401  (a module)
    """`scipy.sparse`, or None where it is not installed."""
    try:
        import scipy.sparse
    except ImportError:
        return None
    return scipy.sparse


def ranges(starts: Array, counts: Array) -> Keys:
    """starts[0], starts[0] + 1, ... (counts[0] of them), starts[1], ... and so on."""
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    places = np.arange(total, dtype=np.int64)
    places += np.repeat(starts - (ends - counts), counts)
    return places


def distinct(keys: Keys) -> tuple[Keys, Slots]:
    """The distinct keys, ascending, and for each key where it is among them."""
    if not len(keys):
        return keys, np.empty(0, np.int32)
    low = int(keys.min())
    span = int(keys.max()) - low + 1
    if span <= _SPAN * len(keys) + _SPAN_LEAST:
        places = keys - low
        present = np.zeros(span, np.bool_)
        present[places] = True
        numbers = np.cumsum(present, dtype=np.int32)
        numbers -= 1
        return np.flatnonzero(present) + low, numbers[places]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.empty(len(keys), np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    inverse = np.empty(len(keys), np.int32)
    inverse[order] = np.cumsum(first, dtype=np.int32) - 1
    return ordered[first], inverse


def places_of(keys: Keys, wanted: Keys) -> Slots:
    """Where each of `wanted` is in `keys`, which ascend; -1: nowhere."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int32)
    places = np.searchsorted(keys, wanted)
    places[places == len(keys)] = 0
    found: Slots = np.where(keys[places] == wanted, places, -1).astype(np.int32)
    return found


class Chunk(NamedTuple):
    """Some rows, one after the other.

    Args:
        first, last: which of those that have edges.
        start, end: their edges.
    """

    first: int
    last: int
    start: int
    end: int


class Block:
    """Edges between columns and rows; a pair may have several.

    Args:
        rows, columns: of each edge, in any order.
        height, width: how many rows and columns there are.
        weights: of the edges.
    """

    def __init__(self, rows: Array, columns: Array, height: int, width: int, weights: Array | None = None) -> None:
        self.height, self.width, self.edges = height, width, len(rows)
        counts = np.bincount(rows, minlength=height)
        # those with the most edges first: the processor guesses well when a row ends if the last ones were as long
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        ranks = np.empty(height, np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        keys, bits = _joined(ranks[rows], columns, width)
        if weights is None:
            keys.sort()
        else:
            along = np.argsort(keys, kind="stable")
            keys, weights = keys[along], weights[along]
        self.weights = weights
        self.columns: Slots = (keys & ((1 << bits) - 1)).astype(np.int32)
        self.rows: Keys = order
        """Those that have edges, in the order in which these are kept."""
        self._places = np.full(height, len(order))
        """Where each row is among those; behind them, if it is not."""
        self._places[order] = np.arange(len(order))
        self.starts = np.zeros(len(self.rows) + 1, np.int64)
        """Where their edges begin in `columns`."""
        np.cumsum(counts[order], out=self.starts[1:])
        self._products: dict[bool, list[tuple[Chunk, Any]]] = {}
        self._pushed: tuple[Keys, Slots, Array | None] | None = None

    def spans(self) -> tuple[Keys, Keys]:
        """Where each row's edges begin in `columns`, and how many it has."""
        starts, counts = np.zeros(self.height, np.int64), np.zeros(self.height, np.int64)
        starts[self.rows], counts[self.rows] = self.starts[:-1], np.diff(self.starts)
        return starts, counts

    @functools.cached_property
    def degrees(self) -> Keys:
        """The number of edges of each column."""
        return np.bincount(self.columns, minlength=self.width)

    @functools.cached_property
    def _chunks(self) -> list[Chunk]:
        return self._cut(CHUNK_EDGES)

    def _cut(self, edges: int) -> list[Chunk]:
        """All rows, in chunks of about so many edges; a row is in one chunk."""
        chunks, first, starts = [], 0, self.starts
        while first < len(self.rows):
            last = int(np.searchsorted(starts, starts[first] + edges, side="right")) - 1
            last = max(last, first + 1)
            chunks.append(Chunk(first, last, int(starts[first]), int(starts[last])))
            first = last
        return chunks

    def prepare(self, how: Reducer, dtype: np.dtype[Any], edge: np.ufunc | None) -> None:
        """Make what `reduce` and `scatter` go through, which the first of them would else make in the middle of a
        superstep."""
        if _multiplies(how, dtype, edge):
            self._product(edge is not None)
        elif how.ufunc is not np.add:
            self.by_column()  # the smallest and the largest soon come from few vertices only

    def reduce(self, how: Reducer, values: Array, edge: np.ufunc | None = None) -> Array:
        """The values of each row's columns, reduced; the identity for a row without edges.

        Args:
            edge: what a weight does to a value on its way.
        """
        reduced = np.empty(len(self.rows) + 1, values.dtype)
        reduced[-1] = how.identity
        if _multiplies(how, values.dtype, edge):
            for chunk, matrix in self._product(edge is not None):
                reduced[chunk.first : chunk.last] = matrix @ values
            return reduced.take(self._places)
        for chunk, gathered in self.gather(values):
            if edge is not None:
                assert self.weights is not None, "a program that weighs has weights"
                edge(gathered, self.weights[chunk.start : chunk.end], out=gathered, casting="unsafe")
            starts = self.starts[chunk.first : chunk.last] - chunk.start
            how.ufunc.reduceat(gathered, starts, out=reduced[chunk.first : chunk.last])
        return reduced.take(self._places)

    def gather(self, values: Array) -> Iterator[tuple[Chunk, Array]]:
        """The values along the edges, chunk by chunk; the array is used again for the next one."""
        longest = max((chunk.end - chunk.start for chunk in self._chunks), default=0)
        places, gathered = np.empty(longest, np.intp), np.empty(longest, values.dtype)
        for chunk in self._chunks:
            count = chunk.end - chunk.start
            np.copyto(places[:count], self.columns[chunk.start : chunk.end])
            # "clip": numpy looks at "raise" before it writes anything, through a buffer
            values.take(places[:count], out=gathered[:count], mode="clip")
            yield chunk, gathered[:count]

    def _product(self, weighs: bool) -> list[tuple[Chunk, Any]]:
        """As sparse matrices, one below the other.

        Without weights the entries of all of them are the same ones, which stay in the processor's cache: one for each
        edge would take twice the memory that its column does.
        """
        if weighs not in self._products:
            weights = self.weights if weighs else None
            assert weighs == (weights is not None), "a program that weighs has weights"
            chunks = self._cut(PRODUCT_EDGES)
            ones = np.ones(max((chunk.end - chunk.start for chunk in chunks), default=0))
            self._products[weighs] = products = []
            for chunk in chunks:
                matrix = matrices().csr_array((chunk.last - chunk.first, self.width))
                # its constructor would copy what is a small part of an array
                matrix.indptr = (self.starts[chunk.first : chunk.last + 1] - chunk.start).astype(np.int32)
                matrix.indices = self.columns[chunk.start : chunk.end]
                matrix.data = ones[: len(matrix.indices)] if weights is None else weights[chunk.start : chunk.end]
                products.append((chunk, matrix))
        return self._products[weighs]

    def scatter(self, how: Reducer, columns: Array, values: Array, edge: np.ufunc | None = None) -> Array:
        """As `reduce`, of the edges of these columns only.

        Args:
            columns: distinct.
            values: one a column given.
        """
        offsets, rows, weights = self.by_column()
        starts = offsets[columns]
        counts = offsets[columns + 1] - starts
        edges = ranges(starts, counts)
        spread = np.repeat(values, counts)
        if edge is not None:
            assert weights is not None, "a program that weighs has weights"
            edge(spread, weights[edges], out=spread, casting="unsafe")
        result = np.full(self.height, how.identity, values.dtype)
        with np.errstate(invalid="ignore"):  # NaN is what it is, and no reason to warn
            how.ufunc.at(result, rows[edges], spread)
        return result

    def by_column(self) -> tuple[Keys, Slots, Array | None]:
        """Where each column's edges begin, their rows and weights."""
        if self._pushed is None:
            rows = np.repeat(self.rows.astype(np.int32), np.diff(self.starts))
            offsets = np.zeros(self.width + 1, np.int64)
            np.cumsum(self.degrees, out=offsets[1:])
            keys, bits = _joined(self.columns, rows, self.height)
            if self.weights is None:
                keys.sort()
                self._pushed = offsets, (keys & ((1 << bits) - 1)).astype(np.int32), None
            else:
                order = np.argsort(keys, kind="stable")
                self._pushed = offsets, rows[order], self.weights[order]
        return self._pushed

    def bytes_held(self) -> int:
        """What its arrays take, of those that have been needed so far."""
        held = self.columns, self.weights, self.rows, self._places, self.starts
        arrays: list[Array | None] = [*held, *(self._pushed or ())]
        for products in self._products.values():
            arrays += [matrix.indptr for _, matrix in products]
        arrays.append(self.__dict__.get("degrees"))
        owned = {id(array): array.nbytes for array in arrays if array is not None}
        return sum(owned.values())


def _multiplies(how: Reducer, dtype: np.dtype[Any], edge: np.ufunc | None) -> bool:
    """Whether values of this type are reduced by scipy."""
    return how.ufunc is np.add and dtype == np.float64 and edge in (None, np.multiply) and matrices() is not None


def commonest(block: Block, labels: Array, otherwise: Array) -> Array:
    """Of each row's columns the most frequent label, the smallest of several.

    Args:
        labels: of the columns.
        otherwise: what rows without edges get.
    """
    result = otherwise.copy()
    known, ranks = distinct(labels)
    for chunk, gathered in block.gather(ranks):
        starts = block.starts[chunk.first : chunk.last + 1]
        rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        keys, bits = _joined(rows, gathered, len(known))
        keys.sort()
        runs = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        lengths = np.diff(runs, append=len(keys))
        keys = keys[runs]
        # the longest run of each row; of equally long ones the smallest label's, which is why ranks are turned round
        scores = (lengths << bits) | (((1 << bits) - 1) - (keys & ((1 << bits) - 1)))
        keys >>= bits
        best = np.maximum.reduceat(scores, np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))))
        best = ((1 << bits) - 1) - (best & ((1 << bits) - 1))
        result[block.rows[chunk.first : chunk.last]] = known[best]
    return result


class Edges(NamedTuple):
    """Edges by vertex.

    Args:
        indptr: where the edges of each begin; one more than there are vertices.
        targets: keys of the other ends.
        directions: in a simple graph, in how many directions there was an edge, 1 or 2; else None.
    """

    indptr: Keys
    targets: Keys
    directions: npt.NDArray[np.uint8] | None


def simple(keys: Keys, indptr: Keys, targets: Keys, forward: Array | None) -> Edges:
    """The simple graph beneath one whose edges are seen from both ends: no loops, and each neighbour once.

    Args:
        forward: of each edge, whether it leads this way; None: all lead both ways.
    """
    neighbours, places = distinct(targets)
    slots = np.repeat(np.arange(len(keys)), np.diff(indptr))
    joined, bits = _joined(slots, places, len(neighbours))
    joined <<= 1
    if forward is not None:
        joined |= forward != 0
    joined = joined[keys[slots] != targets]
    joined.sort()
    if len(joined):
        joined = joined[np.concatenate(([True], joined[1:] != joined[:-1]))]
    pairs = joined >> 1
    first = np.concatenate(([True], pairs[1:] != pairs[:-1])) if len(pairs) else np.empty(0, np.bool_)
    runs = np.flatnonzero(first)
    directions = np.diff(runs, append=len(pairs)) if forward is not None else np.full(len(runs), 2)
    pairs = pairs[runs]
    starts = np.zeros(len(keys) + 1, np.int64)
    np.cumsum(np.bincount(pairs >> bits, minlength=len(keys)), out=starts[1:])
    return Edges(starts, neighbours[pairs & ((1 << bits) - 1)], directions.astype(np.uint8))


def _joined(high: Array, low: Array, width: int) -> tuple[Keys, int]:
    """Pairs as single numbers of the same order, and how many bits of each are the lower number."""
    bits = max(1, (width - 1).bit_length())
    keys = high.astype(np.int64)
    keys <<= bits
    keys |= low
    return keys, bits
