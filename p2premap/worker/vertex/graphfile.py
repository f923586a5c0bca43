"""Named arrays in one blob: graphs, and whatever else is to be mapped into memory and not parsed.

::

    "P2PA" | version (2) | reserved (2) | length of the head (8) | head, msgpack | arrays, each at a multiple of 64

Arrays are little-endian, contiguous and of one dimension; what is read are views of the bytes that were given: a file
that is mapped costs no time and no memory before it is looked at.

The arrays of a partition's graph, whose vertices are in ascending order of their keys (see `owners`)::

    keys           int64     of its vertices
    indptr         int64     edges of vertex i: indptr[i] to indptr[i + 1]
    targets        int64     keys of the other ends, of one vertex in the order of the input; repeated edges are too
    weights        float64   of the edges; only where there are any
    forward        uint8     of the edges: 0 where the edge was turned round; only where both directions are seen
    names_offsets  int64     only of ids that are text: UTF-8, names_bytes[offsets[i] : offsets[i + 1]]
    names_bytes    uint8
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from p2premap.errors import JobError
from p2premap.worker.vertex.owners import Keys

Array: TypeAlias = npt.NDArray[Any]
Meta: TypeAlias = Mapping[str, int | float | str | bool]

VERSION: Final = 1
MAGIC: Final = b"P2PA"
_FRONT: Final = struct.Struct("<4sHHQ")
_ALIGN: Final = 64
_TYPES: Final = frozenset(
    ("|u1", "|i1", "|b1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")  # nothing that holds objects
)


class _Column(msgspec.Struct, array_like=True):
    """Where an array is: from the end of the padded head, in bytes."""

    name: str
    type: str
    count: int
    offset: int


class _Head(msgspec.Struct, array_like=True):
    meta: dict[str, int | float | str | bool]
    columns: list[_Column]


class Graph:
    """What `read` finds.

    Attributes:
        meta: what was said about the arrays.
        arrays: by name; they cannot be written to.
    """

    def __init__(self, meta: Meta, arrays: Mapping[str, Array]) -> None:
        self.meta = meta
        self.arrays = arrays

    @property
    def keys(self) -> Keys:
        """Of the vertices, ascending."""
        return self.arrays["keys"]

    @property
    def indptr(self) -> Keys:
        """Where the edges of each vertex begin; one more than there are vertices."""
        return self.arrays["indptr"]

    @property
    def targets(self) -> Keys:
        """The keys of the edges' other ends."""
        return self.arrays["targets"]

    @property
    def weights(self) -> npt.NDArray[np.float64] | None:
        """Of the edges."""
        return self.arrays.get("weights")

    @property
    def forward(self) -> npt.NDArray[np.uint8] | None:
        """Of the edges: 1 where it leads this way in the input, too; None where all do."""
        return self.arrays.get("forward")

    def names(self) -> npt.NDArray[np.bytes_]:
        """Of the vertices, where ids are text: their UTF-8, all as wide as the widest."""
        offsets, letters = self.arrays["names_offsets"], self.arrays["names_bytes"].tobytes()
        bounds = offsets.tolist()
        return np.array([letters[start:end] for start, end in itertools.pairwise(bounds)], np.bytes_)

    def ids(self) -> list[int] | list[str]:
        """Of the vertices, as users know them."""
        offsets = self.arrays.get("names_offsets")
        if offsets is None:
            return [int(key) for key in self.keys.tolist()]
        names, bounds = self.arrays["names_bytes"].tobytes(), offsets.tolist()
        return [names[start:end].decode("utf-8", "surrogatepass") for start, end in itertools.pairwise(bounds)]


def can_hold(array: Array) -> bool:
    """Whether `write` can write it: its values are numbers, or true and false."""
    return array.dtype.str in _TYPES


def write(put: Callable[[bytes | memoryview], object], meta: Meta, arrays: Mapping[str, Array]) -> None:
    """Write these arrays.

    Args:
        put: takes the bytes, piece by piece.
    """
    columns, offset = [], 0
    for name, array in arrays.items():
        assert can_hold(array), f"{name} is of type {array.dtype}"
        columns.append(_Column(name, array.dtype.str, array.size, offset))
        offset += _padded(array.nbytes)
    head = msgspec.msgpack.encode(_Head(dict(meta), columns))
    put(_FRONT.pack(MAGIC, VERSION, 0, len(head)) + head + _padding(_FRONT.size + len(head)))
    for array in arrays.values():
        if array.size:
            put(np.ascontiguousarray(array).data.cast("B"))
            put(_padding(array.nbytes))


def read(data: memoryview | bytes) -> Graph:
    """What `write` wrote, as views of `data`.

    Raises:
        JobError: it is something else.
    """
    view = memoryview(data)
    try:
        magic, version, _, length = _FRONT.unpack_from(view)
        if magic != MAGIC or version != VERSION:
            raise ValueError(f"magic {magic!r}, version {version}")
        head = msgspec.msgpack.decode(view[_FRONT.size : _FRONT.size + length], type=_Head)
        start = _padded(_FRONT.size + length)
        arrays = {column.name: _array(view, start, column) for column in head.columns}
    except (struct.error, ValueError, msgspec.DecodeError) as error:
        raise JobError(f"A graph cannot be read: {error}.") from None
    return Graph(head.meta, arrays)


def _array(view: memoryview, start: int, column: _Column) -> Array:
    if column.type not in _TYPES:
        raise ValueError(f"type {column.type!r}")
    array = np.frombuffer(view, column.type, column.count, start + column.offset if column.count else 0)
    array.flags.writeable = False
    return array


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _padding(size: int) -> bytes:
    return bytes(_padded(size) - size)
