"""Which sets of members may decide for a replica set.

More than half of the members may; exactly half may if the first member is among them. Any two such sets meet: two
sets of more than half by counting, two halves in the first member, a half and more than half by counting again. So
of (A, B), A alone goes on when B dies, and B alone never does: an even split has one winning side, and everybody can
tell which from the configuration.

Source: coteries, or quorum systems with a tie-breaking member (Garcia-Molina and Barbara, "How to Assign Votes in a
Distributed System", 1985).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from p2premap.ids import NodeId


def is_quorum(members: Sequence[NodeId], votes: Collection[NodeId]) -> bool:
    """Whether these voters, those among them that are members, decide for all."""
    double = 2 * sum(1 for member in members if member in votes)
    return double > len(members) or (double == len(members) > 0 and members[0] in votes)


def reached(members: Sequence[NodeId], serials: Mapping[NodeId, int]) -> int:
    """The highest number that a quorum has reached; -1 where none has. Who is not named has reached -1."""
    for serial in sorted({serials.get(member, -1) for member in members}, reverse=True):
        if is_quorum(members, [member for member in members if serials.get(member, -1) >= serial]):
            return serial
    return -1


def needed(members: Sequence[NodeId]) -> int:
    """How many members are a quorum whoever they are, for people."""
    return len(members) // 2 + 1
