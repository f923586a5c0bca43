"""What the node's core is told by its shell, and what it asks of it, beside what the rooms' own events say."""

from __future__ import annotations

from typing import TypeAlias

from p2premap.election import events as election
from p2premap.event import Event
from p2premap.gossip import events as gossip
from p2premap.ids import Digest, JobId, NodeId
from p2premap.node.software import Software
from p2premap.ports import FrameReceived
from p2premap.tasks import events as tasks
from p2premap.tasks import messages
from p2premap.tasks.job import BlobRef, JobSpec

# --- events -------------------------------------------------------------------------------------------------------


class Tick(Event, frozen=True, kw_only=True):
    """The deadline that the core asked for has come."""


class SubmitJob(Event, frozen=True, kw_only=True):
    """A client hands in a job. Answered by one `JobAccepted` or `JobRefused` with the same request.

    Args:
        request: chosen by the shell.
        plan: the bytes of `spec.plan`, whose digest the shell has checked.
        files: absolute paths on this machine that the job's attempts may read.
        wall_s: when, by this machine's clock, in seconds since 1970.
        again: it may have been handed in before, elsewhere: the others are asked whether they know its key.
    """

    request: int
    spec: JobSpec
    plan: bytes
    files: tuple[str, ...] = ()
    again: bool = False
    wall_s: float = 0.0


class SoftwareKnown(Event, frozen=True, kw_only=True):
    """What is installed on this node."""

    software: Software


class CalledBack(Event, frozen=True, kw_only=True):
    """Answers `tasks.CallBack`; see `tasks.CalledBack`."""

    job: JobId
    status: int
    error: str = ""


class RefuseActions(Event, frozen=True, kw_only=True):
    """The owner has this node run no tasks of these actions from now on."""

    actions: tuple[str, ...]


class CancelJob(Event, frozen=True, kw_only=True):
    """End a job that is led here; others are not known, and nothing happens."""

    job: JobId
    reason: str


class ExtendJob(Event, frozen=True, kw_only=True):
    """More tasks for a growing job that is led here; else nothing happens. Answered by `tasks.Extended`."""

    job: JobId
    payload: bytes
    request: int


class RetellEnds(Event, frozen=True, kw_only=True):
    """Whoever waits for single tasks of a job that is led here has come anew: see `tasks.Retell`."""

    job: JobId
    first: int


class PlanRead(Event, frozen=True, kw_only=True):
    """Answers `ReadPlan`. `error` is one sentence, or "" where `plan` is the plan."""

    job: JobId
    plan: bytes = b""
    error: str = ""


class BlobsKept(Event, frozen=True, kw_only=True):
    """Answers `KeepBlobs`."""

    node: NodeId
    kept: messages.Kept


NodeEvent: TypeAlias = (
    Tick
    | FrameReceived
    | SubmitJob
    | CancelJob
    | ExtendJob
    | RetellEnds
    | PlanRead
    | BlobsKept
    | SoftwareKnown
    | RefuseActions
    | CalledBack
    | tasks.SlotReported
    | tasks.AttemptWaits
    | tasks.AttemptGoesOn
    | tasks.SetSlots
    | tasks.SetLimits
    | tasks.MachineNow
    | tasks.StopTaking
    | tasks.EnvironmentTold
    | gossip.GossipEvent
    | election.Persisted
    | election.PersistFailed
    | election.BatchesLoaded
    | election.Brought
    | election.HandOver
    | election.AcceptFork
    | election.Forget
)


# --- effects ------------------------------------------------------------------------------------------------------


class JobAccepted(Event, frozen=True, kw_only=True):
    """The job exists, or existed already under its submission key.

    Args:
        copies: it ends as long as one of so many nodes lives: they have its ledger, and all that it needs.
    """

    request: int
    job: JobId
    copies: int


class JobRefused(Event, frozen=True, kw_only=True):
    """The job does not exist. `text` is one sentence."""

    request: int
    text: str


class ShareFiles(Event, frozen=True, kw_only=True):
    """Members may read these files of this machine for this job from now on."""

    job: JobId
    files: tuple[str, ...]


class ReadPlan(Event, frozen=True, kw_only=True):
    """Read this blob from this node's store, or bring it here; answered by `PlanRead`."""

    job: JobId
    plan: BlobRef


class KeepBlobs(Event, frozen=True, kw_only=True):
    """Bring the blobs of this order here, and answer the leader that gave it by `BlobsKept`."""

    node: NodeId
    order: messages.Keep


class ShedBlobs(Event, frozen=True, kw_only=True):
    """These blobs may go from this node's store, unless a job is known here that needs them."""

    blobs: tuple[Digest, ...]


class JobMoved(Event, frozen=True, kw_only=True):
    """Another node leads the job now, or nobody for a moment: who watches it here must look for it anew."""

    job: JobId


NodeEffect: TypeAlias = (
    gossip.SendDatagram
    | gossip.SendLink
    | gossip.Dial
    | gossip.Hangup
    | gossip.MemberChanged
    | gossip.FactChanged
    | gossip.IdentityClash
    | gossip.Left
    | tasks.RunBatch
    | tasks.StopSlot
    | tasks.EndJob
    | tasks.MakeEnvironment
    | tasks.JobChanged
    | tasks.TasksEnded
    | tasks.Extended
    | tasks.CallBack
    | tasks.RemoveJob
    | JobAccepted
    | JobRefused
    | ShareFiles
    | ReadPlan
    | KeepBlobs
    | ShedBlobs
    | JobMoved
    | election.Persist
    | election.LoadBatches
    | election.Bring
)
