"""The cluster as a follower sees it: what the nodes say, put together, and what of it has not been told yet. Pure."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from p2premap.client.shapes import JobShape, NodeShape, Shape, StatusShape
from p2premap.control.web import AttemptView, News
from p2premap.tasks.job import JobView

RECENT_S: Final = 120.0
RECENT_MAX: Final = 2_000


class AttemptShape(Shape, frozen=True, kw_only=True):
    """An attempt on a slot. `kind`: run, retry or backup; `outcome`: running, done, raised, ..."""

    node: str
    slot: int
    job: str
    stage: int
    task: int
    attempt: int
    kind: str
    began_at: float
    ended_at: float | None
    outcome: str
    error: str
    fetch_s: float
    spill_s: float
    tasks: int


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an event says."""

    at: float
    nodes: list[NodeShape] = []
    nodes_gone: list[str] = []
    jobs: list[JobShape] = []
    jobs_gone: list[str] = []
    cluster: StatusShape | None = None
    tasks: list[AttemptShape] = []
    left_out: int = 0


class _Key(NamedTuple):
    node: bytes
    job: bytes
    stage: int
    task: int
    attempt: int


class World:
    """The cluster as it is now, by the news of its nodes; and what of it has not been told yet. Pure but for `wall_s`.

    Args:
        wall_s: the time in seconds since 1970.
    """

    def __init__(self, wall_s: Callable[[], float] = time.time) -> None:
        self._wall_s = wall_s
        self.nodes: dict[bytes, NodeShape] = {}
        self.cluster: StatusShape | None = None
        self._jobs: dict[bytes, dict[bytes, tuple[JobView, float]]] = {}
        """By job and node: the node's view, and when it was heard."""
        self._best: dict[bytes, JobShape] = {}
        self._heard: dict[bytes, float] = {}
        """When each of these was as old as it says."""
        self._recent: deque[AttemptShape] = deque(maxlen=RECENT_MAX)
        self._running: dict[_Key, AttemptShape] = {}
        self._began: dict[tuple[bytes, int, int], int] = {}
        """Attempts that run of (job, stage, task)."""
        self._new_nodes: dict[bytes, None] = {}
        self._new_jobs: dict[bytes, None] = {}
        self._new_attempts: list[AttemptShape] = []
        self._new_cluster = False
        self._left_out = 0

    @property
    def jobs(self) -> list[JobShape]:
        """All that are known."""
        return list(self._best.values())

    def hear(self, news: News) -> None:
        """A node says something."""
        for view in news.nodes:
            self.nodes[view.node] = NodeShape.of(view)
            self._new_nodes[view.node] = None
        for node in news.nodes_gone:
            self.nodes.pop(node, None)
            self._new_nodes[node] = None
        for job in news.jobs:
            self._jobs.setdefault(job.job, {})[news.node] = job, self._wall_s()
            self._weigh(job.job)
        for gone in news.jobs_gone:
            self._drop(gone, news.node)
        if news.over:
            for known in [job for job, views in self._jobs.items() if news.node in views]:
                self._drop(known, news.node)
            for key in [key for key in self._running if key.node == news.node]:
                self._stop(key)
        for attempt in news.attempts:
            self._attempt(news.node, attempt)
        self._left_out += news.left_out

    def know(self, cluster: StatusShape) -> None:
        """How the node and its cluster are."""
        before, self.cluster = self.cluster, cluster
        quiet = msgspec.structs.replace
        if before is None or quiet(before, counters={}, node=cluster.node) != quiet(cluster, counters={}):
            self._new_cluster = True

    def changes(self) -> Update | None:
        """What has not been told; None where there is nothing."""
        if not (self._new_nodes or self._new_jobs or self._new_attempts or self._new_cluster):
            return None
        update = Update(
            at=self._wall_s(),
            nodes=[self.nodes[node] for node in self._new_nodes if node in self.nodes],
            nodes_gone=[node.hex() for node in self._new_nodes if node not in self.nodes],
            jobs=[self._aged(job) for job in self._new_jobs if job in self._best],
            jobs_gone=[job.hex() for job in self._new_jobs if job not in self._best],
            cluster=self.cluster if self._new_cluster else None,
            tasks=self._new_attempts,
            left_out=self._left_out,
        )
        self._new_nodes, self._new_jobs, self._new_attempts = {}, {}, []
        self._new_cluster, self._left_out = False, 0
        return update

    def everything(self) -> Update:
        """As a follower sees it who has just come."""
        since = self._wall_s() - RECENT_S
        recent = [one for one in self._recent if (one.ended_at or 0.0) >= since]
        return Update(
            at=self._wall_s(),
            nodes=list(self.nodes.values()),
            jobs=sorted(map(self._aged, self._best), key=lambda job: -job.submitted_at),
            cluster=self.cluster,
            tasks=[*recent, *self._running.values()][-RECENT_MAX:],
        )

    def _aged(self, job: bytes) -> JobShape:
        """As old as it is now: nodes do not tell that time passes."""
        shape = self._best[job]
        since = max(self._wall_s() - self._heard[job], 0.0)
        return msgspec.structs.replace(shape, age_s=shape.age_s + since) if since else shape

    def _drop(self, job: bytes, node: bytes) -> None:
        views = self._jobs.get(job, {})
        views.pop(node, None)
        if not views:
            self._jobs.pop(job, None)
        self._weigh(job)

    def _weigh(self, job: bytes) -> None:
        """Of what several nodes say of a job, the most: its end, its leader's view, a replica's."""
        views = self._jobs.get(job)
        best, heard = None, 0.0
        if views:
            view, heard = max(views.values(), key=_weight)
            best = JobShape.of(view)
        if best == self._best.get(job):
            return
        if best is None:
            del self._best[job], self._heard[job]
        else:
            self._best[job], self._heard[job] = best, heard
        self._new_jobs[job] = None

    def _attempt(self, node: bytes, view: AttemptView) -> None:
        now = self._wall_s()
        key = _Key(node, view.job, view.stage, view.task, view.attempt)
        task = view.job, view.stage, view.task
        known = self._stop(key)
        kind = known.kind if known is not None else self._kind(key)
        shape = AttemptShape(
            node=node.hex(),
            slot=view.slot,
            job=view.job.hex(),
            stage=view.stage,
            task=view.task,
            attempt=view.attempt,
            kind=kind,
            began_at=round(now - view.began_s, 3),
            ended_at=None if view.ended_s < 0 else round(now - view.ended_s, 3),
            outcome=view.outcome,
            error=view.error,
            fetch_s=round(view.fetch_s, 3),
            spill_s=round(view.spill_s, 3),
            tasks=view.tasks,
        )
        if shape.ended_at is None:
            self._running[key] = shape
            self._began[task] = self._began.get(task, 0) + 1
        else:
            self._recent.append(shape)
        self._new_attempts.append(shape)

    def _stop(self, key: _Key) -> AttemptShape | None:
        """It runs no more, if it did."""
        if (known := self._running.pop(key, None)) is not None:
            task = key.job, key.stage, key.task
            self._began[task] -= 1
            if not self._began[task]:
                del self._began[task]
        return known

    def _kind(self, key: _Key) -> str:
        """Leaders number attempts from multiples of a thousand on; a second one while the first runs is a backup."""
        if self._began.get((key.job, key.stage, key.task)):
            return "backup"
        return "retry" if key.attempt % 1_000 else "run"


def _weight(told: tuple[JobView, float]) -> tuple[bool, bool, int]:
    """How much who said this knows of the job."""
    view, _ = told
    return view.phase.over, bool(view.stages), view.takeovers
