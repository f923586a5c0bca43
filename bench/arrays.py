"""An array of 100 MB for eight tasks, each of which sums an eighth of it, beside Ray and Dask.

From handing the array in to the eight sums; one node with two slots, and two workers of the others. Each is given the
array by the way that it has for a value of many tasks: `cluster.put`, `ray.put`, `Client.scatter`. For p2premap it is
also an argument of each of eight calls, which has to find out that it is the same.
"""

from __future__ import annotations

from functools import partial

from bench.beside import OURS, in_turns, on_nodes
from bench.items import report
from bench.report import Emitter

OTHERS = ("ray", "dask")
REPEATS = 5


def run(emit: Emitter) -> None:
    """Measure, and compare the runs of one turn with each other."""
    report(emit, in_turns("array", partial(on_nodes, "array", ["only"], slots=2), OTHERS, repeat=REPEATS))
    runs = [on_nodes("array", ["only"], slots=2, system="arguments") for _ in range(REPEATS)]
    emit(f"{OURS}: an argument of each call", [run["wall_s"] for run in runs if run is not None], "s")
