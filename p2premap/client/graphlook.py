"""What the first lines of a graph's files say: between fields, in the first row, and whether ids are numbers.

Nobody else looks: each task then reads its lines in the way that was found here, and a line that does not fit is told.
"""

from __future__ import annotations

import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from p2premap.client.splits import FoundFile, look_into
from p2premap.errors import JobRejected, P2PRemapError
from p2premap.tasks.mapreduce_plan import packing_of, unpacked_name
from p2premap.vertex.loading import ADJACENCY_ENDS
from p2premap.worker.runtime import Segment

LOOK_BYTES: Final = 64 << 10
_LINES: Final = 100
_COMMENTS: Final = (b"#", b"%")
_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,19}")
_NUMBER: Final = re.compile(rb"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_KNOWN: Final = frozenset((b"source", b"target", b"src", b"dst", b"from", b"to", b"weight", b"start", b"end"))
"""Words that are names of columns, even where ids are words."""
_TABLES: Final = {".csv": ",", ".tsv": "\t"}
_BINARY: Final = (".parquet", ".parq", ".pairs", ".jsonl", ".p2pa")
_GZIP_WINDOW: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look at the inputs has shown.

    Args:
        delimiter: between fields; "": white space.
        header: the names in the first row; none: it is an edge.
        fields: of each of the first lines.
        integers: ids are integers of 64 bits.
    """

    delimiter: str = ""
    header: tuple[str, ...] = ()
    fields: int = 2
    integers: bool = True


def is_table(name: str) -> bool:
    """Whether a file of this name is text of lines, and no file with a form of its own."""
    return not unpacked_name(name).lower().endswith(_BINARY)


def look(files: Sequence[FoundFile], *, delimiter: str | None, adjacency: bool, columns: Sequence[str]) -> Seen:
    """Look at the first file that says anything.

    Args:
        delimiter: as the user said; None: nothing.
        adjacency: a line is a vertex and all its neighbours.
        columns: of the two ids, by numbers from 1 or by names in the first row; (): the first ones.

    Raises:
        JobRejected: a file cannot be read or unpacked.
    """
    for file in files:
        if not is_table(file.input.name):
            if (found := _ids_within(file, columns)) is not None:
                return Seen(integers=found)
            continue
        head = head_of(file)
        lines = [line for line in head[: head.rfind(b"\n") + 1].splitlines() if _is_data(line)][:_LINES]
        if lines:
            given = _delimiter(lines[0], file.input.name) if delimiter is None else delimiter
            return _seen([_fields(line, given) for line in lines], given, adjacency, columns[:2])
    return Seen(delimiter=delimiter or "")


def head_of(file: FoundFile) -> bytes:
    """The beginning of what a file holds, with a line end behind it if that is all; b"" where that is hard to tell.

    Raises:
        JobRejected: it cannot be read or unpacked.
    """
    name = file.input.name
    if not packing_of(name):
        known = file.input.path or file.input.size is not None
        data = look_into(file.input)(LOOK_BYTES, 0) if known else b""
    elif file.input.path:
        from p2premap.worker.streams import opened  # few inputs are packed

        try:
            with opened(Segment(file.input.path, 0, file.size, b"", True, name), name) as stream:
                data = stream.read(LOOK_BYTES)
        except P2PRemapError as error:
            raise JobRejected(str(error)) from None
    else:
        data = _unzipped(file)
    return data + b"\n" if len(data) < LOOK_BYTES and not data.endswith(b"\n") else data


def _unzipped(file: FoundFile) -> bytes:
    if packing_of(file.input.name) != "gzip" or file.input.size is None:
        return b""
    try:
        return zlib.decompressobj(_GZIP_WINDOW).decompress(look_into(file.input)(LOOK_BYTES, 0), LOOK_BYTES)
    except zlib.error:
        return b""  # whoever reads all of it says what is wrong


def _is_data(line: bytes) -> bool:
    line = line.strip()
    return bool(line) and not line.startswith(_COMMENTS)


def _seen(rows: Sequence[Sequence[bytes]], delimiter: str, adjacency: bool, columns: Sequence[str]) -> Seen:
    places = [int(column) - 1 for column in columns if column.isdigit()] or [0, 1]
    names = tuple(field.decode("utf-8", "replace") for field in rows[0])
    named = len(places) < len(columns) or (bool(columns) and not columns[0].isdigit())
    if named:
        places = [names.index(column) for column in columns if column in names]
    if adjacency:
        blanks = bytes.maketrans(ADJACENCY_ENDS, b" " * len(ADJACENCY_ENDS))
        ids = [b" ".join(row).translate(blanks).split() for row in rows]
    else:
        ids = [[row[place] for place in places if place < len(row)] for row in rows]
    numbers = [all(map(_is_id, fields)) for fields in ids]
    header = named or (not adjacency and _is_header(rows, numbers))
    if header:
        numbers, rows = numbers[1:], rows[1:] or rows
    integers = 2 * sum(numbers) >= len(numbers)
    if integers and delimiter == "\t":
        delimiter = ""  # as good between numbers, and a line with blanks in their place can be read
    return Seen(delimiter=delimiter, header=names if header else (), fields=len(rows[0]), integers=integers)


def _delimiter(line: bytes, name: str) -> str:
    plain = unpacked_name(name).lower()
    for suffix, usual in _TABLES.items():
        if plain.endswith(suffix) and usual.encode() in line:
            return usual
    return next((sign for sign in (",", ";", "|") if sign.encode() in line), "\t" if b"\t" in line else "")


def _fields(line: bytes, delimiter: str) -> list[bytes]:
    if not delimiter:
        return line.split()
    return [field.strip().strip(b'"') for field in line.split(delimiter.encode())]


def _is_id(field: bytes) -> bool:
    return _INTEGER.fullmatch(field) is not None and -(1 << 63) <= int(field) < 1 << 63


def _is_header(rows: Sequence[Sequence[bytes]], numbers: Sequence[bool]) -> bool:
    """Whether the first row names the columns: of words before numbers, or of well-known words."""
    first = rows[0]
    if any(_NUMBER.fullmatch(field) for field in first):
        return False
    known = sum(field.lower() in _KNOWN for field in first[:3])
    return known > 1 or (len(rows) > 1 and all(numbers[1:]))


def _ids_within(file: FoundFile, columns: Sequence[str]) -> bool | None:
    """Whether the ids of a file with a form of its own are integers; None: it is hard to tell here."""
    path, name = file.input.path, unpacked_name(file.input.name).lower()
    if not path or packing_of(file.input.name):
        return None
    try:
        if name.endswith((".parquet", ".parq")):
            from pyarrow import parquet, types

            schema = parquet.read_schema(path)
            source = columns[0] if columns else "source" if "source" in schema.names else 0
            return bool(types.is_integer(schema.field(source).type))
        first = next(_first_pairs(file), None)
    except Exception:  # whoever reads all of it says what is wrong
        return None
    return None if first is None else isinstance(first, int)


def _first_pairs(file: FoundFile) -> Iterator[Any]:
    from p2premap.worker.earlier import records

    segment = Segment(file.input.path, 0, file.size, b"", True, file.input.name)
    return itertools.chain.from_iterable(group.keys() for group in records(segment, file.input.name))


def sampled_ids(files: Sequence[FoundFile], delimiter: str, looks: int, size: int) -> list[int]:
    """Ids of both ends of edges from all over plain files: they come as often as vertices have edges.

    Args:
        looks: how many pieces.
        size: of each, in bytes.

    Raises:
        JobRejected: a file is packed, or elsewhere.
    """
    found: list[int] = []
    total = sum(file.size for file in files) or 1
    for file in files:
        if packing_of(file.input.name) or not file.input.path or not is_table(file.input.name):
            raise JobRejected(
                f"{file.input.name} cannot be looked into here and there, as partitions by ranges of ids need: leave "
                "--partition-by out, or unpack it into a file of this machine."
            )
        reading = look_into(file.input)
        pieces = max(min(looks * file.size // total, file.size // size), 1)
        for number in range(pieces):
            lines = io.BytesIO(reading(size, number * file.size // pieces)).readlines()
            for line in lines[(1 if number else 0) : -1] or lines:
                fields = _fields(line, delimiter)[:2] if _is_data(line) else []
                found += [int(field) for field in fields if _is_id(field)]
    return found
