"""One connection between two processes of a gang: frames of any size in both directions, without blocking.

::

    frame    size (8 bytes, little-endian) | the bytes
    sealed   again and again: size (4 bytes) | AES-256-GCM of up to `RECORD_BYTES` of that, tag included

On one machine frames go as they are. Between machines what is said is cut into records, each sealed under the key of
its direction with its number for the nonce: so nothing can be read, changed, left out or said again on the way.

A large frame is received into memory of its own, once; one over `SPILL_BYTES` into a file, mapped. Memory is used again
once nobody looks at it any more.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
import struct
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2premap.worker.gang import Buffer

RECORD_BYTES: Final = 128 << 10
SPILL_BYTES: Final = 64 << 20
FRAME_BYTES_MAX: Final = 1 << 40
_SMALL_BYTES: Final = 64 << 10
_PIECES_MAX: Final = 256
_SPARES: Final = 2
_TAG_BYTES: Final = 16
_SIZE: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<I")
_OVERHEAD_BYTES: Final = _RECORD.size + _TAG_BYTES


class LineBroken(Exception):
    """The other end is gone, or says what it cannot mean."""


class Intake:
    """Puts frames together from the bytes of a stream.

    Args:
        scratch: a directory for what is too large for memory.
    """

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._small = bytearray(_SMALL_BYTES)
        self._view = memoryview(self._small)
        self._start = self._end = 0
        self._body: memoryview | None = None
        self._filled = 0
        self._spares: list[bytearray] = []

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._body is not None:
            return self._body[self._filled :]
        if self._start and self._end == _SMALL_BYTES:
            self._view[: self._end - self._start] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, self._end - self._start
        return self._view[self._end :]

    def put(self, count: int) -> None:
        """So many bytes have been written there."""
        if self._body is not None:
            self._filled += count
        else:
            self._end += count

    def take(self) -> memoryview | None:
        """The next frame, if it is complete. It is the caller's for as long as it is looked at.

        Raises:
            LineBroken: it is said to be impossibly large.
            OSError: there is no disk for it.
        """
        if self._body is None and not self._begin():
            return None
        if self._body is None:
            (size,) = _SIZE.unpack_from(self._small, self._start)
            first = self._start + _SIZE.size
            self._start = first + size
            frame = memoryview(bytes(self._view[first : self._start]))
            if self._start == self._end:
                self._start = self._end = 0
            return frame
        if self._filled < len(self._body):
            return None
        frame, self._body = self._body, None
        return frame

    def feed(self, data: memoryview) -> None:
        """Take these bytes, of one frame, while no other frame is waiting to be taken.

        Raises:
            LineBroken: they are of more than one.
        """
        while data:
            room = self.room()
            count = min(len(room), len(data))
            if not count:
                raise LineBroken("more than one frame in a record")
            room[:count] = data[:count]
            self.put(count)
            data = data[count:]
            if data:
                self._begin()

    @property
    def body_left(self) -> memoryview:
        """The rest of a large frame that has been begun; else nothing."""
        return self._view[:0] if self._body is None else self._body[self._filled :]

    def _begin(self) -> bool:
        """Look at the size of the next frame. Whether it is here, or has room of its own now."""
        have = self._end - self._start - _SIZE.size
        if have < 0:
            return False
        (size,) = _SIZE.unpack_from(self._small, self._start)
        if have >= size:
            return True
        if size <= _SMALL_BYTES - _SIZE.size:
            return False
        if size > FRAME_BYTES_MAX:
            raise LineBroken("a frame without end")
        self._body, self._filled = self._new_body(size), have
        self._body[:have] = self._view[self._start + _SIZE.size : self._end]
        self._start = self._end = 0
        return True

    def _new_body(self, size: int) -> memoryview:
        if size > SPILL_BYTES:
            return memoryview(_mapped(self._scratch, size))
        for spare in self._spares:
            if size <= len(spare) <= 2 * size and _is_free(spare):
                return memoryview(spare)[:size]
        made = bytearray(size)
        self._spares = [*self._spares[1 - _SPARES :], made]
        return memoryview(made)


class Line:
    """A connected socket, not blocking, and what is on its way through it.

    Args:
        connection: to the other process.
        scratch: a directory for what is too large for memory.
        keys: (what this end seals with, what the other one does); None: nothing is sealed.
    """

    def __init__(self, connection: socket.socket, scratch: str, keys: tuple[bytes, bytes] | None) -> None:
        self._socket = connection
        self._intake = Intake(scratch)
        self._out: deque[memoryview] = deque()
        self._records: Iterator[bytes] = iter(())
        self._seal = self._open = None
        if keys is not None:
            self._seal, self._open = AESGCM(keys[0]), AESGCM(keys[1])
        self._sealed = self._opened = 0
        self._raw = memoryview(bytearray(2 * (RECORD_BYTES + _OVERHEAD_BYTES) if keys is not None else 0))
        self._start = self._end = 0
        """What has come and has not been opened yet lies between these."""

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up, also for processes that user code has forked."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    # --- out ------------------------------------------------------------------------------------------------------

    def say(self, pieces: Sequence[Buffer]) -> bool:
        """Begin to send a frame. Whether all of it has left; else `go_on` says it again.

        Raises:
            LineBroken: nobody is there.
        """
        shaped = [memoryview(piece) for piece in pieces]
        views = [view.cast("B") for view in shaped if view.nbytes]
        whole = [memoryview(_SIZE.pack(sum(map(len, views)))), *views]
        if self._seal is None:
            self._out.extend(whole)
        else:
            self._records = itertools.chain(self._records, self._sealing(whole))
        return self.go_on()

    def go_on(self) -> bool:
        """Send what the other end takes now. Whether everything has left.

        Raises:
            LineBroken: nobody is there.
        """
        try:
            while self._out or self._next_record():
                sent = self._socket.sendmsg(list(itertools.islice(self._out, _PIECES_MAX)))
                while sent and sent >= len(self._out[0]):
                    sent -= len(self._out.popleft())
                if sent:
                    self._out[0] = self._out[0][sent:]
        except BlockingIOError:
            return False
        except OSError as error:
            raise LineBroken(error.strerror) from None
        return True

    def _next_record(self) -> bool:
        if (record := next(self._records, None)) is None:
            return False
        self._out.extend((memoryview(_RECORD.pack(len(record))), memoryview(record)))
        return True

    def _sealing(self, pieces: Sequence[memoryview]) -> Iterator[bytes]:
        """Records of these pieces, each made when it is its turn."""
        assert self._seal is not None
        for data in _records(pieces):
            self._sealed += 1
            yield self._seal.encrypt(_nonce(self._sealed - 1), data, None)

    # --- in -------------------------------------------------------------------------------------------------------

    def hear(self) -> memoryview | None:
        """Take what has come; the next frame, if that makes it complete.

        Raises:
            LineBroken: the other end is gone, or somebody has meddled with what it said.
            OSError: there is no disk for it.
        """
        if (frame := self.heard()) is not None:
            return frame
        while True:
            try:
                count = self._receive()
            except BlockingIOError:
                return None
            except OSError as error:
                raise LineBroken(error.strerror) from None
            if not count:
                raise LineBroken("it has hung up")
            if (frame := self.heard()) is not None:
                return frame

    def heard(self) -> memoryview | None:
        """The next frame, if it has come already.

        Raises:
            LineBroken, OSError: as `hear`.
        """
        frame = self._intake.take()
        while frame is None and self._open is not None and self._open_record():
            frame = self._intake.take()
        return frame

    def _receive(self) -> int:
        if self._open is None:
            room = self._intake.room()
            count = self._socket.recv_into(room)
            self._intake.put(count)
            return count
        if len(self._raw) - self._end < _OVERHEAD_BYTES + RECORD_BYTES:
            left = self._end - self._start
            self._raw[:left] = bytes(self._raw[self._start : self._end])
            self._start, self._end = 0, left
        count = self._socket.recv_into(self._raw[self._end :])
        self._end += count
        return count

    def _open_record(self) -> bool:
        """Open the next record; False where it is not here yet."""
        if self._end - self._start < _RECORD.size:
            return False
        (size,) = _RECORD.unpack_from(self._raw, self._start)
        if not _TAG_BYTES < size <= RECORD_BYTES + _TAG_BYTES:
            raise LineBroken("a record of an impossible size")
        end = self._start + _RECORD.size + size
        if self._end < end:
            return False
        assert self._open is not None
        nonce, sealed, room = _nonce(self._opened), self._raw[end - size : end], self._intake.body_left
        try:
            if len(room) >= size - _TAG_BYTES:
                self._intake.put(self._open.decrypt_into(nonce, sealed, None, room[: size - _TAG_BYTES]))
            else:
                self._intake.feed(memoryview(self._open.decrypt(nonce, sealed, None)))
        except InvalidTag:
            raise LineBroken("somebody has meddled with what it said") from None
        self._opened += 1
        self._start = end
        if end == self._end:
            self._start = self._end = 0
        return True


def _records(pieces: Sequence[memoryview]) -> Iterator[bytes | memoryview]:
    """What goes into each record: small pieces together, large ones cut."""
    small: list[memoryview] = []
    size = 0
    for piece in pieces:
        for start in range(0, len(piece), RECORD_BYTES):
            part = piece[start : start + RECORD_BYTES]
            if size + len(part) > RECORD_BYTES:
                yield b"".join(small)
                small, size = [], 0
            if len(part) == RECORD_BYTES:
                yield part
            else:
                small.append(part)
                size += len(part)
    if small:
        yield b"".join(small)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _mapped(directory: str, size: int) -> mmap.mmap:
    """Memory that a file stands behind, with room for all of it on disk."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            os.ftruncate(file.fileno(), size)
        return mmap.mmap(file.fileno(), size)


def _is_free(buffer: bytearray) -> bool:
    """Whether nobody looks at it: as long as somebody does, its size cannot change."""
    with contextlib.suppress(BufferError):
        buffer.append(buffer.pop())
        return True
    return False
