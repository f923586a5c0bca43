"""What comes back of calls: the value of a pack's result, and how packs ended, as the client is told.

Pickles are opaque here, as in `p2premap.tasks.calls`, whose flags say what a result is.
"""

from __future__ import annotations

import functools
import struct
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from p2premap.errors import RemoteProtocolError
from p2premap.tasks.job import AttemptEnd
from p2premap.wire import NodeIdField, Record

_LENGTH: Final = struct.Struct("<I")
_RESULT: Final = struct.Struct("<BIdd")
_RAISED_BIT: Final = 1 << 31


class Done(NamedTuple):
    """What a worker says of a pack.

    Args:
        calls: how many of it were run; the rest is to be handed in again.
        seconds: all of them together.
        longest: of a single call, seconds; 0 where single calls were not measured.
        data: what follows: see `pack_answers` and `pack_chunk`; empty where it is a blob.
    """

    flags: int
    calls: int
    seconds: float
    longest: float
    data: memoryview


def pack_done(flags: int, calls: int, seconds: float, longest: float, data: bytes = b"") -> bytes:
    """The value of a pack's result."""
    return _RESULT.pack(flags, calls, seconds, longest) + data


def unpack_done(value: bytes) -> Done:
    """The same read.

    Raises:
        RemoteProtocolError: it is no such value.
    """
    try:
        flags, calls, seconds, longest = _RESULT.unpack_from(value)
        return Done(flags, calls, seconds, longest, memoryview(value)[_RESULT.size :])
    except struct.error as error:
        raise RemoteProtocolError(f"not the results of calls: {error}") from None


def pack_answers(pickles: Sequence[bytes], raised: Sequence[int]) -> bytes:
    """The pickled results of single calls; those whose positions are in `raised` are exceptions."""
    lengths = array("I", map(len, pickles))
    for position in raised:
        lengths[position] |= _RAISED_BIT
    return b"".join((lengths.tobytes(), *pickles))


def unpack_answers(data: memoryview, calls: int) -> tuple[list[memoryview], list[int]]:
    """The same read: the pickles, and the positions of exceptions.

    Raises:
        RemoteProtocolError: lengths do not add up.
    """
    pieces = pieces_of(data, calls)
    lengths = array("I")
    lengths.frombytes(data[: calls * lengths.itemsize])
    if not calls or max(lengths) < _RAISED_BIT:
        return pieces, []
    return pieces, [position for position, length in enumerate(lengths) if length & _RAISED_BIT]


def pack_chunk(results: bytes, error: bytes) -> bytes:
    """The results of a chunk as one pickle of a list, and the exception that ended it, if any."""
    return _LENGTH.pack(len(results)) + results + error


def unpack_chunk(data: memoryview) -> tuple[memoryview, memoryview]:
    """The same read.

    Raises:
        RemoteProtocolError: lengths do not add up.
    """
    if len(data) < _LENGTH.size:
        raise RemoteProtocolError("the results of a chunk end too early")
    (size,) = _LENGTH.unpack_from(data)
    if _LENGTH.size + size > len(data):
        raise RemoteProtocolError("the results of a chunk end too early")
    return data[_LENGTH.size : _LENGTH.size + size], data[_LENGTH.size + size :]


class EndsOfNode(Record, frozen=True, kw_only=True):
    """How packs ended that one node ran.

    Args:
        node: holds the blobs of their results.
    """

    node: NodeIdField
    ends: tuple[AttemptEnd, ...]


@functools.cache
def _decoder() -> msgspec.msgpack.Decoder[tuple[EndsOfNode, ...]]:
    return msgspec.msgpack.Decoder(tuple[EndsOfNode, ...])  # takes 3 ms, which a daemon that starts has not


def pack_ends(groups: Sequence[EndsOfNode]) -> bytes:
    """What goes beside `p2premap.control.CallsEnded`."""
    return msgspec.msgpack.encode(groups)


def unpack_ends(payload: bytes) -> tuple[EndsOfNode, ...]:
    """The same read.

    Raises:
        RemoteProtocolError: it is something else.
    """
    try:
        return _decoder().decode(payload)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(f"not the ends of calls: {error}") from None


def pieces_of(data: memoryview, count: int) -> list[memoryview]:
    """So many pieces, behind their lengths.

    Raises:
        RemoteProtocolError: lengths do not add up.
    """
    lengths = array("I")
    start = count * lengths.itemsize
    if start > len(data):
        raise RemoteProtocolError("packed calls end too early")
    lengths.frombytes(data[:start])
    pieces = []
    for length in lengths:
        pieces.append(data[start : start + (length & ~_RAISED_BIT)])
        start += length & ~_RAISED_BIT
    if start > len(data):
        raise RemoteProtocolError("packed calls end too early")
    return pieces
