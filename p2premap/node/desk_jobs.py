"""Answers about jobs: submit, watch, list, cancel, and the bytes of parts and logs, wherever they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import accumulate
from typing import Final, Generic, TypeVar

import msgspec
import trio
from blake3 import blake3

from p2premap.control import (
    Cancel,
    Chunk,
    Done,
    FindPart,
    Jobs,
    JobUpdate,
    ListJobs,
    PartFound,
    PutBlob,
    ReadLog,
    ReadPart,
    Refused,
    Submit,
    Submitted,
    Trouble,
    Watch,
    Welcome,
)
from p2premap.errors import JobLost, P2PRemapError, PeerUnreachable, RemoteProtocolError
from p2premap.ids import JobId, NodeId, RequestId, short
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.logs import list_logs
from p2premap.node.logs import read_log as read_log_file
from p2premap.node.staging import SourceLost
from p2premap.ports import FrameStream
from p2premap.tasks.job import JobView, Part, Source
from p2premap.wire import Frame, Message
from p2premap.worker.runtime import Segment

ASK_S: Final = 3.0
"""How long another member may take to answer a question that one of our clients asked."""

PREFIX_BYTES_MIN: Final = 2
CHUNK_BYTES: Final = 1 << 20
ALIVE_S: Final = 5.0
"""A client that waits for bytes which are on their way here gets a sign this often."""
UPDATE_PARTS: Final = 500
"""Parts in one `JobUpdate`: about 50 KB, which take this thread about 10 ms."""
LIST_BYTES_MAX: Final = 2 << 20
"""Of the views in one list of jobs: half of what a message's header may be."""
UPLOADS_MAX: Final = 16
PASSED_ON: Final = RequestId(1)
"""The one request on a stream that this desk opens to another."""

M = TypeVar("M", bound=Message)


# --- other members ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def line_to(visit: Visit, peer: NodeId, message: Message) -> AsyncIterator[FrameStream]:
    """A stream to another member's desk, on which `message` has been asked.

    Raises:
        PeerUnreachable: it cannot be reached, or does not speak in time.
    """
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


async def ask(visit: Visit, peer: NodeId, message: Message, answer: type[M], *, timeout_s: float = ASK_S) -> M:
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


async def ask_all(visit: Visit, message: Message, answer: type[M]) -> Answers[M]:
    """The same question to every other living member at once."""
    answers = Answers[M]()

    async def one(peer: NodeId, name: str) -> None:
        try:
            answers.given.append(await ask(visit, peer, message, answer))
        except RequestError as error:
            answers.refused.append(error)
        except (PeerUnreachable, RemoteProtocolError):
            answers.silent.append(name)

    async with trio.open_nursery() as nursery:
        for view in visit.house.others():
            nursery.start_soon(one, view.node, view.name)
    answers.silent.sort()
    return answers


# --- finding a job ------------------------------------------------------------------------------------------------


async def find(visit: Visit, prefix: bytes) -> JobView:
    """The job whose id begins so, here or (briefly) at another member.

    Raises:
        RequestError: none, more than one, or too short a beginning.
    """
    if len(prefix) < PREFIX_BYTES_MIN:
        raise RequestError(Trouble.USAGE, "A job is named by at least the first 4 digits of its id.")
    views = {view.job: view for view in visit.house.core.job_views(trio.current_time(), prefix)}
    if not views and visit.peer is None:
        answers = await ask_all(visit, Watch(request=PASSED_ON, job=prefix, once=True), JobUpdate)
        views = {update.view.job: update.view for update in answers.given}
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


# --- handlers -----------------------------------------------------------------------------------------------------


async def put_blob(visit: Visit, message: Message, payload: bytes) -> None:
    """`PutBlob`."""
    assert isinstance(message, PutBlob)
    writer = visit.uploads.get(message.digest)
    if writer is None:
        if len(visit.uploads) >= UPLOADS_MAX:
            raise RequestError(Trouble.USAGE, f"More than {UPLOADS_MAX} blobs at a time on one connection.")
        writer = visit.uploads[message.digest] = visit.house.blobs.writer()
    try:
        await trio.to_thread.run_sync(writer.write, payload)
        if message.last:
            del visit.uploads[message.digest]
            ref = await trio.to_thread.run_sync(writer.finish)
            if ref.digest != message.digest:
                raise RequestError(Trouble.USAGE, "What was sent is not what was announced; send it again.")
    except BaseException:
        visit.uploads.pop(message.digest, None)
        writer.discard()
        raise
    await visit.say(Done(request=message.request))


async def submit(visit: Visit, message: Message, _: bytes) -> None:
    """`Submit`."""
    assert isinstance(message, Submit)
    house = visit.house
    for blob in (message.spec.code, message.spec.plan):
        if house.blobs.size(blob.digest) != blob.size:
            raise RequestError(Trouble.USAGE, "The job's code and plan have not been put before it; put them first.")
    plan = await trio.to_thread.run_sync(house.blobs.get, message.spec.plan.digest)
    accepted = await house.submit(message.spec, plan, message.files)
    await visit.say(Submitted(request=message.request, job=accepted.job, copies=accepted.copies))


async def watch(visit: Visit, message: Message, _: bytes) -> None:
    """`Watch`: from here, or passed on from the job's leader."""
    assert isinstance(message, Watch)
    found = await find(visit, message.job)
    if message.once:
        await visit.say(JobUpdate(request=message.request, view=found.brief()))
        return
    if found.leader != visit.house.identity.node:
        forward = Watch(request=PASSED_ON, job=found.job)
        async with line_to(visit, found.leader, forward) as stream:
            while True:
                frame = await next_answer(stream, found.leader)
                update = frame.message
                if not isinstance(update, JobUpdate):
                    raise PeerUnreachable(f"The node {short(found.leader)} gave an answer that does not fit.")
                await visit.say(msgspec.structs.replace(update, request=message.request))
                if over(update.view) and not update.more:
                    return
    seen: JobView | None = None
    told: dict[int, Part] = {}
    while seen is None or not over(seen):
        seen = await visit.house.bulletin.after(JobId(found.job), seen)
        for update in _news(message.request, seen, told):
            await visit.say(update)


def _news(request: RequestId, view: JobView, told: dict[int, Part]) -> Iterator[JobUpdate]:
    """What a watcher that was told of these parts must hear of a view; `told` is kept up to date."""
    fresh = [part for part in view.parts if told.get(part.number) != part]
    gone = tuple(told.keys() - {part.number for part in view.parts})
    for number in gone:
        del told[number]
    told.update((part.number, part) for part in fresh)
    for start in range(0, len(fresh), UPDATE_PARTS) or range(1):
        some = tuple(fresh[start : start + UPDATE_PARTS])
        more = start + UPDATE_PARTS < len(fresh)
        yield JobUpdate(request=request, view=msgspec.structs.replace(view, parts=some), gone=gone, more=more)
        gone = ()


def over(view: JobView) -> bool:
    """Whether nothing more will happen to the job."""
    return view.phase.over


async def list_jobs(visit: Visit, message: Message, _: bytes) -> None:
    """`ListJobs`."""
    assert isinstance(message, ListJobs)
    views = {view.job: view.brief() for view in visit.house.jobs()}
    answers = Answers[Jobs]()
    if visit.peer is None:
        answers = await ask_all(visit, ListJobs(request=PASSED_ON), Jobs)
        for jobs in answers.given:
            views.update({view.job: view for view in jobs.views})
    newest = sorted(views.values(), key=lambda view: (view.age_s, view.job))
    sizes = accumulate(_bytes_at_most(view) for view in newest)
    told = tuple(view for view, size in zip(newest, sizes, strict=True) if size <= LIST_BYTES_MAX)
    left_out = len(newest) - len(told) + sum(jobs.left_out for jobs in answers.given)
    await visit.say(Jobs(request=message.request, views=told, silent=tuple(answers.silent), left_out=left_out))


def _bytes_at_most(view: JobView) -> int:
    """How long a brief view is in a message, at most; a character is up to four bytes."""
    texts = (view.name, view.kind, view.leader_name, view.error, view.note, *(name for name, _ in view.nodes))
    stages = sum(160 + 4 * len(stage.name) for stage in view.stages)
    return 128 + stages + sum(16 + 4 * len(text) for text in texts)


async def cancel(visit: Visit, message: Message, _: bytes) -> None:
    """`Cancel`."""
    assert isinstance(message, Cancel)
    view = await find(visit, message.job)
    if over(view):
        await visit.say(Done(request=message.request, text=f"The job was over already: {view.phase.value}."))
        return
    if view.leader != visit.house.identity.node:
        forward = Cancel(request=PASSED_ON, job=view.job, reason=message.reason)
        done = await ask(visit, view.leader, forward, Done, timeout_s=30.0)
        await visit.say(Done(request=message.request, text=done.text))
        return
    seen = visit.house.bulletin.latest(JobId(view.job))
    visit.house.cancel(JobId(view.job), message.reason)
    try:
        while seen is None or not over(seen):
            seen = await visit.house.bulletin.after(JobId(view.job), seen)
        text = f"The job is over: {seen.phase.value}."
    except JobLost:  # only what is over is forgotten
        text = "The job is over."
    await visit.say(Done(request=message.request, text=text))


async def read_part(visit: Visit, message: Message, _: bytes) -> None:
    """`ReadPart`: from this node's blobs, a neighbour's, or fetched from a node that holds it."""
    assert isinstance(message, ReadPart)
    leader = message.leader
    if leader is None:
        leader = (await find(visit, message.job)).leader
    if leader == visit.house.identity.node:
        part = _part_here(visit, message.job, message.part)
    else:
        question = FindPart(request=PASSED_ON, job=message.job, part=message.part)
        part = (await ask(visit, leader, question, PartFound)).part
    await send_source(visit, message.request, part.source, f"Part {part.number}")


async def send_source(visit: Visit, request: RequestId, source: Source, what: str) -> None:
    """Send these bytes as `Chunk`s, wherever they are held.

    Args:
        what: they are, for people: the subject of a sentence.

    Raises:
        RequestError: nobody hands them out, or they are damaged.
        StoreUnwritable: there is no room for them here.
    """
    segment = await _bring(visit, request, source, what)
    left, hasher = segment.end - segment.start, blake3()
    async with await trio.open_file(segment.path, "rb") as file:
        await file.seek(segment.start)
        while left and (piece := await file.read(min(CHUNK_BYTES, left))):
            left -= len(piece)
            hasher.update(piece)
            await visit.say(Chunk(request=request), piece)
    if hasher.digest() != source.digest:
        visit.house.stager.distrust(source.digest)
        raise RequestError(Trouble.REFUSED, f"{what} is damaged on disk at {segment.path}; ask again.")
    await visit.say(Chunk(request=request, last=True))


async def _bring(visit: Visit, request: RequestId, source: Source, what: str) -> Segment:
    """The bytes on this machine's disk. While they are on their way, the client hears that this node lives.

    Raises:
        RequestError: nobody hands it out.
        StoreUnwritable: there is no room for it here.
    """
    here = trio.Event()

    async def say_alive() -> None:
        while not here.is_set():
            with trio.move_on_after(ALIVE_S):
                await here.wait()
                return
            await visit.say(Chunk(request=request))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_alive)
        try:
            found: Segment | Exception = await visit.house.stager.bring(source)
        except SourceLost as error:
            found = RequestError(Trouble.UNREACHABLE, f"{what} cannot be had now: {error}")
        except (P2PRemapError, OSError) as error:
            found = error
        here.set()
    if isinstance(found, Exception):
        raise found
    return found


async def find_part(visit: Visit, message: Message, _: bytes) -> None:
    """`FindPart`: of a job that is led here."""
    assert isinstance(message, FindPart)
    part = _part_here(visit, message.job, message.part)
    await visit.say(PartFound(request=message.request, part=part))


def _part_here(visit: Visit, job: JobId, number: int) -> Part:
    """A part of a job that is led here, as watchers were told.

    Raises:
        RequestError: there is none.
    """
    view = visit.house.bulletin.latest(job)
    part = next((part for part in view.parts if part.number == number), None) if view is not None else None
    if part is None:
        raise RequestError(Trouble.NOT_FOUND, f"The job {job.hex()[:8]} has no part {number} yet.")
    return part


async def read_log(visit: Visit, message: Message, _: bytes) -> None:
    """`ReadLog`: what every living node has kept of what the job's attempts printed."""
    assert isinstance(message, ReadLog)
    job = message.job if visit.peer is not None else (await find(visit, message.job)).job
    found = await trio.to_thread.run_sync(
        partial(list_logs, visit.house.executor.logs, JobId(job), stage=message.stage, task=message.task)
    )
    for file in found:
        head = f"==> stage {file.stage}, task {file.task}, attempt {file.attempt}, on {visit.house.name} <==\n"
        text = await trio.to_thread.run_sync(read_log_file, file)
        await visit.say(Chunk(request=message.request), head.encode() + text + b"\n")
    if visit.peer is None:
        forward = ReadLog(request=PASSED_ON, job=job, stage=message.stage, task=message.task)
        for view in visit.house.others():
            try:
                async with line_to(visit, view.node, forward) as stream:
                    while True:
                        frame = await next_answer(stream, view.node)
                        if not isinstance(frame.message, Chunk) or frame.message.last:
                            break
                        await visit.say(Chunk(request=message.request), frame.payload)
            except (PeerUnreachable, RequestError, RemoteProtocolError) as error:
                await visit.say(Chunk(request=message.request), f"==> {view.name}: {error} <==\n".encode())
    await visit.say(Chunk(request=message.request, last=True))


HANDLERS: dict[type[Message], Handler] = {
    PutBlob: put_blob,
    Submit: submit,
    Watch: watch,
    ListJobs: list_jobs,
    Cancel: cancel,
    ReadPart: read_part,
    FindPart: find_part,
    ReadLog: read_log,
}
