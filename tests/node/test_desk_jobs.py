"""Answers about jobs, of a desk whose house is only pretended: how large they are, and what they cost."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
import trio
import trio.testing

from p2premap.control import FROM_DAEMON
from p2premap.control.answers import Chunk, Done, Trouble
from p2premap.control.calls import OpenCalls
from p2premap.control.data import FindPart, PartFound, ReadPart
from p2premap.control.jobs import AcceptFork, Cancel, Jobs, JobUpdate, ListJobs, Watch, Why
from p2premap.errors import PeerUnreachable
from p2premap.ids import NOBODY, Digest, JobId, NodeId, RequestId, short
from p2premap.node.bulletin import Bulletin
from p2premap.node.desk import Handler, RequestError
from p2premap.node.desk_calls import CallLines, open_calls
from p2premap.node.desk_jobs import accept_fork, cancel, list_jobs
from p2premap.node.desk_watch import ALIVE_S, find_part, read_part, watch
from p2premap.node.desk_why import why
from p2premap.node.staging import SourceLost
from p2premap.tasks.job import JobView, Part, Phase, Source
from p2premap.wire import HEADER_BYTES_MAX, Message

pytestmark = pytest.mark.trio
ME = NodeId(b"m" * 16)
JOB = JobId(b"j" * 16)


class Visitor:
    """What a desk sees of a client, with the house behind it; keeps every answer and its size on the wire."""

    def __init__(self, *known: JobView) -> None:
        self.peer = ME
        views = self.views = list(known)
        self.house = SimpleNamespace(
            identity=SimpleNamespace(node=ME),
            bulletin=Bulletin(),
            core=SimpleNamespace(
                job_views=lambda now, prefix: [view for view in views if view.job.startswith(prefix)],
                jobs=SimpleNamespace(leads=lambda job: True),
            ),
            jobs=lambda: list(views),
            others=list,
            orders=SimpleNamespace(cancel=lambda job, reason: None),
        )
        for view in views:
            self.house.bulletin.post(JobId(view.job), view)
        self.answers: list[Message] = []
        self.sizes: list[int] = []

    async def say(self, message: Message, payload: bytes = b"") -> None:
        self.answers.append(message)
        self.sizes.append(len(FROM_DAEMON.encode(message)))


def part(number: int, letter: bytes = b"d") -> Part:
    source = Source(digest=Digest(letter * 32), start=0, end=6, holders=(ME,), blob=Digest(letter * 32))
    return Part(number=number, source=source)


def job_view(number: int = 0, *, parts: tuple[Part, ...] = (), phase: Phase = Phase.DONE, **more: str) -> JobView:
    return JobView(
        job=number.to_bytes(2) + JOB[2:],
        name=more.get("name", "words"),
        kind="mapreduce",
        phase=phase,
        leader=ME,
        leader_name="here",
        leader_pid=1,
        age_s=float(number),
        parts=parts,
        part_count=len(parts),
        error=more.get("error", ""),
        detail=more.get("detail", ""),
    )


async def test_a_thousand_jobs_with_all_that_they_have_fit_into_a_list() -> None:
    parts = tuple(part(number) for number in range(64))
    visitor = Visitor(*(job_view(number, parts=parts, detail="trace\n" * 4_000) for number in range(1_000)))
    await list_jobs(visitor, ListJobs(request=1), b"")
    (jobs,) = visitor.answers
    assert isinstance(jobs, Jobs)
    assert [view.age_s for view in jobs.views] == list(range(1_000))
    assert jobs.left_out == 0
    assert jobs.views[0].part_count == 64


async def test_what_is_too_much_for_a_list_is_counted_and_the_newest_are_told() -> None:
    visitor = Visitor(*(job_view(number, error="\N{PILE OF POO}" * 10_000) for number in range(200)))
    await list_jobs(visitor, ListJobs(request=1), b"")
    (jobs,) = visitor.answers
    assert isinstance(jobs, Jobs)
    assert [view.age_s for view in jobs.views] == list(range(len(jobs.views)))
    assert len(jobs.views) >= 50
    assert jobs.left_out == 200 - len(jobs.views)
    assert visitor.sizes[0] < HEADER_BYTES_MAX


async def test_one_look_at_a_job_is_brief() -> None:
    visitor = Visitor(job_view(3, parts=tuple(part(number) for number in range(1_000)), detail="x" * 60_000))
    await watch(visitor, Watch(request=1, job=b"\0\3", once=True), b"")
    (update,) = visitor.answers
    assert isinstance(update, JobUpdate)
    assert (update.view.age_s, update.view.leader, update.view.part_count) == (3.0, ME, 1_000)
    assert visitor.sizes[0] < 1_000


async def test_a_leader_says_which_bytes_a_part_is() -> None:
    view = job_view(0, parts=(part(0), part(7, b"e")))
    visitor = Visitor(view)
    await find_part(visitor, FindPart(request=1, job=JobId(view.job), part=7), b"")
    assert visitor.answers == [PartFound(request=1, part=part(7, b"e"))]
    for job, number in ((JobId(view.job), 1), (JobId(b"x" * 16), 7)):
        with pytest.raises(RequestError, match=f"has no part {number} yet"):
            await find_part(visitor, FindPart(request=1, job=job, part=number), b"")


async def test_a_watcher_hears_of_each_part_once_and_of_what_is_gone() -> None:
    first = job_view(0, parts=(part(0), part(1), part(2)), phase=Phase.RUNNING)
    second = job_view(0, parts=(part(0), part(2, b"e"), part(3)))
    visitor = Visitor(first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, visitor, Watch(request=1, job=first.job), b"")
        await trio.testing.wait_all_tasks_blocked()
        visitor.house.bulletin.post(JobId(first.job), second)
    news = [([p.number for p in u.view.parts], u.gone, u.more) for u in visitor.answers if isinstance(u, JobUpdate)]
    assert news == [([0, 1, 2], (), False), ([2, 3], (1,), False)]


async def test_many_parts_come_in_many_messages() -> None:
    view = job_view(0, parts=tuple(part(number) for number in range(16_000)))
    visitor = Visitor(view)
    await watch(visitor, Watch(request=1, job=view.job), b"")
    updates = [update for update in visitor.answers if isinstance(update, JobUpdate)]
    assert [p.number for update in updates for p in update.view.parts] == list(range(16_000))
    assert [update.more for update in updates] == [True] * (len(updates) - 1) + [False]
    assert max(visitor.sizes) < 100_000


async def test_who_waits_for_a_job_that_is_forgotten_is_told() -> None:
    view = job_view(0, phase=Phase.RUNNING)
    visitor = Visitor(view)

    async def wait(handler: Handler, message: Message) -> None:
        with pytest.raises(RequestError, match="No job 00006a6a") as refused:
            await handler(visitor, message, b"")
        assert refused.value.trouble is Trouble.NOT_FOUND

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, watch, Watch(request=1, job=view.job))
            nursery.start_soon(wait, cancel, Cancel(request=2, job=view.job))
            await trio.testing.wait_all_tasks_blocked()
            visitor.views.clear()
            visitor.house.bulletin.keep([])


async def test_a_fork_is_accepted_by_its_name_and_nothing_else_is() -> None:
    plain = job_view(0, phase=Phase.RUNNING)
    fork = msgspec.structs.replace(job_view(1, phase=Phase.RUNNING), fork=short(job_view(1).job))
    visitor = Visitor(plain, fork)
    accepted: list[JobId] = []
    visitor.house.orders.accept_fork = accepted.append
    await accept_fork(visitor, AcceptFork(request=1, fork=fork.job[:4]), b"")
    assert accepted == [fork.job]
    assert isinstance(visitor.answers[0], Done)
    with pytest.raises(RequestError, match="is no fork"):
        await accept_fork(visitor, AcceptFork(request=2, fork=plain.job[:4]), b"")
    assert len(accepted) == 1


async def test_a_watcher_of_a_job_that_nobody_leads_hears_so_and_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    view = job_view(0, phase=Phase.WAITING)
    outline = msgspec.structs.replace(view, leader=NOBODY, note="Its replicas are electing a leader.")
    visitor = Visitor(outline)
    visitor.peer = None
    visitor.house.bulletin.move(JobId(view.job))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, visitor, Watch(request=1, job=view.job), b"")
        await trio.sleep(1)
        visitor.views[:] = [job_view(0)]
    updates = [update.view for update in visitor.answers if isinstance(update, JobUpdate)]
    assert len(updates) > 2
    assert {update.note for update in updates[:-1]} == {outline.note}
    assert updates[-1].phase is Phase.DONE


async def test_what_only_a_leader_can_answer_is_refused_in_a_sentence_while_there_is_none() -> None:
    view = msgspec.structs.replace(job_view(0, phase=Phase.WAITING), leader=NOBODY)
    visitor = Visitor(view)
    visitor.peer = None
    visitor.house.calls = CallLines(lambda event: None, lambda: 0, list)
    with pytest.raises(PeerUnreachable, match=r"^Nobody leads the job at this moment"):
        await open_calls(visitor, OpenCalls(request=RequestId(1), job=JobId(view.job)), b"")


async def test_a_client_hears_that_its_part_is_on_the_way(autojump_clock: trio.testing.MockClock) -> None:
    view = job_view(0, parts=(part(0),))
    visitor = Visitor(view)

    async def bring(source: Source) -> object:
        await trio.sleep(4 * ALIVE_S - 1)
        raise SourceLost("Nobody has it.", source.digest)

    visitor.house.stager = SimpleNamespace(bring=bring)
    with pytest.raises(RequestError, match="Part 0 cannot be had now: Nobody has it"):
        await read_part(visitor, ReadPart(request=1, job=JobId(view.job), part=0, leader=ME), b"")
    assert visitor.answers == [Chunk(request=1)] * 3


async def test_why_tells_what_is_to_be_said_of_a_job_that_is_done() -> None:
    done = msgspec.structs.replace(job_view(), note="It has one holder only.")
    visitor = Visitor(done)
    visitor.house.nodes = tuple
    await why(visitor, Why(request=RequestId(1), about=done.job.hex()), b"")
    assert visitor.answers == [
        Done(request=RequestId(1), text=f"The job {short(done.job)} is done. It has one holder only.")
    ]
