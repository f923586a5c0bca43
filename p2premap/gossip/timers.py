"""Timers of one core: a heap of instants, pulled as one deadline."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Final

COMPACT_AT: Final = 256
"""Cancelled timers are swept out when the heap is longer than this and most of it is cancelled."""


class Timer:
    """One call to come. Cancelling costs nothing now; the heap drops it later."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    @property
    def running(self) -> bool:
        """Neither cancelled nor done."""
        return self._action is not None

    def cancel(self) -> None:
        """Never call it; harmless when it was called already."""
        self._action = None

    def fire(self) -> None:
        """Call it, once."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Timers:
    """All timers of one core. Those of the same instant fire in the order in which they were set."""

    __slots__ = ("_heap", "_next")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: float, action: Callable[[], None]) -> Timer:
        """Call `action` at the first Tick at or after `when`."""
        timer = Timer(action)
        self._next += 1
        heapq.heappush(self._heap, (when, self._next, timer))
        if len(self._heap) > COMPACT_AT and self._next % COMPACT_AT == 0:
            self._sweep()
        return timer

    def deadline(self) -> float:
        """When the next timer is due; infinity where there is none."""
        heap = self._heap
        while heap:
            when, _, timer = heap[0]
            if timer._action is not None:
                return when
            heapq.heappop(heap)
        return math.inf

    def pop_due(self, now: float) -> Timer | None:
        """The next timer that is due, taken out; None where none is."""
        if self.deadline() > now:
            return None
        return heapq.heappop(self._heap)[2]

    def shift(self, by_s: float) -> None:
        """Credit every running timer with time in which nothing could happen."""
        self._heap = [(when + by_s, order, timer) for when, order, timer in self._heap]

    def _sweep(self) -> None:
        self._heap = [item for item in self._heap if item[2].running]
        heapq.heapify(self._heap)
