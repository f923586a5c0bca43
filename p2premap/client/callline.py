"""The line between one program and its job of calls: hands packs in, takes answers, survives its daemon.

::

    submit() --> Packer --> Sender: one frame, many packs --> daemon, which leads the job or passes on to who does
                   ^                                             |
    futures <-- Answers <-- receiver thread <-- CallsEnded, many +

What has no answer is kept. When the connection breaks, the job is opened anew at whatever node answers: it says how
many packs are known and protected, and the rest is handed in again under the same numbers. A pack whose answer is
here already is handed in as a void one, so that numbers have no gaps; ends of the others are told again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any, Final

from p2premap.client.answers import AGAIN_MAX_S, AGAIN_S, TROUBLE, Answers
from p2premap.client.callstate import CallState
from p2premap.client.connection import PATIENCE_S
from p2premap.client.dependents import Dependents
from p2premap.client.future import Future
from p2premap.client.jobs import Connect
from p2premap.client.packs import Call, Counts, Mapped, calls_of
from p2premap.client.references import Shared
from p2premap.client.sending import Opened, Sender
from p2premap.control.answers import Done
from p2premap.control.calls import Calls, CallsEnded, CallsOpened, OpenCalls
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import JobCancelled, JobFailed, JobLost, PeerUnreachable, RemoteProtocolError
from p2premap.ids import JobId, short
from p2premap.tasks.calls import INLINE_BYTES_MAX, pack_calls
from p2premap.tasks.calls_refs import Ref
from p2premap.tasks.job import Phase
from p2premap.wire import Frame

SILENT_S: Final = 20.0
"""A daemon that serves calls gives a sign of life far more often than this."""
OPEN_S: Final = 15.0
LOST_S: Final = 20.0
"""After so long without anybody who knows the job, it is lost."""
CLOSE_S: Final = 5.0


class CallLine:
    """One job of calls.

    Args:
        connect: opens a connection to any daemon.
        job: handed in already.
        slots: worker processes of the cluster.

    Raises:
        ClusterError: it cannot be opened.
    """

    def __init__(self, connect: Connect, job: JobId, slots: int) -> None:
        self._state = CallState(connect, job, slots)
        self._sender = Sender(self._state)
        self._dependents = Dependents(self, self._state, self._ref)
        self._sender.followed = self._dependents.sent
        self._answers = Answers(self._state, self._sender, self._dependents)
        self._opened: Opened | None = None
        self._opened_at = 0.0
        self._short_lines = 0
        self._closing = False
        self._open()
        self._threads = [
            threading.Thread(target=target, name=f"p2premap-{name}", daemon=True)
            for name, target in (("receive", self._receive), ("send", self._sender.run))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def job(self) -> JobId:
        """Its id."""
        return self._state.job

    @property
    def slots(self) -> int:
        """Worker processes of the cluster, as of a moment ago."""
        return self._state.packer.slots

    def count(self) -> Counts:
        """How far its calls are."""
        with self._state.lock:
            counts = self._state.packer.count()
            return counts._replace(waiting=counts.waiting + len(self._state.held))

    @property
    def spent_bytes(self) -> int:
        """What its ledger holds by now, about."""
        return self._sender.spent_bytes + self._answers.spent_bytes

    # --- asked by the cluster object ----------------------------------------------------------------------------------

    def function(self, function: Callable[..., Any]) -> int:
        """See `Sender.function`."""
        return self._sender.function(function)

    def submit(self, call: Call) -> None:
        """Hand in a call, now or soon.

        Raises:
            JobError: the job is over.
            RequestRefused: its arguments are large, and the daemon cannot keep them.
        """
        if call.blob is None and len(call.data) > INLINE_BYTES_MAX:
            call.data, call.alone = pack_calls([call.data]), True
            call.blob, _ = self._sender.put([call.data])
        elif call.blob is not None:  # it has come back; the node that keeps them may be gone
            call.blob, _ = self._sender.put([call.data], call.blob.digest)
        with self._state.lock:
            if self._state.error is not None:
                raise self._state.error
            self._state.packer.add(call)
            flush = self._sender.may_flush()
        if flush:
            self._sender.flush()

    def share(self, value: object, *, own: bool = False) -> Shared:
        """See `Sender.share`."""
        return self._sender.share(value, own=own)

    def submit_after(self, call: Call, things: Sequence[object]) -> None:
        """Hand in a call that refers to values and to results of other calls, now or once it can go.

        Raises:
            JobError: the job is over.
        """
        call.alone, call.things = True, things
        self._dependents.add(call)

    def _ref(self, thing: object) -> Ref:
        """What a pack says of something that the call refers to.

        Raises:
            BaseException: what its call raised.
        """
        if isinstance(thing, Shared):
            return self._sender.adopt(thing)
        assert isinstance(thing, Future)
        ref = thing.ref(self)
        return self.share(thing.result(0), own=True).ref() if len(ref.data) > INLINE_BYTES_MAX else ref

    def submit_map(self, mapped: Mapped) -> int:
        """Hand in calls of a `map`; returns how many may be on their way.

        Raises:
            JobError: the job is over.
        """
        with self._state.lock:
            if self._state.error is not None:
                raise self._state.error
            self._state.packer.add_map(mapped)
            room = self._state.packer.room(mapped)
            flush = self._sender.may_flush()
        if flush:
            self._sender.flush()
        return room

    def cancel(self, call: Call) -> None:
        """Nobody wants this call's answer any more: it is not run, or stopped, unless others share its pack."""
        with self._state.lock:
            pack = call.pack
            if pack is None or any(not other.future.cancelled() for other in pack.calls):
                return
            self._sender.cancel([pack])
            flush = self._sender.may_flush()
        if flush:
            self._sender.flush()

    def drop_map(self, mapped: Mapped) -> None:
        """Nobody wants the rest of a `map`."""
        with self._state.lock:
            self._sender.cancel(self._state.packer.drop_map(mapped))
            flush = self._sender.may_flush()
        if flush:
            self._sender.flush()

    def drop(self, *, running: bool) -> None:
        """Nobody wants the answers of the calls that have not been sent.

        Args:
            running: nor those of the others: they are stopped.
        """
        packer = self._state.packer
        with self._state.lock:
            sent = calls_of(packer.under_way.values()) if running else []
            calls = [*self._state.held, *packer.waiting(), *sent]
            maps = [mapped for mapped in packer.maps() if running or mapped.waiting]
        for call in calls:
            call.future.cancel()
        for mapped in maps:
            with self._state.lock:
                packs = packer.drop_map(mapped)
                self._sender.cancel(packs if running else ())
            mapped.tell(-1, CancelledError())
        self._sender.flush()

    def await_idle(self) -> None:
        """Wait until every call has its answer, or the job is over."""
        with self._state.idle:
            self._state.idle.wait_for(lambda: self._state.quiet or self._state.error is not None)

    def close(self) -> None:
        """Have the job end, once it is idle, and hang up. Never raises."""
        self._closing = True
        with contextlib.suppress(*TROUBLE):
            if not self._state.over.is_set() and self._sender.close_job():
                self._state.over.wait(CLOSE_S)
        self._end(self._how_it_ended())
        for thread in self._threads:
            thread.join(CLOSE_S)
        self._answers.close()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """The thread that hears of answers, and opens the job anew when it must."""
        while not self._state.over.is_set():
            opened = self._opened
            try:
                if opened is None:
                    self._reopen()
                else:
                    self._listen(opened)
            except TROUBLE:
                self._opened = None
                if opened is not None:
                    opened.connection.hang_up()  # whoever is sending on it shall not wait
                self._sender.lose()
                if opened is not None:
                    opened.connection.close()
            except BaseException as error:
                self._end(error)
        if self._opened is not None:
            self._opened.connection.close()

    def _listen(self, opened: Opened) -> None:
        """Take answers until the connection breaks (raises) or the job is over."""
        name = opened.connection.welcome.name
        while True:
            frame = opened.connection.next(opened.request, timeout_s=SILENT_S)
            match frame:
                case None:
                    raise PeerUnreachable(f"The node {name} is silent.")
                case Frame(message=CallsEnded(slots=slots), payload=payload):
                    self._answers.hear(slots, payload)
                case Frame(message=Done()):
                    self._end(self._how_it_ended())
                    return
                case _:
                    raise RemoteProtocolError(f"The node {name} gave an answer that does not fit.")

    # --- opening, ending ----------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        """Open the job at whatever node answers and knows it.

        Raises:
            JobLost: nobody did for `LOST_S`.
        """
        until, again_s = time.monotonic() + LOST_S, AGAIN_S
        if time.monotonic() - self._opened_at > AGAIN_MAX_S:
            self._short_lines = 0
        else:  # it broke as soon as it was open
            self._short_lines += 1
            time.sleep(min(AGAIN_S * 2**self._short_lines, AGAIN_MAX_S))
        while not self._state.over.is_set():
            try:
                self._open(patience_s=0.0)
            except TROUBLE as error:
                if time.monotonic() > until:
                    raise JobLost(
                        f"No node that answers knows the job {short(self.job)} of this program any more: {error}",
                        job=self.job.hex(),
                    ) from None
                time.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_MAX_S)
            else:
                return

    def _open(self, *, patience_s: float = PATIENCE_S) -> None:
        connection = self._state.connect(patience_s=patience_s)
        try:
            first = self._sender.first_under_way()
            request = connection.send(lambda n: OpenCalls(request=n, job=self.job, first=first))
            frame = connection.next(request, timeout_s=OPEN_S)
            match frame:
                case Frame(message=CallsOpened(known=known, slots=slots)):
                    self._state.packer.slots = max(slots, 1)
                    self._opened = Opened(connection, request, Calls(request=request, job=self.job))
                    self._sender.use(self._opened, known)
                    self._opened_at = time.monotonic()
                case Frame(message=Done()):
                    self._end(self._how_it_ended())
                    connection.close()
                case _:
                    raise PeerUnreachable(f"The node {connection.welcome.name} does not open the job.")
        except BaseException:
            self._opened = None
            connection.close()
            raise

    def _how_it_ended(self) -> BaseException:
        """Why the job is over although its program lives."""
        job = self.job.hex()
        if self._closing:
            return JobCancelled("The connection to the cluster has been closed.", job=job)
        with contextlib.suppress(*TROUBLE), self._state.connect() as connection:
            view = connection.ask(lambda n: Watch(request=n, job=self.job, once=True), JobUpdate).view
            if view.phase is Phase.FAILED:
                return JobFailed(view.error, job=job, detail=view.detail)
            return JobCancelled(view.error or "The job of this program was cancelled.", job=job)
        return JobLost("The job of this program is over.", job=job)

    def _end(self, error: BaseException) -> None:
        """Nothing more comes: what has no answer has this one."""
        self._state.end(error)
        self._sender.close()
        if (opened := self._opened) is not None:
            opened.connection.hang_up()
