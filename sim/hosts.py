"""What stands between the world and a core: the world knows links, datagrams and ticks, a host knows its core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from p2premap.ids import Address, Boot, NodeId
from p2premap.wire import Message


class Host(Protocol):
    """One life of one node: what a process runs from its start to its end."""

    def step(self, now: float, event: object) -> Sequence[object]:
        """Take one event, give back effects. The world performs those of `p2premap.gossip.events` that speak to
        the network, and hands every effect to `perform` and to the observers."""

    def deadline(self) -> float:
        """When it wants a `Tick`, by its own clock."""

    def perform(self, effect: object) -> None:
        """Do what the world does not: run attempts, write to disk. The answer comes by `World.tell`."""

    def frame(self, sender: NodeId, message: Message) -> object:
        """The event for a frame that came over a link."""

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""


class Life:
    """What a host is told about the life that it is to run.

    Args:
        node: its identity, from the machine's disk.
        boot: this start of it.
        name: for people.
        addresses: where it listens.
        now: its own clock at the start.
        random: gives the generator of a room, seeded by world, node and start.
        old: the machine's disk is an older image of itself.
        former: the starts before it that its disk remembers.
    """

    __slots__ = ("addresses", "boot", "former", "name", "node", "now", "old", "random")

    def __init__(
        self,
        *,
        node: NodeId,
        boot: Boot,
        name: str,
        addresses: tuple[Address, ...],
        now: float,
        random: Callable[[str], Random],
        old: bool = False,
        former: tuple[Boot, ...] = (),
    ) -> None:
        self.node = node
        self.boot = boot
        self.name = name
        self.addresses = addresses
        self.now = now
        self.random = random
        self.old = old
        self.former = former


HostMaker = Callable[[Life], Host]
