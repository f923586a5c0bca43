"""What the hub makes of the news: merged, told once, bounded; and who falls behind."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from p2premap.control.nodes import NodeView
from p2premap.control.web import AttemptView, News
from p2premap.ids import JobId, NodeId, RequestId
from p2premap.tasks.job import JobView, Phase, StageView
from p2premap.web import hub as hubs
from p2premap.web.daemon import Daemon
from p2premap.web.hub import Hub
from p2premap.web.world import RECENT_MAX, World

ADA, BOB = NodeId(b"a" * 16), NodeId(b"b" * 16)
JOB = JobId(b"j" * 16)
REQUEST = RequestId(1)


def view(phase: Phase = Phase.RUNNING, *, stages: int = 1, **more: Any) -> JobView:
    numbers = tuple(StageView(number=n, name="map", tasks=4, done=1) for n in range(stages))
    return JobView(
        job=JOB, name="x", kind="k", phase=phase, leader=ADA, leader_name="ada", leader_pid=1, age_s=1.0,
        stages=numbers, **more,
    )  # fmt: skip


def news(node: NodeId = ADA, **said: Any) -> News:
    return News(request=REQUEST, node=node, **said)


@pytest.fixture
def world() -> World:
    return World(wall_s=lambda: 1000.0)


def test_what_was_told_is_not_told_again(world: World) -> None:
    assert world.changes() is None
    world.hear(news(nodes=(NodeView(node=ADA, name="ada", state="alive", pid=1, boot=1),), jobs=(view(),)))
    update = world.changes()
    assert update is not None
    assert ([n.name for n in update.nodes], [j.id for j in update.jobs]) == (["ada"], [JOB.hex()])
    assert world.changes() is None
    world.hear(news(jobs=(view(),)))
    assert world.changes() is None


def test_who_leads_a_job_knows_more_of_it_than_a_replica_and_its_end_is_the_end(world: World) -> None:
    world.hear(news(jobs=(view(),)))
    world.hear(news(BOB, jobs=(view(Phase.WAITING, stages=0),)))
    assert [job.phase for job in world.everything().jobs] == ["running"]
    world.hear(news(BOB, jobs=(view(Phase.DONE),)))
    assert [job.phase for job in world.everything().jobs] == ["done"]
    world.hear(news(BOB, over=True))
    assert [job.phase for job in world.everything().jobs] == ["running"]
    world.hear(news(jobs_gone=(JOB,)))
    update = world.changes()
    assert update is not None
    assert (update.jobs, update.jobs_gone) == ([], [JOB.hex()])


def test_a_job_grows_older_although_nobody_says_so() -> None:
    now = [1000.0]
    world = World(wall_s=lambda: now[0])
    world.hear(news(jobs=(view(),)))
    now[0] += 60.0
    world.hear(news(BOB, jobs=(view(Phase.WAITING, stages=0),)))
    assert [job.age_s for job in world.everything().jobs] == [61.0]


def attempt(attempt: int = 0, **more: Any) -> AttemptView:
    return AttemptView(**{"slot": 0, "job": JOB, "stage": 0, "task": 7, "attempt": attempt, "began_s": 2.0, **more})


def test_attempts_begin_and_end(world: World) -> None:
    world.hear(news(attempts=(attempt(),)))
    world.hear(news(BOB, attempts=(attempt(1),)))
    world.hear(news(attempts=(attempt(ended_s=1.0, outcome="raised", error="no"),)))
    world.hear(news(BOB, attempts=(attempt(1, ended_s=0.5, outcome="done", spill_s=0.25),)))
    world.hear(news(BOB, attempts=(attempt(2),)))
    update = world.changes()
    assert update is not None
    assert [one.spill_s for one in update.tasks] == [0.0, 0.0, 0.0, 0.25, 0.0]
    told = [(one.kind, one.outcome, one.began_at, one.ended_at) for one in update.tasks]
    assert told == [
        ("run", "running", 998.0, None),
        ("backup", "running", 998.0, None),
        ("run", "raised", 998.0, 999.0),
        ("backup", "done", 998.0, 999.5),
        ("retry", "running", 998.0, None),
    ]
    assert [one.outcome for one in world.everything().tasks] == ["raised", "done", "running"]
    world.hear(news(BOB, over=True))  # nobody will say how that one ends
    assert [one.outcome for one in world.everything().tasks] == ["raised", "done"]


def test_what_is_kept_is_bounded(world: World) -> None:
    for task in range(RECENT_MAX + 100):
        world.hear(news(attempts=(attempt(task=task, ended_s=0.0, outcome="done"),)))
    assert len(world.everything().tasks) == RECENT_MAX


def test_a_follower_goes_on_where_it_was_or_is_told_everything() -> None:
    async def run() -> None:
        hub = Hub(Daemon("/nowhere"))
        hub._first.set()
        for number in range(3):
            hub._put(hubs.Update(at=float(number), left_out=1))

        async def first_of(last: str) -> bytes:
            stream = hub.follow(last)
            data = await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            return data

        assert (await first_of("")).startswith(b"retry: 1000\nid: " + hub._epoch.encode() + b"-3\nevent: snapshot")
        went_on = await first_of(f"{hub._epoch}-1")
        assert went_on.count(b"event: update") == 2
        for unknown in ("x", "00000000-1", f"{hub._epoch}-4", f"{hub._epoch}--1", f"{hub._epoch}-" + "9" * 20):
            assert b"event: snapshot" in await first_of(unknown)
        assert hub.followers == 0

    asyncio.run(run())


def test_who_falls_behind_is_hung_up_on_and_the_ring_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "RING_BYTES_MAX", 2_000)

    async def run() -> None:
        hub = Hub(Daemon("/nowhere"))
        hub._first.set()
        stream = hub.follow("")
        await anext(stream)
        for _ in range(100):
            hub._put(hubs.Update(at=1.0, jobs_gone=["x" * 100]))
        assert hub._ring_bytes <= 2_000
        assert [data async for data in stream] == []

    asyncio.run(run())


def test_the_last_event_is_a_good_bye() -> None:
    async def run() -> None:
        hub = Hub(Daemon("/nowhere"))
        hub._first.set()
        stream = hub.follow("")
        await anext(stream)
        hub.bye()
        (data,) = [data async for data in stream]
        name, _, text = data.partition(b"\ndata: ")
        said = msgspec.json.decode(text, type=hubs.Update)
        assert (name, said) == (b"event: bye", hubs.Update(at=said.at))

    asyncio.run(run())


def test_an_update_says_nothing_of_what_has_not_changed() -> None:
    assert msgspec.json.decode(msgspec.json.encode(hubs.Update(at=1.5))) == {"at": 1.5}
