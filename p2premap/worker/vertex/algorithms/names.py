"""Results that are ids of other vertices: where ids are text, they are asked for by key in the last supersteps."""

from __future__ import annotations

from typing import Final

import numpy as np

from p2premap.worker.vertex.kernels import Array
from p2premap.worker.vertex.letters import NAMES
from p2premap.worker.vertex.part import Part

_ASKED: Final = "asked"
_NAMES: Final = "names"
_WIDTH: Final = "width"


def name(part: Part, labels: Array) -> bool:
    """Find out what these keys stand for: to be called superstep after superstep, with the same labels, until it is
    True."""
    if not part.text or _NAMES in part.state:
        return True
    if _ASKED not in part.state:
        part.state[_ASKED] = np.array([part.superstep])
        part.ask(NAMES, labels)
    if part.superstep < int(part.state[_ASKED][0]) + 2:
        return False
    names = part.answers if part.answers is not None else np.empty(0, "S1")
    part.state[_WIDTH] = np.array([names.dtype.itemsize])
    part.state[_NAMES] = names.view(np.uint8)
    return True


def named(part: Part, labels: Array) -> Array:
    """The labels, as users know these vertices."""
    if _NAMES not in part.state:
        return labels
    names = part.state[_NAMES].view(f"S{part.state[_WIDTH][0]}").tolist()
    return np.array([name.decode("utf-8", "surrogatepass") for name in names], object)
