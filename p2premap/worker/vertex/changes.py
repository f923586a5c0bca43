"""The vertices of a partition, and what becomes of them between supersteps.

Changes that were asked for in a superstep are made before the next one, in Pregel's order: edges are removed, then
vertices, then vertices are added, then edges. Of those of one kind the order is that of source partition and of asking.
An edge to be removed that is not there, a vertex to be added that is there: nothing happens.

Source: Malewicz et al., Pregel (SIGMOD 2010), 3.4.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from p2premap.vertex.program import VertexProgram
from p2premap.worker.vertex.context import (
    ADD_EDGE,
    ADD_VERTEX,
    NO_EDGES,
    REMOVE_EDGE,
    REMOVE_VERTEX,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Change,
    Vertex,
)
from p2premap.worker.vertex.owners import Keys, owners_of

Places = list[tuple[Hashable, int]]
History = tuple[Places, Places, dict[int, tuple[Hashable, ...]]]
"""Since the graph blob was written: vertices added, vertices that are gone, edges of slots where they changed."""


def route(changes: Sequence[Change], partitions: int, ranges: Keys | None) -> list[list[tuple[Any, ...]]]:
    """What to tell each partition of these changes: the owner of the vertex makes them; everybody knows subscribers."""
    told: list[list[tuple[Any, ...]]] = [[] for _ in range(partitions)]
    if not changes:
        return told
    for change, owner in zip(changes, owners_of([change.id for change in changes], partitions, ranges), strict=True):
        if change.kind in (SUBSCRIBE, UNSUBSCRIBE):
            for partition in told:
                partition.append(tuple(change))
        else:
            told[owner].append(tuple(change))
    return told


class Changed(NamedTuple):
    """What changes came to.

    Args:
        added: ids and slots.
        removed: slots and ids.
        rewired: an edge was added or removed.
        subscriptions: (what is subscribed to, who subscribes, or does no more).
    """

    added: dict[Hashable, int]
    removed: dict[int, Hashable]
    rewired: bool
    subscriptions: list[tuple[Hashable, Hashable, bool]]


class Graph:
    """The vertices of a partition.

    Args:
        ids: of the graph blob.
        edges: of each; None: there are none.
        program: gives vertices that nobody described their value.

    Attributes:
        vertices: by slot; None where one was removed.
        index: the slot of each id.
    """

    def __init__(
        self, ids: Sequence[Hashable], edges: Sequence[tuple[Hashable, ...]] | None, program: VertexProgram
    ) -> None:
        self._program = program
        self.vertices: list[Vertex | None] = [
            Vertex(id, None, NO_EDGES if edges is None else edges[slot], None, slot) for slot, id in enumerate(ids)
        ]
        self.index: dict[Hashable, int] = {id: slot for slot, id in enumerate(ids)}
        self._loaded = len(ids)
        self._graves: dict[Hashable, int] = {}
        self._rewired: set[int] = set()
        self._degrees: list[int] | None = None

    @property
    def vertex_count(self) -> int:
        """How many there are."""
        return len(self.index)

    @property
    def edge_count(self) -> int:
        """How many edges leave them."""
        return sum(self.degrees())

    def degrees(self) -> list[int]:
        """Edges of each slot."""
        if self._degrees is None:
            self._degrees = list(map(len, self.edges()))
        return self._degrees

    def edges(self) -> list[tuple[Hashable, ...]]:
        """Of each slot."""
        return [NO_EDGES if vertex is None else vertex.edges for vertex in self.vertices]

    def alive(self) -> npt.NDArray[np.bool_]:
        """Which slots have a vertex."""
        alive = np.ones(len(self.vertices), bool)
        alive[list(self._graves.values())] = False
        return alive

    def create(self, id: Hashable) -> int:
        """A vertex that nobody described; its slot."""
        return self._add(id, self._program.create(id), NO_EDGES, None)

    def _add(self, id: Hashable, value: Any, edges: tuple[Hashable, ...], weights: list[Any] | None) -> int:  # noqa: ANN401  (any state)
        slot = self._graves.pop(id, len(self.vertices))
        vertex = Vertex(id, value, edges, weights, slot)
        if slot == len(self.vertices):
            self.vertices.append(vertex)
        else:
            self.vertices[slot] = vertex
        self.index[id] = slot
        self._rewired.add(slot)
        self._degrees = None
        return slot

    # --- changes --------------------------------------------------------------------------------------------------

    def change(self, told: Iterable[Sequence[Any]]) -> Changed:
        """Make these changes."""
        changes = sorted((Change(*one) for one in told), key=_kind)  # stable: see the module's docstring
        changed = Changed({}, {}, False, [])
        if not changes:
            return changed
        self._cut(change for change in changes if change.kind == REMOVE_EDGE)
        for change in changes:
            if change.kind == REMOVE_VERTEX and (slot := self.index.pop(change.id, None)) is not None:
                self.vertices[slot] = None
                self._graves[change.id] = slot
                self._degrees = None
                changed.removed[slot] = change.id
            elif change.kind == ADD_VERTEX and change.id not in self.index:
                slot = self._add(change.id, change.value, change.edges, change.edge_values)
                changed.removed.pop(slot, None)
                changed.added[change.id] = slot
            elif change.kind in (SUBSCRIBE, UNSUBSCRIBE):
                changed.subscriptions.append((change.id, change.other, change.kind == SUBSCRIBE))
        self._link(change for change in changes if change.kind == ADD_EDGE)
        return changed._replace(rewired=any(change.kind < SUBSCRIBE for change in changes))

    def _by_vertex(self, changes: Iterable[Change]) -> dict[Vertex, list[Change]]:
        found: dict[Vertex, list[Change]] = {}
        for change in changes:
            slot = self.index.get(change.id)
            vertex = None if slot is None else self.vertices[slot]
            if vertex is not None:
                found.setdefault(vertex, []).append(change)
        return found

    def _cut(self, changes: Iterable[Change]) -> None:
        for vertex, wanted in self._by_vertex(changes).items():
            left = Counter(change.other for change in wanted)
            kept: list[int] = []
            for place, target in enumerate(vertex.edges):
                if left[target] > 0:
                    left[target] -= 1
                else:
                    kept.append(place)
            edges, weights = vertex.edges, vertex.edge_values
            kept_weights = None if weights is None else [weights[place] for place in kept]
            self._rewire(vertex, tuple(edges[place] for place in kept), kept_weights)

    def _link(self, changes: Iterable[Change]) -> None:
        for vertex, wanted in self._by_vertex(changes).items():
            weights = vertex.edge_values
            if weights is None and any(change.value is not None for change in wanted):
                weights = [None] * len(vertex.edges)
            if weights is not None:
                weights = weights + [change.value for change in wanted]
            self._rewire(vertex, vertex.edges + tuple(change.other for change in wanted), weights)

    def _rewire(self, vertex: Vertex, edges: tuple[Hashable, ...], weights: list[Any] | None) -> None:
        vertex.rewire(edges, weights)
        self._rewired.add(vertex.slot)
        self._degrees = None

    # --- blobs ----------------------------------------------------------------------------------------------------

    def values(self) -> list[Any]:
        """Of each slot."""
        return [None if vertex is None else vertex.value for vertex in self.vertices]

    def culprit(self) -> str:
        """Which vertex cannot be pickled, for people."""
        for vertex in self.vertices:
            try:
                pickle.dumps(None if vertex is None else (vertex.value, vertex.edge_values))
            except (TypeError, AttributeError, pickle.PickleError):
                assert vertex is not None, "None can be pickled"
                return f"vertex {vertex.id!r}"
        return "a partition"

    def edge_values(self) -> list[list[Any] | None] | None:
        """Of each slot; None: no edge has any."""
        weights = [None if vertex is None else vertex.edge_values for vertex in self.vertices]
        return weights if any(one is not None for one in weights) else None

    def history(self) -> History | None:
        """What has become of the graph since it was loaded; None: nothing."""
        added = [(vertex.id, vertex.slot) for vertex in self.vertices[self._loaded :] if vertex is not None]
        gone = list(self._graves.items())
        if not (added or gone or self._rewired):
            return None
        there = ((slot, self.vertices[slot]) for slot in sorted(self._rewired))
        rewired = {slot: vertex.edges for slot, vertex in there if vertex is not None}
        return added, gone, rewired

    def restore(
        self, values: Sequence[Any], weights: Sequence[list[Any] | None] | None, history: History | None
    ) -> None:
        """Become what had these values, and this history, from what was loaded."""
        added, gone, rewired = history or ([], [], {})
        self.vertices += [None] * (len(values) - len(self.vertices))
        for id, slot in added:
            self.vertices[slot] = Vertex(id, None, NO_EDGES, None, slot)
            self.index[id] = slot
        for id, slot in gone:
            self.vertices[slot] = None
            self.index.pop(id, None)
            self._graves[id] = slot
        for slot, vertex in enumerate(self.vertices):
            if vertex is None:
                continue
            vertex.value = values[slot]
            vertex.rewire(rewired.get(slot, vertex.edges), None if weights is None else weights[slot])
        self._rewired = set(rewired)


def _kind(change: Change) -> int:
    return change.kind
