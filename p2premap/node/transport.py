"""The real `p2premap.ports.Transport`: TCP and UDP sockets on one port, TLS to members, one link a peer.

::

    a TCP connection comes:   first byte 0x16 --> TLS 1.3 mutual --> hello --> LINK | PROBE | CONTROL, CLIENT | BULK
                              an invite's first line --> `p2premap.node.invite`, while an invite is open
                              a gang's first line --> the worker process that it is for (`p2premap.node.gangs`)
                              anything else --> closed and counted
    a datagram comes:         opened (`p2premap.node.seal`) --> decoded --> delivered; anything else counted

Loopback only, until `open_to_network`. Each connection and each dial is a background task of `run`; a connection that
fails takes nothing else with it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from p2premap.config import TransportConfig
from p2premap.errors import ConfigError, LocalProtocolError
from p2premap.gossip.messages import ADDRESSES_MAX
from p2premap.ids import Address, NodeId
from p2premap.node.acceptor import Acceptor
from p2premap.node.datagrams import Datagrams
from p2premap.node.dialler import Dialler
from p2premap.node.greeting import ForeignSeen, Greeter
from p2premap.node.hello import CallMe, Purpose
from p2premap.node.identity import Identity
from p2premap.node.interfaces import Interface, Kind, addresses, read_interfaces
from p2premap.node.invite import Inviter
from p2premap.node.keys import Keys
from p2premap.node.links import Deliver, Links, LinksStatistics
from p2premap.node.listeners import EVERYWHERE, LOOPBACK, Bound, bind, bind_first
from p2premap.node.returns import CALLS_MAX, Returns
from p2premap.node.seal import Sealer
from p2premap.ports import FrameStream, Randomness, StreamHandler
from p2premap.protocol import GOSSIP
from p2premap.wire import Message

_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_DESCRIPTORS_WAIT_S: Final = 0.1

log = logging.getLogger(__name__)


class TransportStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. `counts` by name: dials by outcome, strangers turned away by reason, datagrams."""

    port: int
    network: bool
    strangers: int
    members: int
    links: LinksStatistics
    counts: Mapping[str, int]


class TrioTransport:
    """One node's transport.

    Args:
        identity: who this node is.
        keys: the cluster's secrets.
        config: limits and intervals.
        deliver: where gossip events and other rooms' frames go; sync, must not raise.
        addresses_of: where a member may be dialled for a control or bulk stream, the best first.
        serve_control: serves the control service to members and remote clients.
        serve_bulk: serves the bulk service to members.
        inviter: serves guests.
        serve_gang: passes on to worker processes the connections that are for them.
        hello_name: this node's name for people.
        version: of the software, for people.
        foreign: told when somebody of another cluster was met; sync.
        clashed: told, with a sentence, when another process lives under this node's id and has for longer; sync.
        randomness: the system's CSPRNG.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        keys: Keys,
        config: TransportConfig,
        deliver: Deliver,
        addresses_of: Callable[[NodeId], Sequence[Address]],
        serve_control: StreamHandler,
        serve_bulk: StreamHandler,
        inviter: Inviter,
        serve_gang: Callable[[trio.SocketStream], Awaitable[bool]],
        hello_name: str,
        version: str,
        foreign: Callable[[ForeignSeen], None],
        clashed: Callable[[str], None],
        randomness: Randomness,
    ) -> None:
        self._config = config
        self._counts: Counter[str] = Counter()
        self._network = False
        self._interfaces: tuple[Interface, ...] = ()
        self._bound: Bound | None = None
        self._listening = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        sealer = self._sealer = Sealer(
            me=identity.node, gossip_key=keys.secret.gossip_key, randomness=randomness, senders_max=config.senders_max
        )
        self._keys = keys
        keys.on_change(self._rekey)
        self._datagrams = Datagrams(sealer=sealer, registry=GOSSIP, deliver=deliver, salt_idle_s=config.salt_idle_s)
        self._links = Links(me=identity.node, config=config, deliver=deliver, called=self._on_call)
        self._calls = 0
        returns = Returns(links=self._links, deliver=deliver)
        greeter = Greeter(
            identity=identity,
            keys=keys,
            name=hello_name,
            version=version,
            sealer=sealer,
            addresses=lambda: self.addresses,
            foreign=foreign,
            clashed=clashed,
            counts=self._counts,
        )
        self._dialler = Dialler(
            greeter=greeter,
            links=self._links,
            returns=returns,
            config=config,
            deliver=deliver,
            addresses_of=addresses_of,
        )
        self._acceptor = Acceptor(
            greeter=greeter,
            links=self._links,
            returns=returns,
            config=config,
            serve_control=serve_control,
            serve_bulk=serve_bulk,
            inviter=inviter,
            serve_gang=serve_gang,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, accept, dial and carry until cancelled; started once the sockets are bound.

        Raises:
            ConfigError: no port is free.
        """
        hosts = EVERYWHERE if self._network else LOOPBACK
        bound = self._bound = bind_first(hosts, self._config.port_first, self._config.ports_tried)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._listen, bound, self._listening)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._bound.close()

    def _rekey(self, members: Sequence[NodeId] | None) -> None:
        """The cluster has another secret: links are made anew, and who is no member any more is served no longer."""
        self._sealer.rekey(self._keys.secret.gossip_key)
        self._links.hangup_all()
        if members is not None:
            self._acceptor.shut_out_all_but(members)
            self._dialler.shut_out_all_but(members)

    # --- where it listens -----------------------------------------------------------------------------------------

    def open_to_network(self) -> None:
        """Listen on every interface from now on, on the same port where that is free, else on the next free one.

        Raises:
            ConfigError: no port is free; the node listens on loopback as before.
        """
        if not self._network:
            self._interfaces = self._interfaces or read_interfaces()
            self._rebind(EVERYWHERE)
            self._network = True

    def close_to_loopback(self) -> None:
        """Listen on loopback only from now on. Connections that exist stay."""
        if self._network:
            self._rebind(LOOPBACK)
            self._network = False

    def set_interfaces(self, interfaces: tuple[Interface, ...]) -> None:
        """The machine's interfaces are these now; `addresses` follows."""
        self._interfaces = interfaces

    @property
    def port(self) -> int:
        """Of every socket; 0 before `run` has bound them."""
        return self._bound.port if self._bound is not None else 0

    @property
    def network(self) -> bool:
        """Whether it listens beyond loopback."""
        return self._network

    @property
    def local_addresses(self) -> tuple[Address, ...]:
        """Where nodes of this machine reach this one."""
        families = {one.family for one in self._bound.tcp} if self._bound is not None else set()
        hosts = [h for h in LOOPBACK if (socket.AF_INET6 if ":" in h else socket.AF_INET) in families]
        return tuple(Address(host, self.port) for host in hosts)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where this node listens now: for peers on the network, or loopback where it is not open to them.

        Left out, unless there is nothing else: link-local IPv6 addresses, whose scope means nothing to a peer, and
        virtual bridges, as the same address is another machine's bridge there.
        """
        if not self._network or not self.port:
            return self.local_addresses
        bridges = {host for i in self._interfaces if i.kind is Kind.VIRTUAL for host in i.hosts}
        found = addresses(self._interfaces, self.port, 4 * ADDRESSES_MAX)
        wide = tuple(a for a in found if "%" not in a.host)
        real = tuple(a for a in wide if a.host not in bridges)
        return (real or wide or found or self.local_addresses)[:ADDRESSES_MAX]

    def _rebind(self, hosts: tuple[str, ...]) -> None:
        """Listen on other addresses. No await between closing and binding: nobody is refused in between for long."""
        old = self._bound
        if old is None:
            return  # `run` will
        self._listening.cancel()
        for one in (*old.tcp, *old.udp):
            trio.lowlevel.notify_closing(one)
        old.close()
        failure: ConfigError | None = None
        try:
            new = self._bind_again(hosts, old.port)
        except ConfigError as error:
            failure, new = error, self._bind_again(LOOPBACK, old.port)
        self._bound, self._listening = new, trio.CancelScope()
        if self._nursery is not None:
            self._nursery.start_soon(self._listen, new, self._listening)
        if failure is not None:
            raise failure

    def _bind_again(self, hosts: tuple[str, ...], port: int) -> Bound:
        with contextlib.suppress(OSError):
            return bind(hosts, port)
        return bind_first(hosts, self._config.port_first, self._config.ports_tried)

    async def _listen(self, bound: Bound, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for one in bound.tcp:
                    nursery.start_soon(self._accept, one)
                for one in bound.udp:
                    nursery.start_soon(self._receive, one)

    def _on_call(self, peer: NodeId, call: CallMe) -> None:
        """A member that cannot dial us wants a connection."""
        if self._nursery is None or self._calls >= CALLS_MAX or call.purpose not in (Purpose.CONTROL, Purpose.BULK):
            self._counts["calls_dropped"] += 1
            return
        self._calls += 1
        self._nursery.start_soon(self._call_back, peer, call)

    async def _call_back(self, peer: NodeId, call: CallMe) -> None:
        try:
            if (channel := await self._dialler.call_back(peer, call)) is not None:
                await self._acceptor.serve_returned(channel, call.purpose)
        finally:
            self._calls -= 1

    async def _receive(self, one: socket.socket) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # it may have been closed before this task ran at all
        with contextlib.suppress(trio.ClosedResourceError):
            await self._datagrams.serve(one)

    async def _accept(self, one: socket.socket) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(one))
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as error:
                self._counts["unaccepted"] += 1
                if error.errno in _NO_DESCRIPTORS:
                    await trio.sleep(_NO_DESCRIPTORS_WAIT_S)  # the connection waits in the backlog
                continue
            # a connection outlives the socket that accepted it, so it belongs to `run`
            if self._nursery is not None:
                self._nursery.start_soon(self._acceptor.serve, stream)

    # --- p2premap.ports.Transport ---------------------------------------------------------------------------------

    def send_datagram(self, peer: NodeId, address: Address, message: Message) -> None:
        """Send once, unreliably; never blocks."""
        self._datagrams.send(peer, address, message)

    def send_link(self, peer: NodeId, message: Message, payload: bytes = b"") -> bool:
        """Queue for the link to this peer; False if there is none or its queue is full. Never blocks.

        A message that no link carries, for it is too large, is dropped too: one peer's trouble must not end the node.
        """
        try:
            return self._links.send(peer, message, payload)
        except LocalProtocolError as error:
            self._counts["unsendable"] += 1
            log.warning("not sent to %s: %s", peer.hex()[:8], error)
            return False

    def dial(self, dial: int, address: Address, *, keep: bool, timeout_s: float) -> None:
        """Try an address; the outcome comes as one `gossip.events.DialEnded`."""
        assert self._nursery is not None, "dial while running"
        self._nursery.start_soon(self._dialler.dial, dial, address, keep, timeout_s)

    def hangup(self, peer: NodeId) -> None:
        """Close the link to this peer, if any; what waits for it leaves first."""
        self._links.hangup(peer)

    async def open_control(self, peer: NodeId) -> FrameStream:
        """A stream to the peer's control service (`p2premap.control`).

        Raises:
            PeerUnreachable: at none of its addresses.
        """
        return await self._dialler.open(peer, Purpose.CONTROL)

    async def open_bulk(self, peer: NodeId) -> FrameStream:
        """A stream to the peer's blob service (`p2premap.node.bulk`).

        Raises:
            PeerUnreachable: at none of its addresses.
        """
        return await self._dialler.open(peer, Purpose.BULK)

    def heard(self, peer: NodeId) -> bool:
        """Whether a datagram of this member has come since it, or we, last began anew."""
        return self._sealer.heard(peer)

    def statistics(self) -> TransportStatistics:
        """A snapshot."""
        return TransportStatistics(
            port=self.port,
            network=self._network,
            strangers=self._acceptor.strangers,
            members=self._acceptor.members,
            links=self._links.statistics(),
            counts={**self._datagrams.statistics(), **self._counts},
        )
