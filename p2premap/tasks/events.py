"""What the cores of this room are told, and what they ask for.

Two cores live here: a `Coordinator` for each job that this node leads, and one `WorkerCore` for this node's slots.
They talk to each other by messages even on one node; `p2premap.node.core` carries those without a network.
"""

from __future__ import annotations

from typing import TypeAlias

from p2premap.config import OwnerLimits
from p2premap.event import Event
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks.job import AttemptEnd, AttemptSpec, JobView, Limits, Source, StageId
from p2premap.tasks.meeting import Meeting
from p2premap.tasks.placement import Facts
from p2premap.wire import Message


class Tick(Event, frozen=True, kw_only=True):
    """The deadline that the core asked for has come."""


# --- coordinator --------------------------------------------------------------------------------------------------


class WorkerSeen(Event, frozen=True, kw_only=True):
    """A member can take work (again): new, back, or its capacity changed.

    Args:
        slots: how many worker processes its owner allows.
        machine: a hash of the machine it runs on: blobs on the same machine need no network.
        facts: what it has that jobs may require.
        doubtful: it is there, and `WorkerDoubtful` at once.
    """

    node: NodeId
    name: str
    slots: int
    machine: bytes
    doubtful: bool = False
    facts: Facts = Facts()


class WorkerDoubtful(Event, frozen=True, kw_only=True):
    """A member is stalled or suspected: give it nothing new, and take nothing from it yet."""

    node: NodeId


class WorkerLost(Event, frozen=True, kw_only=True):
    """A member is dead or has left: its attempts run elsewhere, and cost their tasks nothing."""

    node: NodeId


class WorkerUnlinked(Event, frozen=True, kw_only=True):
    """The link to a member broke: what was under way between it and this node may be lost."""

    node: NodeId


class Woke(Event, frozen=True, kw_only=True):
    """This process did not run for a while: nobody's silence in that time counts against them."""

    lost_s: float


class FromWorker(Event, frozen=True, kw_only=True):
    """A worker node says something about this job."""

    node: NodeId
    message: Message


class CancelJob(Event, frozen=True, kw_only=True):
    """Somebody asked to end the job."""

    reason: str


class CalledBack(Event, frozen=True, kw_only=True):
    """Answers `CallBack`.

    Args:
        status: of HTTP; 0: nobody answered.
        error: then, why.
    """

    status: int
    error: str = ""


class CellDecided(Event, frozen=True, kw_only=True):
    """A cell of the job has a value, for ever; maybe another one than was proposed."""

    cell: str
    value: bytes


class FactsProtected(Event, frozen=True, kw_only=True):
    """A quorum of replicas holds every `AppendFacts` of this leader up to the `serial`-th, and all facts before it."""

    serial: int


class Extend(Event, frozen=True, kw_only=True):
    """More tasks for the open stage; answered by `Extended` when the payload is protected.

    Args:
        payload: opaque here; the director understands it.
        request: repeated in the answer.
    """

    payload: bytes
    request: int = 0


class Retell(Event, frozen=True, kw_only=True):
    """Whoever waits for single tasks has come anew: say `TasksEnded` again, of tasks from this number on."""

    first: int


class ReplicasKnown(Event, frozen=True, kw_only=True):
    """What the election room says of the job's replicas; shown to people.

    Args:
        copies: replicas that have it on disk.
        fork: this is a fork of the job that is named; "": it is none.
    """

    copies: int
    note: str = ""
    fork: str = ""


CoordinatorEvent: TypeAlias = (
    Tick
    | WorkerSeen
    | WorkerDoubtful
    | WorkerLost
    | WorkerUnlinked
    | Woke
    | FromWorker
    | CancelJob
    | CalledBack
    | CellDecided
    | FactsProtected
    | Extend
    | Retell
    | ReplicasKnown
)


class ToWorker(Event, frozen=True, kw_only=True):
    """Send to a worker node (this node itself included)."""

    node: NodeId
    message: Message


class JobChanged(Event, frozen=True, kw_only=True):
    """Something that watchers would like to know has changed (rate-limited by the core; always sent at the end)."""

    job: JobId
    view: JobView


class ProposeCell(Event, frozen=True, kw_only=True):
    """Have a cell of the job decided; answered by `CellDecided`, as long as this node leads the job."""

    job: JobId
    cell: str
    value: bytes


class AppendFacts(Event, frozen=True, kw_only=True):
    """Replicate the next batch of facts (`p2premap.tasks.journal`); at most one a step, numbered 1, 2, 3... by order.

    `FactsProtected` says when a quorum has it.
    """

    job: JobId
    batch: bytes


class TasksEnded(Event, frozen=True, kw_only=True):
    """For whoever waits for single tasks: these have their answer (`Director.streams`).

    Args:
        node: holds the blobs of the results.
        ends: DONE, or the failure that is the task's answer.
    """

    job: JobId
    stage: StageId
    node: NodeId
    ends: tuple[AttemptEnd, ...]


class Extended(Event, frozen=True, kw_only=True):
    """Answers `Extend`: a quorum has the payload, or `error` says in one sentence why it was refused.

    Args:
        first: the number of the first task that came of it.
        tasks: how many came of it.
    """

    job: JobId
    request: int
    stage: StageId
    first: int
    tasks: int
    error: str = ""


class CallBack(Event, frozen=True, kw_only=True):
    """Tell somebody outside that the job is over; answered by `CalledBack`.

    Args:
        secret: signs it; "": nothing does.
        key: the same each time this end is told.
        view: the last one.
    """

    job: JobId
    url: str
    secret: str
    key: str
    view: JobView


class RemoveJob(Event, frozen=True, kw_only=True):
    """Nobody needs the job any more, nor its results: it is about to be concluded, and may then be removed."""

    job: JobId


class Conclude(Event, frozen=True, kw_only=True):
    """The job is over, ``final`` is decided and everything is told: this is its last view, with every part."""

    job: JobId
    view: JobView


CoordinatorEffect: TypeAlias = (
    ToWorker | JobChanged | ProposeCell | AppendFacts | TasksEnded | Extended | CallBack | RemoveJob | Conclude
)


# --- worker -------------------------------------------------------------------------------------------------------


class FromLeader(Event, frozen=True, kw_only=True):
    """A job's leader says something."""

    node: NodeId
    message: Message


class LeaderLost(Event, frozen=True, kw_only=True):
    """A leader is dead: without failover, what runs for its jobs is stopped."""

    node: NodeId


class JobForked(Event, frozen=True, kw_only=True):
    """The job goes on as its fork `fork`, as far as this node can see. Ignored while it is led."""

    job: JobId
    fork: JobId


class SlotReported(Event, frozen=True, kw_only=True):
    """Attempts of a slot's batch ended.

    Args:
        batch_over: every attempt of the batch has now been reported.
        batch: its number; 0: the one at the head of this slot's queue.
    """

    slot: int
    ends: tuple[AttemptEnd, ...]
    batch_over: bool
    batch: int = 0


class AttemptWaits(Event, frozen=True, kw_only=True):
    """The batch at the head of the slot is down to one attempt, and that one waits for other tasks of the cluster.

    Its process stands aside from now on, and the slot goes on with its next batch: whoever waits gives its place to
    those that it waits for. Said of a batch that stands aside already, it waits again.
    """

    slot: int
    batch: int


class AttemptGoesOn(Event, frozen=True, kw_only=True):
    """What an attempt that stands aside has waited for is there: it runs again, beside what the slots run."""

    slot: int
    batch: int


class SetSlots(Event, frozen=True, kw_only=True):
    """The owner allows this many worker processes from now on."""

    slots: int


class SetLimits(Event, frozen=True, kw_only=True):
    """The owner keeps something of the machine for other things from now on; `MachineNow` then says how it is."""

    limits: OwnerLimits


class MachineNow(Event, frozen=True, kw_only=True):
    """How the machine is; once a second, where the owner has set limits.

    Args:
        cpus: that it has.
        others_cpus: CPUs that programs use which this node has not started, on average since the last time.
        memory_free_bytes: what programs could still take.
        user_active: somebody has typed in the last minutes.
    """

    cpus: int
    others_cpus: float
    memory_free_bytes: int
    on_battery: bool
    user_active: bool


class StopTaking(Event, frozen=True, kw_only=True):
    """This node is about to go: it takes no more batches, of any job. `again`: it stays after all."""

    again: bool = False


class EnvironmentTold(Event, frozen=True, kw_only=True):
    """An environment is there (`ready`), cannot be made (`error` is half a sentence), or has been removed (neither)."""

    digest: Digest
    ready: bool = False
    error: str = ""


WorkerEvent: TypeAlias = (
    Tick
    | FromLeader
    | LeaderLost
    | JobForked
    | SlotReported
    | AttemptWaits
    | AttemptGoesOn
    | SetSlots
    | SetLimits
    | MachineNow
    | StopTaking
    | EnvironmentTold
)


class ToLeader(Event, frozen=True, kw_only=True):
    """Send to a job's leader (this node itself included)."""

    node: NodeId
    message: Message


class RunBatch(Event, frozen=True, kw_only=True):
    """Bring the sources here and run the attempts one after the other in this slot's process.

    A slot may be given a second batch while it runs the first: its sources are fetched meanwhile, and it starts
    without a pause. Every attempt is answered exactly once in `SlotReported`, whatever happens to the process.

    Args:
        batch: its number, of which this core never gives another; for `StopSlot`.
        environment: in which the process runs, by the digest of its lock; None: the node's own.
        meeting: the attempts run all at once and not one after the other, together with those of other batches; how
            one ends without a result, all do.
    """

    slot: int
    batch: int
    job: JobId
    stage: StageId
    runtime: str
    function: str
    code: Source
    limits: Limits
    attempts: tuple[AttemptSpec, ...]
    environment: Digest | None = None
    meeting: Meeting | None = None


class StopSlot(Event, frozen=True, kw_only=True):
    """End a batch of the slot; if it runs, its process tree: a soft signal first, then after `grace_s` the hard one.

    What had not ended of the batch comes back as STOPPED; the slot's other batch goes on. A batch whose end is
    already reported, while the core has not heard it yet, is left alone: so is whichever came after it.
    """

    slot: int
    batch: int
    grace_s: float
    reason: str


class EndJob(Event, frozen=True, kw_only=True):
    """End the job's idle worker processes and remove its scratch files."""

    job: JobId


class MakeEnvironment(Event, frozen=True, kw_only=True):
    """Have the environment of this lock here; answered by `EnvironmentTold`, at once or after minutes."""

    lock: Source


WorkerEffect: TypeAlias = ToLeader | RunBatch | StopSlot | EndJob | MakeEnvironment
