"""What the tests of random walks over jobs share: looking for the walk that ends badly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from p2premap.sim.jobmodel import Violated
from p2premap.sim.jobsettings import SHAPES, Faults
from p2premap.sim.jobwalk import Walk
from p2premap.sim.workloads import Shape
from p2premap.tasks.job import JobOptions, Phase


def found(
    faults: Faults,
    shapes: Sequence[Shape] = SHAPES,
    *,
    seeds: Iterable[int] = range(100),
    steps: int = 300,
    options: JobOptions | None = None,
) -> str:
    """What the first walk that ends badly says."""
    for seed in seeds:
        try:
            walk = Walk(seed, shapes[seed % len(shapes)], nodes=2 + seed % 4, faults=faults, options=options)
            view = walk.run(steps)
        except (Violated, AssertionError) as error:
            return str(error)
        if view.phase is Phase.FAILED:
            return view.error
    return "nothing"
