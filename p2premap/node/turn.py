"""One batch's turn in one process: what is sent, what comes back, and what it means when the process ends.

===================================  ============================  ===========================================
the process                          the attempt that was running  the others that are unanswered
===================================  ============================  ===========================================
died by itself                       CRASHED                       run in a new process
was stopped for the time limit       TIME_LIMIT                    run in a new process
was stopped for the memory limit     MEMORY_LIMIT                  run in a new process
was stopped on request               STOPPED                       STOPPED
===================================  ============================  ===========================================

An attempt that began just after the one for which its process was stopped is run again: it has done no wrong.

Attempts of a gang run at once, and end alike: what becomes of their process becomes of all of them.

Of a process that is being ended nothing is reported before nothing of its tree is left: whoever hears that an attempt
was stopped may rely on it that nothing of it goes on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import trio

from p2premap.errors import LocalProtocolError, RemoteProtocolError
from p2premap.node import logs
from p2premap.node.batches import Batch, Key, ended_alike
from p2premap.node.process import Exit, WorkerProcess
from p2premap.node.surroundings import Surroundings
from p2premap.node.watch import Watch
from p2premap.tasks.events import AttemptGoesOn, AttemptWaits, SlotReported
from p2premap.tasks.job import AttemptEnd, Outcome
from p2premap.wire import Frame
from p2premap.worker.messages import (
    Ended,
    GoesOn,
    Load,
    Order,
    Run,
    RunTogether,
    Waits,
    decode_ends,
    encode_orders,
    encode_together,
)

_ORDERS_MAX: Final = 1_024
_ORDER_BYTES_MAX: Final = 4 << 20
_FIRST_ORDERS_MAX: Final = 64
_FIRST_BYTES_MAX: Final = 16 << 10
_QUICK_S: Final = 0.02
_BY_SOMEBODY: Final = "The worker process was killed by SIGTERM (by somebody else)."


class Reporter:
    """Tells how attempts of one batch ended, each once.

    Args:
        slot: the number of the slot.
        batch: whose attempts.
        around: see there.
    """

    def __init__(self, slot: int, batch: Batch, around: Surroundings) -> None:
        self._slot = slot
        self._batch = batch
        self._around = around
        self._told_over = False
        self.on_over: Callable[[], object] | None = None

    def report(self, ends: Iterable[AttemptEnd]) -> None:
        """Report those that have not been reported; with the last of them, that the batch is over."""
        fresh = tuple(end for end in ends if self._batch.left.pop((end.task, end.attempt), None) is not None)
        over = not self._batch.left
        if not fresh and (not over or self._told_over):
            return
        self._told_over = over
        counts = self._around.counters.attempts
        for end in fresh:
            counts[end.outcome] = counts.get(end.outcome, 0) + 1
        batch = self._batch.run.batch
        self._around.deliver(SlotReported(slot=self._slot, ends=fresh, batch_over=over, batch=batch))
        if over and self.on_over is not None:
            self.on_over()

    def waits(self) -> None:
        """The one attempt that is left waits for other tasks."""
        self._around.deliver(AttemptWaits(slot=self._slot, batch=self._batch.run.batch))

    def goes_on(self) -> None:
        """It waits no more."""
        self._around.deliver(AttemptGoesOn(slot=self._slot, batch=self._batch.run.batch))

    def report_rest(self, outcome: Outcome, error: str, *, detail: str = "") -> None:
        """All that is left ended alike."""
        pattern = AttemptEnd(task=0, attempt=0, outcome=outcome, error=error, detail=detail)
        self.report(ended_alike(tuple(self._batch.left), pattern))


class Turn:
    """One batch's turn in one process.

    Args:
        process: works for the batch's code.
        batch: its code is at hand.
        reporter: of the batch.
        around: see there.
        step_aside: makes room for other batches beside this one, which waits for them; False: there is none.
    """

    def __init__(
        self,
        process: WorkerProcess,
        batch: Batch,
        reporter: Reporter,
        around: Surroundings,
        step_aside: Callable[[], bool],
    ) -> None:
        self.process: Final = process
        self._batch = batch
        self._around = around
        self._step_aside = step_aside
        self._late: dict[Key, AttemptEnd] = {}
        self._door = ""
        """Where other processes of its gang find it."""
        self._quick_until = 0.0
        self.reporter: Final = reporter
        self.watch: Final = Watch(process, batch.run.limits, log_bytes_max=around.log_bytes_max, harvest=self._take)
        process.answers.clear()

    def begin(self, now: float) -> bool:
        """Send what can be sent without waiting. False: that is nothing."""
        if self._gang:
            return False
        if not self.process.loaded:
            self._load()
        orders = self._batch.ready_orders(_FIRST_ORDERS_MAX, _FIRST_BYTES_MAX)
        if not orders:
            return False
        if self._send(orders) and not self._batch.unsent:
            self._quick_until = now + _QUICK_S
        return True

    @property
    def quick_until(self) -> float:
        """Until then, nobody need watch over the process, feed it, or be ready to stop it: what is quick is over."""
        return self._quick_until if self._batch.stop is None else 0.0

    def hear(self, frames: Iterable[Frame]) -> bool:
        """What the process says. Whether the batch is over, and the process goes on."""
        for frame in frames:
            match frame.message:
                case Ended():
                    self._take(frame.payload)
                case Waits(number=number):
                    self._on_waits(number)
                case GoesOn() if self._batch.aside:
                    self.reporter.goes_on()
                case _:
                    pass
        return not self._batch.left and not self.process.condemned

    async def run(self, heard: Iterable[Frame] = ()) -> Exit | None:
        """Work until the batch is over (None), or the process is (what became of it).

        After an `Exit`, what is left of the batch has to run elsewhere, and the process has to be closed.

        Args:
            heard: what the process has said, and `hear` was not given.
        """
        if not self.process.loaded:
            self._load()
        await self.process.flush()
        try:
            async with trio.open_nursery() as nursery:
                self.reporter.on_over = nursery.cancel_scope.cancel
                nursery.start_soon(self._feed_gang if self._gang else self._feed)
                nursery.start_soon(self.watch.run)
                nursery.start_soon(self._stop_on_request)
                if not self.hear(heard):
                    await self._listen()
                nursery.cancel_scope.cancel()
        finally:
            self.reporter.on_over = None
            if self._door:
                with contextlib.suppress(OSError):
                    os.unlink(self._door)  # of a process that died on its way to the meeting
        if not self._batch.left and not self.process.condemned:
            return None
        return await self._bury()

    @property
    def _gang(self) -> bool:
        """Whether the attempts run at once."""
        return self._batch.run.meeting is not None

    async def _listen(self) -> None:
        with contextlib.suppress(RemoteProtocolError):  # user code has written into the socket
            while frames := await self.process.receive():
                self.hear(frames)

    def _on_waits(self, number: int) -> None:
        """The attempt that runs waits for other tasks: everything else of its batch goes to other places."""
        key = self.process.answers.get(number)
        if self._gang or self.process.condemned or self.process.page.running != number or key not in self._batch.left:
            return
        assert key is not None
        if not self._batch.aside:
            self.reporter.report(self._batch.give_back(key))
            if not self._step_aside():
                return
        self.reporter.waits()

    async def _feed(self) -> None:
        """Send the batch's attempts, each as soon as its sources are here."""
        while True:
            decided = await self._batch.next_orders(_ORDERS_MAX, _ORDER_BYTES_MAX)
            if ends := [end for end in decided if isinstance(end, AttemptEnd)]:
                self.reporter.report(ends)
            if orders := [order for order in decided if isinstance(order, Order)]:
                self._send(orders)
                await self.process.flush()

    async def _feed_gang(self) -> None:
        """Send all attempts at once, when all sources are here."""
        orders: list[Order] = []
        while self._batch.unsent:
            for decided in await self._batch.next_orders(_ORDERS_MAX, _ORDER_BYTES_MAX):
                if isinstance(decided, AttemptEnd):
                    self.reporter.report((decided,))
                else:
                    orders.append(decided)
        if len(orders) < len(self._batch.run.attempts):
            text = "It was stopped: an input of another task of its gang is not to be had here."
            self.reporter.report_rest(Outcome.STOPPED, text)
            return
        meeting, table = self._batch.run.meeting, self._around.table
        assert meeting is not None, "it is a gang"
        assert table is not None, "a node that has no network is in no gang"
        made = table(meeting)
        self._door = made.path
        keys = [(order.task, order.attempt) for order in orders]
        run = self._batch.run
        message = RunTogether(first=self.process.number(keys), stage=run.stage, function=run.function)
        self._tell(message, encode_together(made, orders), keys)
        await self.process.flush()

    def _load(self) -> None:
        run, around = self._batch.run, self._around
        assert self._batch.code is not None
        self.process.send_now(
            Load(
                job=run.job,
                runtime=run.runtime,
                code=self._batch.code,
                directory=self.process.directory,
                blobs=around.blobs.directory,
                logs=logs.job_directory(around.logs, run.job),
                log_bytes_max=around.log_bytes_max,
            )
        )
        self.process.loaded = True

    def _send(self, orders: list[Order]) -> bool:
        """Whether they have left, or never will."""
        keys = [(order.task, order.attempt) for order in orders]
        message = Run(first=self.process.number(keys), stage=self._batch.run.stage, function=self._batch.run.function)
        return self._tell(message, encode_orders(orders), keys)

    def _tell(self, message: Run | RunTogether, payload: bytes, keys: list[Key]) -> bool:
        try:
            return self.process.send_now(message, payload)
        except (LocalProtocolError, UnicodeError) as error:
            # one attempt's description is larger than a frame, or names a file that is not text
            text = f"It cannot be sent to a worker process: {error}."
            pattern = AttemptEnd(task=0, attempt=0, outcome=Outcome.REFUSED, error=text)
            self.reporter.report(ended_alike(keys, pattern))
            return True

    async def _stop_on_request(self) -> None:
        await self._batch.stopped.wait()
        assert self._batch.stop is not None
        self.process.ask_to_stop()
        await trio.sleep(self._batch.stop.grace_s)
        self.process.hang_up()

    def _take(self, records: bytes) -> None:
        """Ends that the worker has told.

        Some come twice, read from the journal and sent; the journal of a process that died between two batches may
        still hold ends of the batch before, whose tasks may have the same numbers in another stage.
        """
        try:
            told = decode_ends(records)
        except RemoteProtocolError:
            # user code has written into the socket or the shared page
            self.process.hang_up()
            return
        ends = []
        for number, end in told:
            if self.process.answers.get(number) != (end.task, end.attempt):
                continue
            if end.outcome is Outcome.INPUT_LOST and self._gang:
                self._batch.distrust(end)
            elif end.outcome is Outcome.INPUT_LOST and self._batch.worth_again(end):
                continue
            ends.append(self._explain_stop(end) if end.outcome is Outcome.STOPPED else end)
        if self.process.condemned:
            for end in ends:
                self._late.setdefault((end.task, end.attempt), end)
        else:
            self.reporter.report(ends)

    def _explain_stop(self, end: AttemptEnd) -> AttemptEnd:
        """The worker only knows that the soft signal came."""
        cause = self.watch.cause
        if self._batch.stop is not None:
            return msgspec.structs.replace(end, error=self._batch.stop.reason)
        if cause is not None and (self._gang or self.process.answers.get(cause.number) == (end.task, end.attempt)):
            return msgspec.structs.replace(end, outcome=cause.outcome, error=cause.text)
        if self._gang:
            return end  # it has lost another process of its gang
        return msgspec.structs.replace(end, outcome=Outcome.CRASHED, error=_BY_SOMEBODY)

    async def _bury(self) -> Exit:
        """Take what the process still had to tell, and answer for the attempt that it was running."""
        how = await self.process.ended()
        page = self.process.page
        await trio.to_thread.run_sync(self._around.blobs.clear_temporary, page.pid)
        self._take(page.journal())
        self.reporter.report(self._late.values())
        key = self.process.answers.get(page.running)
        if self._batch.stop is not None:
            self.reporter.report_rest(Outcome.STOPPED, self._batch.stop.reason)
        elif key is not None and key in self._batch.left:
            await self._answer_for(page.running, key, how)
        return how

    async def _answer_for(self, number: int, key: Key, how: Exit) -> None:
        cause = self.watch.cause
        if cause is not None and cause.number != number:
            return  # it began after the attempt that went over its limit: it runs again
        outcome, text = Outcome.CRASHED, f"The worker process {how.text}."
        if cause is not None:
            outcome, text = cause.outcome, cause.text
        tail = await trio.to_thread.run_sync(self._keep_output, key)
        end = AttemptEnd(
            task=key[0],
            attempt=key[1],
            outcome=outcome,
            error=text,
            detail=tail,
            seconds=self.watch.seconds(number),
            peak_bytes=max(how.peak_bytes, self.watch.peak_bytes(number)),
        )
        self.reporter.report((end,))
        if self._gang:
            self.reporter.report_rest(outcome, text)

    def _keep_output(self, key: Key) -> str:
        """Make what the attempt printed its log; its tail. Runs in a thread."""
        tail = logs.read_tail(self.process.output)
        if tail:
            run = self._batch.run
            path = logs.log_path(logs.job_directory(self._around.logs, run.job), run.stage, *key)
            with contextlib.suppress(OSError):
                logs.store_output(self.process.output, path, self._around.log_bytes_max)
        return tail
