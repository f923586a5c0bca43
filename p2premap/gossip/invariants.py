"""What must always be true of one node's gossip, and what must become true of several nodes.

`p2premap.gossip.core.GossipCore.check_invariants` calls the first kind after each step of a test or a simulation.
The second kind are pure functions over what nodes show (`MemberView`), for the simulator's checkers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from p2premap.gossip.beliefs import Beliefs
from p2premap.gossip.context import Context
from p2premap.gossip.events import MemberState, MemberView
from p2premap.gossip.members import MemberTable, is_live
from p2premap.gossip.probe import TRIALS_MAX, Prober
from p2premap.gossip.spread import LOADS_MAX, Spread
from p2premap.gossip.suspicion import Suspicion
from p2premap.ids import NodeId

_UNACCUSED: Final = (MemberState.ALIVE, MemberState.LEFT)

# --- one node ------------------------------------------------------------------------------------------------------


def check_beliefs(context: Context, beliefs: Beliefs, suspicion: Suspicion) -> None:
    """A node's beliefs agree with each other, and about itself it believes only what it said.

    Raises:
        AssertionError: they do not.
    """
    own = context.table.get(context.me)
    assert own is not None, "a node is a member of its own table"
    assert own.entry is beliefs.own or own.entry == beliefs.own, "a node's own record is its own"
    assert own.entry.state in _UNACCUSED, "a node never accuses itself"
    assert context.me not in context.links, "a node has no link to itself"
    for node, doubt in suspicion.doubts.items():
        member = context.table.get(node)
        assert member is not None, "the doubted are members"
        assert member.entry.state in (MemberState.STALLED, MemberState.SUSPECT), "only the doubted are doubted"
        assert doubt.look is not None, "every doubt is looked at again"
        assert doubt.look.running, "every doubt is looked at again"


def check_bounds(context: Context, beliefs: Beliefs, spread: Spread, prober: Prober, hints: int) -> None:
    """Every queue and table is within its limit.

    Raises:
        AssertionError: one is not.
    """
    config, members = context.config, len(context.table)
    assert len(spread.rumours) <= config.rumours_max, "rumours are bounded"
    assert len(spread.loads) <= LOADS_MAX, "loads to tell are bounded"
    assert members <= config.members_max + config.dead_max, "members are bounded"
    assert len(beliefs.dead) <= config.dead_max, "the dead are bounded"
    assert len(beliefs.loads) <= members, "only members have loads"
    assert len(prober.trials) <= TRIALS_MAX + members, "trials are bounded"
    assert hints <= config.hints_max, "hints are bounded"


def check_sums(table: MemberTable, beliefs: Beliefs) -> None:
    """Hashes and counts that are kept up with each change are what they would be if computed anew. O(n).

    Raises:
        AssertionError: one is not.
    """
    root = live = dead = 0
    for member in table:
        root ^= member.total
        live += member.live
        if member.entry.node != beliefs.own.node:
            dead += not member.live
            assert member.live != (member.entry.node in beliefs.dead), "the dead are those in the book of the dead"
    assert root == table.root, "the root is the sum of all entries"
    assert live == table.live, "the number of the living is right"
    assert dead == len(beliefs.dead), "all the dead are accounted for"
    sums = 0
    for bucket in table.buckets:
        sums ^= bucket
    assert sums == root, "the buckets add up to the root"


# --- a node over time, and several nodes -----------------------------------------------------------------------------


def order_of(view: MemberView) -> tuple[int, int, int]:
    """The part of a belief that may only rise (boot, incarnation, state)."""
    return (view.boot, view.incarnation, int(view.state))


def went_back(before: MemberView, after: MemberView) -> bool:
    """Whether one node's belief about one member went back to something older."""
    return order_of(after) < order_of(before)


def living(views: Iterable[MemberView]) -> tuple[NodeId, ...]:
    """Who is believed to be there, in the order of the ids."""
    return tuple(sorted(view.node for view in views if is_live(view.state)))


def disagreement(tables: Sequence[Sequence[MemberView]]) -> str:
    """A sentence about the first difference between what several nodes believe; "" where they agree.

    Compared are (boot, incarnation), whether the member is there, and its slow facts: what must converge.
    """
    for other in tables[1:]:
        theirs = {view.node: view for view in other}
        for view in tables[0]:
            seen = theirs.get(view.node)
            if seen is None:
                return f"{view.node.hex()} is known to one node, not to another"
            if (view.boot, view.incarnation, is_live(view.state)) != (seen.boot, seen.incarnation, is_live(seen.state)):
                return f"{view.node.hex()} is {order_of(view)} to one node, {order_of(seen)} to another"
            if dict(view.facts) != dict(seen.facts):
                return f"two nodes know different facts of {view.node.hex()}"
        if len(theirs) != len(tables[0]):
            return "two nodes know different numbers of members"
    return ""
