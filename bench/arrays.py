"""An array of 100 MB for eight tasks, each of which sums an eighth of it, beside Ray and Dask.

From handing the array in to the eight sums; one node with two slots, and two workers of the others. Each is given the
array by the way that it has for a value of many tasks: `cluster.put`, `ray.put`, `Client.scatter`. For p2premap it is
also an argument of each of eight calls, which has to find out that it is the same.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from bench.beside import OURS, in_turns, on_nodes
from bench.items import report
from bench.report import Emitter

QUICK: Final = {"repeat": 1, "part": 100}
OTHERS = ("ray", "dask")
REPEATS = 5


def run(emit: Emitter, *, repeat: int = REPEATS, part: int = 1) -> None:
    """Measure, and compare the runs of one turn with each other.

    Args:
        part: what is worked on is divided by this.
    """
    inputs = (str(part),)
    ours = partial(on_nodes, "array", ["only"], slots=2, inputs=inputs)
    report(emit, in_turns("array", ours, OTHERS, repeat=repeat, inputs=inputs))
    runs = [ours(system="arguments") for _ in range(repeat)]
    emit(f"{OURS}: an argument of each call", [run["wall_s"] for run in runs if run is not None], "s")
