"""How a node finds others and is found: every source of hints, and where this node may be reached.

Hints come from the runtime directory (nodes of this machine), from mDNS, from ``--join``, from the last join, and from
the peers remembered on disk. They are never evidence: gossip dials them and sees.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import trio

from p2premap.config import NodeConfig
from p2premap.control.nodes import Foreign
from p2premap.errors import ConfigError
from p2premap.gossip import events as gossip
from p2premap.gossip.events import MemberState
from p2premap.ids import Address, NodeId
from p2premap.node import scope
from p2premap.node.acceptor import ROTATED
from p2premap.node.bulletin import Warnings
from p2premap.node.discovery import Announcement, Discovery
from p2premap.node.greeting import ForeignSeen
from p2premap.node.interfaces import Interface, is_loopback
from p2premap.node.joins import Joins, parse_join
from p2premap.node.keys import Keys
from p2premap.node.neighbours import Neighbours
from p2premap.node.paths import Paths
from p2premap.node.store import Store
from p2premap.node.transport import TrioTransport

REMEMBER_S: Final = 30.0
KNOCKED_S: Final = 300.0
"""For so long it is told that somebody came with a former secret."""
SETTLE_S: Final = 0.3
"""Members come in groups: those seen within this are written down at once."""

MDNS_LATER_S: Final = 1.0
"""A node that is not open to the network browses too, but only after it has come up: zeroconf is slow to load."""

REFUSED_S: Final = 5.0

log = logging.getLogger(__name__)


async def persist(run: Callable[[], Awaitable[object]]) -> None:
    """Run this; begin anew, a while later, as often as the system refuses it something.

    A node can do without mDNS, and must outlive that no descriptor is free just now: zeroconf and psutil are loaded
    when discovery begins, and a module that cannot be opened is an `ImportError`.
    """
    refused = True
    while refused:
        refused = False
        try:
            await run()
        except* (OSError, ImportError) as errors:
            log.warning("discovery does not work: %s; it is tried again", errors.exceptions[0])
            refused = True
        if refused:
            await trio.sleep(REFUSED_S)


class Search:
    """One node's search for others.

    Args:
        me, name: this node.
        keys: the cluster's secrets.
        user: the user's directories.
        paths: the same with the state on local disk.
        config: what the user asked for.
        transport: says where this node listens.
        store: remembers peers.
        post: takes events for gossip.
        warnings: takes sentences for the user.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        name: str,
        keys: Keys,
        user: Paths,
        paths: Paths,
        config: NodeConfig,
        transport: TrioTransport,
        store: Store,
        post: Callable[[gossip.Hinted | gossip.SetAddresses], None],
        warnings: Warnings,
    ) -> None:
        self._me, self._name, self._keys, self._user, self._paths = me, name, keys, user, paths
        self._config, self._transport, self._store = config, transport, store
        self._post, self._warnings = post, warnings
        self._alive: set[NodeId] = set()
        self._where: dict[NodeId, tuple[Address, ...]] = {}
        self._moved = trio.Event()
        self._met: dict[str, Foreign] = {}
        self._remembered: set[NodeId] = set()
        self._knocked: dict[str, float] = {}
        self.outside = False
        """The cluster has a secret that this node does not know: it is to join anew."""
        self.discovery = Discovery(
            me=me,
            tag=keys.secret.tag,
            config=config.discovery,
            hint=post,
            known=self._alive.__contains__,
            on_interfaces=self._on_interfaces,
        )
        self._joins = Joins(
            [parse_join(text, default_port=config.transport.port_first) for text in config.joins],
            hint=post,
            settled=lambda address: any(address in self._where.get(node, ()) for node in self._alive),
            config=config.discovery,
            rng=Random(),
        )

    # --- the work -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Search until cancelled."""
        neighbours = Neighbours(
            directory=self._paths.sockets(self._keys.secret.place),
            me=self._me,
            addresses=self._transport.local_addresses,
            hint=self._post,
            config=self._config.discovery,
            rng=Random(),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbours.run)
            nursery.start_soon(self._joins.run)
            nursery.start_soon(self._keep_peers)
            await self._hint_remembered()
            if not self._transport.network:
                await trio.sleep(MDNS_LATER_S)
            nursery.start_soon(persist, self.discovery.run)

    async def _hint_remembered(self) -> None:
        for address in scope.addresses(self._user):
            self._post(gossip.Hinted(address=address, node=None))
        for node, address in await trio.to_thread.run_sync(self._store.peers):
            if node != self._me:
                self._remembered.add(node)
                self._post(gossip.Hinted(address=address, node=node))

    async def _keep_peers(self) -> None:
        while True:
            with trio.move_on_after(REMEMBER_S):
                await self._moved.wait()  # a program whose node dies now finds the others by what is written here
                self._moved = trio.Event()
                await trio.sleep(SETTLE_S)
            await trio.to_thread.run_sync(self.remember)

    def remember(self) -> None:
        """Write down where the living members are; a disk that refuses is a warning."""
        try:
            self._store.remember([(node, self._where.get(node, ())) for node in sorted(self._alive)])
        except OSError as error:
            self._warnings.add(str(error))

    # --- what gossip and the transport tell ---------------------------------------------------------------------------

    def on_member(self, member: gossip.MemberChanged) -> None:
        """Somebody came, moved or went. A member on another machine opens this node to the network too."""
        if member.node == self._me:
            return
        if member.state in (MemberState.DEAD, MemberState.LEFT):
            self._alive.discard(member.node)
            return
        if member.node not in self._alive or self._where.get(member.node) != member.addresses:
            self._moved.set()
        self._alive.add(member.node)
        self._where[member.node] = member.addresses
        if not self._transport.network and any(not is_loopback(a.host) for a in member.addresses):
            self.open("another machine is a member")

    def addresses_of(self, node: NodeId) -> tuple[Address, ...]:
        """Where a member may be dialled."""
        return self._where.get(node, ())

    def met_foreign(self, seen: ForeignSeen) -> None:
        """Somebody of another cluster answered, or asked; or of ours, under another of its secrets."""
        ring = self._keys.ring
        if seen.tag == ring.current.tag or ring.is_pending(seen.tag):
            return  # met just before this node switched
        if ring.was_ours(seen.tag):
            if seen.host in self._knocked or len(self._knocked) < self._config.discovery.foreign_max:
                self._knocked[seen.host] = trio.current_time()
            return
        if seen.tag and seen.node is not None and seen.node in self._where.keys() | self._remembered:
            self.outside = True  # identities are a cluster's own: it is ours, and has another secret
            return
        if seen.tag and seen.tag not in self._met and len(self._met) < self._config.discovery.foreign_max:
            where = str(seen.address) if seen.address is not None else seen.host
            hint = f"p2premap join TOKEN, with the token that `p2premap invite` prints on {seen.host}"
            self._met[seen.tag] = Foreign(address=where, cluster=seen.tag, hint=hint)

    # --- being found --------------------------------------------------------------------------------------------------

    def open(self, why: str) -> None:
        """Listen on the network from now on, also after a restart."""
        try:
            self._transport.open_to_network()
            if not self._keys.secret.open_name:
                scope.remember_open(self._user)
        except ConfigError as error:
            self._warnings.add(str(error))
            return
        log.info("open to the network: %s", why)
        self._announce()

    def rekey(self) -> None:
        """The cluster has another secret, and so another tag."""
        self.outside = False
        self.discovery.rekey(self._keys.secret.tag)
        if self._transport.port:
            self._announce()

    def _on_interfaces(self, interfaces: tuple[Interface, ...]) -> None:
        self._transport.set_interfaces(interfaces)
        self._announce()

    def _announce(self) -> None:
        """Tell gossip and mDNS where this node listens now."""
        addresses = self._transport.addresses
        self._post(gossip.SetAddresses(addresses=addresses))
        announcement = Announcement(
            node=self._me,
            name=self._name,
            tag=self._keys.secret.tag,
            addresses=addresses,
            open_name=self._keys.secret.open_name,
        )
        self.discovery.announce(announcement if self._transport.network else None)

    # --- for people ---------------------------------------------------------------------------------------------------

    def foreign(self) -> tuple[Foreign, ...]:
        """Other clusters: those announced by mDNS, which have names, then those met at an address."""
        announced = self.discovery.foreign
        seen = {foreign.cluster for foreign in announced}
        return (*announced, *(f for tag, f in sorted(self._met.items()) if tag not in seen))

    def warnings(self) -> tuple[str, ...]:
        """Sentences about what does not work now."""
        return (*self.discovery.warnings, *self.troubles(), *self._knocks())

    def _knocks(self) -> tuple[str, ...]:
        since = trio.current_time() - KNOCKED_S
        return tuple(
            f"A node at {host} has a secret of this cluster from before a rotation: it was evicted, or away. If it "
            "shall be a member, run `p2premap invite` here and `p2premap join TOKEN` there."
            for host, when in sorted(self._knocked.items())
            if when >= since
        )

    def troubles(self) -> tuple[str, ...]:
        """Those about what the user has to do something about; the doctor finds out about mDNS by itself."""
        return (*([ROTATED] if self.outside else []), *self._joins.warnings)
