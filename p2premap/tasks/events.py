"""What the cores of this room are told, and what they ask for.

Two cores live here: a `Coordinator` for each job that this node leads, and one `WorkerCore` for this node's slots.
They talk to each other by messages even on one node; `p2premap.node.core` carries those without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from p2premap.ids import JobId, NodeId
from p2premap.tasks.job import AttemptEnd, AttemptSpec, JobView, Limits, Source, StageId
from p2premap.wire import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The deadline that the core asked for has come."""


# --- coordinator --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A member can take work (again): new, back, or its capacity changed.

    Args:
        slots: how many worker processes its owner allows.
        machine: a hash of the machine it runs on: blobs on the same machine need no network.
    """

    node: NodeId
    name: str
    slots: int
    machine: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDoubtful:
    """A member is stalled or suspected: give it nothing new, and take nothing from it yet."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A member is dead or has left: its attempts run elsewhere, and cost their tasks nothing."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUnlinked:
    """The link to a member broke: what was under way between it and this node may be lost."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class FromWorker:
    """A worker node says something about this job."""

    node: NodeId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJob:
    """Somebody asked to end the job."""

    reason: str


CoordinatorEvent: TypeAlias = Tick | WorkerSeen | WorkerDoubtful | WorkerLost | WorkerUnlinked | FromWorker | CancelJob


@dataclass(frozen=True, slots=True, kw_only=True)
class ToWorker:
    """Send to a worker node (this node itself included)."""

    node: NodeId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    """Something that watchers would like to know has changed (rate-limited by the core; always sent at the end)."""

    job: JobId
    view: JobView


CoordinatorEffect: TypeAlias = ToWorker | JobChanged


# --- worker -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FromLeader:
    """A job's leader says something."""

    node: NodeId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderLost:
    """A leader is dead: without failover, what runs for its jobs is stopped."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReported:
    """Attempts of a slot's batch ended.

    Args:
        batch_over: every attempt of the batch at the head of this slot's queue has now been reported.
    """

    slot: int
    ends: tuple[AttemptEnd, ...]
    batch_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSlots:
    """The owner allows this many worker processes from now on."""

    slots: int


WorkerEvent: TypeAlias = Tick | FromLeader | LeaderLost | SlotReported | SetSlots


@dataclass(frozen=True, slots=True, kw_only=True)
class ToLeader:
    """Send to a job's leader (this node itself included)."""

    node: NodeId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """Bring the sources here and run the attempts one after the other in this slot's process.

    A slot may be given a second batch while it runs the first: its sources are fetched meanwhile, and it starts
    without a pause. Every attempt is answered exactly once in `SlotReported`, whatever happens to the process.
    """

    slot: int
    job: JobId
    stage: StageId
    runtime: str
    function: str
    code: Source
    limits: Limits
    attempts: tuple[AttemptSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSlot:
    """Kill the process tree of the slot: a soft signal first, then after `grace_s` the hard one.

    What had not ended of the batch at the head of its queue comes back as STOPPED; a queued batch goes on.
    """

    slot: int
    grace_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndJob:
    """End the job's idle worker processes and remove its scratch files."""

    job: JobId


WorkerEffect: TypeAlias = ToLeader | RunBatch | StopSlot | EndJob
