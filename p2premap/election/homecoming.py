"""What the leader of a job takes in from its forks, and what it waits for before its tasks begin.

A leader that begins while a fork knows more would have tasks run that the fork has done. So whoever knows of a fork
tells each replica of the job that comes back (`ForkWaits`), and one that is elected then waits for the fork's facts,
for `decide_wait_s` at most, before it says `Lead`. That is a matter of time only: facts that come later are merged all
the same, and what was run twice meanwhile counts once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from p2premap.election.context import Context
from p2premap.election.messages import ForkTaken
from p2premap.election.records import CellRecord
from p2premap.election.replica import Replica
from p2premap.ids import JobId, NodeId


class Homecoming:
    """See the module.

    Args:
        replica: of the job.
    """

    def __init__(self, context: Context, replica: Replica) -> None:
        self._context = context
        self._replica = replica
        self._expected: dict[JobId, NodeId] = {}
        self._taken: dict[JobId, tuple[NodeId, int]] = {}
        """Forks of which so many facts were taken over, and who waits to hear that they are protected."""
        self._cells: tuple[CellRecord, ...] = ()
        self._begin: Callable[[], None] | None = None
        self._until = math.inf

    # --- what is waited for -------------------------------------------------------------------------------------------

    def expect(self, fork: JobId, node: NodeId) -> None:
        """This node knows of a fork that has not come home."""
        if fork not in self._taken:
            self._expected[fork] = node

    def before(self, begin: Callable[[], None]) -> None:
        """Begin as soon as no fork is waited for."""
        self._begin, self._until = begin, self._context.now + self._context.config.decide_wait_s
        self._look()

    def arrived(self, fork: JobId) -> None:
        """Nothing of this fork is lacking any more."""
        self._expected.pop(fork, None)
        self._look()

    def lost(self, node: NodeId) -> None:
        """This node is gone, and with it what it was to send."""
        self._expected = {fork: of for fork, of in self._expected.items() if of != node}
        self._look()

    def deadline(self) -> float:
        """When nothing is waited for any longer."""
        return self._until

    def tick(self) -> None:
        """Begin without what has not come by now."""
        if self._until <= self._context.now:
            self._expected.clear()
            self._look()

    def stop(self) -> None:
        """This node does not lead any more: there is nothing to begin."""
        self._begin, self._until = None, math.inf

    def _look(self) -> None:
        if self._begin is not None and not self._expected:
            begin = self._begin
            self.stop()
            begin()

    # --- what was taken -----------------------------------------------------------------------------------------------

    def take(self, fork: JobId, node: NodeId, count: int, cells: tuple[CellRecord, ...]) -> None:
        """So many facts of a fork are in the job's stream; these cells of it are to be proposed before any other."""
        self._expected.pop(fork, None)
        self._taken[fork] = (node, count)
        self._cells = cells

    def take_cells(self) -> tuple[CellRecord, ...]:
        """The cells, once."""
        cells, self._cells = self._cells, ()
        return cells

    def protected(self) -> None:
        """All that was taken is safe: who sent it may forget it."""
        for fork, (node, count) in self._taken.items():
            self._context.tell(node, ForkTaken(job=self._replica.job, fork=fork, count=count))
        self._taken.clear()
