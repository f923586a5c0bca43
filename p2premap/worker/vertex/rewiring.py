"""Changes of the graph in the array form: what a partition asks for, and what becomes of its arrays.

What is asked for in a superstep travels with its mail, and is made when all of that is here, in Pregel's order (see
`p2premap.worker.vertex.changes`). Where edges are seen from both ends, both ends are told. An edge to be removed that
is not there, a vertex to be added that is there: nothing happens.

The arrays of a partition are then others than those of its graph blob, and are written with its state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from p2premap.vertex.loading import BOTH, STRINGS, Reading
from p2premap.worker.gang import Buffer
from p2premap.worker.vertex.exchange import pack
from p2premap.worker.vertex.graphfile import Graph
from p2premap.worker.vertex.kernels import Array, Keys, Mask, distinct, places_of, ranges
from p2premap.worker.vertex.names import add_names, packed_names
from p2premap.worker.vertex.owners import Owners, hashed, owner

REMOVE_EDGES: Final = 7
REMOVE_VERTICES: Final = 8
ADD_VERTICES: Final = 9
ADD_EDGES: Final = 10
CHANGES: Final = (REMOVE_EDGES, REMOVE_VERTICES, ADD_VERTICES, ADD_EDGES)
"""Kinds of sections."""


class Rewired(NamedTuple):
    """What changes came to.

    Args:
        before: where each vertex was among those before, -1: it is new; None: the vertices are the same.
    """

    graph: Graph
    before: Keys | None


class _Asked(NamedTuple):
    """Changes of one kind that are wanted: to whom each of them goes, and columns."""

    kind: int
    owners: Owners
    columns: tuple[Array, ...]


class Rewiring:
    """One partition's side of all changes.

    Args:
        partitions, ranges: see `owners.owner`.
        reading: how the graph was read.

    Attributes:
        asked: how many changes this partition has asked for in this superstep.
        added: how many of them are vertices to be added.
    """

    def __init__(self, partitions: int, ranges: Keys | None, reading: Reading) -> None:
        self._partitions, self._ranges = partitions, ranges
        self._both = reading.view == BOTH
        self._marked = self._both and not reading.undirected
        self._text = reading.ids == STRINGS
        self._asked: list[_Asked] = []
        self._came: dict[int, list[Sequence[Array]]] = {}
        self.asked = self.added = 0

    # --- asking ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A superstep begins."""
        self._asked = []
        self.asked = self.added = 0

    def add_vertices(self, keys: Keys) -> None:
        """Ids that are integers."""
        self._ask(ADD_VERTICES, keys)
        self.added += len(keys)

    def add_names(self, names: Sequence[bytes]) -> None:
        """Ids that are text."""
        keys = np.fromiter(map(hashed, names), np.int64, len(names))
        self._ask(ADD_VERTICES, keys, np.array(names, np.bytes_))
        self.added += len(keys)

    def remove_vertices(self, keys: Keys) -> None:
        """By key."""
        self._ask(REMOVE_VERTICES, keys)

    def change_edges(self, kind: int, sources: Keys, targets: Keys, weights: Array | None) -> None:
        """Add or remove edges."""
        self._ask_ends(kind, sources, targets, weights, forward=1)
        if self._both:
            others = np.flatnonzero(sources != targets)  # a loop stands once
            weights = None if weights is None else weights[others]
            self._ask_ends(kind, targets[others], sources[others], weights, forward=0)

    def _ask_ends(self, kind: int, sources: Keys, targets: Keys, weights: Array | None, *, forward: int) -> None:
        marks = np.full(len(sources), forward, np.uint8)
        self._ask(kind, sources, targets, marks, *(() if weights is None else (weights,)))

    def _ask(self, kind: int, keys: Keys, *columns: Array) -> None:
        if len(keys):
            self._asked.append(_Asked(kind, owner(keys, self._partitions, self._ranges), (keys, *columns)))
            self.asked += len(keys)

    def mail(self, partition: int) -> list[Buffer]:
        """The sections for another partition; [] = none."""
        pieces: list[Buffer] = []
        for asked in self._asked:
            chosen = np.flatnonzero(asked.owners == partition)
            if len(chosen):
                pieces += pack(asked.kind, *(column[chosen] for column in asked.columns))
        return pieces

    # --- making ---------------------------------------------------------------------------------------------------

    def take(self, kind: int, columns: Sequence[Array]) -> None:
        """A section of another partition; in order of source. It is used up by `rewired`."""
        self._came.setdefault(kind, []).append(columns)

    def rewired(self, graph: Graph) -> Rewired | None:
        """The graph with all that has come; None: nothing has.

        Raises:
            VertexError: two ids have the same hash.
        """
        came, self._came = self._came, {}
        if not came:
            return None
        kept = _kept(graph, _edges(came.get(REMOVE_EDGES, ())), marked=self._marked)
        keys, before = _vertices(graph, came)
        arrays: dict[str, Array] = {"keys": keys}
        if self._text:
            arrays |= _names(graph, keys, came.get(ADD_VERTICES, ()))
        arrays |= self._rows(graph, keys, before, kept, _edges(came.get(ADD_EDGES, ())))
        same = np.array_equal(before, np.arange(len(graph.keys)))
        return Rewired(Graph(graph.meta, arrays), None if same else before)

    def _rows(self, graph: Graph, keys: Keys, before: Keys, kept: Mask, added: _Edges) -> dict[str, Array]:
        """The edges that stay and those that come, by vertex."""
        places = np.full(len(graph.keys), -1, np.int64)
        there = np.flatnonzero(before >= 0)
        places[before[there]] = there
        rows = np.repeat(places, np.diff(graph.indptr))
        kept = kept & (rows >= 0)
        slots = places_of(keys, added.sources)
        known = slots >= 0
        rows = np.concatenate((rows[kept], slots[known]))
        order = np.argsort(rows, kind="stable")

        def joined(old: Array, new: Array) -> Array:
            column: Array = np.concatenate((old[kept], new[known]))[order]
            return column

        indptr = np.zeros(len(keys) + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=len(keys)), out=indptr[1:])
        arrays = {"indptr": indptr, "targets": joined(graph.targets, added.targets)}
        if graph.weights is not None or added.weights is not None:
            arrays["weights"] = joined(
                np.ones(len(graph.targets)) if graph.weights is None else graph.weights,
                np.ones(len(slots)) if added.weights is None else added.weights,
            )
        if self._marked:
            marks = np.ones(len(graph.targets), np.uint8) if graph.forward is None else graph.forward
            arrays["forward"] = joined(marks, added.forward)
        return arrays


class _Edges(NamedTuple):
    """Edges of sections.

    Args:
        forward: see `p2premap.worker.vertex.graphfile`.
        weights: None: nobody gave any.
    """

    sources: Keys
    targets: Keys
    forward: Array
    weights: Array | None


def _edges(sections: Sequence[Sequence[Array]]) -> _Edges:
    if not sections:
        none = np.empty(0, np.int64)
        return _Edges(none, none, np.empty(0, np.uint8), None)
    weights = None
    if any(len(columns) > 3 for columns in sections):
        weights = np.concatenate([c[3] if len(c) > 3 else np.ones(len(c[0])) for c in sections])
    sources, targets, forward = (np.concatenate([columns[place] for columns in sections]) for place in range(3))
    return _Edges(sources, targets, forward, weights)


def _kept(graph: Graph, gone: _Edges, *, marked: bool) -> Mask:
    """Which edges stay: of those that are alike the first ones go, as many as were asked for.

    Args:
        marked: edges that were turned round are another kind.
    """
    kept = np.ones(len(graph.targets), np.bool_)
    slots = places_of(graph.keys, gone.sources)
    known = np.flatnonzero(slots >= 0)
    rows, wanted = distinct(slots[known].astype(np.int64))
    counts = np.diff(graph.indptr)[rows]
    edges = ranges(graph.indptr[rows], counts)
    if not len(edges):
        return kept
    ends, places = distinct(np.concatenate((graph.targets[edges], gone.targets[known])))
    owners: Keys = np.concatenate((np.repeat(np.arange(len(rows)), counts), wanted))
    pairs = owners * len(ends) + places
    if marked:
        here: Array = np.ones(len(edges), np.uint8) if graph.forward is None else graph.forward[edges]
        pairs = 2 * pairs + np.concatenate((here, gone.forward[known]))
    _, alike = distinct(pairs)
    asked = np.bincount(alike[len(edges) :], minlength=int(alike.max()) + 1)
    order = np.argsort(alike[: len(edges)], kind="stable")
    ordered = alike[: len(edges)][order]
    nth = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    kept[edges[order[nth < asked[ordered]]]] = False
    return kept


def _vertices(graph: Graph, came: dict[int, list[Sequence[Array]]]) -> tuple[Keys, Keys]:
    """The keys of all vertices, and where each was before, -1: nowhere."""
    there = np.ones(len(graph.keys), np.bool_)
    for columns in came.get(REMOVE_VERTICES, ()):
        gone = places_of(graph.keys, columns[0])
        there[gone[gone >= 0]] = False
    staying = graph.keys[there]
    keys, _ = distinct(np.concatenate([staying, *(columns[0] for columns in came.get(ADD_VERTICES, ()))]))
    places = places_of(staying, keys)
    before = np.full(len(keys), -1, np.int64)
    before[places >= 0] = np.flatnonzero(there)
    return keys, before


def _names(graph: Graph, keys: Keys, added: Sequence[Sequence[Array]]) -> dict[str, Array]:
    """The names of these vertices."""
    offsets = graph.arrays.get("names_offsets")
    names = [] if offsets is None else [name.encode("utf-8", "surrogatepass") for name in map(str, graph.ids())]
    named: dict[int, bytes] = dict(zip(graph.keys.tolist(), names, strict=True))
    for section, texts in added:
        add_names(named, section.tolist(), texts.tolist())
    bounds, letters = packed_names(named, keys)
    return {"names_offsets": bounds, "names_bytes": letters}


def moved(array: Array, before: Keys, fresh: Any) -> Array:  # noqa: ANN401  (a value of the array's type)
    """An array with one entry a vertex, after vertices have come or gone.

    Args:
        before: see `Rewired`.
        fresh: what new vertices have.
    """
    result = np.full((len(before), *array.shape[1:]), fresh, array.dtype)
    known = before >= 0
    result[known] = array[before[known]]
    return result
