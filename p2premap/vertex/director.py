"""The director of vertex jobs: which stages there are, and what each task reads.

::

    load         a task a group of splits: lines become vertices and edges, cut by the partition that owns them
    build        a task a partition: its segments of all load blobs become a graph blob, and perhaps a first state blob
    supersteps   a gang, a task a partition, again and again: an *epoch* each; the state blobs that it yields are a
                 checkpoint, and what the ledger pins of it is the checkpoint's decision
    output       a task a partition: its graph and its last state become a part

An epoch that loses a process is begun again from the checkpoint before, wherever there are slots. The graph blobs stay
what they are; of state blobs, those of the last epoch that is pinned are all that anybody may need again.

Sources: Malewicz et al., Pregel (SIGMOD 2010), 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from p2premap.errors import JobError, JobFailed
from p2premap.ids import JobId, NodeId
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.job import BlobRef, Part, Source, StageId
from p2premap.vertex.loading import Loading
from p2premap.vertex.plan import (
    BUILD,
    OUTPUT,
    SUPERSTEPS,
    BuildParams,
    BuildReport,
    EpochParams,
    EpochReport,
    OutputParams,
    unpack_plan,
)
from p2premap.vertex.told import Account

T = TypeVar("T")


class VertexDirector:
    """Directs one vertex job; see `p2premap.tasks.director.Director`."""

    runtime = "p2premap.worker.vertex.runtime:VertexRuntime"
    planner = "p2premap.client.graphs:plan"
    streams = False

    def __init__(self, *, job: JobId, home: NodeId, plan: bytes) -> None:
        self.home = home
        self._plan, inputs = unpack_plan(plan)
        self._settings = self._plan.settings
        self._loading = None if inputs is None else Loading(job=job, home=home, plan=self._plan, inputs=inputs)
        self.input_bytes = 0 if self._loading is None else self._loading.input_bytes
        self._stages: list[str] = []
        self._built: tuple[tuple[BuildReport, Pinned], ...] = ()
        self._states: tuple[Pinned, ...] = ()
        self._superstep = 0
        self._account = Account()

    @property
    def _epochs(self) -> int:
        return self._stages.count(SUPERSTEPS)

    # --- stages ---------------------------------------------------------------------------------------------------

    def first(self) -> StagePlan:
        """Loading; where there is nothing to load, building."""
        if self._loading is None:
            return self._build_stage(())
        return self._noted(self._loading.load_stage())

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """See `Director`.

        Raises:
            JobFailed: a task told nonsense, or was left out.
        """
        match self._stages[number]:
            case "load":
                return self._build_stage(results)
            case "build":
                self._built = tuple((_report(result, BuildReport), result) for result in results)
                reports = [report for report, _ in self._built]
                self._account.build(sum(r.vertices for r in reports), sum(r.edges for r in reports))
                return self._epoch_stage()
            case "supersteps":
                return self._output_stage() if self._take_epoch(results) else self._epoch_stage()
            case _:
                return None

    def _take_epoch(self, results: Sequence[Pinned]) -> bool:
        """An epoch has ended; whether the job has."""
        reports = [_report(result, EpochReport) for result in results]
        told = reports[0]
        together = all((report.superstep, report.over) == (told.superstep, told.over) for report in reports)
        if not together or any(len(result.blobs) != 1 for result in results):
            raise JobFailed("The tasks of an epoch have not ended together.")
        self._states = tuple(results)
        self._superstep = told.superstep
        self._account.epoch(told)
        return told.over

    def tell(self) -> bytes:
        """See `p2premap.tasks.director.Tells`."""
        return self._account.pack()

    def _noted(self, stage: StagePlan) -> StagePlan:
        self._stages.append(stage.name)
        return stage

    def _build_stage(self, results: Sequence[Pinned]) -> StagePlan:
        if self._loading is not None:
            stage = self._loading.build_stage(results)
            self._account.load(self._loading.loaded)
            return self._noted(stage)
        return self._noted(StagePlan(name=BUILD, function=BUILD, tasks=self._settings.partitions))

    def _epoch_stage(self) -> StagePlan:
        stage = StagePlan(
            name=SUPERSTEPS,
            function=SUPERSTEPS,
            tasks=self._settings.partitions,
            together=True,
            shared=True,
            copied=True,
            passing=True,
        )
        return self._noted(stage)

    def _output_stage(self) -> StagePlan:
        size = sum(blob.size for result in self._states for blob in result.blobs)
        return self._noted(
            StagePlan(name=OUTPUT, function=OUTPUT, tasks=self._settings.partitions, bytes_in=size, final=True)
        )

    # --- tasks ----------------------------------------------------------------------------------------------------

    def task(self, stage: StageId, task: int) -> TaskInput:
        """What a task reads, and what it is told."""
        match self._stages[stage.number]:
            case "load":
                assert self._loading is not None, "there is something to load"
                return self._loading.load_task(task)
            case "build":
                if self._loading is not None:
                    return self._loading.build_task(task)
                params = BuildParams(settings=self._settings, partition=task)
                return TaskInput(params=msgspec.msgpack.encode(params))
            case "supersteps":
                sources, graph, state = self._sources(task)
                told = EpochParams(
                    settings=self._settings,
                    partition=task,
                    graph=graph,
                    state=state,
                    epoch=self._epochs - 1,
                    superstep=self._superstep,
                )
                return TaskInput(params=msgspec.msgpack.encode(told), sources=sources)
            case _:
                sources, graph, state = self._sources(task)
                last = OutputParams(
                    settings=self._settings, partition=task, graph=graph, state=state, superstep=self._superstep
                )
                return TaskInput(params=msgspec.msgpack.encode(last), sources=sources)

    def _sources(self, partition: int) -> tuple[tuple[Source, ...], bool, bool]:
        """A partition's graph and its latest state, and which of the two there are."""
        report, built = self._built[partition]
        blobs = list(built.blobs)
        sources = [_source(blobs.pop(0), built.holders)] if report.graph else []
        if self._states:
            state = self._states[partition]
            sources.append(_source(state.blobs[0], state.holders))
        elif report.state:
            sources.append(_source(blobs.pop(0), built.holders))
        return tuple(sources), report.graph, bool(self._states) or report.state

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        """The one blob of an output task."""
        if len(result.blobs) != 1:
            return ()
        suffix = self._settings.suffix
        name = f"part-{task:05d}{suffix}" if suffix else ""
        source = _source(result.blobs[0], result.holders)
        return (Part(number=task, source=source, records=result.records_out, name=name),)

    def extend(self, payload: bytes) -> Extension:
        """Nothing comes later.

        Raises:
            JobError: always.
        """
        raise JobError("This vertex job takes no more tasks once it runs.")

    # --- inputs ---------------------------------------------------------------------------------------------------

    def input_files(self) -> Iterable[str]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        return () if self._loading is None else self._loading.input_files()

    def inputs(self) -> Iterator[Source]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        return iter(()) if self._loading is None else self._loading.inputs()

    def spread(self, holders: Sequence[NodeId]) -> None:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        if self._loading is not None:
            self._loading.spread(holders)


def _source(blob: BlobRef, holders: tuple[NodeId, ...]) -> Source:
    return Source(digest=blob.digest, start=0, end=blob.size, holders=holders, blob=blob.digest)


def _report(result: Pinned, kind: type[T]) -> T:
    if result.failed:
        raise JobFailed("A vertex job needs all its partitions, and one of its tasks has failed for good.")
    try:
        return msgspec.msgpack.decode(result.value, type=kind)
    except msgspec.DecodeError as error:
        raise JobFailed(f"A task told nonsense about its partition: {error}.") from None
