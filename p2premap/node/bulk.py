"""The bulk service: members read blobs, and ranges of the files that jobs submitted here have named.

::

    reader                                     holder
      | ReadSource(source) -------------------->|
      |<------------- Piece(last=False) + bytes |   pieces of at most PIECE_BYTES, in order
      |<------------- Piece(last=True)  + bytes |
      |                                         |   or, at any point instead of a piece:
      |<------------- NoSuch(text) -------------|

One stream serves one request after the other. A member may read any blob whose digest it knows, but of the file
system only what `AllowedFiles` lists: the inputs of jobs that were submitted on this node. What arrives counts only
if it hashes to the source's digest, so a file that changed meanwhile cannot spoil a job.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import trio

from p2premap.errors import P2PRemapError, PeerUnreachable, RemoteProtocolError
from p2premap.ids import JobId
from p2premap.node.blobs import BlobStore
from p2premap.ports import FrameStream
from p2premap.tasks.job import Source
from p2premap.wire import Message, Registry, Text

PIECE_BYTES: Final = 1 << 20


class ReadSource(Message, frozen=True, tag=30, kw_only=True):
    """Send the bytes of this source: a range of a blob, or of a file of a job submitted at the receiver."""

    source: Source


class Piece(Message, frozen=True, tag=31, kw_only=True):
    """The next bytes of the source are this frame's payload."""

    last: bool


class NoSuch(Message, frozen=True, tag=32, kw_only=True):
    """The source cannot be read here (any more). `text` is one sentence for a person."""

    text: Text


BULK = Registry((ReadSource, Piece, NoSuch), header_bytes_max=256 << 10)
"""What a bulk stream may carry, in both directions."""


class SourceGone(P2PRemapError):
    """A holder does not have the source, or has something else under its name. Definite: ask the next holder."""


class AllowedFiles:
    """Which files members may read here: the inputs of jobs submitted on this node."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, frozenset[str]] = {}
        self._readers: Counter[str] = Counter()

    def allow_files(self, job: JobId, paths: Iterable[str]) -> None:
        """Let members read these absolute paths until `forget_job`."""
        before = self._jobs.get(job, frozenset())
        fresh = frozenset(paths) - before
        self._jobs[job] = before | fresh
        self._readers.update(fresh)

    def forget_job(self, job: JobId) -> None:
        """The job is over: its files are read no more."""
        for path in self._jobs.pop(job, ()):
            self._readers[path] -= 1
            if not self._readers[path]:
                del self._readers[path]

    def __contains__(self, path: str) -> bool:
        return path in self._readers


class BulkService:
    """Serves bulk streams.

    Args:
        blobs: this node's store.
        files: what else may be read.
        readers_max: how many threads may read from disk at the same time.
    """

    def __init__(self, *, blobs: BlobStore, files: AllowedFiles, readers_max: int = 4) -> None:
        self._blobs = blobs
        self._files = files
        self._limiter = trio.CapacityLimiter(readers_max)

    async def serve_bulk(self, stream: FrameStream) -> None:
        """Answer requests until the reader closes the stream. The caller closes it on this side.

        Raises:
            PeerUnreachable: the stream broke.
            RemoteProtocolError: the reader sent something else than `ReadSource`.
        """
        while (frame := await stream.receive()) is not None:
            if not isinstance(frame.message, ReadSource):
                raise RemoteProtocolError(f"{type(frame.message).__name__} is not a request for bulk data")
            await self._send_source(stream, frame.message.source)

    async def _send_source(self, stream: FrameStream, source: Source) -> None:
        try:
            file, offset = await trio.to_thread.run_sync(self._open, source, limiter=self._limiter)
        except (SourceGone, OSError) as error:
            await stream.send(NoSuch(text=_sentence(source, error)))
            return
        end = offset + source.size
        try:
            while True:
                size = min(PIECE_BYTES, end - offset)
                data = await trio.to_thread.run_sync(os.pread, file, size, offset, limiter=self._limiter)
                offset += len(data)
                if size and not data:
                    await stream.send(NoSuch(text=f"{_name(source)} ends before byte {source.end}."))
                    return
                await stream.send(Piece(last=offset == end), data)
                if offset == end:
                    return
        except OSError as error:
            await stream.send(NoSuch(text=_sentence(source, error)))
        finally:
            os.close(file)

    def _open(self, source: Source) -> tuple[int, int]:
        """A descriptor of the file behind `source`, or of a copy of exactly its bytes, and where they begin in it.

        Runs in a thread.

        Raises:
            SourceGone: not allowed, not a regular file, changed, or too short; and there is no copy.
            OSError: the system does not let us.
        """
        if source.end < source.start:
            raise SourceGone(f"{_name(source)} has no such range.")
        try:
            return self._open_original(source), source.start
        except (SourceGone, OSError):
            if self._blobs.size(source.digest) != source.size:
                raise
            return os.open(self._blobs.path(source.digest), os.O_RDONLY | os.O_CLOEXEC), 0

    def _open_original(self, source: Source) -> int:
        if source.blob is not None:
            path = self._blobs.path(source.blob)
        elif source.path in self._files:
            path = source.path
        else:
            raise SourceGone(f"{_name(source)} is not an input of a job submitted here.")
        # a named pipe would block the thread for ever
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise SourceGone(f"{_name(source)} is not a regular file.")
            if status.st_size < source.end or (source.blob is None and status.st_mtime_ns != source.mtime_ns):
                raise SourceGone(f"{_name(source)} has changed since the job was submitted.")
        except BaseException:
            os.close(file)
            raise
        return file


async def read_source(stream: FrameStream, source: Source, take: Callable[[bytes], Awaitable[object]]) -> None:
    """Ask for `source` on a bulk stream and hand its bytes to `take`, in order and exactly as many as it has.

    The caller sets the deadline, compares the digest, and throws away what it took unless this returns.

    Raises:
        SourceGone: the holder does not have it.
        PeerUnreachable: the stream broke or was closed.
        RemoteProtocolError: the holder sent something else.
    """
    await stream.send(ReadSource(source=source))
    left = source.size
    while (frame := await stream.receive()) is not None:
        match frame.message:
            case Piece(last=last):
                left -= len(frame.payload)
                if left < 0 or last != (left == 0) or (not frame.payload and not last):
                    raise RemoteProtocolError("a holder sent more or less than was asked for")
                await take(frame.payload)
                if last:
                    return
            case NoSuch(text=text):
                raise SourceGone(text)
            case other:
                raise RemoteProtocolError(f"{type(other).__name__} is not an answer to ReadSource")
    raise PeerUnreachable(f"The holder closed the stream before the end of {_name(source)}.")


def _name(source: Source) -> str:
    return f"blob {source.blob.hex()[:16]}" if source.blob is not None else Path(source.path).name


def _sentence(source: Source, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{_name(source)} cannot be read: {error.strerror}."
    return str(error)
