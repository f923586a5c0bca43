"""How many bytes vertex jobs take for an edge and for a vertex: between processes, on disk, in memory.

The first two are counted, and the same on every machine: a job of two processes is run here as two threads, with the
frames that they would send each other (`Gang.exchange`); an edge is one of the whole graph, and both directions count.

- ``sent``        in a superstep, mail and what comes with it; ``agreed``: once, about what will be exchanged
- ``loaded``      from the load stage to the build stage; ``graph``: built, on disk; ``state``: a checkpoint
- ``memory``      of a node's two workers while they compute (PSS, with the graph that is mapped), above what they hold
                  of a graph of 64 vertices; ``own`` is what no file stands behind
- ``network``     in a superstep of PageRank between two machines (network namespaces; needs root), as their kernels
                  count it: sealed, with TCP and IP, and with all else that two nodes say meanwhile
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bench.children import command
from bench.graphs import ALGORITHMS, write_edges
from bench.nodes import Cluster, trees
from bench.report import Emitter
from bench.rmat import rmat
from bench.supersteps import NODES, lab_lacks
from bench.vertexjob import Planner, of_file, run_once
from bench.vertices import FORMS, HEAD, write_lines
from p2premap.client.graphs import plan_algorithm
from p2premap.client.graphwish import Wish
from p2premap.client.planning import Asked
from p2premap.client.submission import Submission
from p2premap.tasks.job import JobView
from p2premap.vertex.plan import BUILD, LOAD, SUPERSTEPS
from p2premap.worker.gang import Buffer, Gang
from p2premap.worker.messages import Order
from p2premap.worker.runtime import Context, Result
from p2premap.worker.vertex.engine import ANSWER, ASK, MAIL
from p2premap.worker.vertex.runtime import VertexRuntime

QUICK: Final = {"repeat": 1, "scale": 10, "forms_scale": 8, "iterations": (5, 2_005)}
REPEATS: Final = 3
SCALE: Final = 18
FORMS_SCALE: Final = 16
PARTITIONS: Final = 4
FORM_SUPERSTEPS: Final = 6
ITERATIONS: Final = (20, 120)
"""What two jobs of these lengths send in all differs by so many supersteps."""
LONG: Final = 1_500
"""So many take so long that what is held on the way to the first superstep is not what is mostly seen."""
EPOCH: Final = 2
"""Supersteps, where a checkpoint is to be counted."""
NEVER: Final = 1 << 30
LOOK_S: Final = 0.03


class Counting:
    """A gang whose frames are counted; see `p2premap.worker.gang.Gang`.

    Args:
        counts: (kind, bytes) of each exchange is added here.
    """

    def __init__(self, gang: Gang, counts: list[tuple[int, int]]) -> None:
        self.seat, self.seats, self.meeting = gang.seat, gang.seats, gang.meeting
        self._gang = gang
        self._counts = counts

    def exchange(self, frames: Sequence[Sequence[Buffer]]) -> list[memoryview]:
        """Count, and pass on."""
        said = [frame for seat, frame in enumerate(frames) if seat != self.seat]
        kind = memoryview(said[0][0])[0]
        self._counts.append((kind, sum(memoryview(piece).nbytes for frame in said for piece in frame)))
        return self._gang.exchange(frames)


class CountingRuntime(VertexRuntime):
    """Counts what its supersteps send.

    Args:
        counts: by seat.
    """

    def __init__(self, bundle: bytes, directory: str, *, counts: Mapping[int, list[tuple[int, int]]]) -> None:
        super().__init__(bundle, directory)
        self._counts = counts

    def run_together(
        self, function: str, orders: Sequence[Order], gang: Gang, contexts: Sequence[Context]
    ) -> Sequence[Result]:
        """See `VertexRuntime.run_together`."""
        return super().run_together(function, orders, Counting(gang, self._counts[gang.seat]), contexts)


class Counted(NamedTuple):
    """What a job came to, in bytes.

    Args:
        mail: superstep by superstep.
        written: by stage; of supersteps, the largest checkpoint.
    """

    vertices: int
    edges: int
    mail: list[int]
    agreed: int
    written: Mapping[str, int]


def counted(planner: Planner) -> Counted:
    """Run a job here and count."""
    from tests.vertex.direct import DirectJob

    counts: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    written: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="p2p-footprint-") as directory:
        job = DirectJob(planner(2), Path(directory), seats=2, runtime=partial(CountingRuntime, counts=counts))
        while job.stage is not None:
            name = job.stage.name
            job.step()
            size = sum(blob.size for result in job.results for blob in result.blobs)
            written[name] = max(size, written.get(name, 0))
    exchanges = [(kind, ours + theirs) for (kind, ours), (_, theirs) in zip(counts[0], counts[1], strict=True)]
    return Counted(
        vertices=job.told.vertices,
        edges=job.told.edges,
        mail=[size for kind, size in exchanges if kind == MAIL],
        agreed=sum(size for kind, size in exchanges if kind in (ASK, ANSWER)),
        written=written,
    )


def algorithm(name: str, graph: Path, options: Mapping[str, object] = {}, *, every: int = NEVER) -> Planner:
    """A job of one that is shipped.

    Args:
        every: supersteps from one checkpoint to the next.
    """

    def planner(slots: int) -> Submission:
        asked = Asked(file="", inputs=[str(graph)], slots=slots, one_machine=True, partitions=PARTITIONS)
        return plan_algorithm(name, Wish(checkpoint_every=every), {**ALGORITHMS[name], **options}, asked)

    return planner


def form(name: str, directory: Path, graph: Path, *, supersteps: int = FORM_SUPERSTEPS, every: int = NEVER) -> Planner:
    """PageRank by a program for each vertex."""
    combiner, send, _ = FORMS[name]
    job_file = directory / "rank.py"
    job_file.write_text(HEAD.format(combiner=combiner, send=send))
    return of_file(job_file, [graph], partitions=PARTITIONS, supersteps=supersteps, checkpoint_every=every)


def _report(emit: Emitter, name: str, found: Counted) -> None:
    edges, vertices = found.edges, found.vertices
    emit(
        f"{name}: sent in a superstep",
        [size / edges for size in found.mail],
        "bytes/edge",
        bytes_a_vertex=round(statistics.median(found.mail) / vertices, 3),
        bytes_in_all=sum(found.mail),
        vertices=vertices,
        edges=edges,
    )
    emit(f"{name}: agreed once", [found.agreed / edges], "bytes/edge", bytes_a_vertex=round(found.agreed / vertices, 3))
    for stage, what in ((LOAD, "loaded"), (BUILD, "graph"), (SUPERSTEPS, "state")):
        size = found.written[stage]
        emit(f"{name}: {what}", [size / edges], "bytes/edge", bytes_a_vertex=round(size / vertices, 3))


# --- memory -------------------------------------------------------------------------------------------------------


class Look:
    """What a node's workers hold while they compute: PSS, and of it what no file stands behind; bytes.

    Args:
        pids: of the daemons.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self.held: list[tuple[int, int]] = []
        self._pids = pids
        self._stage = ""
        self._over = threading.Event()

    def see(self, view: JobView) -> None:
        """The job has changed."""
        self._stage = view.stages[-1].name if view.stages else ""

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Look again and again."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            if self._stage == SUPERSTEPS:
                workers = [one.pid for one in trees(self._pids) if one.pid not in self._pids]
                both = [_held(pid) for pid in workers]
                self.held.append((sum(pss for pss, _ in both), sum(own for _, own in both)))


def _held(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes["Pss"], sizes["Anonymous"]


def held(planner: Planner) -> tuple[float, float]:
    """By the workers of a node, while they run this job; the median.

    Raises:
        ValueError: it was over before anybody looked.
    """
    with Cluster(["only"], slots=2) as cluster:
        look = Look(cluster.pids)
        with look.going_on():
            run_once(cluster.paths, planner, seen=look.see)
    if not look.held:
        raise ValueError("the job was too short to be looked at")
    return statistics.median(pss for pss, _ in look.held), statistics.median(own for _, own in look.held)


def _memory(
    emit: Emitter, name: str, planner: Planner, little: Planner, counts: tuple[int, int], *, repeat: int
) -> None:
    vertices, edges = counts
    above, own = [], []
    for _ in range(repeat):
        (all_little, own_little), (whole, whole_own) = held(little), held(planner)
        above.append(whole - all_little)
        own.append(whole_own - own_little)
    emit(
        f"{name}: memory",
        [size / edges for size in above],
        "bytes/edge",
        bytes_a_vertex=round(statistics.median(above) / vertices, 1),
        own_bytes_an_edge=round(statistics.median(own) / edges, 2),
    )


# --- the network --------------------------------------------------------------------------------------------------


def _network(emit: Emitter, name: str, graph: Path, edges: int, lengths: tuple[int, int], *, repeat: int) -> None:
    if lacks := lab_lacks():
        print(f"# The network is left out: {lacks}", file=sys.stderr)
        return
    from tests.soak.nodes import ManyMachines

    machines = ManyMachines(NODES)
    with machines:

        def sent() -> int:
            look = ("cat", "/sys/class/net/eth0/statistics/tx_bytes")
            return sum(int(machines.lab.run(number, *look).stdout) for number in machines.lab.nodes())

        def sent_by(iterations: int) -> int:
            before = sent()
            run_once(machines.nodes[NODES[0]].paths, algorithm("pagerank", graph, {"iterations": iterations}))
            return sent() - before

        sent_by(1)  # the input goes to the other machine once
        few, many = lengths
        differ = [(sent_by(many) - sent_by(few)) / (many - few) for _ in range(repeat)]
    emit(f"{name}: over the network in a superstep", [size / edges for size in differ], "bytes/edge")


def run(
    emit: Emitter,
    *,
    repeat: int = REPEATS,
    scale: int = SCALE,
    forms_scale: int = FORMS_SCALE,
    iterations: tuple[int, int] = ITERATIONS,
) -> None:
    """Count, and measure."""
    with tempfile.TemporaryDirectory(prefix="p2p-footprint-") as scratch:
        directory = Path(scratch)
        graph, lines, ring = directory / f"rmat-{scale}.parquet", directory / "lines.txt", directory / "ring.txt"
        edges = rmat(scale)
        hub = int(statistics.mode(edges[0].tolist()))
        write_edges(graph, edges)
        write_lines(lines, forms_scale)
        ring.write_text("".join(f"{vertex} {(vertex + 1) % 64}\n" for vertex in range(64)))
        found: dict[str, Counted] = {}
        for name in ALGORITHMS:
            given = {"source": str(hub)} if name == "bfs" else {}
            found[name] = counted(algorithm(name, graph, given, every=EPOCH))
            _report(emit, f"rmat-{scale} {name}", found[name])
        for name in FORMS:
            found[name] = counted(form(name, directory, lines, every=EPOCH))
            _report(emit, f"rmat-{forms_scale} {name}", found[name])
        long = {"iterations": max(LONG, iterations[1])}
        size = found["pagerank"].vertices, found["pagerank"].edges
        ranks = f"rmat-{scale} pagerank"
        _memory(emit, ranks, algorithm("pagerank", graph, long), algorithm("pagerank", ring, long), size, repeat=repeat)
        size = found["send.all"].vertices, found["send.all"].edges
        _memory(
            emit,
            f"rmat-{forms_scale} send.all",
            form("send.all", directory, lines, supersteps=iterations[1]),
            form("send.all", directory, ring, supersteps=iterations[1]),
            size,
            repeat=repeat,
        )
        _network(emit, ranks, graph, found["pagerank"].edges, iterations, repeat=repeat)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Bytes of vertex jobs, counted.")
    parser.add_argument("--scale", type=int, default=SCALE)
    parser.add_argument("--forms-scale", type=int, default=FORMS_SCALE)
    parser.add_argument("--repeat", type=int, default=REPEATS)
    options = parser.parse_args()
    run(Emitter("footprint"), repeat=options.repeat, scale=options.scale, forms_scale=options.forms_scale)


if __name__ == "__main__":
    command(main)
