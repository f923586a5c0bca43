"""The machine's real network interfaces, the best first, and a watcher that tells when they change.

Loopback is skipped, nothing else: a virtual bridge or a tunnel is only sorted behind the LAN, because on some machine
it is the one way to a peer. Addresses that the kernel still probes for duplicates (IPv6 "tentative", RFC 4862) count
as absent: nothing can be bound to them yet.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import trio

from p2premap.event import Event
from p2premap.ids import Address


class Kind(enum.IntEnum):
    """What an interface is likely to be, by its name and flags; the lower, the earlier it is tried."""

    LAN = 0
    OTHER = 1
    VIRTUAL = 2
    TUNNEL = 3


_PREFIXES = {
    Kind.LAN: ("en", "eth", "wl", "em", "bond", "team", "usb"),
    Kind.VIRTUAL: (
        *("docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "lxc", "lxd", "cni", "flannel", "cali"),
        *("podman", "bridge", "vnet", "tap", "ap", "awdl", "llw", "anpi", "vmenet"),
    ),
    Kind.TUNNEL: ("tun", "utun", "wg", "tailscale", "ppp", "zt", "ipsec", "nordlynx", "gif", "stf", "sit", "gre"),
}


class Interface(Event, frozen=True):
    """One interface as the kernel shows it.

    Args:
        name: "eth0".
        index: the kernel's number, the scope of link-local IPv6 addresses.
        up: it is switched on and has a carrier.
        multicast: it can carry multicast at all.
        kind: see there.
        networks: its addresses with their prefix lengths, "10.0.0.5/24" or "fe80::1/64", the best first; link-local
            ones without a scope here.
    """

    name: str
    index: int
    up: bool
    multicast: bool
    kind: Kind
    networks: tuple[str, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its addresses as a peer on this machine would dial them: link-local IPv6 with the scope."""
        return tuple(scoped(network.partition("/")[0], self.name) for network in self.networks)


def scoped(host: str, interface: str) -> str:
    """A link-local IPv6 address with its scope; any other address as it is."""
    return f"{host}%{interface}" if ":" in host and ipaddress.ip_address(host).is_link_local else host


def kind_of(name: str, *, point_to_point: bool) -> Kind:
    """Tell LAN, virtual bridge and tunnel apart."""
    if point_to_point:
        return Kind.TUNNEL
    for kind in (Kind.TUNNEL, Kind.VIRTUAL, Kind.LAN):
        if name.startswith(_PREFIXES[kind]):
            return kind
    return Kind.OTHER


def _preference(network: str) -> tuple[int, str]:
    address = ipaddress.ip_interface(network)
    if address.version == 4:
        return (3 if address.is_link_local else 0, network)
    return (2 if address.is_link_local else 1, network)


def in_order(interfaces: Iterable[Interface]) -> tuple[Interface, ...]:
    """The best first: up, with an address, LAN before the rest; then by name."""
    return tuple(sorted(interfaces, key=lambda i: (not i.up, not i.networks, i.kind, i.name)))


def read_interfaces() -> tuple[Interface, ...]:
    """What the kernel says now, loopback left out, the best first."""
    import psutil  # not at the top: a command that only asks its daemon need not pay for it

    stats = psutil.net_if_stats()
    tentative = _tentative()
    found = []
    for name, entries in psutil.net_if_addrs().items():
        state = stats.get(name)
        flags = set(state.flags.split(",")) if state is not None else set()
        if "loopback" in flags or name in ("lo", "lo0"):
            continue
        networks = {
            network
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6)
            if (network := _network(entry.address, entry.netmask)) is not None
        }
        usable = (n for n in networks if (name, ipaddress.ip_interface(n).ip.packed) not in tentative)
        with contextlib.suppress(OSError):  # the interface went away between two calls
            found.append(
                Interface(
                    name=name,
                    index=socket.if_nametoindex(name),
                    up=state is not None and state.isup and ("running" in flags or not flags),
                    multicast="multicast" in flags or not flags,
                    kind=kind_of(name, point_to_point="pointopoint" in flags),
                    networks=tuple(sorted(usable, key=_preference)),
                )
            )
    return in_order(found)


def _network(address: str, netmask: str | None) -> str | None:
    host = address.partition("%")[0]
    try:
        if ":" not in host:
            return str(ipaddress.ip_interface(f"{host}/{netmask or 32}"))
        bits = int(ipaddress.IPv6Address(netmask)).bit_count() if netmask else 64
        return str(ipaddress.ip_interface(f"{host}/{bits}"))
    except ValueError:
        return None


_IFA_F_TENTATIVE = 0x40


def _tentative() -> set[tuple[str, bytes]]:
    """(interface, packed address) of IPv6 addresses that cannot be used yet; only Linux tells."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return set()
    rows = (line.split() for line in lines)
    return {(row[5], bytes.fromhex(row[0])) for row in rows if int(row[4], 16) & _IFA_F_TENTATIVE}


def addresses(interfaces: Iterable[Interface], port: int, limit: int) -> tuple[Address, ...]:
    """Where a node that listens on all interfaces can be reached, the best first, at most `limit`."""
    return tuple(Address(host, port) for i in interfaces if i.up for host in i.hosts)[:limit]


def is_loopback(host: str) -> bool:
    """Whether an address never leaves the machine; what a member tells need not be an address at all."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def by_closeness(candidates: Iterable[Address], interfaces: Iterable[Interface]) -> tuple[Address, ...]:
    """Addresses of a peer in the order in which to try them: those in a network of our own first, LAN before tunnel.

    A link-local address without a scope becomes one address for each of our interfaces, as it may be on any.
    Addresses that cannot be a peer's on a network (loopback, multicast, unspecified) are dropped.
    """
    ours = [(i, ipaddress.ip_interface(network)) for i in interfaces if i.up for network in i.networks]
    ranked: list[tuple[tuple[int, int, int], Address]] = []
    for place, address in enumerate(candidates):
        host, _, scope = address.host.partition("%")
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            continue
        if ip.is_loopback or ip.is_multicast or ip.is_unspecified:
            continue
        if ip.version == 6 and ip.is_link_local:
            links = [i for i, own in ours if own.version == 6 and own.is_link_local and scope in ("", i.name)]
            ranked += [((1, i.kind, place), Address(f"{host}%{i.name}", address.port)) for i in links]
            continue
        near = [i.kind for i, own in ours if ip in own.network]
        ranked.append(((0, min(near), place) if near else (2, 0, place), address))
    return tuple(dict.fromkeys(address for _, address in sorted(ranked)))


class Changes(Protocol):
    """Tells when it is worth reading the interfaces again."""

    async def wait(self) -> None:
        """Return after something about interfaces, addresses or links may have changed."""

    def close(self) -> None:
        """Release what it holds."""


class PolledChanges:
    """For systems whose kernel does not tell."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s

    async def wait(self) -> None:
        await trio.sleep(self._poll_s)

    def close(self) -> None:
        pass


# <linux/rtnetlink.h>: links, IPv4 addresses, IPv6 addresses
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100


class NetlinkChanges:
    """The Linux kernel's own announcements (rtnetlink(7)): at once, and nothing to pay while nothing changes.

    Raises:
        OSError: no such socket here (some sandboxes).
    """

    def __init__(self) -> None:
        # getattr: the names exist on Linux only, and the checker runs on other systems too
        family, protocol = getattr(socket, "AF_NETLINK"), getattr(socket, "NETLINK_ROUTE")  # noqa: B009
        raw = socket.socket(family, socket.SOCK_RAW, protocol)
        try:
            raw.setblocking(False)
            raw.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        except OSError:
            raw.close()
            raise
        self._socket = raw

    async def wait(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)
        # what was said does not matter, only that something was; lost announcements (ENOBUFS) say it too
        with contextlib.suppress(OSError):
            while True:
                self._socket.recv(65_536)

    def close(self) -> None:
        self._socket.close()


def open_changes(poll_s: float) -> Changes:
    """The best way that this system has."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return NetlinkChanges()
    return PolledChanges(poll_s)


class InterfaceWatcher:
    """Reads the interfaces at the start and after each change, and tells what they are now.

    Args:
        on_change: called with the interfaces at the start, and whenever they differ from the last time.
        changes: when to look again.
        settle_s: one change seldom comes alone (link, then IPv4, then IPv6): wait this long for the rest.
        read: replaced in tests.
    """

    def __init__(
        self,
        on_change: Callable[[tuple[Interface, ...]], None],
        *,
        changes: Callable[[], Changes],
        settle_s: float,
        read: Callable[[], tuple[Interface, ...]] = read_interfaces,
    ) -> None:
        self._on_change = on_change
        self._changes = changes
        self._settle_s = settle_s
        self._read = read

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; started once the first reading has been told."""
        changes = self._changes()  # before the first reading, so that no change falls between
        try:
            current = self._read()
            self._on_change(current)
            task_status.started()
            while True:
                await changes.wait()
                await trio.sleep(self._settle_s)
                if (now := self._read()) != current:
                    current = now
                    self._on_change(current)
        finally:
            changes.close()
