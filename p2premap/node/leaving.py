"""A node goes in good order: nothing new, what runs may end, what only it holds is copied; then its jobs are led
elsewhere, and it says good-bye (`p2premap.node.house`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from p2premap.election import events as election
from p2premap.gossip import events as gossip
from p2premap.node.endings import Ending

if TYPE_CHECKING:
    from p2premap.node.house import House

LOOK_S: Final = 0.2
"""Copies are made by other nodes, which are asked how far they are."""
LEAVE_S: Final = 1.0
DRAIN_S: Final = 1.0
"""A node that is told to stop waits so long for what runs, and for copies of what only it holds; `drain` for longer."""
HAND_OVER_S: Final = 2.0
"""How long a node that is about to go waits until its jobs are led by others; they would elect a leader anyway."""


async def nobody_elsewhere() -> int:
    """Where there is no time to ask the others."""
    return 0


async def drain(house: House, *, wait_s: float, sole_elsewhere: Callable[[], Awaitable[int]] = nobody_elsewhere) -> str:
    """Make this node one that nobody needs, within `wait_s` seconds; a sentence says how far that went.

    Args:
        sole_elsewhere: how many results that only this node holds the leaders of other nodes still want.
    """
    house.orders.stop_taking()
    running = sole = 0
    with trio.move_on_after(wait_s):
        running = len(house.executor.running())
        await house.executor.quiet()
        running = 0
        # nobody tells us what others have copied
        while sole := house.core.jobs.sole_results(house.identity.node) + await sole_elsewhere():  # noqa: ASYNC110
            await trio.sleep(LOOK_S)
    left = []
    if running:
        left.append(f"{len(house.executor.running())} attempts that still ran are stopped and run elsewhere")
    if sole:
        left.append(f"{sole} results that only this node holds must be made again")
    return f"Not everything was over in time: {'; '.join(left)}." if left else "Nothing of it is needed any more."


class Farewell:
    """The end of one run of a node.

    Args:
        house: the node.

    Attributes:
        due: the run is to end.
        ending: how.
        left: the others have been told.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._idle = trio.Event()
        self.due = trio.Event()
        self.left = trio.Event()
        self.ending = Ending.STOP

    def end(self, ending: Ending) -> None:
        """The run is to end in this way."""
        self.ending = ending
        self.due.set()

    async def say(self) -> None:
        """Hand jobs over, then tell the others; a node that is soon back, or takes another name, does neither."""
        house = self._house
        if self.ending in (Ending.NEW_IDENTITY, Ending.REOPEN):
            return
        await drain(house, wait_s=DRAIN_S)
        with trio.move_on_after(HAND_OVER_S):
            if house.core.jobs.led:
                house.deliver(election.HandOver())
                await self._idle.wait()
        with trio.move_on_after(LEAVE_S):
            house.deliver(gossip.Leave())
            await self.left.wait()

    def look_whether_idle(self) -> None:
        """Whether somebody else leads every job that this node led, when it is about to go."""
        if self.due.is_set() and not self._house.core.jobs.led:
            self._idle.set()
