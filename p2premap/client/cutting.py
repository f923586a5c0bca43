"""Where a file may be cut into splits: behind a line, or behind a row of CSV, whose fields may hold line ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from p2premap.errors import JobRejected

HEAD_BYTES_MAX: Final = 64 << 10
"""Of a first row that names the fields: it goes with every task."""

_SEEK_BYTES: Final = 64 << 10
_COUNT_BYTES: Final = 1 << 20


Look = Callable[[int, int], bytes]
"""Gives up to so many bytes of a file from a place on, and none behind its end. Raises `JobRejected`."""


def looking(path: str, name: str) -> Look:
    """Looks into a file of this machine.

    Args:
        name: of the file, for people.
    """
    return partial(_look, path, name)


def _look(path: str, name: str, size: int, offset: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as stream:
            return os.pread(stream.fileno(), size, offset)
    except OSError as error:
        raise JobRejected(f"Cannot read {name}: {error.strerror}.") from None


def line_end(look: Look, size: int, offset: int) -> int:
    """Just behind the line end at or after the byte before `offset`; the size where there is none.

    Raises:
        JobRejected: the file cannot be read.
    """
    offset -= 1
    while piece := look(_SEEK_BYTES, offset):
        found = piece.find(b"\n")
        if found >= 0:
            return offset + found + 1
        offset += len(piece)
    return size


def row_end(look: Look, size: int, start: int, offset: int) -> int:
    """Just behind a row of CSV that ends at or after the byte before `offset`.

    A line end belongs to a field if an odd number of quotes lies before it (RFC 4180: a quote in a field is doubled).

    Args:
        start: where a row begins.

    Raises:
        JobRejected: the file cannot be read.
    """
    quotes = 0
    while True:
        end = line_end(look, size, offset)
        quotes += _quotes(look, start, end)
        if quotes % 2 == 0 or end == size:
            return end
        start, offset = end, end + 1


def first_row(look: Look, name: str, size: int) -> bytes:
    """The first row of a CSV file.

    Args:
        name: of the file, for people.

    Raises:
        JobRejected: it is too long, or the file cannot be read.
    """
    end = row_end(look, size, 0, 1)
    if end > HEAD_BYTES_MAX:
        raise JobRejected(f"The first row of {name} has {end} bytes: it does not look like names of fields.")
    return look(end, 0)


def _quotes(look: Look, start: int, end: int) -> int:
    count = 0
    while start < end and (piece := look(min(_COUNT_BYTES, end - start), start)):
        count += piece.count(b'"')
        start += len(piece)
    return count
