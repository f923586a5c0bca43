"""Streams to a member that cannot be dialled (NAT, a firewall, a container): it is asked to open them itself.

::

    asks (it cannot dial)                                 is asked (it can)
      | CallMe(number, purpose) -- over the link ---------->|
      |<------------ a new connection, Hello(RETURN, number)|
      | Hello ---------------------------------------------->|
      | from here on as if it had dialled: the one that asked uses the service, the other serves it

The number is known to the two of them only, and counts for the member that was asked alone. A connection that comes
when nobody waits for it any more is closed at once. Where there is no link, gossip is asked to bring one up; it knows
how to have a member dial us.
"""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from p2premap.errors import PeerUnreachable
from p2premap.gossip.events import WantLink
from p2premap.ids import NodeId
from p2premap.node.handshake import Channel
from p2premap.node.hello import CallMe, Purpose
from p2premap.node.links import Deliver, Links
from p2premap.node.streams import StreamFrames
from p2premap.wire import FrameDecoder, Registry

CALLS_MAX: Final = 256
"""Connections that members may have this node open at the same time; beyond this a `CallMe` is dropped."""


class _Wanted(msgspec.Struct):
    """A connection that was asked for.

    Args:
        peer: the member that was asked.
        came: set when it is there.
        over: set when it is not used any more.
    """

    peer: NodeId
    came: trio.Event = msgspec.field(default_factory=trio.Event)
    over: trio.Event = msgspec.field(default_factory=trio.Event)
    channel: Channel | None = None


class ReturnedFrames(StreamFrames):
    """A stream whose connection the peer has opened; closing it ends the task that accepted it."""

    def __init__(self, channel: Channel, over: trio.Event, *, sends: Registry, decoder: FrameDecoder) -> None:
        super().__init__(channel.stream, peer=channel.peer.node, sends=sends, decoder=decoder)
        self._over = over

    async def aclose(self) -> None:
        """Close; never raises."""
        self._over.set()
        await super().aclose()


class Returns:
    """Asks for connections, and hands them over when they come.

    Args:
        links: carry the asking.
        deliver: takes `WantLink`.
    """

    def __init__(self, *, links: Links, deliver: Deliver) -> None:
        self._links = links
        self._deliver = deliver
        self._number = 0
        self._wanted: dict[int, _Wanted] = {}

    async def ask(self, peer: NodeId, purpose: Purpose) -> tuple[Channel, trio.Event]:
        """A connection that `peer` opens to us for this purpose, and the event to set when it is not used any more.

        Waits without bound: the caller sets a deadline.

        Raises:
            PeerUnreachable: the link to it has just gone.
        """
        if peer not in self._links:
            self._deliver(WantLink(peer=peer))
        await self._links.wait(peer)
        self._number += 1
        number, wanted = self._number, _Wanted(peer)
        self._wanted[number] = wanted
        try:
            if not self._links.send(peer, CallMe(number=number, purpose=purpose), b""):
                raise PeerUnreachable(f"Node {peer.hex()[:8]} cannot be asked to connect.")
            await wanted.came.wait()
        except BaseException:
            wanted.over.set()
            raise
        finally:
            del self._wanted[number]
        assert wanted.channel is not None
        return wanted.channel, wanted.over

    async def lend(self, channel: Channel) -> None:
        """Give a connection that has come to whoever asked for it; returns when it is not used any more."""
        wanted = self._wanted.get(channel.peer.answers)
        if wanted is None or wanted.peer != channel.peer.node or wanted.channel is not None:
            return
        wanted.channel = channel
        wanted.came.set()
        await wanted.over.wait()
