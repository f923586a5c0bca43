"""Small graphs for tests: as edges, as the blobs of their partitions, and what the array form makes of them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from p2premap.vertex.barrier import Carried
from p2premap.vertex.loading import BOTH, OUT, Reading
from p2premap.vertex.plan import ARRAYS, Settings
from p2premap.vertex.program import ArrayProgram, set_options
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.arrays import ArrayForm, ArrayPartition
from p2premap.worker.vertex.engine import Epoch, drive
from p2premap.worker.vertex.local import LocalGang, run_seats
from p2premap.worker.vertex.owners import key_of, owner

Id = int | str


class Graph(NamedTuple):
    """A directed graph; `edges` as (source, target) or (source, target, weight)."""

    edges: Sequence[tuple]
    vertices: Sequence[Id] = ()
    undirected: bool = False

    @property
    def ids(self) -> list[Id]:
        """Of all vertices, in order."""
        return sorted({*self.vertices, *(end for edge in self.edges for end in edge[:2])})


def blobs(graph: Graph, partitions: int, view: str, ids: Sequence[Id] | None = None) -> list[bytes]:
    """What the build stage makes of a graph.

    Args:
        ids: of the vertices that there are; None: both ends of every edge are vertices.
    """
    ids = graph.ids if ids is None else ids
    text = any(isinstance(vertex, str) for vertex in ids)
    arcs: list[tuple[int, int, float, int]] = []
    for source, target, *weight in graph.edges:
        there, back, how_far = key_of(source), key_of(target), weight[0] if weight else 1.0
        arcs.append((there, back, how_far, 1))
        if source != target and (graph.undirected or view != "directed"):
            arcs.append((back, there, how_far, int(graph.undirected)))
    names = {key_of(vertex): str(vertex).encode() for vertex in ids}
    keys = np.array(sorted(names), np.int64)
    owners = owner(keys, partitions)
    result = []
    for number in range(partitions):
        mine = keys[owners == number]
        of: dict[int, list] = {int(key): [] for key in mine}
        for source, *rest in arcs:
            if source in of:
                of[source].append(rest)
        rows = [rest for key in mine.tolist() for rest in of[key]]
        arrays = {
            "keys": mine,
            "indptr": np.concatenate(([0], np.cumsum([len(of[int(key)]) for key in mine]))).astype(np.int64),
            "targets": np.array([row[0] for row in rows], np.int64),
        }
        if any(len(edge) > 2 for edge in graph.edges):
            arrays["weights"] = np.array([row[1] for row in rows], np.float64)
        if view != "directed" and not graph.undirected:
            arrays["forward"] = np.array([row[2] for row in rows], np.uint8)
        if text:
            words = [names[key] for key in mine.tolist()]
            arrays["names_offsets"] = np.concatenate(([0], np.cumsum([len(word) for word in words]))).astype(np.int64)
            arrays["names_bytes"] = np.frombuffer(b"".join(words), np.uint8)
        sink = io.BytesIO()
        graphfile.write(sink.write, {"undirected": graph.undirected}, arrays)
        result.append(sink.getvalue())
    return result


class Ran(NamedTuple):
    """What came of a job.

    Args:
        rows: id -> value.
        why: it ended.
        supersteps: how many.
        values: aggregates of the last superstep.
        digest: all of the state, as bytes.
        dropped: messages to vertices that do not exist.
    """

    rows: dict[Id, object]
    why: str
    supersteps: int
    values: Mapping[str, float]
    digest: bytes
    dropped: int


def dealt(partitions: int, seats: int) -> list[list[int]]:
    """Partitions by seat, evenly."""
    return [list(range(partitions))[seat::seats] for seat in range(seats)]


def settings_of(
    program: ArrayProgram, partitions: int, *, ids: str, undirected: bool = False, **more: object
) -> Settings:
    """The settings of a job."""
    view = OUT if program.view == "directed" and not undirected else BOTH
    reading = Reading(ids=ids, view=view, undirected=undirected)
    return Settings(form=ARRAYS, partitions=partitions, ids=ids, reading=reading.pack(), **more)


def run(
    program: type[ArrayProgram] | ArrayProgram,
    graph: Graph,
    *,
    partitions: int = 2,
    seats: int = 1,
    ids: Sequence[Id] | None = None,
    restart_every: int = 0,
    options: Mapping[str, object] | None = None,
    **more: object,
) -> Ran:
    """Run a program over a graph in a gang of threads.

    Args:
        restart_every: supersteps after which everything is written, forgotten and read, on other seats.
        more: settings.
    """
    program = program() if isinstance(program, type) else program
    set_options(program, options or {})
    text = any(isinstance(vertex, str) for vertex in (graph.ids if ids is None else ids))
    settings = settings_of(
        program,
        partitions,
        ids="str" if text else "int",
        undirected=graph.undirected,
        checkpoint_every=restart_every,
        **more,
    )
    made = blobs(graph, partitions, program.view, ids)
    states: list[bytes] = []
    carried, superstep = Carried(), 0
    while True:
        work = _Work(program, settings, made, states, carried, superstep)
        ended = run_seats(dealt(partitions, min(seats, partitions)), work)
        ends = [end for end, _ in ended]
        parts = {number: part for _, several in ended for number, part in several.items()}
        states = [_state(parts[number]) for number in range(partitions)]
        carried, superstep = ends[0].carried, ends[0].rows[-1].superstep + 1
        seats = seats % partitions + 1 if restart_every else seats
        if ends[0].over:
            break
    rows = {key: value for number in range(partitions) for key, value in parts[number].rows()}
    return Ran(rows, ends[0].why, superstep, dict(ends[0].rows[-1].values), b"".join(states), carried.dropped)


class _Work(NamedTuple):
    """What each process of the gang does."""

    program: ArrayProgram
    settings: Settings
    blobs: Sequence[bytes]
    states: Sequence[bytes]
    carried: Carried
    superstep: int

    def __call__(self, gang: LocalGang) -> tuple:
        form = ArrayForm(self.program, self.settings)
        parts = {number: form.partition(number, memoryview(self.blobs[number])) for number in gang.seats[gang.seat]}
        for number, part in parts.items():
            if self.states:
                part.restore(memoryview(self.states[number]))
            else:
                part.begin()
        epoch = Epoch(
            seat=gang.seat,
            seats=gang.seats,
            settings=self.settings,
            program=form.program,
            partitions=parts,
            fresh=True,
            superstep=self.superstep,
            carried=self.carried,
            change_s=0.0,
            clock=time.monotonic,
        )
        return drive(epoch.run(), gang), parts


def _state(part: ArrayPartition) -> bytes:
    sink = io.BytesIO()
    part.snapshot(sink)
    return sink.getvalue()


def random_graph(seed: int, vertices: int, edges: int, *, weights: bool = False, undirected: bool = False) -> Graph:
    """Some edges lead to few vertices, some are repeated, some are loops, and some vertices have none."""
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, vertices, edges)
    targets = (vertices * rng.random(edges) ** 3).astype(np.int64)
    pairs = list(zip((sources * 3).tolist(), (targets * 3).tolist(), strict=True))
    if weights:
        pairs = [(s, t, w) for (s, t), w in zip(pairs, rng.random(edges).tolist(), strict=True)]
    return Graph(pairs, tuple(range(0, vertices * 3, 3)), undirected)


def unique(graph: Graph) -> Iterable[tuple]:
    """The edges, each once."""
    return dict.fromkeys(edge[:2] for edge in graph.edges)
