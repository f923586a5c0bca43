"""What a replica keeps on disk: the only memory of its promises.

A record replaces the one before it with the same key: of a job, of a (job, cell), of a (job, ballot, serial).
"""

from typing import NamedTuple, TypeAlias

from p2premap.ids import Ballot, JobId
from p2premap.wire import Count, JobIdField, NodeIdField, Record, Short


class JobRecord(Record, frozen=True, kw_only=True):
    """A job at one replica.

    Args:
        key: the client's submission key.
        spec: opaque here.
        members: the replica set of the epoch `ballot.epoch`.
        promised: no lower ballot is followed.
        acknowledged: a client may have been told that the job exists.
        origin: of a fork, the job that it was forked from; b"" else.
        view: the last view of a job that is over; b"" else.
        gone: this node is not a replica any more (a tombstone).
        boots: the last boot heard of each member, in the order of `members`.
        amnesiac: this replica may have forgotten what it promised in this epoch; it is silent until the next.
    """

    job: JobIdField
    key: bytes
    spec: bytes
    members: tuple[NodeIdField, ...]
    promised: Ballot
    strict: bool = False
    copies: Count = 3
    acknowledged: bool = False
    origin: bytes = b""
    view: bytes = b""
    gone: bool = False
    boots: tuple[Count, ...] = ()
    amnesiac: bool = False


class CellRecord(Record, frozen=True, kw_only=True):
    """A cell at one replica.

    Args:
        ballot: under which the value was accepted.
        chosen: it is decided.
        serial: the value speaks of no facts beyond this one of that ballot's stream.
    """

    job: JobIdField
    cell: Short
    ballot: Ballot
    value: bytes
    chosen: bool = False
    serial: Count = 0


class StoredBatch(Record, frozen=True, kw_only=True):
    """One fact batch of the stream of one ballot. Serial 0 is the stream's head, written by the election room."""

    job: JobIdField
    ballot: Ballot
    serial: Count
    batch: bytes


class ForgetBatches(Record, frozen=True, kw_only=True):
    """Remove all batches and cells of this job."""

    job: JobIdField


class ForgetJob(Record, frozen=True, kw_only=True):
    """Remove everything about this job."""

    job: JobIdField


StoredRecord: TypeAlias = JobRecord | CellRecord | StoredBatch | ForgetBatches | ForgetJob


class StoredStream(NamedTuple):
    """How far one stream goes on this disk: serials 0 to `serial`, all of them. `head` is the batch of serial 0."""

    job: JobId
    ballot: Ballot
    serial: int
    head: bytes


class Stored(Record, frozen=True, kw_only=True):
    """What a replica finds on its disk when it starts."""

    jobs: tuple[JobRecord, ...] = ()
    cells: tuple[CellRecord, ...] = ()
    streams: tuple[StoredStream, ...] = ()
