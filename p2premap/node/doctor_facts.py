"""What the doctor reasons about: facts of this machine, of this node, and of each other member. Data only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec

from p2premap.control.nodes import Foreign
from p2premap.ids import Address
from p2premap.node.firewall import Firewall
from p2premap.node.interfaces import Interface
from p2premap.node.probes import DirectoryFacts, MulticastProbe, PortFacts


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What can be seen without a daemon.

    Args:
        secret: see `probes.probe_secret`.
        warnings: sentences of the node's other parts that a person should know.
    """

    interfaces: tuple[Interface, ...]
    multicast: tuple[MulticastProbe, ...]
    firewall: Firewall
    secret: str | None
    state: DirectoryFacts
    port: PortFacts
    warnings: tuple[str, ...] = ()


class PeerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One other member.

    Args:
        dialled: what became of each address of its when this node dialled it: "open", "refused", "silent",
            "unroutable".
        dials_us: the same the other way round, as it reported; None where it could not be asked.
        clock_ahead_s: its wall clock less ours; None where it could not be asked.
        announced: its mDNS announcement is heard here.
        datagrams: a datagram of its has come since the two know each other; None where that is not known yet.
    """

    name: str
    state: str
    version: str
    python: str
    here: bool
    dialled: tuple[tuple[Address, str], ...] = ()
    dials_us: tuple[tuple[Address, str], ...] | None = None
    clock_ahead_s: float | None = None
    announced: bool = False
    datagrams: bool | None = None


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the running daemon knows beside that.

    Args:
        scope: "loopback" or "network".
        port: where it listens, TCP and UDP; `port_first` is the one that it would rather have had.
        open_name: the NAME of ``--open NAME``, or "".
        troubles: sentences about what was asked for and does not work, such as a --join, already with what to do.
        mismatched: name -> major version of the wire, of announced nodes of our cluster with another one.
    """

    name: str
    version: str
    python: str
    scope: str
    port: int
    port_first: int
    peers: tuple[PeerFacts, ...] = ()
    open_name: str = ""
    troubles: tuple[str, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    mismatched: tuple[tuple[str, int], ...] = ()


def shares_network(peer: PeerFacts, interfaces: Iterable[Interface]) -> bool:
    """Whether an address of the peer is in a network of one of these interfaces."""
    networks = [ipaddress.ip_interface(network).network for i in interfaces for network in i.networks]
    hosts = [ipaddress.ip_address(address.host.partition("%")[0]) for address, _ in peer.dialled]
    return any(not host.is_link_local and any(host in network for network in networks) for host in hosts)


def names(peers: Iterable[PeerFacts]) -> str:
    """Their names in one line."""
    return ", ".join(sorted(peer.name for peer in peers))
