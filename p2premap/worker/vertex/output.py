"""The output stage: the vertices of a partition as an output part, by the writers of map/reduce jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from p2premap.vertex.plan import Settings
from p2premap.vertex.writing import unpack_writing
from p2premap.worker.runtime import Context, Result
from p2premap.worker.writers import named_output


def write(rows: Iterator[tuple[Any, Any]], settings: Settings, context: Context) -> Result:
    """Write a part.

    Args:
        rows: (id, value) of each vertex. As text, a value of several columns is written as that: tabs in between.

    Raises:
        JobCodeError: the format has no way to say a value, or a package is missing here.
    """
    writer = unpack_writing(settings.writing).writer
    output = named_output(writer, context)
    output.add(map(_flat, rows) if writer == "text" else rows)
    return output.finish()


def _flat(row: tuple[Any, Any]) -> tuple[Any, Any]:
    vertex, value = row
    return (vertex, "\t".join(map(str, value))) if isinstance(value, tuple) else row
