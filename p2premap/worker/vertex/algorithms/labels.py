"""Community detection by label propagation (Raghavan, Albert, Kumara, 2007), made deterministic as in LDBC
Graphalytics: all vertices at the same time, and of the most frequent labels the smallest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.algorithms.names import name, named
from p2premap.worker.vertex.kernels import Array, commonest
from p2premap.worker.vertex.part import Inbox, Part
from p2premap.worker.vertex.partition import VertexError


class LabelPropagation(ArrayProgram):
    """A label for each vertex, the id of some vertex: that which is the most frequent among its neighbours.

    Edges count in both directions; a neighbour with edges both ways counts twice. A vertex without neighbours keeps its
    own.

    Attributes:
        iterations: so many, exactly.
    """

    combine = ""
    dtype = "int64"
    view = "both"
    aggregators: ClassVar = {"changed": "sum"}
    iterations = 10

    def start(self, part: Part) -> None:
        """Everybody has its own label.

        Raises:
            VertexError: there is a negative number of iterations.
        """
        if self.iterations < 0:
            raise VertexError(f"iterations must not be negative, as {self.iterations} is.")
        part.state["label"] = part.keys.copy()

    def compute(self, part: Part, inbox: Inbox) -> bool:
        """One iteration a superstep, the first one to send only."""
        label = part.state["label"]
        if part.superstep > self.iterations:
            return name(part, label)
        if part.superstep:
            new = self._commonest(inbox, label)
            part.aggregate("changed", int(np.count_nonzero(new != label)))
            part.state["label"] = label = new
        if part.superstep == self.iterations:
            return name(part, label)
        part.send_all(label)
        return False

    @staticmethod
    def _commonest(inbox: Inbox, label: Array) -> Array:
        assert inbox.block is not None, "without a combiner"
        assert inbox.column_values is not None, "without a combiner"
        return commonest(inbox.block, inbox.column_values, label)

    def result(self, part: Part) -> Array:
        """The labels."""
        return named(part, part.state["label"])
