"""What one node asks other members on behalf of its clients, and how a job is found wherever it is led."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import trio

from p2premap.control.answers import Refused, Trouble, Welcome
from p2premap.control.jobs import Jobs, JobUpdate, ListJobs, Watch
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import NOBODY, NodeId, RequestId, short
from p2premap.node.desk import RequestError, Visit
from p2premap.node.outlines import age_s
from p2premap.ports import FrameStream
from p2premap.tasks.calls import KIND as CALLS
from p2premap.tasks.job import JobView
from p2premap.wire import Frame, Message

if TYPE_CHECKING:
    from p2premap.node.house import House

ASK_S: Final = 3.0
"""How long another member may take to answer a question that one of our clients asked."""

PREFIX_BYTES_MIN: Final = 2
PASSED_ON: Final = RequestId(1)
"""The one request on a stream that this desk opens to another."""

MARGIN_S: Final = 60.0
"""What is older than a running job by this much is not of that job."""

M = TypeVar("M", bound=Message)


class Asker(Protocol):
    """Who asks: a visitor, or the node for itself."""

    @property
    def house(self) -> House:
        """The node."""


class Itself(NamedTuple):
    """The node, asking for itself."""

    house: House


@asynccontextmanager
async def line_to(visit: Asker, peer: NodeId, message: Message) -> AsyncIterator[FrameStream]:
    """A stream to another member's desk, on which `message` has been asked.

    Args:
        peer: NOBODY where the leader of a job is meant, and it has none now.

    Raises:
        PeerUnreachable: it cannot be reached, or does not speak in time.
    """
    if peer == NOBODY:
        raise PeerUnreachable("Nobody leads the job at this moment: its replicas are electing a leader; try again.")
    with trio.move_on_after(ASK_S) as scope:
        stream = await visit.house.transport.open_control(peer)
        try:
            welcome = await stream.receive()
            if welcome is None or not isinstance(welcome.message, Welcome):
                raise PeerUnreachable(f"The node {short(peer)} does not speak as a p2premap node does.")
            await stream.send(message)
        except BaseException:
            await stream.aclose()
            raise
    if scope.cancelled_caught:
        raise PeerUnreachable(f"The node {short(peer)} did not answer within {ASK_S:.0f} s.")
    try:
        yield stream
    finally:
        await stream.aclose()


async def next_answer(stream: FrameStream, peer: NodeId) -> Frame:
    """The next answer of another desk.

    Raises:
        RequestError: it refused.
        PeerUnreachable: it has gone.
    """
    frame = await stream.receive()
    if frame is None:
        raise PeerUnreachable(f"The node {short(peer)} has gone.")
    if isinstance(frame.message, Refused):
        raise RequestError(frame.message.trouble, frame.message.text)
    return frame


async def ask(visit: Asker, peer: NodeId, message: Message, answer: type[M], *, timeout_s: float = ASK_S) -> M:
    """One question to another member, its one answer.

    Raises:
        RequestError: it refused.
        PeerUnreachable: it did not answer in time.
    """
    with trio.move_on_after(timeout_s):
        async with line_to(visit, peer, message) as stream:
            frame = await next_answer(stream, peer)
            if not isinstance(frame.message, answer):
                raise PeerUnreachable(f"The node {short(peer)} gave an answer that does not fit.")
            return frame.message
    raise PeerUnreachable(f"The node {short(peer)} did not answer within {timeout_s:.0f} s.")


class Answers(msgspec.Struct, Generic[M]):
    """What became of a question to all members.

    Args:
        silent: names of members that did not answer in time.
    """

    given: list[M] = msgspec.field(default_factory=list)
    refused: list[RequestError] = msgspec.field(default_factory=list)
    silent: list[str] = msgspec.field(default_factory=list)


async def ask_all(visit: Asker, message: Message, answer: type[M], *, timeout_s: float = ASK_S) -> Answers[M]:
    """The same question to every other living member at once."""
    answers = Answers[M]()

    async def one(peer: NodeId, name: str) -> None:
        try:
            answers.given.append(await ask(visit, peer, message, answer, timeout_s=timeout_s))
        except RequestError as error:
            answers.refused.append(error)
        except (PeerUnreachable, RemoteProtocolError):
            answers.silent.append(name)

    async with trio.open_nursery() as nursery:
        for view in visit.house.others():
            nursery.start_soon(one, view.node, view.name)
    answers.silent.sort()
    return answers


async def oldest_running_s(asker: Asker) -> float:
    """For how long the oldest job that goes on has done so: younger results may be its own. 0 where none goes on.

    Raises:
        RequestError: a member does not answer: a job that it leads may go on.
    """
    answers = await ask_all(asker, ListJobs(request=PASSED_ON), Jobs)
    if answers.silent:
        names = ", ".join(answers.silent)
        raise RequestError(
            Trouble.UNREACHABLE, f"No answer from {names}, whose jobs may be in need of anything: try again."
        )
    views = [*asker.house.jobs(), *(view for jobs in answers.given for view in jobs.views)]
    ages = [age_s(view, asker.house.wall_s()) + MARGIN_S for view in views if not over(view)]
    return max(ages, default=0.0)


async def find(visit: Visit, prefix: bytes) -> JobView:
    """The job whose id begins so, here or (briefly) at another member.

    Raises:
        RequestError: none, more than one, or too short a beginning.
    """
    if len(prefix) < PREFIX_BYTES_MIN:
        raise RequestError(Trouble.USAGE, "A job is named by at least the first 4 digits of its id.")
    views = {view.job: view for view in visit.house.core.job_views(trio.current_time(), prefix)}
    if visit.peer is None and not all(knows_best(visit, view) for view in views.values() or [None]):
        answers = await ask_all(visit, Watch(request=PASSED_ON, job=prefix, once=True), JobUpdate)
        for view in (update.view for update in answers.given):
            known = views.get(view.job)
            views[view.job] = view if known is None else max(known, view, key=worth)
        for error in answers.refused:
            if error.trouble is not Trouble.NOT_FOUND:
                raise error
        if not views and answers.silent:
            names = ", ".join(answers.silent)
            raise RequestError(
                Trouble.UNREACHABLE,
                f"No reachable node knows a job {prefix.hex()}; {names} did not answer: try again.",
            )
    if not views:
        raise RequestError(Trouble.NOT_FOUND, f"No job {prefix.hex()} is known; see `p2premap jobs`.")
    if len(views) > 1:
        raise RequestError(Trouble.USAGE, f"{len(views)} jobs begin with {prefix.hex()}; give more digits of the id.")
    return next(iter(views.values()))


def refuse_unknown_task(view: JobView, stage: int, task: int) -> None:
    """Refuse to tell of a task that the job does not have, as far as its view tells.

    Args:
        stage: -1: any.
        task: -1: none in particular.

    Raises:
        RequestError: it is not there.
    """
    if task < 0 or view.kind == CALLS or not view.stages:  # a program numbers its calls itself, and not in order
        return
    if not any(task < known.tasks for known in view.stages if stage in (-1, known.number)):
        name = f"{stage}.{task}" if stage >= 0 else str(task)
        has = ", ".join(f"{known.name} has 0 to {known.tasks - 1} ({known.number}.x)" for known in view.stages)
        raise RequestError(Trouble.NOT_FOUND, f"The job {short(view.job)} has no task {name}: of its stages, {has}.")


def knows_best(visit: Visit, view: JobView | None) -> bool:
    """Whether nobody can know more of the job than this node."""
    return view is not None and (over(view) or view.leader == visit.house.identity.node)


def worth(view: JobView) -> tuple[bool, bool]:
    """An ended job's last view is worth more than its leader's, and that one more than what a replica knows."""
    return over(view), bool(view.stages)


def over(view: JobView) -> bool:
    """Whether nothing more will happen to the job."""
    return view.phase.over
