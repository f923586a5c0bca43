"""Connecting to others: probes, links, and streams to a member's services."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from weakref import WeakKeyDictionary

import trio

from p2premap.config import TransportConfig
from p2premap.errors import ConfigError, PeerUnreachable, RemoteProtocolError
from p2premap.gossip.events import DialEnded, DialOutcome
from p2premap.ids import Address, NodeId
from p2premap.node import tls
from p2premap.node.bulk import BULK
from p2premap.node.certificates import claimed_cluster, proved_id
from p2premap.node.greeting import ForeignSeen, Greeter
from p2premap.node.handshake import Channel, DialFailed, Dialling, TlsStream, connect
from p2premap.node.hello import CallMe, Hello, Purpose
from p2premap.node.keys import Face
from p2premap.node.links import Deliver, Link, Links
from p2premap.node.returns import ReturnedFrames, Returns
from p2premap.node.streams import StreamFrames, close
from p2premap.ports import FrameStream
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.wire import FrameDecoder, Registry

LOOK_S: Final = 1.0
LOOK_AGAIN_S: Final = 60.0
LOOKED_MAX: Final = 256
RETURN_AFTER_S: Final = 0.25
"""A member that has not answered by then is asked to connect to us; one that was behind a firewall before, at once."""
RETURN_LINK_S: Final = 1.0
"""How long gossip may take to bring up the link over which it is asked."""

log = logging.getLogger(__name__)


class Dialler:
    """Dials on behalf of one node.

    Args:
        greeter: says our hellos.
        links: where links go.
        returns: asks members to connect to us.
        config: intervals.
        deliver: where `DialEnded` goes.
        addresses_of: where a member may be dialled, the best first.
    """

    def __init__(
        self,
        *,
        greeter: Greeter,
        links: Links,
        returns: Returns,
        config: TransportConfig,
        deliver: Deliver,
        addresses_of: Callable[[NodeId], Sequence[Address]],
    ) -> None:
        self._greeter = greeter
        self._links = links
        self._returns = returns
        self._undialable: set[NodeId] = set()
        self._dialled: WeakKeyDictionary[TlsStream, NodeId] = WeakKeyDictionary()
        self._config = config
        self._deliver = deliver
        self._addresses_of = addresses_of
        self._looked: OrderedDict[Address, float] = OrderedDict()

    def shut_out_all_but(self, members: Sequence[NodeId]) -> None:
        """End every connection that we have opened to somebody else than these; who uses it finds it broken."""
        for stream, peer in tuple(self._dialled.items()):
            if peer not in members:
                stream.transport_stream.socket.close()

    async def dial(self, dial: int, address: Address, keep: bool, timeout_s: float) -> None:
        """One attempt, as `p2premap.ports.Transport.dial`; carries a link that comes of it to its end; never raises."""
        with self._one_dial(dial, address):
            await self._dial(dial, address, keep, timeout_s)

    @contextmanager
    def _one_dial(self, dial: int, address: Address) -> Iterator[None]:
        """Whatever goes wrong in a dial ends that one only; told twice, its end changes nothing."""
        try:
            yield
        except Exception:
            log.exception("the dial to %s failed", address)
            self._tell(DialEnded(dial=dial, address=address, outcome=DialOutcome.SILENT))

    async def _dial(self, dial: int, address: Address, keep: bool, timeout_s: float) -> None:
        purpose, tag = Purpose.LINK if keep else Purpose.PROBE, self._greeter.keys.secret.tag
        attempt = self._attempt(address, self._greeter.hello(purpose))
        outcome, rotated = DialOutcome.SILENT, False
        try:
            with trio.move_on_after(timeout_s) as deadline:
                channel = await self._run(attempt)
            if deadline.cancelled_caught:
                outcome = attempt.timed_out
            else:
                await self._use(channel, dial, address, keep, deadline.deadline)
                return
        except DialFailed as error:
            outcome, rotated = error.outcome, error.rotated
            if outcome is DialOutcome.FOREIGN and await self._catch_up(address, error, tag):
                outcome = DialOutcome.SILENT  # it is no stranger, and is dialled anew under the other secret
        self._tell(DialEnded(dial=dial, address=address, outcome=outcome))
        if outcome is DialOutcome.FOREIGN:
            await self._look(address, rotated=rotated)

    async def _catch_up(self, address: Address, error: DialFailed, tag: str) -> bool:
        """A stranger may be a member, and we the one who missed a rotation; whether we know another secret now.

        Args:
            tag: of the secret under which it was dialled.
        """
        keys = self._greeter.keys
        if error.given is not None:
            self._take(error)
        elif not keys.look():
            for face in keys.others():
                await self._ask_under(face, address)
        return keys.secret.tag != tag

    async def _ask_under(self, face: Face, address: Address) -> None:
        """Whoever is there may understand a secret that is not decided here yet, or one of before."""
        attempt = self._attempt(address, self._greeter.hello(Purpose.PROBE), face)
        with trio.move_on_after(LOOK_S):
            try:
                channel = await self._run(attempt)
            except DialFailed as error:
                self._take(error)
                return
            await close(channel.stream)
            self._greeter.keys.proved(face.tag)

    def _take(self, error: DialFailed) -> None:
        """The cluster's present secret, where it was given to us."""
        if error.given is not None:
            try:
                self._greeter.keys.take(error.given)
            except ConfigError as trouble:
                log.warning("the cluster's new secret is not taken over: %s", trouble)

    async def _use(self, channel: Channel, dial: int, address: Address, keep: bool, until: float) -> None:
        """A member has answered: make the link, where one is wanted, tell, and carry it."""
        peer = channel.peer
        outcome, link = DialOutcome.CONNECTED, None
        try:
            self._greeter.met(peer, address)
            with trio.move_on_at(until) as deadline:
                try:
                    link = await self._make_link(channel, address) if keep else None
                except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
                    outcome = DialOutcome.REFUSED  # it said hello, and was gone before the link was up
            if deadline.cancelled_caught:
                outcome = DialOutcome.STALLED
            known = outcome is DialOutcome.CONNECTED
            self._tell(
                DialEnded(
                    dial=dial,
                    address=address,
                    outcome=outcome,
                    peer=peer.node if known else None,
                    boot=peer.boot if known else None,
                )
            )
            if link is not None:
                await self._links.carry(link)
        except RemoteProtocolError:
            self._greeter.counts["broken_protocol"] += 1
        finally:
            await close(channel.stream)

    def _tell(self, ended: DialEnded) -> None:
        self._greeter.counts[f"dials_{ended.outcome.value}"] += 1
        self._deliver(ended)

    async def _make_link(self, channel: Channel, address: Address) -> Link | None:
        """The link, up; None where there is another, which is up too."""
        link = await self._links.start(channel, address) if self._links.wants(channel) else None
        if link is None and channel.peer.node != self._greeter.me:
            await self._links.wait(channel.peer.node)
        return link

    async def open(self, peer: NodeId, purpose: Purpose) -> FrameStream:
        """A stream to a service of a member: dialled, or where that fails, opened by the member itself.

        Raises:
            PeerUnreachable: neither.
        """
        opened: list[StreamFrames] = []
        failed, why = trio.Event(), ""

        async def take(frames: StreamFrames) -> None:
            if opened:
                await frames.aclose()
            else:
                opened.append(frames)
                nursery.cancel_scope.cancel()

        async def directly() -> None:
            nonlocal why
            try:
                channel = await self._connect(peer, self._greeter.hello(purpose))
            except PeerUnreachable as error:
                why = str(error)
                failed.set()
                return
            self._undialable.discard(peer)
            sends, decoder = _roles(channel, purpose)
            await take(StreamFrames(channel.stream, peer=peer, sends=sends, decoder=decoder))

        async def by_return() -> None:
            if peer not in self._undialable:
                with trio.move_on_after(RETURN_AFTER_S):
                    await failed.wait()
            with trio.move_on_after(self._config.dial_s if peer in self._links else RETURN_LINK_S):
                try:
                    channel, over = await self._returns.ask(peer, purpose)
                except PeerUnreachable:
                    return
                self._undialable.add(peer)
                sends, decoder = _roles(channel, purpose)
                await take(ReturnedFrames(channel, over, sends=sends, decoder=decoder))

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(directly)
                nursery.start_soon(by_return)
        except BaseException:
            for frames in opened:
                await frames.aclose()
            raise
        if not opened:
            raise PeerUnreachable(why)
        return opened[0]

    async def call_back(self, peer: NodeId, call: CallMe) -> Channel | None:
        """A connection to a member that cannot dial us, for it to use; None where none comes about; never raises."""
        try:
            return await self._connect(peer, self._greeter.hello(Purpose.RETURN, answers=call.number))
        except PeerUnreachable:
            pass
        except Exception:
            log.exception("the connection that %s asked for failed", peer.hex()[:8])
        self._greeter.counts["returns_failed"] += 1
        return None

    async def _connect(self, peer: NodeId, hello: Hello) -> Channel:
        """A connection to a member.

        Raises:
            PeerUnreachable: at none of its addresses.
        """
        addresses = tuple(self._addresses_of(peer))
        for address in addresses:
            with trio.move_on_after(self._config.dial_s):
                try:
                    channel = await self._run(self._attempt(address, hello))
                except DialFailed:
                    continue
                self._greeter.met(channel.peer, address)
                if channel.peer.node == peer:
                    return channel
                await close(channel.stream)
        where = ", ".join(map(str, addresses)) or "no known address"
        raise PeerUnreachable(f"Node {peer.hex()[:8]} does not answer at {where}.")

    def _attempt(self, address: Address, hello: Hello, face: Face | None = None) -> Dialling:
        face = face or self._greeter.keys.face
        return Dialling(address, face=face, hello=hello, silent_s=self._config.link_silent_s)

    async def _run(self, attempt: Dialling) -> Channel:
        """The connection, made under a secret that is understood still.

        Raises:
            DialFailed: any other end than CONNECTED.
        """
        channel = await attempt.run()
        if self._greeter.keys.understood(attempt.face.tag) is None:
            await close(channel.stream)
            raise DialFailed(DialOutcome.SILENT, "The cluster's secret was rotated meanwhile.")
        self._dialled[channel.stream] = channel.peer.node
        return channel

    async def _look(self, address: Address, *, rotated: bool) -> None:
        """Find out, for people, which cluster a stranger claims to be of.

        Args:
            rotated: it understands our secret; so it is not named, and the stranger shows its present one.
        """
        now = trio.current_time()
        if now - self._looked.get(address, -LOOK_AGAIN_S) < LOOK_AGAIN_S:
            return
        self._looked[address] = now
        self._looked.move_to_end(address)
        if len(self._looked) > LOOKED_MAX:
            self._looked.popitem(last=False)
        tag, node = "", None
        with trio.move_on_after(LOOK_S):
            try:
                tcp = await connect(address, self._config.link_silent_s)
            except DialFailed:
                return
            name = None if rotated else self._greeter.keys.face.server_name
            stream = trio.SSLStream(tcp, tls.unverified_context(), server_hostname=name)
            try:
                await stream.do_handshake()
                leaf = stream.getpeercert(binary_form=True) or b""
                tag = claimed_cluster(leaf)
                node = proved_id(leaf) if tag else None
            except (trio.BrokenResourceError, RemoteProtocolError):
                pass  # not TLS 1.3: not p2premap
            finally:
                await trio.aclose_forcefully(tcp)
        self._greeter.met_stranger(ForeignSeen(address=address, host=address.host, tag=tag, node=node))


def _roles(channel: Channel, purpose: Purpose) -> tuple[Registry, FrameDecoder]:
    """What the side that uses a service says, and what it hears."""
    channel.decoder.admit(BULK if purpose is Purpose.BULK else FROM_DAEMON)
    return BULK if purpose is Purpose.BULK else FROM_CLIENT, channel.decoder
