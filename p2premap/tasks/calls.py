"""Futures: the director of jobs that grow while they run, and how calls and their results are packed.

A client that has connected is one job of kind "calls", with one stage that stays open. What it hands in arrives as
*extensions*; a task is a *pack* of calls of one function, so that a hundred quick calls cost what one costs::

    extension   functions (each once a job)  |  packs  |  cancelled packs  |  holders of blobs  |  closed? again?
    pack        flags, function  |  the node that is to run it, if only one may  |  what it refers to, if anything
                |  a blob, or the pickled arguments
    result      flags, calls done, seconds  |  a blob, or the pickled results

Pickles are opaque here: the client and the worker processes make and open them. Packs and functions are numbered by
the client, 0, 1, 2..., and an extension says which are its first: so one that is handed in again, after the daemon
that it was given to has died, adds only what is not known yet, and a number means the same pack at every leader.

A pack may refer to the result of a call of an earlier one. It is kept back until that one has its answer, and then is
given it from where it is, without the client (`p2premap.tasks.following`). Where there is no such result, as the call
raised, was left undone or cancelled, the pack comes back void: what follows from that is the client's affair.

A worker may leave calls at the end of a pack undone, when the pack takes longer than was thought: the client hands
those in again. What ends a call is in its result, an exception too, so that no call can make the job fail; only what
ends a whole worker process (a crash, a limit) is a task's failure.

Bodies stay in the byte strings in which they came: a million packs are two arrays here, and not a million objects.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from p2premap.errors import JobError, JobRejected, RemoteProtocolError
from p2premap.ids import DIGEST_BYTES, NODE_ID_BYTES, Digest, JobId, NodeId
from p2premap.tasks.calls_refs import (
    ANSWER,
    BLOB_AT,
    CALL,
    INLINE,
    RESULT,
    BlobAt,
    Ref,
    pack_refs,
    unpack_refs,
)
from p2premap.tasks.calls_results import Done, pieces_of, unpack_answers, unpack_done
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.job import Part, Source, StageId

KIND: Final = "calls"
FUNCTION: Final = "calls"
RUNTIME: Final = "p2premap.worker.calls:CallsRuntime"

VERSION: Final = 2

INLINE_BYTES_MAX: Final = 64 << 10
"""Arguments of a pack beyond this travel as a blob; results too (`p2premap.tasks.job.INLINE_BYTES_MAX`)."""
FUNCTION_BYTES_MAX: Final = 4 << 10
"""A function beyond this travels as a blob; a smaller one goes with every pack."""
FILLED_BYTES_MAX: Final = 1 << 20
"""So much of small results is put into one pack; else the client sends them as blobs."""
FUNCTIONS_MAX: Final = 100_000
PACKS_MAX: Final = 1 << 31

CHUNK: Final = 1
"""One pickle of many calls' arguments, made by `map`; else a pickle for each call."""
STAR: Final = 2
"""Of a chunk: each item is a tuple of arguments; else it is the one argument."""
BLOB: Final = 4
"""What follows is the name of a blob."""
VOID: Final = 8
"""Nothing is to be done: it stands for a pack whose results the client has."""
RAISED: Final = 16
"""Of a chunk's result: the call after the last result raised."""
REFS: Final = 32
"""It refers to values and to results of other calls (`p2premap.tasks.calls_refs`)."""
VALUES: Final = 64
"""Of results that are a blob: large arrays stand beside the pickles (`p2premap.worker.values`)."""

NODE: Final = 128
"""Only one node may run it."""

_EXTENSION: Final = struct.Struct("<BBQIQIII")
_CLOSED: Final = 1
_AGAIN: Final = 2
_PACK: Final = struct.Struct("<BI")
_MOVED: Final = struct.Struct(f"<{DIGEST_BYTES}s{NODE_ID_BYTES}s")
_PARAMS: Final = struct.Struct("<I")
_NO_FUNCTION: Final = 0xFFFFFFFF


# --- what the client hands in -------------------------------------------------------------------------------------


def pack_body(
    flags: int, function: int, data: bytes | BlobAt, refs: Sequence[Ref] = (), node: NodeId | None = None
) -> bytes:
    """A pack: what it refers to, and its arguments, or the blob that holds them.

    Args:
        node: that alone may run it; None: any.
    """
    named = pack_refs(refs) if refs else b""
    if refs:
        flags |= REFS
    if node is not None:
        flags, named = flags | NODE, node + named
    if isinstance(data, BlobAt):
        return _PACK.pack(flags | BLOB, function) + named + BLOB_AT.pack(*data)
    return _PACK.pack(flags, function) + named + data


def pack_function(code: bytes | BlobAt) -> bytes:
    """A function as an extension carries it."""
    return b"\x01" + BLOB_AT.pack(*code) if isinstance(code, BlobAt) else b"\x00" + code


def pack_calls(pickles: Sequence[bytes]) -> bytes:
    """The pickled arguments of several calls, one after the other."""
    lengths = array("I", map(len, pickles))
    return b"".join((_PARAMS.pack(len(lengths)), lengths.tobytes(), *pickles))


def unpack_calls(data: bytes | memoryview) -> list[memoryview]:
    """What `pack_calls` packed."""
    (count,) = _PARAMS.unpack_from(data)
    return pieces_of(memoryview(data)[_PARAMS.size :], count)


def pack_extension(
    *,
    first_function: int = 0,
    functions: Sequence[bytes] = (),
    first: int = 0,
    packs: Sequence[bytes] = (),
    cancelled: Sequence[int] = (),
    moved: Sequence[tuple[Digest, NodeId]] = (),
    closed: bool = False,
    again: bool = False,
) -> bytes:
    """An extension.

    Args:
        first_function, first: numbers of the first of these functions and packs.
        cancelled: packs that need not run.
        moved: blobs that another node has now.
        closed: no packs come after these.
        again: the client has heard that another node leads the job.
    """
    flags = _CLOSED * closed | _AGAIN * again
    head = _EXTENSION.pack(
        VERSION, flags, first_function, len(functions), first, len(packs), len(cancelled), len(moved)
    )
    lengths = array("I", [*map(len, functions), *map(len, packs)])
    return b"".join(
        (
            head,
            lengths.tobytes(),
            array("Q", cancelled).tobytes(),
            *(_MOVED.pack(digest, holder) for digest, holder in moved),
            *functions,
            *packs,
        )
    )


_Filled: TypeAlias = tuple[list[Ref], list[tuple[BlobAt, tuple[NodeId, ...]]]]
"""Refs, and of those that are blobs who holds them, where there may be several."""


class _Extension(NamedTuple):
    closed: bool
    again: bool
    first_function: int
    functions: list[bytes]
    first: int
    lengths: array[int]
    cancelled: array[int]
    moved: list[tuple[bytes, bytes]]
    body: int
    """Where the first pack begins in the payload."""


def _read(payload: bytes) -> _Extension:
    """Raises: JobError: it is not an extension."""
    try:
        version, flags, first_function, functions, first, packs, cancels, moves = _EXTENSION.unpack_from(payload)
        if version != VERSION:
            raise JobError(f"The calls are of version {version}, this node reads {VERSION}.")
        at = _EXTENSION.size
        lengths, at = _array("I", payload, at, functions + packs)
        cancelled, at = _array("Q", payload, at, cancels)
        moved = [_MOVED.unpack_from(payload, at + n * _MOVED.size) for n in range(moves)]
        at += moves * _MOVED.size
    except (struct.error, ValueError) as error:
        raise JobError(f"What the client handed in are no calls: {error}.") from None
    code = []
    for length in lengths[:functions]:
        code.append(payload[at : at + length])
        at += length
    bodies = lengths[functions:]
    blob_bytes = 1 + BLOB_AT.size
    if (
        at + sum(bodies) != len(payload)
        or any(not c or (c[0] and len(c) != blob_bytes) for c in code)
        or min(bodies, default=_PACK.size) < _PACK.size
    ):
        raise JobError("What the client handed in are no calls: lengths do not add up.")
    closed, again = bool(flags & _CLOSED), bool(flags & _AGAIN)
    return _Extension(closed, again, first_function, code, first, bodies, cancelled, moved, at)


def _array(code: str, payload: bytes, at: int, count: int) -> tuple[array[int], int]:
    numbers = array(code)
    end = at + count * numbers.itemsize
    if end > len(payload):
        raise ValueError("it ends too early")
    numbers.frombytes(payload[at:end])
    return numbers, end


# --- what a worker is given ---------------------------------------------------------------------------------------


class Work(NamedTuple):
    """A pack as the runtime gets it.

    Args:
        code: the pickled function; None: it is the first source.
        data: the arguments; None: they are the last source.
        refs: what they refer to; those that are blobs are the sources between the two.
    """

    flags: int
    code: bytes | None
    data: memoryview | None
    refs: list[Ref]


def unpack_params(params: bytes) -> Work:
    """What `Calls.task` says of a pack."""
    (size,) = _PARAMS.unpack_from(params)
    at = _PARAMS.size
    code: bytes | None = None
    if size != _NO_FUNCTION:
        code = params[at : at + size]
        at += size
    flags, _ = _PACK.unpack_from(params, at)
    at += _PACK.size
    refs: list[Ref] = []
    if flags & REFS:
        refs, at = unpack_refs(params, at)
    return Work(flags, code, None if flags & BLOB else memoryview(params)[at:], refs)


class Calls:
    """See `p2premap.tasks.director.Director`."""

    runtime = RUNTIME
    planner = ""
    streams = True

    def __init__(self, *, job: JobId, home: NodeId, plan: bytes) -> None:
        if plan:
            raise JobRejected("A job of calls has no plan.", job=job.hex())
        self._functions: list[bytes] = []
        self._payloads: list[bytes] = []
        self._in_payload = array("I")
        self._starts = array("I")
        self._ends = array("I")
        self._moved: dict[bytes, NodeId] = {}
        self._closed = False

    def first(self) -> StagePlan:
        """The one stage, empty at first."""
        return StagePlan(name="calls", function=FUNCTION, tasks=0, open=True)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """There is no other."""
        return None

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        """Results go to the client one by one."""
        return ()

    def extend(self, payload: bytes) -> Extension:
        """Take what the client handed in.

        Raises:
            JobError: it is not an extension, leaves some out, or names what there is not; nothing has changed.
        """
        given = _read(payload)
        known = len(self._starts)
        again = known - given.first
        functions = given.functions[len(self._functions) - given.first_function :]
        if given.first_function > len(self._functions) or given.first > known:
            raise JobError(f"Calls are missing before number {given.first}: {known} are known here.")
        total = known + max(0, len(given.lengths) - again)
        if len(self._functions) + len(functions) > FUNCTIONS_MAX or total > PACKS_MAX:
            raise JobError("The job has too many calls or functions; connect anew.")
        if self._closed and total > known:
            raise JobError("The job has been closed.")
        if any(number >= total for number in given.cancelled):
            raise JobError("Calls are to be cancelled that were never handed in.")
        starts, ends = _ranges(given)
        many = len(self._functions) + len(functions)
        named = _look_at(payload, starts[again:], ends[again:], known, many)
        self._functions += functions
        self._moved.update((digest, NodeId(holder)) for digest, holder in given.moved)
        if total > known:
            self._in_payload.extend([len(self._payloads)] * (total - known))
            self._starts += starts[again:]
            self._ends += ends[again:]
            self._payloads.append(payload)
        self._closed = self._closed or given.closed
        return Extension(
            tasks=total - known,
            first=known,
            closed=self._closed,
            cancelled=tuple(given.cancelled),
            nodes=named.nodes,
            after=named.after,
            again=given.again,
        )

    def task(self, stage: StageId, task: int) -> TaskInput:
        """A pack, and its function with it."""
        return self.task_after(task, ())

    def task_after(self, task: int, results: Sequence[Pinned]) -> TaskInput:
        """See `p2premap.tasks.director.Follows`."""
        body = self._payloads[self._in_payload[task]][self._starts[task] : self._ends[task]]
        flags, function = _PACK.unpack_from(body)
        if flags & NODE:
            flags -= NODE
            body = _PACK.pack(flags, function) + body[_PACK.size + NODE_ID_BYTES :]
        code = b"\x00" if flags & VOID else self._functions[function]
        if not flags & (BLOB | REFS) and not code[0]:
            return TaskInput(params=b"".join((_PARAMS.pack(len(code) - 1), code[1:], body)))
        sources = []
        head = _PARAMS.pack(len(code) - 1) + code[1:]
        if code[0]:
            head = _PARAMS.pack(_NO_FUNCTION)
            sources.append(self._source(code, 1))
        at = _PACK.size
        if flags & REFS:
            refs, end = unpack_refs(body, at)
            blobs: list[tuple[BlobAt, tuple[NodeId, ...]]] = [(ref.blob, ()) for ref in refs if ref.blob is not None]
            if results:
                found = _filled(refs, results)
                if found is None:
                    return TaskInput(params=_GIVEN_BACK)
                refs, blobs = found
                body = b"".join((body[:at], named := pack_refs(refs), body[end:]))
                end = at + len(named)
            sources += [self._moved_to(blob).source(holders) for blob, holders in blobs]
            at = end
        if flags & BLOB:
            sources.append(self._source(body, at))
            body = body[:at]
        return TaskInput(params=head + body, sources=tuple(sources))

    def _source(self, data: bytes, at: int) -> Source:
        digest, size, holder = BLOB_AT.unpack_from(data, at)
        return self._moved_to(BlobAt(Digest(digest), size, NodeId(holder))).source()

    def _moved_to(self, blob: BlobAt) -> BlobAt:
        return blob._replace(holder=self._moved.get(blob.digest, blob.holder))


_GIVEN_BACK: Final = _PARAMS.pack(0) + pack_body(VOID, 0, b"")


def _filled(refs: Sequence[Ref], results: Sequence[Pinned]) -> _Filled | None:
    """What a pack refers to, with what the calls of other packs have come to in the place of each `CALL`.

    Args:
        results: of these packs, in the order in which they are named first.

    Returns:
        None where there is no such result: the client says what then.
    """
    packs = dict.fromkeys(ref.pack for ref in refs if ref.kind == CALL)
    of = dict(zip(packs, map(_read_answer, results), strict=True))
    found: list[Ref] = []
    blobs: list[tuple[BlobAt, tuple[NodeId, ...]]] = []
    room = FILLED_BYTES_MAX
    for ref in refs:
        holders: tuple[NodeId, ...] = ()
        if ref.kind == CALL:
            answer = of[ref.pack]
            result = None if answer is None else answer.result(ref.position)
            if answer is None or result is None or (room := room - len(result.data)) < 0:
                return None
            ref, holders = result, answer.pinned.holders
        found.append(ref)
        if ref.blob is not None:
            blobs.append((ref.blob, holders))
    return found, blobs


class _Answer(NamedTuple):
    """What a pack has come to; small results are in `pieces`."""

    pinned: Pinned
    done: Done
    pieces: list[memoryview]
    raised: frozenset[int]

    def result(self, position: int) -> Ref | None:
        """Of one of its calls; None: it has none, or raised."""
        flags, calls = self.done.flags, self.done.calls
        if position >= calls or position in self.raised:
            return None
        if not flags & BLOB:
            return Ref(INLINE, data=self.pieces[position])
        blob = self.pinned.blobs[0]
        at = BlobAt(blob.digest, blob.size, self.pinned.holders[0])
        return Ref(RESULT if flags & VALUES else ANSWER, at, position=position, calls=calls)


def _read_answer(pinned: Pinned) -> _Answer | None:
    """None: there are no results of single calls."""
    if pinned.failed:
        return None
    try:
        done = unpack_done(pinned.value)
        if done.flags & (VOID | CHUNK):
            return None
        pieces, raised = ([], []) if done.flags & BLOB else unpack_answers(done.data, done.calls)
    except RemoteProtocolError:
        return None
    return _Answer(pinned, done, pieces, frozenset(raised))


def _ranges(given: _Extension) -> tuple[array[int], array[int]]:
    """Where each pack begins and ends in the payload."""
    starts, ends, at = array("I"), array("I"), given.body
    for length in given.lengths:
        starts.append(at)
        at += length
        ends.append(at)
    return starts, ends


class _Named(NamedTuple):
    nodes: tuple[tuple[int, NodeId], ...]
    after: tuple[tuple[int, tuple[int, ...]], ...]


def _look_at(payload: bytes, starts: Sequence[int], ends: Sequence[int], first: int, functions: int) -> _Named:
    """The nodes and the other packs that packs name.

    Args:
        starts, ends: of the packs, in the payload.
        first: the number of the first.
        functions: how many are known.

    Raises:
        JobError: what they name is not there.
    """
    nodes: list[tuple[int, NodeId]] = []
    after: list[tuple[int, tuple[int, ...]]] = []
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        flags, function = _PACK.unpack_from(payload, start)
        if function >= functions and not flags & VOID:
            raise JobError(f"A call is of function {function}, which is not known here.")
        at = _PACK.size + (NODE_ID_BYTES if flags & NODE else 0)
        if at > end - start:
            raise JobError("What the client handed in are no calls: one is too short.")
        if flags & NODE:
            nodes.append((index, NodeId(payload[start + _PACK.size : start + at])))
        if flags & REFS:
            refs, _ = unpack_refs(payload[start:end], at)
            if before := tuple(dict.fromkeys(ref.pack for ref in refs if ref.kind == CALL)):
                if max(before) >= first + index:
                    raise JobError("A call refers to one that comes after it.")
                after.append((index, before))
    return _Named(tuple(nodes), tuple(after))
