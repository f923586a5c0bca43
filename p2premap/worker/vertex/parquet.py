"""Rows of a Parquet file as edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from p2premap.worker.pairs import JobCodeError
from p2premap.worker.vertex.text import Edges


class Batch:
    """Some rows, of which the columns are source, target, and weight where there are any."""

    def __init__(self, columns: Sequence[Any]) -> None:
        self._columns = columns

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self._columns[0])

    def edges(self, integers: bool) -> Edges | None:
        """All of them at once; None: a cell is empty, or of another type, and they are to be looked at row by row."""
        import pyarrow

        sources, targets, *weights = self._columns
        plain = integers and all(pyarrow.types.is_integer(column.type) for column in (sources, targets))
        plain = plain and all(pyarrow.types.is_floating(w.type) or pyarrow.types.is_integer(w.type) for w in weights)
        plain = plain and not any(column.null_count for column in self._columns)
        if not plain or any(column.type == pyarrow.uint64() for column in (sources, targets)):
            return None
        weight = weights[0].to_numpy(zero_copy_only=False).astype(np.float64) if weights else None
        if weight is not None and not np.isfinite(weight).all():
            return None
        ids = [column.to_numpy(zero_copy_only=False).astype(np.int64) for column in (sources, targets)]
        return Edges(ids[0], ids[1], weight)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """As Python values; an empty cell is None."""
        return zip(*(column.to_pylist() for column in self._columns), strict=True)


def batches(stream: BinaryIO, name: str, names: Sequence[str], *, given: bool, rows: int) -> Iterator[Batch]:
    """The rows of a file.

    Args:
        name: of the file, for people.
        names: of its columns: source, target, and weight where it is wanted.
        given: the user named them; else, where there are none of these names, the first columns are taken.
        rows: of a batch, at most.

    Raises:
        JobCodeError: it is no Parquet file, lacks a column, or pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise JobCodeError(
            "Parquet files need the package pyarrow on every node: pip install 'p2premap[arrow]'."
        ) from None
    try:
        file = parquet.ParquetFile(stream)
        there = file.schema_arrow.names
        if not given and not set(names) <= set(there):
            names = there[: len(names)] if len(there) >= len(names) else names
        if lacking := [column for column in names if column not in there]:
            raise JobCodeError(
                f"{name} has no column {lacking[0]!r} but {', '.join(map(repr, there))}: say --columns SOURCE,TARGET"
                " with the names of those that say an edge."
            )
        for batch in file.iter_batches(batch_size=rows, columns=list(names)):
            yield Batch([batch.column(column) for column in names])
    except (pyarrow.ArrowException, OSError) as error:
        raise JobCodeError(f"{name} cannot be read as Parquet: {str(error).rstrip('.')}.") from None
