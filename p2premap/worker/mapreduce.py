"""Map/reduce in a worker process: the other half of `p2premap.tasks.mapreduce`.

::

    keys     datasource -> keys, one blob
    map      split -> pieces of lines -> map() -> pairs -> dict of lists -> combine() -> sorted blocks, one blob
    reduce   one segment of each map blob -> merge -> reduce() -> text, one blob
    finish   all blobs of the stage before -> finish() -> text, one blob

The loops run in C wherever user code does not: records come from `str.split`, `map()` is driven by `map` and
`itertools.chain`, and what it yields is unpacked in a single Python loop. Which record user code stumbled over is
therefore found out afterwards, from how far the iterators have come.
"""

from __future__ import annotations

import dis
import gc
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from p2premap.tasks.mapreduce_plan import ENDED, FINISH, KEYS, MAP, REDUCE, KeysParams, MapParams, ReduceParams
from p2premap.worker.blocks import shorten
from p2premap.worker.failure import OURS
from p2premap.worker.jobfile import JobFile, job_file
from p2premap.worker.loading import load_bundle
from p2premap.worker.merge import Run, Window, merge
from p2premap.worker.output import PartOutput
from p2premap.worker.pairs import JobCodeError, Key, Pair, Value
from p2premap.worker.readers import Blocks, Records, read_records
from p2premap.worker.runtime import Context, Result, Segment
from p2premap.worker.shuffle import MapOutput, narrowed
from p2premap.worker.vocabulary import Vocabulary
from p2premap.worker.writers import output_for, read_pairs

if TYPE_CHECKING:
    from p2premap.worker.sources import Source

_GC_THRESHOLD: Final = 100_000
_VOCABULARY_FROM_BYTES: Final = 256 << 20
"""An attempt that may take less than this remembers no keys for the next."""
_CHECKED_PAIRS: Final = 16
"""How many pairs of the first record of a group are looked at one by one: a two-letter string unpacks like a pair."""
_END: Final = object()
_AT_BYTES: Final = frozenset(("lines", "blocks", "task", "csv", "jsonl"))
"""Readers whose keys are (file name, byte offset)."""
_FRAME_READERS: Final = frozenset(("locals", "vars", "eval", "exec", "dir", "_getframe", "currentframe"))


class Output(Protocol):
    """What takes an attempt's pairs."""

    def add(self, pairs: Iterator[Pair]) -> None:
        """Take these."""

    def add_mapping(self, mapping: Mapping[Key, Value]) -> None:
        """Take the items of a mapping."""

    def finish(self) -> Result:
        """Write everything."""


class MapReduceRuntime:
    """See `p2premap.worker.runtime.Runtime`."""

    def __init__(self, bundle: bytes, directory: str) -> None:
        self._bundle = bundle
        self._job = job_file(load_bundle(bundle))
        self._vocabulary = Vocabulary()
        self._datasource: Source | None = None
        # What is loaded by now stays; pairs come and go in numbers that would have the collector look in vain.
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])

    def run(self, function: str, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        """Run one attempt."""
        if function == MAP:
            return self._map(msgspec.msgpack.decode(params, type=MapParams), segments, context)
        if function == REDUCE:
            return self._reduce(msgspec.msgpack.decode(params, type=ReduceParams), segments, context)
        if function == KEYS:
            return self._source().write_keys(msgspec.msgpack.decode(params, type=KeysParams).tasks, context)
        assert function == FINISH, function
        return self._finish(segments, context)

    def _map(self, params: MapParams, segments: Sequence[Segment], context: Context) -> Result:
        if params.partitions:
            small = 0 < params.memory_bytes < _VOCABULARY_FROM_BYTES
            output: Output = MapOutput(self._job, params, context, Vocabulary() if small else self._vocabulary)
        else:
            output = output_for(self._job, context, onward=params.onward)
        mapper = Mapper(self._job, output)
        if params.count:
            return self._map_counted(params, mapper, output, context)
        inputs: Iterator[Iterator[Records]]
        if params.keyed:
            inputs = (self._source().records(segment) for segment in segments)
        else:
            heads = params.heads or itertools.repeat(b"")
            if params.urls:
                from p2premap.worker.remote import with_fetched

                given = with_fetched(params, segments, context)
            else:
                given = iter(segments)
            inputs = (self._records_of(*each) for each in zip(given, params.names, heads, strict=False))
        if self._job.reader == "task" and not params.keyed:
            blocks = Blocks(itertools.chain.from_iterable(inputs))
            mapper.feed_task(blocks)
            context.count(records_in=blocks.count)
            return output.finish()
        for groups in inputs:
            try:
                for records in groups:
                    mapper.feed(records)
                    context.count(records_in=len(records.values))
            except Exception:
                # An input that has changed explains whatever went wrong with it: then this raises InputLost.
                for _ in groups:
                    pass
                raise
        return output.finish()

    def _map_counted(self, params: MapParams, mapper: Mapper, output: Output, context: Context) -> Result:
        """Map what no bytes say: keys by their numbers, or the name of the node that this is."""
        found = 0
        name = [params.names[0]]
        for records in self._source().numbered(params.first, params.count) if params.keyed else (_one_record(name),):
            mapper.feed(records)
            found += len(records.values)
        context.count(records_in=found)
        ended = found < params.count and not params.partitions
        if ended and not found:
            return Result(value=ENDED)
        result = output.finish()
        return replace(result, value=ENDED) if ended else result

    def _source(self) -> Source:
        from p2premap.worker.sources import Source

        if self._datasource is None:
            if self._job.datasource is None:
                raise JobCodeError("The job file has no datasource on this node, although it had when submitted.")
            self._datasource = Source(
                self._job.datasource, again=lambda: job_file(load_bundle(self._bundle)).datasource
            )
        return self._datasource

    def _records_of(self, segment: Segment, name: str, head: bytes) -> Iterator[Records]:
        if self._job.reader in ("lines", "blocks", "task"):
            return read_records(segment, name, self._job)
        from p2premap.worker.formats import records_of  # most jobs need none of what it imports

        return records_of(segment, name, head, self._job)

    def _reduce(self, params: ReduceParams, segments: Sequence[Segment], context: Context) -> Result:
        job = self._job
        if not job.shuffles:
            raise JobCodeError("The job file has no function reduce on this node, although it had when submitted.")
        output = output_for(job, context, onward=params.onward)
        runs = narrowed([Run(s) for s in segments], params.runs_max, context, params.block_bytes)
        windows = counted(merge(runs), context)
        if job.keying is None and job.reduce is not None:
            for window in windows:
                reduce_window(job, window, output)
        else:
            reduce_groups(job, windows, output)
        return output.finish()

    def _finish(self, segments: Sequence[Segment], context: Context) -> Result:
        if self._job.finish is None:
            raise JobCodeError("The job file has no function finish on this node, although it had when submitted.")
        output = output_for(self._job, context)
        columns = (columns for segment in segments for columns in read_pairs(segment))
        pairs = (pair for keys, values in columns for pair in zip(keys, values, strict=True))
        try:
            pour(iter((self._job.finish(pairs),)), output, pairs=False)
        except Exception as error:
            raise blame(error, "finish", "the results of all tasks before it") from error.__cause__
        return output.finish()


def _one_record(keys: list[Key]) -> Records:
    return Records(lambda: iter(keys), [None])


class Mapper:
    """Calls `map` for records and pours what it gives into an output."""

    def __init__(self, job: JobFile, output: Output) -> None:
        self._job = job
        self._output = output
        self._keyless = ignores_first(job.map)

    def feed(self, records: Records) -> None:
        """Map these records.

        Raises:
            JobCodeError: `map` gave something that is not a pair, or a key that is not hashable.
            Exception: what `map` raises, with a note that names the record.
        """
        values = iter(records.values)
        keys = itertools.repeat(None) if self._keyless else records.keys()
        try:
            pour(map(self._job.map, keys, values), self._output, pairs=self._job.map_yields)
        except Exception as error:
            index = len(records.values) - operator.length_hint(values) - 1
            key = next(itertools.islice(records.keys(), index, None))
            raise blame(error, "map", f"{self._place(key)}, {shorten(records.values[index])}") from error.__cause__

    def _place(self, key: Key) -> str:
        """Where a record is, for people."""
        if self._job.reader in _AT_BYTES and isinstance(key, tuple) and len(key) == 2:
            return f"the record at byte {key[1]} of {key[0]}"
        return f"the record {shorten(key)}"

    def feed_task(self, blocks: Blocks) -> None:
        """Call `map` once, with all that the task reads.

        Raises:
            JobCodeError, Exception: as `feed`.
            InputLost: an input has changed, which explains whatever else went wrong.
        """
        try:
            pour(iter((self._job.map(None, blocks),)), self._output, pairs=self._job.map_yields)
        except Exception as error:
            blocks.close()
            where = "no block yet" if blocks.at is None else "the block at byte {1} of {0}".format(*blocks.at)
            raise blame(error, "map", where) from error.__cause__
        blocks.close()


def counted(windows: Iterable[Window], context: Context) -> Iterator[Window]:
    """These windows; their keys are counted."""
    for window in windows:
        context.count(records_in=len(window.keys))
        yield window


def reduce_groups(job: JobFile, windows: Iterable[Window], output: PartOutput) -> None:
    """As `reduce_window`, for jobs whose groups are not those of the shuffle, or that write every pair as it is.

    Raises:
        JobCodeError, Exception: see there.
    """
    entries = ((key, window.groups[key]) for window in windows for key in window.keys)
    groups = (((key,), iter(values)) for key, values in entries) if job.keying is None else job.keying.groups(entries)
    output.add(itertools.chain.from_iterable(_reduced(job, arguments, values) for arguments, values in groups))


def _reduced(job: JobFile, arguments: tuple[Any, ...], values: Iterator[Value]) -> Iterator[Pair]:
    """The pairs that come of one group."""
    key = arguments[-1]
    if job.reduce is None:
        yield from zip(itertools.repeat(key), values)
        return
    try:
        if not job.reduce_yields:
            value = job.reduce(*arguments, values)
            if value is not None:
                yield key, value
            return
        for pair in job.reduce(*arguments, values):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise NotAPair(f"{shorten(pair)} is not a (key, value) pair")
            yield pair[0], pair[1]
    except Exception as error:
        raise blame(error, "reduce", f"the key {shorten(key)}") from error.__cause__


def reduce_window(job: JobFile, window: Window, output: PartOutput) -> None:
    """Call `reduce` for each key of a window, and write what it gives.

    Raises:
        JobCodeError: it yielded something that is not a pair.
        Exception: what `reduce` raises, with a note that names the key.
    """
    assert job.reduce is not None
    keys = iter(window.keys)
    results = map(job.reduce, keys, map(iter, map(window.groups.__getitem__, window.keys)))
    try:
        if job.reduce_yields:
            pour(results, output, pairs=True)
            return
        values: list[Value] = list(results)
    except Exception as error:
        key = window.keys[len(window.keys) - operator.length_hint(keys) - 1]
        raise blame(error, "reduce", f"the key {shorten(key)}") from error.__cause__
    kept = [(key, value) for key, value in zip(window.keys, values, strict=True) if value is not None]
    output.add_columns([key for key, _ in kept], [value for _, value in kept])


def pour(results: Iterator[Any], output: Output, *, pairs: bool) -> None:
    """Give the pairs in the results of many calls to an output.

    Args:
        pairs: each result is an iterator of pairs; else it may also be a dict, or None.

    Raises:
        NotAPair: the first result holds something else. Looking at every pair would cost as much as using it.
    """
    first = next(results, _END)
    if first is _END:
        return
    if isinstance(first, dict):
        output.add_mapping(first)
    else:
        output.add(_checked(first))
    output.add(itertools.chain.from_iterable(results if pairs else map(_pairs, results)))


class NotAPair(TypeError):
    """User code gave this where a pair belongs."""


def _pairs(result: Value) -> Iterable[Any]:
    if isinstance(result, dict):
        return result.items()
    return () if result is None else result


def _checked(result: Value) -> Iterator[Pair]:
    rest = iter(_pairs(result))
    head = list(itertools.islice(rest, _CHECKED_PAIRS))
    for pair in head:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise NotAPair(f"{shorten(pair)} is not a (key, value) pair")
    return itertools.chain(head, rest)


def blame(error: Exception, function: str, record: str) -> Exception:
    """What to raise for an error that came while user code was called for this record.

    What user code raised stays as it is, with a note; what our own loop raised about the things that user code gave
    becomes a sentence.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    ours = traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(OURS)
    if isinstance(error, JobCodeError) or not ours:
        error.add_note(f"{function} was given {record}.")
        return error
    if isinstance(error, (TypeError, ValueError)):
        if "unhashable" in str(error):
            return JobCodeError(
                f"{function} gave a key that cannot be one ({error}) for {record}; use a string, a number or a tuple."
            )
        if isinstance(error, NotAPair) or "unpack" in str(error) or "iterable" in str(error):
            return JobCodeError(f"{function} must give (key, value) pairs, but for {record}: {error}.")
    error.add_note(f"{function} was given {record}.")
    return error


def ignores_first(function: object) -> bool:
    """Whether a function provably never looks at its first argument: then nobody needs to make it.

    In a word count by lines the positions of lines cost 8 % of the run.
    """
    if not isinstance(function, FunctionType) or not function.__code__.co_argcount:
        return False
    code = function.__code__
    first = code.co_varnames[0]
    if first in code.co_cellvars or not _FRAME_READERS.isdisjoint(code.co_names):
        return False
    return all(first not in _names(instruction.argval) for instruction in dis.get_instructions(code))


def _names(argument: object) -> tuple[object, ...]:
    # Newer compilers load two variables with one instruction.
    return argument if isinstance(argument, tuple) else (argument,)
