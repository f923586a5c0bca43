"""The load stage: splits become edges and vertices, shared out by the partition that they belong to.

::

    edges        text, a line an edge: SNAP, CSV, TSV; also the text parts of an earlier job
    adjacency    text, a line a vertex and all that it points to
    parquet      a row an edge
    parts        pairs or JSON lines of an earlier job: (source, target), or (source, list of targets)
    arrays       a graph of networkx or scipy, as a client wrote it
    lines        whatever the program's `prepare(line)` makes vertices of
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from p2premap.tasks.mapreduce_plan import PAIRS_SUFFIX, MapParams, unpacked_name
from p2premap.vertex.loading import ARRAYS, BOTH, EDGES, LINES, PARQUET, PARTS, STRINGS, Loaded, Reading, unpack_reading
from p2premap.vertex.plan import LoadParams
from p2premap.worker.blocks import Columns, encode_block, shorten
from p2premap.worker.readers import LINES_PIECE_BYTES, read_pieces
from p2premap.worker.runtime import Context, Result, Segment
from p2premap.worker.vertex.owners import owners_of, ranges_of
from p2premap.worker.vertex.segments import EdgeSorter, SegmentBuffer
from p2premap.worker.vertex.text import BadLine, BadLines, Edges, Names, TextReader, integer_of, number_of

Prepare: TypeAlias = Callable[[str], Any]
"""See `p2premap.vertex.program.VertexProgram.prepare`."""

_BOM: Final = b"\xef\xbb\xbf"
_PAIRS_AT_ONCE: Final = 4_096
_ROWS_AT_ONCE: Final = 1 << 16
_WIDTH_MIN: Final = 2
_WIDTH_MAX: Final = 4
_NAMED: Final = ("source", "target", "weight")


def load(params: bytes, segments: Sequence[Segment], context: Context, prepare: Prepare | None = None) -> Result:
    """Run one attempt of the load stage.

    Args:
        prepare: of the job's program, where it is to be asked about each line.

    Raises:
        VertexError: more lines cannot be read than the job tolerates; names file and line.
        JobCodeError: a file is not what its name says.
        InputLost: an input has changed.
        Exception: what `prepare` raises, with a note that names file and line.
    """
    told = msgspec.msgpack.decode(params, type=LoadParams)
    given = msgspec.msgpack.decode(told.inputs, type=MapParams)
    settings = told.settings
    reading = unpack_reading(settings.reading)
    buffer, bad = SegmentBuffer(settings.partitions, context), BadLines(reading.max_bad)
    ranges, names = ranges_of(settings), Names()
    loader: _EdgeLoader | _VertexLoader
    if reading.form == LINES:
        assert prepare is not None, "only a program with prepare reads lines"
        loader = _VertexLoader(prepare, lambda ids: owners_of(ids, settings.partitions, ranges), buffer, bad)
    else:
        sorter = EdgeSorter(
            buffer,
            settings.partitions,
            ranges,
            names if reading.ids == STRINGS else None,
            turned=reading.view == BOTH,
            creates=reading.creates,
        )
        loader = _EdgeLoader(reading, sorter, names, bad, context)
    inputs: Iterable[Segment] = segments
    if given.urls:
        from p2premap.worker.remote import with_fetched

        inputs = with_fetched(given, segments, context)
    for segment, name, before in zip(inputs, given.names, told.lines or itertools.repeat(None), strict=False):
        loader.read(segment, name, before)
    found = loader.finish()
    context.count(records_in=loader.lines, records_out=found)
    edges = 0 if reading.form == LINES else found
    loaded = Loaded(lines=loader.lines, edges=edges, bad=bad.count, first_bad=tuple(bad.first))
    return buffer.finish(msgspec.msgpack.encode(loaded))


def _where(name: str, before: int | None, segment: Segment) -> Callable[[int], str]:
    """Names a line of a split, which is counted from 0 there.

    Args:
        before: lines of the file before the split; None: nobody has counted them.
    """
    start = segment.start + segment.shift
    if before is None and start:
        return lambda line: f"{name}, line {line + 1} from byte {start} on"
    return lambda line: f"{name}, line {(before or 0) + line + 1}"


class _EdgeLoader:
    """Reads inputs that say edges.

    Attributes:
        lines: lines or rows that were read.
    """

    def __init__(self, reading: Reading, sorter: EdgeSorter, names: Names, bad: BadLines, context: Context) -> None:
        self._reading, self._sorter, self._names, self._bad = reading, sorter, names, bad
        self._context = context
        self._text = TextReader(reading, names, bad)
        self.lines = 0

    def read(self, segment: Segment, name: str, before: int | None) -> None:
        """Take a split."""
        form = form_of(name, self._reading.form)
        if form == PARQUET:
            self._read_parquet(segment, name)
        elif form == PARTS:
            self._read_parts(segment, name)
        elif form == ARRAYS:
            self._read_arrays(segment)
        else:
            self._read_text(segment, name, before)

    def finish(self) -> int:
        """The last edges are shared out; how many there were."""
        self._sorter.finish()
        return self._sorter.edges

    def _read_text(self, segment: Segment, name: str, before: int | None) -> None:
        where = _where(name, before, segment)
        first = 0
        pieces = read_pieces(segment, name, LINES_PIECE_BYTES)
        try:
            for offset, piece in pieces:
                count = bytes(piece).count(b"\n") + (piece[-1] != 10)
                skip = 0 if offset else _beginning(piece)
                if not offset and (named := self._text.header(bytes(piece[skip:]), name)):
                    skip += named
                line = first + bytes(piece[:skip]).count(b"\n")
                with piece[skip:] as rest:
                    for edges in self._text.read(rest, line, where) if len(rest) else ():
                        self._sorter.add(edges)
                first += count
        except Exception:
            for _ in pieces:  # an input that has changed explains whatever went wrong with it: this raises InputLost
                pass
            raise
        self.lines += first

    def _read_arrays(self, segment: Segment) -> None:
        from p2premap.worker.vertex.foreign import read

        names, pieces = read(self._context.map(segment))
        self._names.keys_of(names)
        for edges in pieces:
            self._sorter.add(edges)

    def _read_parts(self, segment: Segment, name: str) -> None:
        from p2premap.worker.earlier import records as earlier  # few inputs are parts

        number = 0
        for records in earlier(segment, name):
            edges = []
            for key, value in zip(records.keys(), records.values, strict=False):
                try:
                    edges += self._edges_of(key, value)
                except BadLine as error:
                    self._bad.add(f"{name}, record {number + 1}", error)
                number += 1
            self._add(edges)
        self.lines += number

    def _edges_of(self, key: Any, value: Any) -> list[tuple[int, int, float]]:  # noqa: ANN401  (an earlier job's)
        """A target, or several; with weights, (target, weight) in the place of each."""
        weighted = self._reading.columns.weight >= 0
        several = isinstance(value, list | tuple)
        if weighted and several and len(value) == 2 and not isinstance(value[0], list | tuple):
            several = False
        source = self._id(key)
        found = []
        for one in value if several else (value,):
            if weighted:
                if not isinstance(one, list | tuple) or len(one) != 2:
                    raise BadLine(f"{shorten(one)} is no (target, weight).")
                found.append((source, self._id(one[0]), number_of(one[1])))
            else:
                found.append((source, self._id(one), 1.0))
        return found

    def _id(self, thing: Any) -> int:  # noqa: ANN401  (checked here)
        if self._reading.ids != STRINGS:
            if isinstance(thing, float) and thing.is_integer():
                thing = int(thing)
            return integer_of(thing)
        return self._names[str(thing).encode("utf-8", "surrogatepass")]

    def _add(self, edges: list[tuple[int, int, float]]) -> None:
        if not edges:
            return
        sources, targets, weights = zip(*edges, strict=True)
        weighted = self._reading.columns.weight >= 0
        self._sorter.add(
            Edges(np.array(sources, np.int64), np.array(targets, np.int64), np.array(weights) if weighted else None)
        )

    def _read_parquet(self, segment: Segment, name: str) -> None:
        from p2premap.worker.streams import opened
        from p2premap.worker.vertex.parquet import batches

        columns = self._reading.columns
        weighted = columns.weight >= 0
        names = columns.names or _NAMED[: 3 if weighted else 2]
        row = 0
        with opened(segment, name) as stream:
            for batch in batches(stream, name, names, given=bool(columns.names), rows=_ROWS_AT_ONCE):
                found = batch.edges(self._reading.ids != STRINGS)
                if found is not None:
                    self._sorter.add(found)
                else:
                    self._add(list(self._row_by_row(batch.rows(), name, row)))
                row += batch.count
        self.lines += row

    def _row_by_row(self, rows: Iterable[Sequence[Any]], name: str, first: int) -> Iterator[tuple[int, int, float]]:
        for number, cells in enumerate(rows, first + 1):
            try:
                if None in cells:
                    raise BadLine("a cell is empty.")
                weight = number_of(cells[2]) if len(cells) > 2 else 1.0
                yield self._id(cells[0]), self._id(cells[1]), weight
            except BadLine as error:
                self._bad.add(f"{name}, row {number}", error)


class _VertexLoader:
    """Reads lines that a program makes vertices of.

    Attributes:
        lines: that were read.
    """

    def __init__(
        self, prepare: Prepare, owners: Callable[[Sequence[object]], list[int]], buffer: SegmentBuffer, bad: BadLines
    ) -> None:
        self._prepare, self._owners, self._buffer, self._bad = prepare, owners, buffer, bad
        self._ids: list[object] = []
        self._vertices: list[object] = []
        self._count = 0
        self.lines = 0

    def read(self, segment: Segment, name: str, before: int | None) -> None:
        """Take a split."""
        where = _where(name, before, segment)
        first = 0
        pieces = read_pieces(segment, name, LINES_PIECE_BYTES)
        try:
            for offset, piece in pieces:
                skip = 0 if offset else _beginning(piece)
                lines = bytes(piece[skip:]).split(b"\n")
                if not lines[-1]:
                    lines.pop()
                for number, line in enumerate(lines, first):
                    self._take(line.removesuffix(b"\r"), number, where)
                first += len(lines)
        except Exception:
            for _ in pieces:  # see `_EdgeLoader`
                pass
            raise
        self.lines += first

    def finish(self) -> int:
        """The last vertices are shared out; how many there were."""
        self._flush()
        return self._count

    def _take(self, line: bytes, number: int, where: Callable[[int], str]) -> None:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._bad.add(where(number), f"{shorten(line)} is not UTF-8 text.")
            return
        try:
            made = self._prepare(text)
        except Exception as error:
            if self._bad.tolerates():
                self._bad.add(where(number), f"prepare raised {type(error).__name__}: {error}.")
                return
            error.add_note(f"prepare was given {where(number)}: {shorten(text)}")
            raise
        if made is None or (isinstance(made, tuple) and made[:1] == (None,)):
            return
        if not isinstance(made, tuple | list) or not _WIDTH_MIN <= len(made) <= _WIDTH_MAX:
            what = f"prepare gave {shorten(made)}: it must give (id, value), (id, value, edges), or None."
            self._bad.add(where(number), what)
            return
        vertex, *rest = made
        try:
            hash(vertex)
        except TypeError:
            self._bad.add(where(number), f"prepare gave the id {shorten(vertex)}, which is not hashable.")
            return
        self._ids.append(vertex)
        self._vertices.append((*rest, None, None)[:3])
        if len(self._ids) >= _PAIRS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        shares: dict[int, tuple[list[object], list[object]]] = {}
        for vertex, value, partition in zip(self._ids, self._vertices, self._owners(self._ids), strict=True):
            ids, values = shares.setdefault(partition, ([], []))
            ids.append(vertex)
            values.append(value)
        for partition, (ids, values) in sorted(shares.items()):
            self._buffer.add(partition, encode_block(Columns(ids, values, False), "none")[0])
        self._count += len(self._ids)
        self._ids, self._vertices = [], []


def form_of(name: str, form: str) -> str:
    """How the file of this name is read in a job whose inputs are of this form."""
    plain = unpacked_name(name).lower()
    if form == EDGES and plain.endswith((".parquet", ".parq")):
        return PARQUET
    if form == EDGES and plain.endswith((PAIRS_SUFFIX, ".jsonl")):
        return PARTS
    if form == EDGES and plain.endswith(".p2pa"):
        return ARRAYS
    return form


def _beginning(piece: memoryview) -> int:
    """How much of the first piece of a file says only that it is UTF-8."""
    return len(_BOM) if bytes(piece[: len(_BOM)]) == _BOM else 0
