"""A client in a virtual world: hands a job in, watches it and fetches its parts, at whatever node lives.

It does what `p2premap.client` does over plain sockets, and remembers every view: what a client was shown must never
be taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import trio
from blake3 import blake3

from p2premap.control.answers import Chunk, Done, Refused, Welcome
from p2premap.control.data import PutBlob, ReadPart
from p2premap.control.jobs import JobUpdate, Submit, Submitted, Watch
from p2premap.errors import P2PRemapError, PeerUnreachable
from p2premap.ids import Digest, JobId, RequestId
from p2premap.node.streams import StreamFrames
from p2premap.ports import FrameStream
from p2premap.sim.daemon.host import HouseHost
from p2premap.sim.daemon.houses import DaemonWorld
from p2premap.tasks.job import JobSpec, JobView, Part
from p2premap.wire import PAYLOAD_BYTES_MAX, Frame, Message

AGAIN_S: Final = 0.2
ANSWER_S: Final = 10.0
"""A node that says nothing for so long is given up."""

ONE: Final = RequestId(1)

M = TypeVar("M", bound=Message)


class Rejected(P2PRemapError):
    """A node has said no."""


class Visitor:
    """One client.

    Args:
        daemons: the world.
        at: indices of the machines that it may go to, the first it likes best; all by default.
    """

    def __init__(self, daemons: DaemonWorld, at: Sequence[int] = ()) -> None:
        self.views: list[tuple[float, JobView]] = []
        """What it was shown, and when."""
        self.moves = 0
        """How often it had to go to another node."""
        self._daemons = daemons
        self._at = tuple(at) or tuple(range(len(daemons.world.seats)))
        self._parts: dict[int, Part] = {}

    # --- a job ----------------------------------------------------------------------------------------------------

    async def hand_in(self, spec: JobSpec, blobs: Sequence[tuple[Digest, bytes]], files: Sequence[str] = ()) -> JobId:
        """Submit a job; again under the same key where the node goes away meanwhile."""
        while True:
            try:
                async with _Line(self._daemons, self._at) as line:
                    for digest, blob in blobs:
                        await self._put(line, digest, blob)
                    answer = await line.ask(Submit(request=ONE, spec=spec, files=tuple(files)), Submitted)
                    return JobId(answer.job)
            except (PeerUnreachable, Rejected):
                self.moves += 1
                await trio.sleep(AGAIN_S)

    async def _put(self, line: _Line, digest: Digest, blob: bytes) -> None:
        for start in range(0, len(blob), PAYLOAD_BYTES_MAX) or range(1):
            piece = blob[start : start + PAYLOAD_BYTES_MAX]
            put = PutBlob(request=ONE, digest=digest, last=start + len(piece) == len(blob))
            await line.ask(put, Done, piece)

    async def see_through(self, job: JobId, seen: Callable[[JobView], None] = lambda _: None) -> JobView:
        """Watch a job to its end, through the loss of any node."""
        while True:
            try:
                async with _Line(self._daemons, self._at) as line:
                    await line.say(Watch(request=ONE, job=job))
                    self._parts.clear()
                    while True:
                        update = await line.next(JobUpdate, limit_s=None)
                        view = self._whole(update)
                        if view is None:
                            continue
                        self.views.append((trio.current_time(), view))
                        seen(view)
                        if view.phase.over:
                            return view
            except (PeerUnreachable, Rejected):
                self.moves += 1
            await trio.sleep(AGAIN_S)

    def _whole(self, update: JobUpdate) -> JobView | None:
        for number in update.gone:
            self._parts.pop(number, None)
        self._parts.update((part.number, part) for part in update.view.parts)
        if update.more:
            return None
        parts = tuple(self._parts[number] for number in sorted(self._parts))
        return _with_parts(update.view, parts)

    async def fetch(self, view: JobView, limit_s: float = 60.0) -> Mapping[int, bytes]:
        """The bytes of all parts of a job that is done.

        Raises:
            InvariantBroken: `parts`: one cannot be had within the limit.
        """
        parts: dict[int, bytes] = {}
        until = trio.current_time() + limit_s
        while len(parts) < len(view.parts):
            part = next(part for part in view.parts if part.number not in parts)
            try:
                async with _Line(self._daemons, self._at) as line:
                    await line.say(ReadPart(request=ONE, job=JobId(view.job), part=part.number))
                    data = await line.bytes()
                if blake3(data).digest() != part.source.digest:
                    raise self._daemons.world.broken("parts", f"part {part.number} is something else")
                parts[part.number] = data
            except (PeerUnreachable, Rejected) as error:
                if trio.current_time() > until:
                    raise self._daemons.world.broken("parts", f"part {part.number} cannot be had: {error}") from None
                await trio.sleep(AGAIN_S)
        return parts


def _with_parts(view: JobView, parts: tuple[Part, ...]) -> JobView:
    from msgspec.structs import replace

    return replace(view, parts=parts)


class _Line:
    """A connection to the first machine that serves clients.

    Raises:
        PeerUnreachable: none does.
    """

    def __init__(self, daemons: DaemonWorld, at: Sequence[int]) -> None:
        self._daemons = daemons
        self._at = at
        self._stream: FrameStream | None = None

    async def __aenter__(self) -> _Line:
        for index in self._at:
            host = self._daemons.world.seats[index].host
            if isinstance(host, HouseHost) and not host.seat.frozen and (stream := host.visit()) is not None:
                self._stream = stream
                await self.next(Welcome)
                return self
        raise PeerUnreachable("No node serves clients.")

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self._stream, StreamFrames):
            await self._stream.aclose()

    async def say(self, message: Message, payload: bytes = b"") -> None:
        """Ask something."""
        assert self._stream is not None
        with trio.move_on_after(ANSWER_S):
            await self._stream.send(message, payload)
            return
        raise PeerUnreachable("It does not listen.")

    async def ask(self, message: Message, answer: type[M], payload: bytes = b"") -> M:
        """One question, one answer."""
        await self.say(message, payload)
        return await self.next(answer)

    async def next(self, kind: type[M], limit_s: float | None = ANSWER_S) -> M:
        """The next answer, of this kind.

        Raises:
            Rejected: it is a refusal.
        """
        frame = await self._frame(limit_s)
        if isinstance(frame.message, kind):
            return frame.message
        if isinstance(frame.message, Refused):
            raise Rejected(frame.message.text)
        raise PeerUnreachable(f"{type(frame.message).__name__} does not fit.")

    async def bytes(self) -> bytes:
        """The payload of all chunks up to the last."""
        data = bytearray()
        while True:
            frame = await self._frame(ANSWER_S)
            if isinstance(frame.message, Refused):
                raise Rejected(frame.message.text)
            data += frame.payload
            if isinstance(frame.message, Chunk) and frame.message.last:
                return bytes(data)

    async def _frame(self, limit_s: float | None) -> Frame:
        assert self._stream is not None
        with trio.move_on_after(float("inf") if limit_s is None else limit_s):
            frame = await self._stream.receive()
            if frame is None:
                raise PeerUnreachable("It has hung up.")
            return frame
        raise PeerUnreachable("It says nothing.")
