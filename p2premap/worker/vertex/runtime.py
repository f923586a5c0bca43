"""The worker's half of vertex jobs: what the tasks of each stage do.

A process works for one job, and lives as long as it: the partitions that it has computed stay with it from one epoch to
the next, and where the next order names the state that it has itself just written, it goes on without reading anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from p2premap.ids import Digest
from p2premap.tasks.job import INLINE_BYTES_MAX
from p2premap.vertex.barrier import Carried, End, VertexError
from p2premap.vertex.loading import LINES, unpack_reading
from p2premap.vertex.plan import (
    OBJECTS,
    SUPERSTEPS,
    BuildParams,
    BuildReport,
    EpochParams,
    EpochReport,
    LoadParams,
    OutputParams,
    Settings,
)
from p2premap.vertex.program import VertexProgram
from p2premap.worker.gang import Gang
from p2premap.worker.heap import give_back
from p2premap.worker.messages import Order
from p2premap.worker.runtime import Context, Result, Segment
from p2premap.worker.vertex.engine import Epoch, Exchanging, drive, split_state, state_head
from p2premap.worker.vertex.jobcode import JobCode, job_code
from p2premap.worker.vertex.partition import Form, Partition

_REPORT_BYTES_MAX: Final = INLINE_BYTES_MAX // 2


class _Kept(NamedTuple):
    """A partition that is here, and the digest of the state blob that says the same."""

    partition: Partition
    state: bytes


class VertexRuntime:
    """Runs the attempts of one vertex job; see `p2premap.worker.runtime.Runtime`.

    Attributes:
        clock: seconds; only their differences count.
    """

    def __init__(self, bundle: bytes, directory: str) -> None:
        self.clock: Callable[[], float] = time.monotonic
        self._bundle = bundle
        self._code: JobCode | None = None
        self._form: Form | None = None
        self._kept: dict[int, _Kept] = {}
        self._carried = Carried()
        self._ended = 0.0

    def run(self, function: str, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        """See `p2premap.worker.runtime.Runtime.run`."""
        match function:
            case "load":
                return self._load(params, segments, context)
            case "build":
                return self._build(params, segments, context)
            case "output":
                return self._output(params, segments, context)
            case _:
                raise VertexError(f"Vertex jobs have no function {function!r}.")

    # --- stages of single tasks -----------------------------------------------------------------------------------

    def _job(self, settings: Settings) -> JobCode:
        if self._code is None or self._code.settings != settings:
            self._code = job_code(self._bundle, settings)
            self._form = None
        return self._code

    def _forms(self, settings: Settings) -> Form:
        code = self._job(settings)
        if self._form is None:
            self._form = code.form()
        return self._form

    def _load(self, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        from p2premap.worker.vertex.load import load

        settings = msgspec.msgpack.decode(params, type=LoadParams).settings
        if unpack_reading(settings.reading).form != LINES:
            return load(params, segments, context)
        program = self._job(settings).program
        if not isinstance(program, VertexProgram):
            raise VertexError("Only a VertexProgram makes vertices of lines.")
        return load(params, segments, context, program.prepare)

    def _build(self, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        from p2premap.worker.vertex.build import build, vertices

        settings = msgspec.msgpack.decode(params, type=BuildParams).settings
        if settings.form != OBJECTS or unpack_reading(settings.reading).form != LINES:
            return build(params, segments, context)
        from p2premap.worker.vertex.objects import write_graph

        self._job(settings)  # what is unpickled may be of classes of the job file
        graph, state = context.new_blob(), context.new_blob()
        count, edges = write_graph(vertices(segments), graph, state)
        context.count(records_in=count, records_out=count)
        report = BuildReport(graph=True, state=True, vertices=count, edges=edges)
        return Result(value=msgspec.msgpack.encode(report), blobs=(graph.finish(), state.finish()))

    def _output(self, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        from p2premap.worker.vertex.output import write

        told = msgspec.msgpack.decode(params, type=OutputParams)
        kept = self._kept.get(told.partition)
        if kept is not None and told.state and kept.state == segments[-1].digest:
            partition = kept.partition
        else:
            partition, _ = self._made(told, segments, context)
        return write(partition.rows(), told.settings, context)

    def _made(
        self, told: EpochParams | OutputParams, segments: Sequence[Segment], context: Context
    ) -> tuple[Partition, Carried]:
        """A partition as its blobs say."""
        form = self._forms(told.settings)
        graph = context.map(segments[0]) if told.graph else None
        partition = form.partition(told.partition, graph)
        if not told.state:
            partition.begin()
            return partition, Carried()
        carried, state = split_state(context.map(segments[-1]))
        partition.restore(state)
        return partition, carried

    # --- supersteps -----------------------------------------------------------------------------------------------

    def run_together(
        self, function: str, orders: Sequence[Order], gang: Gang, contexts: Sequence[Context]
    ) -> Sequence[Result]:
        """Run an epoch; one order a partition.

        Raises:
            PeerLost: another process of the gang is gone, or cannot go on.
            VertexError, Exception: what user code raises.
            InputLost: a blob is not what it was announced to be.
        """
        # on the way to the first superstep twice as much was needed as stays
        return drive(self.epoch(function, orders, gang.seat, gang.seats, contexts, settled=give_back), gang)

    def epoch(
        self,
        function: str,
        orders: Sequence[Order],
        seat: int,
        seats: Sequence[Sequence[int]],
        contexts: Sequence[Context],
        *,
        settled: Callable[[], None] = lambda: None,
    ) -> Exchanging[Sequence[Result]]:
        """The same for whoever carries the frames; see `p2premap.worker.vertex.engine`."""
        if function != SUPERSTEPS:
            raise VertexError(f"Vertex jobs have no function {function!r} that runs together.")
        told = [msgspec.msgpack.decode(order.params, type=EpochParams) for order in orders]
        settings = told[0].settings
        form = self._forms(settings)
        kept, self._kept = self._kept, {}
        change_s = self.clock() - self._ended if self._ended else 0.0
        self._ended = 0.0
        partitions: dict[int, Partition] = {}
        fresh = False
        for one, order, context in zip(told, orders, contexts, strict=True):
            there = kept.pop(one.partition, None)
            if there is not None and one.state and there.state == order.segments[-1].digest:
                partitions[one.partition] = there.partition
            else:
                partitions[one.partition], self._carried = self._made(one, order.segments, context)
                fresh = True
        kept.clear()
        epoch = Epoch(
            seat=seat,
            seats=seats,
            settings=settings,
            program=form.program,
            partitions=partitions,
            fresh=fresh,
            superstep=told[0].superstep,
            carried=self._carried,
            change_s=0.0 if fresh else change_s,
            clock=self.clock,
            settled=settled,
        )
        end = yield from epoch.run()
        self._ended = self.clock()
        self._carried = end.carried
        return [
            self._result(one.partition, partitions[one.partition], end, c)
            for one, c in zip(told, contexts, strict=True)
        ]

    def _result(self, number: int, partition: Partition, end: End, context: Context) -> Result:
        blob = context.new_blob()
        blob.write(state_head(end.carried))
        partition.snapshot(blob)
        state = blob.finish()
        self._kept[number] = _Kept(partition, Digest(state.digest))
        globals = end.carried.globals
        assert globals is not None, "an epoch has counted"
        context.count(records_in=globals.sent)
        report = EpochReport(
            superstep=globals.superstep,
            over=end.over,
            why=end.why,
            vertices=globals.vertices,
            edges=globals.edges,
            rows=end.rows if number == 0 else (),
            dropped=end.carried.dropped,
        )
        return Result(value=_packed(report), blobs=(state,))


def _packed(report: EpochReport) -> bytes:
    """A report of many supersteps, each with many aggregates, leaves the older ones out."""
    while len(packed := msgspec.msgpack.encode(report)) > _REPORT_BYTES_MAX and report.rows:
        report = msgspec.structs.replace(report, rows=report.rows[(len(report.rows) + 1) // 2 :])
    return packed
