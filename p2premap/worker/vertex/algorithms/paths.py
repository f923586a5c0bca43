"""Distances from one vertex: in edges (BFS), and in the sum of their weights (SSSP). As in LDBC Graphalytics."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.kernels import Array
from p2premap.worker.vertex.part import Inbox, Part
from p2premap.worker.vertex.partition import Globals, VertexError

NEVER: Final = (1 << 63) - 1
"""The distance in edges of a vertex that is not reached, as in Graphalytics."""


class _FromSource(ArrayProgram):
    """What both have in common.

    Attributes:
        source: the id of the vertex from which distances count.
    """

    aggregators: ClassVar = {"source": "sum", "reached": "sum"}
    source: int | str | None = None

    def _source(self, part: Part) -> Array:
        """A mask with nothing but the source, if that is here."""
        mask = np.zeros(part.n, np.bool_)
        place = part.find(self.source)
        if place >= 0:
            mask[place] = True
            part.aggregate("source", 1)
        return mask

    def master(self, now: Globals) -> None:
        """Notices that nobody has the source.

        Raises:
            VertexError: see above.
        """
        if now.superstep == 1 and not now.aggregates.get("source"):
            raise VertexError(f"The source, {self.source!r}, is no vertex of this graph.")


class BFS(_FromSource):
    """The number of edges on the shortest way from `source`; `NEVER` where there is none."""

    combine = "max"
    dtype = "uint8"

    def start(self, part: Part) -> None:
        """Nobody is reached."""
        part.state["distance"] = np.full(part.n, NEVER, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        """Who hears for the first time is so many edges away as there were supersteps, and passes it on."""
        distance = part.state["distance"]
        fresh = (inbox.values != 0) & (distance == NEVER) if part.superstep else self._source(part)
        distance[fresh] = part.superstep
        part.aggregate("reached", int(np.count_nonzero(fresh)))
        part.send_all(fresh.view(np.uint8), fresh)
        return part.superstep > 0  # superstep 1 is where `master` looks for the source

    def result(self, part: Part) -> Array:
        """The distances."""
        return part.state["distance"]


class SSSP(_FromSource):
    """The smallest sum of weights on a way from `source`; infinity where there is none.

    Edges without a weight have 1. By repeated relaxation (Bellman and Ford), of the vertices whose distance has
    shrunk only; weights must not be negative.
    """

    combine = "min"
    edge = "add"
    weighted = True

    def start(self, part: Part) -> None:
        """Nobody is reached.

        Raises:
            VertexError: a weight is negative, or no number.
        """
        weights = part.graph.weights
        if weights is not None and len(weights) and not weights.min() >= 0:
            wrong = int(np.flatnonzero(~(weights >= 0))[0])
            vertex = part.name(int(np.searchsorted(part.graph.indptr, wrong, side="right")) - 1)
            raise VertexError(
                f"An edge of vertex {vertex} has the weight {weights[wrong]}; shortest paths need weights of 0 or more."
            )
        part.state["distance"] = np.full(part.n, np.inf)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        """Who hears of a shorter way passes it on."""
        distance = part.state["distance"]
        if part.superstep:
            closer = inbox.values < distance
            np.minimum(distance, inbox.values, out=distance)
        else:
            closer = self._source(part)
            distance[closer] = 0.0
        part.aggregate("reached", int(np.count_nonzero(closer)))
        part.send_all(distance, closer)
        return part.superstep > 0  # superstep 1 is where `master` looks for the source

    def result(self, part: Part) -> Array:
        """The distances."""
        return part.state["distance"]
