"""Vertex jobs from files to parts without nodes: planner, director and runtime, driven directly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from p2premap.client.graphs import plan, plan_algorithm
from p2premap.client.graphwish import wish_of
from p2premap.client.planning import Asked
from p2premap.client.submission import Submission
from p2premap.ids import JobId, NodeId
from p2premap.node.blobs import BlobStore
from p2premap.tasks.director import Pinned, StagePlan
from p2premap.tasks.job import AttemptKey, Source, StageId
from p2premap.vertex.director import VertexDirector
from p2premap.vertex.plan import EpochParams
from p2premap.vertex.told import Told, unpack_told
from p2premap.worker.context import AttemptContext
from p2premap.worker.messages import Order
from p2premap.worker.runtime import Segment
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.local import LocalGang, run_seats
from p2premap.worker.vertex.runtime import VertexRuntime

HOME = NodeId(bytes(16))
JOB = JobId(bytes(16))


class DirectJob:
    """One job, stage after stage.

    Args:
        seats: how many processes compute supersteps; each is a thread here.
        runtime: makes what runs in each of them.
    """

    def __init__(
        self,
        submission: Submission,
        directory: Path,
        *,
        seats: int = 2,
        runtime: Callable[[bytes, str], VertexRuntime] = VertexRuntime,
    ) -> None:
        (_, self._bundle), (_, packed) = submission.blobs
        self.director = VertexDirector(job=JOB, home=HOME, plan=packed)
        self._directory = directory
        self._store = BlobStore(str(directory / "blobs"))
        self._seats, self._made = seats, runtime
        self.forget()
        self.results: list[Pinned] = []
        self.stage: StagePlan | None = self.director.first()
        self._number = 0

    def run(self) -> dict[str, str]:
        """To the end: id and value, as the parts have them."""
        while self.stage is not None:
            last = self.stage
            self.step()
        assert last.final
        parts = [part for task, result in enumerate(self.results) for part in self.director.parts(task, result)]
        lines = b"".join(self._store.get(part.source.digest) for part in parts).decode().splitlines()
        return dict(line.split("\t", 1) for line in lines)

    def step(self) -> None:
        """The next stage."""
        assert self.stage is not None
        name = StageId(self._number, b"" if not self._number else b"lineage.")
        if self.stage.shared:
            self.results = self._together(name, self.stage)
        else:
            self.results = [self._alone(name, self.stage, task) for task in range(self.stage.tasks)]
        self.stage = self.director.next(self._number, self.results)
        self._number += 1

    def forget(self) -> None:
        """The processes are others."""
        self._runtimes = [self._made(self._bundle, str(self._directory)) for _ in range(self._seats)]

    @property
    def told(self) -> Told:
        """What clients are told."""
        told = unpack_told(self.director.tell())
        assert told is not None
        return told

    def graphs(self) -> list[graphfile.Graph]:
        """Load and build, and what that comes to."""
        self.step()
        self.step()
        return [graphfile.read(self._store.get(result.blobs[0].digest)) for result in self.results]

    def _alone(self, stage: StageId, plan: StagePlan, task: int) -> Pinned:
        given = self.director.task(stage, task)
        context = self._context(stage, task)
        try:
            segments = list(map(self._segment, given.sources))
            result = self._runtimes[0].run(plan.function, given.params, segments, context)
        finally:
            context.close()
            shutil.rmtree(context.scratch)
        return Pinned(value=result.value, blobs=result.blobs, holders=(HOME,), records_out=context.records_out)

    def _together(self, stage: StageId, plan: StagePlan) -> list[Pinned]:
        seats = [seat for seat in (range(at, plan.tasks, self._seats) for at in range(self._seats)) if seat]
        pinned: dict[int, Pinned] = {}
        settings = msgspec.msgpack.decode(self.director.task(stage, 0).params, type=EpochParams).settings
        for runtime in self._runtimes:
            runtime._forms(settings)  # threads must not load a bundle side by side: a process does so once

        def work(gang: LocalGang) -> None:
            tasks = gang.seats[gang.seat]
            given = [self.director.task(stage, task) for task in tasks]
            contexts = [self._context(stage, task) for task in tasks]
            orders = [
                Order(task=task, attempt=0, params=one.params, segments=tuple(map(self._segment, one.sources)))
                for task, one in zip(tasks, given, strict=True)
            ]
            try:
                results = self._runtimes[gang.seat].run_together(plan.function, orders, gang, contexts)
            finally:
                for context in contexts:
                    context.close()
            for task, result in zip(tasks, results, strict=True):
                pinned[task] = Pinned(value=result.value, blobs=result.blobs, holders=(HOME,))

        run_seats(seats, work)
        return [pinned[task] for task in range(plan.tasks)]

    def _context(self, stage: StageId, task: int) -> AttemptContext:
        scratch = self._directory / f"scratch-{stage.number}-{task}"
        scratch.mkdir()
        return AttemptContext(AttemptKey(JOB, stage, task, 0), str(scratch), self._store)

    def _segment(self, source: Source) -> Segment:
        path = source.path
        if not path:
            assert source.blob is not None
            path = self._store.path(source.blob)
        return Segment(os.fspath(path), source.start, source.end, source.digest, False, source.path)


def planned(
    algorithm: str | Path, inputs: Sequence[str | Path], *, slots: int = 2, partitions: int = 3, **options: Any
) -> Submission:
    """A job of an algorithm by its name, or of a job file by its path."""
    given = {name: str(value) for name, value in options.items() if value is not False}
    asked = Asked(
        file=str(algorithm), inputs=[str(path) for path in inputs], slots=slots, partitions=partitions, given=given
    )
    if isinstance(algorithm, Path):
        return plan(asked)
    wish, _ = wish_of(given)
    own: dict[str, object] = {
        name: options[name] for name in ("damping", "tolerance", "iterations", "source") if name in options
    }
    return plan_algorithm(algorithm, wish, own, asked)


def job(directory: Path, texts: Mapping[str, bytes], algorithm: str | Path = "pagerank", **options: Any) -> DirectJob:
    """A job over these files."""
    inputs = directory / "inputs"
    inputs.mkdir()
    for name, data in texts.items():
        (inputs / name).write_bytes(data)
    return DirectJob(planned(algorithm, [inputs], **options), directory)


def edges_of(graphs: Sequence[graphfile.Graph]) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """All vertices, and all edges with their weights, of the partitions of a graph."""
    names = {key: id for graph in graphs for key, id in zip(graph.keys.tolist(), graph.ids(), strict=True)}
    edges = []
    for graph in graphs:
        ids, targets = graph.ids(), graph.targets.tolist()
        weights = None if graph.weights is None else graph.weights.tolist()
        bounds = graph.indptr.tolist()
        for row, id in enumerate(ids):
            for place in range(bounds[row], bounds[row + 1]):
                edge = (id, names.get(targets[place], targets[place]))
                edges.append(edge if weights is None else (*edge, weights[place]))
    return sorted(names.values()), sorted(edges)
