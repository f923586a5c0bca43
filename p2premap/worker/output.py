"""What takes the pairs of an attempt that writes an output part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from p2premap.worker.pairs import Key, Pair, Value
from p2premap.worker.runtime import Context, Result

_CHUNK_PAIRS: Final = 10_000
_BUFFER_BYTES: Final = 1 << 20


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


class BufferedOutput(ChunkedOutput):
    """An output whose pairs become bytes at once: they are written by the megabyte.

    Args:
        context: of the attempt.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._blob = context.new_blob()
        self._buffer = bytearray()

    def _write(self, data: bytes, pairs: int) -> None:
        """So many pairs, as bytes."""
        self._buffer += data
        self._context.count(records_out=pairs)
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def finish(self) -> Result:
        """See `PartOutput`."""
        self._flush()
        return Result(blobs=(self._blob.finish(),))

    def _flush(self) -> None:
        self._blob.write(bytes(self._buffer))
        self._buffer.clear()
