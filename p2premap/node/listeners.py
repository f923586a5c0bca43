"""The node's TCP and UDP sockets: one port number for both, on loopback only or on every interface.

A worker process inherits none of them (Python's sockets are closed on exec): a forked one that held a listener would
make a dead daemon look alive.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

from p2premap.errors import ConfigError
from p2premap.event import Event
from p2premap.ids import Address

LOOPBACK: Final = ("127.0.0.1", "::1")
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104  (only once the user has invited, joined or opened)

BACKLOG: Final = 512
DATAGRAM_BUFFER_BYTES: Final = 1 << 20
_EPHEMERAL_TRIES: Final = 32

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]


@functools.lru_cache(maxsize=4096)
def socket_address(address: Address) -> tuple[socket.AddressFamily, SocketAddress]:
    """The form in which the system wants an address. Never asks a name server.

    Raises:
        ValueError: not a numeric host, or an interface that this machine does not have.
    """
    host, _, scope = address.host.partition("%")
    if not 0 < address.port < 65536:
        raise ValueError(f"{address.port} is not a port")
    if ipaddress.ip_address(host).version == 4:
        return socket.AF_INET, (host, address.port)
    if not scope:
        return socket.AF_INET6, (host, address.port, 0, 0)
    try:
        index = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    except OSError:
        raise ValueError(f"no interface {scope}") from None
    if index >= 1 << 32:
        raise ValueError(f"no interface {index}")
    return socket.AF_INET6, (host, address.port, 0, index)


def address_from(name: SocketAddress) -> Address:
    """The address of a peer as the system gives it, a link-local one with its scope."""
    host = name[0]
    if len(name) == 4 and name[3] and "%" not in host:
        with contextlib.suppress(OSError):
            host = f"{host}%{socket.if_indextoname(name[3])}"
    return Address(host, name[1])


class Bound(Event, frozen=True):
    """Sockets that are bound and, where TCP, listen; not blocking.

    Args:
        port: of all of them.
        tcp, udp: one for each address family that this machine has.
    """

    port: int
    tcp: tuple[socket.socket, ...]
    udp: tuple[socket.socket, ...]

    def close(self) -> None:
        """Close them all."""
        for one in (*self.tcp, *self.udp):
            one.close()


def bind_first(hosts: tuple[str, ...], first: int, tried: int) -> Bound:
    """The first port from `first` on that is free for TCP and UDP on all `hosts`.

    Args:
        hosts: LOOPBACK or EVERYWHERE.
        first: 0 means any free port that the system chooses.
        tried: how many ports, from `first` on.

    Raises:
        ConfigError: none of them.
    """
    ports = range(first, min(first + tried, 65536)) if first else [0] * _EPHEMERAL_TRIES
    for port in ports:
        try:
            return bind(hosts, port)
        except OSError as error:
            if error.errno == errno.EACCES:
                raise ConfigError(f"Port {port} needs special rights; choose one above 1023 with --port.") from None
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"Cannot listen on port {port}: {error.strerror}.") from None
    if first and tried == 1:
        raise ConfigError(f"Port {first} is in use by another program; choose another with --port.")
    raise ConfigError(f"Ports {first} to {first + tried - 1} are all in use; choose another with --port.")


def bind(hosts: tuple[str, ...], port: int) -> Bound:
    """Listen on `port`, TCP and UDP, at each of `hosts` whose address family this machine has.

    Raises:
        OSError: the port is taken at one of them (EADDRINUSE), or no family works; nothing is left bound.
    """
    tcp: list[socket.socket] = []
    udp: list[socket.socket] = []
    failure = OSError(errno.EAFNOSUPPORT, "no IPv4 and no IPv6")
    try:
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                # UDP first: without SO_REUSEADDR, it finds out whether another node has the port
                udp.append(_bound(family, socket.SOCK_DGRAM, host, port))
                tcp.append(_bound(family, socket.SOCK_STREAM, host, udp[-1].getsockname()[1]))
                tcp[-1].listen(BACKLOG)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT):
                    raise
                failure = error
                continue
            port = udp[-1].getsockname()[1]
        if not tcp:
            raise failure
    except OSError:
        Bound(port, tuple(tcp), tuple(udp)).close()
        raise
    return Bound(port, tuple(tcp), tuple(udp))


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    one = socket.socket(family, kind)
    try:
        one.setblocking(False)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for TIME_WAIT
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER_BYTES)
        one.bind((host, port))
    except OSError:
        one.close()
        raise
    return one


def tune(set_option: Callable[[int, int, int], None], silent_s: float) -> None:
    """Send small frames at once, and notice within `silent_s` seconds that the other machine has gone silent.

    The connection then breaks, which says no more than that: who is dead is for gossip to decide.

    Args:
        set_option: `setsockopt` of the connection.
        silent_s: at least 3.
    """
    set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    third = max(1, round(silent_s / 3))
    # getattr: the names differ between systems, and the checker runs on each of them
    for name, value in (
        ("TCP_KEEPIDLE", third),
        ("TCP_KEEPALIVE", third),
        ("TCP_KEEPINTVL", third),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", round(silent_s * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            set_option(socket.IPPROTO_TCP, option, value)
