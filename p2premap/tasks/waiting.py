"""The tasks of one stage that wait for a node, and which of them a node is given.

Tasks without sources go out in order. Of those that read something, the inputs of a few are looked at ahead, to find
one near its data for whoever has room; a task whose inputs cannot be read just now is parked, until something about
holders has changed. A task that only one node may run waits for that one, apart from the others.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final, TypeAlias

from p2premap.ids import NodeId
from p2premap.tasks.batches import LOOK_AHEAD, TASK_BYTES, Candidate, TaskQueue, assign_bytes
from p2premap.tasks.director import TaskInput
from p2premap.tasks.workers import Worker, Workers

SOURCES_LOOKED_AT_MAX: Final = 4096

WAITS: Final = 0
SETTLED: Final = 1
ABSENT: Final = 2

Look: TypeAlias = Callable[[int], TaskInput | None]
"""Gives a task's input, or parks the task."""


class Waiting:
    """The waiting tasks of a stage.

    Args:
        tasks: how many it has; all wait at first.
    """

    def __init__(self, tasks: int) -> None:
        self.queue = TaskQueue(tasks)
        self.out = array("I", bytes(4 * tasks))
        """The batch that each task is out with; 0: none."""
        self.parked: dict[int, None] = {}
        self.kept_back: set[int] = set()
        """Tasks that there are, and that may not be handed out yet."""
        self.avoid: dict[int, dict[NodeId, None]] = {}
        """Task -> nodes where an attempt of it failed or was refused."""
        self.alone: dict[int, int] = {}
        """Task -> counted failures; such tasks go in batches of one."""
        self.bound: dict[int, NodeId] = {}
        """Tasks that only one node may run."""
        self._own: dict[NodeId, dict[int, None]] = {}
        """Of these, those that wait."""
        self._settled = bytearray(tasks)
        self._window: dict[int, Candidate] = {}
        self._sources_in_window = 0

    @property
    def pending(self) -> int:
        """How many tasks could be handed out."""
        free = len(self.queue) + len(self._window)
        return free + sum(map(len, self._own.values())) if self._own else free

    def waiting(self) -> set[int]:
        """All of them, for checks."""
        own = {task for tasks in self._own.values() for task in tasks}
        return self.queue.waiting() | set(self._window) | set(self.parked) | self.kept_back | own

    def push(self, task: int) -> None:
        """The task waits, again perhaps."""
        if self.bound and (node := self.bound.get(task)) is not None:
            self._own.setdefault(node, {})[task] = None
        else:
            self.queue.push(task)

    def clear(self) -> None:
        """Nothing waits any more."""
        self.queue.clear()
        self._own.clear()

    def reconsider(self) -> None:
        """Something about nodes or holders changed: look at the inputs of waiting tasks anew."""
        for task in (*self._window, *self.parked):
            self.push(task)
        self._window.clear()
        self._sources_in_window = 0
        self.parked.clear()

    def take(
        self,
        worker: Worker,
        size: int,
        bytes_max: int,
        workers: Workers,
        look: Look,
    ) -> list[tuple[int, TaskInput]]:
        """Up to `size` tasks for this worker, those near it first.

        Args:
            bytes_max: of what one message may carry.
            look: as above.
        """
        if (own := self._own.get(worker.node)) and (found := self._take_own(own, look)) is not None:
            return [found]
        taken: list[tuple[int, TaskInput]] = []
        if not (self._window or self.avoid or self.alone):
            bytes_max = self._take_plain(taken, size, bytes_max, workers, look)
        while len(taken) < size and bytes_max > 0:
            found = self._pick(worker, workers, look)
            if found is None:
                break
            task, input = found
            bytes_max -= assign_bytes(input)
            if taken and (bytes_max < 0 or task in self.alone):
                self.queue.push(task)
                break
            taken.append(found)
            if task in self.alone:
                break
        return taken

    def _take_own(self, own: dict[int, None], look: Look) -> tuple[int, TaskInput] | None:
        """One of those that are one worker's alone."""
        while own:
            task = next(iter(own))
            del own[task]
            if not (self._settled[task] or self.out[task]) and (input := look(task)) is not None:
                return task, input
        return None

    def _take_plain(
        self,
        taken: list[tuple[int, TaskInput]],
        size: int,
        bytes_max: int,
        workers: Workers,
        look: Look,
    ) -> int:
        """Take tasks as they come while they have no sources, and so no place that they are near to.

        Returns:
            What is left of `bytes_max`.
        """
        pop, settled, out = self.queue.pop, self._settled, self.out
        while len(taken) < size and bytes_max > 0 and (task := pop()) is not None:
            if settled[task] or out[task]:
                continue
            input = look(task)
            if input is None:
                continue
            if input.sources:
                self._put(task, input, workers)
                break
            taken.append((task, input))
            bytes_max -= TASK_BYTES + len(input.params)
        return bytes_max

    def _put(self, task: int, input: TaskInput, workers: Workers) -> None:
        self._window[task] = Candidate(task, input, workers.machine_of)
        self._sources_in_window += len(input.sources)

    def _pick(self, worker: Worker, workers: Workers, look: Look) -> tuple[int, TaskInput] | None:
        while len(self._window) < LOOK_AHEAD and self._sources_in_window < SOURCES_LOOKED_AT_MAX:
            task = self.queue.pop()
            if task is None:
                break
            if self._settled[task] or self.out[task] or task in self._window:
                continue
            input = look(task)
            if input is not None:
                self._put(task, input, workers)
        best: Candidate | None = None
        for candidate in self._window.values():
            if candidate.task in self.avoid and not self._may(candidate.task, worker, workers):
                continue
            if worker.machine in candidate.machines:
                best = candidate
                break
            best = best or candidate
        if best is None:
            return None
        self.drop(best.task)
        return best.task, best.input

    def drop(self, task: int) -> None:
        """The task is out, or settled: what was looked at of it is for nobody any more."""
        if self._own and (node := self.bound.get(task)) is not None:
            self._own.get(node, {}).pop(task, None)
        if self._window and (candidate := self._window.pop(task, None)) is not None:
            self._sources_in_window -= len(candidate.input.sources)

    def _may(self, task: int, worker: Worker, workers: Workers) -> bool:
        avoided = self.avoid[task]
        return worker.node not in avoided or not workers.any_eligible_but(avoided)
