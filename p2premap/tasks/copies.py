"""Second holders of results: a finished task need not run again because one disk is gone.

After a result with blobs is settled, another node is asked to fetch them (`Keep`), on another machine where there is
one; on the same machine the copy is a hard link. It answers `Kept`, and is one more holder of the result from then on,
which is a fact like any other. When one of two holders is lost, or has been in doubt for so long that it may be, a
third one takes its place. All this goes on in the background, few orders at a time to a node, and nothing waits for it
but the end of the job: once that is decided nothing is made again, so the output is to have two holders by then.

What cannot be copied now is put aside until nodes come or go: its only holder is in doubt, or no other node is there
that has not failed to get it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from p2premap.ids import NodeId, short
from p2premap.tasks import journal, messages
from p2premap.tasks.job import Source
from p2premap.tasks.ledger import ResultFact
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker

ORDERS_MAX: Final = 2
"""At one node at a time."""

LATE_MAX: Final = 1_000

COPY_PATIENCE_S: Final = 10.0
"""A stage that is to have second copies before it is pinned does without where none has been made for so long."""

PATIENCE_S: Final = 60.0
"""A job whose work is done ends where not one copy has been made for so long: it has to end, whatever disks do."""


class _Wanted(NamedTuple):
    """A result is to have another holder.

    Args:
        tried: nodes that could not get it.
    """

    since: float
    run: StageRun
    task: int
    tried: tuple[NodeId, ...] = ()


class _Order(NamedTuple):
    wanted: _Wanted
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
        self._outputs: deque[_Wanted] = deque()
        """Of final stages, which come first: nothing else of the job is read after its end."""
        self._others: deque[_Wanted] = deque()
        self._aside: deque[_Wanted] = deque()
        self._orders: dict[int, _Order] = {}
        self._late: dict[int, _Order] = {}
        """Given to nodes that were then lost: they may still answer."""
        self._number = 0
        self._moved = -math.inf
        """When there was a new result, or a new copy."""
        self._off = state.spec.options.copies < 2

    @property
    def waiting(self) -> int:
        """Results of which another copy is wanted: the death of one node may cost each of them."""
        return len(self._outputs) + len(self._others) + len(self._aside) + len(self._orders)

    def oldest(self) -> float | None:
        """Since when the oldest of these has been waiting."""
        first = (wanted.since for queue in (self._outputs, self._others, self._aside) for wanted in islice(queue, 1))
        return min((*first, *(order.wanted.since for order in self._orders.values())), default=None)

    def want(self, now: float, run: StageRun, task: int) -> None:
        """The task has a result with blobs."""
        if not self._off:
            self._moved = now
            self._queue(_Wanted(now, run, task))

    def want_all(self, now: float) -> None:
        """Of a job that was taken over: whatever has one holder only."""
        self._moved = now
        for run in self._state.runs:
            if run.facts.any_blobs and not (self._off or run.shed):
                for task in range(run.tasks):
                    if len(self._living(run, task)) == 1:
                        self._queue(_Wanted(now, run, task))

    def go(self) -> None:
        """Give orders to nodes with room for them."""
        for queue in (self._outputs, self._others):
            while queue:
                wanted = queue[0]
                fact = self._sole(wanted)
                if fact is not None and self._may_be_kept(wanted, fact.node):
                    keeper = self._keeper(wanted, fact.node)
                    if keeper is None:
                        return
                    self._order(wanted, fact, keeper)
                elif fact is not None:
                    self._aside.append(wanted)
                queue.popleft()

    def sole(self, node: NodeId) -> int:
        """Results that only this node holds, and that another is to keep."""
        orders = (order.wanted for order in self._orders.values())
        everything = (*self._outputs, *self._others, *self._aside, *orders)
        return sum((fact := self._sole(wanted)) is not None and fact.node == node for wanted in everything)

    def kept(self, now: float, worker: Worker, message: messages.Kept) -> None:
        """A node has the blobs, or could not get them."""
        orders = self._orders if message.number in self._orders else self._late
        order = orders.get(message.number)
        if order is None or order.keeper != worker.node:
            return
        del orders[message.number]
        wanted, attempt, node, keeper = order
        run, task = wanted.run, wanted.task
        if message.error:
            if orders is self._orders:
                self._queue(wanted._replace(tried=(*wanted.tried, keeper)))
            return
        if run.abandoned or not run.hold(task, attempt, node, keeper):
            return
        self._moved = now
        self._state.changed = True
        self._state.log.held(journal.Held(stage=run.id, task=task, attempt=attempt, node=node, holder=keeper))
        fact = next(f for f in run.facts.facts(task) if f.attempt == attempt and f.node == keeper)
        for blob in run.facts.results.blobs(fact.result):
            self._state.locations.made(now, blob.digest, keeper)
        if not run.is_settled(task):
            run.recover(task, self._state.locations)
            self._state.reconsider()

    # --- nodes come and go ----------------------------------------------------------------------------------------

    def seen(self, now: float, node: NodeId, *, back: bool) -> None:
        """A node is there (again): it may keep, or give, what nobody could.

        Args:
            back: what it holds counted as lost.
        """
        self._try_aside()
        if back:
            self._want_held(now, node)

    def doubt(self, node: NodeId) -> None:
        """A node is silent: nobody waits for what it was to keep, or to give."""
        self._call_back(order for order in self._orders.items() if node in (order[1].keeper, order[1].node))

    def lost(self, now: float, node: NodeId) -> None:
        """A node is dead, or has been in doubt for too long: what it has kept, or was to keep, another may."""
        self.doubt(node)
        self._try_aside()
        self._want_held(now, node)

    def unlinked(self, node: NodeId) -> None:
        """What was under way to this node may be lost: it is told again, or another is."""
        self._call_back(order for order in self._orders.items() if order[1].keeper == node)

    def _try_aside(self) -> None:
        aside, self._aside = self._aside, deque()
        for wanted in aside:
            self._queue(wanted._replace(tried=()))

    def _call_back(self, orders: Iterable[tuple[int, _Order]]) -> None:
        for number, order in list(orders):
            self._late[number] = self._orders.pop(number)
            self._queue(order.wanted, first=True)
        while len(self._late) > LATE_MAX:
            del self._late[next(iter(self._late))]

    def _want_held(self, now: float, node: NodeId) -> None:
        if not self._off:
            for run in self._state.runs:
                for task in () if run.shed else run.facts.held_by(node):
                    self._queue(_Wanted(now, run, task))

    # --- the end of the job ---------------------------------------------------------------------------------------

    def output_is_safe(self, now: float) -> bool:
        """Whether the job may end, as far as its output goes: every part can be read, and lost with two nodes only.

        Waited for are doubts, which end soon either way, and copies that are being made. What goes elsewhere (`-o URL`)
        has been written there.
        """
        if self._state.spec.options.output:
            return True
        return self._certain() and (not self._unkept() or now >= self._moved + PATIENCE_S)

    def are_made(self, now: float, run: StageRun) -> bool:
        """Whether all results of a stage have two holders, as far as they can."""
        mine = sum(wanted.run is run for wanted in (*self._outputs, *self._others))
        mine += sum(order.wanted.run is run and self._sole(order.wanted) is not None for order in self._orders.values())
        return not mine or now >= self._moved + COPY_PATIENCE_S

    def deadline(self) -> float:
        """When a job whose work is done ends with copies missing."""
        last = self._state.runs[-1]
        if last.plan.copied and last.complete and not last.pinned:
            return self._moved + COPY_PATIENCE_S
        waits = self._state.all_there and self._unkept() and self._certain()
        return self._moved + PATIENCE_S if waits else math.inf

    def note(self) -> str:
        """What a job whose work is done waits for, in one sentence; "": for nothing here."""
        if not self._state.all_there:
            return ""
        if not self._certain():
            silent = ", ".join(worker.name for worker in self._state.workers.all.values() if worker.doubtful)
            return f"All its tasks are done; part of its output is only on nodes that do not answer now: {silent}."
        if unkept := self._unkept():
            return f"All its tasks are done; parts of its output that are being copied to a second node: {unkept}."
        return ""

    def shortage(self) -> str:
        """What is to be said of a job that is done without the second holders that it could have had; "": nothing."""
        if self._state.spec.options.output:
            return ""
        wanted = (*self._outputs, *self._aside, *(order.wanted for order in self._orders.values()))
        holders: dict[NodeId, int] = {}
        for one in wanted:
            if one.run.plan.final and (fact := self._sole(one)) is not None and self._others_there(fact.node):
                holders[fact.node] = holders.get(fact.node, 0) + 1
        if not holders:
            return ""
        known = self._state.workers.all
        names = ", ".join(sorted(known[node].name if node in known else short(node) for node in holders))
        return (
            f"Parts of its output that have one holder only: {sum(holders.values())}, at {names}; no other node took "
            f"a copy: fetch them while {'it is' if len(holders) == 1 else 'they are'} there."
        )

    def _others_there(self, holder: NodeId) -> bool:
        return any(worker.eligible and worker.node != holder for worker in self._state.workers.all.values())

    def _unkept(self) -> int:
        """Results of final stages that are being copied, or soon will be."""
        out = (order.wanted for order in self._orders.values() if order.wanted.run.plan.final)
        return len(self._outputs) + sum(self._sole(wanted) is not None for wanted in out)

    def _certain(self) -> bool:
        """Whether every part can be read from a node that is beyond doubt."""
        return all(run.is_certain(self._state.locations) for run in self._state.runs if run.plan.final)

    # --- one result -----------------------------------------------------------------------------------------------

    def _queue(self, wanted: _Wanted, *, first: bool = False) -> None:
        queue = self._outputs if wanted.run.plan.final else self._others
        (queue.appendleft if first else queue.append)(wanted)

    def _sole(self, wanted: _Wanted) -> ResultFact | None:
        """The one copy of a result that is worth another; None: there are two by now, or none, or it counts no more."""
        run, task = wanted.run, wanted.task
        living = self._living(run, task)
        if len(living) != 1 or run.abandoned or run.shed or not run.is_settled(task):
            return None
        chosen = run.facts.chosen(task)
        fact = next(f for f in run.facts.facts(task) if f.node == living[0] and f.result == chosen)
        return fact if run.facts.results.blobs(chosen) else None

    def _order(self, wanted: _Wanted, fact: ResultFact, keeper: Worker) -> None:
        blobs = wanted.run.facts.results.blobs(fact.result)
        sources = tuple(
            Source(digest=b.digest, start=0, end=b.size, holders=(fact.node,), blob=b.digest) for b in blobs
        )
        self._number += 1
        self._orders[self._number] = _Order(wanted, fact.attempt, fact.node, keeper.node)
        keeper.touched = True
        self._state.say(
            keeper.node,
            messages.Keep(job=self._state.job, ballot=self._state.ballot, number=self._number, sources=sources),
        )

    def _living(self, run: StageRun, task: int) -> list[NodeId]:
        """Who holds the task's result and can be read from."""
        holders = run.facts.holders(task)
        if self._state.locations.clear:
            return list(holders)
        blobs = run.facts.results.blobs(run.facts.chosen(task)) if holders else ()
        return [n for n in holders if all(n in self._state.locations.known(blob.digest, (n,)) for blob in blobs)]

    def _may_be_kept(self, wanted: _Wanted, holder: NodeId) -> bool:
        """Whether the result can be read, and somebody is there to try it."""
        if self._state.locations.in_doubt(holder):
            return False
        return any(self._is_candidate(worker, wanted, holder) for worker in self._state.workers.all.values())

    def _keeper(self, wanted: _Wanted, holder: NodeId) -> Worker | None:
        """Who is to keep a copy: on another machine if possible, with the fewest orders; None: all have enough."""
        out: dict[NodeId, int] = {}
        for order in self._orders.values():
            out[order.keeper] = out.get(order.keeper, 0) + 1
        machine = self._state.workers.machine_of.get(holder)
        free = [
            w
            for w in self._state.workers.all.values()
            if out.get(w.node, 0) < ORDERS_MAX and self._is_candidate(w, wanted, holder)
        ]
        return min(free, key=lambda w: (w.machine == machine, out.get(w.node, 0), w.node), default=None)

    def _is_candidate(self, worker: Worker, wanted: _Wanted, holder: NodeId) -> bool:
        return worker.eligible and worker.node != holder and worker.node not in wanted.tried
