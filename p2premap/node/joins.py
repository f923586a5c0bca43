"""Addresses typed by a person: `--join host:port`, for networks where multicast is blocked.

Names are resolved in a thread and again at each try: a laptop's DNS comes up after its node. A join is tried until
a member is known at one of its addresses, with growing pauses, for as long as the node runs.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from random import Random

import trio

from p2premap.config import DiscoveryConfig
from p2premap.errors import ConfigError
from p2premap.event import Event
from p2premap.gossip.events import Hinted
from p2premap.ids import Address

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


class JoinTarget(Event, frozen=True):
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_join(text: str, *, default_port: int) -> JoinTarget:
    """Read "host", "host:port", "10.0.0.5:7321", "[fe80::1%eth0]:7321" or a bare IPv6 address.

    Raises:
        ConfigError: it is none of these.
    """
    typed = text.strip()
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::([^:]*))?", typed)
    if bracketed:
        host, port_text = bracketed[1], bracketed[2]
        if ":" not in host:
            raise _bad(text, "brackets are for IPv6 addresses")
    elif typed.count(":") > 1:
        host, port_text = typed, None
    else:
        host, separator, after = typed.partition(":")
        port_text = after if separator else None
    port = default_port
    if port_text is not None:
        if not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text) <= 65_535):
            raise _bad(text, "the port must be a number from 1 to 65535")
        port = int(port_text)
    return JoinTarget(_host(text, host), port)


def _host(text: str, host: str) -> str:
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise _bad(text, f"{host or 'the host'} is not an IP address") from None
        if address.is_unspecified or address.is_multicast:
            raise _bad(text, f"{host} is not the address of one machine")
        if address.version == 6 and address.is_link_local and "%" not in host:
            raise _bad(text, f"a link-local address needs its interface, as in [{host}%eth0]")
        return host
    if not _NAME.fullmatch(host):
        raise _bad(text, "there is no host name in it" if not host else f"{host!r} is not a host name")
    return host


def _bad(text: str, why: str) -> ConfigError:
    return ConfigError(f"--join {text!r}: {why}. Write HOST:PORT, as in 192.168.1.20:7321 or [fe80::1%eth0]:7321.")


async def resolve(target: JoinTarget) -> tuple[Address, ...]:
    """Its addresses now, IPv4 and IPv6, in the system's order.

    Raises:
        OSError: the name is not known now.
    """
    rows = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    found = [Address(_numeric(row[4]), target.port) for row in rows]
    return tuple(dict.fromkeys(found))


def _numeric(sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    host = str(sockaddr[0])
    if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
        return f"{host}%{socket.if_indextoname(sockaddr[3])}"
    return host


class Joins:
    """Hints the addresses that the user typed until a member is known there.

    Args:
        targets: what was typed, parsed.
        hint: called with each hint.
        settled: whether a live member is known at this address.
        rng: spreads the tries of many nodes.
    """

    def __init__(
        self,
        targets: Sequence[JoinTarget],
        *,
        hint: Callable[[Hinted], None],
        settled: Callable[[Address], bool],
        config: DiscoveryConfig,
        rng: Random,
    ) -> None:
        self._targets = tuple(targets)
        self._hint, self._settled, self._config, self._rng = hint, settled, config, rng
        self._unknown: dict[JoinTarget, str] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each typed name that cannot be resolved now."""
        return tuple(
            f"--join {target}: the name cannot be resolved ({why}); check its spelling, or write the IP address."
            for target, why in self._unknown.items()
        )

    async def run(self) -> None:
        """Try all targets until cancelled."""
        async with trio.open_nursery() as nursery:
            for target in self._targets:
                nursery.start_soon(self._follow, target)

    async def _follow(self, target: JoinTarget) -> None:
        retry_s = self._config.join_retry_s
        while True:
            try:
                addresses = await resolve(target)
                self._unknown.pop(target, None)
            except OSError as error:
                addresses = ()
                self._unknown[target] = error.strerror or str(error)
            if any(self._settled(address) for address in addresses):
                retry_s = self._config.join_retry_max_s  # it may be lost again: look seldom
            else:
                for address in addresses:
                    self._hint(Hinted(address=address, node=None))
            await trio.sleep(retry_s * self._rng.uniform(0.75, 1.0))
            retry_s = min(2 * retry_s, self._config.join_retry_max_s)
