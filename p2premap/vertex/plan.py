"""The plan of a vertex job, what the tasks of its stages are told, and what they tell: all of it packed.

The plan is made once by the client and read by every leader. Its inputs are those of a map/reduce job: files, splits
and digests (`p2premap.tasks.mapreduce_plan`), with a partition of the graph where that has one of its reduce tasks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2premap.errors import JobRejected
from p2premap.tasks.mapreduce_plan import MapReducePlan
from p2premap.tasks.mapreduce_plan import unpack_plan as unpack_inputs
from p2premap.wire import Count, Record, Seconds, Short, Text

KIND: Final = "vertex"
PLAN_VERSION: Final = 1

LOAD: Final = "load"
BUILD: Final = "build"
SUPERSTEPS: Final = "supersteps"
OUTPUT: Final = "output"
"""The stages, and the functions that their tasks are told."""

OBJECTS: Final = "objects"
ARRAYS: Final = "arrays"
FORMS: Final = (OBJECTS, ARRAYS)

DROP: Final = "drop"
CREATE: Final = "create"
ERROR: Final = "error"
UNKNOWN: Final = (DROP, CREATE, ERROR)
"""What mail to an id that does not exist does."""

SUPERSTEPS_MAX: Final = 10_000
CHECKPOINT_S: Final = 2.0
CHECKPOINT_SHARE: Final = 0.05
"""Of the run, at most, goes into checkpoints, where nobody asked for more."""
ROWS_MAX: Final = 200
"""Supersteps that one report tells of."""


class Settings(Record, frozen=True, kw_only=True):
    """What all tasks of a vertex job know of it.

    Args:
        form: one of `FORMS`.
        program: "package.module:Class" of one that is installed; ":Class" of one of the job file's; "": its functions.
        options: of the program, a packed map of names and values.
        partitions: of the graph; fixed for the whole job.
        reading: how the inputs are read and built: a packed map that only load and build look into.
        writing: how the output is written: a packed map that only the output stage looks into.
        suffix: of the names of output parts.
        ids: "int" or "str".
        unknown: one of `UNKNOWN`.
        supersteps_max: a job that has not ended by itself after so many fails.
        supersteps: it ends well after so many; 0: only by itself.
        checkpoint_every: supersteps of an epoch; 0: by the clock.
        seed: what `ctx.rng` depends on beside superstep and vertex.
    """

    form: Short
    program: Text = ""
    options: bytes = b"\x80"
    partitions: Count = 1
    reading: bytes = b"\x80"
    writing: bytes = b"\x80"
    suffix: Short = ""
    ids: Short = "int"
    unknown: Short = DROP
    supersteps_max: Count = SUPERSTEPS_MAX
    supersteps: Count = 0
    checkpoint_every: Count = 0
    seed: bytes = b""


class VertexPlan(Record, frozen=True, kw_only=True):
    """The plan blob of a vertex job.

    Args:
        inputs: a packed map/reduce plan, with the partitions of `settings` and no `finish`; b"": there are none, and
            the graph is empty.
        settings: see there.
        lines: packed, how many lines of its file come before each split (`p2premap.vertex.loading.pack_lines`), so that
            a line can be named; b"": unknown.
    """

    version: int
    inputs: bytes
    settings: Settings
    lines: bytes = b""

    def pack(self) -> bytes:
        """The plan blob."""
        return msgspec.msgpack.encode(self)


class LoadParams(Record, frozen=True, kw_only=True):
    """Told to a load attempt.

    Args:
        inputs: packed `MapParams`, which name the sources and what is fetched.
        lines: how many lines of its file come before each of them; empty: unknown.
    """

    settings: Settings
    inputs: bytes
    lines: tuple[Count, ...] = ()


class BuildParams(Record, frozen=True, kw_only=True):
    """Told to a build attempt, beside the partition's segment of each load blob."""

    settings: Settings
    partition: Count


class EpochParams(Record, frozen=True, kw_only=True):
    """Told to a superstep attempt, beside its sources: the graph blob, if there is one, then the state blob, if any.

    Args:
        partition: its own.
        graph: the first source is a graph blob.
        state: the last source is a state blob; else it begins from the graph alone.
        epoch: from 0.
        superstep: the first of this epoch.
    """

    settings: Settings
    partition: Count
    graph: bool
    state: bool
    epoch: Count
    superstep: Count = 0


class StepRow(Record, frozen=True, kw_only=True):
    """One superstep in numbers.

    Args:
        active, computed, sent, dropped: see `p2premap.worker.vertex.partition`; of the whole graph.
        seconds: from barrier to barrier.
        values: aggregates that are numbers, by name.
    """

    superstep: Count
    active: Count
    computed: Count
    sent: Count
    dropped: Count
    seconds: Seconds
    values: tuple[tuple[Short, float], ...] = ()


class EpochReport(Record, frozen=True, kw_only=True):
    """The value of a superstep attempt's result; its one blob is the partition's state.

    Args:
        superstep: the next one.
        over: the job has ended: this state is its result.
        why: how it ended, a sentence; "" while it goes on.
        vertices, edges: of the whole graph.
        rows: of this epoch's supersteps, the last `ROWS_MAX` of them (of partition 0 only).
        dropped: messages to unknown vertices so far, of the whole job.
    """

    superstep: Count
    over: bool = False
    why: Text = ""
    vertices: Count = 0
    edges: Count = 0
    rows: tuple[StepRow, ...] = ()
    dropped: Count = 0


class BuildReport(Record, frozen=True, kw_only=True):
    """The value of a build attempt's result; its blobs are the graph, if `graph`, then the state, if `state`."""

    graph: bool
    state: bool
    vertices: Count
    edges: Count
    bad: Count = 0


class OutputParams(Record, frozen=True, kw_only=True):
    """Told to an output attempt, beside its sources as in `EpochParams`. `superstep`: how many there were."""

    settings: Settings
    partition: Count
    graph: bool
    state: bool
    superstep: Count


def unpack_plan(data: bytes) -> tuple[VertexPlan, MapReducePlan | None]:
    """The plan in a plan blob, and its inputs, if there are any, checked.

    Raises:
        JobRejected: it makes no sense.
    """
    try:
        plan = msgspec.msgpack.decode(data, type=VertexPlan)
    except msgspec.DecodeError as error:
        raise JobRejected(f"The plan of the vertex job cannot be read: {error}.") from None
    if not 1 <= plan.version <= PLAN_VERSION:
        raise JobRejected(
            f"The plan has version {plan.version}, this node reads {PLAN_VERSION}: upgrade the older side."
        )
    inputs, settings = unpack_inputs(plan.inputs) if plan.inputs else None, plan.settings
    sound = (
        settings.form in FORMS
        and settings.unknown in UNKNOWN
        and settings.supersteps_max > 0
        and settings.partitions > 0
        and (inputs is None or inputs.partitions == settings.partitions)
        and (inputs is None or not (inputs.open or inputs.finish or inputs.sets or inputs.keys))
    )
    if not sound:
        raise JobRejected("The plan of the vertex job contradicts itself.")
    return plan, inputs
