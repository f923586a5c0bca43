"""`Follow`: what changes in the cluster, as it changes, for whoever draws it.

::

    client --Follow--> this node --Follow--> every other member
                          |  News of its own, at most TELLS_A_S a second, and only where something has changed
                          +--News of theirs, as they come

Nobody does anything for this as long as nobody follows, but for `p2premap.node.attempts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

import msgspec
import trio

from p2premap.control.nodes import NodeView
from p2premap.control.web import ATTEMPTS_TOLD_MAX, AttemptView, Follow, News
from p2premap.errors import P2PRemapError, PeerUnreachable
from p2premap.ids import JobId, NodeId
from p2premap.node.attempts import Ended
from p2premap.node.desk import Handler, Visit
from p2premap.node.desk_ask import PASSED_ON, line_to, next_answer
from p2premap.node.desk_node import exact
from p2premap.tasks.job import JobView
from p2premap.wire import Message

TELL_S: Final = 0.2
LOOK_ROUND_S: Final = 5.0
"""What nobody says, such as that a job was forgotten, is found by looking this often; who hears nothing for thrice as
long is not connected."""
NODES_S: Final = 0.6
AGAIN_S: Final = 2.0
JOBS_TOLD_MAX: Final = 100
"""In one `News`."""
ERROR_CHARACTERS_MAX: Final = 255
TOGETHER_S: Final = 1.0
"""What has run and is not told as ended for so long has ended in a crowd (`p2premap.node.attempts`)."""

_Key: TypeAlias = tuple[int, JobId, int, int, int]
"""Slot, job, stage, task, attempt."""


async def follow(visit: Visit, message: Message, _: bytes) -> None:
    """`Follow`: until the visitor goes."""
    assert isinstance(message, Follow)
    async with trio.open_nursery() as nursery:
        if visit.peer is None:
            nursery.start_soon(_follow_others, visit, message)
        await _follow_here(visit, message)


# --- other members ------------------------------------------------------------------------------------------------


async def _follow_others(visit: Visit, message: Follow) -> None:
    followed: set[NodeId] = set()

    async def one(peer: NodeId) -> None:
        await _follow_there(visit, message, peer)
        await trio.sleep(AGAIN_S)
        followed.discard(peer)

    async with trio.open_nursery() as nursery:
        while True:
            for view in visit.house.others():
                if view.node not in followed:
                    followed.add(view.node)
                    nursery.start_soon(one, view.node)
            await trio.sleep(NODES_S)


async def _follow_there(visit: Visit, message: Follow, peer: NodeId) -> None:
    """Pass on what a member tells, until it cannot be heard."""
    try:
        async with line_to(visit, peer, Follow(request=PASSED_ON)) as stream:
            while True:
                with trio.move_on_after(3 * LOOK_ROUND_S) as silence:
                    frame = await next_answer(stream, peer)
                if silence.cancelled_caught or not isinstance(frame.message, News):
                    break
                await visit.say(msgspec.structs.replace(frame.message, request=message.request, node=peer))
    except PeerUnreachable:
        pass
    except P2PRemapError:  # it is of an earlier release, or was given nonsense
        pass
    await visit.say(News(request=message.request, node=peer, over=True))


# --- this node ----------------------------------------------------------------------------------------------------


async def _follow_here(visit: Visit, message: Follow) -> None:
    news = _Here(visit)
    with visit.house.bulletin.following() as changed:
        while True:
            for one in news.collect(message, changed):
                await visit.say(one)
            await trio.sleep(TELL_S)


class _Seen(NamedTuple):
    """An attempt that runs: when it began, and when it was last seen."""

    began: float
    seen: float


class _Here:
    """What one visitor has been told of this node."""

    def __init__(self, visit: Visit) -> None:
        self._house = visit.house
        self._client = visit.peer is None
        self._jobs: dict[bytes, JobView] = {}
        self._nodes: dict[NodeId, NodeView] = {}
        self._running: dict[_Key, _Seen] = {}
        self._ended = 0
        self._look_round = self._look_at_nodes = 0.0

    def collect(self, message: Follow, changed: set[JobId]) -> Iterator[News]:
        """What is new; `changed` is emptied."""
        now = trio.current_time()
        everything = now >= self._look_round
        if everything:
            self._look_round = now + LOOK_ROUND_S
        views, gone = self._changed_jobs(now, changed, everything)
        nodes: tuple[NodeView, ...] = ()
        nodes_gone: tuple[NodeId, ...] = ()
        if self._client and now >= self._look_at_nodes:
            self._look_at_nodes = now + NODES_S
            nodes, nodes_gone = self._changed_nodes()
        attempts, left_out = self._attempts(now)
        if not (everything or views or gone or nodes or nodes_gone or attempts):
            return
        for start in range(0, len(views), JOBS_TOLD_MAX) or range(1):
            yield News(
                request=message.request,
                node=self._house.identity.node,
                jobs=tuple(views[start : start + JOBS_TOLD_MAX]),
                jobs_gone=gone,
                nodes=nodes,
                nodes_gone=nodes_gone,
                attempts=attempts,
                left_out=left_out,
            )
            gone, nodes, nodes_gone, attempts, left_out = (), (), (), (), 0

    def _changed_jobs(
        self, now: float, changed: set[JobId], everything: bool
    ) -> tuple[Sequence[JobView], tuple[JobId, ...]]:
        if everything:
            found = [view.brief() for view in self._house.jobs()]
            asked = set(self._jobs)
        else:
            found = [view.brief() for job in changed for view in self._house.core.job_views(now, job)]
            asked = {bytes(job) for job in changed} & set(self._jobs)
        changed.clear()
        gone = tuple(JobId(job) for job in asked - {view.job for view in found})
        for job in gone:
            del self._jobs[job]
        fresh = [view for view in found if _told(view) != self._jobs.get(view.job)]
        self._jobs.update((view.job, _told(view)) for view in fresh)
        return fresh, gone

    def _changed_nodes(self) -> tuple[tuple[NodeView, ...], tuple[NodeId, ...]]:
        views = tuple(map(exact, self._house.nodes()))
        gone = tuple(self._nodes.keys() - {view.node for view in views})
        for node in gone:
            del self._nodes[node]
        fresh = tuple(view for view in views if _still(view) != self._nodes.get(view.node))
        self._nodes.update((view.node, _still(view)) for view in fresh)
        return fresh, gone

    def _attempts(self, now: float) -> tuple[tuple[AttemptView, ...], int]:
        ended, left_out = self._house.attempts.since(self._ended)
        self._ended = self._house.attempts.count
        views = [_view(now, one) for one in islice(ended, max(0, len(ended) - ATTEMPTS_TOLD_MAX), None)]
        left_out += len(ended) - len(views)
        for one in ended:
            self._running.pop((one.slot, one.job, one.stage, one.task, one.attempt), None)
        running = {
            (one.slot, one.job, one.stage, one.task, one.attempt): one.seconds
            for one in self._house.executor.running()
            if one.task >= 0
        }
        for key, seconds in running.items():
            if key not in self._running:
                self._running[key] = _Seen(now - seconds, now)
                views.append(_running(key, began_s=seconds))
            self._running[key] = self._running[key]._replace(seen=now)
        # what ended as one of many short ones has not been told by itself
        for key in [key for key, seen in self._running.items() if now - seen.seen > TOGETHER_S]:
            began, seen_last = self._running.pop(key)
            one_of_many = _running(key, began_s=now - began)
            views.append(msgspec.structs.replace(one_of_many, ended_s=now - seen_last, outcome="done"))
        return tuple(views), left_out


def _told(view: JobView) -> JobView:
    """What of a job makes another one of it: not that time passes."""
    return msgspec.structs.replace(view, age_s=0.0, unprotected_s=0.0)


def _still(view: NodeView) -> NodeView:
    """The same of a node. Its free memory counts in steps of 16 MiB."""
    return msgspec.structs.replace(view, since_s=0.0, memory_free_bytes=view.memory_free_bytes >> 24)


def _running(key: _Key, *, began_s: float) -> AttemptView:
    slot, job, stage, task, attempt = key
    return AttemptView(slot=slot, job=job, stage=stage, task=task, attempt=attempt, began_s=began_s)


def _view(now: float, one: Ended) -> AttemptView:
    return AttemptView(
        slot=one.slot,
        job=one.job,
        stage=one.stage,
        task=one.task,
        attempt=one.attempt,
        began_s=max(0.0, now - one.began),
        ended_s=max(0.0, now - one.ended),
        outcome=one.outcome.name.lower(),
        error=one.error[:ERROR_CHARACTERS_MAX],
        fetch_s=one.fetch_s,
        tasks=one.tasks,
        spill_s=one.spill_s,
    )


HANDLERS: dict[type[Message], Handler] = {Follow: follow}
