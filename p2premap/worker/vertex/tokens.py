"""Text cut into lines and fields, and fields into numbers, by numpy: no Python object a field.

A piece of text is looked at as an array of bytes. Where a byte belongs to a field and its neighbour does not, a field
begins or ends; digits are gathered from the ends of all fields at once, the last ones first. Each step is one pass over
a piece that stays in the processor's cache.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from p2premap.worker.vertex.owners import Keys

Bytes: TypeAlias = npt.NDArray[np.uint8]
Marks: TypeAlias = npt.NDArray[np.bool_]

DIGITS_MAX: Final = 18
"""An integer of so many digits fits into 64 bits."""
DECIMAL_DIGITS_MAX: Final = 15
"""A number of so many digits is exact in a double, and so is the power of ten that it is divided by."""

COMMENTS: Final = b"#%"
"""What lines begin with that are no data: in files of SNAP, and of KONECT."""

_LINE_END: Final = 10
_POINT: Final = ord(".")
_SPACE: Final = 32
_ZERO: Final = 48
_NARROW_DIGITS: Final = 9
"""So many fit into 32 bits, which are added up in half the time."""


class Tokens(NamedTuple):
    """The fields of a piece of text.

    Args:
        data: its bytes, between two line ends.
        starts, ends: of each field, as places in `data`.
        line_ends: places in `data`, the one before the first line included.
        fields: which bytes belong to one.
    """

    data: Bytes
    starts: Keys
    ends: Keys
    line_ends: Keys
    fields: Marks

    @property
    def lines(self) -> int:
        """How many there are, empty ones included."""
        return len(self.line_ends) - 1

    def line(self, number: int) -> bytes:
        """The bytes of a line of this piece, from 0."""
        return self.data[int(self.line_ends[number]) + 1 : int(self.line_ends[number + 1])].tobytes()


def tokens_of(piece: memoryview, delimiters: bytes = b"") -> Tokens:
    """Cut complete lines into fields.

    Args:
        delimiters: each ends a field, beside white space and control characters.
    """
    text = np.frombuffer(piece, np.uint8)
    closed = len(text) > 0 and int(text[-1]) == _LINE_END
    data = np.empty(len(text) + (1 if closed else 2), np.uint8)
    data[0] = data[-1] = _LINE_END
    data[1 : 1 + len(text)] = text
    fields = data > _SPACE
    for delimiter in delimiters:
        fields &= data != delimiter
    bounds = np.flatnonzero(fields[1:] != fields[:-1])
    bounds += 1
    return Tokens(data, bounds[0::2], bounds[1::2], np.flatnonzero(data == _LINE_END), fields)


def is_regular(tokens: Tokens, width: int, delimiter: int = _SPACE) -> bool:
    """Whether each line has so many fields, and none is a comment.

    Args:
        delimiter: one stands between two fields; white space: any number does.
    """
    starts, ends = tokens.starts, tokens.line_ends
    if len(starts) != width * tokens.lines:
        return False
    if not (np.all(starts[::width] > ends[:-1]) and np.all(starts[width - 1 :: width] < ends[1:])):
        return False
    if delimiter > _SPACE and width > 1:
        between = np.flatnonzero(tokens.data == delimiter)
        if len(between) != (width - 1) * tokens.lines:
            return False
        for column in range(width - 1):
            some = between[column :: width - 1]
            if not (np.all(some >= tokens.ends[column::width]) and np.all(some < starts[column + 1 :: width])):
                return False
    return not has_comments(tokens.data[starts[::width]])


def has_comments(first_bytes: Bytes) -> bool:
    """Whether one of the lines that begin with these bytes is a comment."""
    return any(bool((first_bytes == mark).any()) for mark in COMMENTS)


def odd_bytes(tokens: Tokens) -> Keys:
    """How many bytes of each field are no digits; nothing where none is."""
    odd = tokens.fields & ((tokens.data - np.uint8(_ZERO)) > 9)
    if not odd.any():
        return np.empty(0, np.int64)
    fields = np.searchsorted(tokens.starts, np.flatnonzero(odd), side="right") - 1
    return np.bincount(fields, minlength=len(tokens.starts))


def integers(data: Bytes, starts: Keys, ends: Keys) -> Keys:
    """The numbers that these fields of digits are; what fields with anything else come to means nothing."""
    if not len(starts):
        return np.empty(0, np.int64)
    lengths = ends - starts
    longest, shortest = min(int(lengths.max()), DIGITS_MAX), int(lengths.min())
    kind: type[np.uint32 | np.uint64] = np.uint32 if longest <= _NARROW_DIGITS else np.uint64
    at = ends - 1
    values: npt.NDArray[np.uint32 | np.uint64] = (data[at] - np.uint8(_ZERO)).astype(kind)
    for place in range(1, longest):
        at -= 1
        digits = data.take(at, mode="wrap")
        digits -= np.uint8(_ZERO)
        if place >= shortest:
            digits *= lengths > place
        values += digits * kind(10**place)
    return values.astype(np.int64)


def decimals(tokens: Tokens, starts: Keys, ends: Keys, odd: Keys) -> npt.NDArray[np.float64] | None:
    """The numbers, such as 12 or 0.25, that these fields are, rounded as `float` does; None: one is something else.

    Args:
        odd: how many bytes of each are no digits; empty: none.
    """
    lengths = ends - starts
    if not len(odd) or not odd.any():
        return integers(tokens.data, starts, ends).astype(np.float64) if _all_within(lengths) else None
    points = np.flatnonzero(tokens.data == _POINT)
    which = np.searchsorted(starts, points, side="right") - 1
    here = (which >= 0) & (points < ends[which])
    points, which = points[here], which[here]
    broken = odd > 0
    if len(points) != np.count_nonzero(broken) or (odd > 1).any() or not broken[which].all():
        return None
    middles = ends.copy()
    middles[which] = points
    after = np.zeros_like(ends)
    after[which] = ends[which] - points - 1
    if not _all_within(lengths - broken) or (middles <= starts).any() or (after[which] < 1).any():
        return None
    values = integers(tokens.data, starts, middles).astype(np.float64)
    powers = 10.0 ** np.arange(DECIMAL_DIGITS_MAX + 1)
    fractions = integers(tokens.data, points + 1, ends[which]).astype(np.float64)
    scale = powers[after[which]]
    values[which] = (values[which] * scale + fractions) / scale
    return values


def _all_within(lengths: Keys) -> bool:
    return not len(lengths) or int(lengths.max()) <= DECIMAL_DIGITS_MAX
