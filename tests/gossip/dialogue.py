"""One core in a test's hands: what it is told, and exactly what it asks for."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from p2premap.config import GossipConfig
from p2premap.gossip.core import GossipCore
from p2premap.gossip.events import (
    Dial,
    DialEnded,
    DialOutcome,
    GossipEffect,
    GossipEvent,
    LinkDown,
    LinkUp,
    MemberChanged,
    MemberState,
    Received,
    SendDatagram,
    SendLink,
    Tick,
)
from p2premap.gossip.messages import Ack, FactEntry, LoadEntry, MemberEntry, Ping, Rumours
from p2premap.ids import Address, Boot, Incarnation, NodeId
from p2premap.wire import Message
from tests.gossip.harness import node_id

M = TypeVar("M", bound=Message)
E = TypeVar("E")

ME = node_id(0)


def address(number: int) -> Address:
    return Address(f"10.0.0.{number + 1}", 7321)


def record(
    number: int, *, boot: int = 1, incarnation: int = 0, state: MemberState = MemberState.ALIVE, age: int = 0
) -> MemberEntry:
    """What node `number` says of itself."""
    return MemberEntry(
        node=node_id(number),
        boot=Boot(boot),
        incarnation=Incarnation(incarnation),
        state=state,
        name=f"node-{number}",
        addresses=(address(number),),
        age=age,
    )


class Dialogue:
    """Node 0, and whatever the test lets others say to it."""

    def __init__(self, others: int = 0, *, config: GossipConfig | None = None, seed: int = 0, boot: int = 1) -> None:
        self.now = 0.0
        self.config = config or GossipConfig()
        self.core = GossipCore(
            me=ME,
            boot=Boot(boot),
            name="node-0",
            addresses=(address(0),),
            config=self.config,
            rng=Random(seed),
            now=0.0,
        )
        self.effects: list[GossipEffect] = []
        self.log: list[tuple[float, GossipEffect]] = []
        if others:
            self.hear(1, Rumours(members=tuple(record(n) for n in range(1, others + 1))))
            self.settle()

    def give(self, event: GossipEvent) -> list[GossipEffect]:
        self.effects = self.core.step(self.now, event)
        self.core.check_invariants(deep=True)
        self.log += [(self.now, effect) for effect in self.effects]
        return self.effects

    def settle(self) -> None:
        """Let rumours be told and dials fail, until only probing is left."""
        for _ in range(200):
            for effect in self.effects:
                if isinstance(effect, Dial):
                    self.ended(effect, DialOutcome.SILENT)
                if isinstance(effect, SendDatagram) and isinstance(effect.message, Ping):
                    self.ack(effect)
            if self.now > 10.0:
                break
            self.tick()
        self.effects = []
        self.log = []

    def tick(self) -> list[GossipEffect]:
        """Let time pass until the core wants something."""
        self.now = max(self.now, self.core.deadline())
        return self.give(Tick())

    def until(self, when: float) -> list[GossipEffect]:
        """Let time pass; everything that was asked for meanwhile."""
        found: list[GossipEffect] = []
        while self.core.deadline() <= when:
            found += self.tick()
        self.now = when
        return found

    def quiet(self, until: float) -> None:
        """Time passes: the living answer pings, dials find nobody."""
        while self.core.deadline() <= until:
            for effect in self.tick():
                if isinstance(effect, Dial):
                    self.ended(effect, DialOutcome.SILENT)
                elif (
                    isinstance(effect, SendDatagram)
                    and isinstance(effect.message, Ping)
                    and self.state_of(effect) == MemberState.ALIVE
                ):
                    self.ack(effect)
        self.now = until

    def hear(self, sender: int, message: Message, *, link: bool = False) -> list[GossipEffect]:
        return self.give(Received(sender=node_id(sender), address=None if link else address(sender), message=message))

    def ack(self, ping: SendDatagram) -> list[GossipEffect]:
        assert isinstance(ping.message, Ping)
        answer = Ack(nonce=ping.message.nonce, root=self.core.root_hash)
        return self.give(Received(sender=ping.peer, address=ping.address, message=answer))

    def link(self, number: int, *, boot: int = 1, dialled: bool = True) -> list[GossipEffect]:
        return self.give(LinkUp(peer=node_id(number), boot=Boot(boot), address=address(number) if dialled else None))

    def unlink(self, number: int, *, boot: int = 1) -> list[GossipEffect]:
        return self.give(LinkDown(peer=node_id(number), boot=Boot(boot)))

    def ended(
        self, dial: Dial, outcome: DialOutcome, *, by: int | None = None, boot: int | None = 1
    ) -> list[GossipEffect]:
        return self.give(
            DialEnded(
                dial=dial.dial,
                address=dial.address,
                outcome=outcome,
                peer=None if by is None else node_id(by),
                boot=None if by is None or boot is None else Boot(boot),
            )
        )

    # --- what it said ----------------------------------------------------------------------------------------------

    def sent(self, kind: type[M]) -> list[tuple[NodeId, M]]:
        """The messages of this kind among the last effects, with their receivers."""
        return [
            (e.peer, e.message)
            for e in self.effects
            if isinstance(e, (SendDatagram, SendLink)) and isinstance(e.message, kind)
        ]

    def asked(self, kind: type[E]) -> list[E]:
        """The last effects of this kind."""
        return [e for e in self.effects if isinstance(e, kind)]

    def changes(self) -> list[tuple[NodeId, MemberState]]:
        return [(e.node, e.state) for e in self.asked(MemberChanged)]

    def state(self, number: int) -> MemberState | None:
        view = self.core.member(node_id(number))
        return None if view is None else view.state

    def state_of(self, sent: SendDatagram) -> MemberState | None:
        """What is believed of the receiver of a message."""
        view = self.core.member(sent.peer)
        return None if view is None else view.state

    def next_probe(self, number: int | None = None) -> SendDatagram:
        """Let time pass until the core pings (this member); others are answered for."""
        for _ in range(500):
            for effect in self.tick():
                if isinstance(effect, SendDatagram) and isinstance(effect.message, Ping):
                    if number is None or effect.peer == node_id(number):
                        return effect
                    self.ack(effect)
                if isinstance(effect, Dial):
                    self.ended(effect, DialOutcome.SILENT)
        raise AssertionError("it never pinged")


def fact(number: int, key: str = "k", value: bytes = b"v", *, version: int = 1, boot: int = 1) -> FactEntry:
    return FactEntry(node=node_id(number), boot=Boot(boot), version=version, key=key, value=value)


def load(number: int, value: bytes, *, version: int = 1, boot: int = 1) -> LoadEntry:
    return LoadEntry(node=node_id(number), boot=Boot(boot), version=version, value=value)
