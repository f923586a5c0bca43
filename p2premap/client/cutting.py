"""Where a file may be cut into splits: behind a line, or behind a row of CSV, whose fields may hold line ends."""

from __future__ import annotations

import os
from typing import Final

from p2premap.errors import JobRejected

HEAD_BYTES_MAX: Final = 64 << 10
"""Of a first row that names the fields: it goes with every task."""

_SEEK_BYTES: Final = 64 << 10
_COUNT_BYTES: Final = 1 << 20


def line_end(path: str, name: str, size: int, offset: int) -> int:
    """Just behind the line end at or after the byte before `offset`; the size where there is none.

    Args:
        name: of the file, for people.

    Raises:
        JobRejected: the file cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            offset -= 1
            while piece := os.pread(stream.fileno(), _SEEK_BYTES, offset):
                found = piece.find(b"\n")
                if found >= 0:
                    return offset + found + 1
                offset += len(piece)
    except OSError as error:
        raise JobRejected(f"Cannot read {name}: {error.strerror}.") from None
    return size


def row_end(path: str, name: str, size: int, start: int, offset: int) -> int:
    """Just behind a row of CSV that ends at or after the byte before `offset`.

    A line end belongs to a field if an odd number of quotes lies before it (RFC 4180: a quote in a field is doubled).

    Args:
        start: where a row begins.

    Raises:
        JobRejected: the file cannot be read.
    """
    quotes = 0
    while True:
        end = line_end(path, name, size, offset)
        quotes += _quotes(path, name, start, end)
        if quotes % 2 == 0 or end == size:
            return end
        start, offset = end, end + 1


def first_row(path: str, name: str, size: int) -> bytes:
    """The first row of a CSV file.

    Raises:
        JobRejected: it is too long, or the file cannot be read.
    """
    end = row_end(path, name, size, 0, 1)
    if end > HEAD_BYTES_MAX:
        raise JobRejected(f"The first row of {name} has {end} bytes: it does not look like names of fields.")
    with open(path, "rb", buffering=0) as stream:
        return os.pread(stream.fileno(), end, 0)


def _quotes(path: str, name: str, start: int, end: int) -> int:
    count = 0
    try:
        with open(path, "rb", buffering=0) as stream:
            while start < end and (piece := os.pread(stream.fileno(), min(_COUNT_BYTES, end - start), start)):
                count += piece.count(b'"')
                start += len(piece)
    except OSError as error:
        raise JobRejected(f"Cannot read {name}: {error.strerror}.") from None
    return count
