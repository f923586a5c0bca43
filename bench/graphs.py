"""PageRank, components and BFS on two slots of a node, beside one thread of scipy's sparse product.

The graphs are R-MAT of scale 18 and 20 (Graph500's parameters, 16 edges a vertex), and cnr-2000, a crawl of the web
(Boldi and Vigna, 2004), where ``--graphs DIRECTORY`` or BENCH_GRAPHS has it in WebGraph's plain form. Each is written
as a Parquet file, and a node with two slots loads, builds and computes it as `p2premap graph` does.

- ``job``          wall clock from the plan to the last output part
- ``supersteps``   from barrier to barrier, as the job itself tells: the first one, in which the partitions also agree
                   upon what they exchange, is told as ``agree``, and counted as the mean of the others
- ``over scipy``   that time over as many products of scipy's, one thread, as supersteps: of the matrix for PageRank and
                   BFS, of the symmetric matrix for components; measured after each job
- ``edges``        edges a second of PageRank's supersteps; ``numpy`` where scipy is hidden from the workers
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import vertexjob
from bench.children import command, said_by
from bench.nodes import Cluster, cpu_s
from bench.report import Emitter
from bench.rmat import Vertices, edges_of
from p2premap.client.graphs import plan_algorithm
from p2premap.client.graphwish import Wish
from p2premap.client.planning import Asked
from p2premap.client.submission import Submission
from p2premap.vertex.told import Told

QUICK: Final = {"repeat": 1, "graphs": ("rmat-12",)}
REPEATS = 3
ITERATIONS = 20
CNR: Final = "cnr-2000"
TARGETS: Mapping[str, float] = {"rmat-18": 1.0, "rmat-20": 0.6}
"""Times one thread of scipy's product."""
EDGES_A_SECOND = 200e6
"""On cnr-2000, without scipy."""
ALGORITHMS: Mapping[str, Mapping[str, object]] = {
    "pagerank": {"iterations": ITERATIONS},
    "components": {},
    "bfs": {},
}


class Run(NamedTuple):
    """One job: wall clock, CPU of the node with its workers, and what it told of itself."""

    wall_s: float
    cpu_s: float
    told: Told

    @property
    def supersteps_s(self) -> float:
        """All supersteps, the first one as the mean of the others."""
        later = [row.seconds for row in self.told.rows[1:]]
        return sum(later) * (len(later) + 1) / len(later)

    @property
    def agree_s(self) -> float:
        """What the first superstep took longer than the others."""
        return self.told.rows[0].seconds - (self.supersteps_s - sum(row.seconds for row in self.told.rows[1:]))


def write_edges(path: Path, edges: tuple[Vertices, Vertices]) -> None:
    """As a Parquet file."""
    table = pa.table({"source": edges[0], "target": edges[1]})
    pq.write_table(table, path, row_group_size=1 << 20, compression="none")


def run_once(cluster: Cluster, algorithm: str, options: Mapping[str, object], path: str, partitions: int) -> Run:
    """One job on a running node."""

    def plan(slots: int) -> Submission:
        asked = Asked(file="", inputs=[path], slots=slots, one_machine=True, partitions=partitions)
        return plan_algorithm(algorithm, Wish(), options, asked)

    before = cpu_s(cluster.pids)
    ran = vertexjob.run_once(cluster.paths, plan)
    return Run(ran.wall_s, cpu_s(cluster.pids) - before, ran.told)


def product_s(path: str, *, both: bool, repeat: int = 7) -> float:
    """Seconds of one product of scipy's with the matrix of these edges, in one thread; the median."""
    import scipy.sparse

    table = pq.read_table(path)
    sources, targets = (table[name].to_numpy() for name in ("source", "target"))
    if both:
        sources, targets = np.concatenate((sources, targets)), np.concatenate((targets, sources))
    n = int(max(sources.max(), targets.max())) + 1
    matrix = scipy.sparse.csr_array((np.ones(len(sources)), (targets, sources)), shape=(n, n))
    matrix.sum_duplicates()
    vector = np.random.default_rng(1).random(n)
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        matrix @ vector
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _in_own_process(path: Path, *, both: bool) -> float:
    typed = [sys.executable, "-m", "bench.graphs", "--product", str(path)]
    return float(json.loads(said_by(typed + (["--both"] if both else []))))


@contextmanager
def _without_scipy() -> Iterator[None]:
    """What is started meanwhile finds a package of this name that cannot be imported."""
    with tempfile.TemporaryDirectory(prefix="p2p-noscipy-") as directory:
        Path(directory, "scipy.py").write_text("raise ImportError('hidden for a benchmark')\n")
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = directory if before is None else f"{directory}{os.pathsep}{before}"
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def measure(
    emit: Emitter, graph: str, directory: str, *, algorithms: Sequence[str], partitions: int, repeat: int
) -> None:
    """All algorithms on one graph."""
    edges = edges_of(graph, directory)
    if edges is None:
        print(f"# {graph} is left out: --graphs or BENCH_GRAPHS may name a directory that has it.", file=sys.stderr)
        return
    hub = int(np.bincount(edges[0]).argmax())
    with tempfile.TemporaryDirectory(prefix="p2p-graphs-") as scratch:
        path = Path(scratch) / f"{graph}.parquet"
        write_edges(path, edges)
        for algorithm in algorithms:
            options = {**ALGORITHMS[algorithm], **({"source": str(hub)} if algorithm == "bfs" else {})}
            runs, ratios = [], []
            for _ in range(repeat):
                with Cluster(["only"], slots=2) as cluster:
                    runs.append(run_once(cluster, algorithm, options, str(path), partitions))
                one = _in_own_process(path, both=algorithm == "components")
                steps = ITERATIONS if algorithm == "pagerank" else len(runs[-1].told.rows)
                ratios.append(runs[-1].supersteps_s / (steps * one))
            _report(emit, f"{graph} {algorithm}", graph, runs, ratios)
        if graph == CNR and "pagerank" in algorithms:
            with _without_scipy(), Cluster(["only"], slots=2) as cluster:
                runs = [
                    run_once(cluster, "pagerank", ALGORITHMS["pagerank"], str(path), partitions) for _ in range(repeat)
                ]
            emit(
                f"{graph} pagerank: edges a second, numpy",
                [ITERATIONS * run.told.edges / run.supersteps_s for run in runs],
                "edges/s",
                target=EDGES_A_SECOND,
                at_least=True,
            )


def _report(emit: Emitter, name: str, graph: str, runs: Sequence[Run], ratios: Sequence[float]) -> None:
    told = runs[0].told
    emit(f"{name}: job", [run.wall_s for run in runs], "s", vertices=told.vertices, edges=told.edges)
    emit(f"{name}: job, CPU of the node", [run.cpu_s for run in runs], "s")
    emit(
        f"{name}: supersteps",
        [run.supersteps_s for run in runs],
        "s",
        supersteps=told.supersteps,
        checkpoints=told.checkpoints,
        agree_s=round(statistics.median(run.agree_s for run in runs), 3),
    )
    emit(f"{name}: over scipy", ratios, "times", target=TARGETS.get(graph))
    if name.endswith("pagerank"):
        speeds = [ITERATIONS * told.edges / run.supersteps_s for run in runs]
        emit(f"{name}: edges a second", speeds, "edges/s")


def run(
    emit: Emitter,
    *,
    graphs: Sequence[str] = (*TARGETS, CNR),
    directory: str = "",
    algorithms: Sequence[str] = tuple(ALGORITHMS),
    partitions: int = 0,
    repeat: int = REPEATS,
) -> None:
    """Measure on all graphs."""
    directory = directory or os.environ.get("BENCH_GRAPHS", "")
    for graph in graphs:
        measure(emit, graph, directory, algorithms=algorithms, partitions=partitions, repeat=repeat)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Graphs, measured.")
    parser.add_argument("--only", nargs="*", default=[*TARGETS, CNR], help="rmat-SCALE, or the name of a graph")
    parser.add_argument("--graphs", default=os.environ.get("BENCH_GRAPHS", ""), help="a directory of graphs")
    parser.add_argument("--algorithms", nargs="*", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--partitions", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=REPEATS)
    parser.add_argument("--product", default="", help=argparse.SUPPRESS)
    parser.add_argument("--both", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.product:
        print(json.dumps(product_s(options.product, both=options.both)))
        return
    run(
        Emitter("graphs"),
        graphs=options.only,
        directory=options.graphs,
        algorithms=options.algorithms,
        partitions=options.partitions,
        repeat=options.repeat,
    )


if __name__ == "__main__":
    command(main)
