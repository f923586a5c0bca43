"""The line between one program and its job of calls: hands packs in, takes answers, survives its daemon.

::

    submit() --> Packer --> one frame, many packs --> daemon, which leads the job or passes on to who does
                   ^                                     |
    futures <-- receiver thread <-- CallsEnded, many ----+

Whoever submits when nothing was sent for a millisecond sends at once, in its own thread; what comes within that
millisecond, or while a frame is being sent, is sent together. One thread receives; one sends what was put off.

What has no answer is kept. When the connection breaks, the job is opened anew at whatever node answers: it says how
many packs are known and protected, and the rest is handed in again under the same numbers. A pack whose answer is
here already is handed in as a void one, so that numbers have no gaps; ends of the others are told again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final

import blake3

from p2premap.client.connection import Connection
from p2premap.client.jobs import Connect, chunks, put_blob
from p2premap.client.packs import Call, Mapped, Pack, Packer, calls_of
from p2premap.client.pickles import dumps, exception, loads
from p2premap.control import Calls, CallsEnded, CallsOpened, Chunk, Done, JobUpdate, OpenCalls, ReadBlob, Watch
from p2premap.errors import (
    CallFailed,
    ClusterError,
    JobCancelled,
    JobFailed,
    JobLost,
    NodeUnavailable,
    PeerUnreachable,
    RemoteProtocolError,
)
from p2premap.ids import Digest, JobId, NodeId, RequestId, short
from p2premap.tasks import calls as wire
from p2premap.tasks.calls import (
    BLOB,
    CHUNK,
    FUNCTION_BYTES_MAX,
    INLINE_BYTES_MAX,
    RAISED,
    STAR,
    VOID,
    BlobAt,
    pack_body,
    pack_calls,
    pack_extension,
    pack_function,
    unpack_answers,
    unpack_done,
    unpack_ends,
)
from p2premap.tasks.job import AttemptEnd, Outcome, Phase
from p2premap.wire import Frame

COALESCE_S: Final = 0.001
FRAME_BYTES: Final = 512 << 10
FRAME_PACKS_MAX: Final = 1_000
SILENT_S: Final = 20.0
"""A daemon that serves calls gives a sign of life far more often than this."""
OPEN_S: Final = 15.0
LOST_S: Final = 20.0
"""After so long without anybody who knows the job, it is lost."""
AGAIN_S: Final = 0.1
AGAIN_MAX_S: Final = 1.0
CLOSE_S: Final = 5.0
FETCHERS: Final = 2
FUNCTIONS_KEPT_MAX: Final = 1_000

_TROUBLE = (ClusterError, RemoteProtocolError)


@dataclass(slots=True)
class _Functions:
    """Functions of this job, each handed in once.

    `packed` are those that have a number, `known` the numbers of those seen lately.
    """

    packed: list[bytes] = field(default_factory=list)
    numbers: dict[bytes, int] = field(default_factory=dict)
    known: OrderedDict[int, tuple[object, int]] = field(default_factory=OrderedDict)
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    sent: int = 0


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
        self.job = job
        self._connect = connect
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._packer = Packer(max(slots, 1))
        self._functions = _Functions()
        self._next = 0
        self._cancelled: list[int] = []
        self._connection: Connection | None = None
        self._request = RequestId(0)
        self._node: NodeId | None = None
        self._flushing = False
        self._put_off = False
        self._soon = threading.Event()
        self._sent_at = self._opened_at = 0.0
        self._short_lines = 0
        self._closing = False
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._blob_lock = threading.Lock()
        self._blob_line: Connection | None = None
        self._fetchers: ThreadPoolExecutor | None = None
        self._open()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._receive, self._send_soon)]
        for thread in self._threads:
            thread.start()

    # --- asked by the cluster object ------------------------------------------------------------------------------

    def function(self, function: Callable[..., Any]) -> int:
        """The number of a function, which is pickled when it is first seen.

        Raises:
            Exception: it cannot be pickled.
        """
        # what has no state of its own is not looked at again; a method's object may have changed since
        plain = isinstance(function, (FunctionType, BuiltinFunctionType, type))
        if plain and (known := self._functions.known.get(id(function))) is not None and known[0] is function:
            return known[1]
        code = dumps(function)
        packed = pack_function(self._put(code) if len(code) > FUNCTION_BYTES_MAX else code)
        with self._lock:
            functions = self._functions
            number = functions.numbers.get(packed)
            if number is None:
                number = functions.numbers[packed] = len(functions.packed)
                functions.packed.append(packed)
                if packed[0]:
                    functions.blobs[packed] = code
            if plain:
                functions.known[id(function)] = function, number
                if len(functions.known) > FUNCTIONS_KEPT_MAX:
                    functions.known.popitem(last=False)
        return number

    def submit(self, call: Call) -> None:
        """Hand in a call, now or soon.

        Raises:
            JobError: the job is over.
        """
        if len(call.data) > INLINE_BYTES_MAX:
            call.data, call.alone = pack_calls([call.data]), True
            call.blob = self._put(call.data)
        with self._lock:
            if self._error is not None:
                raise self._error
            self._packer.add(call)
            flush = self._may_flush()
        if flush:
            self._flush()

    def submit_map(self, mapped: Mapped) -> None:
        """Hand in the calls of a `map`.

        Raises:
            JobError: the job is over.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            self._packer.add_map(mapped)
            flush = self._may_flush()
        if flush:
            self._flush()

    def cancel(self, call: Call) -> None:
        """Nobody wants this call's answer any more: it is not run, or stopped, unless others share its pack."""
        with self._lock:
            pack = call.pack
            if pack is None or pack.over or any(not other.future.cancelled() for other in pack.calls):
                return
            self._cancel_packs([pack])
            flush = self._may_flush()
        if flush:
            self._flush()

    def drop_map(self, mapped: Mapped) -> None:
        """Nobody wants the rest of a `map`."""
        with self._lock:
            self._cancel_packs(self._packer.drop_map(mapped))
            flush = self._may_flush()
        if flush:
            self._flush()

    def cancel_waiting(self) -> list[Call]:
        """The calls that have not been sent."""
        with self._lock:
            return self._packer.waiting()

    def await_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until every call has its answer, or the job is over."""
        with self._idle:
            return self._idle.wait_for(lambda: self._packer.idle or self._error is not None, timeout_s)

    def close(self) -> None:
        """Have the job end, once it is idle, and hang up. Never raises."""
        with self._lock:
            self._closing = True
            connection = self._connection
        if connection is not None and not self._over.is_set():
            with contextlib.suppress(*_TROUBLE):
                self._send(connection, pack_extension(first=self._next, closed=True))
                self._over.wait(CLOSE_S)
        self._end(self._how_it_ended())
        for thread in self._threads:
            thread.join(CLOSE_S)
        if self._fetchers is not None:
            self._fetchers.shutdown(wait=False)
        with self._blob_lock:
            if self._blob_line is not None:
                self._blob_line.close()

    # --- sending --------------------------------------------------------------------------------------------------

    def _may_flush(self) -> bool:
        """Whether whoever holds the lock should send when it has let go of it; else somebody will."""
        if self._flushing or self._connection is None or not (self._packer.open or self._cancelled):
            return False
        if self._packer.under_way and time.monotonic() - self._sent_at < COALESCE_S:
            if not self._put_off:
                self._put_off = True
                self._soon.set()
            return False
        return True

    def _send_soon(self) -> None:
        """The thread that sends what was put off."""
        while not self._over.is_set():
            self._soon.wait()
            self._soon.clear()
            time.sleep(COALESCE_S)
            with self._lock:
                self._put_off = False
            self._flush()

    def _flush(self) -> None:
        """Send what may be sent, unless somebody is at it."""
        while True:
            with self._lock:
                connection = self._connection
                if self._flushing or connection is None:
                    return
                packs, full = self._take_packs()
                cancelled, self._cancelled = self._cancelled, []
                if not packs and not cancelled:
                    return
                self._flushing = True
                first = packs[0].number if packs else self._next
                functions = self._functions.packed[self._functions.sent :]
                first_function, self._functions.sent = self._functions.sent, len(self._functions.packed)
            try:
                for pack in packs:
                    self._encode(pack)
                extension = pack_extension(
                    first_function=first_function,
                    functions=functions,
                    first=first,
                    packs=[pack.body for pack in packs],
                    cancelled=cancelled,
                )
                self._send(connection, extension)
            except PeerUnreachable:
                connection.hang_up()  # the receiver opens another one, and hands these in again
                full = False
            finally:
                with self._lock:
                    self._flushing = False
                    self._sent_at = time.monotonic()
                    if not full:
                        self._may_flush()
                    self._idle.notify_all()
            if not full:
                return

    def _take_packs(self) -> tuple[list[Pack], bool]:
        """As many as fit into a frame, numbered; and whether there are more."""
        packs: list[Pack] = []
        size = 0
        while self._packer.open:
            if size >= FRAME_BYTES or len(packs) >= FRAME_PACKS_MAX:
                return packs, True
            pack = self._packer.next()
            if pack is None:
                break
            self._packer.sent(pack, self._next)
            self._next += 1
            packs.append(pack)
            size += sum(len(call.data) for call in pack.calls if call.blob is None) or INLINE_BYTES_MAX // 4
        return packs, False

    def _encode(self, pack: Pack) -> None:
        """Make the pack's body; where that is impossible, an empty one, and the rows have their answer."""
        if pack.mapped is None:
            (first, *others) = pack.calls
            if first.blob is not None and not others:
                pack.body, pack.blob, pack.blob_data = pack_body(0, first.function, first.blob), first.blob, first.data
            else:
                pack.body = pack_body(0, first.function, pack_calls([call.data for call in pack.calls]))
            return
        mapped = pack.mapped
        flags = CHUNK | STAR if mapped.star else CHUNK
        try:
            data = dumps(mapped.rows[pack.start : pack.stop])
            if len(data) > INLINE_BYTES_MAX:
                pack.blob, pack.blob_data = self._put(data), data
        except Exception as error:
            # what cannot be pickled, or kept, is the caller's to know when it comes to these rows
            mapped.sink(pack.start, error)
            pack.body = pack_body(VOID, 0, b"")
            return
        self._packer.row_size(pack, len(data))
        pack.body = pack_body(flags, pack.function, data if pack.blob is None else pack.blob)

    def _send(self, connection: Connection, extension: bytes) -> None:
        connection.post(Calls(request=self._request, job=self.job), extension)

    def _cancel_packs(self, packs: Iterable[Pack]) -> None:
        for pack in packs:
            if not pack.cancelled and not pack.over:
                pack.cancelled = True
                self._cancelled.append(pack.number)

    def _put(self, data: bytes) -> BlobAt:
        """Have a daemon keep these bytes; if it cannot be reached, they are put when one can."""
        digest = Digest(blake3.blake3(data).digest())
        with self._blob_lock:
            for _ in range(2):
                try:
                    if self._blob_line is None:
                        self._blob_line = self._connect()
                    put_blob(self._blob_line, data)
                except PeerUnreachable:
                    if self._blob_line is not None:
                        self._blob_line.close()
                    self._blob_line = None
                except NodeUnavailable:
                    break
                else:
                    return BlobAt(digest, len(data), self._blob_line.welcome.node)
        return BlobAt(digest, len(data), self._node or NodeId(bytes(16)))

    # --- receiving ------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """The thread that hears of answers, and opens the job anew when it must."""
        while not self._over.is_set():
            connection = self._connection
            try:
                if connection is None:
                    self._reopen()
                else:
                    self._listen(connection)
            except _TROUBLE:
                if connection is not None:
                    connection.close()
                with self._idle:
                    self._connection = None
                    self._idle.wait_for(lambda: not self._flushing)
            except BaseException as error:
                self._end(error)
        if self._connection is not None:
            self._connection.close()

    def _listen(self, connection: Connection) -> None:
        """Take answers until the connection breaks (raises) or the job is over."""
        while True:
            frame = connection.next(self._request, timeout_s=SILENT_S)
            match frame:
                case None:
                    raise PeerUnreachable(f"The node {connection.welcome.name} is silent.")
                case Frame(message=CallsEnded(slots=slots), payload=payload):
                    self._hear(slots, payload)
                case Frame(message=Done()):
                    self._end(self._how_it_ended())
                    return
                case _:
                    raise RemoteProtocolError(f"The node {connection.welcome.name} gave an answer that does not fit.")

    def _hear(self, slots: int, payload: bytes) -> None:
        for group in unpack_ends(payload) if payload else ():
            for end in group.ends:
                self._on_end(group.node, end)
        with self._lock:
            self._packer.slots = max(slots, 1)
            flush = self._may_flush()
            if self._packer.idle:
                self._idle.notify_all()
        if flush:
            self._flush()

    def _on_end(self, node: NodeId, end: AttemptEnd) -> None:
        with self._lock:
            pack = self._packer.under_way.get(end.task)
        if pack is None:
            return
        if end.outcome is not Outcome.DONE:
            self._without_answer(pack, end)
            return
        done = unpack_done(end.value)
        if done.flags & BLOB and end.blobs:
            blob = end.blobs[0]
            if self._fetchers is None:
                self._fetchers = ThreadPoolExecutor(FETCHERS, "p2premap-fetch")
            self._fetchers.submit(self._fetch, pack, done, BlobAt(blob.digest, blob.size, node))
        else:
            self._answered(pack, done)

    def _answered(self, pack: Pack, done: wire.Done) -> None:
        """The pack's answers are here."""
        with self._lock:
            if self._packer.ended(pack.number) is None:
                return
            self._packer.learn(pack, done.calls, done.seconds, len(done.data))
            if pack.mapped is None or not done.flags & RAISED:
                self._packer.rest(pack, done.calls)
        if pack.mapped is not None:
            if not done.flags & VOID:
                pack.mapped.sink(pack.start, done)
            return
        pieces, raised = unpack_answers(done.data, done.calls)
        failed = frozenset(raised)
        for position, piece in enumerate(pieces):
            future = pack.calls[position].future
            try:
                if position in failed:
                    _set_exception(future, exception(piece))
                else:
                    future.set_result(loads(piece))
            except InvalidStateError:
                continue  # it was cancelled
            except BaseException as error:
                # the answer cannot be made here: its class is not known, or refuses
                _set_exception(future, error)

    def _without_answer(self, pack: Pack, end: AttemptEnd) -> None:
        """The pack's worker process died, or went over a limit."""
        rows = pack.stop - pack.start if pack.mapped is not None else len(pack.calls)
        with self._lock:
            if self._packer.ended(pack.number) is None:
                return
            if rows > 1 and not pack.cancelled:
                self._packer.apart(pack)
                return
        error = CallFailed(end.error or "It was stopped.", job=self.job.hex(), detail=end.detail)
        if pack.mapped is not None:
            pack.mapped.sink(pack.start, error)
        for call in pack.calls:
            _set_exception(call.future, error)

    def _fetch(self, pack: Pack, done: wire.Done, blob: BlobAt) -> None:
        """Get a large answer; where that is impossible now, its pack stays under way, and is told of again."""
        again_s = AGAIN_S
        while not (self._over.is_set() or pack.over):
            try:
                with self._connect() as connection:
                    data = _read_blob(connection, blob)
            except _TROUBLE:
                time.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_MAX_S)
                continue
            try:
                self._answered(pack, done._replace(data=memoryview(data)))
            except BaseException as error:
                self._end(error)
            self._hear(self._packer.slots, b"")
            return

    # --- opening, ending ------------------------------------------------------------------------------------------

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
        while not self._over.is_set():
            try:
                self._open()
            except _TROUBLE as error:
                if time.monotonic() > until:
                    raise JobLost(
                        f"No node that answers knows the job {short(self.job)} of this program any more: {error}",
                        job=self.job.hex(),
                    ) from None
                time.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_MAX_S)
            else:
                return

    def _open(self) -> None:
        connection = self._connect()
        try:
            with self._lock:
                first = min(self._packer.under_way, default=self._next)
            request = connection.send(lambda n: OpenCalls(request=n, job=self.job, first=first))
            frame = connection.next(request, timeout_s=OPEN_S)
            if frame is not None and isinstance(frame.message, Done):
                self._end(self._how_it_ended())
                connection.close()
                return
            if frame is None or not isinstance(frame.message, CallsOpened):
                raise PeerUnreachable(f"The node {connection.welcome.name} does not open the job.")
            self._request = request
            self._hand_in_again(connection, frame.message.known)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._packer.slots = max(frame.message.slots, 1)
            self._node = connection.welcome.node
            self._connection = connection
            self._opened_at = time.monotonic()
        self._flush()

    def _hand_in_again(self, connection: Connection, known: int) -> None:
        """Everything from the pack `known` on, and what the node that has gone held. Nobody else sends meanwhile."""
        with self._lock:
            packs = sorted(self._packer.under_way.values(), key=lambda pack: pack.number)
            functions, following = list(self._functions.packed), self._next
            self._functions.sent = len(functions)
            self._cancelled = [pack.number for pack in packs if pack.cancelled]
        moved = []
        node = connection.welcome.node
        if self._node is not None and node != self._node:
            for data in (*self._functions.blobs.values(), *(pack.blob_data for pack in packs if pack.blob_data)):
                moved.append((put_blob(connection, data).digest, node))
        if not functions and known >= following:
            return
        self._send(connection, pack_extension(functions=functions, first=min(known, following), moved=moved))
        void = pack_body(VOID, 0, b"")
        bodies = {pack.number: pack.body for pack in packs}
        start, some, size = known, list[bytes](), 0
        for number in range(known, following):
            some.append(bodies.get(number, void))
            size += len(some[-1])
            if size >= FRAME_BYTES or len(some) >= FRAME_PACKS_MAX or number == following - 1:
                self._send(connection, pack_extension(first_function=len(functions), first=start, packs=some))
                start, some, size = number + 1, [], 0

    def _how_it_ended(self) -> BaseException:
        """Why the job is over although its program lives."""
        job = self.job.hex()
        if self._closing:
            return JobCancelled("The connection to the cluster has been closed.", job=job)
        with contextlib.suppress(*_TROUBLE), self._connect() as connection:
            view = connection.ask(lambda n: Watch(request=n, job=self.job, once=True), JobUpdate).view
            if view.phase is Phase.FAILED:
                return JobFailed(view.error, job=job, detail=view.detail)
            return JobCancelled(view.error or "The job of this program was cancelled.", job=job)
        return JobLost("The job of this program is over.", job=job)

    def _end(self, error: BaseException) -> None:
        """Nothing more comes: what has no answer has this one."""
        with self._idle:
            if self._over.is_set():
                return
            self._error = error
            self._over.set()
            calls = [*self._packer.waiting(), *calls_of(self._packer.under_way.values())]
            maps = self._packer.maps()
            connection = self._connection
            self._idle.notify_all()
        self._soon.set()
        if connection is not None:
            connection.hang_up()
        for call in calls:
            _set_exception(call.future, error)
        for mapped in maps:
            mapped.sink(-1, error)


def _read_blob(connection: Connection, blob: BlobAt) -> bytes:
    read = partial(ReadBlob, source=blob.source())
    return b"".join(chunks(connection.stream(lambda n: read(request=n), Chunk)))


def _set_exception(future: Future[Any], error: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
