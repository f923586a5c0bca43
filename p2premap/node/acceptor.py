"""What happens to a TCP connection that comes in.

Strangers are bounded: so many connections may be on their way to a hello at once (the oldest gives way to a new one),
each for `hello_s` at most, and no frame of theirs may carry a payload. Nothing that a stranger sends raises or changes
anything but a counter.
"""

from __future__ import annotations

import contextvars
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from p2premap.config import TransportConfig
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import NOBODY, Address, NodeId
from p2premap.node import tls
from p2premap.node.bulk import BULK
from p2premap.node.greeting import ForeignSeen, Greeter
from p2premap.node.handshake import Channel, TlsStream, foreign_certificate, hear_hello
from p2premap.node.hello import Purpose, Reason, Refused, hello_frame, refusal_frame, secret_frame
from p2premap.node.introduction import PREFACE as GANG
from p2premap.node.invite import PREFACE, Inviter
from p2premap.node.keys import Face
from p2premap.node.links import Links
from p2premap.node.listeners import address_from, tune
from p2premap.node.returns import Returns
from p2premap.node.streams import StreamFrames, close
from p2premap.ports import StreamHandler
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.wire import WIRE_VERSION, UnknownVersion

_TLS_HANDSHAKE: Final = 0x16  # the first byte of a ClientHello's record (RFC 8446, 5.1)

ROTATED: Final = (
    "The cluster's secret was rotated while this node was away; run `p2premap join TOKEN`, with a token that "
    "`p2premap invite` prints on a member."
)

_log = logging.getLogger(__name__)


class _Handshake(msgspec.Struct):
    """One in the making.

    Args:
        face: ours in it.
        claim: the tag of the secret that the dialler says it knows; "" before it has said so.
    """

    face: Face
    claim: str = ""


_handshake: contextvars.ContextVar[_Handshake] = contextvars.ContextVar("handshake")


class Acceptor:
    """Serves whoever connects to one node.

    Args:
        greeter: says our hellos.
        links: where links go.
        returns: where connections go that this node has asked for.
        config: limits and intervals.
        serve_control, serve_bulk: the services.
        inviter: serves guests.
        serve_gang: passes on to worker processes what is for them; whether it was.
    """

    def __init__(
        self,
        *,
        greeter: Greeter,
        links: Links,
        returns: Returns,
        config: TransportConfig,
        serve_control: StreamHandler,
        serve_bulk: StreamHandler,
        inviter: Inviter,
        serve_gang: Callable[[trio.SocketStream], Awaitable[bool]],
    ) -> None:
        self._greeter = greeter
        self._counts = greeter.counts
        self._links = links
        self._returns = returns
        self._config = config
        self._serve_control = serve_control
        self._serve_bulk = serve_bulk
        self._inviter = inviter
        self._serve_gang = serve_gang
        self._strangers: OrderedDict[int, trio.CancelScope] = OrderedDict()
        self._number = 0
        self._serving: dict[trio.CancelScope, NodeId] = {}

    @property
    def strangers(self) -> int:
        """Connections on their way to a hello."""
        return len(self._strangers)

    @property
    def members(self) -> int:
        """Connections after their hello."""
        return len(self._serving)

    def shut_out_all_but(self, members: Sequence[NodeId]) -> None:
        """End every connection that somebody else than these has opened to us, programs on other machines too."""
        for scope in [scope for scope, peer in self._serving.items() if peer not in members]:
            scope.cancel()

    async def serve(self, tcp: trio.SocketStream) -> None:
        """Serve one connection to its end; never raises."""
        channel: Channel | None = None
        try:
            with self._one_connection():
                where = address_from(tcp.socket.getpeername())
                tune(tcp.setsockopt, self._config.link_silent_s)
                with self._as_stranger():
                    channel = await self._greet(tcp, where)
                if channel is not None:
                    await self._serve_member(channel)
        finally:
            if channel is not None:
                await close(channel.stream)
            await trio.aclose_forcefully(tcp)

    async def serve_returned(self, channel: Channel, purpose: Purpose) -> None:
        """Serve a member on a connection that this node has opened because it was asked to; never raises."""
        try:
            with self._one_connection(), self._until_shut_out(channel.peer.node):
                await self._serve_purpose(channel, purpose)
        finally:
            await close(channel.stream)

    @contextmanager
    def _one_connection(self) -> Iterator[None]:
        """Whatever goes wrong on a connection ends that one only."""
        try:
            yield
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, PeerUnreachable):
            self._counts["broken"] += 1
        except RemoteProtocolError:
            self._counts["broken_protocol"] += 1
        except Exception:
            _log.exception("a connection failed")

    @contextmanager
    def _until_shut_out(self, peer: NodeId) -> Iterator[None]:
        with trio.CancelScope() as scope:
            self._serving[scope] = peer
            try:
                yield
            finally:
                del self._serving[scope]

    @contextmanager
    def _as_stranger(self) -> Iterator[None]:
        """A bounded time in a bounded table; the oldest in it gives way."""
        self._number += 1
        number = self._number
        with trio.move_on_after(self._config.hello_s) as scope:
            self._strangers[number] = scope
            if len(self._strangers) > self._config.strangers_max:
                _, oldest = self._strangers.popitem(last=False)
                oldest.cancel()
            try:
                yield
            finally:
                self._strangers.pop(number, None)
        if scope.cancelled_caught:
            self._counts["strangers_late"] += 1

    async def _greet(self, tcp: trio.SocketStream, where: Address) -> Channel | None:
        """The connection, hellos done; None where it is at its end already."""
        first = await tcp.socket.recv(1, socket.MSG_PEEK)
        if not first:
            return None
        if first[0] != _TLS_HANDSHAKE:
            if first == PREFACE[:1] and self._inviter.is_open and await _starts_with(tcp, PREFACE):
                self._counts["guests"] += 1
                await self._inviter.serve(tcp)
            elif first == GANG[:1] and await self._serve_gang(tcp):
                self._counts["gangs"] += 1
            else:
                self._counts["strangers_noise"] += 1
            return None
        return await self._shake_hands(tcp, where)

    async def _shake_hands(self, tcp: trio.SocketStream, where: Address) -> Channel | None:
        """TLS and the hellos, all under one secret, which is still understood when they are done."""
        keys = self._greeter.keys
        made = _Handshake(keys.face)
        _handshake.set(made)
        made.face.server_context.sni_callback = self._choose
        stream: TlsStream = trio.SSLStream(tcp, made.face.server_context, server_side=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            self._counts["strangers_tls"] += 1
            if made.claim and made.claim != keys.secret.tag and foreign_certificate(error):
                self._greeter.met_stranger(ForeignSeen(address=None, host=where.host, tag=made.claim))
            return None
        tag = made.face.tag
        keys.proved(tag)
        if tag != keys.secret.tag:
            await self._give_secret(stream, tag)
            return None
        channel = await self._exchange(stream, where)
        if channel is not None and keys.understood(tag) is None:
            self._counts["strangers_rotated"] += 1
            return None  # evicted between its hello and ours
        return channel

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """OpenSSL calls this in the middle of a handshake, in the context of the task that shakes hands."""
        made = _handshake.get()
        made.claim = tls.tag_in(name)
        if made.claim and (face := self._greeter.keys.understood(made.claim)) is not None:
            made.face, connection.context = face, face.server_context

    async def _give_secret(self, stream: TlsStream, tag: str) -> None:
        """Somebody has proved a former secret of the cluster: the present one, where it is a member that was away."""
        keys = self._greeter.keys
        try:
            peer = (await hear_hello(stream)).peer
        except RemoteProtocolError:
            self._counts["strangers_hello"] += 1
            return
        if peer.purpose is not Purpose.CLIENT and keys.entitled(tag, peer.node):
            self._counts["secrets_given"] += 1
            await stream.send_all(secret_frame(keys.secret))
        else:
            self._counts["strangers_rotated"] += 1
            await stream.send_all(refusal_frame(Reason.ROTATED, ROTATED))

    async def _exchange(self, stream: TlsStream, where: Address) -> Channel | None:
        try:
            channel = await hear_hello(stream)
        except UnknownVersion as error:
            self._counts["strangers_version"] += 1
            text = f"This node speaks version {WIRE_VERSION}, you speak {error.version}; upgrade the older of the two."
            await stream.send_all(refusal_frame(Reason.VERSION, text))
            return None
        except Refused:
            return None  # a dialler does not refuse; nothing to answer
        except RemoteProtocolError as error:
            self._counts["strangers_hello"] += 1
            await stream.send_all(refusal_frame(Reason.PROTOCOL, str(error)))
            return None
        if self.members >= self._config.connections_max:
            self._counts["full"] += 1
            await stream.send_all(refusal_frame(Reason.FULL, "This node has too many connections."))
            return None
        self._greeter.met(channel.peer, where)
        await stream.send_all(hello_frame(self._greeter.hello(channel.peer.purpose)))
        return channel

    async def _serve_member(self, channel: Channel) -> None:
        """Raises what broken connections and broken protocols raise."""
        peer = channel.peer
        with self._until_shut_out(NOBODY if peer.purpose is Purpose.CLIENT else peer.node):
            match peer.purpose:
                case Purpose.PROBE:
                    with trio.move_on_after(self._config.hello_s):
                        await channel.stream.receive_some(1)  # the dialler closes
                case Purpose.LINK:
                    with trio.move_on_after(self._config.hello_s) as deadline:
                        link = await self._links.accept(channel)
                    if not deadline.cancelled_caught and link is not None:
                        await self._links.carry(link)
                case Purpose.RETURN:
                    await self._returns.lend(channel)
                case _:
                    await self._serve_purpose(channel, peer.purpose)

    async def _serve_purpose(self, channel: Channel, purpose: Purpose) -> None:
        """Serve a member or a program, whoever opened the connection; raises as `_serve_member`."""
        peer = channel.peer
        match purpose:
            case Purpose.CONTROL | Purpose.CLIENT:
                channel.decoder.admit(FROM_CLIENT)
                # a program is no member, also from elsewhere: what it asks is passed on to whoever knows
                member = peer.node if purpose is Purpose.CONTROL else None
                frames = StreamFrames(channel.stream, peer=member, sends=FROM_DAEMON, decoder=channel.decoder)
                await self._serve_control(frames)
            case Purpose.BULK:
                channel.decoder.admit(BULK)
                await self._serve_bulk(
                    StreamFrames(channel.stream, peer=peer.node, sends=BULK, decoder=channel.decoder)
                )


async def _starts_with(tcp: trio.SocketStream, expected: bytes) -> bool:
    """Read as many bytes as expected, and tell whether they are those."""
    read = b""
    while len(read) < len(expected) and expected.startswith(read):
        data = await tcp.receive_some(len(expected) - len(read))
        if not data:
            return False
        read += data
    return read == expected
