"""One vertex job on a running node, as `p2premap run` and `p2premap graph` do it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from bench.nodes import Cluster, Parts
from p2premap.client.connection import local
from p2premap.client.session import Collector, hand_in, see_through, strength
from p2premap.client.submission import Submission
from p2premap.tasks.job import Phase
from p2premap.vertex.told import Told, unpack_told


def run_once(cluster: Cluster, plan: Callable[[int], Submission]) -> tuple[float, Told]:
    """Plan a job for so many slots, hand it in, and see it through: wall clock in seconds, and what the job tells.

    Raises:
        RuntimeError: it did not end well.
    """
    connect = partial(local, paths=cluster.paths)
    began = time.perf_counter()
    with connect() as connection:
        power = strength(connection, cluster.paths)
    job = hand_in(connect, plan(power.slots))
    view = see_through(connect, job, Collector(connect, Parts()), lambda _: None, lambda: None, known=True)
    told = unpack_told(view.told)
    if view.phase is not Phase.DONE or told is None:
        raise RuntimeError(f"the job is {view.phase.value}: {view.error}")
    return time.perf_counter() - began, told
