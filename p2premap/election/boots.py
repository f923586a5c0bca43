"""Who may vote after a start: a replica whose memory of its promises is whole.

A replica that has lost or rolled back its disk may have promised and accepted what it does not remember; if it voted,
two values could be chosen for one cell. The disk's keeper finds out most of that by itself, and then takes a new
identity, under which it has promised nothing: so a node that knows nothing of a job has not voted in it. What the disk
cannot know is that all of it was set back, such as a machine restored from a copy. So each node counts its boots, and
every replica keeps the highest boot that it has heard of each other member. After a start a replica asks (`Boots`), and
votes in a job only when a quorum of the job, itself included, has answered with a boot that is not higher than its own.

One that is found out says so in its record (`JobRecord.amnesiac`) and is silent in this epoch for ever. In a later
epoch it may vote again: to join one, a replica is given the whole state, and no promise of an earlier epoch counts
there (`reconfigure`). All nodes may be asking at the same time: answering needs no vote.

Source: recovery with epoch numbers in Viewstamped Replication Revisited (Liskov and Cowling 2012, 4.3); "Protocol-Aware
Recovery for Consensus-Based Storage" (Alagappan and others 2018) for what a damaged disk must never do.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2premap.election.quorum import is_quorum
from p2premap.ids import NodeId


class BootCheck:
    """Whether this node's boot is confirmed in one job.

    Args:
        me: this node.
        fresh: the job came here in this life: there is nothing to forget.
    """

    __slots__ = ("_fresh", "_votes", "amnesiac")

    def __init__(self, me: NodeId, *, fresh: bool, amnesiac: bool = False) -> None:
        self._fresh = fresh
        self._votes = {me}
        self.amnesiac = amnesiac

    def hear(self, node: NodeId) -> None:
        """A member knows of no later boot."""
        self._votes.add(node)

    def forgot(self) -> None:
        """A member knows of a later boot: this replica's memory has been rolled back."""
        self.amnesiac = True

    def wants(self, node: NodeId) -> bool:
        """Whether this member's word is still needed."""
        return not self._fresh and not self.amnesiac and node not in self._votes

    def confirmed(self, members: Sequence[NodeId]) -> bool:
        """Whether this replica may vote."""
        return not self.amnesiac and (self._fresh or is_quorum(members, self._votes))
