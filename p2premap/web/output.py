"""Endpoints that hand bytes out: what attempts printed, the parts of the output, and the stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from typing import Annotated, BinaryIO, Final
from urllib.parse import quote

import blake3
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from p2premap.client.shapes import Shape
from p2premap.control.answers import Chunk
from p2premap.control.data import BlobHere, ReadBlob, ReadLog
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import P2PRemapError, RemoteProtocolError
from p2premap.ids import short
from p2premap.tasks.job import Part, Source
from p2premap.web.endpoints import Call, Endpoint, Media
from p2premap.web.jobs import prefix_of, whole_view
from p2premap.web.lognews import LogNews
from p2premap.web.problems import Problem
from p2premap.web.service import DOWNLOADS_MAX, FOLLOWERS_MAX, Service, has, reply
from p2premap.web.world import Update

CHUNK_BYTES: Final = 256 << 10
SEND_S: Final = 10.0
"""A client that takes nothing for so long is hung up on."""
LOOK_S: Final = 1.0
COST: Final = 5.0
"""Following a log takes a fifth of the time at most."""
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
TASK: Final = "stage and task, such as 0.17"
_TEXT: Final = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".log")


class PartShape(Shape, frozen=True, kw_only=True):
    """A part of the output. `nodes`: names of those that hold it."""

    number: int
    name: str
    bytes: int
    records: int
    nodes: list[str]
    href: str


class ResultsShape(Shape, frozen=True, kw_only=True):
    """The output of a job, as far as it is there. `url`: where nodes write it, or ""."""

    id: str
    phase: str
    url: str
    parts: list[PartShape]


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which log: of this task ("0.17"); the last so many lines (0: all); on until the job is over."""

    task: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,4}\.[0-9]{1,9})?\Z", description=TASK)] = ""
    tail: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    follow: bool = False


class Streaming(Response):
    """An answer in pieces, to a client that is not waited for without end.

    Args:
        pieces: of the body.
        length: of all of them, where it is known.
    """

    def __init__(
        self,
        web: Service,
        pieces: AsyncIterator[bytes],
        *,
        media_type: str,
        status: int = HTTPStatus.OK,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.status_code = status
        self.media_type = media_type
        self.background = None
        extra = dict(headers or {})
        if length is not None:
            extra["content-length"] = str(length)
        self.init_headers(extra)
        self._web = web
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the client goes."""
        sending = asyncio.ensure_future(self._send(scope, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            for task in (sending, gone):
                task.cancel()
                with contextlib.suppress(BaseException):
                    await task

    async def _send(self, scope: Scope, send: Send) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:  # type: ignore[type-var]  # an async generator
            try:
                await self._one(
                    send,
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers},
                )
                if scope["method"] != "HEAD":
                    async for piece in pieces:
                        await self._one(send, {"type": "http.response.body", "body": piece, "more_body": True})
                await self._one(send, {"type": "http.response.body", "body": b""})
            except (TimeoutError, OSError, P2PRemapError):
                # what has been promised cannot be kept: the client must not take it for the end
                self._web.hang_up(scope)

    async def _one(self, send: Send, message: dict[str, object]) -> None:
        async with asyncio.timeout(SEND_S):
            await send(message)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# --- logs ---------------------------------------------------------------------------------------------------------


async def read_logs(call: Call) -> Response:
    """What attempts printed."""
    query: LogQuery = call.query
    job = prefix_of(call)
    await _phase_over(call, job)  # of no job there is no log
    stage, task = map(int, query.task.split(".")) if query.task else (-1, -1)
    ask = partial(ReadLog, job=job, stage=stage, task=task)
    pieces = call.web.daemon.chunks(lambda n: ask(request=n))
    if query.tail and not query.follow:
        pieces = _tail(pieces, query.tail)
    pieces = await _begun(pieces)
    if query.follow:
        pieces = _followed(call, job, ask, pieces, query.tail)
    return Streaming(call.web, pieces, media_type="text/plain; charset=utf-8")


async def _begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, once the first one is here: so that what is refused is refused, and not broken off."""
    first = await anext(pieces, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(pieces):  # type: ignore[type-var]  # an async generator
            yield first
            async for piece in pieces:
                yield piece

    return all_of_them()


async def _phase_over(call: Call, job: bytes) -> bool:
    update = await call.web.daemon.ask(lambda n: Watch(request=n, job=job, once=True), JobUpdate)
    return update.view.phase.over


async def _tail(pieces: AsyncIterator[bytes], lines: int) -> AsyncIterator[bytes]:
    kept: deque[bytes] = deque(maxlen=lines)
    async for piece in pieces:
        kept.extend(piece.splitlines(keepends=True))
    yield b"".join(kept)


async def _followed(
    call: Call, job: bytes, ask: partial[ReadLog], pieces: AsyncIterator[bytes], tail: int
) -> AsyncIterator[bytes]:
    """What attempts print, as it comes to be there; a piece is the log of one attempt, so far.

    Args:
        pieces: of the first look.
        tail: so many lines of what is there then; 0: all.
    """
    news = LogNews()
    over = False
    if tail:
        kept = b"".join([news.of(piece) async for piece in pieces]).splitlines(keepends=True)
        yield b"".join(kept[-tail:])
    while True:
        began = time.monotonic()
        async for piece in pieces:
            if fresh := news.of(piece):
                yield fresh
        if over:
            return
        await asyncio.sleep(max(LOOK_S, COST * (time.monotonic() - began)))
        over = await _phase_over(call, job)
        pieces = call.web.daemon.chunks(lambda n: ask(request=n))


# --- results ------------------------------------------------------------------------------------------------------


async def list_results(call: Call) -> Response:
    """The parts of the output."""
    view = await whole_view(call)
    names = await call.web.names()
    parts = [
        PartShape(
            number=part.number,
            name=part.file_name,
            bytes=part.source.size,
            records=part.records,
            nodes=[names.get(holder, short(holder)) for holder in part.source.holders],
            href=f"/api/v1/jobs/{view.job.hex()}/results/{part.number}",
        )
        for part in view.parts
    ]
    return reply(call, ResultsShape(id=view.job.hex(), phase=view.phase.value, url=view.output, parts=parts))


async def read_part(call: Call) -> Response:
    """The bytes of a part, from whichever node holds it."""
    view, number = await whole_view(call), int(call.path["part"])
    part = next((part for part in view.parts if part.number == number), None)
    if part is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"The job {short(view.job)} has no part {number} (yet).")
    tag = f'"{part.source.digest.hex()[:32]}"'
    headers = {"etag": tag, "accept-ranges": "bytes", "cache-control": "no-cache"}
    if has(call.request, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    size = part.source.size
    start, stop, status = _range(call, size, tag)
    if status == HTTPStatus.PARTIAL_CONTENT:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(os.path.basename(part.file_name))}"
    web = call.web
    if web.downloads >= DOWNLOADS_MAX:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many downloads at a time; try again.", Retry_After="5")
    here = await _bring(call, part.source)
    pieces = await _begun(read_file(web, here, part.source, start, stop))
    media = "text/plain; charset=utf-8" if _is_text(part) else "application/octet-stream"
    return Streaming(web, pieces, media_type=media, status=status, headers=headers, length=stop - start)


def _is_text(part: Part) -> bool:
    name = os.path.basename(part.file_name)
    return "." not in name or name.endswith(_TEXT)


def _range(call: Call, size: int, tag: str) -> tuple[int, int, int]:
    """Which bytes are wanted, and the status of the answer (RFC 9110, 14.2).

    Raises:
        Problem: there are none such.
    """
    asked = call.request.headers.get("range", "")
    found = _RANGE.fullmatch(asked.strip())
    if found is None or not (found[1] or found[2]) or call.request.headers.get("if-range", tag) != tag:
        return 0, size, HTTPStatus.OK
    if found[1]:
        start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
        if found[2] and int(found[2]) < start:
            return 0, size, HTTPStatus.OK
    else:
        start, stop = max(0, size - int(found[2])), size
    if start >= size or start >= stop:
        raise Problem(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"There are {size} bytes.", Content_Range=f"bytes */{size}"
        )
    return start, stop, HTTPStatus.PARTIAL_CONTENT


async def _bring(call: Call, source: Source) -> BlobHere:
    """Have the part on this machine's disk."""
    async with contextlib.aclosing(
        call.web.daemon.stream(lambda n: ReadBlob(request=n, source=source, here=True))  # type: ignore[type-var]
    ) as frames:
        async for frame in frames:
            match frame.message:
                case BlobHere() as here:
                    return here
                case Chunk():
                    pass
                case _:
                    break
    raise RemoteProtocolError("The node gave an answer that does not fit the question.")


async def read_file(web: Service, here: BlobHere, source: Source, start: int, stop: int) -> AsyncIterator[bytes]:
    """A range of a part, compared with its digest, where the node has not done so.

    Raises:
        Problem: it is damaged, which is known before the first piece.
        RemoteProtocolError: it has been cut since.
    """
    web.downloads += 1
    try:
        # all that a small part needs in one thread's turn: turns are what is scarce on a busy machine
        file, piece = await asyncio.to_thread(_opened, here, source, start, min(CHUNK_BYTES, stop - start))
        with file:
            left = stop - start - len(piece)
            yield piece
            while left:
                piece = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
                if not piece:
                    raise RemoteProtocolError("The part's file has been cut.")
                left -= len(piece)
                yield piece
    finally:
        web.downloads -= 1


def _opened(here: BlobHere, source: Source, start: int, count: int) -> tuple[BinaryIO, bytes]:
    """The part's file, and its first bytes from `start` on. In a thread."""
    file = open(here.path, "rb", buffering=0)  # noqa: SIM115  (closed by who reads it)
    try:
        if not here.checked:
            file.seek(here.start)
            if not _is_whole(file, here.end - here.start, source.digest):
                raise Problem(HTTPStatus.BAD_GATEWAY, "The part is damaged on disk; ask again.")
        file.seek(here.start + start)
        return file, file.read(count)
    except BaseException:
        file.close()
        raise


def _is_whole(file: BinaryIO, left: int, digest: bytes) -> bool:
    hasher = blake3.blake3()
    while left and (piece := file.read(min(1 << 20, left))):
        left -= len(piece)
        hasher.update(piece)
    return hasher.digest() == digest


# --- events -------------------------------------------------------------------------------------------------------


async def follow_events(call: Call) -> Response:
    """What changes, as it changes."""
    hub = call.web.hub
    if hub.followers >= FOLLOWERS_MAX:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many streams of events; share one.", Retry_After="10")
    pieces = hub.follow(call.request.headers.get("last-event-id", ""))
    return Streaming(call.web, pieces, media_type="text/event-stream", headers={"cache-control": "no-store"})


_GONE: Final = {404: "no such job"}
_NOT_MODIFIED: Final = Media("the client has it", empty=True)
_JOB: Final = "/api/v1/jobs/{job}"
_EVENTS: Final = {"Last-Event-ID": "The event that was had last."}

ENDPOINTS: Final = [
    Endpoint(
        "GET", f"{_JOB}/logs", read_logs, "What attempts printed.", {200: Media("text/plain")}, LogQuery, fails=_GONE
    ),
    Endpoint("GET", f"{_JOB}/results", list_results, "Parts.", {200: ResultsShape, 304: _NOT_MODIFIED}, fails=_GONE),
    Endpoint(
        "GET",
        f"{_JOB}/results/{{part}}",
        read_part,
        "A part's bytes.",
        {200: Media("*/*"), 206: Media("*/*"), 304: _NOT_MODIFIED},
        headers={"Range": "Such as bytes=0-99."},
        fails={404: "no such job, or part", 416: "it has no such bytes"},
    ),
    Endpoint(
        "GET",
        "/api/v1/events",
        follow_events,
        "What changes.",
        {200: Media("text/event-stream", events=Update)},
        headers=_EVENTS,
    ),
]
