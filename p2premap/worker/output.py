"""What takes the pairs of an attempt that writes an output part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from p2premap.worker.pairs import Key, Pair, Value
from p2premap.worker.runtime import Result

_CHUNK_PAIRS: Final = 10_000


class PartOutput(Protocol):
    """Writes one output part."""

    def add(self, pairs: Iterator[Pair]) -> None:
        """Write these pairs."""

    def add_mapping(self, mapping: Mapping[Key, Value]) -> None:
        """Write the items of a mapping."""

    def add_columns(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """Write these pairs.

        Raises:
            JobCodeError: the format has no way to say one of them.
        """

    def finish(self) -> Result:
        """The part, in place."""


class ChunkedOutput:
    """An output that is given pairs in columns, some thousand at a time."""

    def add(self, pairs: Iterator[Pair]) -> None:
        """See `PartOutput`.

        Raises:
            TypeError, ValueError: something that is not a pair (raised in this frame).
        """
        while True:
            keys: list[Key] = []
            values: list[Value] = []
            for key, value in islice(pairs, _CHUNK_PAIRS):
                keys.append(key)
                values.append(value)
            if not keys:
                return
            self.add_columns(keys, values)

    def add_mapping(self, mapping: Mapping[Key, Value]) -> None:
        """See `PartOutput`."""
        self.add(iter(mapping.items()))

    def add_columns(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """See `PartOutput`."""
        raise NotImplementedError
