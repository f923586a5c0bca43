"""Run a map/reduce job without a cluster: the director, the runtime and the blob store, driven directly.

With `workers` processes, each runs attempts as a slot does; with none, everything happens in this process. It measures
what the data path costs without daemons, and tests use it for what the data path must do.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2premap.client.submission import Submission
from p2premap.ids import JobId, NodeId
from p2premap.node.blobs import BlobStore
from p2premap.tasks.director import Pinned, StagePlan, TaskInput
from p2premap.tasks.job import AttemptKey, Source, StageId
from p2premap.tasks.mapreduce import MapReduce
from p2premap.worker.context import AttemptContext
from p2premap.worker.runtime import Runtime, Segment

HOME = NodeId(bytes(16))
JOB = JobId(bytes(16))


@dataclass
class Outcome:
    """What a direct run gave.

    Args:
        parts: the bytes of each output part.
        names: of these, where they bear one.
        seconds: wall clock of each stage.
        cpu_s: of the workers, by stage.
    """

    parts: list[bytes]
    names: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)


class Slot:
    """A worker process's half; one a process."""

    def __init__(self, runtime: str, bundle: bytes, directory: str) -> None:
        module, _, name = runtime.partition(":")
        self._store = BlobStore(os.path.join(directory, "blobs"))
        self._scratch = os.path.join(directory, f"scratch-{os.getpid()}")
        self._runtime: Runtime = getattr(importlib.import_module(module), name)(bundle, directory)

    def run(self, function: str, stage: StageId, task: int, given: TaskInput) -> tuple[Pinned, float]:
        started = time.process_time()
        os.makedirs(self._scratch)
        context = AttemptContext(AttemptKey(JOB, stage, task, 0), self._scratch, self._store)
        try:
            segments = [self._segment(source) for source in given.sources]
            result = self._runtime.run(function, given.params, segments, context)
        finally:
            context.close()
            shutil.rmtree(self._scratch)
        pinned = Pinned(value=result.value, blobs=result.blobs, holders=(HOME,), records_out=context.records_out)
        return pinned, time.process_time() - started

    def _segment(self, source: Source) -> Segment:
        path = source.path
        if not path:
            assert source.blob is not None
            path = self._store.path(source.blob)
        return Segment(path, source.start, source.end, source.digest, False, source.path)


_slot: Slot | None = None


def _start(runtime: str, bundle: bytes, directory: str) -> None:
    global _slot
    _slot = Slot(runtime, bundle, directory)


def _run(function: str, stage: StageId, task: int, given: TaskInput) -> tuple[Pinned, float]:
    assert _slot is not None
    return _slot.run(function, stage, task, given)


def run_direct(submission: Submission, directory: str | Path, *, workers: int = 0) -> Outcome:
    """Run a planned job to its end; what it raises is raised."""
    (_, bundle), (_, plan) = submission.blobs
    director = MapReduce(job=JOB, home=HOME, plan=plan)
    directory = str(directory)
    if not workers:
        _start(director.runtime, bundle, directory)
        return _stages(director, directory, None)
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start, (director.runtime, bundle, directory)
    ) as pool:
        return _stages(director, directory, pool)


def _stages(director: MapReduce, directory: str, pool: concurrent.futures.Executor | None) -> Outcome:
    outcome = Outcome([])
    stage: StagePlan | None = director.first()
    number, results = 0, []
    while stage is not None:
        started = time.perf_counter()
        name = StageId(number, b"" if number == 0 else b"lineage.")
        calls = [(stage.function, name, task, director.task(name, task)) for task in range(stage.tasks)]
        ended: Sequence[tuple[Pinned, float]]
        ended = (
            [_run(*c) for c in calls] if pool is None else [f.result() for f in [pool.submit(_run, *c) for c in calls]]
        )
        results = [pinned for pinned, _ in ended]
        outcome.seconds[stage.name] = time.perf_counter() - started
        outcome.cpu_s[stage.name] = sum(cpu for _, cpu in ended)
        if stage.final:
            store = BlobStore(os.path.join(directory, "blobs"))
            parts = [part for task, result in enumerate(results) for part in director.parts(task, result)]
            outcome.parts = [store.get(part.source.digest) for part in parts]
            outcome.names = [part.name for part in parts]
        stage = director.next(number, results)
        number += 1
    return outcome


def children_cpu_s() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
