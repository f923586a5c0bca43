"""Second holders of results: a finished task need not run again because one disk is gone.

After a result with blobs is settled, another node is asked to fetch them (`Keep`), on another machine where there is
one; on the same machine the copy is a hard link. It answers `Kept`, and is one more holder of the result from then on,
which is a fact like any other. When one of two holders is lost, a third one takes its place. All this goes on in the
background: few orders at a time to a node, and nothing waits for it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from p2premap.ids import NodeId
from p2premap.tasks import journal, messages
from p2premap.tasks.job import Source
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker

ORDERS_MAX: Final = 2
"""At one node at a time."""

LATE_MAX: Final = 1_000


class _Wanted(NamedTuple):
    since: float
    run: StageRun
    task: int


class _Order(NamedTuple):
    since: float
    run: StageRun
    task: int
    attempt: int
    node: NodeId
    keeper: NodeId


class Copies:
    """One job's second copies.

    Args:
        state: of the job.
    """

    def __init__(self, state: JobState) -> None:
        self._state = state
        self._wanted: deque[_Wanted] = deque()
        self._orders: dict[int, _Order] = {}
        self._late: dict[int, _Order] = {}
        """Given to nodes that were then lost: they may still answer."""
        self._number = 0
        self._off = state.spec.options.copies < 2

    @property
    def waiting(self) -> int:
        """Results of which another copy is wanted: the death of one node may cost each of them."""
        return len(self._wanted) + len(self._orders)

    def oldest(self) -> float | None:
        """Since when the oldest of these has been waiting."""
        first = (wanted.since for wanted in islice(self._wanted, 1))
        return min((*first, *(order.since for order in self._orders.values())), default=None)

    def want(self, now: float, run: StageRun, task: int) -> None:
        """The task has a result with blobs."""
        if not self._off:
            self._wanted.append(_Wanted(now, run, task))

    def want_all(self, now: float) -> None:
        """Of a job that was taken over: whatever has one holder only."""
        for run in self._state.runs:
            if run.facts.any_blobs and not self._off:
                sole = (task for task in range(run.tasks) if len(self._living(run, task)) == 1)
                self._wanted += [_Wanted(now, run, task) for task in sole]

    def go(self) -> None:
        """Give orders to nodes with room for them."""
        while self._wanted:
            since, run, task = self._wanted[0]
            living = self._living(run, task)
            if len(living) != 1 or run.abandoned or not run.is_settled(task):
                self._wanted.popleft()
                continue
            chosen = run.facts.chosen(task)
            fact = next(f for f in run.facts.facts(task) if f.node == living[0] and f.result == chosen)
            keeper = self._keeper(fact.node)
            if keeper is None:
                return
            self._wanted.popleft()
            blobs = run.facts.results.blobs(fact.result)
            sources = tuple(
                Source(digest=b.digest, start=0, end=b.size, holders=(fact.node,), blob=b.digest) for b in blobs
            )
            if sources:
                self._number += 1
                self._orders[self._number] = _Order(since, run, task, fact.attempt, fact.node, keeper.node)
                keeper.touched = True
                self._state.say(
                    keeper.node,
                    messages.Keep(job=self._state.job, ballot=self._state.ballot, number=self._number, sources=sources),
                )

    def sole(self, node: NodeId) -> int:
        """Results that only this node holds, and that another is to keep."""
        out = [(order.run, order.task) for order in self._orders.values()]
        return sum(
            run.is_settled(task) and self._living(run, task) == [node]
            for run, task in (*((wanted.run, wanted.task) for wanted in self._wanted), *out)
            if not run.abandoned
        )

    def kept(self, now: float, worker: Worker, message: messages.Kept) -> None:
        """A node has the blobs, or could not get them."""
        orders = self._orders if message.number in self._orders else self._late
        order = orders.get(message.number)
        if order is None or order.keeper != worker.node:
            return
        del orders[message.number]
        _, run, task, attempt, node, keeper = order
        if message.error or run.abandoned or not run.facts.hold(task, attempt, node, keeper):
            return
        self._state.log.add(journal.Held(stage=run.id, task=task, attempt=attempt, node=node, holder=keeper))
        fact = next(f for f in run.facts.facts(task) if f.attempt == attempt and f.node == keeper)
        for blob in run.facts.results.blobs(fact.result):
            self._state.locations.made(now, blob.digest, keeper)
        if not run.is_settled(task):
            run.recover(task, self._state.locations)
            self._state.runs[-1].reconsider()

    def lost(self, now: float, node: NodeId) -> None:
        """A node is dead: what it has kept, or was to keep, another may."""
        self.unlinked(node)
        if not self._off:
            self._wanted += [_Wanted(now, run, t) for run in self._state.runs for t in run.facts.held_by(node)]

    def unlinked(self, node: NodeId) -> None:
        """What was under way to this node may be lost, or long in coming: it is told again, or another is."""
        for number, order in list(self._orders.items()):
            if order.keeper == node:
                self._late[number] = self._orders.pop(number)
                self._wanted.appendleft(_Wanted(order.since, order.run, order.task))
        while len(self._late) > LATE_MAX:
            del self._late[next(iter(self._late))]

    def _living(self, run: StageRun, task: int) -> list[NodeId]:
        """Who holds the task's result and can be read from."""
        holders = run.facts.holders(task)
        if self._state.locations.clear:
            return list(holders)
        blobs = run.facts.results.blobs(run.facts.chosen(task)) if holders else ()
        return [n for n in holders if all(n in self._state.locations.known(blob.digest, (n,)) for blob in blobs)]

    def _keeper(self, holder: NodeId) -> Worker | None:
        """Who is to keep a copy: on another machine if possible, with the fewest orders."""
        out: dict[NodeId, int] = {}
        for order in self._orders.values():
            out[order.keeper] = out.get(order.keeper, 0) + 1
        machine = self._state.workers.machine_of.get(holder)
        free = [
            w
            for w in self._state.workers.all.values()
            if w.eligible and w.node != holder and out.get(w.node, 0) < ORDERS_MAX
        ]
        return min(free, key=lambda w: (w.machine == machine, out.get(w.node, 0), w.node), default=None)
