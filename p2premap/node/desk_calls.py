"""Answers about calls: a program's line to its job of kind "calls" (`p2premap.tasks.calls`).

::

    OpenCalls --> (led here?) --> an empty extension --> Extended(first) --> CallsOpened(known)
    Calls     --> ExtendJob(payload)                                     --> nothing, or Refused
    TasksEnded(...) --> the line's box --> CallsEnded, everything that has come since the last one

A line to a job that is led elsewhere is passed on, frame by frame. Who has opened a line hears of the job at least
every `ALIVE_S`; a job of which no program has had a line for `ABANDONED_S` is cancelled: its futures are gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from p2premap.control.answers import Done, Trouble
from p2premap.control.calls import Calls, CallsEnded, CallsOpened, OpenCalls
from p2premap.errors import PeerUnreachable
from p2premap.ids import JobId, NodeId, RequestId, short
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import PASSED_ON, find, line_to, next_answer, over
from p2premap.node.events import CancelJob, ExtendJob, JobMoved, NodeEvent, RetellEnds
from p2premap.ports import FrameStream
from p2premap.tasks import events as tasks
from p2premap.tasks.calls import KIND, pack_extension
from p2premap.tasks.calls_results import EndsOfNode, pack_ends
from p2premap.tasks.job import AttemptEnd, JobView
from p2premap.wire import PAYLOAD_BYTES_MAX, Message

ALIVE_S: Final = 5.0
ABANDONED_S: Final = 60.0
SLOTS_S: Final = 1.0
"""How many slots the cluster has is counted this often."""
ENDS_BYTES_MAX: Final = PAYLOAD_BYTES_MAX // 2
_END_BYTES: Final = 256


class Line:
    """One program's line to a job that is led here.

    Args:
        visit: of the program.
        request: of its `OpenCalls`.
    """

    def __init__(self, visit: Visit, request: RequestId) -> None:
        self.visit = visit
        self.request = request
        self.ended = CallsEnded(request=request, slots=0)
        self.wake = trio.Event()
        self.rests = False
        """Its task waits for `wake`, and nothing is being said."""
        self.moved = self.over = False
        self.refusal = ""
        self.box: deque[EndsOfNode] = deque()

    def ring(self) -> None:
        """Something is to be said."""
        self.wake.set()

    def put(self, node: NodeId, ends: tuple[AttemptEnd, ...]) -> None:
        """Packs that ended, to be told."""
        self.box.append(EndsOfNode(node=node, ends=ends))

    def take(self) -> list[EndsOfNode]:
        """What has come, as much as fits into a frame."""
        groups: list[EndsOfNode] = []
        size = 0
        while self.box:
            node, ends = self.box[0].node, self.box[0].ends
            fits = 0
            while fits < len(ends) and (not size or size + len(ends[fits].value) + _END_BYTES <= ENDS_BYTES_MAX):
                size += len(ends[fits].value) + _END_BYTES
                fits += 1
            if fits:
                groups.append(EndsOfNode(node=node, ends=ends[:fits]))
            if fits < len(ends):
                self.box[0] = EndsOfNode(node=node, ends=ends[fits:])
                break
            self.box.popleft()
        return groups


class _Question(msgspec.Struct):
    """How many packs of a job are known?"""

    job: JobId
    answered: trio.Event = msgspec.field(default_factory=trio.Event)
    known: int | None = None


class CallLines:
    """The lines of one node.

    Args:
        deliver: takes an event for the node's core.
        slots: counts the worker processes of the cluster.
        led: the jobs that this node leads.
    """

    def __init__(
        self, deliver: Callable[[NodeEvent], None], slots: Callable[[], int], led: Callable[[], list[JobView]]
    ) -> None:
        self._deliver = deliver
        self._count_slots = slots
        self._led = led
        self._lines: dict[JobId, Line] = {}
        self._relays: dict[JobId, FrameStream] = {}
        self._asked: dict[int, _Question] = {}
        self._number = 0
        self._slots, self._slots_at = 0, -SLOTS_S
        self._without: dict[bytes, float] = {}

    # --- what the core says -------------------------------------------------------------------------------------------

    def hear(self, effect: tasks.TasksEnded | tasks.Extended | JobMoved) -> None:
        """Pass on what concerns a line."""
        line = self._lines.get(effect.job)
        match effect:
            case tasks.TasksEnded(node=node, ends=ends):
                if line is not None:
                    line.put(node, ends)
                    self._say_at_once(line)
            case tasks.Extended(request=request):
                if (asked := self._asked.get(request)) is not None:
                    asked.known = effect.first
                    asked.answered.set()
                elif effect.error and line is not None:
                    line.refusal = effect.error
                    line.ring()
            case JobMoved():
                for question in self._asked.values():
                    if question.job == effect.job:
                        question.answered.set()
                if line is not None:
                    line.moved = True
                    line.ring()

    def over(self, job: JobId) -> None:
        """The job has ended."""
        self._without.pop(job, None)
        if (line := self._lines.get(job)) is not None:
            line.over = True
            line.ring()

    async def run(self) -> None:
        """End the jobs of programs that are gone, until cancelled."""
        while True:
            now = trio.current_time()
            jobs = [view for view in self._led() if view.kind == KIND and not view.phase.over]
            # a fork has a line under the name of the job that it was forked from
            forks = {view.fork for view in jobs if view.fork and view.job in self._lines}
            alone = [view.job for view in jobs if view.job not in self._lines and view.fork not in forks]
            self._without = {job: self._without.get(job, now) for job in alone}
            for job, since in self._without.items():
                if now - since > ABANDONED_S:
                    self._deliver(CancelJob(job=JobId(job), reason="The program that made its calls has gone."))
            await trio.sleep(ALIVE_S)

    # --- what a program asks ------------------------------------------------------------------------------------------

    async def serve(self, visit: Visit, message: OpenCalls) -> None:
        """Serve a line until its program hangs up, or the job is over or led elsewhere."""
        job = message.job
        line = Line(visit, message.request)
        self._lines[job] = line
        try:
            known = await self._known(job)
            self._deliver(RetellEnds(job=job, first=message.first))
            await visit.say(CallsOpened(request=line.request, known=known, slots=self.slots()))
            while True:
                line.rests = not line.wake.is_set()
                with trio.move_on_after(ALIVE_S):
                    await line.wake.wait()
                line.rests = False
                line.wake = trio.Event()
                await self._say(line)
                if line.over:
                    await visit.say(Done(request=line.request))
                    return
                if line.refusal:
                    raise RequestError(Trouble.USAGE, line.refusal)
                if line.moved or self._lines.get(job) is not line:
                    raise PeerUnreachable("The job is led by another node now; open it anew.")
        finally:
            if self._lines.get(job) is line:
                del self._lines[job]

    async def relay(self, visit: Visit, message: OpenCalls, leader: NodeId) -> None:
        """Pass a line on to the node that leads the job."""
        job = message.job
        forward = OpenCalls(request=PASSED_ON, job=job, first=message.first)
        async with line_to(visit, leader, forward) as stream:
            self._relays[job] = stream
            try:
                while True:
                    frame = await next_answer(stream, leader)
                    if not isinstance(frame.message, (CallsOpened, CallsEnded, Done)):
                        raise PeerUnreachable(f"The node {short(leader)} gave an answer that does not fit.")
                    await visit.say(msgspec.structs.replace(frame.message, request=message.request), frame.payload)
                    if isinstance(frame.message, Done):
                        return
            finally:
                if self._relays.get(job) is stream:
                    del self._relays[job]

    async def extend(self, job: JobId, payload: bytes) -> None:
        """More calls on a line that is open."""
        if (stream := self._relays.get(job)) is not None:
            await stream.send(Calls(request=PASSED_ON, job=job), payload)
        else:
            self._deliver(ExtendJob(job=job, payload=payload, request=0))

    def slots(self) -> int:
        """Worker processes of the whole cluster, as of a moment ago."""
        now = trio.current_time()
        if now - self._slots_at >= SLOTS_S:
            self._slots, self._slots_at = self._count_slots(), now
        return self._slots

    async def _known(self, job: JobId) -> int:
        """How many packs the job has, all of them protected.

        Raises:
            PeerUnreachable: it is not led here any more.
        """
        self._number += 1
        number, asked = self._number, _Question(job)
        self._asked[number] = asked
        self._deliver(ExtendJob(job=job, payload=pack_extension(), request=number))
        try:
            await asked.answered.wait()
        finally:
            del self._asked[number]
        if asked.known is None:
            raise PeerUnreachable("The job is led by another node now; open it anew.")
        return asked.known

    def _say_at_once(self, line: Line) -> None:
        """A program waits: where nothing stands in the way it is told here, which costs no turn of the event loop."""
        try:
            while line.rests and line.box:
                line.rests = line.visit.say_now(*self._ended(line))
        except PeerUnreachable:
            line.rests = False
        if not line.rests:
            line.ring()  # its task says the rest, or finds that the program has gone

    async def _say(self, line: Line) -> None:
        """Everything that has come; a sign of life if nothing has."""
        while True:
            await line.visit.say(*self._ended(line))
            if not line.box:
                return

    def _ended(self, line: Line) -> tuple[CallsEnded, bytes]:
        """The next frame of what has come."""
        groups, slots = line.take(), self.slots()
        if line.ended.slots != slots:
            line.ended = CallsEnded(request=line.request, slots=slots)
        return line.ended, pack_ends(groups) if groups else b""


# --- handlers -----------------------------------------------------------------------------------------------------


async def open_calls(visit: Visit, message: Message, _: bytes) -> None:
    """`OpenCalls`."""
    assert isinstance(message, OpenCalls)
    found = await find(visit, message.job)
    if over(found):
        await visit.say(Done(request=message.request))
    elif found.leader == visit.house.identity.node:
        await visit.house.calls.serve(visit, message)
    elif visit.peer is None:
        await visit.house.calls.relay(visit, message, found.leader)
    else:
        raise RequestError(Trouble.NOT_FOUND, "The job is led by another node.")


async def calls(visit: Visit, message: Message, payload: bytes) -> None:
    """`Calls`."""
    assert isinstance(message, Calls)
    await visit.house.calls.extend(message.job, payload)


HANDLERS: dict[type[Message], Handler] = {OpenCalls: open_calls, Calls: calls}
