"""What checkpoints cost: PageRank on R-MAT with those that are usual and with none, in turns, on one node and on two.

One node has two slots, two nodes have one each. The program is the one that is shipped; it also notes when its process
has passed a barrier, and when partition 0 then begins to compute. All is counted from the first superstep to the last.

- ``supersteps``      wall clock of all of them
- ``between epochs``  what of it passed from a barrier at which an epoch ended until the next one began: all states are
                      written, the leader is told, the replicas agree, and the processes meet again. What passes behind
                      other barriers, where mail is taken, is not counted
- ``over none``       wall clock over that of the same turn without checkpoints: what they cost inside of epochs is in
                      it as well, such as second copies of the states, and whatever this machine did meanwhile
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.children import command
from bench.footprint import EPOCH, algorithm, counted
from bench.graphs import write_edges
from bench.nodes import Cluster, cpu_s
from bench.report import Emitter
from bench.rmat import rmat
from bench.vertexjob import of_file, run_once
from p2premap.vertex.plan import SUPERSTEPS

QUICK: Final = {"repeat": 1, "scale": 10, "iterations": 40, "usual": 10}
REPEATS: Final = 5
SCALE: Final = 18
ITERATIONS: Final = 600
"""A good many times as long as an epoch by the clock."""
TARGET: Final = 0.05
PLACES: Final = {"one node": (("one",), 2), "two nodes": (("one", "two"), 1)}
"""The nodes, and how many slots each has."""

_PROGRAM: Final = """
import os
import time

import p2premap
from p2premap.worker.vertex.algorithms import PageRank

class Ranks(PageRank, p2premap.ArrayProgram):
    notes = ""
    now = None

    def compute(self, part, inbox):
        if part.number == 0:  # what an epoch begins with is another object than what the one before ended with
            self.note("goes_on" if part.globals is self.now else "begins", part.superstep)
        return super().compute(part, inbox)

    def master(self, now):
        self.now = now
        self.note("passed", now.superstep)
        return super().master(now)

    def note(self, what, superstep):
        with open(self.notes, "a") as file:
            file.write(f"{what} {superstep} {time.monotonic()}\\n")
"""


class Run(NamedTuple):
    """One job.

    Args:
        supersteps_s: wall clock from the first superstep to the last.
        between_s: what of it was between epochs.
        cpu_s: of the nodes, from the plan to the last output part.
        checkpoints: how many were taken before the last superstep.
    """

    supersteps_s: float
    between_s: float
    cpu_s: float
    checkpoints: int


def run_job(names: Sequence[str], slots: int, graph: Path, *, iterations: int, every: int) -> Run:
    """PageRank on nodes that are started for it.

    Args:
        every: supersteps of an epoch; 0: by the clock.
    """
    job_file, notes = graph.with_name("ranks.py"), graph.with_name("notes")
    job_file.write_text(_PROGRAM)
    notes.unlink(missing_ok=True)
    planner = of_file(job_file, [graph], iterations=iterations, checkpoint_every=every, notes=notes)
    with Cluster(names, slots=slots) as cluster:
        before = cpu_s(cluster.pids)
        ran = run_once(cluster.paths, planner)
        used = cpu_s(cluster.pids) - before
    begins, goes_on, passed = dict[int, float](), dict[int, float](), dict[int, float]()
    noted = {"begins": begins, "goes_on": goes_on, "passed": passed}
    for line in notes.read_text().splitlines():
        what, superstep, at = line.split()
        noted[what].setdefault(int(superstep), float(at))  # of two processes the first one that passed
    if len(begins) != ran.told.checkpoints:
        raise ValueError(f"{ran.told.checkpoints} epochs were told, and {len(begins)} have begun")
    taken = statistics.median(at - passed[superstep] for superstep, at in goes_on.items())
    between_s = sum(at - passed[superstep] - taken for superstep, at in begins.items() if superstep)
    return Run((begins | goes_on)[iterations] - begins[0], between_s, used, ran.told.checkpoints - 1)


def run(
    emit: Emitter, *, repeat: int = REPEATS, scale: int = SCALE, iterations: int = ITERATIONS, usual: int = 0
) -> None:
    """Measure.

    Args:
        usual: supersteps of an epoch in the place of what is usual; 0: by the clock.
    """
    with tempfile.TemporaryDirectory(prefix="p2p-checkpoints-") as scratch:
        graph = Path(scratch) / f"rmat-{scale}.parquet"
        write_edges(graph, rmat(scale))
        found = counted(algorithm("pagerank", graph, {"iterations": 2 * EPOCH}, every=EPOCH))
        size = found.written[SUPERSTEPS]
        emit(f"rmat-{scale} pagerank: a checkpoint", [size], "bytes", bytes_a_vertex=round(size / found.vertices, 2))
        for place, (names, slots) in PLACES.items():
            runs: list[tuple[Run, Run]] = []
            for _ in range(repeat):
                given = [run_job(names, slots, graph, iterations=iterations, every=n) for n in (usual, 2 * iterations)]
                if given[1].checkpoints:
                    raise ValueError(f"{given[1].checkpoints} checkpoints were taken where none was wanted")
                runs.append((given[0], given[1]))
            _report(emit, f"rmat-{scale} pagerank, {place}", runs)


def _report(emit: Emitter, name: str, runs: Sequence[tuple[Run, Run]]) -> None:
    usual, none = zip(*runs, strict=True)
    for kind, several in (("with checkpoints", usual), ("with none", none)):
        emit(
            f"{name}: supersteps {kind}",
            [one.supersteps_s for one in several],
            "s",
            cpu_s=round(statistics.median(one.cpu_s for one in several), 2),
            checkpoints=[one.checkpoints for one in several],
        )
    shares = [one.between_s / one.supersteps_s for one in usual]
    emit(f"{name}: between epochs, of the supersteps' wall clock", shares, "share", target=TARGET)
    each = [one.between_s / max(one.checkpoints, 1) for one in usual]
    emit(f"{name}: between two epochs", each, "s")
    ratios = [one.supersteps_s / other.supersteps_s for one, other in runs]
    emit(f"{name}: wall clock over none", ratios, "times", target=1 + TARGET)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Checkpoints, measured.")
    parser.add_argument("--scale", type=int, default=SCALE)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--repeat", type=int, default=REPEATS)
    options = parser.parse_args()
    run(Emitter("checkpoints"), repeat=options.repeat, scale=options.scale, iterations=options.iterations)


if __name__ == "__main__":
    command(main)
