"""What changes, as one stream that all followers share.

::

    daemon --News (of every node)--> Hub: nodes, jobs, attempts as they are now
                                      | five times a second, where something has changed: one event, encoded once
                                      v
                                    ring of the last events <-- each follower has a place in it, and nothing else

So a follower costs a number, however slow it is; one that the ring has overtaken is hung up on. The daemon is followed
as long as somebody follows here, and a while longer, so that who comes back can go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

import msgspec

from p2premap.client.shapes import JobShape, NodeShape, Shape, StatusShape
from p2premap.control.nodes import GetStatus, Status
from p2premap.control.web import AttemptView, Follow, News
from p2premap.errors import P2PRemapError
from p2premap.tasks.job import JobView
from p2premap.web.daemon import Daemon

TICK_S: Final = 0.2
RING_S: Final = 60.0
RING_BYTES_MAX: Final = 4 << 20
STATUS_S: Final = 2.0
LOOK_S: Final = 1.0
AGAIN_S: Final = 0.5
SILENCE_S: Final = 20.0
RECENT_S: Final = 120.0
RECENT_MAX: Final = 2_000
CHUNK_BYTES: Final = 256 << 10
COMMENT_S: Final = 10.0
_COMMENT: Final = b": still here\n\n"
BYE: Final = b"event: bye\ndata: {}\n\n"

log = logging.getLogger(__name__)


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


class _Event(NamedTuple):
    number: int
    at: float
    data: bytes


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
        self._jobs: dict[bytes, dict[bytes, JobView]] = {}
        self._best: dict[bytes, JobShape] = {}
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
            self._jobs.setdefault(job.job, {})[news.node] = job
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
            jobs=[self._best[job] for job in self._new_jobs if job in self._best],
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
            jobs=sorted(self._best.values(), key=lambda job: -job.submitted_at),
            cluster=self.cluster,
            tasks=[*recent, *self._running.values()][-RECENT_MAX:],
        )

    def _drop(self, job: bytes, node: bytes) -> None:
        views = self._jobs.get(job, {})
        views.pop(node, None)
        if not views:
            self._jobs.pop(job, None)
        self._weigh(job)

    def _weigh(self, job: bytes) -> None:
        """Of what several nodes say of a job, the most: its end, its leader's view, a replica's."""
        views = self._jobs.get(job)
        best = None
        if views:
            view = max(views.values(), key=lambda one: (one.phase.over, bool(one.stages), one.takeovers))
            best = JobShape.of(view)
        if best == self._best.get(job):
            return
        if best is None:
            del self._best[job]
        else:
            self._best[job] = best
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


class Hub:
    """Follows the daemon for everybody.

    Args:
        daemon: to follow.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._world = World()
        self._epoch = secrets.token_hex(4)
        self._number = 0
        self._ring: deque[_Event] = deque()
        self._ring_bytes = 0
        self._more = asyncio.Event()
        self._followers = 0
        self._left = -RING_S
        self._snapshot: tuple[int, bytes] = (-1, b"")
        self._wanted = asyncio.Event()
        self._first = asyncio.Event()
        self.over = False

    @property
    def followers(self) -> int:
        """How many there are."""
        return self._followers

    @property
    def nodes(self) -> dict[bytes, NodeShape]:
        """The members by id; none while nobody follows."""
        return self._world.nodes

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self._serve()
            except* Exception:
                # a fault of ours in one piece of news must not be the end of all
                log.exception("following the node has failed; it is begun anew")
                await asyncio.sleep(AGAIN_S)
            self._forget()

    async def _serve(self) -> None:
        """As long as somebody follows, and a while longer."""
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part()) for part in (self._follow, self._look, self._tell)]
            while True:
                await asyncio.sleep(LOOK_S)
                if not self._followers and time.monotonic() - self._left > RING_S:
                    break
            for part in parts:
                part.cancel()

    def bye(self) -> None:
        """The node stops: every follower is told, and nothing more."""
        self.over = True
        self._wake()

    async def follow(self, last: str) -> AsyncIterator[bytes]:
        """Events for one follower, as they are sent; ends where it has been overtaken, or the node stops.

        Args:
            last: the id of the event that it had last, or "".
        """
        self._followers += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._first.wait()
            place = self._place(last)
            if place is None:
                place = self._number
                yield b"retry: 1000\n" + self._everything()
            while not self.over:
                if (data := self._after(place)) is None:
                    return
                chunk, place = data
                if chunk:
                    yield chunk
                    continue
                more = self._more
                try:
                    async with asyncio.timeout(COMMENT_S):
                        await more.wait()
                except TimeoutError:
                    yield _COMMENT
            yield BYE
        except TimeoutError:
            return
        finally:
            self._followers -= 1
            self._left = time.monotonic()

    # --- what is told ---------------------------------------------------------------------------------------------

    def _place(self, last: str) -> int | None:
        """Where a follower goes on that had this event last; None where that is not known (any more)."""
        epoch, _, number = last.partition("-")
        if epoch != self._epoch or not number.isdecimal() or len(number) > 15:
            return None
        first = self._ring[0].number if self._ring else self._number + 1
        return int(number) if first - 1 <= int(number) <= self._number else None

    def _after(self, place: int) -> tuple[bytes, int] | None:
        """What comes behind this event, and the last of it; None where some of that is forgotten."""
        if not self._ring or place >= self._number:
            return b"", place
        skip = place + 1 - self._ring[0].number
        if skip < 0:
            return None
        data, size = [], 0
        for index in range(skip, len(self._ring)):
            event = self._ring[index]
            data.append(event.data)
            size += len(event.data)
            place = event.number
            if size >= CHUNK_BYTES:
                break
        return b"".join(data), place

    def _everything(self) -> bytes:
        if self._snapshot[0] != self._number:
            data = msgspec.json.encode(self._world.everything())
            name = f"id: {self._epoch}-{self._number}\nevent: snapshot\ndata: ".encode()
            self._snapshot = self._number, name + data + b"\n\n"
        return self._snapshot[1]

    def _put(self, update: Update) -> None:
        self._number += 1
        head = f"id: {self._epoch}-{self._number}\nevent: update\ndata: ".encode()
        event = _Event(self._number, time.monotonic(), head + msgspec.json.encode(update) + b"\n\n")
        self._ring.append(event)
        self._ring_bytes += len(event.data)
        while self._ring_bytes > RING_BYTES_MAX or event.at - self._ring[0].at > RING_S:
            self._ring_bytes -= len(self._ring.popleft().data)
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    def _forget(self) -> None:
        """Nobody follows: what is known gets old."""
        self._world = World()
        self._epoch = secrets.token_hex(4)
        self._ring.clear()
        self._ring_bytes = self._number = 0
        self._snapshot = (-1, b"")
        self._first = asyncio.Event()
        if not self._followers:
            self._wanted.clear()

    # --- what is heard --------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(
                    self._daemon.stream(lambda n: Follow(request=n), silence_s=SILENCE_S)  # type: ignore[type-var]
                ) as frames:
                    async for frame in frames:
                        if isinstance(frame.message, News):
                            self._world.hear(frame.message)
                            self._first.set()
            except P2PRemapError as error:
                log.info("the node cannot be followed now: %s", error)
            await asyncio.sleep(AGAIN_S)

    async def _look(self) -> None:
        """What no news say: how the node itself is."""
        while True:
            with contextlib.suppress(P2PRemapError):
                status = await self._daemon.ask(lambda n: GetStatus(request=n), Status)
                self._world.know(StatusShape.of(status, self._world.jobs))
            await asyncio.sleep(STATUS_S)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if (update := self._world.changes()) is not None:
                self._put(update)
