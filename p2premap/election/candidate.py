"""Standing for a job: the first phase of Paxos, for all its cells at once, and the merging of facts.

A candidate promises its ballot to itself and waits until that is on disk (it must not use one ballot twice, in two
lives); then it asks all members. Each sends the facts that the candidate lacks and then its promise, with its vector
and its cells. A promise counts only when the candidate holds everything that its vector names: facts may have been lost
with a link that broke between them and the promise; then it asks again, which is harmless.

With a quorum of promises it has won. Of each cell that is not known to be decided, the value that was accepted under
the highest ballot is the only one that can have been chosen, and is proposed again ("Paxos Made Simple", 2.2, P2c).

**An epoch that was stopped.** A cell ``cfg/e+1`` decides nothing but the end of epoch e (`reconfigure`). Whoever
proposed it under ballot c had had every other cell decided before, and proposed none after. So where a candidate finds
it accepted under c at the highest, values accepted under lower ballots than c were never chosen and must not be
proposed again: e may be over already, and its successor free to decide otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from p2premap.election.config import config_cell
from p2premap.election.context import Context
from p2premap.election.messages import Prepare, Promise
from p2premap.election.records import CellRecord
from p2premap.election.replica import Replica
from p2premap.ids import Ballot, NodeId


class Candidacy:
    """This node stands for a job.

    Args:
        ballot: higher than any that this node has heard of.
        won: called once, when a quorum has promised.
    """

    __slots__ = ("_asked_at", "_context", "_replica", "_won", "ballot", "promises")

    def __init__(self, context: Context, replica: Replica, ballot: Ballot, won: Callable[[Candidacy], None]) -> None:
        self._context = context
        self._replica = replica
        self._won = won
        self._asked_at = math.inf
        self.ballot = ballot
        self.promises: dict[NodeId, Promise] = {}

    def start(self, still: Callable[[Candidacy], bool]) -> None:
        """Promise to oneself; once that is on disk, if this is `still` the candidacy, ask the others."""
        self._replica.promise(self.ballot, lambda: self._promised() if still(self) else None)

    def _promised(self) -> None:
        replica = self._replica
        own = Promise(job=replica.job, ballot=self.ballot, vector=(), cells=replica.promised_cells())
        self.promises[self._context.me] = own
        if not self._decide():
            self._asked_at = self._context.now
            for node in replica.members:
                self.ask(node)

    def deadline(self) -> float:
        """When members that have not answered are asked again."""
        return self._asked_at + self._context.config.resend_s

    def ask_again(self) -> None:
        """Ask those who have not answered."""
        self._asked_at = self._context.now
        for node in self._replica.members:
            self.ask(node)

    def ask(self, node: NodeId) -> None:
        """Ask this one, if it is a member that can be reached and has not promised, and we may ask yet."""
        if self._asked_at == math.inf or node in self.promises or node not in self._replica.members:
            return
        if node != self._context.me and self._context.reachable(node):
            vector = self._replica.streams.vector()
            self._context.send(node, Prepare(job=self._replica.job, ballot=self.ballot, vector=vector))

    def hear(self, node: NodeId, promise: Promise) -> None:
        """A member promised."""
        if promise.ballot != self.ballot or node in self.promises or node not in self._replica.members:
            return
        if not self._replica.streams.covers(promise.vector):
            self.ask(node)
            return
        self.promises[node] = promise
        self._decide()

    def _decide(self) -> bool:
        if not self._replica.has_quorum(self.promises):
            return False
        self._asked_at = math.inf
        self._won(self)
        return True

    def chosen(self) -> list[CellRecord]:
        """What the promises tell is decided."""
        return [cell for promise in self.promises.values() for cell in promise.cells if cell.chosen]

    def adopted(self) -> list[CellRecord]:
        """What must be proposed again: of each cell the value of the highest ballot. See the module."""
        best: dict[str, CellRecord] = {}
        for promise in self.promises.values():
            for cell in promise.cells:
                if cell.ballot.epoch != self.ballot.epoch or cell.chosen:
                    continue
                if cell.cell not in best or best[cell.cell].ballot < cell.ballot:
                    best[cell.cell] = cell
        stop = best.get(config_cell(self.ballot.epoch + 1))
        return [cell for cell in best.values() if stop is None or cell.ballot >= stop.ballot]
