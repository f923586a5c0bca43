"""The tasks of a leader that goes on leading when the replica set changes: nothing is taken from them.

To its tasks a change of the replica set is a pause. What they append and propose between the two epochs waits here, and
goes into the new ballot's stream; serials count on from those of the old one, as the tasks counted them.

**Why it is safe.** A successor folds the base of the new stream before the new stream itself (`streams`). Where that
base is exactly what the tasks had, the old stream and its own base, every successor comes by the very order in which
these tasks took the facts. Where a promise of the new epoch brought any batch more, a successor would take that one
first, and might choose another result than these tasks do later: then they are given up, and new ones begin with all of
it. All that the tasks had appended is in the new base, so the first serial of the new stream that is protected protects
it. A cell that they had proposed and that is not decided in the old epoch never will be (`reconfigure`), and may be
proposed in the new one, with the same value or another.
"""

from __future__ import annotations

from typing import assert_never

from p2premap.election.events import Append, Propose
from p2premap.election.leader import Leadership
from p2premap.election.streams import Vector


class Carried:
    """See the module.

    Args:
        leadership: that of the epoch that is over.
        vector: all that its tasks have: its stream, and what that was based on.
    """

    def __init__(self, leadership: Leadership, vector: Vector) -> None:
        self.vector = vector
        self.offset = leadership.offset + leadership.serial
        self.proposals = {cell: proposal.value for cell, proposal in leadership.proposals.items()}
        self.waiting: list[Append | Propose] = []

    def resume(self, leadership: Leadership) -> None:
        """Their leader leads again, based on what they have and nothing else."""
        leadership.offset = self.offset
        for cell, value in self.proposals.items():
            leadership.propose(cell, value)
        for event in self.waiting:
            say(leadership, event)


def say(leadership: Leadership, event: Append | Propose) -> None:
    """What tasks have for the ledger."""
    match event:
        case Append(batch=batch):
            leadership.append(batch)
        case Propose(cell=cell, value=value):
            leadership.propose(cell, value)
        case _:
            assert_never(event)
