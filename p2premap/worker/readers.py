"""Splits as records: byte ranges read in pieces of complete lines, hashed while they are read.

A piece is small enough to stay in the processor's cache while it is read, hashed, decoded and split.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from blake3 import blake3

from p2premap.tasks.mapreduce_plan import packing_of
from p2premap.worker.jobfile import JobFile
from p2premap.worker.pairs import JobCodeError, Key, Value
from p2premap.worker.runtime import InputLost, Segment

LINES_PIECE_BYTES: Final = 256 << 10
BLOCK_PIECE_BYTES: Final = 8 << 20
TASK_PIECE_BYTES: Final = 32 << 10
"""Of the blocks that come one after the other: what is made of one, such as its words, then lies in the processor's
cache, in memory that the next one has again. With 1 MB a word count was a third slower."""

_Line = TypeVar("_Line", str, bytes)
_BOM: Final = b"\xef\xbb\xbf"


class Records(NamedTuple):
    """Some records of one file, side by side.

    Args:
        keys: makes the key of each; a second time the same.
        values: what map gets.
    """

    keys: Callable[[], Iterator[Key]]
    values: Sequence[Value]


def read_records(segment: Segment, name: str, job: JobFile) -> Iterator[Records]:
    """The records of a split, in groups. Whoever stops early must run the iterator to its end, or close it.

    Raises:
        InputLost: the file is gone, changed or shorter; the change may be noticed only at the end.
        JobCodeError: bytes that are not of the encoding.
    """
    blocks = job.reader in ("blocks", "task")
    for offset, piece in read_pieces(segment, name, _piece_bytes(job)):
        skip = len(_BOM) if offset == 0 and job.encoding == "utf-8" and bytes(piece[: len(_BOM)]) == _BOM else 0
        with piece[skip:] as data:
            records = (_block if blocks else _lines)(data, offset + skip, name, job)
        yield records


def _piece_bytes(job: JobFile) -> int:
    if job.reader == "task":
        return TASK_PIECE_BYTES
    return BLOCK_PIECE_BYTES if job.reader == "blocks" else LINES_PIECE_BYTES


class Blocks(Iterator[Value]):
    """What a task reads, block after block.

    Args:
        groups: its records, each a block.

    Attributes:
        at: the key of the block that was asked for last; None before the first.
        count: how many were.
    """

    def __init__(self, groups: Iterator[Records]) -> None:
        self._groups = groups
        self._lost: Exception | None = None
        self.at: Key = None
        self.count = 0

    def __next__(self) -> Value:
        try:
            records = next(self._groups)
        except StopIteration:
            raise
        except Exception as error:
            self._lost = error
            raise
        (self.at,) = records.keys()
        self.count += 1
        return records.values[0]

    def close(self) -> None:
        """Read what nobody asked for: an input that has changed must not go unnoticed.

        Raises:
            InputLost, JobCodeError: see `read_records`; also where whoever asked had it raised and went on.
        """
        for _ in self._groups:
            pass
        if self._lost is not None:
            raise self._lost


def _block(piece: memoryview, offset: int, name: str, job: JobFile) -> Records:
    whole = bytes(piece) if job.encoding is None else decoded(piece, offset, name, job.encoding, job.errors)
    return Records(lambda: iter(((name, offset),)), [whole])


def _lines(piece: memoryview, offset: int, name: str, job: JobFile) -> Records:
    """One record a line."""
    raw: Sequence[str] | Sequence[bytes]
    lines: Sequence[str] | Sequence[bytes]
    if job.encoding == "utf-8":
        text = decoded(piece, offset, name, job.encoding, job.errors)
        raw = lines = _without_end(text.split("\n"))
        if "\r" in text:
            lines = [line.removesuffix("\r") for line in lines]
        if len(text) != len(piece):
            data = bytes(piece)
            return Records(lambda: _keys(name, offset, data.split(b"\n")), lines)
    else:
        raw = _without_end(bytes(piece).split(b"\n"))
        lines = [line.removesuffix(b"\r") for line in raw]
        if job.encoding is not None:
            starts = zip(lines, _keys(name, offset, raw), strict=False)
            lines = [decoded(line, start, name, job.encoding, job.errors) for line, (_, start) in starts]
    return Records(lambda: _keys(name, offset, raw), lines)


def _keys(name: str, offset: int, raw: Iterable[str] | Iterable[bytes]) -> Iterator[tuple[str, int]]:
    """(file name, byte offset) of each line, made in C; one more than there are lines.

    A line starts behind the bytes of the lines before it, and one byte of line end for each of them.
    """
    starts = map(operator.add, itertools.accumulate(map(len, raw), initial=offset), itertools.count())
    return zip(itertools.repeat(name), starts, strict=False)


def _without_end(lines: list[_Line]) -> list[_Line]:
    """Without the empty string behind the last line end."""
    if not lines[-1]:
        lines.pop()
    return lines


def decoded(data: memoryview | bytes, offset: int, name: str, encoding: str, errors: str) -> str:
    """The text of a file from `offset` on; a byte order mark at its beginning is none of it.

    Raises:
        JobCodeError: bytes that are not of the encoding.
    """
    if not offset and encoding == "utf-8" and bytes(data[: len(_BOM)]) == _BOM:
        data, offset = data[len(_BOM) :], len(_BOM)
    try:
        return str(data, encoding, errors)
    except UnicodeDecodeError as error:
        at = offset + error.start
        raise JobCodeError(
            f"{name} is not {encoding} text: byte {at} is 0x{data[error.start]:02x}; say encoding = "
            '"latin-1" or errors = "replace" in the job file, or leave the file out.'
        ) from None


def read_pieces(segment: Segment, name: str, piece_bytes: int) -> Iterator[tuple[int, memoryview]]:
    """Pieces of complete lines, with their offsets in the file; each is valid until the next is asked for.

    Raises:
        InputLost: see `read_records`.
    """
    if packing_of(name):
        yield from _unpacked_pieces(segment, name, piece_bytes)
        return
    hasher = None if segment.verified else blake3()
    buffer, kept = bytearray(piece_bytes), 0
    offset, left = segment.start + segment.shift, segment.end - segment.start
    try:
        with open(segment.path, "rb", buffering=0) as file:
            file.seek(segment.start)
            while left:
                if kept == len(buffer):  # a line longer than a piece
                    buffer.extend(bytes(len(buffer)))
                with memoryview(buffer) as view:
                    size = file.readinto(view[kept : min(kept + left, len(buffer))])
                    if not size:
                        raise InputLost(f"{name} ends before byte {segment.end}.", segment.digest)
                    if hasher is not None:
                        hasher.update(view[kept : kept + size])
                    left -= size
                    filled = kept + size
                    cut = buffer.rfind(b"\n", kept, filled) + 1 if left else filled
                    if cut:
                        with view[:cut] as piece:
                            yield offset, piece
                kept = filled - cut
                if cut:
                    buffer[:kept] = buffer[cut:filled]
                    offset += cut
    except OSError as error:
        raise InputLost(f"{name} cannot be read: {error.strerror}.", segment.digest) from None
    if hasher is not None and hasher.digest() != segment.digest:
        raise InputLost(f"{name} has changed since the job was submitted.", segment.digest)


def _unpacked_pieces(segment: Segment, name: str, piece_bytes: int) -> Iterator[tuple[int, memoryview]]:
    """As `read_pieces`, of what a packed file holds; offsets are in that."""
    from p2premap.worker.streams import opened  # few inputs are packed

    with opened(segment, name) as stream:
        offset = 0
        rest: list[bytes] = []
        while piece := stream.read(piece_bytes):
            cut = piece.rfind(b"\n") + 1
            rest.append(piece[:cut] or piece)
            if not cut:
                continue
            whole = b"".join(rest)
            yield offset, memoryview(whole)
            offset += len(whole)
            rest = [piece[cut:]]
        if whole := b"".join(rest):
            yield offset, memoryview(whole)
