"""Gangs within one process, a thread a seat: vertex jobs without nodes, for tests and for trying a program out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from p2premap.worker.gang import Buffer, PeerLost

T = TypeVar("T")
MEETING = b"local-local-loc-"


class LocalGang:
    """One seat of a `LocalMesh`; see `p2premap.worker.gang.Gang`."""

    def __init__(self, mesh: LocalMesh, seat: int) -> None:
        self.seat = seat
        self.seats = mesh.seats
        self.meeting = MEETING
        self._mesh = mesh

    def exchange(self, frames: Sequence[Sequence[Buffer]]) -> list[memoryview]:
        """See `p2premap.worker.gang.Gang.exchange`."""
        return self._mesh.exchange(self.seat, frames)


class LocalMesh:
    """All seats of a gang.

    Args:
        seats: tasks (partitions) of each.
    """

    def __init__(self, seats: Sequence[Sequence[int]]) -> None:
        self.seats = tuple(map(tuple, seats))
        self.exchanges = 0
        self._barrier = threading.Barrier(len(self.seats))
        self._frames: list[list[bytes]] = [[] for _ in self.seats]

    def exchange(self, seat: int, frames: Sequence[Sequence[Buffer]]) -> list[memoryview]:
        """Meet the others.

        Raises:
            PeerLost: one has given up.
        """
        assert len(frames) == len(self.seats), "one frame a seat"
        try:
            self._frames[seat] = [b"".join(pieces) for pieces in frames]
            if self._barrier.wait() == 0:
                self.exchanges += 1
            came = [memoryview(self._frames[other][seat]) for other in range(len(self.seats))]
            self._barrier.wait()
        except threading.BrokenBarrierError:
            raise PeerLost(seat) from None
        came[seat] = memoryview(b"")
        return came

    def lose(self) -> None:
        """One of them is gone: the exchanges of all others fail."""
        self._barrier.abort()


def run_seats(seats: Sequence[Sequence[int]], work: Callable[[LocalGang], T]) -> list[T]:
    """Run what every process of a gang would, each in a thread; what they return, in order of seat.

    Raises:
        Exception: what one of them raised; of several, one that is no `PeerLost`.
    """
    mesh = LocalMesh(seats)
    results: list[T | None] = [None] * len(mesh.seats)
    errors: list[BaseException] = []

    def run(seat: int) -> None:
        try:
            results[seat] = work(LocalGang(mesh, seat))
        except BaseException as error:  # whatever user code raises is told below
            errors.append(error)
            mesh.lose()

    threads = [threading.Thread(target=run, args=(seat,)) for seat in range(1, len(mesh.seats))]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()
    if errors:
        raise next((e for e in errors if not isinstance(e, PeerLost)), errors[0])
    return [result for result in results if result is not None]
