"""Values by themselves, as blobs: what was put once for many calls, and large arguments.

A pickle, and beside it the buffers of its arrays (PEP 574), each at a multiple of 64 bytes: a worker process maps the
blob's file into memory, and the arrays of a shared value are where the file is, without a copy, and read-only::

    count  |  count lengths  |  the pickle  |  buffers
"""

from __future__ import annotations

import pickle
import struct
from array import array
from typing import Any, Final

import cloudpickle

ALIGNMENT: Final = 64
_HEAD: Final = struct.Struct("<Q")
_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
_MAIN: Final = b"__main__"


def pack_value(value: object) -> bytes:
    """The value as a blob.

    Raises:
        Exception: it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(value, _PROTOCOL, buffer_callback=buffers.append)
    except Exception:
        data = b""
    if not data or _MAIN in data:
        buffers.clear()
        data = cloudpickle.dumps(value, _PROTOCOL, buffer_callback=buffers.append)
    pieces = [memoryview(data), *(buffer.raw() for buffer in buffers)]
    lengths = array("Q", (piece.nbytes for piece in pieces))
    parts: list[bytes | memoryview] = [_HEAD.pack(len(pieces)), lengths.tobytes()]
    at = _HEAD.size + len(lengths) * lengths.itemsize
    for piece in pieces:
        padding = -at % ALIGNMENT
        parts += [bytes(padding), piece]
        at += padding + piece.nbytes
    return b"".join(parts)


def unpack_value(data: memoryview, *, own: bool) -> Any:  # noqa: ANN401  (whatever was packed)
    """The value in a blob.

    Args:
        own: its arrays are the caller's, and may be changed; else they are where the blob is.

    Raises:
        Exception: whatever it raises when it is made.
    """
    (count,) = _HEAD.unpack_from(data)
    at = _HEAD.size + 8 * count
    lengths = array("Q", bytes(data[_HEAD.size : at]))
    pieces = []
    for length in lengths:
        at += -at % ALIGNMENT
        pieces.append(data[at : at + length])
        at += length
    made, *buffers = pieces
    return pickle.loads(made, buffers=[bytearray(piece) for piece in buffers] if own else buffers)  # noqa: S301
