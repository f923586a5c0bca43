"""The ids behind the edges of a list of edges, where ids are text.

A graph blob says where an edge leads to by a key, a hash of the id (`p2premap.worker.vertex.owners`); the id itself is
known to the partition that owns the vertex. Before anything is computed, partitions ask each other for the ids.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Sequence

import numpy as np

from p2premap.worker.gang import Buffer
from p2premap.worker.vertex.changes import Graph
from p2premap.worker.vertex.owners import Keys, owner


class Naming:
    """One partition's share in that.

    Args:
        graph: whose edges are keys.
        keys: of its vertices, in order.
    """

    def __init__(self, graph: Graph, keys: Sequence[int]) -> None:
        self._graph = graph
        self._ids = {key: vertex.id for key, vertex in zip(keys, graph.vertices, strict=True) if vertex is not None}
        self._asked: list[Keys] = []
        self._found: dict[Hashable, Hashable] = {}
        self._over = False

    def request(self, partition: int, partitions: int, ranges: Keys | None) -> Sequence[Buffer]:
        """The keys of which this partition is asked for the ids."""
        if self._over:
            return ()
        if not self._asked:
            found = {key for edges in self._graph.edges() for key in edges if isinstance(key, int)}
            keys = np.array(sorted(found), np.int64)
            owners = owner(keys, partitions, ranges)
            self._asked = [keys[owners == number] for number in range(partitions)]
        keys = self._asked[partition]
        return (keys.tobytes(),) if len(keys) else ()

    def answer(self, request: memoryview) -> Sequence[Buffer]:
        """The ids of these keys; a key for itself, where there is no such vertex."""
        keys = np.frombuffer(request, np.int64).tolist()
        return (pickle.dumps([self._ids.get(key, key) for key in keys], 5),)

    def take(self, source: int, answer: memoryview) -> None:
        """What a partition has answered."""
        ids = pickle.loads(answer)  # noqa: S301  (of a member, in a worker)
        self._found.update(zip(self._asked[source].tolist(), ids, strict=True))

    def finish(self) -> None:
        """All have answered: edges are ids from now on."""
        if self._over:
            return
        for vertex in self._graph.vertices:
            if vertex is not None:
                vertex.rewire(tuple(self._found.get(key, key) for key in vertex.edges), vertex.edge_values)
        self._over, self._found, self._asked = True, {}, []
