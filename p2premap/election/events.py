"""What the election core is told, and what it asks for. See `p2premap.election.core` for the theory of operation.

The core keeps, for every job of which this node is a replica: the ballot it has promised, the cells, and the streams
of fact batches. What is in a spec, a cell's value or a batch is opaque here; the task room writes and reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from p2premap.election.records import JobRecord, StoredBatch, StoredRecord
from p2premap.event import Event
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.wire import Message

# --- events -------------------------------------------------------------------------------------------------------


class Tick(Event, frozen=True, kw_only=True):
    """The deadline that the core asked for has come."""


class Woke(Event, frozen=True, kw_only=True):
    """This process did not run for so long: nobody was silent in that time."""

    lost_s: float


class FromReplica(Event, frozen=True, kw_only=True):
    """Another node says something about a job's ledger."""

    node: NodeId
    message: Message


class PeerSeen(Event, frozen=True, kw_only=True):
    """A member is alive (again), in this life of it."""

    node: NodeId
    boot: Boot


class PeerDoubtful(Event, frozen=True, kw_only=True):
    """A member is stalled or suspected."""

    node: NodeId


class PeerGone(Event, frozen=True, kw_only=True):
    """A member is dead or has left.

    Args:
        certain: its process is gone for certain (it left, or everybody is refused at its addresses), not merely silent.
    """

    node: NodeId
    certain: bool = False


class PeerUnlinked(Event, frozen=True, kw_only=True):
    """The link to a member broke or was replaced: what was under way on it may be lost."""

    node: NodeId


class CreateJob(Event, frozen=True, kw_only=True):
    """Make this node the home of a new job. Answered by one `Created` or `CreateFailed` of the same request.

    Args:
        job: its id, bound to `members`.
        members: the first replica set; this node first.
        key: the client's submission key.
        spec: opaque here.
    """

    request: int
    job: JobId
    members: tuple[NodeId, ...]
    key: bytes
    spec: bytes
    strict: bool = False
    copies: int = 3


class Brought(Event, frozen=True, kw_only=True):
    """Answers `Bring`.

    Args:
        error: one sentence, or "" where the job can be led from here.
        copying: it can, but its inputs are not all here yet; another `Brought` follows when they are.
    """

    job: JobId
    error: str = ""
    copying: bool = False


class Propose(Event, frozen=True, kw_only=True):
    """The job's leader on this node asks for a cell to be decided. Ignored where this node does not lead."""

    job: JobId
    cell: str
    value: bytes


class Append(Event, frozen=True, kw_only=True):
    """The job's leader on this node has new facts: the next batch of its stream (numbered 1, 2, 3... a ballot)."""

    job: JobId
    batch: bytes


class Conclude(Event, frozen=True, kw_only=True):
    """The job's ``final`` is decided and this is its last view: to be kept by all replicas, in place of its facts."""

    job: JobId
    view: bytes


class HandOver(Event, frozen=True, kw_only=True):
    """This node is about to go: have every job that it leads led by another replica, and its places refilled."""


class StepDown(Event, frozen=True, kw_only=True):
    """This node cannot lead the job (its plan cannot be had here): another replica must, and this one does not stand.

    Args:
        reason: one sentence, for people.
    """

    job: JobId
    reason: str


class FindJob(Event, frozen=True, kw_only=True):
    """Which job is known under this submission key, here or at any living member? Answered by one `KeyAnswer`."""

    request: int
    key: bytes


class AcceptFork(Event, frozen=True, kw_only=True):
    """A user makes this fork the job: the original lineage counts no more (`p2premap jobs accept FORK`)."""

    job: JobId


class Forget(Event, frozen=True, kw_only=True):
    """Nobody needs this concluded job any more."""

    job: JobId


class Persisted(Event, frozen=True, kw_only=True):
    """Everything up to this `Persist` is on disk (cells: synced)."""

    token: int


class PersistFailed(Event, frozen=True, kw_only=True):
    """It is not, such as for a full disk; nothing that was written later is either. `text` is one sentence."""

    token: int
    text: str


class BatchesLoaded(Event, frozen=True, kw_only=True):
    """Answers `LoadBatches`, in order of (ballot, serial)."""

    token: int
    batches: tuple[StoredBatch, ...]


ElectionEvent: TypeAlias = (
    Tick
    | Woke
    | FromReplica
    | PeerSeen
    | PeerDoubtful
    | PeerGone
    | PeerUnlinked
    | CreateJob
    | Brought
    | Propose
    | Append
    | Conclude
    | HandOver
    | StepDown
    | FindJob
    | AcceptFork
    | Forget
    | Persisted
    | PersistFailed
    | BatchesLoaded
)


# --- effects ------------------------------------------------------------------------------------------------------


class ToReplica(Event, frozen=True, kw_only=True):
    """Send over the link to another node; lost where there is none."""

    node: NodeId
    message: Message


class Persist(Event, frozen=True, kw_only=True):
    """Write these, in this order, all or nothing; answered by `Persisted` or `PersistFailed`.

    Args:
        token: 1, 2, 3...; writes are answered in order.
        sync: it holds promises, cells or configurations: must be on the platter before it is answered.
    """

    token: int
    records: tuple[StoredRecord, ...]
    sync: bool


class LoadBatches(Event, frozen=True, kw_only=True):
    """Read the batches of this job's streams with a serial above `beyond[ballot]` (0 where it is not named)."""

    token: int
    job: JobId
    beyond: Mapping[Ballot, int]


class Bring(Event, frozen=True, kw_only=True):
    """Bring here what this node needs to lead the job (its plan, its code, small inputs); answered by `Brought`.

    Args:
        source: who has it.
    """

    job: JobId
    spec: bytes
    source: NodeId


class Created(Event, frozen=True, kw_only=True):
    """The job exists. `copies`: replicas that have it on disk, this one included."""

    request: int
    job: JobId
    copies: int


class CreateFailed(Event, frozen=True, kw_only=True):
    """It does not. `text` is one sentence."""

    request: int
    text: str


class KeyAnswer(Event, frozen=True, kw_only=True):
    """Answers `FindJob` of the same request.

    Args:
        job: None: nobody who answered within a round knows one.
        spec: what was submitted as that job (`CreateJob.spec`), where whoever knows the job has told it.
    """

    request: int
    job: JobId | None
    spec: bytes = b""


class Lead(Event, frozen=True, kw_only=True):
    """This node leads the job from now on.

    Args:
        record: its configuration.
        ballot: under which it leads.
        decided: the cells that are decided so far.
        history: every fact batch, in the order in which each leader so far has applied them.
    """

    job: JobId
    record: JobRecord
    ballot: Ballot
    decided: Mapping[str, bytes]
    history: tuple[bytes, ...]


class Deposed(Event, frozen=True, kw_only=True):
    """This node does not lead the job any more, or never again. Orders under its ballot would be refused."""

    job: JobId


class Decided(Event, frozen=True, kw_only=True):
    """A cell has a value, for ever. Told to the leader, and at every replica."""

    job: JobId
    cell: str
    value: bytes


class Protected(Event, frozen=True, kw_only=True):
    """A quorum holds this leader's stream up to this serial, and all that came before its ballot."""

    job: JobId
    serial: int


class LeaderKnown(Event, frozen=True, kw_only=True):
    """Who leads a job of which this node is a replica; None: nobody, for now. `note` says what it waits for, or ""."""

    job: JobId
    leader: NodeId | None
    copies: int
    note: str = ""
    fork: str = ""


class Concluded(Event, frozen=True, kw_only=True):
    """The job is over and this is its last view; its streams are gone from this replica."""

    job: JobId
    view: bytes


class Forked(Event, frozen=True, kw_only=True):
    """Here is a fork of `origin`, which this node leads as the job `job`."""

    job: JobId
    origin: JobId


class Dropped(Event, frozen=True, kw_only=True):
    """This node is not a replica of the job any more."""

    job: JobId


ElectionEffect: TypeAlias = (
    ToReplica
    | Persist
    | LoadBatches
    | Bring
    | Created
    | CreateFailed
    | KeyAnswer
    | Lead
    | Deposed
    | Decided
    | Protected
    | LeaderKnown
    | Concluded
    | Forked
    | Dropped
)
