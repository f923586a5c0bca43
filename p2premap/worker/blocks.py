"""Pairs as bytes: blocks of sorted keys and their values, the unit that the shuffle writes, reads and merges.

::

    compression (1) | shape (1) | stored length (4) | length (4) | payload

A block holds two columns: keys, and for each key one value (*single*) or a list of values. Columns go as msgpack,
which is ten times as fast as pickle, where that gives back exactly what went in: plain scalars, or flat tuples or
lists of them. Anything else goes as pickle, per block. Types are looked at, a column at a time: msgpack itself would
quietly turn a tuple into a list, or an enumeration into its value.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from p2premap.worker.pairs import JobCodeError, Key, Value

zstandard: Any
try:
    import zstandard
except ImportError:  # an extra
    zstandard = None

HEAD: Final = struct.Struct("<BBII")

_NONE: Final = 0
_ZLIB: Final = 1
_ZSTD: Final = 2
COMPRESSIONS: Final = {"none": _NONE, "zlib": _ZLIB, "zstd": _ZSTD}

# The shape of a block: how its columns must be read.
_PICKLE: Final = 1
_GROUPED: Final = 2
_TUPLE_KEYS: Final = 4
_TUPLE_VALUES: Final = 8
_LIST_VALUES: Final = 16

_SCALARS: Final = frozenset((str, int, float, bytes, bool, type(None)))
_encode: Final = msgspec.msgpack.Encoder().encode


class Columns(NamedTuple):
    """Keys, sorted, and what belongs to each.

    Args:
        grouped: `values` holds a list of values a key, else one value a key.
    """

    keys: Sequence[Key]
    values: Sequence[Any]
    grouped: bool


def _decoder(shape: int) -> Callable[[bytes], tuple[list[Key], list[Any]]]:
    value: Any = tuple[Any, ...] if shape & _TUPLE_VALUES else Any
    key: Any = tuple[Any, ...] if shape & _TUPLE_KEYS else Any
    column: Any = list[list[value]] if shape & _GROUPED else list[value]
    decode: Callable[[bytes], tuple[list[Key], list[Any]]] = msgspec.msgpack.Decoder(tuple[list[key], column]).decode
    return decode


_DECODE: Final = {
    keys | values | grouped: _decoder(keys | values | grouped)
    for keys in (0, _TUPLE_KEYS)
    for values in (0, _TUPLE_VALUES, _LIST_VALUES)
    for grouped in (0, _GROUPED)
}


def encode_block(columns: Columns, compression: str) -> tuple[bytes, int]:
    """One block, and the size of its payload before compression.

    Raises:
        JobCodeError: a key or value that cannot be pickled.
    """
    shape, payload = _payload(columns)
    size, method = len(payload), COMPRESSIONS[compression]
    if method == _ZLIB:
        payload = zlib.compress(payload, 1)
    elif method == _ZSTD and zstandard is None:
        method, payload = _ZLIB, zlib.compress(payload, 1)
    elif method == _ZSTD:
        payload = zstandard.ZstdCompressor(level=1).compress(payload)
    head = HEAD.pack(method, shape | (_GROUPED if columns.grouped else 0), len(payload), size)
    return head + payload, size


def decode_block(head: bytes, stored: bytes) -> Columns:
    """The block of this head and these stored bytes, whose digest has been checked."""
    method, shape, _, size = HEAD.unpack(head)
    grouped = bool(shape & _GROUPED)
    if method == _ZLIB:
        stored = zlib.decompress(stored, bufsize=size)
    elif method == _ZSTD:
        stored = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    keys, values = pickle.loads(stored) if shape & _PICKLE else _DECODE[shape](stored)  # noqa: S301
    return Columns(keys, values, grouped)


def _payload(columns: Columns) -> tuple[int, bytes]:
    keys, values, grouped = columns
    key_shape = _shape(keys, {0: 0, _TUPLE_VALUES: _TUPLE_KEYS})
    value_shape = _shape(list(chain.from_iterable(values)) if grouped else values, _ANY_SHAPE)
    if key_shape is not None and value_shape is not None:
        try:
            return key_shape | value_shape, _encode((keys, values))
        except (OverflowError, ValueError):  # an integer over 64 bits, a lone surrogate
            pass
    try:
        return _PICKLE, pickle.dumps((keys, values), protocol=5)
    except Exception as error:
        raise _unpicklable(columns, error) from error


_ANY_SHAPE: Final = {0: 0, _TUPLE_VALUES: _TUPLE_VALUES, _LIST_VALUES: _LIST_VALUES}


def _shape(column: Sequence[Any], allowed: dict[int, int]) -> int | None:
    """How msgpack can carry this column unchanged; None if it cannot."""
    types = set(map(type, column))
    if types <= _SCALARS:
        return allowed.get(0)
    if len(types) == 1 and (types == {tuple} or types == {list}) and _flat(column):
        return allowed.get(_TUPLE_VALUES if types == {tuple} else _LIST_VALUES)
    return None


def _flat(rows: Iterable[Iterable[Any]]) -> bool:
    return set(map(type, chain.from_iterable(rows))) <= _SCALARS


def _unpicklable(columns: Columns, error: Exception) -> Exception:
    """The sentence that names the key; `error` itself where every pair alone can be pickled."""
    for key, value in zip(columns.keys, columns.values, strict=True):
        for what, thing in (("key", key), *(("value", v) for v in (value if columns.grouped else [value]))):
            try:
                pickle.dumps(thing, protocol=5)
            except Exception as reason:
                return JobCodeError(
                    f"A {what} cannot travel to another process, for the key {shorten(key)}: "
                    f"{type(thing).__qualname__} cannot be pickled ({reason})."
                )
    return error


def shorten(thing: Value, width: int = 60) -> str:
    """A value as people see it in a sentence."""
    try:
        text = repr(thing)
    except Exception:
        text = f"<{type(thing).__qualname__}>"
    return text if len(text) <= width else text[: width - 3] + "..."
