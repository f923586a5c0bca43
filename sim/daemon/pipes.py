"""Streams of bytes between two processes of a world: what `p2premap.node.streams.StreamFrames` runs over here.

They break as TCP does: the end of a process closes or resets its streams while its kernel can speak, a machine without
power says nothing, and what cannot cross waits until it can or is given up after `link_timeout_s`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from p2premap.sim.machines import Seat
from p2premap.sim.world import World

BYTES_PER_S: Final = 100e6
BUFFER_BYTES: Final = 1 << 20
"""What a stream holds on its way, until its writer has to wait."""

AGAIN_S: Final = 0.2
AGAIN_MAX_S: Final = 5.0


class Pipe(trio.abc.Stream):
    """One end of a stream. Make both with `pair`.

    Args:
        seat: whose process holds it; both ends may be at one machine: a client and its node.
    """

    def __init__(self, world: World, seat: Seat) -> None:
        self._world = world
        self._seat = seat
        self._life = seat.life
        self._other: Pipe
        self._arrived: deque[bytes] = deque()
        self._leaving: deque[tuple[float, bytes]] = deque()
        self._on_the_way = 0
        self._over = False
        self._broken = False
        self._closed = False
        self._news = trio.Event()

    # --- trio.abc.Stream ------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stand_by()
        if self._closed:
            raise trio.ClosedResourceError
        if self._broken or self._lost:
            raise trio.BrokenResourceError
        self._on_the_way += len(data)
        self._seat.bytes_sent += len(data)
        self._write(bytes(data))
        while self._on_the_way > BUFFER_BYTES and not self._broken and not self._closed:
            await self._news.wait()

    def send_now(self, data: bytes | memoryview) -> int:
        """As `p2premap.node.quick.QuickStream.send_now`."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._broken or self._lost:
            raise trio.BrokenResourceError
        if self._seat.frozen or self._on_the_way > BUFFER_BYTES:
            return 0
        self._on_the_way += len(data)
        self._seat.bytes_sent += len(data)
        self._write(bytes(data))
        return len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            await self._stand_by()
            if self._closed:
                raise trio.ClosedResourceError
            if self._arrived:
                return self._take(max_bytes)
            if self._over:
                return b""
            if self._broken:
                raise trio.BrokenResourceError
            await self._news.wait()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._tell()
            self._write(b"")
        await trio.lowlevel.checkpoint()

    # --- what the world does --------------------------------------------------------------------------------------

    def process_ended(self, *, kernel_speaks: bool) -> None:
        """The process that holds this end is gone. A client always hears of it: its machine is no part of the world."""
        self._broken = self._closed = True
        self._tell()
        if kernel_speaks or self._seat is self._other._seat:
            self._world.clock.after(self._delay_s(), self._reset, self._world.now, AGAIN_S)

    @property
    def over(self) -> bool:
        """Whether this end is of no use any more."""
        return self._closed or self._broken

    # --- within ---------------------------------------------------------------------------------------------------

    @property
    def _lost(self) -> bool:
        """The process that held this end is gone: nothing it still does counts."""
        return self._seat.life != self._life

    async def _stand_by(self) -> None:
        """Nothing is read or written by a process that does not run."""
        await trio.lowlevel.checkpoint()
        while self._seat.frozen and not self._lost:  # noqa: ASYNC110  (a client, too, stands before a machine that stands)
            await trio.sleep(AGAIN_S)

    def _take(self, max_bytes: int | None) -> bytes:
        data = self._arrived.popleft()
        if max_bytes is not None and len(data) > max_bytes:
            self._arrived.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._other._on_the_way -= len(data)
        self._other._tell()
        return data

    def _delay_s(self) -> float:
        return 0.0 if self._seat is self._other._seat else self._world.network.delay_s(self._seat, self._other._seat)

    def _reaches(self) -> bool:
        far = self._other._seat
        return far is self._seat or (self._world.network.reaches(self._seat, far) and not self._world.network.lost())

    def _write(self, data: bytes) -> None:
        """Put data, or b"" for the end, on its way, behind what is before it."""
        due = self._world.now + self._delay_s() + len(data) / BYTES_PER_S
        if self._leaving:
            self._leaving.append((max(due, self._leaving[-1][0]), data))
        else:
            self._leaving.append((due, data))
            self._world.clock.at(due, self._cross, self._world.now, AGAIN_S)

    def _cross(self, since: float, again_s: float) -> None:
        """What is due reaches the other kernel; what cannot is sent again, with TCP's patience."""
        while self._leaving and not self._broken and not (self._lost and not self._closed):
            due, data = self._leaving[0]
            if due > self._world.now:
                self._world.clock.at(due, self._cross, due, AGAIN_S)
                return
            if not self._reaches():
                if self._world.now - since > self._world.network.config.link_timeout_s:
                    self._break()
                else:
                    self._world.clock.after(again_s, self._cross, since, min(2 * again_s, AGAIN_MAX_S))
                return
            self._leaving.popleft()
            self._hand_over(data)

    def _hand_over(self, data: bytes) -> None:
        other = self._other
        if other._lost or other._broken or (other._closed and data):
            self._break()
        elif data:
            other._arrived.append(data)
            other._tell()
        else:
            other._over = True
            other._tell()

    def _reset(self, since: float, again_s: float) -> None:
        if self._reaches():
            self._other._break()
        elif self._world.now - since < self._world.network.config.link_timeout_s:
            self._world.clock.after(again_s, self._reset, since, min(2 * again_s, AGAIN_MAX_S))

    def _break(self) -> None:
        self._broken = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


def pair(world: World, near: Seat, far: Seat) -> tuple[Pipe, Pipe]:
    """Both ends of a new stream between two running processes."""
    a, b = Pipe(world, near), Pipe(world, far)
    a._other, b._other = b, a
    return a, b
