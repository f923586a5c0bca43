"""What the HTTP service (`p2premap.web`), a client like others, asks beside that: to be there, news, steering."""

from typing import Annotated

import msgspec

from p2premap.control.nodes import NodeView
from p2premap.ids import RequestId
from p2premap.tasks.job import JobOptions, JobView
from p2premap.wire import Count, JobIdField, Message, NodeIdField, Record, Seconds, Short, Text

ATTEMPTS_TOLD_MAX = 2_000
"""In one `News`; further ones are counted."""


class OpenWeb(Message, tag=170, frozen=True, kw_only=True):
    """Serve HTTP, if you do not yet, and make a one-time login. Answered by `WebOpened`.

    Args:
        node: which is to serve; None: the one that is asked.
        revoke: make a new token first; what was given out before is void.
    """

    request: RequestId
    node: NodeIdField | None = None
    revoke: bool = False


class WebOpened(Message, tag=171, frozen=True, kw_only=True):
    """Where the node serves.

    Args:
        origins: such as "http://ada-2d7a4f10.localhost:8321", for a browser on its machine first.
        ticket: logs in once.
        valid_s: for how long the ticket does.
        token_file, header_file: on its machine.
        machine: a hash of its machine.
        authority_file: there, of the certificate that browsers of other machines have to be told of; "": they cannot
            come in.
    """

    request: RequestId
    origins: tuple[Text, ...]
    ticket: Short
    valid_s: Seconds
    token_file: Text = ""
    header_file: Text = ""
    machine: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    authority_file: Text = ""


class Follow(Message, tag=172, frozen=True, kw_only=True):
    """Tell what changes, from now on. Answered by `News` again and again, from this node and every other one."""

    request: RequestId


class AttemptView(Record, frozen=True, kw_only=True):
    """An attempt on one of a node's slots.

    Args:
        ended_s: ago; -1 while it runs.
        began_s: ago.
        outcome: such as "done"; "running".
        fetch_s: for how long its inputs and its process were waited for before.
        tasks: so many attempts of one batch that were too short to be told one by one; `task` is one of them.
        spill_s: for how long it wrote to scratch disk what did not fit into memory.
    """

    slot: Count
    job: JobIdField
    stage: Count
    task: Count
    attempt: Count
    began_s: Seconds
    ended_s: float = -1.0
    outcome: Short = "running"
    error: Short = ""
    fetch_s: Seconds = 0.0
    tasks: Count = 1
    spill_s: Seconds = 0.0


class News(Message, tag=173, frozen=True, kw_only=True):
    """What has changed at a node since it last said so; the first one has everything.

    Args:
        node: whose news these are.
        jobs: that it leads, replicates or saw end, each briefly; those that have changed.
        jobs_gone: that it does not know any more.
        nodes, nodes_gone: members as the node that was asked sees them; others say nothing of them.
        attempts: that began or ended there.
        left_out: how many of them would not fit.
        over: this node says nothing more: it stops, or cannot be heard.
    """

    request: RequestId
    node: NodeIdField
    jobs: tuple[JobView, ...] = ()
    jobs_gone: tuple[JobIdField, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    nodes_gone: tuple[NodeIdField, ...] = ()
    attempts: tuple[AttemptView, ...] = ()
    left_out: Count = 0
    over: bool = False


class SetNode(Message, tag=174, frozen=True, kw_only=True):
    """Offer so many worker processes, run no tasks of these actions, until you start again. `Done` when it is so.

    Args:
        node: which.
        slots, refused_actions: None: as before.
    """

    request: RequestId
    node: NodeIdField
    slots: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    refused_actions: Annotated[tuple[Short, ...], msgspec.Meta(max_length=64)] | None = None


class RemoveJob(Message, tag=175, frozen=True, kw_only=True):
    """Forget a job that is over, with its results and logs, here and at all members. `Done` when that is so.

    Args:
        job: a prefix of its id; the whole of it where a member asks.
    """

    request: RequestId
    job: bytes


class ListTasks(Message, tag=176, frozen=True, kw_only=True):
    """Where are these tasks of a job? Answered by `Tasks`, by its leader.

    Args:
        job: a prefix of its id.
        stage: its number; -1: all.
        first: tasks before this one are not wanted, in stages before `stage_first` none.
        count: at most so many.
        states: only tasks in one of these; () means any.
        attempts: of each, too.
    """

    request: RequestId
    job: bytes
    stage: int = -1
    stage_first: Count = 0
    first: Count = 0
    count: Count = 100
    states: tuple[Short, ...] = ()
    attempts: bool = False


class TaskAttempt(Record, frozen=True, kw_only=True):
    """One attempt of a task, as far as it is remembered."""

    attempt: Count
    node: NodeIdField
    node_name: Short
    outcome: Short
    error: Text = ""
    detail: Text = ""


class TaskView(Record, frozen=True, kw_only=True):
    """A task as its job's leader sees it.

    Args:
        state: "waiting", "running", "done" or "failed".
        node_name: where it runs, or ran; "" where it does not.
        started: attempts so far.
        attempts: where they were asked for.
    """

    stage: Count
    stage_name: Short
    task: Count
    state: Short
    node_name: Short = ""
    started: Count = 0
    error: Text = ""
    attempts: tuple[TaskAttempt, ...] = ()


class Tasks(Message, tag=177, frozen=True, kw_only=True):
    """These, in order.

    Args:
        next: stage and task from which on others may follow; None: none do.
    """

    request: RequestId
    tasks: tuple[TaskView, ...]
    next: tuple[Count, Count] | None = None


class LookAtJob(Message, tag=178, frozen=True, kw_only=True):
    """Who keeps this job's ledger, and what was asked for? Answered by `JobLooked`.

    Args:
        job: a prefix of its id.
    """

    request: RequestId
    job: bytes


class JobLooked(Message, tag=179, frozen=True, kw_only=True):
    """What a job's replica knows besides its view.

    Args:
        replicas: nodes that keep the ledger.
        options: as submitted.
    """

    request: RequestId
    replicas: tuple[NodeIdField, ...]
    options: JobOptions
