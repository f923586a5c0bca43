"""The sending half of a program's line to its job: functions, packs and blobs on their way to a daemon.

Whoever submits when nothing was sent for a millisecond, or nothing is under way, sends at once, in its own thread;
what comes within that millisecond (or five, when the cluster has enough to do), or while a frame is being sent, is
sent together, by a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from mmap import mmap
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import blake3

from p2premap.client.callstate import CallState
from p2premap.client.captured import Captured, captured
from p2premap.client.connection import Connection
from p2premap.client.interrupts import PutOff
from p2premap.client.packs import Call, Pack, calls_of
from p2premap.client.pickles import dumps, look_for_modules, names_local
from p2premap.client.puts import is_same, put_pieces
from p2premap.client.references import Shared, dumps_referring
from p2premap.control.calls import Calls
from p2premap.errors import LocalProtocolError, NodeUnavailable, PeerUnreachable
from p2premap.ids import Digest, NodeId, RequestId
from p2premap.tasks.calls import (
    CHUNK,
    FUNCTION_BYTES_MAX,
    INLINE_BYTES_MAX,
    STAR,
    VOID,
    pack_body,
    pack_calls,
    pack_extension,
    pack_function,
)
from p2premap.tasks.calls_refs import CALL, BlobAt, Ref
from p2premap.worker.values import Piece, pack_value

COALESCE_S: Final = 0.001
UNHURRIED_S: Final = 0.005
"""The same while every slot of the cluster has a pack, and another one behind it."""
FRAME_BYTES: Final = 512 << 10
FRAME_PACKS_MAX: Final = 1_000
FUNCTIONS_KEPT_MAX: Final = 1_000
ALIKE_MAX: Final = 4
"""A value is compared with so many others of its shape, to see whether it has been put already."""
LATELY_MAX: Final = 4
"""So many values that were put last are known although nothing refers to them: they are files, and cost no memory."""


class Opened(NamedTuple):
    """A connection on which the job is open, the number of the request that opened it, and what comes with calls."""

    connection: Connection
    request: RequestId
    calls: Calls


class Functions:
    """The functions of one job, each handed in once; `packed` are those that have a number."""

    def __init__(self) -> None:
        self.packed: list[bytes] = []
        self.sent = 0
        self.large: dict[int, bytes] = {}
        """Those that travel as blobs."""
        self._numbers: dict[bytes, int] = {}
        self._known: OrderedDict[int, tuple[object, int, tuple[Captured, ...]]] = OrderedDict()

    def known(self, function: object) -> int | None:
        """The number of a function that was seen lately and cannot have changed since."""
        entry = self._known.get(id(function))
        if entry is None or entry[0] is not function or not all(one.is_the_same() for one in entry[2]):
            return None
        return entry[1]

    def number(self, function: object, code: bytes, packed: bytes) -> int:
        """The number of a function that has been pickled."""
        number = self._numbers.get(packed)
        if number is None:
            number = self._numbers[packed] = len(self.packed)
            self.packed.append(packed)
            if packed[0]:
                self.large[number] = code
        # a method's object, say, may change between two calls: only what has no state of its own is not looked at again
        if isinstance(function, (FunctionType, BuiltinFunctionType, type)):
            self._known[id(function)] = function, number, captured(function)
            if len(self._known) > FUNCTIONS_KEPT_MAX:
                self._known.popitem(last=False)
        return number


class Sender:
    """Sends what may be sent.

    Args:
        state: of the line.
    """

    def __init__(self, state: CallState) -> None:
        self._state = state
        self._functions = Functions()
        self._opened: Opened | None = None
        self._node: NodeId | None = None
        self._spoken = False
        """Something was sent: a leader keeps back what waits for others until the program has spoken."""
        self._next = 0
        self._cancelled: list[int] = []
        self._flushing = False
        self._put_off = False
        self._soon = threading.Event()
        self._sent_at = self._sleep_s = 0.0
        self.spent_bytes = 0
        """What the job's ledger has taken in from here, about."""
        self._shared: WeakSet[Shared] = WeakSet()
        self._lately: deque[Shared] = deque(maxlen=LATELY_MAX)
        self._sharing = threading.Lock()
        self._blob_lock = threading.Lock()
        self._blob_line: Connection | None = None
        self.followed: Callable[[Call], Iterable[Call]] = lambda call: ()
        """Told of a call that is under way and that others wait for: those that can go now."""

    # --- what is handed in ------------------------------------------------------------------------------------------

    def function(self, function: Callable[..., Any]) -> int:
        """The number of a function, which is pickled when it is first seen.

        Raises:
            Exception: it cannot be pickled.
        """
        if (known := self._functions.known(function)) is not None:
            return known
        look_for_modules()
        code = dumps(function)
        packed = pack_function(self.put([code])[0] if len(code) > FUNCTION_BYTES_MAX else code)
        with self._state.lock:
            return self._functions.number(function, code, packed)

    def put(self, pieces: Sequence[Piece], digest: Digest | None = None) -> tuple[BlobAt, memoryview]:
        """Have a daemon keep what these pieces make; if it cannot be reached, it is put when one can.

        Args:
            digest: of the whole, where it is known.

        Raises:
            RequestRefused: it will not, such as for a full disk.
        """
        with self._blob_lock:
            for _ in range(2):
                try:
                    if self._blob_line is None:
                        self._blob_line = self._state.connect()
                    ref, kept = put_pieces(self._blob_line, pieces, job=self._state.job, digest=digest)
                except PeerUnreachable:
                    self._close_blob_line()
                except NodeUnavailable:
                    break
                except BaseException:
                    self._close_blob_line()  # what was begun goes with it
                    raise
                else:
                    return BlobAt(ref.digest, ref.size, self._blob_line.welcome.node), kept
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        at = BlobAt(Digest(blake3.blake3(data).digest()), len(data), self._node or NodeId(bytes(16)))
        return at, memoryview(data)

    def share(self, value: object, *, own: bool) -> Shared:
        """What the arguments of many calls may refer to; the same value is put once for as long as one does.

        Raises:
            RequestRefused: it cannot be kept.
            Exception: it cannot be pickled.
        """
        look_for_modules()
        pieces = pack_value(value, names_local)
        head = bytes(pieces[0])
        with self._sharing:
            alike = [shared for shared in self._shared if shared.head == head]
        for known in alike[:ALIKE_MAX]:
            if is_same(known.data, pieces):
                if known.own == own:
                    return known
                return self._keep(Shared(known.at, known.data, head, own=own))
        at, kept = self.put(pieces)
        return self._keep(Shared(at, kept, head, own=own))

    def adopt(self, shared: Shared) -> Ref:
        """For a pack; the value may have been put for an earlier job of the program, or another one."""
        with self._sharing:
            known = shared in self._shared
        if not known:
            shared.at, shared.data = self.put([shared.data], shared.at.digest)
            self._keep(shared)
        return shared.ref()

    def _keep(self, shared: Shared) -> Shared:
        with self._sharing:
            self._shared.add(shared)
            if isinstance(shared.data.obj, mmap):  # a file, and not memory
                self._lately.append(shared)
        return shared

    def cancel(self, packs: Iterable[Pack]) -> None:
        """Nobody wants these any more. The caller holds the lock."""
        for pack in packs:
            if not pack.cancelled and not pack.over:
                pack.cancelled = True
                self._cancelled.append(pack.number)

    def may_flush(self) -> bool:
        """Whether whoever holds the lock should `flush` when it has let go of it; else somebody will."""
        packer = self._state.packer
        if self._flushing or self._opened is None or not (packer.open or self._cancelled):
            return False
        if packer.under_way and (left := self._sent_at + self._pause() - time.monotonic()) > 0:
            if not self._put_off:
                self._put_off = True
                self._sleep_s = left
                self._soon.set()
            return False
        return True

    def _pause(self) -> float:
        """How long after a frame the next one goes."""
        packer = self._state.packer
        return UNHURRIED_S if len(packer.under_way) > 2 * packer.slots else COALESCE_S

    def run(self) -> None:
        """Send what was put off, until the job is over; a thread's work."""
        while True:
            self._soon.wait()
            self._soon.clear()
            if self._state.over.is_set():
                return
            time.sleep(self._sleep_s)
            with self._state.lock:
                self._put_off = False
            self.flush()

    def flush(self) -> None:
        """Send what may be sent, unless somebody is at it."""
        more = True
        while more:
            taken = False
            try:
                with PutOff(), self._state.lock:
                    opened = self._opened
                    if self._flushing or opened is None:
                        return
                    packs, more = self._take()
                    cancelled, self._cancelled = self._cancelled, []
                    if not packs and not cancelled:
                        return
                    self._flushing = taken = True
                    # the job may have another leader already than when it was handed in; there is nothing to withdraw
                    again, self._spoken = not self._spoken, True
                    first = packs[0].number if packs else self._next
                    first_function, functions = self._functions.sent, self._functions.packed[self._functions.sent :]
                    self._functions.sent = len(self._functions.packed)
                for pack in packs:
                    self._encode(pack)
                extension = pack_extension(
                    first_function=first_function,
                    functions=functions,
                    first=first,
                    packs=[pack.body for pack in packs],
                    cancelled=cancelled,
                    again=again,
                )
                self._send(opened, extension)
            except BaseException as error:  # such as Ctrl-C, which may leave half a frame, or none
                if taken and opened is not None:
                    opened.connection.hang_up()  # the receiver opens another one, and hands these in again
                if not isinstance(error, PeerUnreachable):
                    raise
                return
            finally:
                if taken:
                    with PutOff(), self._state.idle:
                        self._flushing = False
                        self._sent_at = time.monotonic()
                        # what came meanwhile was left to whoever was sending; so were answers to all that was sent
                        more = more or self.may_flush()
                        self._state.idle.notify_all()

    def _take(self) -> tuple[list[Pack], bool]:
        """As many packs as fit into a frame, numbered; and whether there may be more."""
        packs: list[Pack] = []
        packer, size = self._state.packer, 0
        while packer.open:
            if size >= FRAME_BYTES or len(packs) >= FRAME_PACKS_MAX:
                return packs, True
            pack = packer.next()
            if pack is None:
                break
            packer.sent(pack, self._next)
            self._next += 1
            packs.append(pack)
            for call in pack.calls:
                if call.followers is not None:
                    for follower in self.followed(call):
                        packer.add(follower)
            size += sum(len(call.data) for call in pack.calls if call.blob is None) or INLINE_BYTES_MAX // 4
        return packs, False

    def _encode(self, pack: Pack) -> None:
        """Make the pack's body; where that is impossible, an empty one, and the rows have their answer."""
        if pack.mapped is None:
            (first, *others) = pack.calls
            if not others and (first.refs or first.blob is not None or first.node is not None):
                data = pack_calls([first.data]) if first.blob is None else first.blob
                pack.body = pack_body(0, first.function, data, first.refs, first.node)
                pack.blob_data = b"" if first.blob is None else first.data
            else:
                pack.body = pack_body(0, first.function, pack_calls([call.data for call in pack.calls]))
            return
        mapped = pack.mapped
        flags = CHUNK | STAR if mapped.star else CHUNK
        try:
            data, things = dumps_referring(mapped.rows[pack.start : pack.stop])
            refs = [self.adopt(_shared(thing)) for thing in things]
            large = self.put([data])[0] if len(data) > INLINE_BYTES_MAX else None
        except Exception as error:
            # what cannot be pickled, or kept, is the caller's to know when it comes to these rows
            mapped.tell(pack.start, error)
            pack.body = pack_body(VOID, 0, b"")
            return
        self._state.packer.row_size(pack, len(data))
        pack.blob_data = b"" if large is None else data
        pack.body = pack_body(flags, pack.function, data if large is None else large, refs)

    def _send(self, opened: Opened, extension: bytes) -> None:
        self.spent_bytes += len(extension)
        opened.connection.post(opened.calls, extension)

    # --- connections --------------------------------------------------------------------------------------------------

    def first_under_way(self) -> int:
        """Ends of packs before this one are known."""
        with self._state.lock:
            return min(self._state.packer.under_way, default=self._next)

    def lose(self) -> None:
        """The connection is broken; returns when nobody uses it."""
        with self._state.idle:
            self._opened = None
            self._state.idle.wait_for(lambda: not self._flushing)

    def use(self, opened: Opened, known: int) -> None:
        """Hand in everything from the pack `known` on, and what the node that has gone held; then go on.

        Raises:
            PeerUnreachable: this connection is broken too.
            RequestRefused: the node cannot keep what it must.
        """
        node = opened.connection.welcome.node
        with self._state.lock:
            packs = sorted(self._state.packer.under_way.values(), key=lambda pack: pack.number)
            functions, following = list(self._functions.packed), self._next
            self._functions.sent = len(functions)
            self._cancelled = [pack.number for pack in packs if pack.cancelled]
        for pack in packs:
            if not pack.body:  # whoever was to make it was interrupted
                self._encode(pack)
        moved = []
        with self._sharing:
            every = list(self._shared)
        for shared in every:  # also where the node has only been away: it may not know any more that they are needed
            before = shared.at.holder
            shared.at, shared.data = self.put([shared.data], shared.at.digest)
            if shared.at.holder != before:
                moved.append((shared.at.digest, shared.at.holder))
        if self._node is not None and node != self._node:
            for data in (*self._functions.large.values(), *(pack.blob_data for pack in packs if pack.blob_data)):
                at, _ = self.put([data])
                moved.append((at.digest, at.holder))
        if functions:
            self._send(opened, pack_extension(functions=functions, first=min(known, following), moved=moved))
        bodies = {pack.number: pack.body for pack in packs}
        self._hand_in(opened, known, [bodies.get(number, _VOID) for number in range(known, following)], len(functions))
        if self._node is not None:
            # a leader that has not heard of these results would make them again, and others from that
            with self._state.lock:
                here = sorted(self._named() - self._state.packer.under_way.keys())
            self._send(
                opened, pack_extension(first_function=len(functions), first=following, cancelled=here, again=True)
            )
        with self._state.lock:
            self._node = node
            self._opened = opened
        self.flush()

    def _named(self) -> set[int]:
        """The packs that calls name which are under way, or wait to be sent. The caller holds the lock."""
        packer = self._state.packer
        calls = (*calls_of(packer.under_way.values()), *packer.waiting())
        named = {ref.pack for call in calls for ref in call.refs if ref.kind == CALL}
        return named.union(*(held.named for held in self._state.held.values()))

    def _hand_in(self, opened: Opened, first: int, bodies: list[bytes], functions: int) -> None:
        """Packs that were handed in before, in frames that are not too long."""
        some: list[bytes] = []
        size = 0
        for number, body in enumerate(bodies, first):
            some.append(body)
            size += len(body)
            if size >= FRAME_BYTES or len(some) >= FRAME_PACKS_MAX or number == first + len(bodies) - 1:
                start = number + 1 - len(some)
                self._send(opened, pack_extension(first_function=functions, first=start, packs=some))
                some, size = [], 0

    def close_job(self) -> bool:
        """Say that no more calls come; False: nobody could be told.

        Raises:
            PeerUnreachable: the connection is broken.
        """
        with self._state.lock:
            opened, following = self._opened, self._next
        if opened is None:
            return False
        self._send(opened, pack_extension(first=following, closed=True))
        return True

    def close(self) -> None:
        """Have `run` end, and hang up."""
        self._soon.set()
        with self._blob_lock:
            self._close_blob_line()

    def _close_blob_line(self) -> None:
        if self._blob_line is not None:
            self._blob_line.close()
            self._blob_line = None


def _shared(thing: object) -> Shared:
    """Raises: LocalProtocolError: it is something else."""
    if isinstance(thing, Shared):
        return thing
    raise LocalProtocolError("A future cannot be among the inputs of map(): use submit(), or its result.")


_VOID: Final = pack_body(VOID, 0, b"")
