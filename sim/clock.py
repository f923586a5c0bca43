"""Virtual time: a heap of things to do, in order of their instant and, within one instant, of their entry."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

from p2premap.errors import LocalProtocolError

_SAME_INSTANT_MAX: Final = 1_000_000


class Clock:
    """The clock and its queue. Nothing in a world happens but by `at` and `run_until`."""

    now: float = 0.0
    """Seconds since the beginning."""

    def __init__(self) -> None:
        self.done = 0
        self._entry = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when: float, action: Callable[..., None], *args: object) -> None:
        """Do it at that instant; what lies in the past is done now."""
        now = self.now
        self._entry += 1
        heapq.heappush(self._queue, (when if when > now else now, self._entry, action, args))

    def after(self, delay_s: float, action: Callable[..., None], *args: object) -> None:
        """Do it `delay_s` from now."""
        self.at(self.now + delay_s, action, *args)

    def run_until(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Let time pass.

        Args:
            until: up to and including this instant.
            stop: asked after each thing done; true ends the run at that instant.

        Returns:
            Whether `stop` ended it.

        Raises:
            LocalProtocolError: time does not pass: a core asks for the same instant again and again.
        """
        queue, pop = self._queue, heapq.heappop
        same_instant = 0
        while queue and queue[0][0] <= until:
            when, _, action, args = pop(queue)
            same_instant = same_instant + 1 if when == self.now else 0
            if same_instant > _SAME_INSTANT_MAX:
                raise LocalProtocolError(f"{_SAME_INSTANT_MAX} things to do at {when:.6f} s: time does not pass")
            self.now = when
            self.done += 1
            action(*args)
            if stop is not None and stop():
                return True
        self.now = until
        return False
