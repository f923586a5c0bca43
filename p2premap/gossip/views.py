"""What a gossip core shows: snapshots that nobody can change it through."""

from __future__ import annotations

import msgspec

from p2premap.gossip.beliefs import Beliefs
from p2premap.gossip.context import Context, Counters
from p2premap.gossip.events import MemberView
from p2premap.gossip.members import Member
from p2premap.gossip.messages import address_of


class GossipStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one core's sizes and counters.

    Args:
        rumours, loads: waiting to be told.
        dropped: of both, since the start, because a queue was full.
        trials, doubts, dials: going on.
        dead: members that are DEAD or have LEFT, and are still remembered.
        health: 0 is well; time-outs are 1 + health times as long.
    """

    members: int
    live: int
    links: int
    rumours: int
    loads: int
    dropped: int
    trials: int
    doubts: int
    dead: int
    hints: int
    dials: int
    timers: int
    health: int
    incarnation: int
    counters: Counters


def view(member: Member, context: Context, beliefs: Beliefs) -> MemberView:
    """One member as this node sees it; facts that were withdrawn are not shown."""
    entry = member.entry
    load = beliefs.loads.get(entry.node)
    return MemberView(
        node=entry.node,
        boot=entry.boot,
        incarnation=entry.incarnation,
        state=entry.state,
        name=entry.name,
        addresses=tuple(map(address_of, entry.addresses)),
        facts={key: fact.entry.value for key, fact in sorted(member.facts.items()) if fact.entry.value},
        load=b"" if load is None else load.value,
        linked=entry.node in context.links,
    )
