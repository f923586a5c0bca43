"""What changes, as one stream that all followers share.

::

    daemon --News (of every node)--> Hub: nodes, jobs, attempts as they are now
                                      | five times a second, where something has changed: one event, encoded once
                                      v
                                    ring of the last events <-- each follower has a place in it, and nothing else

So a follower costs a number, however slow it is; one that the ring has overtaken is hung up on. The daemon is followed
as long as somebody follows here, and a while longer, so that who comes back can go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import msgspec

from p2premap.client.shapes import NodeShape, StatusShape
from p2premap.control.nodes import GetStatus, Status
from p2premap.control.web import Follow, News
from p2premap.errors import P2PRemapError
from p2premap.web.daemon import Daemon
from p2premap.web.world import Update, World

TICK_S: Final = 0.2
RING_S: Final = 60.0
RING_BYTES_MAX: Final = 4 << 20
STATUS_S: Final = 2.0
LOOK_S: Final = 1.0
AGAIN_S: Final = 0.5
SILENCE_S: Final = 20.0
CHUNK_BYTES: Final = 256 << 10
COMMENT_S: Final = 10.0
_COMMENT: Final = b": still here\n\n"

log = logging.getLogger(__name__)


class _Event(NamedTuple):
    number: int
    at: float
    data: bytes


class Hub:
    """Follows the daemon for everybody.

    Args:
        daemon: to follow.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._world = World()
        self._epoch = secrets.token_hex(4)
        self._number = 0
        self._ring: deque[_Event] = deque()
        self._ring_bytes = 0
        self._more = asyncio.Event()
        self._followers = 0
        self._left = -RING_S
        self._snapshot: tuple[int, bytes] = (-1, b"")
        self._wanted = asyncio.Event()
        self._first = asyncio.Event()
        self.over = False

    @property
    def followers(self) -> int:
        """How many there are."""
        return self._followers

    @property
    def nodes(self) -> dict[bytes, NodeShape]:
        """The members by id; none while nobody follows."""
        return self._world.nodes

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self._serve()
            except* Exception:
                # a fault of ours in one piece of news must not be the end of all
                log.exception("following the node has failed; it is begun anew")
                await asyncio.sleep(AGAIN_S)
            self._forget()

    async def _serve(self) -> None:
        """As long as somebody follows, and a while longer."""
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part()) for part in (self._follow, self._look, self._tell)]
            while True:
                await asyncio.sleep(LOOK_S)
                if not self._followers and time.monotonic() - self._left > RING_S:
                    break
            for part in parts:
                part.cancel()

    def bye(self) -> None:
        """The node stops: every follower is told, and nothing more."""
        self.over = True
        self._wake()

    async def follow(self, last: str) -> AsyncIterator[bytes]:
        """Events for one follower, as they are sent; ends where it has been overtaken, or the node stops.

        Args:
            last: the id of the event that it had last, or "".
        """
        self._followers += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._first.wait()
            place = self._place(last)
            if place is None:
                place = self._number
                yield b"retry: 1000\n" + self._everything()
            while not self.over:
                if (data := self._after(place)) is None:
                    return
                chunk, place = data
                if chunk:
                    yield chunk
                    continue
                more = self._more
                try:
                    async with asyncio.timeout(COMMENT_S):
                        await more.wait()
                except TimeoutError:
                    yield _COMMENT
            yield b"event: bye\ndata: " + msgspec.json.encode(Update(at=time.time())) + b"\n\n"
        except TimeoutError:
            return
        finally:
            self._followers -= 1
            self._left = time.monotonic()

    # --- what is told ---------------------------------------------------------------------------------------------

    def _place(self, last: str) -> int | None:
        """Where a follower goes on that had this event last; None where that is not known (any more)."""
        epoch, _, number = last.partition("-")
        if epoch != self._epoch or not number.isdecimal() or len(number) > 15:
            return None
        first = self._ring[0].number if self._ring else self._number + 1
        return int(number) if first - 1 <= int(number) <= self._number else None

    def _after(self, place: int) -> tuple[bytes, int] | None:
        """What comes behind this event, and the last of it; None where some of that is forgotten."""
        if not self._ring or place >= self._number:
            return b"", place
        skip = place + 1 - self._ring[0].number
        if skip < 0:
            return None
        data, size = [], 0
        for index in range(skip, len(self._ring)):
            event = self._ring[index]
            data.append(event.data)
            size += len(event.data)
            place = event.number
            if size >= CHUNK_BYTES:
                break
        return b"".join(data), place

    def _everything(self) -> bytes:
        if self._snapshot[0] != self._number:
            data = msgspec.json.encode(self._world.everything())
            name = f"id: {self._epoch}-{self._number}\nevent: snapshot\ndata: ".encode()
            self._snapshot = self._number, name + data + b"\n\n"
        return self._snapshot[1]

    def _put(self, update: Update) -> None:
        self._number += 1
        head = f"id: {self._epoch}-{self._number}\nevent: update\ndata: ".encode()
        event = _Event(self._number, time.monotonic(), head + msgspec.json.encode(update) + b"\n\n")
        self._ring.append(event)
        self._ring_bytes += len(event.data)
        while self._ring_bytes > RING_BYTES_MAX or event.at - self._ring[0].at > RING_S:
            self._ring_bytes -= len(self._ring.popleft().data)
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    def _forget(self) -> None:
        """Nobody follows: what is known gets old."""
        self._world = World()
        self._epoch = secrets.token_hex(4)
        self._ring.clear()
        self._ring_bytes = self._number = 0
        self._snapshot = (-1, b"")
        self._first = asyncio.Event()
        if not self._followers:
            self._wanted.clear()

    # --- what is heard --------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(
                    self._daemon.stream(lambda n: Follow(request=n), silence_s=SILENCE_S)  # type: ignore[type-var]
                ) as frames:
                    async for frame in frames:
                        if isinstance(frame.message, News):
                            self._world.hear(frame.message)
                            self._first.set()
            except P2PRemapError as error:
                log.info("the node cannot be followed now: %s", error)
            await asyncio.sleep(AGAIN_S)

    async def _look(self) -> None:
        """What no news say: how the node itself is."""
        while True:
            with contextlib.suppress(P2PRemapError):
                status = await self._daemon.ask(lambda n: GetStatus(request=n), Status)
                self._world.know(StatusShape.of(status, self._world.jobs))
            await asyncio.sleep(STATUS_S)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if (update := self._world.changes()) is not None:
                self._put(update)
