"""What the node's core is told by its shell, and what it asks of it, beside what the rooms' own events say."""

from __future__ import annotations

from typing import TypeAlias

from p2premap.event import Event
from p2premap.gossip import events as gossip
from p2premap.ids import JobId
from p2premap.ports import FrameReceived
from p2premap.tasks import events as tasks
from p2premap.tasks.job import JobSpec

# --- events -------------------------------------------------------------------------------------------------------


class Tick(Event, frozen=True, kw_only=True):
    """The deadline that the core asked for has come."""


class SubmitJob(Event, frozen=True, kw_only=True):
    """A client hands in a job. Answered by one `JobAccepted` or `JobRefused` with the same request.

    Args:
        request: chosen by the shell.
        plan: the bytes of `spec.plan`, whose digest the shell has checked.
    """

    request: int
    spec: JobSpec
    plan: bytes


class CancelJob(Event, frozen=True, kw_only=True):
    """End a job that is led here; others are not known, and nothing happens."""

    job: JobId
    reason: str


NodeEvent: TypeAlias = (
    Tick | FrameReceived | SubmitJob | CancelJob | tasks.SlotReported | tasks.SetSlots | gossip.GossipEvent
)


# --- effects ------------------------------------------------------------------------------------------------------


class JobAccepted(Event, frozen=True, kw_only=True):
    """The job exists, or existed already under its submission key.

    Args:
        copies: how many nodes hold its ledger now.
    """

    request: int
    job: JobId
    copies: int


class JobRefused(Event, frozen=True, kw_only=True):
    """The job does not exist. `text` is one sentence."""

    request: int
    text: str


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
    | tasks.JobChanged
    | JobAccepted
    | JobRefused
)
