"""A program's line to its job: what the desk says on it, when it ends, and that a job without one is cancelled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from p2premap.client.connection import Connection, RequestRefused, local
from p2premap.client.jobs import put_blob
from p2premap.control.answers import Done, Trouble
from p2premap.control.calls import Calls, CallsEnded, CallsOpened, OpenCalls
from p2premap.control.jobs import Submit, Submitted
from p2premap.control.nodes import ListNodes, Nodes, NodeView
from p2premap.errors import PeerUnreachable
from p2premap.ids import JobId, NodeId, RequestId
from p2premap.node import desk_calls
from p2premap.node.desk import RequestError
from p2premap.node.desk_calls import ABANDONED_S, ALIVE_S, CallLines
from p2premap.node.events import CancelJob, ExtendJob, JobMoved, RetellEnds
from p2premap.tasks import calls as wire
from p2premap.tasks import calls_results
from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle
from p2premap.tasks.calls import KIND
from p2premap.tasks.calls_results import unpack_ends
from p2premap.tasks.events import Extended, TasksEnded
from p2premap.tasks.job import AttemptEnd, JobSpec, Outcome, Phase, StageId
from p2premap.wire import Message
from tests.cluster import PrivateCluster, eventually

JOB = JobId(b"j" * 16)
OTHER = JobId(b"o" * 16)
NODE = NodeId(b"n" * 16)
STAGE = StageId(0, b"")


class Desk:
    """`CallLines` between a core that is played by the test and a visitor that keeps what it hears."""

    def __init__(self) -> None:
        self.delivered: list[Any] = []
        self.said: list[tuple[Message, bytes]] = []
        self.jobs: list[Any] = []
        self.quick = True
        self.lines = CallLines(self.delivered.append, lambda: 6, lambda: self.jobs)

    async def say(self, message: Message, payload: bytes = b"") -> None:
        self.said.append((message, payload))

    def say_now(self, message: Message, payload: bytes = b"") -> bool:
        self.said.append((message, payload))
        return self.quick

    async def open(self, nursery: trio.Nursery, request: int = 1) -> None:
        nursery.start_soon(self.lines.serve, self, OpenCalls(request=RequestId(request), job=JOB, first=3))
        await trio.testing.wait_all_tasks_blocked()
        number = self.delivered[-1].request
        self.lines.hear(Extended(job=JOB, request=number, stage=STAGE, first=7, tasks=0))
        await trio.testing.wait_all_tasks_blocked()

    def ended(self, *tasks: int, value: bytes = b"v") -> None:
        ends = tuple(AttemptEnd(task=task, attempt=0, outcome=Outcome.DONE, value=value) for task in tasks)
        self.lines.hear(TasksEnded(job=JOB, stage=STAGE, node=NODE, ends=ends))

    def told(self) -> list[int]:
        payloads = [payload for message, payload in self.said if isinstance(message, CallsEnded) and payload]
        return [end.task for payload in payloads for group in unpack_ends(payload) for end in group.ends]


@pytest.mark.trio
async def test_a_line_is_opened_with_what_is_known_and_ends_are_told_on_it() -> None:
    desk = Desk()
    async with trio.open_nursery() as nursery:
        await desk.open(nursery)
        assert [type(event) for event in desk.delivered] == [ExtendJob, RetellEnds]
        assert desk.delivered[1] == RetellEnds(job=JOB, first=3)
        assert desk.said == [(CallsOpened(request=RequestId(1), known=7, slots=6), b"")]
        desk.ended(3, 4)
        assert desk.told() == [3, 4], "whoever waits hears it at once"
        desk.quick = False
        desk.ended(5)
        desk.ended(6)
        desk.ended(7)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.told() == [3, 4, 5, 6, 7]
        assert len(desk.said) == 4, "what comes together is told together, where somebody has to wait"
        desk.lines.over(JOB)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.said[-1][0] == Done(request=RequestId(1))


@pytest.mark.trio
async def test_what_does_not_fit_into_a_frame_goes_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_calls, "ENDS_BYTES_MAX", 2_000)
    desk = Desk()
    async with trio.open_nursery() as nursery:
        await desk.open(nursery)
        desk.ended(*range(10), value=b"x" * 500)
        desk.ended(10, value=b"x" * 5_000)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.told() == list(range(11))
        assert all(len(payload) < 6_000 for _, payload in desk.said)
        assert len(desk.said) > 4
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_line_that_is_silent_shows_that_it_lives(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    async with trio.open_nursery() as nursery:
        await desk.open(nursery)
        await trio.sleep(2.5 * ALIVE_S)
        assert [type(message) for message, _ in desk.said] == [CallsOpened, CallsEnded, CallsEnded]
        nursery.cancel_scope.cancel()


@pytest.mark.trio
@pytest.mark.parametrize("early", [True, False])
async def test_when_the_job_moves_the_line_ends(early: bool) -> None:
    desk = Desk()
    with pytest.RaisesGroup(PeerUnreachable):
        async with trio.open_nursery() as nursery:
            if early:
                nursery.start_soon(desk.lines.serve, desk, OpenCalls(request=RequestId(1), job=JOB))
                await trio.testing.wait_all_tasks_blocked()
            else:
                await desk.open(nursery)
            desk.lines.hear(JobMoved(job=OTHER))
            await trio.testing.wait_all_tasks_blocked()
            desk.lines.hear(JobMoved(job=JOB))


@pytest.mark.trio
async def test_the_newest_line_of_a_job_counts(autojump_clock: trio.testing.MockClock) -> None:
    desk, newer = Desk(), Desk()
    newer.lines = desk.lines
    newer.delivered = desk.delivered
    with pytest.RaisesGroup(PeerUnreachable):
        async with trio.open_nursery() as nursery:
            await desk.open(nursery)
            await newer.open(nursery, request=2)
            desk.ended(1)
            await trio.testing.wait_all_tasks_blocked()
            assert newer.told() == [1]
            assert desk.told() == []
            await trio.sleep(2 * ALIVE_S)  # the older one looks up


@pytest.mark.trio
async def test_calls_that_make_no_sense_are_refused() -> None:
    desk = Desk()
    with pytest.RaisesGroup(pytest.RaisesExc(RequestError, match="no calls")):
        async with trio.open_nursery() as nursery:
            await desk.open(nursery)
            await desk.lines.extend(JOB, b"nonsense")
            assert desk.delivered[-1] == ExtendJob(job=JOB, payload=b"nonsense", request=0)
            refused = Extended(job=JOB, request=0, stage=STAGE, first=0, tasks=0, error="These are no calls.")
            desk.lines.hear(refused)


@pytest.mark.trio
async def test_a_job_whose_program_has_gone_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    desk.jobs = [
        SimpleNamespace(job=JOB, kind=KIND, phase=Phase.RUNNING, fork=""),
        SimpleNamespace(job=OTHER, kind="mapreduce", phase=Phase.RUNNING, fork=""),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.lines.run)
        with trio.CancelScope() as program:
            async with trio.open_nursery() as line:
                await desk.open(line)
                await trio.sleep(2 * ABANDONED_S)
                program.cancel()
        assert not any(isinstance(event, CancelJob) for event in desk.delivered)
        await trio.sleep(ABANDONED_S + 3 * ALIVE_S)
        cancelled = {event.job for event in desk.delivered if isinstance(event, CancelJob)}
        assert cancelled == {JOB}
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_fork_is_served_under_the_name_of_its_job(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    desk.jobs = [SimpleNamespace(job=job, kind=KIND, phase=Phase.RUNNING, fork="f0f0f0f0") for job in (JOB, OTHER)]
    async with trio.open_nursery() as nursery:
        await desk.open(nursery)
        nursery.start_soon(desk.lines.run)
        await trio.sleep(3 * ABANDONED_S)
        assert not any(isinstance(event, CancelJob) for event in desk.delivered)
        nursery.cancel_scope.cancel()


def _job_on(first: Connection) -> JobId:
    """A job of calls that is led by the node at the other end."""
    code = pack_bundle([Module(name=JOB_MODULE, path="", source="")])
    refs = [put_blob(first, data) for data in (code, b"")]
    spec = JobSpec(submission_key=b"line", kind=KIND, name="line", code=refs[0], plan=refs[1])
    return first.ask(lambda n: Submit(request=n, spec=spec), Submitted).job


def _open(line: Connection, job: JobId) -> CallsOpened:
    """Open it, as a program does: again where it has no leader just now."""

    def opened() -> CallsOpened | None:
        try:
            return line.ask(lambda n: OpenCalls(request=n, job=job), CallsOpened, timeout_s=60)
        except RequestRefused as refused:
            if refused.trouble is not Trouble.UNREACHABLE:
                raise
            return None

    return eventually(opened)


def _alive(line: Connection) -> list[NodeView]:
    """Members that are beyond doubt now."""
    return [view for view in line.ask(lambda n: ListNodes(request=n), Nodes).views if view.state == "alive"]


def test_any_node_serves_a_line_to_a_job_that_another_leads(three_nodes: PrivateCluster) -> None:
    with local("n1", paths=three_nodes.paths) as first, local("n2", paths=three_nodes.paths) as second:
        job = _job_on(first)
        eventually(lambda: [view.slots for view in _alive(second)] == [1, 1, 1])
        opened = _open(second, job)
        assert opened == CallsOpened(request=opened.request, known=0, slots=3)

    with local("n2", paths=three_nodes.paths) as second:
        request = _open(second, job).request
        code = wire.pack_function(b"cbuiltins\nabs\n.")
        body = wire.pack_body(0, 0, wire.pack_calls([b"\x80\x05((I-5\ntd\x86."]))
        second.post(Calls(request=request, job=job), wire.pack_extension(functions=[code], packs=[body], closed=True))
        frames = []
        while not isinstance((frames[-1].message if frames else None), Done):
            frame = second.next(request, timeout_s=60)
            assert frame is not None
            frames.append(frame)
        (group,) = (group for frame in frames if frame.payload for group in unpack_ends(frame.payload))
        (end,) = group.ends
        done = calls_results.unpack_done(end.value)
        assert (end.task, end.outcome, done.calls) == (0, Outcome.DONE, 1)
