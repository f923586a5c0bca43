"""Triangles, and what share of the possible ones there is around each vertex.

Edges are turned to the end with more neighbours, so that each triangle has one vertex from which both of its edges lead
away, and nobody has many of those: at most the square root of twice the number of edges (Chiba and Nishizeki, 1985).
Everybody sends the list of them to its neighbours; who gets one looks which of them are on its own.

Definitions: LDBC Graphalytics, LCC.
"""

from __future__ import annotations

from typing import ClassVar, Final, NamedTuple

import numpy as np

from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.kernels import Array, Keys, places_of, ranges
from p2premap.worker.vertex.part import Inbox, Part

PATHS_MAX: Final = 1 << 19
"""Paths of two edges that are looked at together, unless one vertex has more."""


class _Closed(NamedTuple):
    """What a partition found.

    Args:
        triangles: how many.
        own: of each vertex, what it has of them.
        others: of each column, in the same way.
    """

    triangles: int
    own: Array
    others: Array


class _Around(ArrayProgram):
    """What both count: for each vertex, its triangles; an edge of them weighs `weights` of its directions."""

    combine = ""
    dtype = "int64"
    view = "simple"
    aggregators: ClassVar = {"triangles": "sum"}
    directed = False

    def start(self, part: Part) -> None:
        """Nothing is known."""
        part.state["count"] = np.zeros(part.n, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        """Who is where, how many neighbours everybody has, the lists, the counts, and their sums."""
        if part.superstep == 0:
            part.send_all(part.keys)
        elif part.superstep == 1:
            part.state["columns"] = _columns(inbox)
            part.send_all(part.degrees)
        elif part.superstep == 2:
            self._tell_lists(part, _columns(inbox))
        elif part.superstep == 3:
            found = _close(part, inbox, self.directed)
            part.aggregate("triangles", found.triangles)
            part.state["count"] += found.own
            some = np.flatnonzero(found.others)
            part.send(part.state["columns"][some], found.others[some])
        else:
            for slots, values in inbox.letters:
                part.state["count"][slots] += values
        return part.superstep > 3

    def _tell_lists(self, part: Part, degrees: Array) -> None:
        """Send the list of each vertex's edges that lead to the end with more neighbours, and remember it."""
        keys, edges = part.state["columns"], part.edges
        order = np.argsort(keys, kind="stable")
        columns = order[places_of(keys[order], edges.targets)]
        sources = np.repeat(np.arange(part.n), part.degrees)
        mine, theirs = part.degrees[sources], degrees[columns]
        up = (mine < theirs) | ((mine == theirs) & (part.keys[sources] < edges.targets))
        assert edges.directions is not None, "the graph is simple"
        offsets = np.zeros(part.n + 1, np.int64)
        np.cumsum(np.bincount(sources[up], minlength=part.n), out=offsets[1:])
        part.state["offsets"] = offsets
        part.state["up"] = columns[up]
        part.state["ways"] = edges.directions[up]
        part.send_rows(offsets, edges.targets[up], edges.directions[up])


class Triangles(_Around):
    """How many triangles each vertex is part of, edges taken without direction."""

    def result(self, part: Part) -> Array:
        """The numbers."""
        return part.state["count"]


class LCC(_Around):
    """The local clustering coefficient: of the edges that there could be among a vertex's neighbours, in either
    direction, the share that there is. 0 for less than two neighbours."""

    directed = True

    def result(self, part: Part) -> Array:
        """The shares."""
        pairs = part.degrees * (part.degrees - 1)
        shares: Array = part.state["count"] / np.maximum(pairs, 1)
        return shares


def _columns(inbox: Inbox) -> Array:
    assert inbox.column_values is not None, "without a combiner"
    return inbox.column_values.copy()


def _close(part: Part, inbox: Inbox, directed: bool) -> _Closed:
    """Look which of the paths of two edges have a third one.

    Args:
        directed: a vertex counts the directions of the edge opposite; else it counts 1.
    """
    keys = part.state["columns"]
    own, others, triangles = np.zeros(part.n, np.int64), np.zeros(len(keys), np.int64), 0
    if inbox.rows is None:
        return _Closed(0, own, others)
    lists = _known(keys, *inbox.rows)
    offsets, up, ways = (part.state[name] for name in ("offsets", "up", "ways"))
    sources = np.repeat(np.arange(part.n), np.diff(offsets))
    bits = max(1, len(keys)).bit_length()
    edges = (sources << bits) | up
    order = np.argsort(edges)
    edges, sources, up, ways = edges[order], sources[order], up[order], ways[order]
    lengths = lists.offsets[up + 1] - lists.offsets[up]
    paths = np.concatenate(([0], np.cumsum(lengths)))
    start = 0
    while start < len(edges):
        end = max(int(np.searchsorted(paths, paths[start] + PATHS_MAX, side="right")) - 1, start + 1)
        first, last = np.searchsorted(sources, (sources[start], sources[end - 1] + 1))
        passed = np.repeat(np.arange(start, end), lengths[start:end])
        entries = ranges(lists.offsets[up[start:end]], lengths[start:end])
        wanted = (sources[passed] << bits) | lists.columns[entries]
        third = places_of(edges[first:last], wanted)
        closed = np.flatnonzero(third >= 0)
        third, passed, entries = third[closed] + first, passed[closed], entries[closed]
        triangles += len(closed)
        for sums, places, opposite in (
            (own, sources[passed], lists.ways[entries]),
            (others, up[passed], ways[third]),
            (others, up[third], ways[passed]),
        ):
            np.add.at(sums, places, opposite.astype(np.int64) if directed else np.int64(1))
        start = end
    return _Closed(triangles, own, others)


class _Lists(NamedTuple):
    """Of each column the columns that its edges lead to, and their directions."""

    offsets: Keys
    columns: Array
    ways: Array


def _known(keys: Keys, offsets: Keys, arrays: list[Array]) -> _Lists:
    """The lists without those that are no columns here, and can close nothing."""
    targets, ways = arrays
    order = np.argsort(keys, kind="stable")
    places = places_of(keys[order], targets)
    there = places >= 0
    passed = np.concatenate(([0], np.cumsum(there)))
    return _Lists(passed[offsets], order[places[there]], ways[there])
