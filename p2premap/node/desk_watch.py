"""Watching a job to its end, and the bytes of its parts, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import trio
from blake3 import blake3

from p2premap.control.answers import Chunk, Trouble
from p2premap.control.data import FindPart, PartFound, ReadPart
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import P2PRemapError, PeerUnreachable, RemoteProtocolError
from p2premap.ids import JobId, NodeId, RequestId, short
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import (
    PASSED_ON,
    ask,
    ask_all,
    find,
    knows_best,
    line_to,
    next_answer,
    over,
)
from p2premap.node.staging import SourceLost
from p2premap.tasks.job import JobView, Part, Source
from p2premap.wire import Message
from p2premap.worker.runtime import Segment

LOOK_AGAIN_S: Final = 0.25
"""A job that nobody leads, or that has just moved, is looked for again after this long."""
CHUNK_BYTES: Final = 1 << 20
ALIVE_S: Final = 5.0
"""A client that waits for bytes which are on their way here gets a sign this often."""
UPDATE_PARTS: Final = 500
"""Parts in one `JobUpdate`: about 50 KB, which take this thread about 10 ms."""


async def watch(visit: Visit, message: Message, _: bytes) -> None:
    """`Watch`: from here, or passed on from the job's leader, whoever that is at each moment."""
    assert isinstance(message, Watch)
    found = await find(visit, message.job)
    if message.once:
        await visit.say(JobUpdate(request=message.request, view=found.brief()))
        return
    told: dict[int, Part] = {}
    while True:
        job = JobId(found.job)
        last: JobView | None = None
        here = next(iter(visit.house.core.job_views(trio.current_time(), job)), None)
        if here is not None and knows_best(visit, here):
            last = await _watch_here(visit, message.request, here, told)
        elif visit.peer is not None:
            raise RequestError(Trouble.UNREACHABLE, f"The job {short(job)} is led by another node.")
        elif tellers := _tellers(visit, found):
            for node in tellers:
                if last is None:
                    last = await _watch_there(visit, message.request, node, job, told)
        else:
            await visit.say(JobUpdate(request=message.request, view=found))
        if last is not None and over(last):
            return
        await visit.house.bulletin.moved(job, within_s=LOOK_AGAIN_S)
        found = await find(visit, job)


def _tellers(visit: Visit, found: JobView) -> list[NodeId]:
    """Members that may know the whole of a job known only briefly here: its leader; of one that is over, all."""
    alive = [view.node for view in visit.house.others()]
    leader = [node for node in alive if node == found.leader]
    return [*leader, *(node for node in alive if node != found.leader)] if over(found) else leader


async def _watch_here(visit: Visit, request: RequestId, found: JobView, told: dict[int, Part]) -> JobView | None:
    """Tell of a job that is led here or over; its last view, or None where it is led elsewhere now."""
    seen: JobView | None = None
    while seen is None or not over(seen):
        fresh = await visit.house.bulletin.after(JobId(found.job), seen) if not over(found) else found
        if fresh is None:
            return None
        seen = fresh
        for update in _news(request, seen, told):
            await visit.say(update)
    return seen


async def _watch_there(
    visit: Visit, request: RequestId, node: NodeId, job: JobId, told: dict[int, Part]
) -> JobView | None:
    """Pass on what another node tells; its last view, or None where that node does not lead the job (any more)."""
    forward = Watch(request=PASSED_ON, job=job)
    whole: dict[int, Part] = {}
    try:
        async with line_to(visit, node, forward) as stream:
            while True:
                frame = await next_answer(stream, node)
                update = frame.message
                if not isinstance(update, JobUpdate):
                    raise PeerUnreachable(f"The node {short(node)} gave an answer that does not fit.")
                for number in update.gone:
                    whole.pop(number, None)
                whole.update((part.number, part) for part in update.view.parts)
                if update.more:
                    continue
                view = msgspec.structs.replace(update.view, parts=tuple(whole[n] for n in sorted(whole)))
                for news in _news(request, view, told):
                    await visit.say(news)
                if over(view):
                    return view
    except (PeerUnreachable, RemoteProtocolError):
        return None
    except RequestError as error:
        if error.trouble in (Trouble.NOT_FOUND, Trouble.UNREACHABLE):
            return None
        raise


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


async def read_part(visit: Visit, message: Message, _: bytes) -> None:
    """`ReadPart`: from this node's blobs, a neighbour's, or fetched from a node that holds it."""
    assert isinstance(message, ReadPart)
    part = await _locate(visit, message)
    await send_source(visit, message.request, part.source, f"Part {part.number}")


async def send_source(visit: Visit, request: RequestId, source: Source, what: str) -> None:
    """Send these bytes as `Chunk`s, wherever they are held.

    Args:
        what: they are, for people: the subject of a sentence.

    Raises:
        RequestError: nobody hands them out, or they are damaged.
        StoreUnwritable: there is no room for them here.
    """
    segment = await bring(visit, request, source, what)
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


async def _locate(visit: Visit, message: ReadPart) -> Part:
    """Where a part is: as this node knows, or its leader, or any replica of a job that is over.

    Raises:
        RequestError: nobody knows the part.
    """
    me = visit.house.identity.node
    try:
        return _part_here(visit, message.job, message.part)
    except RequestError:
        leader = message.leader
        if leader is None or leader == me:
            leader = (await find(visit, message.job)).leader
        if leader == me:
            raise
    question = FindPart(request=PASSED_ON, job=message.job, part=message.part)
    try:
        return (await ask(visit, leader, question, PartFound)).part
    except (PeerUnreachable, RemoteProtocolError, RequestError):
        answers = await ask_all(visit, question, PartFound)
        if not answers.given:
            raise
        return answers.given[0].part


async def bring(visit: Visit, request: RequestId, source: Source, what: str) -> Segment:
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
    """`FindPart`: of a job that is led here, or over."""
    assert isinstance(message, FindPart)
    part = _part_here(visit, message.job, message.part)
    await visit.say(PartFound(request=message.request, part=part))


def _part_here(visit: Visit, job: JobId, number: int) -> Part:
    """A part of a job that is led here, as watchers were told.

    Raises:
        RequestError: there is none.
    """
    view = visit.house.bulletin.latest(job)
    if view is None:  # it was over before this node started
        view = next(iter(visit.house.core.job_views(trio.current_time(), job)), None)
    part = next((part for part in view.parts if part.number == number), None) if view is not None else None
    if part is None:
        raise RequestError(Trouble.NOT_FOUND, f"The job {job.hex()[:8]} has no part {number} yet.")
    return part


HANDLERS: dict[type[Message], Handler] = {
    Watch: watch,
    ReadPart: read_part,
    FindPart: find_part,
}
