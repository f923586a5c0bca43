"""Looking at this machine for the doctor: multicast, port, directories, secret. No trio; blocking, bounded in time.

Nothing here judges: `p2premap.node.doctor` makes sentences of what is found.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import ipaddress
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2premap.errors import ConfigError
from p2premap.node.firewall import MDNS_PORT
from p2premap.node.interfaces import Interface, scoped
from p2premap.node.paths import Paths
from p2premap.node.secret import load

_GROUPS: Final = {4: "224.0.0.251", 6: "ff02::fb"}


class Multicast(enum.Enum):
    """What became of a packet sent to the mDNS group."""

    HEARD = "heard"
    SILENT = "silent"
    UNROUTABLE = "unroutable"
    PORT_HELD = "port held"
    REFUSED = "refused"


class MulticastProbe(msgspec.Struct, frozen=True):
    """One probe, on one interface, of one IP version (4 or 6)."""

    interface: str
    version: int
    outcome: Multicast
    detail: str = ""


class DirectoryFacts(msgspec.Struct, frozen=True):
    """A directory that the node writes to.

    Args:
        error: what the system said when something was written there; "" where it went well.
        free_bytes: for this user; -1 where nobody knows.
        moved: a sentence where the state is kept elsewhere because this file system is remote.
    """

    path: str
    error: str
    free_bytes: int
    moved: str = ""


class PortFacts(msgspec.Struct, frozen=True):
    """A port, TCP and UDP.

    Args:
        taken_by: who holds it, as far as this user may see: "python3 (pid 41)", or "another program".
        free: nobody holds it.
    """

    port: int
    free: bool
    taken_by: str = ""


# --- multicast ----------------------------------------------------------------------------------------------------


def query(nonce: str) -> bytes:
    """A well-formed mDNS question (RFC 1035, 4.1; RFC 6762, 5) that nobody can answer, known by its name."""
    labels = (nonce, "_p2premap", "_tcp", "local")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    type_txt, class_in = 16, 1
    return struct.pack(">6H", 0, 0, 1, 0, 0, 0) + name + struct.pack(">HH", type_txt, class_in)


def probe_multicast(interfaces: Sequence[Interface], wait_s: float) -> tuple[MulticastProbe, ...]:
    """Send a question on each interface and IP version and listen for it with a second socket.

    The kernel loops a multicast packet back through the same filters that a peer's would pass, so a local firewall
    shows itself; what a switch or an access point does cannot be seen by one machine alone.
    """
    done: list[MulticastProbe] = []
    waiting: dict[socket.socket, tuple[str, int, bytes]] = {}
    with contextlib.ExitStack() as stack:
        for interface in interfaces:
            for version in (4, 6):
                if (source := _source(interface, version)) is None:
                    continue
                nonce = f"probe-{secrets.token_hex(8)}"
                try:
                    listener = stack.enter_context(_listen(interface, version, source))
                    with _speaker(interface, version, source) as speaker:
                        speaker.sendto(query(nonce), _group(interface, version))
                except OSError as error:
                    detail = error.strerror or str(error)
                    done.append(MulticastProbe(interface.name, version, _outcome(error), detail))
                else:
                    waiting[listener] = (interface.name, version, nonce.encode())
        done += _hear(waiting, time.monotonic() + wait_s)
    return tuple(sorted(done, key=lambda probe: (probe.interface, probe.version)))


def _hear(waiting: dict[socket.socket, tuple[str, int, bytes]], until: float) -> list[MulticastProbe]:
    done = []
    while waiting and (left := until - time.monotonic()) > 0:
        for listener in select.select(list(waiting), [], [], left)[0]:
            name, version, nonce = waiting[listener]
            if nonce in listener.recv(9_000):
                done.append(MulticastProbe(name, version, Multicast.HEARD))
                del waiting[listener]
    return done + [MulticastProbe(name, version, Multicast.SILENT) for name, version, _ in waiting.values()]


def _source(interface: Interface, version: int) -> str | None:
    """The address to send from: for IPv6 the link-local one where there is one."""
    hosts = [ipaddress.ip_interface(network).ip for network in interface.networks]
    ours = sorted((h for h in hosts if h.version == version), key=lambda h: not (version == 6 and h.is_link_local))
    return str(ours[0]) if ours else None


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _group(interface: Interface, version: int) -> tuple[str, int] | tuple[str, int, int, int]:
    group = _GROUPS[version]
    return (group, MDNS_PORT) if version == 4 else (group, MDNS_PORT, 0, interface.index)


def _listen(interface: Interface, version: int, source: str) -> socket.socket:
    listener = socket.socket(_family(version), socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        group = socket.inet_pton(_family(version), _GROUPS[version])
        if version == 4:
            listener.bind(("", MDNS_PORT))
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton(source))
        else:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(("::", MDNS_PORT))
            member = group + struct.pack("@I", interface.index)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    except OSError:
        listener.close()
        raise
    return listener


def _speaker(interface: Interface, version: int, source: str) -> socket.socket:
    speaker = socket.socket(_family(version), socket.SOCK_DGRAM)
    try:
        if version == 4:
            speaker.bind((source, 0))
            speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
            speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, struct.pack("B", 255))
            speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, struct.pack("B", 1))
        else:
            host = scoped(source, interface.name)
            speaker.bind(socket.getaddrinfo(host, 0, socket.AF_INET6, socket.SOCK_DGRAM)[0][4])
            speaker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
            speaker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            speaker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    except OSError:
        speaker.close()
        raise
    return speaker


def _outcome(error: OSError) -> Multicast:
    if error.errno == errno.EADDRINUSE:
        return Multicast.PORT_HELD
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
        return Multicast.UNROUTABLE
    return Multicast.REFUSED


# --- port, directories, secret -----------------------------------------------------------------------------------


def probe_port(port: int) -> PortFacts:
    """Whether a port is free on this machine, TCP and UDP, and else who holds it."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as trial:
            if kind == socket.SOCK_STREAM:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("", port))
            except OSError:
                return PortFacts(port, False, port_owner(port))
    return PortFacts(port, True)


def port_owner(port: int) -> str:
    """Who holds a port, as far as this user may see."""
    import psutil  # costs 15 ms, and only this question needs it

    with contextlib.suppress(psutil.Error, OSError, RuntimeError):
        for connection in psutil.net_connections(kind="inet"):
            local = connection.laddr
            if local and local.port == port and connection.pid and not connection.raddr:
                with contextlib.suppress(psutil.Error):
                    return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
                return f"pid {connection.pid}"
    return "another program"


def probe_directory(path: Path, moved: str = "") -> DirectoryFacts:
    """Write 4 KiB and remove them again: what a quota, a full disk or a read-only mount allow shows nowhere else."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    trial = existing / f".p2premap-{secrets.token_hex(4)}"
    problem = ""
    try:
        file = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, bytes(4096))
            os.fsync(file)
        finally:
            os.close(file)
            trial.unlink()
    except OSError as error:
        problem = error.strerror or str(error)
    try:
        disk = os.statvfs(existing)
        free = disk.f_bavail * disk.f_frsize
    except OSError:
        free = -1
    return DirectoryFacts(str(path), problem, free, moved)


def probe_secret(paths: Paths) -> str | None:
    """What is wrong with the cluster's secret; "" where it is fine, None where there is none yet."""
    try:
        return None if load(paths.config) is None else ""
    except ConfigError as error:
        return str(error)
