"""Values as blobs: what was put once for many calls, large arguments, and large results.

A pickle, and beside it the buffers of its arrays (PEP 574), each at a multiple of 64 bytes: whoever maps the blob's
file into memory has the arrays where the file is, without a copy::

    value    count  |  count lengths  |  the pickle  |  buffers
    values   count  |  count places   |  values, each at its place; the highest bit of a place: it is an exception

Values are made and opened without joining their pieces: a hundred megabytes are in memory once, where the user has
them.
"""

from __future__ import annotations

import pickle
import struct
from array import array
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Final, NamedTuple

import cloudpickle

from p2premap.errors import RemoteProtocolError
from p2premap.tasks.job import INLINE_BYTES_MAX

ALIGNMENT: Final = 64
_HEAD: Final = struct.Struct("<Q")
_RAISED_BIT: Final = 1 << 63
_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
_MAIN: Final = b"__main__"

Piece = bytes | memoryview


class Pickled(NamedTuple):
    """A pickle, and what is not in it: the buffers of its large arrays."""

    data: bytes
    buffers: Sequence[memoryview] = ()


def pack_value(value: object, by_value: Callable[[bytes], bool] = lambda data: _MAIN in data) -> list[Piece]:
    """The value as the pieces of a blob, all of its arrays beside the pickle. The first piece tells all lengths.

    Args:
        by_value: whether a pickle names what whoever opens it cannot import.

    Raises:
        Exception: it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(value, _PROTOCOL, buffer_callback=buffers.append)
    except Exception:
        data = b""
    if not data or by_value(data):
        buffers.clear()
        data = cloudpickle.dumps(value, _PROTOCOL, buffer_callback=buffers.append)
    return _pieces(Pickled(data, [buffer.raw() for buffer in buffers]))


class Apart:
    """A `buffer_callback` for `pickle.dumps` that keeps large arrays out of the pickle.

    Most values have none, and are one string of bytes.
    """

    __slots__ = ("buffers",)

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether the array goes into the pickle."""
        raw = buffer.raw()
        if raw.nbytes <= INLINE_BYTES_MAX:
            return True
        self.buffers.append(raw)
        return False


def pack_values(values: Sequence[Pickled], raised: Container[int] = ()) -> list[Piece]:
    """Several as the pieces of one blob; those whose positions are in `raised` are exceptions."""
    places = array("Q", bytes(8 * len(values)))
    pieces: list[Piece] = []
    at = _HEAD.size + len(places) * places.itemsize
    for number, value in enumerate(values):
        padding = -at % ALIGNMENT
        at += padding
        places[number] = at | (_RAISED_BIT if number in raised else 0)
        packed = _pieces(value)
        pieces += [bytes(padding), *packed]
        at += size_of(packed)
    return [_HEAD.pack(len(values)) + places.tobytes(), *pieces]


def size_of(pieces: Iterable[Piece]) -> int:
    """Of the blob that the pieces make, in bytes."""
    return sum(len(piece) for piece in pieces)


def unpack_value(data: memoryview) -> Any:  # noqa: ANN401  (whatever was packed)
    """The value in a blob, its arrays where the blob is: they can be changed if `data` can.

    Raises:
        RemoteProtocolError: it is none.
        Exception: whatever the value raises when it is made.
    """
    made, *buffers = _parts(data)
    return pickle.loads(made, buffers=buffers)  # noqa: S301


def unpack_values(data: memoryview) -> list[tuple[memoryview, bool]]:
    """The values in a blob: (for `unpack_value`, False), or (the pickle of an exception's description, True).

    Raises:
        RemoteProtocolError: there are none.
    """
    try:
        (count,) = _HEAD.unpack_from(data)
        places = array("Q", bytes(data[_HEAD.size : _HEAD.size + 8 * count]))
    except (struct.error, ValueError) as error:
        raise RemoteProtocolError(f"not values: {error}") from None
    if len(places) != count:
        raise RemoteProtocolError("values end too early")
    values = []
    for place in places:
        value = data[place & ~_RAISED_BIT :]  # at a multiple of 64 bytes: what is within is aligned as it was
        values.append((_parts(value)[0], True) if place & _RAISED_BIT else (value, False))
    return values


def _parts(data: memoryview) -> list[memoryview]:
    """The pickle, and the buffers.

    Raises:
        RemoteProtocolError: it is no value.
    """
    try:
        (count,) = _HEAD.unpack_from(data)
        at = _HEAD.size + 8 * count
        lengths = array("Q", bytes(data[_HEAD.size : at]))
    except (struct.error, ValueError) as error:
        raise RemoteProtocolError(f"not a value: {error}") from None
    if not count or len(lengths) != count:
        raise RemoteProtocolError("a value ends too early")
    parts = []
    for length in lengths:
        at += -at % ALIGNMENT
        parts.append(data[at : at + length])
        at += length
    if at > len(data):
        raise RemoteProtocolError("a value ends too early")
    return parts


def _pieces(value: Pickled) -> list[Piece]:
    parts = [memoryview(value.data), *value.buffers]
    lengths = array("Q", (part.nbytes for part in parts))
    pieces: list[Piece] = [_HEAD.pack(len(parts)) + lengths.tobytes()]
    at = len(pieces[0])
    for part in parts:
        padding = -at % ALIGNMENT
        pieces += [bytes(padding), part]
        at += padding + part.nbytes
    return pieces
