"""What the tasks of a batch that run together in one process are given of the other processes of their gang."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class PeerLost(Exception):
    """A process of the gang is gone, or cannot be reached: the attempts end as STOPPED, and the gang begins anew.

    Args:
        seat: whose.
    """

    def __init__(self, seat: int, why: str = "") -> None:
        super().__init__(f"seat {seat} of the gang is gone{': ' if why else ''}{why}")
        self.seat = seat


class Gang(Protocol):
    """The processes that run a gang's tasks.

    Args:
        seat: of this process.
        seats: tasks of every process.
        meeting: another for every time that the gang was handed out.
    """

    seat: int
    seats: tuple[tuple[int, ...], ...]
    meeting: bytes

    def exchange(self, frames: Sequence[Sequence[Buffer]]) -> list[memoryview]:
        """Send `frames[i]` (pieces, not joined) to seat i, and return what every seat has sent here, in order of seat.

        Exactly one frame a pair and call; a process's own is empty.

        Raises:
            PeerLost: see there.
        """
