"""The worker process's main loop: take orders, run them one after the other in the main thread, tell how they ended.

Nothing here costs a system call more than it must: an attempt that does nothing takes about ten microseconds.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from p2premap.ids import JobId
from p2premap.node.blobs import BlobStore
from p2premap.node.logs import log_path
from p2premap.tasks.delivery import DELIVER
from p2premap.tasks.job import AttemptEnd, AttemptKey, Outcome, Spill
from p2premap.wire import FrameDecoder, Message, encode_frame
from p2premap.worker import together, waiting
from p2premap.worker.capture import Capture
from p2premap.worker.context import AttemptContext
from p2premap.worker.failure import Stopped, end_of
from p2premap.worker.measure import Directory, PeakMemory
from p2premap.worker.messages import (
    WORKER,
    Ended,
    GoesOn,
    Load,
    Order,
    Run,
    RunTogether,
    Table,
    Waits,
    decode_orders,
    decode_together,
    encode_end,
)
from p2premap.worker.page import Page
from p2premap.worker.runtime import Result, Runtime
from p2premap.worker.together import check

if TYPE_CHECKING:
    from p2premap.worker.mesh import Mesh

FLUSH_S: Final = 0.05
_READ_BYTES: Final = 256 << 10
WORDS_BYTES: Final = 1_000
"""Of what an attempt prints that yields a result, so much goes with it; all of it stays in its log."""
_ENDED: Final = Ended()
_GC_THRESHOLDS: Final = (50_000, 20, 20)
"""Collections cost half of some jobs' time at Python's own thresholds."""


class Worker:
    """One worker process. Never returns from `run`.

    Args:
        socket: the descriptor on which the executor speaks.
        page: the descriptor of the shared page.
    """

    def __init__(self, socket: int, page: int) -> None:
        self._socket = socket
        self._page = Page(page)
        self._page.set_pid(os.getpid())
        self._decoder = FrameDecoder(WORKER)
        self._forked = False
        self._flushed = time.monotonic()
        self._interruptible = False
        self._stopping = False
        self._waits = 0
        self._job: _Job | None = None

    def run(self) -> None:
        """Serve until the executor hangs up or the soft signal comes."""
        faulthandler.enable()
        signal.signal(signal.SIGTERM, self._soft_signal)
        faulthandler.register(signal.SIGTERM, chain=True)
        waiting.install(self._waiting)
        os.register_at_fork(after_in_child=self._leave_to_user)
        gc.set_threshold(*_GC_THRESHOLDS)
        status = 1
        try:
            while not self._stopping:
                self._flush()
                self._interruptible = True
                data = os.read(self._socket, _READ_BYTES)
                self._interruptible = False
                if not data:
                    break
                for frame in self._decoder.feed(data):
                    match frame.message:
                        case Load() as message:
                            self._job = _Job(message)
                        case Run() as message:
                            self._run_orders(message, decode_orders(frame.payload))
                        case RunTogether() as message:
                            self._run_together(message, *decode_together(frame.payload))
            self._flush()
            status = 0
        except Stopped:
            status = 0  # while it waited for orders: there is nothing to tell
        except (BrokenPipeError, ConnectionResetError):
            status = 0  # the executor is gone, and the supervisor is about to kill this process
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _soft_signal(self, number: int, frame: object) -> None:
        self._stopping = True
        if self._interruptible:
            self._interruptible = False
            raise Stopped

    def _leave_to_user(self) -> None:
        """In a process that user code forked: let go of what is the worker's own."""
        self._forked = True
        faulthandler.unregister(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(self._socket)

    def _run_orders(self, message: Run, orders: tuple[Order, ...]) -> None:
        job = self._job
        assert job is not None, "the executor sends Load first"
        for number, order in enumerate(orders, message.first):
            if self._stopping:
                return
            self._page.begin(number, time.monotonic())
            end = self._run_attempt(job, message, order)
            if self._forked:
                os._exit(0)  # user code forked, and its child came back here
            self._tell(number, end)

    def _run_attempt(self, job: _Job, run: Run, order: Order) -> AttemptEnd:
        context = AttemptContext(AttemptKey(job.id, run.stage, order.task, order.attempt), job.scratch, job.store)
        start = time.perf_counter()
        try:
            self._interruptible = True
            perform = job.performing(run.function, context)
            job.capture.begin()
            start = time.perf_counter()
            result = perform(order.params, order.segments, context)
            self._interruptible = False
            seconds = time.perf_counter() - start
            check(result)
            end = AttemptEnd(
                task=order.task,
                attempt=order.attempt,
                outcome=Outcome.DONE,
                value=result.value,
                blobs=result.blobs,
                seconds=seconds,
                peak_bytes=job.peak.of_attempt(seconds),
                records_in=context.records_in,
                records_out=context.records_out,
                spill=context.spilled,
            )
        except BaseException as error:
            # whatever user code raises is an answer
            self._interruptible = False
            seconds = time.perf_counter() - start
            peak = job.peak.of_attempt(seconds)
            end = end_of(order.task, order.attempt, error)
            end = job.failed(end, seconds=seconds, peak=peak, spill=context.spilled)
        return end if self._forked else _with_words(end, job.clean_up(context))

    def _run_together(self, message: RunTogether, table: Table, orders: tuple[Order, ...]) -> None:
        """Run attempts at once; they end at once, and alike where there is no result."""
        job = self._job
        assert job is not None, "the executor sends Load first"
        keys = [AttemptKey(job.id, message.stage, order.task, order.attempt) for order in orders]
        contexts = [AttemptContext(key, job.scratch, job.store) for key in keys]
        self._page.begin(message.first, time.monotonic())
        start = time.perf_counter()
        try:
            self._interruptible = True
            perform = job.performing_together(message.function, contexts[0])
            job.capture.begin()
            start = time.perf_counter()
            results = perform(table, orders, contexts)
            self._interruptible = False
            seconds = time.perf_counter() - start
            ends = together.done(orders, results, contexts, seconds=seconds, peak=job.peak.of_attempt(seconds))
        except BaseException as error:
            # whatever user code raises is an answer
            self._interruptible = False
            job.leave_gang()
            seconds = time.perf_counter() - start
            peak = job.peak.of_attempt(seconds)
            ends = [job.failed(end, seconds=seconds / len(orders), peak=peak) for end in together.failed(orders, error)]
        if self._forked:
            os._exit(0)  # user code forked, and its child came back here
        words = [job.clean_up(context) for context in contexts]
        for number, (end, said) in enumerate(zip(ends, words, strict=True), message.first):
            self._tell(number, _with_words(end, said))

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """See `p2premap.worker.waiting`. What another thread of user code waits for keeps nobody from working."""
        number = self._page.running
        if not number or self._forked or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._waits += 1
        if self._waits == 1:
            self._announce(Waits(number=number))
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits and not self._forked:
                self._announce(GoesOn(number=number))

    def _announce(self, message: Message) -> None:
        """Tell something from within user code; the soft signal must not come between two halves of a frame."""
        self._interruptible = False
        self._flush()
        self._write(encode_frame(WORKER, message, b""))
        if self._stopping:
            raise Stopped
        self._interruptible = True

    def _tell(self, number: int, end: AttemptEnd) -> None:
        record = encode_end(number, end)
        if not self._page.end(number, record):
            self._flush()
            if not self._page.end(number, record):  # larger than the whole journal
                self._send(record)
                self._page.end(number, b"")
        if time.monotonic() - self._flushed > FLUSH_S:
            self._flush()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        pending = self._page.pending()
        if pending:
            self._send(pending)
            self._page.clear()

    def _send(self, records: bytes | memoryview) -> None:
        self._write(encode_frame(WORKER, _ENDED, records))

    def _write(self, frame: bytes | bytearray) -> None:
        rest = memoryview(frame)
        while rest:
            rest = rest[os.write(self._socket, rest) :]


class _Job:
    """What this process knows of the job that it works for."""

    def __init__(self, load: Load) -> None:
        self.id = JobId(load.job)
        self.store = BlobStore(load.blobs)
        self.scratch = f"{load.directory}/scratch"
        self.capture = Capture(load.directory, load.log_bytes_max)
        self.peak = PeakMemory()
        self.runtime: Runtime | None = None
        self._load = load
        self._broken: Exception | None = None
        self._scratch_files = Directory(self.scratch)
        self._mesh: Mesh | None = None

    def performing(self, function: str, context: AttemptContext) -> Callable[..., Result]:
        """What runs the attempts of a stage.

        Raises:
            Exception: see `make_runtime`.
        """
        if function == DELIVER:
            from p2premap.worker.delivery import deliver  # few jobs write to URLs

            return deliver
        runtime = self.runtime if self.runtime is not None else self.make_runtime(context)
        return partial(runtime.run, function)

    def performing_together(self, function: str, context: AttemptContext) -> Callable[..., Sequence[Result]]:
        """What runs the attempts of a stage whose tasks share slots.

        Raises:
            Exception: see `make_runtime`.
            TypeError: the job's kind has no such stages.
        """
        from p2premap.worker.mesh import Mesh  # few jobs need it

        runtime = self.runtime if self.runtime is not None else self.make_runtime(context)
        run_together = getattr(runtime, "run_together", None)
        if run_together is None:
            raise TypeError(f"{type(runtime).__name__} has no run_together, and the job's kind plans stages that share")
        mesh = self._mesh = self._mesh or Mesh(self._load.directory)

        def perform(table: Table, orders: Sequence[Order], contexts: Sequence[AttemptContext]) -> Sequence[Result]:
            made: Sequence[Result] = run_together(function, orders, mesh.meet(table), contexts)
            return made

        return perform

    def leave_gang(self) -> None:
        """Something went wrong, and the others are to know."""
        if self._mesh is not None:
            self._mesh.close()

    def make_runtime(self, context: AttemptContext) -> Runtime:
        """Load the job's code, once.

        Raises:
            Exception: whatever user code raises when it is imported, again for every attempt.
        """
        if self._broken is not None:
            raise self._broken
        try:
            module, _, name = self._load.runtime.partition(":")
            made: Runtime = getattr(importlib.import_module(module), name)(
                context.read(self._load.code), f"{self._load.directory}/code"
            )
        except Exception as error:
            self._broken = error
            raise
        # what has been imported lives as long as the process: the collector need not look at it again
        gc.freeze()
        self.runtime = made
        return made

    def failed(self, end: AttemptEnd, *, seconds: float, peak: int, spill: Spill | None = None) -> AttemptEnd:
        """The end of an attempt that failed, with its figures and what it printed last."""
        detail = end.detail
        if self.capture.spoke() and (tail := self.capture.tail()):
            detail = f"{detail}\n--- the end of its output ---\n{tail}" if detail else tail
        return AttemptEnd(
            task=end.task,
            attempt=end.attempt,
            outcome=end.outcome,
            error=end.error,
            detail=detail,
            seconds=seconds,
            peak_bytes=peak,
            missing=end.missing,
            spill=spill,
        )

    def clean_up(self, context: AttemptContext) -> str:
        """After an attempt: its log to its place, its files away; the end of what it printed."""
        context.close()
        said = ""
        if self.capture.spoke():
            key, said = context.attempt, self.capture.tail(WORDS_BYTES)
            self.capture.store(log_path(self._load.logs, key.stage, key.task, key.attempt))
        self._scratch_files.clear()
        return said


def _with_words(end: AttemptEnd, said: str) -> AttemptEnd:
    """With what it printed last, where it yielded a result; where it failed, that is told already."""
    return msgspec.structs.replace(end, detail=said) if said and end.outcome is Outcome.DONE else end
