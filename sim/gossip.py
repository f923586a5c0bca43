"""Nodes that are nothing but their gossip core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from p2premap.config import GossipConfig
from p2premap.gossip.core import GossipCore
from p2premap.gossip.events import GossipEffect, GossipEvent, MemberState, Received
from p2premap.gossip.members import EMPTY
from p2premap.gossip.messages import MemberEntry
from p2premap.ids import Boot, Incarnation, NodeId
from p2premap.sim.hosts import Host, Life
from p2premap.sim.machines import Seat
from p2premap.wire import Message

DEEP_EVERY: Final = 64
"""Every so many checks of a core are deep ones."""

FIRST: Final = Incarnation(0)
"""Where a node begins in each boot."""


class GossipHost:
    """A node that is nothing but its gossip core."""

    def __init__(self, core: GossipCore) -> None:
        self.core = core
        self.deadline = core.deadline
        self._checks = 0

    def step(self, now: float, event: object) -> Sequence[GossipEffect]:
        return self.core.step(now, cast(GossipEvent, event))

    def check_invariants(self) -> None:
        """The deep checks cost more with every member, so they come at times."""
        self._checks += 1
        self.core.check_invariants(deep=self._checks % DEEP_EVERY == 0)

    def perform(self, effect: object) -> None:
        """A gossip core asks for nothing that the world does not do."""

    def frame(self, sender: NodeId, message: Message) -> object:
        return Received(sender=sender, address=None, message=message)


class GossipHosts:
    """Makes them, all of one configuration.

    Args:
        config: of every core.
    """

    def __init__(self, config: GossipConfig) -> None:
        self.config = config
        self.base = EMPTY

    def __call__(self, life: Life) -> Host:
        return GossipHost(
            GossipCore(
                me=life.node,
                boot=life.boot,
                name=life.name,
                addresses=life.addresses,
                config=self.config,
                rng=life.random("gossip"),
                now=life.now,
                base=self.base,
            )
        )


def first_entry(seat: Seat, boot: Boot) -> MemberEntry:
    """What a node that has never run before says of itself at its start, of this boot."""
    return MemberEntry(
        node=seat.node,
        boot=boot,
        incarnation=FIRST,
        state=MemberState.ALIVE,
        name=seat.name,
        addresses=((seat.address.host, seat.address.port),),
    )
