"""Gangs of virtual worker processes: what passes between them, in virtual time, where the network lets it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import trio

from p2premap.tasks.meeting import Meeting
from p2premap.worker.gang import Buffer, PeerLost

if TYPE_CHECKING:
    from p2premap.sim.daemon.host import HouseHost

AGAIN_S: Final = 0.5
"""How soon what a cut has held up is noticed to go on."""


class Meetings:
    """All gangs of a world."""

    def __init__(self) -> None:
        self._halls: dict[bytes, Hall] = {}

    def of(self, meeting: Meeting) -> Hall:
        """Where this gang meets."""
        if meeting.id not in self._halls:
            self._halls[meeting.id] = Hall(len(meeting.seats))
        return self._halls[meeting.id]


class Hall:
    """Where the processes of one gang meet.

    Args:
        seats: how many there are.
    """

    def __init__(self, seats: int) -> None:
        self._wires: dict[tuple[int, int], deque[bytes]] = {
            (by, to): deque() for by in range(seats) for to in range(seats) if by != to
        }
        self._hosts: list[HouseHost | None] = [None] * seats
        self._gone: set[int] = set()
        self._changed = trio.Event()

    def enter(self, seat: int, host: HouseHost) -> None:
        """A process is there."""
        self._hosts[seat] = host

    def leave(self, seat: int) -> None:
        """A process has ended, or begun something else: its connections break, wherever somebody can notice."""
        self._gone.add(seat)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def exchange(self, seat: int, frames: Sequence[Sequence[Buffer]]) -> list[memoryview]:
        """See `p2premap.worker.gang.Gang.exchange`.

        Raises:
            PeerLost: see there.
        """
        for to, pieces in enumerate(frames):
            if to != seat:
                self._wires[seat, to].append(b"".join(pieces))
        self._notify()
        came = [memoryview(b"")] * len(frames)
        for other in range(len(frames)):
            if other != seat:
                came[other] = memoryview(await self._frame(other, seat))
        return came

    async def _frame(self, by: int, to: int) -> bytes:
        wire = self._wires[by, to]
        while True:
            if self._reaches(by, to):
                if wire:
                    return wire.popleft()
                if by in self._gone:
                    raise PeerLost(by)
            changed = self._changed
            with trio.move_on_after(AGAIN_S):
                await changed.wait()

    def _reaches(self, by: int, to: int) -> bool:
        """Whether what one says, be it that it is gone, comes to the other."""
        speaker, hearer = self._hosts[by], self._hosts[to]
        if speaker is None or hearer is None:
            return False
        return speaker.seat is hearer.seat or hearer.world.network.connected(speaker.seat, hearer.seat)
