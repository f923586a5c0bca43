"""One vertex job on a running node, as `p2premap run` and `p2premap graph` do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.nodes import Parts
from p2premap.client.connection import local
from p2premap.client.graphs import plan
from p2premap.client.planning import Asked
from p2premap.client.session import Collector, hand_in, see_through, strength
from p2premap.client.submission import Submission
from p2premap.node.paths import Paths
from p2premap.tasks.job import JobView, Phase
from p2premap.vertex.told import Told, unpack_told

Planner = Callable[[int], Submission]
"""Plans a job for so many slots."""


class Ran(NamedTuple):
    """A job that has ended well.

    Args:
        wall_s: from the plan to the last output part.
        told: what it tells of itself.
        view: the last one of it.
        parts: of the output, by number.
    """

    wall_s: float
    told: Told
    view: JobView
    parts: Mapping[int, bytes]


def of_file(job_file: Path, inputs: Sequence[Path], *, partitions: int = 0, **given: object) -> Planner:
    """A job of a vertex program.

    Args:
        partitions: 0: as usual.
        given: its options, by names with _ for -.
    """
    asked = partial(
        Asked,
        file=str(job_file),
        inputs=[str(path) for path in inputs],
        one_machine=True,
        partitions=partitions,
        given={name: str(value) for name, value in given.items()},
    )
    return lambda slots: plan(asked(slots=slots))


def run_once(paths: Paths, planner: Planner, *, seen: Callable[[JobView], None] = lambda _: None) -> Ran:
    """Plan a job, hand it in at a node of these paths, and see it through.

    Args:
        seen: called whenever the job has changed.

    Raises:
        RuntimeError: it did not end well.
    """
    connect = partial(local, paths=paths)
    began = time.perf_counter()
    with connect() as connection:
        power = strength(connection, paths)
    job = hand_in(connect, planner(power.slots))
    parts = Parts()
    view = see_through(connect, job, Collector(connect, parts), seen, lambda: None, known=True)
    told = unpack_told(view.told)
    if view.phase is not Phase.DONE or told is None:
        raise RuntimeError(f"the job is {view.phase.value}: {view.error}")
    return Ran(time.perf_counter() - began, told, view, parts.parts)
