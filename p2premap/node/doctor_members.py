"""The doctor's sentences about other members: who can dial whom, versions, clocks, other clusters. Pure.

A silent or refusing firewall is told by evidence only: a member that cannot open a connection to an address where this
node listens, although the two talk over a connection that this node opened. iptables' REJECT says "refused" for a live
listener, so a refusal is as good a sign as silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from p2premap.control.nodes import Finding
from p2premap.ids import Address
from p2premap.node.doctor_facts import MachineFacts, NodeFacts, PeerFacts, names, shares_network
from p2premap.node.firewall import Firewall, Kind, opening_lines

CLOCK_OFF_S = 60.0


def member_findings(machine: MachineFacts, node: NodeFacts) -> list[Finding]:
    """Whether others can dial us, how each of them is, and who else is on this network."""
    found = [*_firewall(machine, node), *_datagrams(machine, node), *_peers(node)]
    return [*found, *_versions(node), *_foreign(node)]


def _firewall(machine: MachineFacts, node: NodeFacts) -> Iterator[Finding]:
    """Can others open connections to us?"""
    asked = [peer for peer in node.peers if not peer.here and peer.dials_us]
    blocked = [peer for peer in asked if not _any_open(peer.dials_us or ())]
    about = f"port {node.port}"
    if asked and not blocked:
        yield Finding(ok=True, about=about, text=f"{names(asked)} can open connections to this node.")
    # no route within one network: firewalld's REJECT says so (ICMP "administratively prohibited")
    near = {peer.name for peer in blocked if shares_network(peer, machine.interfaces)}
    far = [p for p in blocked if _worst(p.dials_us or ()) == "unroutable" and p.name not in near]
    lines = opening_lines(_or_unseen(machine.firewall), node.port)
    for outcome, said in (
        ("silent", "got no answer from port {port} here: a firewall drops what they send, silently."),
        ("refused", "was refused at port {port} here, although this node listens: a firewall refuses it."),
        ("unroutable", "was refused at port {port} here as prohibited, although this node listens: by a firewall."),
    ):
        peers = [p for p in blocked if p not in far and _worst(p.dials_us or ()) == outcome]
        if peers:
            yield Finding(
                ok=False,
                about=about,
                text=f"{names(peers)} {said.format(port=node.port)}",
                remedy="\n".join((*lines, "Until then this node works over the connections that it opened itself.")),
            )
    if far:
        yield Finding(
            ok=True,
            about=about,
            text=f"{names(far)} has no route to this node: it is behind NAT, or on another network.",
            remedy="Nothing to do: this node works over the connections that it opened itself.",
        )


def _datagrams(machine: MachineFacts, node: NodeFacts) -> Iterator[Finding]:
    """TCP alone keeps members together; without UDP they learn later what became of each other."""
    deaf_to = [p for p in node.peers if not p.here and p.state == "alive" and p.datagrams is False]
    if deaf_to:
        where = "there" if any(peer.datagrams for peer in node.peers if not peer.here) else "here or there"
        lines = opening_lines(_or_unseen(machine.firewall), node.port, ("udp",))
        yield Finding(
            ok=False,
            about=f"port {node.port}/udp",
            text=f"No datagram of {names(deaf_to)} arrives here, although TCP works: UDP is blocked, {where}. "
            "Members that fail are noticed later.",
            remedy="\n".join((*lines, f"On {names(deaf_to)}: `p2premap doctor` shows the line for there.")),
        )


def _or_unseen(firewall: Firewall) -> Firewall:
    """Something blocks, so `NONE` only means that it was not seen."""
    return Firewall(Kind.UNSEEN) if firewall.kind is Kind.NONE else firewall


def _peers(node: NodeFacts) -> Iterator[Finding]:
    others = [peer for peer in node.peers if peer.state != "left"]
    if not others:
        yield Finding(
            ok=True,
            about="members",
            text="This node is alone in its cluster.",
            remedy="To take in another machine: `p2premap invite` here, then `p2premap join TOKEN` there.",
        )
    for peer in others:
        yield from _peer(peer)


def _peer(peer: PeerFacts) -> Iterator[Finding]:
    about = f"member {peer.name}"
    if peer.state == "dead":
        yield Finding(
            ok=False,
            about=about,
            text="It does not answer any more; it is tried again and again.",
            remedy=f"Start it again on its machine, or look there with `p2premap doctor` ({_places(peer)}).",
        )
        return
    if peer.state in ("suspect", "stalled"):
        why = "is not heard" if peer.state == "suspect" else "accepts connections but does not answer"
        yield Finding(
            ok=False, about=about, text=f"It {why} at the moment.", remedy="p2premap nodes  (in a few seconds)"
        )
    elif peer.dialled and not _any_open(peer.dialled) and not peer.here:
        outcome = _worst(peer.dialled)
        why = {"silent": "gets no answer", "refused": "is refused"}.get(outcome, "finds no route")
        yield Finding(
            ok=peer.dials_us is not None and _any_open(peer.dials_us),
            about=about,
            text=f"This node {why} when it dials it ({_places(peer)}); they talk over a connection that it opened.",
            remedy=f"On {peer.name}: `p2premap doctor` shows the line that opens its firewall.",
        )
    else:
        yield Finding(ok=True, about=about, text="It answers.")
    if peer.clock_ahead_s is not None and abs(peer.clock_ahead_s) > CLOCK_OFF_S:
        way = "ahead of" if peer.clock_ahead_s > 0 else "behind"
        yield Finding(
            ok=True,
            about=about,
            text=f"Its clock is {_duration(abs(peer.clock_ahead_s))} {way} this machine's; times in logs differ.",
            remedy="timedatectl set-ntp true  (on the machine whose clock is wrong; nothing else depends on it)",
        )


def _versions(node: NodeFacts) -> Iterator[Finding]:
    for name, version in node.mismatched:
        yield Finding(
            ok=False,
            about=f"member {name}",
            text=f"It speaks version {version} of the protocol and cannot be a member together with this node.",
            remedy="pip install --upgrade p2premap  (on the machine with the older version)",
        )
    everybody = [(peer.name, peer) for peer in node.peers if peer.state not in ("dead", "left")]
    for what, mine, of_each, remedy in (
        (
            "p2premap",
            node.version,
            {name: peer.version for name, peer in everybody},
            "pip install --upgrade p2premap  (on each machine)",
        ),
        (
            "Python",
            _minor(node.python),
            {name: _minor(peer.python) for name, peer in everybody},
            "Job files run on any; only pickled closures need the same minor version and run where it is.",
        ),
    ):
        other = {name: version for name, version in of_each.items() if version and version != mine}
        if other:
            told = ", ".join(f"{name} has {version}" for name, version in sorted(other.items()))
            yield Finding(ok=True, about="versions", text=f"This node has {what} {mine}, but {told}.", remedy=remedy)


def _foreign(node: NodeFacts) -> Iterator[Finding]:
    alone = not any(peer.state == "alive" for peer in node.peers)
    for other in node.foreign:
        text = f"Another cluster ({other.cluster}) is on this network, at {other.address or 'an unknown address'}."
        yield Finding(
            # alone beside another cluster: most likely this machine was meant to be in it
            ok=not alone,
            about="other clusters",
            text=text + (" This node is alone in its own." if alone else ""),
            remedy=f"To join that one: {other.hint}",
        )


def _any_open(outcomes: Iterable[tuple[Address, str]]) -> bool:
    return any(outcome == "open" for _, outcome in outcomes)


def _worst(outcomes: Iterable[tuple[Address, str]]) -> str:
    """The outcome that tells most: somebody's refusal or silence before a missing route."""
    seen = [outcome for _, outcome in outcomes]
    return next((outcome for outcome in ("refused", "silent", "unroutable") if outcome in seen), "silent")


def _places(peer: PeerFacts) -> str:
    return ", ".join(str(address) for address, _ in peer.dialled[:3]) or "no address known"


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
