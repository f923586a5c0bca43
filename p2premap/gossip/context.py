"""What the parts of one gossip core share: the clock, the effects of this step, the ways to a peer, the counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from random import Random
from typing import Final, TypeAlias

import msgspec

from p2premap.config import GossipConfig
from p2premap.gossip.events import Dial, DialEnded, GossipEffect, SendDatagram, SendLink
from p2premap.gossip.members import MemberTable
from p2premap.gossip.messages import ADDRESSES_MAX, address_of
from p2premap.gossip.timers import Timers
from p2premap.ids import Address, Boot, NodeId
from p2premap.wire import Message

HEALTH_MAX: Final = 8
"""The worst score of local health (Lifeguard, 4.1): time-outs are then 9 times as long."""

DialDone: TypeAlias = Callable[[DialEnded], None]


class Counters(msgspec.Struct):
    """How often things have happened since the start."""

    probes: int = 0
    probes_failed: int = 0
    inquiries: int = 0
    suspicions: int = 0
    stalls: int = 0
    deaths: int = 0
    link_faults: int = 0
    refutations: int = 0
    repairs: int = 0
    entries_repaired: int = 0
    dials: int = 0
    entries_refused: int = 0

    def copied(self) -> Counters:
        """A snapshot."""
        return copy(self)


class Contact:
    """What this node knows of a peer by having been in touch with it.

    Args:
        boot: the boot of the last hello.
        address: whence its last datagram came, where that is none of its own addresses (a translated one).
        proven: where this node dialled and finished a hello with that boot, the latest last.
    """

    __slots__ = ("address", "boot", "proven")

    def __init__(self) -> None:
        self.boot = Boot(-1)
        self.address: Address | None = None
        self.proven: tuple[Address, ...] = ()


class Context:
    """One core's surroundings. The core sets `now` and empties `out` at each step; the parts add effects to it."""

    __slots__ = (
        "_dials",
        "_next_dial",
        "config",
        "contacts",
        "counters",
        "health",
        "links",
        "me",
        "now",
        "out",
        "rng",
        "table",
        "timers",
    )

    def __init__(self, *, me: NodeId, config: GossipConfig, rng: Random, now: float, table: MemberTable) -> None:
        self.me = me
        self.config = config
        self.rng = rng
        self.now = now
        self.table = table
        self.timers = Timers()
        self.out: list[GossipEffect] = []
        self.links: dict[NodeId, Boot] = {}
        self.contacts: dict[NodeId, Contact] = {}
        self.counters = Counters()
        self.health = 0
        self._dials: dict[int, DialDone] = {}
        self._next_dial = 0

    # --- time --------------------------------------------------------------------------------------------------

    @property
    def patience(self) -> float:
        """By how much this node's own ill health stretches its time-outs (Lifeguard, 4.1)."""
        return 1.0 + self.health

    def worsen(self) -> None:
        """Something suggests that this node itself is slow or badly connected."""
        self.health = min(HEALTH_MAX, self.health + 1)

    def recover(self) -> None:
        """A probe of ours was answered in time."""
        if self.health:
            self.health -= 1

    def nonce(self) -> int:
        """63 random bits."""
        return self.rng.getrandbits(63)

    # --- ways to a peer ----------------------------------------------------------------------------------------

    def contact(self, peer: NodeId) -> Contact:
        """What is known by touch of this peer, made if need be."""
        contact = self.contacts.get(peer)
        if contact is None:
            if len(self.contacts) >= self.config.members_max:
                del self.contacts[next(iter(self.contacts))]
            contact = self.contacts[peer] = Contact()
        return contact

    def prove(self, peer: NodeId, boot: Boot, address: Address | None) -> None:
        """A hello with this peer is done; at this address, where this node dialled it."""
        contact = self.contact(peer)
        if boot != contact.boot:
            contact.boot = boot
            contact.proven = ()
        if address is not None:
            others = tuple(a for a in contact.proven if a != address)
            contact.proven = (*others, address)[-ADDRESSES_MAX:]

    def heard_from(self, peer: NodeId, address: Address) -> None:
        """A datagram came from there; remember it only where the peer's own record does not say so first."""
        contact = self.contacts.get(peer)
        if contact is not None and contact.address == address:
            return
        member = self.table.get(peer)
        if member is None or not member.entry.addresses or member.entry.addresses[0] != address:
            self.contact(peer).address = address
        elif contact is not None:
            contact.address = None

    def proven(self, peer: NodeId, boot: Boot) -> Sequence[Address]:
        """The addresses at which a failure to reach this boot of the peer proves something."""
        contact = self.contacts.get(peer)
        return contact.proven if contact is not None and contact.boot == boot else ()

    def addresses(self, peer: NodeId) -> list[Address]:
        """Where the peer may be, the most promising first, each once."""
        contact = self.contacts.get(peer)
        member = self.table.get(peer)
        found: list[Address] = []
        if contact is not None:
            found += reversed(contact.proven)
        if member is not None:
            found += map(address_of, member.entry.addresses)
        return list(dict.fromkeys(found))

    def address(self, peer: NodeId, turn: int = 0) -> Address | None:
        """Where to send the peer's datagrams; another one each `turn`, where it has several."""
        contact = self.contacts.get(peer)
        member = self.table.get(peer)
        if contact is None:
            if member is None or not member.entry.addresses:
                return None
            known = member.entry.addresses
            return address_of(known[turn % len(known)])
        if not turn and contact.address is not None:
            return contact.address
        if not turn and contact.proven:
            return contact.proven[-1]
        found = [] if contact.address is None else [contact.address]
        found += self.addresses(peer)
        return found[turn % len(found)] if found else None

    def send(self, peer: NodeId, message: Message, *, turn: int = 0) -> None:
        """By datagram; over the link where no address is known."""
        address = self.address(peer, turn)
        if address is not None:
            self.out.append(SendDatagram(peer=peer, address=address, message=message))
        elif peer in self.links:
            self.out.append(SendLink(peer=peer, message=message))

    def tell(self, peer: NodeId, message: Message) -> None:
        """Over the link, which loses nothing while it is up; by datagram where there is none."""
        if peer in self.links:
            self.out.append(SendLink(peer=peer, message=message))
        else:
            self.send(peer, message)

    def reply(self, peer: NodeId, address: Address | None, message: Message) -> None:
        """The way a message came: to the address of its datagram, or over the link."""
        if address is not None:
            self.out.append(SendDatagram(peer=peer, address=address, message=message))
        else:
            self.out.append(SendLink(peer=peer, message=message))

    # --- dialling ----------------------------------------------------------------------------------------------

    def dial(self, address: Address, *, keep: bool, timeout_s: float, done: DialDone) -> None:
        """Ask for a `Dial`; `done` is called with its end."""
        self._next_dial += 1
        self._dials[self._next_dial] = done
        self.counters.dials += 1
        self.out.append(Dial(dial=self._next_dial, address=address, keep=keep, timeout_s=timeout_s))

    def dial_ended(self, ended: DialEnded) -> None:
        """Pass the end of a dial to whoever asked for it; ends that nobody asked for change nothing."""
        done = self._dials.pop(ended.dial, None)
        if done is not None:
            done(ended)

    @property
    def dials_running(self) -> int:
        """How many dials have not ended."""
        return len(self._dials)
