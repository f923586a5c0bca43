"""Inputs as records, for every reader but `lines` and `blocks` of plain files (`p2premap.worker.readers`).

::

    reader     key                    value
    file       (file name, 0)         the whole file
    csv        (file name, byte)      a row: a dict by the names in the first row, or a list (header = False)
    jsonl      (file name, byte)      what the line says
    xml        (file name, number)    an Element: each with the tag `element`, or each child of the root
    html       (file name, 0)         {"title": ..., "text": ..., "links": [...]}
    parts      as they were written   of an earlier job's output
    parquet    (file name, number)    a row, as a dict
    arrow      (file name, number)    a row, as a dict
    a function (file name, number)    what it yields when it is given the file as a binary stream

Whatever goes wrong in a reader becomes one sentence with the file and the record.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from p2premap.tasks.mapreduce_plan import PAIRS_SUFFIX, packing_of, unpacked_name
from p2premap.worker.blocks import shorten
from p2premap.worker.jobfile import JobFile
from p2premap.worker.merge import Run
from p2premap.worker.pairs import JobCodeError, Key, Pair, Value
from p2premap.worker.readers import Records, decoded, read_records
from p2premap.worker.runtime import InputLost, Segment
from p2premap.worker.streams import opened

_GROUP_RECORDS: Final = 256
"""Records are mapped in groups of so many: few enough for large ones."""
_BATCH_ROWS: Final = 4_096

csv.field_size_limit(64 << 20)


def records_of(segment: Segment, name: str, head: bytes, job: JobFile) -> Iterator[Records]:
    """The records of a split, in groups. Whoever stops early must run the iterator to its end, or close it.

    Args:
        head: the first row of the file, where the split is not its beginning and needs to know.

    Raises:
        InputLost: the file is gone, changed or shorter.
        JobCodeError: it is not what the reader reads; names the file and the record.
    """
    match job.reader:
        case "lines" | "blocks":
            return read_records(segment, name, job)
        case "jsonl":
            return _json_lines(segment, name, job)
        case "parts" if unpacked_name(name).endswith(PAIRS_SUFFIX):
            return _written_pairs(segment, name)
        case _:
            return _grouped(_parsed(segment, name, head, job))


def _grouped(records: Iterator[Pair]) -> Iterator[Records]:
    while group := list(itertools.islice(records, _GROUP_RECORDS)):
        keys = [key for key, _ in group]
        yield Records(lambda keys=keys: iter(keys), [value for _, value in group])  # type: ignore[misc]


def _parsed(segment: Segment, name: str, head: bytes, job: JobFile) -> Iterator[Pair]:
    """The records one by one; what a library or the user's reader raises, as a sentence."""
    with opened(segment, name) as stream:
        records = _reading(stream, segment, name, head, job)
        last: Key = None
        for number in itertools.count():
            try:
                record = next(records, None)
            except (InputLost, JobCodeError, MemoryError):
                raise
            except Exception as error:
                place = f"record {number} (counted from 0)" + (f", after {shorten(last)}" if number else "")
                ours = isinstance(job.reader, str)
                what = f"The reader {job.reader}" if ours else "reader"
                text = f"{what} failed at {place} of {name}: {_said(error)}."
                raise JobCodeError(text) from (None if ours else error)
            if record is None:
                return
            last = record[0]
            yield record


def _said(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _reading(stream: BinaryIO, segment: Segment, name: str, head: bytes, job: JobFile) -> Iterator[Pair]:
    match job.reader:
        case "file":
            return iter([((name, 0), _text(stream.read(), name, job))])
        case "csv":
            return _csv(stream, segment.start + segment.shift, name, head, job)
        case "xml":
            return _numbered(name, _xml(stream, job.element))
        case "html":
            return iter([((name, 0), _html(stream.read(), name, job))])
        case "parts":
            return _text_parts(stream, name)
        case "parquet" | "arrow":
            return _numbered(name, _arrow(stream, job.reader))
        case _:
            assert callable(job.reader)
            return _numbered(name, job.reader(stream))


def _numbered(name: str, values: Iterable[Value]) -> Iterator[Pair]:
    for number, value in enumerate(values):
        yield (name, number), value


def _text(data: bytes, name: str, job: JobFile) -> str | bytes:
    return data if job.encoding is None else decoded(data, 0, name, job.encoding, job.errors)


# --- rows ---------------------------------------------------------------------------------------------------------


def _csv(stream: BinaryIO, start: int, name: str, head: bytes, job: JobFile) -> Iterator[Pair]:
    """RFC 4180, with any delimiter; a quoted field may hold line ends."""
    encoding = job.encoding or "utf-8"
    at = start

    def lines() -> Iterator[str]:
        nonlocal at
        for line in stream:
            text = decoded(line, at, name, encoding, job.errors)
            at += len(line)
            yield text

    rows = csv.reader(lines(), delimiter=job.delimiter, strict=True)
    names: list[str] | None = None
    if job.header:
        first = csv.reader([decoded(head, 0, name, encoding, job.errors)], delimiter=job.delimiter)
        names = next(first, None) if start else next(rows, None)
    while True:
        begins = at
        row = next(rows, None)
        if row is None:
            return
        if not row:  # an empty line
            continue
        if names is None:
            yield (name, begins), row
            continue
        if len(row) != len(names):
            raise JobCodeError(
                f"{name}: the row at byte {begins} has {len(row)} fields, and the first row names {len(names)}; mend "
                "it, or say header = False in the job file."
            )
        yield (name, begins), dict(zip(names, row, strict=True))


def _json_lines(segment: Segment, name: str, job: JobFile) -> Iterator[Records]:
    decode = msgspec.json.Decoder().decode
    for records in read_records(segment, name, job):
        values = []
        keys = records.keys
        if not all(records.values):  # empty lines
            kept = [(key, line) for key, line in zip(keys(), records.values, strict=False) if line.strip()]
            keys = lambda kept=kept: (key for key, _ in kept)  # type: ignore[misc]  # noqa: E731
            records = Records(keys, [line for _, line in kept])
        try:
            for line in records.values:
                values.append(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _, offset = next(itertools.islice(keys(), len(values), None))
            raise JobCodeError(
                f"{name}: the line at byte {offset}, {shorten(records.values[len(values)])}, is not JSON: {error}."
            ) from None
        yield Records(keys, values)


# --- documents ----------------------------------------------------------------------------------------------------


def _xml(stream: BinaryIO, element: str | None) -> Iterator[Any]:
    """Elements as they are complete; what has been read is let go of."""
    from xml.etree import ElementTree

    path: list[Any] = []
    for event, found in ElementTree.iterparse(stream, ("start", "end")):  # noqa: S314
        if event == "start":
            path.append(found)
            continue
        path.pop()
        if (len(path) == 1) if element is None else (_local(found.tag) == element or found.tag == element):
            yield found
            if path:
                path[-1].remove(found)
        elif element is not None and path and not any(_local(above.tag) == element for above in path):
            path[-1].remove(found)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _html(data: bytes, name: str, job: JobFile) -> dict[str, Any]:
    from p2premap.worker.html import page_of

    text = _text(data, name, job)
    return page_of(text if isinstance(text, str) else text.decode("latin-1"))


# --- tables -------------------------------------------------------------------------------------------------------


def _arrow(stream: BinaryIO, kind: str) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise JobCodeError(
            f"reader = \"{kind}\" needs the package pyarrow on every node: pip install 'p2premap[arrow]'."
        ) from None
    if kind == "parquet":
        batches = parquet.ParquetFile(stream).iter_batches(batch_size=_BATCH_ROWS)
    elif stream.peek(6)[:6] == b"ARROW1":  # type: ignore[attr-defined]
        reader = pyarrow.ipc.open_file(stream)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        batches = pyarrow.ipc.open_stream(stream)
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            yield from batch.slice(start, _BATCH_ROWS).to_pylist()


# --- the output of earlier jobs -----------------------------------------------------------------------------------


def _written_pairs(segment: Segment, name: str) -> Iterator[Records]:
    """Pairs as `writer = "pairs"` wrote them: blocks, like map output."""
    if packing_of(name):
        raise JobCodeError(f"{name} is packed already when it is written; unpack what was packed again.")
    run = Run(segment)
    while run.more:
        try:
            run.fill()
            blocks = run.take_all()
        except InputLost:
            raise
        except Exception as error:
            raise JobCodeError(f"{name} holds no pairs of an earlier job: {_said(error)}.") from None
        for keys, values, _ in blocks:
            yield Records(lambda keys=keys: iter(keys), values)  # type: ignore[misc]


def _text_parts(stream: BinaryIO, name: str) -> Iterator[Pair]:
    """Pairs as `writer = "jsonl"` wrote them, or `writer = "text"`: then both are strings."""
    as_json = unpacked_name(name).endswith(".jsonl")
    for number, line in enumerate(stream):
        text = line.decode().rstrip("\n")
        if as_json:
            pair = msgspec.json.decode(text)
            if not isinstance(pair, dict) or pair.keys() != {"key", "value"}:
                raise JobCodeError(f'{name}: line {number + 1} has no "key" and "value", as parts of a job have.')
            yield _hashable(pair["key"]), pair["value"]
            continue
        key, tab, value = text.partition("\t")
        if not tab:
            raise JobCodeError(f"{name}: line {number + 1}, {shorten(text)}, has no tab, as parts of a job have.")
        yield key, value


def _hashable(key: Key) -> Key:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key
