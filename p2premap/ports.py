"""What the outside must supply. The daemon has real ones (`p2premap.node`), the simulator virtual ones.

The cores never see a port: they ask by effects and are told by events, and the shell performs the one by a port
and makes the other from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from p2premap.event import Event
from p2premap.ids import Address, NodeId
from p2premap.wire import Frame, Message


class FrameReceived(Event, frozen=True, kw_only=True):
    """A frame came over the link from an authenticated member: not gossip (that comes as `gossip.events.Received`)."""

    peer: NodeId
    frame: Frame


class FrameStream(Protocol):
    """An authenticated two-way stream of frames: a Unix socket, or TLS to a member."""

    @property
    def peer(self) -> NodeId | None:
        """The member at the other end; None for a client."""

    @property
    def local(self) -> bool:
        """Whether it is a Unix socket: only a client on this machine may decide what this machine belongs to."""

    async def send(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Send one frame.

        Raises:
            PeerUnreachable: the stream is broken.
        """

    def send_now(self, message: Message, payload: bytes | memoryview = b"") -> bool:
        """Send one frame as far as that needs no waiting. False: the rest goes before whatever is sent next.

        Raises:
            PeerUnreachable: the stream is broken.
        """

    async def receive(self) -> Frame | None:
        """The next frame; None when the other end has closed in good order.

        Raises:
            PeerUnreachable: the stream is broken.
            RemoteProtocolError: what came is not a frame that belongs here; close the stream.
        """

    async def aclose(self) -> None:
        """Close; never raises."""


StreamHandler = Callable[[FrameStream], Awaitable[None]]


class Transport(Protocol):
    """Datagrams, links, and streams to members. Everything it delivers has been authenticated."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where this node listens now."""

    def send_datagram(self, peer: NodeId, address: Address, message: Message) -> None:
        """Send once, unreliably; never blocks."""

    def send_link(self, peer: NodeId, message: Message, payload: bytes = b"") -> bool:
        """Queue for the link to this peer; False if there is none or its queue is full. Never blocks."""

    def dial(self, dial: int, address: Address, *, keep: bool, timeout_s: float) -> None:
        """Try an address; the outcome comes as one `gossip.events.DialEnded`."""

    def hangup(self, peer: NodeId) -> None:
        """Close the link to this peer, if any."""

    async def open_control(self, peer: NodeId) -> FrameStream:
        """A stream to the peer's control service (`p2premap.control`).

        Raises:
            PeerUnreachable: at none of its addresses.
        """

    async def open_bulk(self, peer: NodeId) -> FrameStream:
        """A stream to the peer's blob service (`p2premap.node.bulk`).

        Raises:
            PeerUnreachable: at none of its addresses.
        """


class Randomness(Protocol):
    """The operating system's CSPRNG: for keys, salts, tokens. Never for protocol choices."""

    def __call__(self, size: int, /) -> bytes:
        """`size` unpredictable bytes."""
