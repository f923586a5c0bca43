"""Combiners: many messages for one vertex become one, at the sender and once more where they arrive.

The order of the sum is always the same: within a partition that of sending, then by source partition. So the last bit
of a sum does not depend on which process has which partition, nor on what had to be computed again.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from types import BuiltinFunctionType
from typing import Any, Final

import numpy as np

from p2premap.vertex.program import Reduce, reduction
from p2premap.worker.vertex.columns import Column, Longs

_UFUNCS: Final[dict[str | Reduce, np.ufunc]] = {
    "sum": np.add,
    operator.add: np.add,
    "min": np.minimum,
    min: np.minimum,
    "max": np.maximum,
    max: np.maximum,
}
_SAFE: Final = 1 << 62


class Combiner:
    """A program's combiner.

    Args:
        said: "sum", "min", "max", or a function of two messages; of numbers the built-in `min` is as quick as its name.

    Raises:
        VertexError: there is none of this name.
    """

    def __init__(self, said: str | Reduce) -> None:
        self.function = reduction(said, "combiner")
        self._ufunc = _UFUNCS.get(said) if isinstance(said, (str, BuiltinFunctionType)) else None

    def takes(self, values: Iterable[Column], messages: int) -> bool:
        """Whether arrays like these can be combined as arrays: integers must not overflow.

        Args:
            messages: how many of the values may become one.
        """
        if self._ufunc is None:
            return False
        for one in values:
            if one.dtype == np.int64 and self._ufunc is np.add and len(one):
                most = max(abs(int(one.max())), abs(int(one.min())))
                if most * messages > _SAFE:
                    return False
        return True

    def groups(self, values: Column, starts: Longs) -> Column:
        """One value for each group; `starts` says where they begin."""
        assert self._ufunc is not None, "takes() was asked"
        result: Column = self._ufunc.reduceat(values, starts)
        return result

    def pairs(self, left: Column, right: Column) -> Column:
        """One for each pair."""
        assert self._ufunc is not None, "takes() was asked"
        result: Column = self._ufunc(left, right)
        return result

    def fold(self, into: dict[int, Any], keys: Iterable[int], values: Iterable[Any]) -> None:
        """Combine one by one, whatever they are."""
        function = self.function
        for key, value in zip(keys, values, strict=True):
            into[key] = function(into[key], value) if key in into else value
