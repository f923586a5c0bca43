"""Gathers what the doctor reasons about: from this machine, from the running node, and from other members.

`examine_alone` is for a machine where no daemon answers; `Examiner` for the daemon, which also asks members whether
they can dial it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence

import trio

from p2premap import __version__
from p2premap.config import DiscoveryConfig, TransportConfig
from p2premap.control.nodes import Finding, NodeView, Tried, TryAddresses
from p2premap.errors import ConfigError, PeerUnreachable, RemoteProtocolError
from p2premap.ids import Address, NodeId, RequestId
from p2premap.node import probes
from p2premap.node.discovery import Discovery, announced_versions
from p2premap.node.doctor import findings
from p2premap.node.doctor_facts import MachineFacts, NodeFacts, PeerFacts
from p2premap.node.firewall import detect
from p2premap.node.identity import state_paths
from p2premap.node.interfaces import Interface, is_loopback, read_interfaces
from p2premap.node.joins import parse_join
from p2premap.node.paths import Paths
from p2premap.node.reach import try_addresses
from p2premap.ports import Transport

_LINKED_STATES = ("alive", "stalled", "suspect")
DATAGRAMS_AFTER_S = 30.0
"""By then a member has been pinged, or has pinged, many times over, in any cluster that is not huge."""


def machine_facts(
    paths: Paths, port: int, probe_s: float, interfaces: Sequence[Interface], warnings: Sequence[str] = ()
) -> MachineFacts:
    """Look at this machine; blocks for `probe_s` and a little.

    Args:
        paths: the user's, before the state is moved off a network file system.
        port: the one to look at, TCP and UDP.
    """
    try:
        local, moved = state_paths(paths)
        state = probes.probe_directory(local.state, moved)
    except ConfigError as error:
        state = probes.DirectoryFacts(str(paths.state), str(error), -1)
    return MachineFacts(
        interfaces=tuple(interfaces),
        multicast=probes.probe_multicast([i for i in interfaces if i.up and i.multicast], probe_s),
        firewall=detect(),
        secret=probes.probe_secret(paths),
        state=state,
        port=probes.probe_port(port),
        warnings=tuple(warnings),
    )


def examine_alone(paths: Paths, *, port: int = 0) -> tuple[Finding, ...]:
    """What can be said where no daemon runs.

    Args:
        port: the one that the node would be started with; 0 means the default.
    """
    port = port or TransportConfig().port_first
    return findings(machine_facts(paths, port, DiscoveryConfig().doctor_probe_s, read_interfaces()), None)


class Examiner:
    """The running node's doctor.

    Args:
        paths: the user's.
        transport: asks members.
        nodes: this node first, then the other members, as they are now.
        scope: "loopback" or "network".
        discovery: None where the node runs without.
        heard: whether a datagram of a member has come.
        open_name: the NAME of ``--open NAME``, or "".
        troubles: sentences about what was asked for and does not work, such as a --join.
        warnings: other sentences of the node's parts.
    """

    def __init__(
        self,
        *,
        paths: Paths,
        config: DiscoveryConfig,
        port_first: int,
        transport: Transport,
        nodes: Callable[[], Sequence[NodeView]],
        scope: Callable[[], str],
        discovery: Discovery | None,
        heard: Callable[[NodeId], bool],
        open_name: str = "",
        troubles: Callable[[], Sequence[str]] = tuple,
        warnings: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._paths, self._config, self._port_first = paths, config, port_first
        self._transport, self._nodes, self._scope = transport, nodes, scope
        self._discovery, self._heard, self._open_name = discovery, heard, open_name
        self._troubles, self._warnings = troubles, warnings
        self._one_at_a_time = trio.Lock()

    async def examine(self) -> tuple[Finding, ...]:
        """Probe, ask, and judge; takes at most `doctor_peer_s` and a few seconds for what the system's tools need."""
        async with self._one_at_a_time:
            mine, *others = self._nodes()
            machine: list[MachineFacts] = []
            peers: dict[bytes, PeerFacts] = {}

            async def look() -> None:
                machine.append(await trio.to_thread.run_sync(self._machine))

            # many members tell no more about our firewall than a few; the first in the list are asked
            asked = [view.node for view in others if view.state in _LINKED_STATES][: self._config.doctor_peers_max]

            async def ask(view: NodeView) -> None:
                peers[view.node] = await self._peer(view, ask=view.node in asked)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                for view in others:
                    nursery.start_soon(ask, view)
            return findings(machine[0], self._node(mine, tuple(peers[view.node] for view in others)))

    def _machine(self) -> MachineFacts:
        interfaces = read_interfaces()
        return machine_facts(self._paths, self._port_first, self._config.doctor_probe_s, interfaces, self._warnings())

    def _node(self, mine: NodeView, peers: tuple[PeerFacts, ...]) -> NodeFacts:
        discovery, addresses = self._discovery, self._transport.addresses
        return NodeFacts(
            name=mine.name,
            version=__version__,
            python=platform.python_version(),
            scope=self._scope(),
            port=addresses[0].port if addresses else 0,
            port_first=self._port_first,
            peers=peers,
            open_name=self._open_name,
            troubles=tuple(self._troubles()),
            foreign=discovery.foreign if discovery is not None else (),
            mismatched=tuple(sorted(announced_versions(discovery.found, discovery.tag).items())) if discovery else (),
        )

    async def _peer(self, view: NodeView, *, ask: bool) -> PeerFacts:
        addresses = tuple(a for text in view.addresses if (a := _address(text)) is not None)
        ours = {host for interface in read_interfaces() for host in interface.hosts}
        here = bool(addresses) and all(is_loopback(a.host) or a.host in ours for a in addresses)
        far = tuple(a for a in addresses if here or not is_loopback(a.host))
        dialled: tuple[tuple[Address, str], ...] = ()
        dials_us: tuple[tuple[Address, str], ...] | None = None
        ahead: float | None = None
        if ask:
            outcomes = await try_addresses(far, self._config.doctor_probe_s)
            dialled = tuple(zip(far, outcomes, strict=False))
            with trio.move_on_after(self._config.doctor_peer_s):
                dials_us, ahead = await self._ask(view, here=here)
        announced = self._discovery.found if self._discovery is not None else ()
        return PeerFacts(
            name=view.name,
            state=view.state,
            version=view.version,
            python=view.python,
            here=here,
            dialled=dialled or tuple((address, "silent") for address in far),
            dials_us=dials_us,
            clock_ahead_s=ahead,
            announced=any(found.node == view.node for found in announced),
            datagrams=self._heard(view.node) or (False if view.since_s >= DATAGRAMS_AFTER_S else None),
        )

    async def _ask(self, view: NodeView, *, here: bool) -> tuple[tuple[tuple[Address, str], ...] | None, float | None]:
        """Have the member dial us; what it says, and how far its clock is ahead."""
        ours = tuple(a for a in self._transport.addresses if here or not is_loopback(a.host))
        try:
            stream = await self._transport.open_control(view.node)
        except PeerUnreachable:
            return None, None
        try:
            await stream.send(TryAddresses(request=RequestId(1), addresses=ours))
            while (frame := await stream.receive()) is not None:
                if isinstance(frame.message, Tried):
                    ahead = frame.message.clock_unix_s - time.time()
                    return tuple(zip(ours, frame.message.outcomes, strict=False)), ahead
        except (PeerUnreachable, RemoteProtocolError):
            pass
        finally:
            await stream.aclose()
        return None, None


def _address(text: str) -> Address | None:
    """An address as a `NodeView` shows it."""
    try:
        target = parse_join(text, default_port=0)
    except ConfigError:
        return None
    return Address(target.host, target.port) if target.port else None
