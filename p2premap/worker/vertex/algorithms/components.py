"""Weakly connected components: each vertex learns the smallest id of its component."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.algorithms.names import name, named
from p2premap.worker.vertex.kernels import Array
from p2premap.worker.vertex.part import Inbox, Part
from p2premap.worker.vertex.partition import VertexError

JUMPS_AFTER: Final = 12
"""Supersteps of passing labels on; most graphs are done by then."""
_REST: Final = 2
"""For so many supersteps answers may still change something after all labels have come to rest."""
_METHODS: Final[dict[str, int | None]] = {"auto": JUMPS_AFTER, "label": None, "jump": 0}


class Components(ArrayProgram):
    """The smallest id of each vertex's component, edges taken in both directions.

    Of ids that are text it is the one with the smallest key, which is as good as any.

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
        moves = not part.superstep or bool(part.globals.aggregates["changed"])
        if moves:
            part.state["moved"] = np.array([part.superstep])
        elif part.text and part.superstep > part.state["moved"][0] + _REST:
            part.aggregate("changed", 0)
            return name(part, label)
        new, fresh = label, part.degrees > 0
        if part.superstep:
            new = np.minimum(label, inbox.values)
            if part.answers is not None:
                np.minimum(new, part.answers, out=new)
            fresh = new < label
        part.aggregate("changed", int(np.count_nonzero(fresh)))
        part.send_all(new, fresh)
        after = _METHODS[self.method]
        if after is not None and part.superstep >= after:
            if part.superstep:
                part.send(label[fresh], new[fresh])
            if moves:
                part.ask("label", new)
        part.state["label"] = new
        return not part.text

    def result(self, part: Part) -> Array:
        """The labels."""
        return named(part, part.state["label"])
