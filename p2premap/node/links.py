"""The links of this node: at most one stream of messages to each peer, whoever dialled it.

A link begins with the dialler's `LinkStart` and is up with the acceptor's `LinkStarted`. Nobody sends `LinkStart`
while it has a link to that (id, boot), or has started one that is not answered yet. So an acceptor that hears it

- and has a link to that peer knows that the peer has lost it: the new one replaces the old (LinkDown, LinkUp);
- and has itself started one that is not answered yet sees two simultaneous dials. The one dialled by the lower id
  stays: both sides decide so without a further word. The other is answered `contested` and ends, before it has carried
  anything: no message is lost or overtaken, and no LinkDown is told.

Whoever dialled in vain is told by the link's coming up the other way (`Links.wait`).

Sending never blocks: a link has an outbox, bounded in frames and bytes; what does not fit is refused, and the sender
decides. What waits in it leaves in as few TLS records as possible.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
import trio

from p2premap.config import TransportConfig
from p2premap.errors import RemoteProtocolError
from p2premap.gossip import messages as gossip
from p2premap.gossip.events import GossipEvent, LinkDown, LinkUp, Received
from p2premap.ids import Address, NodeId
from p2premap.node.handshake import Channel
from p2premap.node.hello import LINK_CONTROL, CallMe, LinkEnd, LinkStart, LinkStarted
from p2premap.node.streams import READ_BYTES
from p2premap.ports import FrameReceived
from p2premap.protocol import LINK
from p2premap.wire import Frame, Message, Registry, encode_frame

ON_LINK: Final = Registry((*LINK.messages, *LINK_CONTROL, CallMe))
"""What a link carries."""

WRITE_BYTES: Final = 256 << 10
FAREWELL_S: Final = 1.0

Deliver: TypeAlias = Callable[[GossipEvent | FrameReceived], None]

_GOSSIP: Final = frozenset(gossip.MESSAGES)


class Link:
    """One connection that is, or is about to be, this pair's link.

    Args:
        channel: after the hello; its decoder is taken over.
        address: where this node dialled the peer; None where the peer dialled us.
        config: the limits of the outbox.
    """

    def __init__(self, channel: Channel, *, address: Address | None, config: TransportConfig) -> None:
        self.peer = channel.peer.node
        self.boot = channel.peer.boot
        self.address = address
        self._stream = channel.stream
        self._decoder = channel.decoder
        self._decoder.admit(ON_LINK)
        self._frames_max = config.outbox_frames_max
        self._bytes_max = config.outbox_bytes_max
        self._outbox: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._work = trio.Event()
        self._ending = False

    @property
    def waiting(self) -> tuple[int, int]:
        """Frames and bytes that have not left yet."""
        return len(self._outbox), self._waiting_bytes

    def send(self, message: Message, payload: bytes = b"") -> bool:
        """Queue a message; False where the outbox is full or the link is ending."""
        if self._ending or len(self._outbox) >= self._frames_max or self._waiting_bytes >= self._bytes_max:
            return False
        self._put(encode_frame(ON_LINK, message, payload))
        return True

    def end(self) -> None:
        """Let what waits leave, say `LinkEnd`, and close."""
        if not self._ending:
            self._put(encode_frame(ON_LINK, LinkEnd()))
            self._ending = True

    def _put(self, data: bytes) -> None:
        self._outbox.append(data)
        self._waiting_bytes += len(data)
        self._work.set()

    async def receive(self) -> Frame | None:
        """The next frame; None when the peer has closed.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            RemoteProtocolError: what came does not belong on a link.
        """
        while (frame := self._decoder.next()) is None:
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                return None
            self._decoder.push(bytes(data))
        return frame

    async def carry(self, take: Callable[[Frame], None]) -> None:
        """Send and receive until either side ends the link or it breaks; returns then.

        Raises:
            RemoteProtocolError: what came does not belong on a link.
        """
        wrong: RemoteProtocolError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            try:
                await self._read(take)
            except RemoteProtocolError as error:
                wrong = error  # raised below, as itself and not in a group
            nursery.cancel_scope.cancel()
        if wrong is not None:
            raise wrong

    async def _read(self, take: Callable[[Frame], None]) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while (frame := await self.receive()) is not None and not isinstance(frame.message, LinkEnd):
                take(frame)

    async def _write(self, link: trio.CancelScope) -> None:
        try:
            while True:
                await self._work.wait()
                while self._outbox:
                    data = self._gather()
                    await self._stream.send_all(data)
                    self._waiting_bytes -= len(data)
                if self._ending:
                    link.deadline = trio.current_time() + FAREWELL_S  # time for the peer to close as well
                    return
                self._work = trio.Event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            link.cancel()  # reading alone would not notice while the peer is silent

    def _gather(self) -> bytes:
        """The next frames to leave together: many small ones, or one large."""
        parts = [self._outbox.popleft()]
        size = len(parts[0])
        while self._outbox and size + len(self._outbox[0]) <= WRITE_BYTES:
            parts.append(self._outbox.popleft())
            size += len(parts[-1])
        return b"".join(parts) if len(parts) > 1 else parts[0]


class LinksStatistics(msgspec.Struct, frozen=True):
    """How many links are up, and what waits in their outboxes."""

    up: int
    waiting_frames: int
    waiting_bytes: int
    refused_frames: int
    contested: int


class Links:
    """Which connection is the link to each peer.

    Args:
        me: this node.
        config: limits.
        deliver: where events and frames go; sync.
        called: told of each `CallMe`; sync.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        config: TransportConfig,
        deliver: Deliver,
        called: Callable[[NodeId, CallMe], None] = lambda _, __: None,
    ) -> None:
        self._me = me
        self._config = config
        self._deliver = deliver
        self._called = called
        self._up: dict[NodeId, Link] = {}
        self._started: dict[NodeId, Link] = {}
        self._waiters: dict[NodeId, trio.Event] = {}
        self._refused_frames = self._contested = 0

    def statistics(self) -> LinksStatistics:
        """A snapshot."""
        waiting = [link.waiting for link in self._up.values()]
        return LinksStatistics(
            up=len(self._up),
            waiting_frames=sum(frames for frames, _ in waiting),
            waiting_bytes=sum(size for _, size in waiting),
            refused_frames=self._refused_frames,
            contested=self._contested,
        )

    def __contains__(self, peer: NodeId) -> bool:
        return peer in self._up

    def send(self, peer: NodeId, message: Message, payload: bytes) -> bool:
        """Queue for the link to `peer`; False where there is none or its outbox is full."""
        link = self._up.get(peer)
        if link is not None and link.send(message, payload):
            return True
        self._refused_frames += 1
        return False

    def hangup(self, peer: NodeId) -> None:
        """End the link to `peer`, if any."""
        if (link := self._up.get(peer)) is not None:
            link.end()
            self._lower(link)

    def hangup_all(self) -> None:
        """End every link, and each that we have offered and that is not answered yet."""
        self._started.clear()
        for peer in tuple(self._up):
            self.hangup(peer)

    def wants(self, channel: Channel) -> bool:
        """Whether a connection that was dialled as a link is needed: there is no other to this (id, boot)."""
        peer = channel.peer
        if peer.node == self._me:
            return False
        return not any(
            link is not None and link.boot == peer.boot
            for link in (self._up.get(peer.node), self._started.get(peer.node))
        )

    async def start(self, channel: Channel, address: Address) -> Link | None:
        """Offer a connection that we dialled as the link; None where the peer's own offer stays instead.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            RemoteProtocolError: the answer is not `LinkStarted`.
        """
        link = Link(channel, address=address, config=self._config)
        self._started[link.peer] = link
        try:
            await channel.stream.send_all(encode_frame(ON_LINK, LinkStart()))
            answer = await link.receive()
        finally:
            wanted = self._started.get(link.peer) is link
            if wanted:
                del self._started[link.peer]
        if answer is None or not wanted:
            raise trio.BrokenResourceError("ended instead of LinkStarted")
        if not isinstance(answer.message, LinkStarted):
            raise RemoteProtocolError("something else than LinkStarted")
        if answer.message.contested:
            return None
        self._raise(link)
        return link

    async def accept(self, channel: Channel) -> Link | None:
        """Hear the dialler out: the link, now up; None where it wanted none after all, or ours stays instead.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            RemoteProtocolError: something else than `LinkStart`.
        """
        link = Link(channel, address=None, config=self._config)
        frame = await link.receive()
        if frame is None:
            return None
        if not isinstance(frame.message, LinkStart):
            raise RemoteProtocolError("something else than LinkStart")
        ours = self._started.get(link.peer)
        if ours is not None and ours.boot == link.boot:
            self._contested += 1
            if self._me < link.peer:
                await channel.stream.send_all(encode_frame(ON_LINK, LinkStarted(contested=True)))
                return None
        link.send(LinkStarted(contested=False))
        self._raise(link)
        return link

    async def carry(self, link: Link) -> None:
        """Deliver what comes until the link ends; tells LinkDown then.

        Raises:
            RemoteProtocolError: what came does not belong on a link.
        """
        try:
            await link.carry(lambda frame: self._take(link, frame))
        finally:
            self._lower(link)

    async def wait(self, peer: NodeId) -> None:
        """Until a link to `peer` is up."""
        await trio.lowlevel.checkpoint()
        while peer not in self._up:
            waiter = self._waiters.setdefault(peer, trio.Event())
            try:
                await waiter.wait()
            finally:
                if not waiter.statistics().tasks_waiting and self._waiters.get(peer) is waiter:
                    del self._waiters[peer]

    def _raise(self, link: Link) -> None:
        if (old := self._up.get(link.peer)) is not None:
            old.end()
            self._lower(old)
        self._up[link.peer] = link
        if (waiter := self._waiters.pop(link.peer, None)) is not None:
            waiter.set()
        self._deliver(LinkUp(peer=link.peer, boot=link.boot, address=link.address))

    def _lower(self, link: Link) -> None:
        if self._up.get(link.peer) is link:
            del self._up[link.peer]
            self._deliver(LinkDown(peer=link.peer, boot=link.boot))

    def _take(self, link: Link, frame: Frame) -> None:
        if self._up.get(link.peer) is not link:
            return  # replaced, and its end has been told: nothing may come after it
        if type(frame.message) in _GOSSIP:
            self._deliver(Received(sender=link.peer, address=None, message=frame.message))
        elif isinstance(frame.message, LINK_CONTROL):
            raise RemoteProtocolError(f"{type(frame.message).__name__} in the middle of a link")
        elif isinstance(frame.message, CallMe):
            self._called(link.peer, frame.message)
        else:
            self._deliver(FrameReceived(peer=link.peer, frame=frame))
