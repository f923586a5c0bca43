"""Lists of Python values as arrays, where they are alike, and the order that groups them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Column: TypeAlias = npt.NDArray[Any]
"""float64 or int64."""

FLOATS: Final = "d"
INTEGERS: Final = "q"
OBJECTS: Final = "o"
DTYPES: Final = {FLOATS: np.dtype(np.float64), INTEGERS: np.dtype(np.int64)}

_RADIX_BITS: Final = 16
_RADIX: Final = 1 << _RADIX_BITS
_EMPTY: Final = np.zeros(0, np.int32)


def column(values: Sequence[Any]) -> Column | None:
    """These values as an array, if they are all floats, or all integers of 64 bits; else None.

    What comes out of the array again is equal to what went in, of the same type.
    """
    kinds = set(map(type, values))
    if kinds == {float}:
        return np.frombuffer(array(FLOATS, values), np.float64)
    if kinds == {int}:
        try:
            return np.frombuffer(array(INTEGERS, values), np.int64)
        except OverflowError:
            return None
    return None


def kind_of(values: Column | list[Any]) -> str:
    """One of `FLOATS`, `INTEGERS`, `OBJECTS`."""
    return OBJECTS if isinstance(values, list) else str(values.dtype.char).replace("l", INTEGERS)


def stable_order(keys: Ints, bound: int) -> Longs:
    """The order that sorts these keys, all in 0..bound-1; equal ones stay as they are.

    By digits of 16 bits: numpy sorts only those by counting.
    """
    low = np.argsort((keys & (_RADIX - 1)).astype(np.uint16), kind="stable")
    if bound <= _RADIX:
        return low
    high = (keys >> _RADIX_BITS).astype(np.uint16)[low]
    return np.asarray(low[np.argsort(high, kind="stable")], np.int64)


class Growing:
    """An array of 32-bit integers that is appended to."""

    __slots__ = ("_data", "_size")

    def __init__(self) -> None:
        self._data = _EMPTY
        self._size = 0

    def extend(self, more: Sequence[int] | Ints) -> None:
        """Append."""
        size = self._size + len(more)
        if size > len(self._data):
            data = np.empty(max(size, 2 * len(self._data)), np.int32)
            data[: self._size] = self._data[: self._size]
            self._data = data
        self._data[self._size : size] = more
        self._size = size

    @property
    def all(self) -> Ints:
        """What it holds; a view, good until the next `extend`."""
        return self._data[: self._size]
