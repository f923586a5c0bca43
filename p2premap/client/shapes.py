"""JSON as programs see it: what ``--json`` prints (docs/cli.md) and the HTTP API answers (docs/api.md).

Keys are added over time, never renamed or removed. Each shape is made from the message or the view that says it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import msgspec

from p2premap.control.nodes import Foreign, NodeView, Status
from p2premap.ids import NOBODY
from p2premap.tasks.job import JobView, StageView


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object of ours."""


class NodeShape(Shape, frozen=True, kw_only=True):
    """A member of the cluster, as the node that answers sees it. `state`: alive, stalled, suspect, dead or left."""

    id: str
    name: str
    pid: int
    state: str
    me: bool
    boot: int
    addresses: tuple[str, ...]
    version: str
    system: str
    python: str
    cpus: int
    slots: int
    busy: int
    load: float
    memory_bytes: int
    memory_free_bytes: int
    tags: tuple[str, ...]
    host: str
    held_back: str
    refused_actions: tuple[str, ...]
    on_battery: bool

    @classmethod
    def of(cls, view: NodeView) -> Self:
        """Of a member."""
        return cls(
            id=view.node.hex(),
            name=view.name,
            pid=view.pid,
            state=view.state,
            me=view.me,
            boot=view.boot,
            addresses=view.addresses,
            version=view.version,
            system=view.system,
            python=view.python,
            cpus=view.cpus,
            slots=view.slots,
            busy=view.busy,
            load=view.load,
            memory_bytes=view.memory_bytes,
            memory_free_bytes=view.memory_free_bytes,
            tags=view.tags,
            host=view.host,
            held_back=view.held_back,
            refused_actions=view.refused_actions,
            on_battery=view.on_battery,
        )


class ForeignShape(Shape, frozen=True, kw_only=True):
    """Another cluster seen on this network. `hint` is the command that would join it."""

    address: str
    cluster: str
    hint: str

    @classmethod
    def of(cls, foreign: Foreign) -> Self:
        """Of what was seen."""
        return cls(address=foreign.address, cluster=foreign.cluster, hint=foreign.hint)


class StageShape(Shape, frozen=True, kw_only=True):
    """A stage of a job in numbers."""

    number: int
    name: str
    tasks: int
    done: int
    running: int
    failed_attempts: int
    lost_attempts: int
    bytes_in: int
    bytes_done: int
    records_out: int
    seconds: float
    spilled_bytes: int

    @classmethod
    def of(cls, stage: StageView) -> Self:
        """Of a stage."""
        return cls(
            number=stage.number,
            name=stage.name,
            tasks=stage.tasks,
            done=stage.done,
            running=stage.running,
            failed_attempts=stage.failed_attempts,
            lost_attempts=stage.lost_attempts,
            bytes_in=stage.bytes_in,
            bytes_done=stage.bytes_done,
            records_out=stage.records_out,
            seconds=stage.seconds,
            spilled_bytes=stage.spilled_bytes,
        )


class LeaderShape(Shape, frozen=True, kw_only=True):
    """Who leads a job; empty `id` and `name` while nobody does."""

    id: str
    name: str
    pid: int


class NodeTasksShape(Shape, frozen=True, kw_only=True):
    """How many tasks of a job a node has done."""

    name: str
    tasks: int


class SkippedShape(Shape, frozen=True, kw_only=True):
    """A task that failed for good and was left out."""

    stage: str
    task: int
    error: str


class UnmetShape(Shape, frozen=True, kw_only=True):
    """What keeps a node from running a job."""

    node: str
    lacks: str
    has: str


class JobShape(Shape, frozen=True, kw_only=True):
    """A job. `phase`: waiting, running, done, failed or cancelled; `progress`: of the tasks planned, 0 to 1.

    `lasted_s`: from its submission to its end; 0 while it goes on.
    """

    id: str
    name: str
    kind: str
    phase: str
    leader: LeaderShape
    submitted_at: float
    age_s: float
    copies: int
    takeovers: int
    unprotected: int
    unprotected_s: float
    fork: str
    backups: int
    retries: int
    stages: tuple[StageShape, ...]
    parts: int
    url: str
    nodes: tuple[NodeTasksShape, ...]
    error: str
    detail: str
    note: str
    skipped: tuple[SkippedShape, ...]
    unmet: tuple[UnmetShape, ...]
    progress: float
    lasted_s: float

    @classmethod
    def of(cls, view: JobView) -> Self:
        """Of a job's view."""
        leader = "" if view.leader == NOBODY else view.leader.hex()
        return cls(
            id=view.job.hex(),
            name=view.name,
            kind=view.kind,
            phase=view.phase.value,
            leader=LeaderShape(id=leader, name=view.leader_name, pid=view.leader_pid),
            submitted_at=view.submitted,
            age_s=view.age_s,
            copies=view.copies,
            takeovers=view.takeovers,
            unprotected=view.unprotected,
            unprotected_s=view.unprotected_s,
            fork=view.fork,
            backups=view.backups,
            retries=view.retries,
            stages=tuple(map(StageShape.of, view.stages)),
            parts=view.part_count,
            url=view.output,
            nodes=tuple(NodeTasksShape(name=name, tasks=tasks) for name, tasks in view.nodes),
            error=view.error,
            detail=view.detail,
            note=view.note,
            skipped=tuple(SkippedShape(stage=s, task=t, error=e) for s, t, e in view.skipped),
            unmet=tuple(UnmetShape(node=n, lacks=lacks, has=has) for n, lacks, has in view.unmet),
            progress=_progress(view),
            lasted_s=view.lasted_s,
        )


class PartOfEnd(Shape, frozen=True, kw_only=True):
    """A part of the output of a job that is over; `href` at any node."""

    number: int
    name: str
    bytes: int
    records: int
    href: str


class EndShape(JobShape, frozen=True, kw_only=True):
    """What a callback says: the job, which is over, and its output."""

    results: tuple[PartOfEnd, ...]

    @classmethod
    def of_end(cls, view: JobView) -> Self:
        """Of its last view."""
        parts = tuple(
            PartOfEnd(
                number=part.number,
                name=part.file_name,
                bytes=part.source.size,
                records=part.records,
                href=f"/api/v1/jobs/{view.job.hex()}/results/{part.number}",
            )
            for part in view.parts
        )
        return cls(**msgspec.structs.asdict(JobShape.of(view)), results=parts)


class StatusShape(Shape, frozen=True, kw_only=True):
    """A node and its cluster in a few facts. `jobs_waiting_for`: job id -> what it waits for or depends on."""

    node: NodeShape
    cluster: str
    key_epoch: int
    scope: str
    open_name: str
    members: int
    dead: int
    jobs_running: int
    jobs_waiting_for: dict[str, str]
    state_dir: str
    kept_bytes: int
    kept_bytes_max: int
    foreign: tuple[ForeignShape, ...]
    warnings: tuple[str, ...]
    counters: dict[str, int]
    forks: tuple[str, ...]

    @classmethod
    def of(cls, status: Status, jobs: Iterable[JobShape]) -> Self:
        """Of a node's account of itself, and the jobs that are listed."""
        listed = list(jobs)
        running = [job for job in listed if job.phase in ("waiting", "running")]
        return cls(
            node=NodeShape.of(status.me),
            cluster=status.cluster,
            key_epoch=status.key_epoch,
            scope=status.scope,
            open_name=status.open_name,
            members=status.members,
            dead=status.dead,
            jobs_running=len(running),
            jobs_waiting_for={job.id: job.note for job in running if job.note},
            state_dir=status.state_dir,
            kept_bytes=status.kept_bytes,
            kept_bytes_max=status.kept_bytes_max,
            foreign=tuple(map(ForeignShape.of, status.foreign)),
            warnings=status.warnings,
            counters=status.counters,
            forks=tuple(job.id for job in listed if job.fork),
        )


def _progress(view: JobView) -> float:
    tasks = sum(stage.tasks for stage in view.stages)
    return round(sum(stage.done for stage in view.stages) / tasks, 4) if tasks else 0.0
