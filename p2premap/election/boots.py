"""Who may vote after a start: a replica whose memory of its promises is whole.

A replica that has lost or rolled back its disk may have promised and accepted what it does not remember; if it voted,
two values could be chosen for one cell. The disk's keeper finds out most of that by itself, and then takes a new
identity, under which it has promised nothing. What the disk cannot know is that all of it was set back, such as a
machine restored from a copy. So no two starts of a node have the same boot, also where they have the same number
(`ids.next_boot`); a node remembers its former boots on its disk; and every replica keeps the last boot that it has
heard of each other member. After a start a replica asks (`Boots`), and votes in a job only when a quorum of the job,
itself included, has answered with a boot that it remembers: one that it does not remember was a life that its disk has
lost, whatever was promised then. Who answers keeps the new boot only where the old one is remembered, so that a
second question gets the same answer.

A node that is told to be a replica of a job of which it knows nothing (`StoreJob`) has not voted in it if it was made a
member in this very life. Else it may have, and must ask, too.

One that is found out says so in its record (`JobRecord.amnesiac`) and to candidates (`Nack.amnesiac`), who do not count
on it, and gives its word no more in this epoch. In a later epoch it may vote again: to join one, a replica is given the
whole state, and no promise of an earlier epoch counts there (`reconfigure`). All nodes may be asking at the same time:
answering needs no vote.

**What this does not see** is a copy that was made in the last life in which the replica voted, nor a life of which none
of those who answer had heard: see docs/decisions/0015-what-boot-counters-see.md.

Source: recovery with epoch numbers in Viewstamped Replication Revisited (Liskov and Cowling 2012, 4.3); "Protocol-Aware
Recovery for Consensus-Based Storage" (Alagappan and others 2018) for what a damaged disk must never do.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2premap.election.quorum import is_quorum
from p2premap.ids import Boot, NodeId, starts_of


def remembers(boot: Boot, former: Sequence[int], known: int) -> bool:
    """Whether a node in this boot, whose disk has these boots before it, remembers what others know of; 0: none.

    A disk keeps so many boots only: one that began earlier than those did is believed.
    """
    oldest = former[0] if former else boot
    return known in (0, boot) or known in former or starts_of(Boot(known)) < starts_of(Boot(oldest))


class BootCheck:
    """Whether this node's boot is confirmed in one job.

    Args:
        me: this node.
        fresh: it was made a member in this life: there is nothing to forget.
    """

    __slots__ = ("_fresh", "_votes", "amnesiac")

    def __init__(self, me: NodeId, *, fresh: bool, amnesiac: bool = False) -> None:
        self._fresh = fresh
        self._votes = {me}
        self.amnesiac = amnesiac

    def hear(self, node: NodeId) -> None:
        """A member knows of no boot that is not remembered here."""
        self._votes.add(node)

    def forgot(self) -> None:
        """A member knows of a boot that is not remembered here: this replica's memory has been rolled back."""
        self.amnesiac = True

    def wants(self, node: NodeId) -> bool:
        """Whether this member's word is still needed."""
        return not self._fresh and not self.amnesiac and node not in self._votes

    def confirmed(self, members: Sequence[NodeId]) -> bool:
        """Whether this replica may vote."""
        return not self.amnesiac and (self._fresh or is_quorum(members, self._votes))
