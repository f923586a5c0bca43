"""How many edges begin and end at each vertex."""

from __future__ import annotations

import numpy as np

from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.kernels import Array
from p2premap.worker.vertex.part import Inbox, Part


class Degrees(ArrayProgram):
    """In-edges and out-edges of each vertex, repeated ones as often as they are repeated."""

    combine = "sum"
    dtype = "int64"

    def start(self, part: Part) -> None:
        """Out-edges are known."""
        part.state["in"] = np.zeros(part.n, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        """Send one along each edge; count what comes."""
        if part.superstep:
            part.state["in"] = inbox.values.copy()
        else:
            part.send_all(np.ones(part.n, np.int64))
        return True

    def result(self, part: Part) -> tuple[Array, Array]:
        """In, out."""
        return part.state["in"], part.degrees
