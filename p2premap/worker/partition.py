"""Which partition a key belongs to: the same in every process, on every machine, for equal keys.

Python's own `hash` will not do: that of strings differs from process to process (PYTHONHASHSEED), that of numbers
between 32-bit and 64-bit machines. Keys that are equal in a dict (1, 1.0 and True) get the same partition.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

from p2premap.worker.blocks import shorten
from p2premap.worker.pairs import JobCodeError, Key, as_plain

_U32: Final = struct.Struct("<I")
_F64: Final = struct.Struct("<d")


def partitions_of(keys: Sequence[Key], n: int, chosen: Callable[[Key, int], int] | None) -> list[int]:
    """The partition of each key.

    Args:
        n: how many there are.
        chosen: the job file's own `partition`.

    Raises:
        JobCodeError: a key of a kind that has no stable hash, or `partition` gave something else than 0..n-1.
    """
    strings = set(map(type, keys)) <= {str}
    if chosen is not None:
        for key in () if strings else keys:
            _refuse_nan(key)
        return [_checked(chosen(key, n), key, n) for key in keys]
    if strings:
        if n == 1:
            return [0] * len(keys)
        try:
            return [crc32(data) % n for data in map(str.encode, keys)]
        except UnicodeEncodeError:  # a lone surrogate
            pass
    return [
        stable_hash(key) % n for key in keys
    ]  # also of one partition: what is a key must not depend on their number


def stable_hash(key: Key) -> int:
    """32 bits that depend on nothing but the key's value.

    Raises:
        JobCodeError: it is not None, a number, text, bytes, or a tuple of these.
    """
    match key:
        case str():
            return crc32(key.encode("utf-8", "surrogatepass"))
        case bytes():
            return crc32(key)
        case int():
            return crc32(b"%d" % key)
        case float() if key.is_integer():
            return crc32(b"%d" % int(key))
        case float() if key == key:
            return crc32(_F64.pack(key))
        case float():
            raise _nan()
        case None:
            return 0
        case tuple():
            state = 1
            for item in key:
                state = crc32(_U32.pack(stable_hash(item)), state)
            return state
        case _:
            if isinstance(plain := as_plain(key), int | float):
                return stable_hash(plain)
            raise JobCodeError(
                f"map gave the key {shorten(key)}, a {type(key).__qualname__}: keys are strings, bytes, numbers, None "
                "or tuples of these, unless the job file has its own partition(key, n)."
            )


def _refuse_nan(key: Key) -> None:
    """Raises: JobCodeError: it holds a number that is not equal to itself, and so is in no order with others."""
    if isinstance(key, tuple):
        for item in key:
            _refuse_nan(item)
    elif isinstance(key, float) and key != key:
        raise _nan()


def _nan() -> JobCodeError:
    return JobCodeError("map gave the key nan, which is not equal to itself; give a string for it, or leave it out.")


def _checked(partition: object, key: Key, n: int) -> int:
    if not isinstance(partition, int) or not 0 <= partition < n:
        raise JobCodeError(
            f"partition gave {shorten(partition)} for the key {shorten(key)}: it must be one of 0 to {n - 1}."
        )
    return partition
