"""The facts of a job as batches of bytes, in the order in which its leader took them.

Theory of operation. What a leader learns and decides for itself about a job, it writes down as records; the records of
one step are one batch, which the replicas keep without understanding it. A successor reads all batches in the one
order that every leader uses, and arrives where its predecessor was (`p2premap.tasks.replay`): the first result of a
task is the one that would be pinned, and every deviation from that rule is a record of its own (`Chosen`). So a
manifest that a former leader had decided is the same at its successor, also where tasks are not deterministic.

What is written is what cannot be computed: results and failures (from outside), what became known of holders, choices
among results (they depend on who could be read at that moment), payloads of growing stages, and marks: here the results
of a stage were pinned, here the job was cancelled, here it was found to have failed, here a new leader began. The
order of results in a batch is that in which they were taken.

A batch is one CBOR array: version, age of the job in seconds, records. A group of results is a few packed arrays
(little-endian), and less where all are alike: a thousand tasks that yielded nothing take 60 bytes.

Batches come from other nodes and from disk: `decode` refuses whatever is not exactly this, and its arrays are checked
against each other. Whether a record makes sense for the job is the reader's to judge.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

import cbor2
import msgspec

from p2premap.errors import RemoteProtocolError
from p2premap.ids import Digest, NodeId
from p2premap.tasks.job import RESULT_BLOBS_MAX, AttemptEnd, BlobRef, Outcome, StageId
from p2premap.wire import Count, NodeIdField, Record, Seconds, Short, Text, decode_cbor

VERSION: Final = 1

RESULTS_MAX: Final = 1 << 22
"""Results of one record; a report of a worker has far fewer."""

_U32: Final = 2**32 - 1
_BLOBS: Final = struct.Struct("<IH")
_BLOB: Final = struct.Struct("<32sQ")

Small = Annotated[int, msgspec.Meta(ge=0, le=_U32)]


class Results(Record, tag=1, frozen=True, kw_only=True):
    """Attempts at one node yielded results.

    Args:
        count: how many.
        first: the first task; the others follow it, unless `tasks` (u32 each) names them all.
        attempt: of all, unless `attempts` (u32 each) names them.
        value: of all, or, with `sizes` (u32 each), all values one after the other.
        records_out: of all, unless `records` (u64 each) names them.
        blobs: packed: index (u32), number of blobs (u16), then digest and size (u64) of each.
        seconds, spilled: of all attempts together; see `p2premap.tasks.job.AttemptEnd`.
    """

    stage: StageId
    node: NodeIdField
    count: Annotated[int, msgspec.Meta(ge=1, le=RESULTS_MAX)]
    first: Small
    attempt: Small
    value: bytes
    records_out: Count
    seconds: Seconds
    tasks: bytes = b""
    attempts: bytes = b""
    sizes: bytes = b""
    records: bytes = b""
    blobs: bytes = b""
    spilled: Count = 0


class Failed(Record, tag=2, frozen=True, kw_only=True):
    """An attempt ended without a result, and that counts.

    Args:
        value: what it carried, such as an exception for whoever waits for the task.
        answer: it is the task's answer: the task is not tried again, and the job goes on.
    """

    stage: StageId
    task: Small
    attempt: Small
    node: NodeIdField
    outcome: Outcome
    error: Text
    detail: Text
    value: bytes = b""
    answer: bool = False


class Chosen(Record, tag=3, frozen=True, kw_only=True):
    """In this generation of the stage another result of the task is taken than the first. One generation on: anew."""

    stage: StageId
    generation: Small
    task: Small
    attempt: Small
    node: NodeIdField


class Held(Record, tag=4, frozen=True, kw_only=True):
    """`holder` has the blobs of the result that this attempt at `node` yielded."""

    stage: StageId
    task: Small
    attempt: Small
    node: NodeIdField
    holder: NodeIdField


class Extended(Record, tag=5, frozen=True, kw_only=True):
    """The open stage was given more."""

    payload: bytes


class Pin(Record, tag=6, frozen=True, kw_only=True):
    """Here every task of the stage has the result that is to be pinned."""

    stage: StageId
    generation: Small


class Cancelled(Record, tag=7, frozen=True, kw_only=True):
    """Somebody asked to end the job."""

    reason: Text


class Ending(Record, tag=8, frozen=True, kw_only=True):
    """The job has failed, as far as the leader goes; what cell ``final`` says counts."""

    error: Text
    detail: Text


class Term(Record, tag=9, frozen=True, kw_only=True):
    """A new leader begins."""

    leader: NodeIdField


class Named(Record, tag=10, frozen=True, kw_only=True):
    """What a node that has worked for the job is called."""

    node: NodeIdField
    name: Short


class Lost(Record, tag=11, frozen=True, kw_only=True):
    """So many attempts ran on a node that was lost; it cost their tasks nothing, and people like to know."""

    stage: StageId
    attempts: Small


class Said(Record, tag=12, frozen=True, kw_only=True):
    """What an attempt printed last that yielded a result (`p2premap.tasks.words`)."""

    stage: StageId
    task: Small
    attempt: Small
    node: NodeIdField
    text: Text


Fact: TypeAlias = Results | Failed | Chosen | Held | Extended | Pin | Cancelled | Ending | Term | Named | Lost | Said


class Batch(NamedTuple):
    """One batch.

    Args:
        age_s: of the job, when it was written.
    """

    age_s: float
    facts: tuple[Fact, ...]


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    version: Literal[1]
    age_s: Seconds
    facts: tuple[Fact, ...]


def encode(age_s: float, facts: Sequence[Fact]) -> bytes:
    """These facts as a batch."""
    data: bytes = cbor2.dumps((VERSION, age_s, [msgspec.to_builtins(f, builtin_types=(bytes,)) for f in facts]))
    return data


def decode(data: bytes) -> Batch:
    """The facts of a batch, in order.

    Raises:
        RemoteProtocolError: it is not a batch of this version.
    """
    try:
        wire = msgspec.convert(decode_cbor(data), _Wire, builtin_types=(bytes,))
    except (msgspec.ValidationError, OverflowError) as error:
        raise RemoteProtocolError(f"not a batch of facts: {error}") from None
    for fact in wire.facts:
        if isinstance(fact, Results):
            _check(fact)
    return Batch(wire.age_s, wire.facts)


def results(stage: StageId, node: NodeId, ends: Sequence[AttemptEnd]) -> Results:
    """The fact that these attempts, which are DONE, yielded what they did; at least one."""
    count, one = len(ends), ends[0]
    first = one.task
    tasks = array("I", [e.task for e in ends])
    attempts = array("I", [e.attempt for e in ends])
    values = [e.value for e in ends]
    records = [e.records_out for e in ends]
    same_value = values.count(one.value) == count
    return Results(
        stage=stage,
        node=node,
        count=count,
        first=first,
        attempt=one.attempt,
        value=one.value if same_value else b"".join(values),
        records_out=one.records_out,
        seconds=sum([e.seconds for e in ends]),
        tasks=b"" if _is_range(tasks) else _pack(tasks),
        attempts=b"" if attempts.count(one.attempt) == count else _pack(attempts),
        sizes=b"" if same_value else _pack(array("I", [len(v) for v in values])),
        records=b"" if records.count(one.records_out) == count else _pack(array("Q", records)),
        blobs=b"".join([_pack_blobs(i, e.blobs) for i, e in enumerate(ends) if e.blobs]),
        spilled=sum([e.spill.bytes for e in ends if e.spill is not None]),
    )


class Columns(NamedTuple):
    """The results of a `Results`, in order; `blobs` by index of those that have any."""

    tasks: Sequence[int]
    attempts: Sequence[int]
    values: Sequence[bytes]
    records_out: Sequence[int]
    blobs: dict[int, tuple[BlobRef, ...]]


def columns(fact: Results) -> Columns:
    """The results one by one."""
    count = fact.count
    values: list[bytes] = [fact.value] * count
    if fact.sizes:
        end = 0
        for index, size in enumerate(_unpack("I", fact.sizes)):
            values[index] = fact.value[end : end + size]
            end += size
    return Columns(
        _unpack("I", fact.tasks) if fact.tasks else range(fact.first, fact.first + count),
        _unpack("I", fact.attempts) if fact.attempts else [fact.attempt] * count,
        values,
        _unpack("Q", fact.records) if fact.records else [fact.records_out] * count,
        dict(_unpack_blobs(fact.blobs)),
    )


def blobs_of(fact: Results) -> list[BlobRef]:
    """All of them."""
    return [blob for _, blobs in _unpack_blobs(fact.blobs) for blob in blobs]


def _check(fact: Results) -> None:
    """Raises: RemoteProtocolError: the arrays contradict each other."""
    for packed, each in ((fact.tasks, 4), (fact.attempts, 4), (fact.sizes, 4), (fact.records, 8)):
        if packed and len(packed) != fact.count * each:
            raise RemoteProtocolError("not a batch of facts: an array of results has the wrong length")
    if fact.sizes and sum(_unpack("I", fact.sizes)) != len(fact.value):
        raise RemoteProtocolError("not a batch of facts: the sizes of values do not add up")
    last = -1
    try:
        for index, _ in _unpack_blobs(fact.blobs):
            if not last < index < fact.count:
                raise RemoteProtocolError("not a batch of facts: blobs of no result")
            last = index
    except struct.error:
        raise RemoteProtocolError("not a batch of facts: its blobs are cut short") from None


def _is_range(tasks: array[int]) -> bool:
    """Whether they are consecutive."""
    return tasks[-1] - tasks[0] == len(tasks) - 1 and tasks.tolist() == list(range(tasks[0], tasks[0] + len(tasks)))


def _pack(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _unpack(code: Literal["I", "Q"], data: bytes) -> array[int]:
    numbers = array(code, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _pack_blobs(index: int, blobs: tuple[BlobRef, ...]) -> bytes:
    return _BLOBS.pack(index, len(blobs)) + b"".join([_BLOB.pack(b.digest, b.size) for b in blobs])


def _unpack_blobs(packed: bytes) -> list[tuple[int, tuple[BlobRef, ...]]]:
    """Raises: struct.error: cut short."""
    found: list[tuple[int, tuple[BlobRef, ...]]] = []
    at = 0
    while at < len(packed):
        index, count = _BLOBS.unpack_from(packed, at)
        at += _BLOBS.size
        if count > RESULT_BLOBS_MAX:
            raise struct.error("more blobs than a result has")
        blobs = []
        for _ in range(count):
            digest, size = _BLOB.unpack_from(packed, at)
            blobs.append(BlobRef(digest=Digest(digest), size=size))
            at += _BLOB.size
        found.append((index, tuple(blobs)))
    return found
