"""What replicas of a job say to each other, over links. Instants never cross the wire.

::

    home    --StoreJob-->  member   persists, brings the job's plan here  --JobStored-->
    leader  --Append, Accept, Chosen, Beats-->  member  --Heard (serials), Accepted, Want (what it lacks)-->  leader
    candidate  --Prepare-->  member  --Batches that the candidate lacks, then Promise | Nack-->

Every message may be lost with its link; whatever matters is asked for again by `Beats` and `Want`, or sent again by
whoever waits for its answer. What comes twice changes nothing.
"""

from typing import TypeAlias

from p2premap.election.records import CellRecord, JobRecord, StoredBatch
from p2premap.ids import Ballot
from p2premap.wire import BootField, Count, JobIdField, Message, NodeIdField, Record, Short

VectorField: TypeAlias = tuple[tuple[Ballot, Count], ...]
"""How far each stream goes: (its ballot, its highest serial), lowest ballot first."""


class Beat(Record, frozen=True, kw_only=True):
    """A job that the sender leads.

    Args:
        serial: the last of the leader's own stream.
        cells: how many cells are chosen.
        copies: how many replicas hold the job, as far as the leader knows.
    """

    job: JobIdField
    ballot: Ballot
    serial: Count
    cells: Count
    copies: Count


class Ack(Record, frozen=True, kw_only=True):
    """What the sender has on disk of a job that the receiver leads.

    Args:
        serial: it has the leader's stream up to here, and all that came before it. None: not even its head.
        cells: of so many cells it knows that they are chosen.
        amnesiac: it may not vote in this epoch any more.
        copying: it does not have all inputs of the job yet.
        unwritable: its disk has not taken what was written last.
    """

    job: JobIdField
    ballot: Ballot
    serial: Count | None
    cells: Count
    amnesiac: bool = False
    copying: bool = False
    unwritable: bool = False


class ForkWaits(Message, tag=56, frozen=True, kw_only=True):
    """I know of a fork of this job, which comes home as soon as somebody leads the job."""

    job: JobIdField
    fork: JobIdField


class ForkFacts(Message, tag=57, frozen=True, kw_only=True):
    """Facts of a fork, for the leader of the job that it was forked from: the first of them has this number, from 0."""

    job: JobIdField
    fork: JobIdField
    number: Count
    facts: tuple[bytes, ...]


class ForkEnd(Message, tag=58, frozen=True, kw_only=True):
    """That was all: so many facts, and these cells that the fork has decided."""

    job: JobIdField
    fork: JobIdField
    count: Count
    cells: tuple[CellRecord, ...]


class ForkTaken(Message, tag=59, frozen=True, kw_only=True):
    """So many facts of the fork are now part of the job: if that is all, the fork is not needed any more."""

    job: JobIdField
    fork: JobIdField
    count: Count


class StoreJob(Message, tag=60, frozen=True, kw_only=True):
    """Be a replica of this job; `record.promised` is the ballot under which the sender leads or stands."""

    record: JobRecord


class JobStored(Message, tag=61, frozen=True, kw_only=True):
    """The job is on the sender's disk. `brought`: and so is all that it needs to end it."""

    job: JobIdField
    promised: Ballot
    boot: BootField
    brought: bool


class Beats(Message, tag=62, frozen=True, kw_only=True):
    """All jobs that the sender leads and in which the receiver has a part."""

    beats: tuple[Beat, ...]


class Heard(Message, tag=63, frozen=True, kw_only=True):
    """Answers `Beats`, `Append` and `Batches`, many at a time. `leaving`: the sender is about to go."""

    acks: tuple[Ack, ...]
    leaving: bool = False


class Want(Message, tag=64, frozen=True, kw_only=True):
    """Send me what I lack.

    Args:
        known: False: I know nothing of this job.
        vector, cells: what I have; the cells of which I know that they are chosen.
    """

    job: JobIdField
    known: bool
    vector: VectorField = ()
    cells: tuple[Short, ...] = ()


class Prepare(Message, tag=65, frozen=True, kw_only=True):
    """Promise me this ballot. `vector`: the facts that I have; send the others first."""

    job: JobIdField
    ballot: Ballot
    vector: VectorField


class Promise(Message, tag=66, frozen=True, kw_only=True):
    """I follow no lower ballot. These are my cells and my facts; those that you lacked have come before this."""

    job: JobIdField
    ballot: Ballot
    vector: VectorField
    cells: tuple[CellRecord, ...]


class Nack(Message, tag=67, frozen=True, kw_only=True):
    """I have promised a higher ballot: yours is over. `amnesiac`: I may not promise anything in this epoch."""

    job: JobIdField
    promised: Ballot
    amnesiac: bool = False


class Append(Message, tag=68, frozen=True, kw_only=True):
    """Batches of the leader's own stream, the first of them with this serial."""

    job: JobIdField
    ballot: Ballot
    serial: Count
    batches: tuple[bytes, ...]


class Batches(Message, tag=69, frozen=True, kw_only=True):
    """Batches of any streams of one job, in order of (ballot, serial), each with all that came before it."""

    batches: tuple[StoredBatch, ...]


class Accept(Message, tag=70, frozen=True, kw_only=True):
    """Accept this value for the cell under my ballot; it speaks of facts of my stream up to this serial."""

    job: JobIdField
    ballot: Ballot
    cell: Short
    value: bytes
    serial: Count


class Accepted(Message, tag=71, frozen=True, kw_only=True):
    """It is accepted, on disk."""

    job: JobIdField
    ballot: Ballot
    cell: Short


class Chosen(Message, tag=72, frozen=True, kw_only=True):
    """These cells of one job are decided, for ever."""

    cells: tuple[CellRecord, ...]


class Over(Message, tag=73, frozen=True, kw_only=True):
    """The job is over, and this is its last view. Also the answer to whoever asks about such a job."""

    job: JobIdField
    view: bytes


class Moved(Message, tag=74, frozen=True, kw_only=True):
    """The job's replica set is now this one, of the epoch `promised.epoch`; empty: there is no such job any more."""

    job: JobIdField
    promised: Ballot
    members: tuple[NodeIdField, ...]


class Boots(Message, tag=75, frozen=True, kw_only=True):
    """I have started. Which of my boots did you know, in each of these jobs? `former`: those that I remember."""

    boot: BootField
    jobs: tuple[JobIdField, ...]
    former: tuple[BootField, ...] = ()


class BootsKnown(Message, tag=76, frozen=True, kw_only=True):
    """Answers `Boots` of this boot: the last boot known before it, or it, of each job."""

    boot: BootField
    known: tuple[tuple[JobIdField, Count], ...]


class FindKey(Message, tag=77, frozen=True, kw_only=True):
    """Which job do you know under this submission key?"""

    request: Count
    key: bytes


class KeyFound(Message, tag=78, frozen=True, kw_only=True):
    """Answers `FindKey`; b"" is none. `spec`: what was submitted as that job."""

    request: Count
    job: bytes
    spec: bytes = b""


class StandNow(Message, tag=79, frozen=True, kw_only=True):
    """I lead this job and want to go: stand for it at once."""

    job: JobIdField


ElectionMessage: TypeAlias = (
    StoreJob | JobStored | Beats | Heard | Want | Prepare | Promise | Nack | Append | Batches
    | Accept | Accepted | Chosen | Over | Moved | Boots | BootsKnown | FindKey | KeyFound | StandNow
    | ForkWaits | ForkFacts | ForkEnd | ForkTaken
)  # fmt: skip

MESSAGES: tuple[type[Message], ...] = (
    StoreJob, JobStored, Beats, Heard, Want, Prepare, Promise, Nack, Append, Batches,
    Accept, Accepted, Chosen, Over, Moved, Boots, BootsKnown, FindKey, KeyFound, StandNow,
    ForkWaits, ForkFacts, ForkEnd, ForkTaken,
)  # fmt: skip
"""What this room adds to the links between members."""
