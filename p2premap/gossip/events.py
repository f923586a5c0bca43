"""What the gossip core is told, and what it asks for. See `p2premap.gossip.core` for the theory of operation.

Everything here has already been authenticated by the shell: a `Received` comes from the holder of the key behind
`sender`, a `LinkUp` from a finished hello both ways. Instants are the local clock's; none crosses the wire.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeAlias

from p2premap.event import Event
from p2premap.ids import Address, Boot, Incarnation, NodeId
from p2premap.wire import Message


class MemberState(enum.IntEnum):
    """What is believed of a member; the higher value wins within one (boot, incarnation)."""

    ALIVE = 0
    STALLED = 1
    SUSPECT = 2
    DEAD = 3
    LEFT = 4


class DialOutcome(enum.Enum):
    """How an attempt to reach an address ended. Only the shell can tell these apart, and they are not the same.

    A refusal is evidence of death only at an address where this node has finished a hello before: a firewall's
    REJECT, a container's or a reused DHCP address is a stranger's.
    """

    CONNECTED = "connected"
    """An authenticated hello: `peer` and `boot` tell with whom."""
    REFUSED = "refused"
    """The kernel there answered: nobody listens."""
    SILENT = "silent"
    """No SYN-ACK within the time, or no route."""
    STALLED = "stalled"
    """The kernel accepted; no authenticated hello came within the time (SIGSTOP, swap, a held GIL)."""
    FOREIGN = "foreign"
    """Somebody who does not know our cluster's secret (another cluster, or not p2premap at all)."""
    INCOMPATIBLE = "incompatible"
    """A member of our cluster that speaks another major version."""


# --- events -------------------------------------------------------------------------------------------------------


class Tick(Event, frozen=True, kw_only=True):
    """The deadline that the core asked for has come."""


class Received(Event, frozen=True, kw_only=True):
    """An authenticated gossip message, by datagram or over a link.

    Args:
        sender: proved by the channel.
        address: whence the datagram came; None over a link.
    """

    sender: NodeId
    address: Address | None
    message: Message


class LinkUp(Event, frozen=True, kw_only=True):
    """A stream to a peer is up: both hellos are done.

    Args:
        address: where this node dialled the peer; None where the peer dialled us.
    """

    peer: NodeId
    boot: Boot
    address: Address | None


class LinkDown(Event, frozen=True, kw_only=True):
    """The stream to the peer is gone: closed, reset or broken."""

    peer: NodeId
    boot: Boot


class DialEnded(Event, frozen=True, kw_only=True):
    """The answer to one `Dial`; always comes, once.

    Args:
        dial: the number in the `Dial`.
        peer, boot: who answered the hello, where the outcome is CONNECTED.
    """

    dial: int
    address: Address
    outcome: DialOutcome
    peer: NodeId | None = None
    boot: Boot | None = None


class Hinted(Event, frozen=True, kw_only=True):
    """Somebody may be at this address (runtime directory, mDNS, `--join`, remembered). A hint, never evidence.

    Args:
        node: who is said to be there, where the hint says so.
    """

    address: Address
    node: NodeId | None


class Woke(Event, frozen=True, kw_only=True):
    """This process did not run for a while: a stalled event loop, SIGSTOP, a closed lid.

    Args:
        lost_s: how long; every timer that was running is credited with it.
    """

    lost_s: float


class SetFact(Event, frozen=True, kw_only=True):
    """Publish a slow fact about this node; b"" withdraws it. The same value again costs nothing."""

    key: str
    value: bytes


class SetLoad(Event, frozen=True, kw_only=True):
    """Publish this node's load, already quantised by the caller (see `gossip.facts.LoadMeter`)."""

    value: bytes


class SetAddresses(Event, frozen=True, kw_only=True):
    """The addresses at which this node listens have changed; told to others under a higher incarnation."""

    addresses: tuple[Address, ...]


class WantLink(Event, frozen=True, kw_only=True):
    """Another room has something to say to this member: bring a link up.

    Where no address of the member can be dialled, it is asked through a common neighbour to dial us.
    """

    peer: NodeId


class Leave(Event, frozen=True, kw_only=True):
    """Tell everybody that this node leaves in good order; answered by `Left` when it has been said."""


GossipEvent: TypeAlias = (
    Tick
    | Received
    | LinkUp
    | LinkDown
    | DialEnded
    | Hinted
    | Woke
    | SetFact
    | SetLoad
    | SetAddresses
    | WantLink
    | Leave
)


# --- effects ------------------------------------------------------------------------------------------------------


class SendDatagram(Event, frozen=True, kw_only=True):
    """Send once, unreliably. The encoded message fits into one datagram (the core sees to it)."""

    peer: NodeId
    address: Address
    message: Message


class SendLink(Event, frozen=True, kw_only=True):
    """Send over the link to the peer; dropped where there is none."""

    peer: NodeId
    message: Message


class Dial(Event, frozen=True, kw_only=True):
    """Connect and exchange hellos; answered by one `DialEnded`, and by `LinkUp` first where the link is kept.

    Args:
        dial: a number chosen by the core.
        keep: keep the connection as this pair's link (else it is closed after the hello: a probe).
        timeout_s: SILENT or STALLED after this long.
    """

    dial: int
    address: Address
    keep: bool
    timeout_s: float


class Hangup(Event, frozen=True, kw_only=True):
    """Close the link to the peer."""

    peer: NodeId


class MemberChanged(Event, frozen=True, kw_only=True):
    """The belief about a member is now this. Sent once for each change that others may care about.

    Args:
        state: ALIVE also when a member is new or came back (a new boot or incarnation).
        gone: this node has seen itself that the member's process is no more; False where it is merely silent, or where
            others say so.
    """

    node: NodeId
    boot: Boot
    incarnation: Incarnation
    state: MemberState
    name: str
    addresses: tuple[Address, ...]
    gone: bool = False


class FactChanged(Event, frozen=True, kw_only=True):
    """A member published a slow fact (b"": withdrew it)."""

    node: NodeId
    key: str
    value: bytes


class LoadChanged(Event, frozen=True, kw_only=True):
    """A member's load, as quantised by its owner."""

    node: NodeId
    value: bytes


class IdentityClash(Event, frozen=True, kw_only=True):
    """This identity is not safely ours: this node must take a new one and start anew.

    Args:
        reason: one sentence for the log (an old disk or a restored image; the same identity alive elsewhere).
    """

    reason: str


class Left(Event, frozen=True, kw_only=True):
    """The leave has been said to whom it could be said; the shell may stop."""


GossipEffect: TypeAlias = (
    SendDatagram | SendLink | Dial | Hangup | MemberChanged | FactChanged | LoadChanged | IdentityClash | Left
)


class MemberView(Event, frozen=True, kw_only=True):
    """One member as this node sees it, for status displays and other rooms."""

    node: NodeId
    boot: Boot
    incarnation: Incarnation
    state: MemberState
    name: str
    addresses: tuple[Address, ...]
    facts: Mapping[str, bytes]
    load: bytes
    linked: bool
