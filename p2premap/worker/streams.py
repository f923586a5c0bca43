"""Inputs as binary streams: a checked range of a file, unpacked where its name says that it is packed.

Readers that parse whole files need to go back and forth, and must not be fed what is not the input: the digest is
checked first, in a pass of its own, which costs a few hundredths of what parsing does.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Final

from blake3 import blake3

from p2premap.tasks.mapreduce_plan import packing_of
from p2premap.worker.pairs import JobCodeError
from p2premap.worker.runtime import InputLost, Segment

_READ_BYTES: Final = 1 << 20
_PACKED_BYTES: Final = 128 << 10


@contextmanager
def opened(segment: Segment, name: str) -> Iterator[BinaryIO]:
    """The bytes of a split as a stream, checked and unpacked. `stream.name` is the file as the user named it.

    Raises:
        InputLost: the file is gone, changed or shorter.
        JobCodeError: it cannot be unpacked; here, or while the stream is read.
    """
    try:
        file = open(segment.path, "rb", buffering=0)  # noqa: SIM115  (closed below)
    except OSError as error:
        raise InputLost(f"{name} cannot be read: {error.strerror}.", segment.digest) from None
    with file:
        part = _Part(file, segment, name)
        if not segment.verified:
            _verify(part, segment, name)
        packing = packing_of(name)
        if not packing:
            yield _Named(part, name)
            return
        with _opener(packing)(io.BufferedReader(part, _READ_BYTES)) as unpacked:
            yield _Named(_Unpacked(unpacked, name, packing), name)


def _verify(part: _Part, segment: Segment, name: str) -> None:
    hasher = blake3()
    while piece := part.read(_READ_BYTES):
        hasher.update(piece)
    if part.tell() < segment.end - segment.start:
        raise InputLost(f"{name} ends before byte {segment.end}.", segment.digest)
    if hasher.digest() != segment.digest:
        raise InputLost(f"{name} has changed since the job was submitted.", segment.digest)
    part.seek(0)


class _Part(io.RawIOBase):
    """A range of a file, as a file."""

    def __init__(self, file: io.FileIO, segment: Segment, name: str) -> None:
        self._file = file
        self._segment = segment
        self._name = name
        self._size = segment.end - segment.start
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence], 0)
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (any writable buffer)
        with memoryview(buffer).cast("B") as view:
            size = min(len(view), max(self._size - self._at, 0))
            try:
                self._file.seek(self._segment.start + self._at)
                got = self._file.readinto(view[:size])
            except OSError as error:
                raise InputLost(f"{self._name} cannot be read: {error.strerror}.", self._segment.digest) from None
        self._at += got
        return got


class _Unpacked(io.RawIOBase):
    """What comes out of a packed file; whatever its library raises becomes one sentence."""

    def __init__(self, stream: IO[bytes], name: str, packing: str) -> None:
        self._stream = stream
        self._name = name
        self._packing = packing

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._packing != "zstd"

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (any writable buffer)
        with memoryview(buffer).cast("B") as view:
            try:
                data = self._stream.read(len(view))
            except InputLost:
                raise
            except Exception as error:  # each library has errors of its own
                raise JobCodeError(f"{self._name} cannot be unpacked as {self._packing}: {error}.") from None
            view[: len(data)] = data
        return len(data)


class _Named(io.BufferedReader):
    """A buffered stream that knows how the user calls its file."""

    def __init__(self, raw: io.RawIOBase, name: str) -> None:
        super().__init__(raw, _READ_BYTES)
        self._name = name

    @property
    def name(self) -> str:
        return self._name


def _opener(packing: str) -> Callable[[BinaryIO], Any]:
    # Each is imported only where there is such an input.
    match packing:
        case "gzip":
            import gzip

            return lambda stream: gzip.GzipFile(fileobj=stream, mode="rb")
        case "bzip2":
            import bz2

            return bz2.BZ2File
        case "xz":
            import lzma

            return lzma.LZMAFile
        case _:
            try:
                import zstandard
            except ImportError:
                raise JobCodeError(
                    "Inputs in zstd need the package zstandard on every node: pip install 'p2premap[zstd]'."
                ) from None
            return lambda stream: _Zstd(stream, zstandard.ZstdDecompressor())


class _Zstd:
    """Frames of zstd as a stream. The library's own takes a file that ends in the middle for a whole one."""

    def __init__(self, stream: BinaryIO, library: Any) -> None:  # noqa: ANN401  (it has no types)
        self._stream = stream
        self._library = library
        self._frame: Any = None
        self._fed = b""
        self._ready = memoryview(b"")

    def __enter__(self) -> _Zstd:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, size: int) -> memoryview:
        """Up to so many bytes; none at the end."""
        while not self._ready:
            self._fed = self._fed or self._stream.read(_PACKED_BYTES)
            if not self._fed:
                if self._frame is not None:
                    raise EOFError("it ends in the middle")
                break
            self._frame = self._frame or self._library.decompressobj()
            self._ready, self._fed = memoryview(self._frame.decompress(self._fed)), b""
            if self._frame.eof:
                self._frame, self._fed = None, self._frame.unused_data
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken
