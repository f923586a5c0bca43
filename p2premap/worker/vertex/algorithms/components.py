"""Weakly connected components: each vertex learns the smallest id of its component."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.arrays import Inbox, Part
from p2premap.worker.vertex.kernels import Array
from p2premap.worker.vertex.partition import VertexError

JUMPS_AFTER: Final = 12
"""Supersteps of passing labels on; most graphs are done by then."""
_METHODS: Final[dict[str, int | None]] = {"auto": JUMPS_AFTER, "label": None, "jump": 0}


class Components(ArrayProgram):
    """The smallest id of each vertex's component, edges taken in both directions.

    Of ids that are text it is the one with the smallest key.

    Labels go from neighbour to neighbour, the smaller one wins. That takes as many supersteps as the component is
    wide, so on a wide one *hooks* and *jumps* help: a vertex that hears of a smaller label tells it to the vertex that
    its old label names, and everybody takes over what the vertex that its label names has (Shiloach and Vishkin, 1982;
    Zhang, Azad and Hu, 2020). Long paths then shrink by half every few supersteps.

    Attributes:
        method: "label", "jump", or "auto": jumps begin after some supersteps.
    """

    combine = "min"
    dtype = "int64"
    view = "both"
    aggregators: ClassVar = {"changed": "sum"}
    method = "auto"

    def start(self, part: Part) -> None:
        """Everybody is a component.

        Raises:
            VertexError: the method is none of these.
        """
        if self.method not in _METHODS:
            raise VertexError(f"method is one of {', '.join(_METHODS)}, not {self.method!r}.")
        part.state["label"] = part.keys.copy()

    def compute(self, part: Part, inbox: Inbox) -> bool:
        """Take over what is smaller, and pass it on."""
        label = part.state["label"]
        after = _METHODS[self.method]
        jumps = after is not None and part.superstep >= after
        if part.superstep:
            new = np.minimum(label, inbox.values)
            if part.answers is not None:
                np.minimum(new, part.answers, out=new)
            fresh = new < label
        else:
            new, fresh = label, part.degrees > 0
        changed = int(np.count_nonzero(fresh))
        part.aggregate("changed", changed)
        part.send_all(new, fresh)
        if jumps and part.superstep:
            old = label[fresh]
            part.send(old, new[fresh])
        part.state["label"] = new
        if jumps and (not part.superstep or part.globals.aggregates["changed"]):
            part.ask("label", new)
        return True

    def result(self, part: Part) -> Array:
        """The labels."""
        return part.state["label"]
