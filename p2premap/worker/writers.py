"""Results as bytes: output parts in the format that the job file asks for.

::

    text      key TAB value, a line each (`p2premap.worker.text`)
    jsonl     {"key": ..., "value": ...}, a line each
    pairs     blocks as in the shuffle: every type as it was, to be read by another job (`reader = "parts"`)
    parquet   a column for the key, and one for the value, or one for each field where values are dicts
    a function writer(pairs, stream), called once a part: `pairs` is an iterator, `stream` a file to be written

The last one wants to ask for pairs, while everything here is told of them: they wait on scratch disk, as blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from p2premap.worker.blocks import Columns, encode_block, shorten
from p2premap.worker.jobfile import JobFile
from p2premap.worker.merge import Run
from p2premap.worker.output import BufferedOutput, ChunkedOutput, PartOutput
from p2premap.worker.pairs import JobCodeError, Key, Pair, Value, in_json
from p2premap.worker.runtime import BlobWriter, Context, Result, Segment
from p2premap.worker.text import TextOutput

_BUFFER_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 256 << 10
_FIRST_PAIRS: Final = 500
_ROW_GROUP_ROWS: Final = 50_000


def output_for(job: JobFile, context: Context, *, onward: bool = False) -> PartOutput:
    """What writes a part of this job.

    Args:
        onward: another stage reads it: every type as it was.
    """
    writer = "pairs" if onward else job.writer
    return named_output(writer, context) if isinstance(writer, str) else OwnOutput(context, writer)


def named_output(writer: str, context: Context) -> PartOutput:
    """What writes a part in this way, one of `p2premap.tasks.mapreduce_plan.WRITERS`."""
    match writer:
        case "text":
            return TextOutput(context)
        case "jsonl":
            return JsonOutput(context)
        case "pairs":
            return PairsOutput(context)
        case _:
            assert writer == "parquet", writer
            return ParquetOutput(context)


class JsonOutput(BufferedOutput):
    """JSON lines."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._encoder = msgspec.json.Encoder(enc_hook=in_json)

    def add_columns(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """See `PartOutput`."""
        rows = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
        try:
            data = self._encoder.encode_lines(rows)
        except Exception:
            raise self._unsaid(rows) from None
        self._write(data, len(keys))

    def _unsaid(self, rows: Sequence[dict[str, Any]]) -> JobCodeError:
        for row in rows:
            try:
                self._encoder.encode(row)
            except Exception as error:
                return JobCodeError(
                    f"JSON has no way to say the result of the key {shorten(row['key'])}, {shorten(row['value'])} "
                    f"({error}); give strings, numbers, lists and dicts, or choose another writer."
                )
        raise AssertionError


class PairsOutput(ChunkedOutput):
    """Blocks of pairs in the order in which they came."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._blob = context.new_blob()
        self._writer = PairsWriter(self._blob.write)

    def add_columns(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """See `PartOutput`."""
        self._writer.add(keys, values)
        self._context.count(records_out=len(keys))

    def finish(self) -> Result:
        """See `PartOutput`."""
        return Result(blobs=(self._blob.finish(),))


class PairsWriter:
    """Writes pairs as blocks of about the same size.

    Args:
        write: takes the bytes.
        compression: see `p2premap.worker.blocks`.
    """

    def __init__(self, write: Callable[[bytes], object], *, compression: str = "zlib") -> None:
        self._write = write
        self._compression = compression
        self._pairs_a_block = _FIRST_PAIRS

    def add(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """Write these.

        Raises:
            JobCodeError: one of them cannot be pickled.
        """
        start = 0
        while start < len(keys):
            end = start + self._pairs_a_block
            columns = Columns(keys[start:end], values[start:end], False)
            data, size = encode_block(columns, self._compression)
            self._write(data)
            fitting = len(columns.keys) * _BLOCK_BYTES // max(size, 1)
            self._pairs_a_block = min(max(fitting, 1), 4 * self._pairs_a_block)
            start = end


def read_pairs(segment: Segment) -> Iterator[tuple[Sequence[Key], Sequence[Value]]]:
    """What a `PairsWriter` wrote, in columns.

    Raises:
        InputLost: it is not what it was announced to be.
    """
    run = Run(segment)
    while run.more:
        run.fill()
        for keys, values, _ in run.take_all():
            yield keys, values


class ParquetOutput(ChunkedOutput):
    """Parquet; the first rows decide on the columns and their types."""

    def __init__(self, context: Context) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise JobCodeError(
                "writer = \"parquet\" needs the package pyarrow on every node: pip install 'p2premap[arrow]'."
            ) from None
        self._arrow: Any = pyarrow
        self._parquet: Any = parquet
        self._context = context
        self._path = os.path.join(context.scratch, "part.parquet")
        self._file: Any = None
        self._keys: list[Key] = []
        self._values: list[Value] = []
        self._fields: list[str] | None = None

    def add_columns(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """See `PartOutput`."""
        self._keys += keys
        self._values += values
        self._context.count(records_out=len(keys))
        if len(self._keys) >= _ROW_GROUP_ROWS:
            self._flush()

    def finish(self) -> Result:
        """See `PartOutput`."""
        self._flush()
        self._file.close()
        return Result(blobs=(_copied(self._path, self._context.new_blob()).finish(),))

    def _flush(self) -> None:
        values = self._values
        if self._file is None and values and all(isinstance(value, dict) for value in values):
            self._fields = list(dict.fromkeys(name for value in values for name in value if name != "key"))
        if self._fields is not None:
            self._refuse_unwritten(self._fields)
        try:
            if self._fields is None:
                columns = {"key": self._keys, "value": values}
            else:
                columns = {"key": self._keys, **{name: [value.get(name) for value in values] for name in self._fields}}
            schema = None if self._file is None else self._file.schema
            table = self._arrow.Table.from_pydict(columns, schema=schema)
            if self._file is None:
                self._file = self._parquet.ParquetWriter(self._path, table.schema)
            self._file.write_table(table)
        except (self._arrow.ArrowException, TypeError, AttributeError) as error:
            raise JobCodeError(
                f"The results do not fit into columns of a Parquet file ({error}): all keys, and all values, must be "
                "of one type that Parquet has."
            ) from None
        self._keys, self._values = [], []

    def _refuse_unwritten(self, fields: Sequence[str]) -> None:
        """Raises: JobCodeError: something of a result has no column."""
        known = {"key", *fields}
        for key, value in zip(self._keys, self._values, strict=True):
            if isinstance(value, dict) and (more := value.keys() - known):
                raise JobCodeError(
                    f"The result of the key {shorten(key)} has the field {min(more, key=str)!r}, which none of "
                    f"the first {_ROW_GROUP_ROWS} has: give all the same fields, with None where there is nothing."
                )
            if isinstance(value, dict) and "key" in value and value["key"] != key:
                raise JobCodeError(
                    f"The result of the key {shorten(key)} has the field 'key', which is the column of keys, with "
                    "another value: name it otherwise."
                )


class OwnOutput(ChunkedOutput):
    """The job file's own `writer`."""

    def __init__(self, context: Context, writer: Callable[[Iterator[Pair], Any], object]) -> None:
        self._context = context
        self._writer = writer
        self._waiting = os.path.join(context.scratch, "waiting.pairs")
        self._file = open(self._waiting, "wb")  # noqa: SIM115  (until `finish`; an attempt that fails loses its scratch)
        self._pairs = PairsWriter(self._file.write, compression="none")

    def add_columns(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """See `PartOutput`."""
        self._pairs.add(keys, values)
        self._context.count(records_out=len(keys))

    def finish(self) -> Result:
        """See `PartOutput`."""
        self._file.close()
        segment = Segment(self._waiting, 0, os.path.getsize(self._waiting), b"", True, "")
        pairs = (pair for columns in read_pairs(segment) for pair in zip(*columns, strict=True))
        path = os.path.join(self._context.scratch, "part")
        with open(path, "w+b") as stream:
            self._writer(pairs, stream)
        return Result(blobs=(_copied(path, self._context.new_blob()).finish(),))


def _copied(path: str, blob: BlobWriter) -> BlobWriter:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_BUFFER_BYTES):
            blob.write(piece)
    return blob
