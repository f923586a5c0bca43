"""The loop that owns the node's core: events in, steps, effects out. The only place that ever calls `step`.

An event that nothing stands in the way of is seen to at once, in the task of whoever posted it: a turn of the event
loop takes as long as most steps do, and a program that waits for one call would wait for several. Whatever the effects
of a step post waits in line until it is done; so each event has its step in the order in which they came.

What is already waiting comes before a late tick: a node that was stalled must hear the acks that lie in its sockets
before it suspects anyone. A stall is measured here (the loop woke later than it asked to, or the machine was
suspended) and told to the core first, so that it can credit the lost time to its timers.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import trio

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)
F = TypeVar("F", covariant=True)

STALL_S: Final = 0.25
"""Waking this much later than asked is a stall."""

DRAIN_PASSES: Final = 8
"""Turns of the event loop that receivers get after a stall, to empty the sockets, before any timer fires."""

EVENTS_BEFORE_TICK_MAX: Final = 256
"""Waiting events never hold a due tick back for longer than this many."""

AT_ONCE_MAX: Final = 64
"""Events in a row that are seen to in the tasks of those who post them; then the driver's own task has a turn."""

INBOX_MAX: Final = 100_000
"""Beyond this, new events that may be lost (datagrams) are dropped and counted; all others are kept."""


class Core(Protocol[E_contra, F]):
    """What can be driven."""

    def deadline(self) -> float:
        """The next instant at which it wants a tick; infinity: none."""

    def step(self, now: float, event: E_contra) -> Sequence[F]:
        """Take one event; say what is to be done."""


class DriverStatistics(msgspec.Struct, frozen=True):
    """What the loop has seen. `lag_max_s` is the longest stall, `lost_s` all of them together."""

    steps: int
    waiting: int
    dropped: int
    stalls: int
    lag_max_s: float
    lost_s: float


def suspended_s() -> float:
    """How long this machine has been suspended since it booted (0 where the system cannot tell)."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    except (AttributeError, OSError):
        return 0.0


class Driver(Generic[E, F]):
    """Runs one core.

    Args:
        core: what to drive.
        perform: does one effect; sync, must not block: it posts to a bounded outbox or starts an owned task.
        tick: the event that means "your deadline has come".
        woke: makes the event for "this process did not run for so many seconds".
        may_drop: whether an event may be lost when the node cannot keep up.
    """

    def __init__(
        self,
        core: Core[E, F],
        perform: Callable[[F], None],
        *,
        tick: E,
        woke: Callable[[float], E],
        may_drop: Callable[[E], bool],
    ) -> None:
        self._core = core
        self._perform = perform
        self._tick = tick
        self._woke = woke
        self._may_drop = may_drop
        self._inbox: deque[E] = deque()
        self._arrived = trio.Event()
        self._idle: trio.CancelScope | None = None
        """In which `run` waits; None while it, or somebody in `post`, is at work."""
        self._at_once = 0
        self._asked, self._suspended_s = math.inf, 0.0
        self._fault: Exception | None = None
        self._steps = self._dropped = self._stalls = 0
        self._lag_max_s = self._lost_s = 0.0

    def post(self, event: E) -> None:
        """Have an event seen to, at once where nothing else is in line; never blocks."""
        if len(self._inbox) >= INBOX_MAX and self._may_drop(event):
            self._dropped += 1
            return
        self._inbox.append(event)
        idle, self._idle = self._idle, None
        if idle is not None and self._at_once < AT_ONCE_MAX and self.at_work and self._lost() <= STALL_S:
            self._work_here(idle)
        else:
            self._arrived.set()

    @property
    def at_work(self) -> bool:
        """Whether steps may be taken now; the simulator stops processes."""
        return True

    def statistics(self) -> DriverStatistics:
        """A snapshot."""
        return DriverStatistics(
            self._steps, len(self._inbox), self._dropped, self._stalls, self._lag_max_s, self._lost_s
        )

    async def run(self) -> None:
        """Drive for ever; cancel to stop."""
        self._suspended_s = suspended_s()
        self._asked = self._core.deadline()
        while True:
            await self._wait()
            if self._fault is not None:
                raise self._fault
            lost = self._lost()
            self._suspended_s = suspended_s()
            if lost > STALL_S:
                await self._recover(lost)
            self._drain()
            self._asked = self._core.deadline()
            if self._asked <= trio.current_time():
                self._step(self._tick)
                self._asked = self._core.deadline()

    async def _wait(self) -> None:
        """Until something has arrived or the deadline has come; always lets other tasks run."""
        if self._inbox:
            await trio.lowlevel.checkpoint()
            return
        self._arrived = trio.Event()
        self._at_once = 0
        try:
            with trio.CancelScope(deadline=self._asked) as self._idle:
                await self._arrived.wait()
        finally:
            self._idle = None

    def _lost(self) -> float:
        """For how long nothing has run that should have."""
        late = max(0.0, trio.current_time() - self._asked)
        asleep = suspended_s() - self._suspended_s
        return late + asleep if asleep > STALL_S else late

    def _work_here(self, idle: trio.CancelScope) -> None:
        """Take what is in line, in whoever's task this is."""
        self._at_once += 1
        try:
            self._drain()
            self._asked = self._core.deadline()
        except Exception as error:
            # a fault of ours is the node's end, and not that of whoever told us something
            self._fault = error
        if self._fault is not None or self._inbox:
            self._arrived.set()
            return
        self._idle = idle
        if self._asked < idle.deadline:  # to wake too early once costs less than to put off each time
            idle.deadline = self._asked

    async def _recover(self, lost_s: float) -> None:
        """After a stall: empty the sockets, then tell the core before anything else."""
        self._stalls += 1
        self._lost_s += lost_s
        self._lag_max_s = max(self._lag_max_s, lost_s)
        for _ in range(DRAIN_PASSES):
            await trio.lowlevel.checkpoint()
        self._step(self._woke(lost_s))

    def _drain(self) -> None:
        for _ in range(min(len(self._inbox), EVENTS_BEFORE_TICK_MAX)):
            self._step(self._inbox.popleft())

    def _step(self, event: E) -> None:
        self._steps += 1
        for effect in self._core.step(trio.current_time(), event):
            self._perform(effect)
