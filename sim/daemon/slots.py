"""An executor without processes: attempts run in this very process, at one instant, and then take virtual time.

It brings sources, answers attempts and stops batches with the daemon's own `Batch` and `Stager`. A user's functions
run for real, on real bytes; what all nodes share is the module that they live in, so a job whose functions keep
something in global variables sees those of every node.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from p2premap.ids import Digest, JobId
from p2premap.node.batches import Batch, ended_alike
from p2premap.node.blobs import BlobStore
from p2premap.node.executor import ExecutorStatistics
from p2premap.node.staging import Stager
from p2premap.sim.daemon.meetings import Hall, Meetings
from p2premap.sim.workloads import ShapeDirector, run_shape, seconds_of
from p2premap.tasks.events import EndJob, RunBatch, SlotReported, StopSlot
from p2premap.tasks.job import AttemptEnd, AttemptKey, BlobRef, Outcome, Source
from p2premap.tasks.meeting import Meeting
from p2premap.worker import together
from p2premap.worker.context import AttemptContext
from p2premap.worker.failure import end_of
from p2premap.worker.gang import PeerLost
from p2premap.worker.messages import Order
from p2premap.worker.runtime import Runtime
from p2premap.worker.vertex.runtime import VertexRuntime

if TYPE_CHECKING:
    from p2premap.sim.daemon.host import HouseHost

START_S: Final = 0.1
"""A worker process that has crashed is replaced in about so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How well attempts run.

    Args:
        task_s: what one takes, on average; a shape's attempts say so themselves.
        crash: the chance of an attempt to crash its worker process.
        jitter: durations vary by this part of themselves.
        superstep_s: what one exchange of a gang takes, at most.
        slow: so many times slower at a node that is slow.
    """

    task_s: float = 0.1
    crash: float = 0.0
    jitter: float = 0.5
    superstep_s: float = 0.1
    slow: float = 10.0


class Runtimes:
    """The code of jobs, loaded once for all nodes."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bytes], Runtime] = {}

    def of(self, name: str, digest: bytes, load: Callable[[], bytes], directory: str) -> Runtime:
        """The runtime of a job.

        Raises:
            Exception: what user code raises when it is imported.
        """
        if (name, digest) not in self._made:
            module, _, attribute = name.partition(":")
            self._made[name, digest] = getattr(importlib.import_module(module), attribute)(load(), directory)
        return self._made[name, digest]


class VirtualExecutor:
    """Runs batches as `p2premap.node.executor.Executor` promises.

    Args:
        host: whose.
        runtimes, meetings: shared by all nodes.
        state, blobs, stager, deliver: as there.
    """

    def __init__(
        self,
        host: HouseHost,
        runtimes: Runtimes,
        meetings: Meetings,
        *,
        state: Path,
        blobs: BlobStore,
        stager: Stager,
        deliver: Callable[[SlotReported], None],
        **_: object,
    ) -> None:
        self.logs = str(state / "logs")
        self._host = host
        self._runtimes = runtimes
        self._meetings = meetings
        self._state = state
        self._blobs = blobs
        self._stager = stager
        self._deliver = deliver
        self._random = host.random("executor")
        self._slots: dict[int, _Slot] = {}
        self._ended: Counter[Outcome] = Counter()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        self._blobs.clear_temporary()
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def perform(self, effect: RunBatch | StopSlot | EndJob) -> None:
        """Begin what the core asks for."""
        match effect:
            case RunBatch(slot=number):
                slot = self._slots.get(number)
                if slot is None:
                    assert self._nursery is not None
                    slot = self._slots[number] = _Slot()
                    self._nursery.start_soon(self._work, slot)
                batch = Batch(effect, self._stager)
                slot.queue.append(batch)
                assert self._nursery is not None
                self._nursery.start_soon(batch.bring_sources)
                slot.wake.set()
            case StopSlot(slot=number):
                for batch in self._slots[number].queue if number in self._slots else ():
                    if batch.run.batch == effect.batch and batch.left:
                        batch.request_stop(effect)
            case EndJob():
                pass

    def running(self) -> list[object]:
        """Nothing that lasts."""
        return []

    async def quiet(self) -> None:
        """Wait until no slot has anything to do."""
        while any(slot.queue for slot in self._slots.values()):  # noqa: ASYNC110  (a virtual wait costs nothing)
            await trio.sleep(0.05)

    def environments_in_use(self) -> set[Digest]:
        """None: no job asks for one."""
        return set()

    def statistics(self) -> ExecutorStatistics:
        """A snapshot."""
        return ExecutorStatistics(0, 0, dict(self._ended))

    # --- a slot ---------------------------------------------------------------------------------------------------

    async def _work(self, slot: _Slot) -> None:
        while True:
            while not slot.queue:
                slot.wake = trio.Event()
                await slot.wake.wait()
            batch = slot.queue[0]
            await self._turn(slot, batch)
            batch.close()
            slot.queue.popleft()

    async def _turn(self, slot: _Slot, batch: Batch) -> None:
        """Answer every attempt of a batch."""
        if not batch.left:
            self._report(batch, ())
            return
        if (refusal := await batch.code_or_stop()) is not None:
            self._report(batch, ended_alike(tuple(batch.left), refusal))
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_when_asked, batch, nursery.cancel_scope)
            if batch.run.meeting is not None:
                await self._together(slot, batch, batch.run.meeting)
            while batch.left:
                await self._next(batch)
            nursery.cancel_scope.cancel()
        if batch.left:
            slot.own = None
            assert batch.stop is not None
            stopped = AttemptEnd(task=0, attempt=0, outcome=Outcome.STOPPED, error=batch.stop.reason)
            self._report(batch, ended_alike(tuple(batch.left), stopped))

    async def _next(self, batch: Batch) -> None:
        for order in await batch.next_orders(1, 1 << 20):
            if isinstance(order, AttemptEnd):
                self._report(batch, (order,))
                continue
            seconds = self._seconds(batch, order)
            begun = trio.current_time()
            if 0.0 < (limit := batch.run.limits.time_s) < seconds:
                await trio.sleep(limit)
                text = f"It ran longer than its limit of {limit:g} s."
                late = AttemptEnd(task=order.task, attempt=order.attempt, outcome=Outcome.TIME_LIMIT, error=text)
                self._report(batch, (late,))
                await trio.sleep(START_S)
                continue
            await trio.sleep(seconds)
            await self._host.awake()
            if self._host.worker_crashes() or self._random.random() < self._host.pace.crash:
                error = "The worker process was killed by SIGSEGV."
                crashed = AttemptEnd(task=order.task, attempt=order.attempt, outcome=Outcome.CRASHED, error=error)
                self._host.count("worker crash")
                self._report(batch, (crashed,))
                await trio.sleep(START_S)
                continue
            self._host.ran(batch.run.job, batch.run.stage, order.task, begun)
            end = self._run(batch, order, seconds)
            if not (end.outcome is Outcome.INPUT_LOST and batch.worth_again(end)):
                self._report(batch, (end,))

    # --- a gang ---------------------------------------------------------------------------------------------------

    async def _together(self, slot: _Slot, batch: Batch, meeting: Meeting) -> None:
        """Run the attempts of a gang's process at once."""
        orders: list[Order] = []
        while len(orders) < len(batch.left):
            for order in await batch.next_orders(len(batch.left), 1 << 30):
                if isinstance(order, AttemptEnd):
                    self._report(batch, (order,))
                else:
                    orders.append(order)
        if len(orders) < len(batch.run.attempts):
            text = "It was stopped: an input of another task of its gang is not to be had here."
            stopped = AttemptEnd(task=0, attempt=0, outcome=Outcome.STOPPED, error=text)
            self._report(batch, ended_alike(tuple(batch.left), stopped))
            return
        hall = self._meetings.of(meeting)
        hall.enter(meeting.seat, self._host)
        begun = trio.current_time()
        try:
            ends = await self._meet(slot, batch, meeting, hall, orders)
        finally:
            hall.leave(meeting.seat)
        if all(end.outcome is Outcome.DONE for end in ends):
            for end in ends:
                self._host.ran(batch.run.job, batch.run.stage, end.task, begun)
        self._report(batch, ends)

    async def _meet(
        self, slot: _Slot, batch: Batch, meeting: Meeting, hall: Hall, orders: list[Order]
    ) -> list[AttemptEnd]:
        run, begun = batch.run, trio.current_time()
        keys = [AttemptKey(run.job, run.stage, order.task, order.attempt) for order in orders]
        contexts = [AttemptContext(key, str(self._state / "scratch"), self._blobs) for key in keys]
        code = batch.code
        assert code is not None
        seats = tuple(tasks for _, tasks in meeting.seats)
        try:
            epoch = slot.process(run, contexts[0].read(code)).epoch(run.function, orders, meeting.seat, seats, contexts)
            frames = next(epoch)
            while True:
                await trio.sleep(self._random.uniform(0.5, 1.0) * self._host.pace.superstep_s)
                await self._host.awake()
                if self._host.worker_crashes() or self._random.random() < self._host.pace.crash:
                    slot.own = None
                    self._host.count("worker crash")
                    error = "The worker process was killed by SIGSEGV."
                    crashed = AttemptEnd(task=0, attempt=0, outcome=Outcome.CRASHED, error=error)
                    return list(ended_alike(tuple(batch.left), crashed))
                try:
                    came = await hall.exchange(meeting.seat, frames)
                except PeerLost as lost:
                    frames = epoch.throw(lost)
                else:
                    frames = epoch.send(came)
        except StopIteration as stop:
            return together.done(orders, stop.value, contexts, seconds=trio.current_time() - begun, peak=0)
        except Exception as error:
            return together.failed(orders, error)
        finally:
            for context in contexts:
                context.close()

    def _seconds(self, batch: Batch, order: Order) -> float:
        pace = self._host.pace
        shaped = batch.run.runtime == ShapeDirector.runtime
        usual = seconds_of(batch.left[order.task, order.attempt]) if shaped else pace.task_s
        varied = usual * (1 + self._random.uniform(-1, 1) * pace.jitter)
        return varied * (pace.slow if self._host.slow else 1.0)

    def _report(self, batch: Batch, ends: Iterable[AttemptEnd]) -> None:
        fresh = tuple(end for end in ends if batch.left.pop((end.task, end.attempt), None) is not None)
        self._ended.update(end.outcome for end in fresh)
        if fresh or not batch.left:
            self._deliver(SlotReported(slot=batch.run.slot, ends=fresh, batch_over=not batch.left))

    # --- an attempt -----------------------------------------------------------------------------------------------

    def _run(self, batch: Batch, order: Order, seconds: float) -> AttemptEnd:
        run = batch.run
        context = AttemptContext(
            AttemptKey(run.job, run.stage, order.task, order.attempt), str(self._state / "scratch"), self._blobs
        )
        try:
            if run.runtime == ShapeDirector.runtime:
                return self._run_shape(batch, order, context, seconds)
            code = batch.code
            assert code is not None
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                runtime = self._runtimes.of(
                    run.runtime, run.code.digest, lambda: context.read(code), str(self._state / "code")
                )
                result = runtime.run(run.function, order.params, order.segments, context)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, trio.Cancelled)):
                raise
            return end_of(order.task, order.attempt, error)
        finally:
            context.close()
        return AttemptEnd(
            task=order.task,
            attempt=order.attempt,
            outcome=Outcome.DONE,
            value=result.value,
            blobs=result.blobs,
            seconds=seconds,
            records_in=context.records_in,
            records_out=context.records_out,
        )

    def _run_shape(self, batch: Batch, order: Order, context: AttemptContext, seconds: float) -> AttemptEnd:
        spec = batch.left[order.task, order.attempt]
        segments = dict(zip(spec.sources, order.segments, strict=True))

        def read(source: Source) -> bytes | None:
            return context.read(segments[source])

        return run_shape(batch.run, spec, read, self._write, seconds=seconds)

    def _write(self, content: bytes) -> BlobRef:
        return self._blobs.put(content)


class _Slot:
    """A slot's queue."""

    def __init__(self) -> None:
        self.queue: deque[Batch] = deque()
        self.wake = trio.Event()
        self.own: tuple[JobId, VertexRuntime] | None = None
        """What the worker process has that runs gangs: it keeps things from one to the next."""

    def process(self, run: RunBatch, code: bytes) -> VertexRuntime:
        """The runtime in the slot's worker process."""
        if self.own is None or self.own[0] != run.job:
            runtime = VertexRuntime(code, "")
            runtime.clock = trio.current_time
            self.own = run.job, runtime
        return self.own[1]


async def _stop_when_asked(batch: Batch, scope: trio.CancelScope) -> None:
    await batch.stopped.wait()
    assert batch.stop is not None
    await trio.sleep(batch.stop.grace_s / 2)
    scope.cancel()
