"""Core numbers (Seidman, 1983), by peeling (Batagelj and Zaversnik, 2003), all vertices of a core at the same time."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.kernels import Array, Mask
from p2premap.worker.vertex.part import Inbox, Part

_FAR: Final = np.iinfo(np.int64).max


class KCore(ArrayProgram):
    """The largest k such that a vertex is in a part of the graph in which everybody has at least k neighbours.

    Neighbours count once, whatever the number and direction of edges; loops do not count.
    """

    combine = "sum"
    dtype = "int64"
    view = "simple"
    aggregators: ClassVar = {"removed": "sum", "least": "min"}

    def start(self, part: Part) -> None:
        """Everybody is there."""
        part.state["core"] = np.full(part.n, -1, np.int64)
        part.state["left"] = part.degrees.copy()
        part.state["k"] = np.zeros(1, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> Mask:
        """Who has no more than k neighbours left goes. When nobody does, k becomes the least that anybody has left."""
        core, left, k = (part.state[name] for name in ("core", "left", "k"))
        left -= inbox.values
        before = part.globals.aggregates
        if part.superstep and not before["removed"]:
            k[0] = before["least"]
        there = core < 0
        goes = there & (left <= k[0])
        core[goes] = k[0]
        there &= ~goes
        part.aggregate("removed", int(np.count_nonzero(goes)))
        part.aggregate("least", int(left[there].min(initial=_FAR)))
        part.send_all(np.ones(part.n, np.int64), goes)
        return ~there

    def result(self, part: Part) -> Array:
        """The core numbers."""
        return part.state["core"]
