"""`map` over 100,000 small items with default chunking, beside ProcessPoolExecutor, `multiprocessing.Pool` and joblib.

One node with two slots; the others have two processes. Each is warm: processes exist, and have run something.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from bench.beside import OURS, Figures, in_turns, on_nodes
from bench.report import Emitter

QUICK: Final = {"repeat": 1, "part": 100}
OTHERS = ("processes", "joblib", "pool")
AHEAD_OF = ("processes", "joblib", "ray", "dask")
"""A pool that somebody makes for one map, and that ends with it, is a floor rather than a rival."""
REPEATS = 5


def run(emit: Emitter, *, repeat: int = REPEATS, part: int = 1) -> None:
    """Measure, and compare the runs of one turn with each other.

    Args:
        part: what is worked on is divided by this.
    """
    inputs = (str(part),)
    ours = partial(on_nodes, "items", ["only"], slots=2, inputs=inputs)
    report(emit, in_turns("items", ours, OTHERS, repeat=repeat, inputs=inputs))


def report(emit: Emitter, runs: dict[str, list[Figures]]) -> None:
    """Seconds of each system, and p2premap's over each other's."""
    for system, several in runs.items():
        emit(system, [run["wall_s"] for run in several], "s")
        emit(f"{system}: CPU", [run["cpu_s"] for run in several], "s")
    for system in [system for system in runs if system != OURS]:
        ratios = [ours["wall_s"] / theirs["wall_s"] for ours, theirs in zip(runs[OURS], runs[system], strict=True)]
        target = 1.0 if system in AHEAD_OF else None
        emit(f"{OURS}: wall clock over {system}'s", ratios, "times", target=target)
