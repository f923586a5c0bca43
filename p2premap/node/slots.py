"""A slot: takes batch after batch, has each run by a process of its job, and answers every attempt exactly once."""

from __future__ import annotations

import itertools
import logging
import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import trio

from p2premap.errors import P2PRemapError, RemoteProtocolError
from p2premap.ids import Digest, JobId
from p2premap.node import logs
from p2premap.node.batches import Batch, NodeFailed, ended_alike
from p2premap.node.process import ProcessKey, StartRefused, WorkerProcess
from p2premap.node.surroundings import Surroundings
from p2premap.node.turn import Reporter, Turn
from p2premap.tasks.events import RunBatch, StopSlot
from p2premap.tasks.job import Outcome
from p2premap.wire import Frame
from p2premap.worker.messages import Ended

log = logging.getLogger(__name__)

ASIDE_MAX: Final = 64
"""Processes of a node that stand aside at a time; what would wait beyond that keeps its slot."""
_STILLBORN_MAX: Final = 2
"""Processes that end before any attempt began: after so many in a row, this node cannot run the batch."""


class Running(NamedTuple):
    """What a slot is doing now.

    Args:
        task, attempt: -1 while none runs, but its sources are on their way or its process starts.
        seconds: since the attempt began.
        pid: the worker's; 0 while there is none.
        output: the file that takes what the attempt prints.
    """

    slot: int
    job: JobId
    stage: int
    task: int
    attempt: int
    seconds: float
    pid: int
    output: str


class Slot:
    """One slot of the executor; `run` owns its process.

    Args:
        number: of the slot.
        around: shared with the other slots.
        nursery: the executor's: staging begins when a batch is queued, and a process ends in its own time.
    """

    def __init__(self, number: int, around: Surroundings, nursery: trio.Nursery) -> None:
        self._number = number
        self._around = around
        self._nursery = nursery
        self._queue: deque[Batch] = deque()
        self._process: WorkerProcess | None = None
        self._turn: Turn | None = None
        self._aside: dict[int, tuple[Batch, Turn, WorkerProcess]] = {}
        self._runner: object = None
        self._forgotten: set[JobId] = set()
        self._names = itertools.count()
        self._nap: trio.CancelScope | None = None
        """In which the slot's task waits for work, or for the end of a quick batch."""
        self._rests = trio.Event()

    # --- asked by the executor: sync ---

    def push(self, run: RunBatch) -> None:
        """Queue a batch; its sources are brought at once. An idle process of the job gets it at once."""
        batch = Batch(run, self._around.stager)
        self._forgotten.discard(run.job)
        self._queue.append(batch)
        if not batch.ready():
            self._nursery.start_soon(batch.bring_sources)
        if len(self._queue) == 1 and self._nap is not None and not self._begin(batch):
            self._stir()

    def stop(self, stop: StopSlot) -> None:
        """Stop a batch wherever it stands in the queue, unless it is over."""
        for batch in (*self._queue, *(batch for batch, _, _ in self._aside.values())):
            if batch.run.batch == stop.batch and batch.left:
                batch.request_stop(stop)
                self._stir()

    def end_job(self, job: JobId) -> None:
        """Do without this job's process, as soon as no batch of the job is left."""
        self._forgotten.add(job)
        self._stir()

    def running(self) -> list[Running]:
        """What the slot is doing now, and what stands aside of it."""
        doing = [(self._queue[0], self._turn, self._process)] if self._queue else []
        found = []
        for batch, turn, process in (*doing, *self._aside.values()):
            if batch.left:
                now = turn.watch.running() if turn is not None else None
                (task, attempt), seconds = now if now is not None else ((-1, -1), 0.0)
                pid = process.page.pid if process is not None else 0
                stage = batch.run.stage.number
                output = process.output if process is not None else ""
                found.append(Running(self._number, batch.run.job, stage, task, attempt, seconds, pid, output))
        return found

    async def quiet(self) -> None:
        """Wait until nothing is queued here."""
        while self._queue or self._aside:
            await self._rests.wait()

    def environments(self) -> Iterator[Digest]:
        """In which its processes run, and what is queued will run."""
        processes = [self._process, *(process for _, _, process in self._aside.values())]
        keys = [process.key.environment for process in processes if process is not None]
        yield from filter(None, (*keys, *(batch.run.environment for batch in self._queue)))

    @property
    def has_process(self) -> bool:
        """Whether there is a worker process, working or idle."""
        return self._process is not None

    # --- the slot's own task ---

    async def run(self) -> None:
        """Work off the queue until cancelled; then end the process.

        Where the head steps aside, another background task goes on with the queue, and this one only sees to the head.
        """
        me = self._runner = object()
        try:
            while True:
                self._retire_forgotten()
                if not self._queue:
                    self._tell_rest()
                elif self._turn is None:
                    self._begin(self._queue[0])
                heard: Sequence[Frame] | None = ()
                if not self._queue or self._is_quick():
                    heard = await self._listen()
                if heard is None:
                    continue
                head = self._queue[0]
                await self._run_head(head, heard)
                if head.aside:
                    head.close()
                    return
                self._queue.popleft().close()
        finally:
            if self._runner is me and self._process is not None:
                await self._process.aclose()

    async def _listen(self) -> Sequence[Frame] | None:
        """Wait for work, and see batches through that were begun and are quick; None: look again.

        Returns:
            What the process has said of the head that is more than ends; (): it says nothing more.
        """
        until = math.inf if self._turn is None else self._turn.quick_until
        try:
            with trio.CancelScope(deadline=until) as self._nap:
                while (process := self._process) is not None:
                    frames = await process.receive()
                    if self._turn is None:
                        if not frames:
                            self._retire()  # it has ended while it had nothing to do
                    elif not frames or any(not isinstance(frame.message, Ended) for frame in frames):
                        return frames
                    elif self._turn.hear(frames):
                        self._turn = None
                        self._queue.popleft().close()
                        if self._queue:
                            return None
                        self._tell_rest()
                await trio.sleep_forever()
        except RemoteProtocolError:
            # user code has written into the socket
            assert self._process is not None
            self._process.hang_up()
            if self._turn is not None:
                return ()
            self._retire()
        finally:
            self._nap = None
        return None

    def _begin(self, batch: Batch) -> bool:
        """Have the slot's process begin with the head of the queue, if it works for the same code and can at once."""
        process = self._process
        if process is None or process.key != _key(batch.run) or batch.code is None or batch.stop is not None:
            return False
        turn = self._turn_of(batch, process, Reporter(self._number, batch, self._around))
        try:
            if not batch.left or not turn.begin(trio.current_time()):
                return False
        except (P2PRemapError, UnicodeError):
            return False  # `_run_head` comes to the same, and answers for it
        self._turn = turn
        if self._nap is not None and turn.quick_until < self._nap.deadline:
            self._nap.deadline = turn.quick_until  # to look up too early once costs less than to put off each time
        return True

    def _turn_of(self, batch: Batch, process: WorkerProcess, reporter: Reporter) -> Turn:
        return Turn(process, batch, reporter, self._around, self._step_aside)

    def _is_quick(self) -> bool:
        """Whether the head has been begun, and nobody need see to it yet."""
        return self._turn is not None and trio.current_time() < self._turn.quick_until

    def _stir(self) -> None:
        """There is something to be seen to."""
        if self._nap is not None:
            self._nap.cancel()

    def _tell_rest(self) -> None:
        """Nothing is queued here."""
        self._rests.set()
        self._rests = trio.Event()

    def _step_aside(self) -> bool:
        """What runs waits for other tasks: go on with the next batch, in another process."""
        if self._around.counters.aside >= ASIDE_MAX:
            return False
        assert self._turn is not None
        assert self._process is not None
        batch = self._queue.popleft()
        batch.aside = True
        self._aside[batch.run.batch] = batch, self._turn, self._process
        self._around.counters.aside += 1
        self._process = self._turn = None
        self._nursery.start_soon(self.run)
        return True

    def _retire_forgotten(self) -> None:
        waiting = {batch.run.job for batch in self._queue}
        if self._process is not None and self._process.key.job in self._forgotten - waiting:
            self._retire()
        self._forgotten &= waiting

    def _retire(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._nursery.start_soon(_end, process)

    async def _run_head(self, batch: Batch, heard: Sequence[Frame]) -> None:
        """Answer every attempt of a batch, whatever goes wrong; it may have been begun."""
        reporter = Reporter(self._number, batch, self._around) if self._turn is None else self._turn.reporter
        reporter.report(())
        try:
            await self._work_off(batch, reporter, heard)
        except Exception as error:
            log.exception("slot %d cannot run a batch", self._number)
            self._retire()
            reporter.report_rest(Outcome.REFUSED, str(NodeFailed(error)))

    async def _work_off(self, batch: Batch, reporter: Reporter, heard: Sequence[Frame]) -> None:
        stillborn = 0
        while batch.left or self._turn is not None:
            if self._turn is None:
                if (refusal := await batch.code_or_stop()) is not None:
                    reporter.report(ended_alike(tuple(batch.left), refusal))
                    return
                try:
                    process = self._process_for(batch)
                except StartRefused as error:
                    reporter.report_rest(Outcome.REFUSED, str(error))
                    return
                self._turn = self._turn_of(batch, process, reporter)
            turn, process = self._turn, self._turn.process
            try:
                how = await turn.run(heard)
            finally:
                if batch.aside:
                    await self._end_aside(batch, process)
                else:
                    self._turn = None
            if batch.aside:
                reporter.report_rest(Outcome.STOPPED, "Its process ended while it waited for other tasks.")
                return
            if how is None:
                return
            heard = ()
            stillborn = 0 if process.page.started else stillborn + 1
            if stillborn == _STILLBORN_MAX:
                text = f"The worker process {how.text} before it could begin."
                reporter.report_rest(Outcome.REFUSED, text, detail=logs.read_tail(process.output))
            self._retire()
            batch.restart()

    async def _end_aside(self, batch: Batch, process: WorkerProcess) -> None:
        """What stood aside is over; its process may still hold orders that were given back."""
        del self._aside[batch.run.batch]
        self._around.counters.aside -= 1
        self._tell_rest()
        await process.aclose()

    def _process_for(self, batch: Batch) -> WorkerProcess:
        """The slot's process if it works for the same code, else a new one.

        Raises:
            StartRefused: see there.
        """
        run = batch.run
        key = _key(run)
        if self._process is not None and self._process.key == key:
            return self._process
        self._retire()
        python = sys.executable if run.environment is None else self._around.interpreter(run.environment)
        if not python:
            raise StartRefused("The job's environment has just been removed; it is made again.")
        directory = f"{self._around.work}/{run.job.hex()}/{self._number}.{next(self._names)}"
        self._process = WorkerProcess.start(key, directory, python)
        self._around.counters.started += 1
        return self._process


def _key(run: RunBatch) -> ProcessKey:
    return ProcessKey(run.job, run.runtime, run.code.digest, run.environment)


async def _end(process: WorkerProcess) -> None:
    """End a process that is not needed any more."""
    try:
        await process.aclose()
    except Exception:
        log.exception("a worker process cannot be ended")
