"""Watches one process while it works on a batch: limits, output that grows without end, ends that were not sent.

It looks at shared memory and /proc twenty times a second or more, so it needs nothing of the worker, not even that
it is not stuck in C code. Memory is the resident memory of the whole tree: its address space says nothing about what a
process uses (RLIMIT_AS stops programs that map files or reserve stacks for threads), and a control group's figure
counts the files that it has read: 640 MB for copying one of 300 MB.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from p2premap.node.batches import Key
from p2premap.node.logs import cut_tail
from p2premap.node.process import WorkerProcess
from p2premap.node.processes import proportional_bytes, resident_bytes
from p2premap.tasks.job import Limits, Outcome

TICK_S: Final = 0.05
_NEAR_TICK_S: Final = 0.01
"""Above half of the memory limit: a process can fill several MiB in a millisecond."""
TIME_LIMIT_GRACE_S: Final = 1.0
"""Between the soft signal and the kill, so that the attempt can say where it was."""


class Cause(NamedTuple):
    """Why the executor ends a process: attempt `number` of it went over a limit."""

    number: int
    outcome: Outcome
    text: str


class Watch:
    """Watches a process for the time of one batch.

    Args:
        process: to be watched.
        limits: of each attempt.
        log_bytes_max: output beyond four times this is cut while the attempt still runs.
        harvest: is given ends that the worker has noted but not sent for a tick.
    """

    def __init__(
        self, process: WorkerProcess, limits: Limits, *, log_bytes_max: int, harvest: Callable[[bytes], None]
    ) -> None:
        self.cause: Cause | None = None
        self._process = process
        self._limits = limits
        self._log_bytes_max = log_bytes_max
        self._harvest = harvest
        self._mark = (0, 0)
        self._harvested = (0, 0)
        self._peak = (0, 0)
        self._pause_s = TICK_S

    def running(self) -> tuple[Key, float] | None:
        """The attempt that is running, and for how many seconds; None between attempts."""
        number, began = self._process.page.running, self._process.page.began
        key = self._process.answers.get(number)
        return None if key is None else (key, max(0.0, time.monotonic() - began))

    def seconds(self, number: int) -> float:
        """For how long this attempt ran, if it was the last to run in the process; else 0."""
        page = self._process.page
        return max(0.0, time.monotonic() - page.began) if page.running == number else 0.0

    def peak_bytes(self, number: int) -> int:
        """The highest resident memory of the tree that was seen during this attempt; 0 if it was not looked at."""
        return self._peak[1] if self._peak[0] == number else 0

    async def run(self) -> None:
        """Watch until cancelled, or until a limit is exceeded and the process has been told to go."""
        while True:
            await trio.sleep(self._pause_s)
            self._harvest_if_stuck()
            self._cut_output()
            number, began = self._process.page.running, self._process.page.began
            if not number:
                continue
            seconds = time.monotonic() - began
            if self._limits.time_s and seconds > self._limits.time_s and self._process.page.running == number:
                text = f"It ran longer than its limit of {self._limits.time_s:g} s."
                self.cause = Cause(number, Outcome.TIME_LIMIT, text)
                self._process.ask_to_stop()
                await trio.sleep(TIME_LIMIT_GRACE_S)
                self._process.hang_up()
                return
            if self._limits.memory_bytes and await self._too_large(number):
                self._process.hang_up()
                return

    async def _too_large(self, number: int) -> bool:
        limit, root = self._limits.memory_bytes, self._process.supervisor_pid
        size = resident_bytes(root)
        self._pause_s = _NEAR_TICK_S if 2 * size > limit else TICK_S
        if size > limit:
            # what forked children share with their parent counts once; asking the kernel for that takes a while
            size = await trio.to_thread.run_sync(proportional_bytes, root)
        self._peak = (number, max(size, self.peak_bytes(number)))
        if size <= limit or self._process.page.running != number:
            return False
        text = f"It held {_mebibytes(size)} of memory, over its limit of {_mebibytes(limit)}."
        self.cause = Cause(number, Outcome.MEMORY_LIMIT, text)
        return True

    def _harvest_if_stuck(self) -> None:
        """Take ends that lie in the journal because the attempt after them is a long one.

        Only what has not changed for a whole tick: then the worker is not writing there, on any memory model.
        """
        mark = self._process.page.journal_mark
        if mark[1] and mark == self._mark and mark != self._harvested:
            records = self._process.page.journal()
            if self._process.page.journal_mark == mark:
                self._harvested = mark
                self._harvest(records)
        self._mark = mark

    def _cut_output(self) -> None:
        try:
            if os.stat(self._process.output).st_size > 4 * self._log_bytes_max:
                cut_tail(self._process.output, self._log_bytes_max)
        except OSError:  # it is just being moved away
            pass


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
