"""What an attempt may use: `p2premap.worker.runtime.Context`, made true."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Iterator
from typing import BinaryIO, Literal

import blake3

from p2premap.node.blobs import BlobStore, Writer
from p2premap.tasks.job import AttemptKey, Spill
from p2premap.worker.runtime import InputLost, Segment


class AttemptContext:
    """One attempt's `p2premap.worker.runtime.Context`."""

    __slots__ = ("_store", "_writers", "attempt", "records_in", "records_out", "scratch", "spilled")

    def __init__(self, attempt: AttemptKey, scratch: str, store: BlobStore) -> None:
        self.attempt = attempt
        self.scratch = scratch
        self.records_in = 0
        self.records_out = 0
        self.spilled: Spill | None = None
        self._store = store
        self._writers: list[Writer] | None = None

    def new_blob(self) -> Writer:
        """See `p2premap.worker.runtime.Context.new_blob`.

        Raises:
            StoreUnwritable: the disk is full or read-only; the attempt then ends as REFUSED.
        """
        writer = self._store.writer()
        if self._writers is None:
            self._writers = []
        self._writers.append(writer)
        return writer

    def read(self, segment: Segment) -> bytes:
        """See `p2premap.worker.runtime.Context.read`."""
        size = segment.end - segment.start
        name = segment.name or f"blob {segment.digest.hex()[:16]}"
        try:
            with open(segment.path, "rb", buffering=0) as file:
                file.seek(segment.start)
                data = file.read(size)
                if data is not None and len(data) < size:  # one read gives 2 GiB at most
                    data = _read_rest(data, file.fileno(), size)
        except OSError as error:
            raise InputLost(f"{name} cannot be read: {error.strerror}.", segment.digest) from None
        if len(data) < size:
            raise InputLost(f"{name} ends before byte {segment.end}.", segment.digest)
        if not segment.verified and blake3.blake3(data).digest() != segment.digest:
            raise InputLost(f"{name} is not what the job announced: it has changed since.", segment.digest)
        return data

    def map(self, segment: Segment, *, own: bool = False) -> memoryview:
        """See `p2premap.worker.runtime.Context.map`."""
        name = segment.name or f"blob {segment.digest.hex()[:16]}"
        try:
            with open(segment.path, "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                access = mmap.ACCESS_COPY if own else mmap.ACCESS_READ
                whole = mmap.mmap(file.fileno(), segment.end, access=access)
        except (OSError, ValueError) as error:
            raise InputLost(f"{name} cannot be read: {error}.", segment.digest) from None
        data = memoryview(whole)[segment.start :]
        if not (segment.verified or self._store.is_checked(segment.digest, status)):
            if blake3.blake3(data).digest() != segment.digest:
                raise InputLost(f"{name} is not what the job announced: it has changed since.", segment.digest)
            self._store.note_checked(segment.digest, status)
        return data

    def count(self, *, records_in: int = 0, records_out: int = 0) -> None:
        """See `p2premap.worker.runtime.Context.count`."""
        self.records_in += records_in
        self.records_out += records_out

    @contextlib.contextmanager
    def spill(self, path: str, mode: Literal["wb", "ab"] = "wb") -> Iterator[BinaryIO]:
        """See `p2premap.worker.runtime.Context.spill`."""
        began = time.perf_counter()
        with open(path, mode) as file:
            start = file.tell()
            yield file
            size = file.tell() - start
        seconds = time.perf_counter() - began
        before = self.spilled or Spill(bytes=0, seconds=0.0)
        self.spilled = Spill(bytes=before.bytes + size, seconds=before.seconds + seconds)

    def close(self) -> None:
        """The attempt is over: blobs that it did not finish go."""
        if self._writers is not None:
            for writer in self._writers:
                writer.discard()


def _read_rest(data: bytes, file: int, size: int) -> bytes:
    parts = [data]
    left = size - len(data)
    while left and (more := os.read(file, min(left, 1 << 30))):
        parts.append(more)
        left -= len(more)
    return b"".join(parts)
