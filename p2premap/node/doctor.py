"""What works and what does not, in sentences with a remedy: pure, facts in, findings out.

The facts come from `p2premap.node.probes` (this machine), from members that were asked to dial us, and from what this
node sees of them (`p2premap.node.examiner`). A finding that is ok and still has a remedy is an advice.
"""

from __future__ import annotations

from collections.abc import Iterator

from p2premap.control.nodes import Finding
from p2premap.node.doctor_facts import MachineFacts, NodeFacts, names, shares_network
from p2premap.node.doctor_members import member_findings
from p2premap.node.firewall import MDNS_PORT, opening_lines
from p2premap.node.interfaces import Interface
from p2premap.node.probes import DirectoryFacts, Multicast, MulticastProbe, PortFacts

FREE_BYTES_MIN = 256 << 20
JOIN_BY_HAND = "Elsewhere, start the node with `p2premap node --join {where}`."


def findings(machine: MachineFacts, node: NodeFacts | None) -> tuple[Finding, ...]:
    """Everything worth telling: this node first, then its machine, each interface, and the other members."""
    found = [
        *_daemon(node, machine),
        *_secret(machine.secret, node),
        *_state(machine.state),
        *_interfaces(machine, node),
    ]
    if node is not None:
        found += member_findings(machine, node)
        found += [Finding(ok=False, about="node", text=trouble) for trouble in node.troubles]
    told = {finding.text for finding in found}
    found += [Finding(ok=True, about="note", text=warning) for warning in machine.warnings if warning not in told]
    return tuple(found)


def _daemon(node: NodeFacts | None, machine: MachineFacts) -> Iterator[Finding]:
    if node is None:
        yield Finding(ok=False, about="node", text="No node runs on this machine.", remedy="p2premap node")
        if not machine.port.free:
            yield _port_taken(machine.port)
        return
    if node.scope == "loopback":
        yield Finding(
            ok=True,
            about="node",
            text=f"{node.name} runs and listens on this machine only, port {node.port}.",
            remedy="To take in other machines: `p2premap invite` here, then `p2premap join TOKEN` there.",
        )
    else:
        yield Finding(ok=True, about="node", text=f"{node.name} runs and listens on port {node.port}, TCP and UDP.")
    if node.port != node.port_first and not machine.port.free and "p2premap" not in machine.port.taken_by:
        yield _port_taken(machine.port)


def _port_taken(port: PortFacts) -> Finding:
    return Finding(
        ok=True,
        about=f"port {port.port}",
        text=f"Port {port.port} is held by {port.taken_by}; a node takes the next free one.",
        remedy="Nothing to do, unless a firewall or a --join names this port.",
    )


def _secret(secret: str | None, node: NodeFacts | None) -> Iterator[Finding]:
    if node is not None and node.open_name:
        yield Finding(
            ok=True,
            about="secret",
            text=f"This is the open cluster {node.open_name}: anyone on this network can run code as you.",
            remedy="Start the node without --open where that is not what you want.",
        )
    elif secret is None:
        yield Finding(ok=True, about="secret", text="There is no cluster secret yet; the first node makes one.")
    elif secret:
        yield Finding(ok=False, about="secret", text=secret, remedy=_command_in(secret))
    else:
        yield Finding(ok=True, about="secret", text="The cluster's secret is readable by you alone.")


def _command_in(sentence: str) -> str:
    """The command that a sentence quotes; "" where it quotes none."""
    parts = sentence.split("`")
    return parts[1] if len(parts) > 2 else ""


def _state(state: DirectoryFacts) -> Iterator[Finding]:
    if state.error:
        yield Finding(
            ok=False,
            about="state",
            text=f"Nothing can be written in {state.path}: {state.error}.",
            remedy=f"df -h {state.path}; ls -ld {state.path}  (free some space, or make it writable for you)",
        )
    elif 0 <= state.free_bytes < FREE_BYTES_MIN:
        yield Finding(
            ok=False,
            about="state",
            text=f"Only {state.free_bytes >> 20} MB are free in {state.path}; jobs will fail when it is full.",
            remedy=f"df -h {state.path}; p2premap status  (free some space there)",
        )
    else:
        yield Finding(ok=True, about="state", text=state.moved or f"{state.path} can be written.")


def _interfaces(machine: MachineFacts, node: NodeFacts | None) -> Iterator[Finding]:
    usable = [i for i in machine.interfaces if i.up and i.networks]
    if not usable:
        yield Finding(
            ok=False,
            about="network",
            text="No network interface is up with an address: only nodes on this machine can be reached.",
            remedy="ip address  (connect a cable or a Wi-Fi network)",
        )
    for interface in machine.interfaces:
        yield from _interface(interface, machine, node)


def _interface(interface: Interface, machine: MachineFacts, node: NodeFacts | None) -> Iterator[Finding]:
    name = interface.name
    if not interface.up:
        yield Finding(ok=True, about=name, text="It is down or has no carrier; it is not used.")
        return
    if not interface.networks:
        yield Finding(
            ok=False,
            about=name,
            text="It is up but has no address.",
            remedy=f"ip address show dev {name}  (wait for DHCP, or set an address)",
        )
        return
    if not interface.multicast:
        yield Finding(
            ok=True,
            about=name,
            text="It cannot carry multicast (a tunnel, for example): nodes behind it are not found by themselves.",
            remedy=JOIN_BY_HAND.format(where=f"{interface.hosts[0]}:{_port(machine, node)}"),
        )
        return
    heard = [p.version for p in machine.multicast if p.interface == name and p.outcome is Multicast.HEARD]
    for probe in machine.multicast:
        if probe.interface == name and probe.outcome is not Multicast.HEARD:
            yield _multicast(probe, interface, machine, node)
    if heard:
        versions = " and ".join(f"IPv{version}" for version in heard)
        yield from _filtered_between(interface, versions, node)


def _multicast(probe: MulticastProbe, interface: Interface, machine: MachineFacts, node: NodeFacts | None) -> Finding:
    name, version = interface.name, f"IPv{probe.version}"
    by_hand = JOIN_BY_HAND.format(where=f"{interface.hosts[0]}:{_port(machine, node)}")
    match probe.outcome:
        case Multicast.SILENT:
            lines = opening_lines(machine.firewall, MDNS_PORT, ("udp",))
            text = f"Multicast is blocked: a {version} packet to the mDNS group did not come back to this machine."
            remedy = "\n".join((*lines, by_hand))
        case Multicast.UNROUTABLE:
            group = "224.0.0.0/4" if probe.version == 4 else "ff00::/8"
            text = f"There is no route for {version} multicast ({probe.detail})."
            remedy = f"sudo ip {'' if probe.version == 4 else '-6 '}route add {group} dev {name}\n{by_hand}"
        case Multicast.PORT_HELD:
            text = f"UDP port {MDNS_PORT} is held by a program that does not share it; mDNS does not work."
            remedy = f"sudo ss -lunp 'sport = :{MDNS_PORT}'  (with avahi: disallow-other-stacks=no)\n{by_hand}"
        case _:
            text = f"The kernel refuses {version} multicast here ({probe.detail})."
            remedy = by_hand
    return Finding(ok=False, about=name, text=text, remedy=remedy)


def _filtered_between(interface: Interface, versions: str, node: NodeFacts | None) -> Iterator[Finding]:
    """Multicast leaves this machine; does it arrive? Members known by other means and not heard say no."""
    near = [] if node is None else [p for p in node.peers if not p.here and shares_network(p, (interface,))]
    peers = [peer for peer in near if peer.state == "alive"]
    if peers and not any(peer.announced for peer in peers):
        yield Finding(
            ok=False,
            about=interface.name,
            text=f"Multicast does not pass between machines: {names(peers)} on this network cannot be heard.",
            remedy="Switch off client isolation (Wi-Fi) or IGMP snooping (switch). Members that know each other "
            "still find each other; new ones need a token or --join.",
        )
    else:
        yield Finding(ok=True, about=interface.name, text=f"Multicast works, {versions}: nodes find each other here.")


def _port(machine: MachineFacts, node: NodeFacts | None) -> int:
    return machine.port.port if node is None else node.port
