"""A superstep in which nothing happens, over two nodes of one slot each: what every superstep costs beside its work.

A program of each form that does nothing, and does not halt, on a ring of 64 vertices in two partitions, one in the
worker of each node. No checkpoint is taken meanwhile. A run's figure is the median, from barrier to barrier, of the
last 200 supersteps: those that the job tells of.

- ``one machine``    two nodes of one user: their workers talk by a Unix socket
- ``two machines``   each in a network namespace of its own: by TCP, sealed. Needs root, and is left out without
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.nodes import Cluster, members, until
from bench.report import Emitter
from bench.vertexjob import Ran, of_file, run_once
from p2premap.client.connection import local
from p2premap.node.paths import Paths

QUICK: Final = {"repeat": 1, "supersteps": 100}
REPEATS: Final = 5
SUPERSTEPS: Final = 1_000
WARM: Final = 20
VERTICES: Final = 64
NODES: Final = ("one", "two")
TARGET_MS: Final = 1.0

FORMS: Final[Mapping[str, str]] = {
    "arrays": """
import os

import numpy as np
import p2premap

class Idle(p2premap.ArrayProgram):
    def start(self, part):
        part.state["process"] = np.full(part.n, os.getpid())

    def compute(self, part, inbox):
        return False

    def result(self, part):
        return part.state["process"]
""",
    "per vertex": """
import os

import p2premap

class Idle(p2premap.VertexProgram):
    def create(self, id):
        return os.getpid()

    def compute(self, ctx, vertex, messages):
        pass
""",
}
"""What comes out is the process in which a vertex was."""


@contextmanager
def one_machine() -> Iterator[Paths]:
    """Nodes of one user."""
    with Cluster(NODES, slots=1) as cluster:
        yield cluster.paths


@contextmanager
def two_machines() -> Iterator[Paths]:
    """Nodes on machines of their own."""
    from tests.soak.nodes import ManyMachines

    with ManyMachines(NODES) as machines:
        yield machines.nodes[NODES[0]].paths


def lab_lacks() -> str:
    """Why there can be no second machine here; "": there can."""
    from tests.netns.netlab import why_not

    return why_not()


def run(emit: Emitter, *, repeat: int = REPEATS, supersteps: int = SUPERSTEPS) -> None:
    """Measure both forms in turns, where the nodes are neighbours and where they are not."""
    places = {"one machine": one_machine}
    if lacks := lab_lacks():
        print(f"# two machines are left out: {lacks}", file=sys.stderr)
    else:
        places["two machines"] = two_machines
    with tempfile.TemporaryDirectory(prefix="p2p-idle-") as scratch:
        ring = Path(scratch) / "ring.txt"
        ring.write_text("".join(f"{vertex} {(vertex + 1) % VERTICES}\n" for vertex in range(VERTICES)))
        for place, nodes in places.items():
            with nodes() as paths:
                with local(paths=paths) as connection:
                    until(lambda: sum(view.slots for view in members(connection)) == len(NODES))
                _measure(emit, place, paths, ring, repeat=repeat, supersteps=supersteps)


def _measure(emit: Emitter, place: str, paths: Paths, ring: Path, *, repeat: int, supersteps: int) -> None:
    runs: dict[str, list[list[float]]] = {form: [] for form in FORMS}
    for turn in range(1 + repeat):
        for form, text in FORMS.items():
            job_file = ring.with_name("idle.py")
            job_file.write_text(text)
            planner = of_file(job_file, [ring], partitions=2, supersteps=supersteps, checkpoint_every=2 * supersteps)
            ran = run_once(paths, planner)
            if turn:  # the first jobs of nodes that have just come up may begin with the one that answers first
                runs[form].append(_times_ms(ran))
    for form, several in runs.items():
        emit(
            f"{place}, {form}: an empty superstep",
            [statistics.median(times) for times in several],
            "ms",
            target=TARGET_MS,
            p90=round(statistics.median(statistics.quantiles(times, n=10)[-1] for times in several), 3),
            supersteps=supersteps,
        )


def _times_ms(ran: Ran) -> list[float]:
    """Of the supersteps of a run.

    Raises:
        ValueError: it was not run as it should have been.
    """
    processes = {line.split("\t")[1] for part in ran.parts.values() for line in part.decode().splitlines()}
    if len(processes) != len(NODES):
        raise ValueError(f"{len(processes)} processes have computed, not one on each node")
    if ran.told.checkpoints != 1:
        raise ValueError(f"{ran.told.checkpoints - 1} checkpoints were taken meanwhile")
    return [1e3 * row.seconds for row in ran.told.rows if row.superstep >= WARM]
