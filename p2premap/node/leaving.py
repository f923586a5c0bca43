"""A node goes in good order: nothing new, what runs may end, what only it holds is copied; then its jobs are led
elsewhere, and it says good-bye (`p2premap.node.house`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from p2premap.node.house import House

LOOK_S: Final = 0.2
"""Copies are made by other nodes, which are asked how far they are."""


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
