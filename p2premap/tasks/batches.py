"""How many tasks go into one batch, and which.

A batch is what one slot does in one go, about `batch_s` of measured work: long enough that messages cost little,
short enough that slots end together. The first batches are single tasks, to learn what one takes; sizes then grow at
most eightfold at a time, since a stage's first tasks may be its small ones. Near the end of a stage a batch takes at
most half of an even share of what is left (guided self-scheduling: Polychronopoulos and Kuck, 1987).
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final

import msgspec

from p2premap.config import TasksConfig
from p2premap.ids import NodeId
from p2premap.tasks.director import TaskInput
from p2premap.tasks.job import StageId

GROWTH: Final = 8
MEMORY: Final = 0.6
"""The weight of what was measured before against the newest measurement."""

TASK_S_MIN: Final = 5e-6
"""What any task costs at least, whatever user code says."""

TAIL_SHARE: Final = 0.1
"""No batch is made smaller than this share of `batch_s`, however even the end would be."""

AHEAD_S_MAX: Final = 1.0
"""Tasks longer than this wait for a free slot instead of behind a running task: the pause between two is nothing."""

LOOK_AHEAD: Final = 64
"""Tasks whose inputs are looked at to find one near its data."""

SOURCES_WEIGHED: Final = 64

SAMPLES_MAX: Final = 256

TASK_BYTES: Final = 24
"""What an attempt takes of an `Assign` at least."""


class Batch(msgspec.Struct):
    """What was sent to one node in one `Assign`.

    Args:
        left: attempts that have not been reported.
        sent: when.
    """

    number: int
    node: NodeId
    stage: StageId
    tasks: array[int]
    left: int
    sent: float


class Sizer:
    """Learns how long a stage's tasks take."""

    def __init__(self, config: TasksConfig) -> None:
        self._config = config
        self._size_max = 1
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.mean_s = 0.0
        """Measured seconds a task; 0 until the first has ended."""

    def learn(self, tasks: int, seconds: float) -> None:
        """So many tasks took so long together."""
        mean = max(seconds / tasks, TASK_S_MIN)
        self.mean_s = mean if not self.mean_s else MEMORY * self.mean_s + (1 - MEMORY) * mean
        self._size_max = min(max(self._size_max, tasks * GROWTH), self._config.batch_tasks_max)

    def sample(self, seconds: float) -> None:
        """One attempt took so long."""
        self._samples.append(seconds)

    def usual_s(self) -> float:
        """Nine of ten attempts took less, of those that ended last."""
        ordered = sorted(self._samples)
        return ordered[9 * len(ordered) // 10] if ordered else 0.0

    def size(self, pending: int, slots: int) -> int:
        """How many of `pending` tasks go into the next batch."""
        if not self.mean_s:
            return 1
        enough = self._config.batch_s / self.mean_s
        even = max(pending / (2 * max(slots, 1)), enough * TAIL_SHARE)
        return max(1, min(int(min(enough, even)), self._size_max))

    def ahead(self, pending: int, slots: int) -> bool:
        """Whether a slot that has work should get its next batch already."""
        return 0.0 < self.mean_s <= AHEAD_S_MAX and pending > slots


class TaskQueue:
    """Tasks that wait: those never tried as a range, those that came back one by one, and go first.

    Args:
        tasks: 0..tasks-1 wait at first.
    """

    def __init__(self, tasks: int) -> None:
        self._fresh = 0
        self._end = tasks
        self._again: deque[int] = deque()
        self._waiting_again: set[int] = set()

    def __len__(self) -> int:
        return len(self._again) + self._end - self._fresh

    def waiting(self) -> set[int]:
        """All of them, for checks."""
        return {*self._again, *range(self._fresh, self._end)}

    def push(self, task: int) -> None:
        """Put a task back; again changes nothing."""
        if self._fresh <= task < self._end:
            return  # it has not been popped
        if task not in self._waiting_again:
            self._waiting_again.add(task)
            self._again.append(task)

    def grow(self, tasks: int) -> None:
        """So many more numbers; they do not wait before they are pushed."""
        if self._fresh < self._end:
            fresh, self._fresh = range(self._fresh, self._end), self._end
            for task in fresh:
                self.push(task)
        self._end += tasks
        self._fresh = self._end

    def restore(self, states: bytearray, waits: int) -> None:
        """Exactly the tasks whose state is `waits` wait: those after the last that has any other state as a range."""
        self.clear()
        tail = len(states.rstrip(bytes([waits])))
        self._fresh = self._end = 0
        for task in range(tail):
            if states[task] == waits:
                self.push(task)
        self._fresh, self._end = tail, len(states)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._again.clear()
        self._waiting_again.clear()
        self._fresh = self._end

    def pop(self) -> int | None:
        """The next task; None if there is none."""
        if self._again:
            task = self._again.popleft()
            self._waiting_again.discard(task)
            return task
        if self._fresh < self._end:
            self._fresh += 1
            return self._fresh - 1
        return None


class Candidate:
    """A task whose input has been looked at.

    Args:
        machines: those that hold at least half of its input's bytes, and that which holds the most of them.
    """

    __slots__ = ("input", "machines", "task")

    def __init__(self, task: int, input: TaskInput, machine_of: dict[NodeId, bytes]) -> None:
        self.task = task
        self.input = input
        self.machines = _near(input, machine_of)


def _near(input: TaskInput, machine_of: dict[NodeId, bytes]) -> frozenset[bytes]:
    """Machines that hold at least half of the bytes or the most of them (judged by the first sources)."""
    weights: dict[bytes, int] = {}
    total = 0
    for source in input.sources[:SOURCES_WEIGHED]:
        total += source.size
        for machine in {machine_of.get(holder, holder): None for holder in source.holders}:
            weights[machine] = weights.get(machine, 0) + source.size
    enough = min(total / 2, max(weights.values(), default=0))
    return frozenset(machine for machine, weight in weights.items() if weight >= enough)


def assign_bytes(input: TaskInput) -> int:
    """About how large this task makes an `Assign`."""
    if not input.sources:
        return TASK_BYTES + len(input.params)
    return TASK_BYTES + len(input.params) + sum(112 + 18 * len(s.holders) + len(s.path) for s in input.sources)
