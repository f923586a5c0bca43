"""The pure half of a kind of job: plans stages, folds results, says when the job is done.

A kind is a plug-in: the entry point group ``p2premap.modules`` maps its name to a class that satisfies `Director`.
The director names the two other halves: `Director.runtime` runs user code in worker processes
(`p2premap.worker.runtime.Runtime`), `Director.planner` makes a job of what a user typed (`p2premap.client.planning`).
A director is deterministic and knows no clock, no file and no network: whoever leads the job makes one from the same
plan and the same pinned results, and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from p2premap.ids import JobId, NodeId
from p2premap.tasks.job import BlobRef, Part, Source, StageId


class Pinned(msgspec.Struct, frozen=True, kw_only=True):
    """The one result of a task that the stage's manifest pinned.

    Args:
        value: the small result.
        blobs: its large parts.
        holders: nodes that hold the blobs.
        failed: the task has failed for good and the job goes on without it; `value` is what its failure carried.
    """

    value: bytes
    blobs: tuple[BlobRef, ...]
    holders: tuple[NodeId, ...]
    records_out: int = 0
    failed: bool = False


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A stage to run.

    Args:
        name: for people, such as "map".
        function: told to the runtime.
        tasks: how many, numbered from 0.
        bytes_in: of all tasks' inputs, for progress; 0 if unknown.
        final: its results are the job's output parts, one a task.
        open: more tasks may come (`Director.extend`); it is complete only once it has been closed.
        grows: of an open stage: its own results may add tasks (`Unfolds.unfold` is asked about each).
        together: its tasks run side by side, all of them or none.
        shared: of a stage with `together`: any number of slots will do, a process runs all tasks that are dealt to its
            slot at once, and the processes talk to each other (`p2premap.tasks.shared`).
        copied: it is pinned only once each of its results has two holders, where there are two nodes.
        passing: only the next stage reads its blobs; they go when two stages more have been pinned, and it is not shown
            any more (`p2premap.tasks.shedding`). For jobs with any number of stages.
        each_node: of an open stage: each node that can work is met with a task of its own (`Lasting.meet`), those that
            come as long as it is open, too.
        lasts_s: an open stage is closed so long after the job began (`Lasting.close`); of one with `each_node`, once
            every node that is there has answered as well.
    """

    name: str
    function: str
    tasks: int
    bytes_in: int = 0
    final: bool = False
    open: bool = False
    grows: bool = False
    together: bool = False
    shared: bool = False
    copied: bool = False
    passing: bool = False
    each_node: bool = False
    lasts_s: float = math.inf


class Extension(msgspec.Struct, frozen=True, kw_only=True):
    """What a payload adds to the open stage.

    Args:
        tasks: how many.
        first: the number of the first. None: on from the last, and handed out only once the payload is protected, so
            that a number means the same task at every leader. Who numbers tasks itself, such as a client its calls,
            sees to that, and they are handed out at once; numbers may come in any order, and again.
        closed: none will come after these.
        cancelled: tasks whose results nobody wants any more; those without one end as STOPPED.
        whys: of each of these, as half a sentence for people; "": they need not hear of it; none: it was cancelled.
        nodes: (index among these tasks, the one node that may run it); the others run anywhere.
        after: (index among these tasks, the earlier tasks of the stage whose results it needs): it is handed out once
            these are there, see `Follows`.
        again: the program has heard of the present leader, and has withdrawn what it has a result of.
    """

    tasks: int = 0
    first: int | None = None
    closed: bool = False
    cancelled: tuple[int, ...] = ()
    whys: tuple[str, ...] = ()
    nodes: tuple[tuple[int, NodeId], ...] = ()
    after: tuple[tuple[int, tuple[int, ...]], ...] = ()
    again: bool = False


class TaskInput(msgspec.Struct, frozen=True, kw_only=True):
    """What one task needs: the kind's own description and the bytes to bring to the worker."""

    params: bytes
    sources: tuple[Source, ...] = ()


class Director(Protocol):
    """One job's plan. Made anew by every leader; must come to the same conclusions from the same results."""

    runtime: str
    """Runs the tasks: "package.module:Class", importable on the nodes that shall work."""

    planner: str
    """Makes the job: "package.module:function", see `p2premap.client.planning`; "": programs do, not `p2premap run`."""

    streams: bool
    """Somebody waits for single tasks: their ends are told as `TasksEnded`, and a failure is one task's answer."""

    def __init__(self, *, job: JobId, home: NodeId, plan: bytes) -> None:
        """Args: `home` submitted the job and holds its inputs; `plan` is the blob of the spec.

        Raises:
            JobRejected: the plan makes no sense; one sentence.
        """

    def first(self) -> StagePlan:
        """The first stage."""

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """The stage after `number`, whose results are all pinned, in order of task; None when it was the last."""

    def task(self, stage: StageId, task: int) -> TaskInput:
        """What this task of a planned stage needs. Called when the task is handed out, so it should be cheap."""

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        """The output parts that a result of a final stage is; no two of a job bear the same number."""

    def extend(self, payload: bytes) -> Extension:
        """More for the open stage. Payloads come in the same order at every leader, and a refused one never again.

        Raises:
            JobError: the payload makes no sense, or no stage of this kind is open; nothing has changed.
        """


@runtime_checkable
class Unfolds(Protocol):
    """A director with a stage that grows by itself."""

    def unfold(self, task: int, result: Pinned) -> bytes | None:
        """The payload for `Director.extend` that a task of the open stage gave rise to; None: there is none.

        Asked about each result, and again by every later leader: what `extend` has been given already is not to be
        given again. A task that has failed for good is asked about, too. The result that is asked about last sees to
        it that the stage is closed.
        """


@runtime_checkable
class Lasting(Protocol):
    """A director with a stage that is for each node, or that ends after a time."""

    def meet(self, node: NodeId, name: str) -> bytes | None:
        """The payload for `Director.extend` that adds a node's own task; None: it has one.

        Asked about each node that can work, and again by every later leader.
        """

    def close(self, without: tuple[int, ...]) -> bytes:
        """The payload for `Director.extend` that closes the stage.

        Args:
            without: tasks that are not waited for: their nodes are gone, or nobody has begun them.
        """


@runtime_checkable
class Follows(Protocol):
    """A director with tasks that need results of others of the same stage (`Extension.after`).

    Whoever handed them in numbered them, and is told of results before these are protected. So a successor hands out no
    such task before that program has been heard again: what it knows of, and the ledger not, it withdraws.
    """

    def task_after(self, task: int, results: Sequence[Pinned]) -> TaskInput:
        """As `Director.task`, of a task that follows others.

        Args:
            results: of those, in order; some may have failed for good.
        """


@runtime_checkable
class Tells(Protocol):
    """A director with more to tell of its job than stages and tasks."""

    def tell(self) -> bytes:
        """For the kind's own commands, which alone know what it means: part of each view, so at most some 10 KB."""
