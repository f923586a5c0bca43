"""Map tasks that nobody has counted beforehand: one for each node, or those of a datasource that never ends.

::

    "node"      a task for each node that can work, which only that node may run; its record is the node's name
    "key"       the same; the task's record is a key of the datasource, the first node's the first
    "endless"   a window of tasks is open at a time, and each that ends lets another begin; the first thousand have a
                key each, the next thousand two each, then four: output parts come soon, and there are never too many

The stage is open until everybody has answered, the datasource has ended, or its time is over. What changes it (a node
has come, a task has ended, it is to be closed) is a payload, which every leader reads in the same order
(`p2premap.tasks.growth`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from p2premap.errors import JobError
from p2premap.ids import NodeId
from p2premap.tasks.director import Extension, Pinned
from p2premap.tasks.mapreduce_plan import EACH_KEY, EACH_NODE, ENDED, ENDLESS, MapReducePlan
from p2premap.wire import Count, Record, Short

AT_ONCE: Final = 1_000
"""So many tasks have as many keys each."""
TASKS_MAX: Final = 16 * AT_ONCE
"""Of an endless datasource: each may be an output part, and a view lists those. They have 65 million keys."""


class _More(Record, frozen=True, kw_only=True):
    """A payload.

    Args:
        node, name: it has come.
        tasks: there are so many from now on, if there were fewer.
        closes: there are no more.
        without: tasks that nobody waits for.
    """

    node: bytes = b""
    name: Short = ""
    tasks: Count = 0
    closes: bool = False
    without: tuple[Count, ...] = ()


class Keys(NamedTuple):
    """What a task is given.

    Args:
        node: the name of the node that it is for, or "".
        first, number: so many keys of the datasource, from this one on.
    """

    node: str
    first: int
    number: int


class OpenMap:
    """The map stage of such a job.

    Args:
        plan: of the job; its `open` says which of the three.
    """

    def __init__(self, plan: MapReducePlan) -> None:
        self.each_node = plan.open in (EACH_NODE, EACH_KEY)
        self.lasts_s = plan.lasts_s
        self.keyed = plan.open in (EACH_KEY, ENDLESS)
        self._window = plan.keys
        self._nodes: dict[bytes, str] = {}
        self._tasks = 0 if self.each_node else self._window
        self._done: set[int] = set()

    @property
    def tasks(self) -> int:
        """How many there are by now."""
        return self._tasks

    def keys(self, task: int) -> Keys:
        """What a task is given."""
        if self.each_node:
            return Keys(list(self._nodes.values())[task], task, 1)
        level, place = divmod(task, AT_ONCE)
        count = 1 << level
        return Keys("", AT_ONCE * (count - 1) + place * count, count)

    def meet(self, node: NodeId, name: str) -> bytes | None:
        """See `p2premap.tasks.director.Lasting`."""
        return None if node in self._nodes else _pack(_More(node=node, name=name))

    def close(self, without: tuple[int, ...]) -> bytes:
        """See `p2premap.tasks.director.Lasting`."""
        return _pack(_More(closes=True, without=without))

    def unfold(self, task: int, result: Pinned) -> bytes | None:
        """See `p2premap.tasks.director.Unfolds`."""
        self._done.add(task)
        if result.value == ENDED:
            return _pack(_More(closes=True))
        tasks = min(len(self._done) + self._window, TASKS_MAX)
        return _pack(_More(tasks=tasks, closes=tasks == TASKS_MAX)) if tasks > self._tasks else None

    def extend(self, payload: bytes) -> Extension:
        """See `p2premap.tasks.director.Director`.

        Raises:
            JobError: the payload is none of those above.
        """
        try:
            more = msgspec.msgpack.decode(payload, type=_More)
        except msgspec.DecodeError:
            raise JobError("A map/reduce job takes no further tasks from outside.") from None
        nodes: tuple[tuple[int, NodeId], ...] = ()
        tasks = max(more.tasks - self._tasks, 0)
        if more.node and more.node not in self._nodes:
            self._nodes[more.node] = more.name
            tasks, nodes = 1, ((0, NodeId(more.node)),)
        self._tasks += tasks
        whys = tuple(map(self._why, more.without))
        return Extension(tasks=tasks, closed=more.closes, cancelled=more.without, whys=whys, nodes=nodes)

    def _why(self, task: int) -> str:
        if not self.each_node or task >= len(self._nodes):
            return ""
        return f"{self.keys(task).node} has gone, or offers no slot any more"


def _pack(more: _More) -> bytes:
    return msgspec.msgpack.encode(more)
