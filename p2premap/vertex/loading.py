"""How the inputs of a vertex job become the graph blobs of its partitions: the director's half of load and build.

::

    load    as the map stage of a map/reduce job, of which the plan is one: a task reads splits, and writes a blob with
            a segment for each partition
    build   as its reduce stage: a task reads its partition's segment of each of these blobs

A line that cannot be read is counted, and told with its file and number; the job fails where there are more than it
tolerates.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from p2premap.errors import JobFailed, JobRejected
from p2premap.ids import JobId, NodeId
from p2premap.tasks.director import Pinned, StagePlan, TaskInput
from p2premap.tasks.job import Source, StageId
from p2premap.tasks.mapreduce import MapReduce
from p2premap.tasks.mapreduce_plan import MapReducePlan, segments_bytes
from p2premap.vertex.plan import BUILD, LOAD, BuildParams, LoadParams, VertexPlan
from p2premap.wire import Count, Record, Short, Text

EDGES: Final = "edges"
ADJACENCY: Final = "adjacency"
PARQUET: Final = "parquet"
PARTS: Final = "parts"
ARRAYS: Final = "arrays"
LINES: Final = "lines"
ADJACENCY_ENDS: Final = b",;:"
"""Where ids are integers, these end a field of an adjacency line as blanks do."""
FORMS: Final = (EDGES, ADJACENCY, PARQUET, PARTS, ARRAYS, LINES)
"""What an input may be: a line an edge; a line a vertex with all its targets; rows of a Parquet file; output parts of
an earlier job; arrays of another library; lines for the program's own `prepare`."""

INTEGERS: Final = "int"
STRINGS: Final = "str"

OUT: Final = "out"
BOTH: Final = "both"
"""What a vertex sees: the edges that leave it, or also those that come in, turned round."""

BAD_SHOWN_MAX: Final = 8
"""Lines that could not be read and are told in full."""

_NUMBER: Final = struct.Struct("<Q")


class Columns(Record, frozen=True, kw_only=True):
    """Where in a row an edge is.

    Args:
        source, target, weight: columns, from 0; weight -1: there is none.
        exact: a row has these columns and no more.
        fields: of the first rows; rows of as many are read fast.
        names: in Parquet files, where they have other names than "source", "target" and "weight".
    """

    source: Count = 0
    target: Count = 1
    weight: int = -1
    exact: bool = True
    names: tuple[Text, ...] = ()
    fields: Count = 2


class Reading(Record, frozen=True, kw_only=True):
    """How the inputs are read: packed in `Settings.reading`.

    Args:
        form: one of `FORMS`; where it is `EDGES`, files whose names say so are `PARQUET` or `PARTS` all the same.
        delimiter: between the fields of a line; "": white space.
        header: the names of the columns, where the first line of a file may say them.
        columns: see there.
        ids: `INTEGERS` or `STRINGS`.
        view: `OUT` or `BOTH`.
        undirected: an edge of the input has no direction: its two directions are alike.
        weighted: edges get weights in any case: 1 where the input has none.
        creates: a target becomes a vertex by being one; else what has no line of its own is unknown.
        ranges: the smallest id of each partition but the first; empty: ids are mixed.
        max_bad: so many lines that cannot be read are left out.
    """

    form: Short = EDGES
    delimiter: Short = ""
    header: tuple[Text, ...] = ()
    columns: Columns = Columns()
    ids: Short = INTEGERS
    view: Short = OUT
    undirected: bool = False
    weighted: bool = False
    creates: bool = True
    ranges: tuple[int, ...] = ()
    max_bad: Count = 0

    def pack(self) -> bytes:
        """For `Settings.reading`."""
        return msgspec.msgpack.encode(self)


def unpack_reading(data: bytes) -> Reading:
    """What `Reading.pack` packed.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return msgspec.msgpack.decode(data, type=Reading)


class Loaded(Record, frozen=True, kw_only=True):
    """What a load attempt tells behind the segments of its blob, and what clients are told of all of them.

    Args:
        lines: that were read, or rows.
        edges: that were found; 0 where lines are vertices.
        bad: lines that could not be read.
        first_bad: the first of them, as sentences with file and line.
    """

    lines: Count = 0
    edges: Count = 0
    bad: Count = 0
    first_bad: tuple[Text, ...] = ()

    def plus(self, other: Loaded) -> Loaded:
        """Both together."""
        return Loaded(
            lines=self.lines + other.lines,
            edges=self.edges + other.edges,
            bad=self.bad + other.bad,
            first_bad=(*self.first_bad, *other.first_bad)[:BAD_SHOWN_MAX],
        )


def too_many_bad(loaded: Loaded, max_bad: int) -> str:
    """The sentence that a job fails with; "" where it tolerates these lines."""
    if loaded.bad <= max_bad:
        return ""
    first = loaded.first_bad[0] if loaded.first_bad else "A line cannot be read."
    if not max_bad:
        return f"{first} Mend it, or say --max-bad N to leave out up to N such lines."
    return f"{loaded.bad} lines cannot be read, and --max-bad allows {max_bad}. The first: {first}"


def pack_lines(first_lines: Iterable[int]) -> bytes:
    """For `VertexPlan.lines`: how many lines of its file come before each split."""
    return b"".join(map(_NUMBER.pack, first_lines))


def unpack_lines(packed: bytes) -> tuple[int, ...]:
    """What `pack_lines` packed."""
    return tuple(number for (number,) in _NUMBER.iter_unpack(packed[: len(packed) // _NUMBER.size * _NUMBER.size]))


class Loading:
    """The first two stages of a vertex job.

    Args:
        job, home: see `p2premap.tasks.director.Director`.
        plan: of the vertex job.
        inputs: its map/reduce plan, unpacked.

    Raises:
        JobRejected: how the inputs are read cannot be understood here.

    Attributes:
        loaded: what all load tasks told; known from `build_stage` on.
    """

    def __init__(self, *, job: JobId, home: NodeId, plan: VertexPlan, inputs: MapReducePlan) -> None:
        self._shuffle = MapReduce(job=job, home=home, plan=plan.inputs)
        self._splits = inputs
        self._lines = unpack_lines(plan.lines)
        self._settings = plan.settings
        try:
            self._max_bad = unpack_reading(plan.settings.reading).max_bad
        except msgspec.DecodeError as error:
            raise JobRejected(f"How the vertex job reads its inputs cannot be understood here: {error}.") from None
        self.home = home
        self.input_bytes = self._shuffle.input_bytes
        self.loaded = Loaded()

    def load_stage(self) -> StagePlan:
        """One task a group of splits."""
        return replace(self._shuffle.first(), name=LOAD, function=LOAD, final=False)

    def build_stage(self, results: Sequence[Pinned]) -> StagePlan:
        """One task a partition.

        Args:
            results: of all load tasks.

        Raises:
            JobFailed: more lines could not be read than the job tolerates, or a task told nonsense of its blob.
        """
        size = segments_bytes(self._settings.partitions)
        self.loaded = Loaded()
        for task, result in enumerate(results):
            if result.failed:
                continue
            try:
                told = msgspec.msgpack.decode(result.value[size:], type=Loaded)
            except msgspec.DecodeError:
                raise JobFailed(f"Load task {task} told nonsense about what it read.") from None
            self.loaded = self.loaded.plus(told)
        if refusal := too_many_bad(self.loaded, self._max_bad):
            raise JobFailed(refusal)
        segments = [replace(result, value=result.value[:size]) for result in results]
        reduce = self._shuffle.next(0, segments)
        assert reduce is not None, "the plan has partitions"
        return replace(reduce, name=BUILD, function=BUILD, final=False)

    def load_task(self, task: int) -> TaskInput:
        """What a load task reads."""
        inner = self._shuffle.task(StageId(0, b""), task)
        first, end = self._splits.bounds_of(task)
        params = LoadParams(settings=self._settings, inputs=inner.params, lines=self._lines[first:end])
        return TaskInput(params=msgspec.msgpack.encode(params), sources=inner.sources)

    def build_task(self, partition: int) -> TaskInput:
        """The partition's segment of each load blob."""
        inner = self._shuffle.task(StageId(1, b""), partition)
        params = BuildParams(settings=self._settings, partition=partition)
        return TaskInput(params=msgspec.msgpack.encode(params), sources=inner.sources)

    def input_files(self) -> Iterable[str]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        return self._shuffle.input_files()

    def inputs(self) -> Iterator[Source]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        return self._shuffle.inputs()

    def spread(self, holders: Sequence[NodeId]) -> None:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        self._shuffle.spread(holders)
