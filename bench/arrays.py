"""An array of 100 MB for eight tasks, each of which sums an eighth of it, beside Ray and Dask.

From handing the array in to the eight sums; one node with two slots, and two workers of the others. p2premap is given
the array as an argument of eight calls, the others by the way that they have for it (`ray.put`, `Client.scatter`).
"""

from __future__ import annotations

from functools import partial

from bench.beside import in_turns, on_nodes
from bench.items import report
from bench.report import Emitter

OTHERS = ("ray", "dask")
REPEATS = 5


def run(emit: Emitter) -> None:
    """Measure, and compare the runs of one turn with each other."""
    report(emit, in_turns("array", partial(on_nodes, "array", ["only"], slots=2), OTHERS, repeat=REPEATS))
