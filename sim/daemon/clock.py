"""The world's queue under trio: what is due is done by one task, at the instant that trio's clock shows."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import trio

from p2premap.sim.clock import Clock


class TrioClock(Clock):
    """A `Clock` that `run` moves; only within `trio.run`."""

    def __init__(self) -> None:
        super().__init__()
        self._sooner = trio.Event()

    @property
    def now(self) -> float:  # type: ignore[override]  # trio's clock moves by itself
        return trio.current_time()

    def at(self, when: float, action: Callable[..., None], *args: object) -> None:
        if not self._queue or when < self._queue[0][0]:
            self._sooner.set()
        super().at(when, action, *args)

    async def run(self) -> None:
        """Do what is due, for ever."""
        queue = self._queue
        while True:
            while queue and queue[0][0] <= self.now:
                _, _, action, args = heapq.heappop(queue)
                self.done += 1
                action(*args)
            self._sooner = trio.Event()
            with trio.move_on_at(queue[0][0] if queue else math.inf):
                await self._sooner.wait()
