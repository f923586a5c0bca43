"""zeroconf, inside the thread of `p2premap.node.loopthread`: announce this node, browse for others (RFC 6762, 6763).

Only this module knows zeroconf. Everything here runs in the loop's thread; what it finds leaves through one callback.
All of it comes from strangers: `Sighting`s are raw, and `p2premap.node.discovery` judges them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping, Sequence

import msgspec
from zeroconf import IPVersion, ServiceInfo, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2premap.node.interfaces import Interface

SERVICE_TYPE = "_p2premap._tcp.local."
REQUEST_MS = 3_000
REQUESTS_MAX = 64
POINTER_TTL_S = 1_200
"""How long others remember a node that ended without a word; RFC 6762's 75 minutes are for printers."""


class Service(msgspec.Struct, frozen=True):
    """What this node announces.

    Args:
        instance: unique on the network; at most 63 bytes.
        host: unique on the network, a label.
        port: of all addresses.
        hosts: numeric addresses without scope.
        properties: the TXT record.
    """

    instance: str
    host: str
    port: int
    hosts: tuple[str, ...]
    properties: tuple[tuple[str, str], ...]


class Sighting(msgspec.Struct, frozen=True):
    """What somebody announces; None for `properties`: withdrawn."""

    instance: str
    port: int
    hosts: tuple[str, ...]
    properties: Mapping[bytes, bytes | None] | None


class Mdns:
    """One zeroconf instance that follows the interfaces.

    Args:
        seen: called in this thread with each sighting.
    """

    def __init__(self, seen: Callable[[Sighting], None]) -> None:
        self._seen = seen
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._service: Service | None = None
        self._requests: dict[str, asyncio.Task[None]] = {}
        self._announcing: asyncio.Future[object] | None = None
        # its warnings about single interfaces would reach the user's terminal; `doctor` says them better
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)

    async def apply(self, interfaces: Sequence[Interface], service: Service | None) -> tuple[str, ...]:
        """Use these interfaces and announce this; returns the names of interfaces that could not be used.

        Raises:
            OSError: no socket for mDNS (the port is held by something that does not share it).
        """
        wanted = usable(interfaces)
        if self._zeroconf is None:
            if not wanted:
                return ()
            self._zeroconf = AsyncZeroconf(list(wanted), ip_version=_ip_version())
            await self._zeroconf.zeroconf.async_wait_for_start()
            self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change])
        else:
            await self._zeroconf.async_update_interfaces(list(wanted), _ip_version())
        await self._announce(service)
        return self._unused(wanted)

    async def _announce(self, service: Service | None) -> None:
        assert self._zeroconf is not None
        before, self._service = self._service, service
        if service == before:
            return
        if service is None or (before is not None and before.instance != service.instance):
            await self._zeroconf.async_unregister_all_services()
            before = None
        if service is None:
            return
        if before is not None:
            self._announcing = asyncio.ensure_future(await self._zeroconf.async_update_service(_info(service)))
        else:
            # the instance carries the hash of this node's key: nobody else has it, so there is nothing to probe for
            self._announcing = asyncio.ensure_future(
                await self._zeroconf.async_register_service(_info(service), cooperating_responders=True)
            )

    def _unused(self, wanted: Mapping[str | int, str]) -> tuple[str, ...]:
        assert self._zeroconf is not None
        bound = {_bare(sender.sock_name[0]) for sender in self._zeroconf.zeroconf.engine.senders}
        return tuple(sorted({name for host, name in wanted.items() if isinstance(host, str) and host not in bound}))

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        instance = name.removesuffix("." + service_type)
        if state_change is ServiceStateChange.Removed:
            self._seen(Sighting(instance, 0, (), None))
            return
        info = AsyncServiceInfo(service_type, name)
        if info.load_from_cache(zeroconf):
            self._tell(instance, info)
        elif name not in self._requests and len(self._requests) < REQUESTS_MAX:
            task = asyncio.get_running_loop().create_task(self._request(zeroconf, instance, info))
            self._requests[name] = task
            task.add_done_callback(lambda _: self._requests.pop(name, None))

    async def _request(self, zeroconf: Zeroconf, instance: str, info: AsyncServiceInfo) -> None:
        if await info.async_request(zeroconf, REQUEST_MS):
            self._tell(instance, info)

    def _tell(self, instance: str, info: ServiceInfo) -> None:
        hosts = tuple(_with_names(host) for host in info.parsed_scoped_addresses())
        self._seen(Sighting(instance, info.port or 0, hosts, dict(info.properties)))

    async def close(self) -> None:
        """Say good-bye and close the sockets."""
        for task in list(self._requests.values()):
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._announcing is not None:
            self._announcing.cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
        self._zeroconf = self._browser = None


def usable(interfaces: Sequence[Interface]) -> dict[str | int, str]:
    """What zeroconf is to be opened on: each IPv4 address, and for IPv6 one address an interface -> interface name.

    Link-local is preferred for IPv6: only packets from such a source tell the receiver the scope of the addresses
    in them. One that two interfaces share is told by the interface's index.
    """
    chosen: dict[str | int, str] = {}
    for interface in interfaces:
        if not (interface.up and interface.multicast):
            continue
        hosts = [ipaddress.ip_interface(network).ip for network in interface.networks]
        chosen.update({str(host): interface.name for host in hosts if host.version == 4})
        six = sorted((host for host in hosts if host.version == 6), key=lambda host: not host.is_link_local)
        if six:
            host = str(six[0])
            chosen[interface.index if host in chosen else host] = interface.name
    return chosen


def _ip_version() -> IPVersion:
    """Dual stack where the kernel has IPv6 at all, so that an IPv6 address that comes later needs no new socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM):
        return IPVersion.All
    return IPVersion.V4Only


def _info(service: Service) -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE,
        f"{service.instance}.{SERVICE_TYPE}",
        port=service.port,
        properties=dict(service.properties),
        server=f"{service.host}.local.",
        parsed_addresses=list(service.hosts),
        other_ttl=POINTER_TTL_S,
    )


def _bare(host: str) -> str:
    return host.partition("%")[0]


def _with_names(host: str) -> str:
    """zeroconf gives a scope as the interface's index; everywhere else here it is the interface's name."""
    bare, _, scope = host.partition("%")
    if not scope.isdigit():
        return host
    try:
        return f"{bare}%{socket.if_indextoname(int(scope))}"
    except OSError:
        return bare
