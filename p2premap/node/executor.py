"""The executor: worker processes, one a slot, that run attempts for the worker core.

The core asks by `perform(RunBatch | StopSlot | EndJob)` and is told by `SlotReported`. How the pieces fit::

    Executor --> Slot (a queue of batches) --> Turn (a batch in a process) --> WorkerProcess --> supervisor --> worker
                   |                             |
                 Batch: what is unanswered,     Watch: limits, output, shared memory
                 sources on their way (Stager)

A worker process starts when its slot first needs one, is used for one job's code only, and ends with the job. User
code can crash, hang, fork, leave its session or fill its memory; the node answers for it and goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from p2premap.ids import Digest
from p2premap.node.blobs import BlobStore
from p2premap.node.logs import LOG_BYTES_MAX
from p2premap.node.staging import Stager
from p2premap.node.surroundings import Counters, Surroundings
from p2premap.tasks.events import AttemptGoesOn, AttemptWaits, EndJob, RunBatch, SlotReported, StopSlot
from p2premap.tasks.job import AttemptEnd, Outcome

if TYPE_CHECKING:
    from p2premap.node.slots import Running, Slot
    from p2premap.tasks.meeting import Meeting
    from p2premap.worker.messages import Table


class ExecutorStatistics(msgspec.Struct, frozen=True):
    """The executor in numbers.

    Args:
        processes: worker processes alive now.
        processes_started: so far.
        attempts: ended so far, by outcome.
    """

    processes: int
    processes_started: int
    attempts: dict[Outcome, int]


class Executor:
    """Runs attempts in worker processes.

    Args:
        state: the node's state directory; ``logs`` and ``work`` are made in it. What an earlier run of the node left
            in ``work`` is removed.
        blobs: this node's store; workers write their results into it.
        stager: brings sources.
        deliver: is called with every report, never from within `perform`.
        log_bytes_max: of what one attempt prints, this much is kept.
        interpreter: the Python of an environment (`p2premap.node.environments`).
        table: whom the process of a gang meets (`p2premap.node.gangs`).
    """

    def __init__(
        self,
        *,
        state: Path,
        blobs: BlobStore,
        stager: Stager,
        deliver: Callable[[SlotReported | AttemptWaits | AttemptGoesOn], None],
        log_bytes_max: int = LOG_BYTES_MAX,
        interpreter: Callable[[Digest], str] = lambda digest: "",
        table: Callable[[Meeting], Table] | None = None,
    ) -> None:
        self._counters = Counters()
        self._around = Surroundings(
            blobs=blobs,
            stager=stager,
            logs=str(state / "logs"),
            work=str(state / "work"),
            log_bytes_max=log_bytes_max,
            deliver=deliver,
            counters=self._counters,
            interpreter=interpreter,
            table=table,
        )
        self._slots: dict[int, Slot] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def logs(self) -> str:
        """The directory of logs, for `p2premap.node.logs.list_logs`."""
        return self._around.logs

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; then every process tree is ended and every scratch file removed."""
        await trio.to_thread.run_sync(self._clear_leftovers)
        try:
            async with trio.open_nursery() as nursery:
                # slots live as long as the executor, but are made when the core first uses them
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                await self._around.stager.aclose()
                await trio.to_thread.run_sync(self._clear_leftovers)

    def perform(self, effect: RunBatch | StopSlot | EndJob) -> None:
        """Begin what the core asks for; never blocks. Only while `run` runs."""
        match effect:
            case RunBatch(slot=number):
                try:
                    slot = self._slot(number)
                except (OSError, ImportError) as error:  # such as where no descriptor is free
                    assert self._nursery is not None, "it was asked for a slot"
                    self._nursery.start_soon(self._refuse, effect, error)
                else:
                    slot.push(effect)
            case StopSlot(slot=number):
                if number in self._slots:
                    self._slots[number].stop(effect)
            case EndJob(job=job):
                for slot in self._slots.values():
                    slot.end_job(job)

    async def _refuse(self, run: RunBatch, error: Exception) -> None:
        """What runs batches cannot be loaded now: the batch is for another node, or for later."""
        text = f"What runs tasks cannot be loaded on this node now: {error}."
        ends = tuple(
            AttemptEnd(task=a.task, attempt=a.attempt, outcome=Outcome.REFUSED, error=text) for a in run.attempts
        )
        self._around.deliver(SlotReported(slot=run.slot, ends=ends, batch_over=True, batch=run.batch))

    def running(self) -> list[Running]:
        """What the busy slots are doing now."""
        return [now for slot in self._slots.values() for now in slot.running()]

    def environments_in_use(self) -> set[Digest]:
        """By worker processes, and by batches that wait for one."""
        return {digest for slot in self._slots.values() for digest in slot.environments()}

    async def quiet(self) -> None:
        """Wait until no slot has anything to do."""
        for slot in list(self._slots.values()):
            await slot.quiet()

    def statistics(self) -> ExecutorStatistics:
        """A snapshot."""
        alive = sum(slot.has_process for slot in self._slots.values())
        return ExecutorStatistics(alive, self._counters.started, dict(self._counters.attempts))

    def _slot(self, number: int) -> Slot:
        slot = self._slots.get(number)
        if slot is None:
            assert self._nursery is not None, "perform() needs run()"
            from p2premap.node.slots import Slot  # what runs batches is loaded with the first of them

            slot = self._slots[number] = Slot(number, self._around, self._nursery)
            self._nursery.start_soon(slot.run)
        return slot

    def _clear_leftovers(self) -> None:
        shutil.rmtree(self._around.work, ignore_errors=True)
        self._around.blobs.clear_temporary()
        # a disk that cannot be written is reported by the attempts that need it
        for directory in (self._around.work, self._around.logs):
            with contextlib.suppress(OSError):
                os.makedirs(directory, mode=0o700, exist_ok=True)
