"""Lines of text as edges: a line an edge, or a line a vertex with all that it points to.

Lines that are all alike are read by numpy (`p2premap.worker.vertex.tokens`). Where one of a piece is not (a comment, an
empty line, a sign, a mistake), the piece is halved until what is left is small; that is read line by line, so that
whatever is wrong is told with its line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from p2premap.vertex.loading import ADJACENCY, ADJACENCY_ENDS, BAD_SHOWN_MAX, STRINGS, Loaded, Reading, too_many_bad
from p2premap.worker.blocks import shorten
from p2premap.worker.vertex.owners import Keys, hashed
from p2premap.worker.vertex.partition import VertexError
from p2premap.worker.vertex.tokens import (
    COMMENTS,
    DIGITS_MAX,
    Tokens,
    decimals,
    has_comments,
    integers,
    is_regular,
    odd_bytes,
    tokens_of,
)

Weights: TypeAlias = npt.NDArray[np.float64]
Where: TypeAlias = Callable[[int], str]
"""Where a line of a piece is, for people."""

_SMALL_BYTES: Final = 4 << 10
_KEY_BITS: Final = 63


class Edges(NamedTuple):
    """Some edges, in the order of the input.

    Args:
        weights: None: they have none.
        own: vertices that have a line of their own; None: lines are edges.
    """

    sources: Keys
    targets: Keys
    weights: Weights | None = None
    own: Keys | None = None


class BadLine(Exception):
    """A line is no edge. The text is the second half of a sentence whose first half says where it is."""


class BadLines:
    """Counts lines that cannot be read.

    Args:
        max_bad: so many are left out.
    """

    def __init__(self, max_bad: int) -> None:
        self._max_bad = max_bad
        self.count = 0
        self.first: list[str] = []

    def tolerates(self) -> bool:
        """Whether one more would be left out."""
        return self.count < self._max_bad

    def add(self, where: str, what: object) -> None:
        """One more.

        Raises:
            VertexError: that is one too many.
        """
        self.count += 1
        if len(self.first) < BAD_SHOWN_MAX:
            self.first.append(f"{where}: {what}")
        if refusal := too_many_bad(Loaded(bad=self.count, first_bad=tuple(self.first)), self._max_bad):
            raise VertexError(refusal)


class Names(dict[bytes, int]):
    """The keys of ids that are text, as they are met.

    Attributes:
        new: those that nobody has taken yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.new: list[bytes] = []

    def __missing__(self, name: bytes) -> int:
        try:
            name.decode()
        except UnicodeDecodeError:
            raise BadLine(f"the id {shorten(name)} is not UTF-8 text.") from None
        key = self[name] = hashed(name)
        self.new.append(name)
        return key

    def keys_of(self, names: Sequence[bytes]) -> Keys:
        """The key of each.

        Raises:
            BadLine: one is not UTF-8.
        """
        return np.fromiter(map(self.__getitem__, names), np.int64, len(names))


class TextReader:
    """Makes edges of lines.

    Args:
        reading: how.
        names: takes ids that are text.
        bad: hears of lines that cannot be read.
    """

    def __init__(self, reading: Reading, names: Names, bad: BadLines) -> None:
        self._adjacency = reading.form == ADJACENCY
        self._columns = reading.columns
        self._width = max(reading.columns.source, reading.columns.target, reading.columns.weight) + 1
        self._stride = max(reading.columns.fields, self._width)
        self._strings = reading.ids == STRINGS
        self._delimiter = reading.delimiter.encode() or None
        self._header = [name.encode() for name in reading.header]
        self._names, self._bad = names, bad
        if self._adjacency and not self._strings:
            self._ends_fields = ADJACENCY_ENDS
        else:
            self._ends_fields = b"" if reading.delimiter in ("", "\t", " ") else reading.delimiter.encode()

    def read(self, piece: memoryview, first: int, where: Where) -> Iterator[Edges]:
        """The edges of complete lines.

        Args:
            first: the number of the piece's first line, for `where`.

        Raises:
            VertexError: too many lines cannot be read.
        """
        tokens = tokens_of(piece, self._ends_fields)
        found = self._at_once(tokens, piece)
        if found is not None:
            yield found
            return
        middle = _line_end(piece) if len(piece) > _SMALL_BYTES else 0
        if not middle:
            yield self._line_by_line(tokens, first, where)
            return
        yield from self.read(piece[:middle], first, where)
        yield from self.read(piece[middle:], first + bytes(piece[:middle]).count(b"\n"), where)

    def header(self, piece: bytes, name: str) -> int:
        """How many bytes of the beginning of a file name the columns.

        Args:
            name: of the file, for people.

        Raises:
            VertexError: columns are looked for by their names, and this file begins in another way than the first.
        """
        if not self._header:
            return 0
        end = piece.find(b"\n") + 1 or len(piece)
        try:
            found = self._fields(piece[:end].strip())
        except BadLine:
            found = []
        if found == self._header:
            return end
        if self._columns.names:
            there = ", ".join(repr(field.decode("utf-8", "replace")) for field in self._header)
            raise VertexError(f"{name} does not begin with the names of columns as the first file does: {there}.")
        return 0

    def _at_once(self, tokens: Tokens, piece: memoryview) -> Edges | None:
        """The edges of lines that are all alike; None: they are not."""
        if self._strings:
            return None if self._adjacency else self._named(tokens, piece)
        odd = odd_bytes(tokens)
        if self._adjacency:
            return self._neighbours(tokens) if not len(odd) else None
        if not is_regular(tokens, self._stride, self._one_between()):
            return None
        columns = (self._columns.source, self._columns.target)
        fields = [(tokens.starts[column :: self._stride], tokens.ends[column :: self._stride]) for column in columns]
        for column, (starts, ends) in zip(columns, fields, strict=True):
            if (len(odd) and odd[column :: self._stride].any()) or not _fit(starts, ends):
                return None
        weights = self._weights(tokens, odd)
        if weights is None and self._columns.weight >= 0:
            return None
        if self._stride == 2 and columns == (0, 1):
            both = integers(tokens.data, tokens.starts, tokens.ends)
            return Edges(both[0::2], both[1::2])
        sources, targets = (integers(tokens.data, starts, ends) for starts, ends in fields)
        return Edges(sources, targets, weights)

    def _one_between(self) -> int:
        return self._ends_fields[0] if self._ends_fields else ord(" ")

    def _weights(self, tokens: Tokens, odd: Keys) -> Weights | None:
        """None: there are none, or one is no plain number."""
        column, width = self._columns.weight, self._stride
        if column < 0:
            return None
        return decimals(tokens, tokens.starts[column::width], tokens.ends[column::width], odd[column::width])

    def _neighbours(self, tokens: Tokens) -> Edges | None:
        """As `_at_once`, where a line is a vertex and what it points to."""
        firsts = np.searchsorted(tokens.starts, tokens.line_ends)
        counts = np.diff(firsts)
        full = counts > 0
        if not _fit(tokens.starts, tokens.ends) or has_comments(tokens.data[tokens.starts]):
            return None
        firsts, counts = firsts[:-1][full], counts[full]
        values = integers(tokens.data, tokens.starts, tokens.ends)
        own = values[firsts]
        return Edges(np.repeat(own, counts - 1), np.delete(values, firsts), own=own)

    def _named(self, tokens: Tokens, piece: memoryview) -> Edges | None:
        """As `_at_once`, for ids that are text."""
        if self._delimiter is not None or not is_regular(tokens, self._stride):
            return None
        fields = bytes(piece).split()
        weights = self._weights(tokens, odd_bytes(tokens)) if self._columns.weight >= 0 else None
        if len(fields) != len(tokens.starts) or (weights is None and self._columns.weight >= 0):
            return None
        try:
            sources = self._names.keys_of(fields[self._columns.source :: self._stride])
            targets = self._names.keys_of(fields[self._columns.target :: self._stride])
        except BadLine:
            return None
        return Edges(sources, targets, weights)

    def _line_by_line(self, tokens: Tokens, first: int, where: Where) -> Edges:
        sources: list[int] = []
        targets: list[int] = []
        weights: list[float] = []
        own: list[int] = []
        for number in range(tokens.lines):
            line = tokens.line(number).strip()
            if not line or line[0] in COMMENTS:
                continue
            try:
                if self._adjacency:
                    source, *others = map(self._id, self._neighbour_fields(line))
                    own.append(source)
                    sources += [source] * len(others)
                    targets += others
                    continue
                source, target, weight = self._edge(line)
            except BadLine as error:
                self._bad.add(where(first + number), error)
                continue
            sources.append(source)
            targets.append(target)
            weights.append(weight)
        return Edges(
            np.array(sources, np.int64),
            np.array(targets, np.int64),
            np.array(weights, np.float64) if self._columns.weight >= 0 else None,
            np.array(own, np.int64) if self._adjacency else None,
        )

    def _edge(self, line: bytes) -> tuple[int, int, float]:
        columns = self._columns
        fields = self._fields(line)
        if len(fields) < self._width or (columns.exact and len(fields) > self._width):
            raise BadLine(self._wrong_width(line, len(fields)))
        weight = number_of(fields[columns.weight]) if columns.weight >= 0 else 1.0
        return self._id(fields[columns.source]), self._id(fields[columns.target]), weight

    def _wrong_width(self, line: bytes, count: int) -> str:
        shown = shorten(line.decode("utf-8", "backslashreplace"))
        fields = "1 field" if count == 1 else f"{count} fields"
        if not self._columns.exact:
            return f"{shown} has {fields}, and the edge is said by {self._width}."
        if count > self._width and self._columns.weight < 0:
            more = "; say --weights (in run: --option weights=yes) to read a number behind them, or --columns 1,2"
        else:
            apart = "white space" if self._delimiter is None else repr(self._delimiter.decode())
            more = (", and a weight" if self._columns.weight >= 0 else "") + f", apart by {apart}"
        return f"{shown} has {fields}: an edge is two ids{more}."

    def _fields(self, line: bytes) -> list[bytes]:
        if self._delimiter is None:
            return line.split()
        if b'"' in line and self._delimiter != b"\t":
            return _quoted(line, self._delimiter)
        return [field.strip() for field in line.split(self._delimiter)]

    def _neighbour_fields(self, line: bytes) -> list[bytes]:
        if self._strings:
            fields = [field for field in self._fields(line) if field]
            return [fields[0].removesuffix(b":"), *fields[1:]] if fields else [line]
        return line.translate(bytes.maketrans(ADJACENCY_ENDS, b" " * len(ADJACENCY_ENDS))).split()

    def _id(self, field: bytes) -> int:
        if self._strings:
            if not field:
                raise BadLine("an id is empty.")
            return self._names[field]
        return integer_of(field)


def integer_of(field: bytes | str | int) -> int:
    """The id that a field is.

    Raises:
        BadLine: it is no integer of 64 bits.
    """
    text = field.decode("utf-8", "backslashreplace") if isinstance(field, bytes) else str(field)
    try:
        number = int(text) if text.isascii() and "_" not in text else None
    except ValueError:
        number = None
    if number is None:
        raise BadLine(f"{shorten(text)} is no integer; where ids are text, say --ids str.")
    if not -(1 << _KEY_BITS) <= number < 1 << _KEY_BITS:
        raise BadLine(f"the id {text} does not fit into 64 bits; say --ids str.")
    return number


def number_of(field: bytes | str | float) -> float:
    """The weight that a field is.

    Raises:
        BadLine: it is no finite number.
    """
    text = field.decode("utf-8", "backslashreplace") if isinstance(field, bytes) else str(field)
    try:
        number = float(text)
    except ValueError:
        raise BadLine(f"the weight {shorten(text)} is no number.") from None
    if not math.isfinite(number):
        raise BadLine(f"the weight {text} is no finite number.")
    return number


def _fit(starts: Keys, ends: Keys) -> bool:
    return not len(starts) or int((ends - starts).max()) <= DIGITS_MAX


def _line_end(piece: memoryview) -> int:
    """Just behind a line end in the middle of a piece; 0 where there is none but the last."""
    data = bytes(piece)
    middle = data.rfind(b"\n", 0, len(data) // 2) + 1
    if not middle:
        middle = data.find(b"\n", len(data) // 2) + 1
    return middle if middle < len(data) else 0


def _quoted(line: bytes, delimiter: bytes) -> list[bytes]:
    """The fields of a line of CSV with quotes (RFC 4180)."""
    import csv

    try:
        text = line.decode()
        (row,) = csv.reader([text], delimiter=delimiter.decode(), strict=True)
    except UnicodeDecodeError:
        raise BadLine(f"{shorten(line)} is not UTF-8 text.") from None
    except (csv.Error, ValueError):
        raise BadLine(f"the quotes of {shorten(text)} do not match.") from None
    return [field.strip().encode() for field in row]
