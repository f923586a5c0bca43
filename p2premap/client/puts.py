"""Large values on their way into a node's store and out of it, with as few copies as can be.

Where the node is on this machine, the pieces of a value are written straight into a file of its store, and the node
reads and names it; a result is mapped from the file that the node has. Elsewhere the same goes in frames.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from typing import Final

from blake3 import blake3

from p2premap.client.connection import ANSWER_S, Connection, RequestRefused
from p2premap.client.jobs import chunks, put_blob
from p2premap.control.answers import Chunk, Trouble
from p2premap.control.data import BlobHere, BlobKept, FileGrew, FileStarted, FinishFile, ReadBlob, StartFile
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import Digest, JobId
from p2premap.node.blobs import WRITE_BYTES, why_unwritable
from p2premap.tasks.calls_refs import BlobAt
from p2premap.tasks.job import BlobRef
from p2premap.worker.values import Piece, size_of

FILE_BYTES_MIN: Final = 1 << 20
"""Less than this is sent sooner than two more questions are asked."""
_PIECES_MAX: Final = 1_000
"""Of one writev(2)."""
_BYTES_A_S: Final = 20e6
"""A slow machine's disk: how long to wait for the node."""
_AHEAD_BYTES: Final = 8 << 20
"""The node is told how far a file has come each time that so much has been written."""
_SAME_BYTES: Final = 128 << 10


def put_pieces(
    connection: Connection, pieces: Sequence[Piece], *, job: JobId | None = None, digest: Digest | None = None
) -> tuple[BlobRef, memoryview]:
    """Have the daemon keep what these pieces make; what it is, and the same for another node should that one die.

    Args:
        job: that it is for: when that is over it may go.
        digest: of the whole, where it is known: the daemon may have it already.

    Raises:
        RequestRefused: it cannot be kept, such as for a full disk. Hang up then, for the daemon to remove what was
            begun.
        PeerUnreachable: indefinite, and safe to repeat.
    """
    size = size_of(pieces)
    if connection.files and size >= FILE_BYTES_MIN:
        kept = _put_file(connection, pieces, size, job, digest)
        if kept is not None:
            return kept
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return put_blob(connection, data, job=job), memoryview(data)


def fetch(connection: Connection, blob: BlobAt) -> memoryview:
    """The bytes of a blob, which may be written to without that anybody sees it.

    Raises:
        RequestRefused: nobody hands it out now.
        PeerUnreachable, RemoteProtocolError: indefinite, and safe to repeat.
    """
    if connection.files and blob.size >= FILE_BYTES_MIN:
        data = _map(connection, blob)
        if data is not None:
            return data
    answers = connection.stream(lambda n: ReadBlob(request=n, source=blob.source()), Chunk)
    return memoryview(bytearray().join(chunks(answers)))


def is_same(data: memoryview, pieces: Sequence[Piece]) -> bool:
    """Whether `data` is what these pieces make together."""
    at = 0
    for piece in pieces:
        if not _equal(memoryview(piece), data[at : at + len(piece)]):
            return False
        at += len(piece)
    return at == len(data)


def _equal(one: memoryview, other: memoryview) -> bool:
    """Python compares two views item by item; a bytearray at once, and a small one is copied within the cache."""
    if len(one) != len(other):
        return False
    steps = range(0, len(one), _SAME_BYTES)
    return all(bytearray(one[at : at + _SAME_BYTES]) == other[at : at + _SAME_BYTES] for at in steps)


def _put_file(
    connection: Connection, pieces: Sequence[Piece], size: int, job: JobId | None, digest: Digest | None
) -> tuple[BlobRef, memoryview] | None:
    """None: the daemon's files are not those of this process, and it must be sent."""
    started = connection.send(lambda n: StartFile(request=n, size=size, digest=digest, job=job))
    frame = connection.next(started)
    match None if frame is None else frame.message:
        case BlobKept(digest=known):
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            return BlobRef(digest=known, size=size), memoryview(data)
        case FileStarted(path=path):
            pass
        case None:
            raise PeerUnreachable(f"The node {connection.welcome.name} did not answer within {ANSWER_S:.0f} s.")
        case _:
            raise RemoteProtocolError(f"The node {connection.welcome.name} gave an answer that does not fit.")
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # such as in a container that has only the socket
        connection.files = False
        return None
    try:
        _write(file, pieces, lambda done: connection.send(lambda n: FileGrew(request=n, file=started, size=done)))
        whole = memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ))
    except OSError as error:
        text = f"{size} bytes cannot be kept in {os.path.dirname(path)}: {why_unwritable(error)}."
        raise RequestRefused(text, Trouble.REFUSED) from None
    finally:
        os.close(file)
    kept = connection.ask(
        lambda n: FinishFile(request=n, file=started, size=size), BlobKept, timeout_s=ANSWER_S + size / _BYTES_A_S
    )
    return BlobRef(digest=kept.digest, size=size), whole


def _write(file: int, pieces: Sequence[Piece], grew: Callable[[int], object]) -> None:
    """Tells how far it has come. Raises: OSError: the disk is full, or fails."""
    some: list[memoryview] = []
    size = done = told = 0
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            some.append(rest[: WRITE_BYTES - size])
            rest = rest[len(some[-1]) :]
            size += len(some[-1])
            if size == WRITE_BYTES or len(some) == _PIECES_MAX:
                _write_some(file, some)
                done += size
                some, size = [], 0
                if done - told >= _AHEAD_BYTES:
                    grew(done)
                    told = done
    _write_some(file, some)


def _write_some(file: int, some: list[memoryview]) -> None:
    while some:
        count = os.writev(file, some)
        while some and count >= len(some[0]):
            count -= len(some.pop(0))
        if some:
            some[0] = some[0][count:]


def _map(connection: Connection, blob: BlobAt) -> memoryview | None:
    """The blob's file, private to this process; None: there is none here, or it is damaged."""
    request = connection.send(lambda n: ReadBlob(request=n, source=blob.source(), here=True))
    while True:
        frame = connection.next(request)
        match None if frame is None else frame.message:
            case Chunk():
                continue  # it is on its way there
            case BlobHere() as here:
                break
            case None:
                raise PeerUnreachable(f"The node {connection.welcome.name} did not answer within {ANSWER_S:.0f} s.")
            case _:
                raise RemoteProtocolError(f"The node {connection.welcome.name} gave an answer that does not fit.")
    try:
        with open(here.path, "rb", buffering=0) as file:
            data = memoryview(mmap.mmap(file.fileno(), here.end, access=mmap.ACCESS_COPY))[here.start :]
    except (OSError, ValueError):
        connection.files = False
        return None
    if not here.checked and blake3(data, max_threads=blake3.AUTO).digest() != blob.digest:
        return None  # the daemon finds the same when it sends it, and looks for a better one
    return data
