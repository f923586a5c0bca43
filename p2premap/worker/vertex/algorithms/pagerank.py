"""PageRank (Page, Brin, Motwani, Winograd, 1999), as in LDBC Graphalytics."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from p2premap.vertex.program import STOP, ArrayProgram, Verdict
from p2premap.worker.vertex.kernels import Array
from p2premap.worker.vertex.part import Inbox, Part
from p2premap.worker.vertex.partition import Globals, VertexError

ITERATIONS_MAX: Final = 100
TOLERANCE: Final = 1e-9


class PageRank(ArrayProgram):
    """The share of time that a random surfer spends at each vertex; the sum of all ranks is 1.

    A surfer follows an edge with the probability `damping`, and begins anew anywhere otherwise. From a vertex without
    out-edges he goes anywhere, too. Repeated edges count as often as they are repeated.

    Attributes:
        damping: see there.
        iterations: so many, exactly; 0: until ranks change little, but at most 100.
        tolerance: ranks change little when the sum of their absolute changes is less than this; 0: 1e-9 where no
            iterations are given, else never.
    """

    combine = "sum"
    aggregators: ClassVar = {"dangling": "sum", "delta": "sum"}
    damping = 0.85
    iterations = 0
    tolerance = 0.0

    def start(self, part: Part) -> None:
        """Everybody has the same rank.

        Raises:
            VertexError: an option makes no sense.
        """
        if not 0 <= self.damping <= 1:
            raise VertexError(f"damping is a probability, not {self.damping}.")
        if self.iterations < 0 or not self.tolerance >= 0:
            raise VertexError("iterations and tolerance must not be negative.")
        part.state["rank"] = np.full(part.n, 1.0 / max(1, part.globals.vertices))

    def compute(self, part: Part, inbox: Inbox) -> bool:
        """One iteration a superstep, the first one to send only."""
        rank = part.state["rank"]
        if part.superstep:
            everybody = 1.0 - self.damping
            everybody += self.damping * float(part.globals.aggregates["dangling"])  # type: ignore[arg-type]
            new = inbox.values * self.damping
            new += everybody / part.globals.vertices
            np.subtract(new, rank, out=rank)
            np.abs(rank, out=rank)
            part.aggregate("delta", float(rank.sum()))
            part.state["rank"] = rank = new
        if part.superstep == (self.iterations or ITERATIONS_MAX):
            return True
        dangling = part.once("dangling", lambda: np.flatnonzero(part.degrees == 0))
        part.aggregate("dangling", float(rank[dangling].sum()))
        part.send_all(rank * part.once("share", lambda: 1.0 / np.maximum(part.degrees, 1)))
        return False

    def master(self, now: Globals) -> Verdict | None:
        """Enough, when ranks change little."""
        little = self.tolerance or (0.0 if self.iterations else TOLERANCE)
        delta = now.aggregates.get("delta")
        return STOP if isinstance(delta, float) and delta < little else None

    def result(self, part: Part) -> Array:
        """The ranks."""
        return part.state["rank"]
