"""JSON of jobs and tasks beyond what ``--json`` prints (`p2premap.client.shapes`)."""

from __future__ import annotations

from p2premap.client.shapes import JobShape, Shape
from p2premap.control.web import TaskAttempt, TaskView
from p2premap.tasks.job import Failure, JobOptions
from p2premap.vertex.told import Told


class ReplicaShape(Shape, frozen=True, kw_only=True):
    """A node that keeps a job's ledger."""

    id: str
    name: str


class TermShape(Shape, frozen=True, kw_only=True):
    """Who has led a job from when on: `age_s` is how old the job was, `at` the same in seconds since 1970."""

    at: float
    age_s: float
    leader: ReplicaShape


class OptionsShape(Shape, frozen=True, kw_only=True):
    """How a job is to be run, whatever its kind."""

    priority: int
    copies: int
    retries: int
    parallel: int
    skip_failed: bool
    strict: bool
    stage: bool
    requires: tuple[str, ...]
    output: str
    overwrite: bool
    time_limit_s: float
    memory_limit_bytes: int
    callback: str

    @classmethod
    def of(cls, options: JobOptions) -> OptionsShape:
        """As submitted."""
        return cls(
            priority=options.priority,
            copies=options.copies,
            retries=options.retries,
            parallel=options.parallel_max,
            skip_failed=options.skip_failed,
            strict=options.strict,
            stage=options.stage_inputs,
            requires=options.requires,
            output=options.output,
            overwrite=options.overwrite,
            time_limit_s=options.limits.time_s,
            memory_limit_bytes=options.limits.memory_bytes,
            callback=options.callback,
        )


class SuperstepShape(Shape, frozen=True, kw_only=True):
    """A superstep of a vertex job: vertices that were active and computed, mail that was sent; aggregates by name."""

    superstep: int
    active: int
    computed: int
    sent: int
    dropped: int
    seconds: float
    values: dict[str, float]


class GraphShape(Shape, frozen=True, kw_only=True):
    """How a vertex job gets on. Of many supersteps not all are told; `why`: how it ended, or ""."""

    vertices: int
    edges: int
    supersteps: int
    checkpoints: int
    dropped: int
    bad_lines: int
    why: str
    rows: list[SuperstepShape]

    @classmethod
    def of(cls, told: Told) -> GraphShape:
        """As its director tells."""
        rows = [
            SuperstepShape(
                superstep=row.superstep,
                active=row.active,
                computed=row.computed,
                sent=row.sent,
                dropped=row.dropped,
                seconds=row.seconds,
                values=dict(row.values),
            )
            for row in told.rows
        ]
        return cls(
            vertices=told.vertices,
            edges=told.edges,
            supersteps=told.supersteps,
            checkpoints=told.checkpoints,
            dropped=told.dropped,
            bad_lines=told.loaded.bad,
            why=told.why,
            rows=rows,
        )


class FailureShape(Shape, frozen=True, kw_only=True):
    """An attempt that failed, of a job that is over. `good`: its task had a result in the end."""

    stage: int
    stage_name: str
    task: int
    attempt: int
    node: ReplicaShape
    outcome: str
    error: str
    detail: str
    good: bool

    @classmethod
    def of(cls, one: Failure) -> FailureShape:
        """As the job's ledger remembers it."""
        return cls(
            stage=one.stage,
            stage_name=one.stage_name,
            task=one.task,
            attempt=one.attempt,
            node=ReplicaShape(id=one.node.hex(), name=one.node_name),
            outcome=one.outcome,
            error=one.error,
            detail=one.detail,
            good=one.good,
        )


class OneJobShape(JobShape, frozen=True, kw_only=True):
    """A job with what only its own page shows.

    `options` is null where nobody keeps what was submitted, `graph` where it is no vertex job, or has none yet.
    `failures`: the last of them, those of failed tasks first; none while the job goes on.
    """

    replicas: list[ReplicaShape]
    history: list[TermShape]
    options: OptionsShape | None
    graph: GraphShape | None
    failures: list[FailureShape]


class JobsPage(Shape, frozen=True, kw_only=True):
    """Jobs, the newest first. `silent`: nodes (names) that did not answer in time, whose jobs may be missing."""

    items: list[JobShape]
    next: str | None
    silent: tuple[str, ...]


class AttemptOfTask(Shape, frozen=True, kw_only=True):
    """An attempt, as far as it is remembered: one that runs, one that failed, the one whose result counts."""

    attempt: int
    node: ReplicaShape
    outcome: str
    error: str
    detail: str

    @classmethod
    def of(cls, one: TaskAttempt) -> AttemptOfTask:
        """As the job's leader says."""
        node = ReplicaShape(id=one.node.hex(), name=one.node_name)
        return cls(attempt=one.attempt, node=node, outcome=one.outcome, error=one.error, detail=one.detail)


class TaskShape(Shape, frozen=True, kw_only=True):
    """A task. `state`: waiting, running, done or failed; `node`: the name of where it runs or ran."""

    stage: int
    stage_name: str
    task: int
    state: str
    node: str
    attempts: int
    error: str

    @classmethod
    def of(cls, view: TaskView) -> TaskShape:
        """As the job's leader says."""
        return cls(
            stage=view.stage,
            stage_name=view.stage_name,
            task=view.task,
            state=view.state,
            node=view.node_name,
            attempts=view.started,
            error=view.error,
        )


class OneTaskShape(Shape, frozen=True, kw_only=True):
    """A task with its attempts, and why it is where it is."""

    stage: int
    stage_name: str
    task: int
    state: str
    node: str
    error: str
    attempts: list[AttemptOfTask]
    why: str


class TasksPage(Shape, frozen=True, kw_only=True):
    """Tasks, in order. A page may have fewer than were asked for, and even none, and yet not be the last."""

    items: list[TaskShape]
    next: str | None
