"""Every sentence of the doctor: facts in, findings out."""

import pytest

from p2premap.control.nodes import Foreign
from p2premap.ids import Address
from p2premap.node.doctor import findings
from p2premap.node.doctor_facts import MachineFacts, NodeFacts, PeerFacts
from p2premap.node.firewall import Firewall
from p2premap.node.firewall import Kind as FirewallKind
from p2premap.node.interfaces import Interface, Kind
from p2premap.node.probes import DirectoryFacts, Multicast, MulticastProbe, PortFacts

ETH = Interface("eth0", 2, True, True, Kind.LAN, ("10.0.0.5/24", "fe80::5/64"))
HEARD = tuple(MulticastProbe("eth0", version, Multicast.HEARD) for version in (4, 6))
HERE, THERE, FAR = Address("10.0.0.5", 7322), Address("10.0.0.9", 7321), Address("192.168.7.9", 7321)


def machine(**changes):
    facts = {
        "interfaces": (ETH,),
        "multicast": HEARD,
        "firewall": Firewall(FirewallKind.NONE),
        "secret": "",
        "state": DirectoryFacts("/state", "", 10 << 30),
        "port": PortFacts(7321, True),
    }
    return MachineFacts(**(facts | changes))


def peer(**changes):
    facts = {
        "name": "pi2",
        "state": "alive",
        "version": "0.1.0",
        "python": "3.11.2",
        "here": False,
        "dialled": ((THERE, "open"),),
        "dials_us": ((HERE, "open"),),
        "clock_ahead_s": 1.0,
        "announced": True,
    }
    return PeerFacts(**(facts | changes))


def node(*peers, **changes):
    facts = {
        "name": "pi1",
        "version": "0.1.0",
        "python": "3.11.7",
        "scope": "network",
        "port": 7322,
        "port_first": 7321,
        "peers": peers,
    }
    return NodeFacts(**(facts | changes))


def bad(found):
    return [finding for finding in found if not finding.ok]


def about(found, what):
    (finding,) = [finding for finding in found if finding.about == what]
    return finding


def test_all_is_well():
    found = findings(machine(), node(peer()))
    assert bad(found) == []
    assert about(found, "eth0").text == "Multicast works, IPv4 and IPv6: nodes find each other here."
    assert about(found, "port 7322").text == "pi2 can open connections to this node."
    assert about(found, "member pi2").text == "It answers."
    assert about(found, "secret").text == "The cluster's secret is readable by you alone."
    assert all(finding.text.endswith((".", ".)")) for finding in found)


def test_no_daemon():
    found = findings(machine(secret=None, port=PortFacts(7321, False, "nc (pid 4)")), None)
    assert [f.text for f in bad(found)] == ["No node runs on this machine."]
    assert about(found, "node").remedy == "p2premap node"
    assert "held by nc (pid 4)" in about(found, "port 7321").text
    assert "first node makes one" in about(found, "secret").text


def test_loopback_only_tells_how_to_open():
    found = findings(machine(), node(scope="loopback"))
    assert "this machine only" in about(found, "node").text
    assert "p2premap invite" in about(found, "node").remedy
    assert "alone in its cluster" in about(found, "members").text


def test_the_usual_port_is_taken():
    found = findings(machine(port=PortFacts(7321, False, "java (pid 9)")), node(peer()))
    assert about(found, "port 7321").text == "Port 7321 is held by java (pid 9); a node takes the next free one."
    mine = findings(machine(port=PortFacts(7321, False, "python3 (pid 9)")), node(peer(), port=7321))
    assert "port 7321" not in [f.about for f in mine if "held by" in f.text]


def test_a_secret_that_others_can_read():
    found = findings(machine(secret="Others can read the cluster's secret: run `chmod 600 /c/secret`."), node(peer()))
    assert about(found, "secret").remedy == "chmod 600 /c/secret"
    assert not about(found, "secret").ok


@pytest.mark.parametrize(
    ("state", "ok", "said"),
    [
        (DirectoryFacts("/s", "Read-only file system", 1 << 40), False, "Nothing can be written in /s: Read-only"),
        (DirectoryFacts("/s", "No space left on device", 0), False, "No space left on device"),
        (DirectoryFacts("/s", "", 5 << 20), False, "Only 5 MB are free"),
        (DirectoryFacts("/s", "", -1), True, "can be written"),
        (DirectoryFacts("/s", "", 1 << 40, "/home is on a network file system (nfs)."), True, "network file system"),
    ],
)
def test_the_state_directory(state, ok, said):
    finding = about(findings(machine(state=state), node(peer())), "state")
    assert (finding.ok, said in finding.text) == (ok, True)
    assert finding.ok or "/s" in finding.remedy


def test_no_interface_at_all():
    found = findings(machine(interfaces=(), multicast=()), None)
    assert "only nodes on this machine" in about(found, "network").text
    assert not about(found, "network").ok


def test_interfaces_that_are_down_bare_or_without_multicast():
    others = (
        Interface("eth1", 3, False, True, Kind.LAN, ("10.1.0.5/24",)),
        Interface("eth2", 4, True, True, Kind.LAN, ()),
        Interface("wg0", 5, True, False, Kind.TUNNEL, ("10.2.0.5/24",)),
    )
    found = findings(machine(interfaces=(ETH, *others)), node(peer()))
    assert about(found, "eth1").text == "It is down or has no carrier; it is not used."
    assert about(found, "eth1").ok
    assert about(found, "eth2").text == "It is up but has no address."
    assert "DHCP" in about(found, "eth2").remedy
    assert "cannot carry multicast" in about(found, "wg0").text
    assert "--join 10.2.0.5:7322" in about(found, "wg0").remedy


@pytest.mark.parametrize(
    ("outcome", "detail", "said", "remedy"),
    [
        (Multicast.SILENT, "", "Multicast is blocked", "sudo ufw allow 5353/udp"),
        (Multicast.UNROUTABLE, "Network is unreachable", "no route for IPv4", "ip route add 224.0.0.0/4 dev eth0"),
        (Multicast.PORT_HELD, "", "UDP port 5353 is held", "sport = :5353"),
        (Multicast.REFUSED, "No buffer space available", "(No buffer space available)", "--join"),
    ],
)
def test_multicast_that_does_not_come_back(outcome, detail, said, remedy):
    probes = (MulticastProbe("eth0", 4, outcome, detail), HEARD[1])
    found = findings(machine(multicast=probes, firewall=Firewall(FirewallKind.UFW)), node(peer()))
    (finding,) = bad(found)
    assert finding.about == "eth0"
    assert said in finding.text
    assert remedy in finding.remedy
    assert "--join 10.0.0.5:7322" in finding.remedy
    assert [f.text for f in found if f.about == "eth0" and f.ok] == [
        "Multicast works, IPv6: nodes find each other here."
    ]


def test_an_ipv6_route_is_named_as_such():
    probes = (HEARD[0], MulticastProbe("eth0", 6, Multicast.UNROUTABLE, "Network is unreachable"))
    (finding,) = bad(findings(machine(multicast=probes), node(peer())))
    assert "ip -6 route add ff00::/8 dev eth0" in finding.remedy


def test_multicast_filtered_between_machines():
    (finding,) = bad(findings(machine(), node(peer(announced=False))))
    assert finding.about == "eth0"
    assert "does not pass between machines: pi2" in finding.text
    assert "client isolation" in finding.remedy
    elsewhere = node(peer(announced=False, dialled=((FAR, "open"),)))
    assert bad(findings(machine(), elsewhere)) == []
    one_heard = node(peer(announced=False), peer(name="pi3"))
    assert bad(findings(machine(), one_heard)) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [("silent", "silently"), ("refused", "although this node listens"), ("unroutable", "prohibited")],
)
def test_a_firewall_here(outcome, said):
    blocked = peer(dials_us=((HERE, outcome),))
    found = findings(machine(firewall=Firewall(FirewallKind.UFW)), node(blocked, peer(name="pi3")))
    (finding,) = bad(found)
    assert finding.about == "port 7322"
    assert finding.text.startswith("pi2 ")
    assert said in finding.text
    assert "sudo ufw allow 7322/tcp\nsudo ufw allow 7322/udp\n" in finding.remedy
    unseen = bad(findings(machine(), node(blocked)))[0]
    assert "ufw allow" in unseen.remedy
    assert "firewall-cmd" in unseen.remedy
    assert "iptables -I INPUT" in unseen.remedy


def test_one_open_address_is_enough():
    assert bad(findings(machine(), node(peer(dials_us=((HERE, "silent"), (FAR, "open")))))) == []


def test_nat_is_not_a_fault():
    far = peer(dials_us=((HERE, "unroutable"),), dialled=((FAR, "open"),))
    found = findings(machine(), node(far))
    assert bad(found) == []
    assert "behind NAT" in about(found, "port 7322").text


def test_members_on_this_machine_say_nothing_about_the_firewall():
    here = peer(here=True, dials_us=((HERE, "silent"),), dialled=((Address("127.0.0.1", 7321), "silent"),))
    assert bad(findings(machine(), node(here))) == []


@pytest.mark.parametrize(
    ("state", "said"),
    [("dead", "does not answer any more"), ("suspect", "not heard"), ("stalled", "accepts connections but")],
)
def test_members_that_do_not_answer(state, said):
    finding = about(findings(machine(), node(peer(state=state, dials_us=None))), "member pi2")
    assert not finding.ok
    assert said in finding.text
    assert finding.remedy


@pytest.mark.parametrize(
    ("outcome", "said"), [("silent", "gets no answer"), ("refused", "is refused"), ("unroutable", "no route")]
)
def test_members_that_cannot_be_dialled(outcome, said):
    one_way = about(findings(machine(), node(peer(dialled=((THERE, outcome),)))), "member pi2")
    assert one_way.ok
    assert said in one_way.text
    assert "10.0.0.9:7321" in one_way.text
    assert "On pi2: `p2premap doctor`" in one_way.remedy
    no_way = peer(dialled=((THERE, outcome),), dials_us=None)
    assert not about(findings(machine(), node(no_way)), "member pi2").ok


def test_a_member_that_left_is_not_mentioned():
    assert not [f for f in findings(machine(), node(peer(state="left"))) if "pi2" in f.about]


@pytest.mark.parametrize(
    ("ahead", "said"), [(-7200.0, "2 hours behind"), (90.0, "90 seconds ahead of"), (3.0e6, "35 days ahead of")]
)
def test_a_clock_far_off_is_an_advice(ahead, said):
    found = findings(machine(), node(peer(clock_ahead_s=ahead)))
    assert bad(found) == []
    (finding,) = [f for f in found if "clock" in f.text]
    assert said in finding.text
    assert finding.remedy


def test_versions_that_differ_are_an_advice():
    found = findings(machine(), node(peer(version="0.2.0", python="3.12.1"), peer(name="pi3", python="")))
    assert bad(found) == []
    told = [f.text for f in found if f.about == "versions"]
    assert told == [
        "This node has p2premap 0.1.0, but pi2 has 0.2.0.",
        "This node has Python 3.11, but pi2 has 3.12.",
    ]


def test_another_protocol_version_is_a_fault():
    (finding,) = bad(findings(machine(), node(peer(), mismatched=(("pi9", 2),))))
    assert finding.about == "member pi9"
    assert "version 2" in finding.text
    assert "upgrade" in finding.remedy


def test_other_clusters():
    other = Foreign(address="10.0.0.7:7321", cluster="beef", hint="p2premap join TOKEN")
    joined = about(findings(machine(), node(peer(), foreign=(other,))), "other clusters")
    assert joined.ok
    alone = about(findings(machine(), node(foreign=(other,))), "other clusters")
    assert not alone.ok
    assert "alone in its own" in alone.text
    assert alone.remedy == "To join that one: p2premap join TOKEN"


def test_troubles_are_faults_and_warnings_are_notes_told_once():
    moved = "/home is on a network file system (nfs)."
    state = DirectoryFacts("/s", "", 1 << 40, moved)
    found = findings(machine(warnings=("It was new.", moved), state=state), node(peer(), troubles=("--join x: no.",)))
    assert [f.text for f in bad(found)] == ["--join x: no."]
    assert [f.text for f in found if f.about == "note"] == ["It was new."]
    assert [f.text for f in found].count(moved) == 1


def test_an_open_cluster_says_what_that_means():
    finding = about(findings(machine(secret=None), node(peer(), open_name="lab")), "secret")
    assert finding.text == "This is the open cluster lab: anyone on this network can run code as you."
    assert finding.remedy


def test_blocked_udp():
    deaf, fine, new = peer(datagrams=False), peer(name="pi3", datagrams=True), peer(name="pi4", datagrams=None)
    here_or_there = about(findings(machine(firewall=Firewall(FirewallKind.UFW)), node(deaf, new)), "port 7322/udp")
    assert "No datagram of pi2 arrives here" in here_or_there.text
    assert "blocked, here or there" in here_or_there.text
    assert here_or_there.remedy.splitlines()[0] == "sudo ufw allow 7322/udp"
    there = about(findings(machine(), node(deaf, fine)), "port 7322/udp")
    assert "blocked, there" in there.text
    assert "On pi2:" in there.remedy
    assert bad(findings(machine(), node(fine, new))) == []
    assert bad(findings(machine(), node(peer(datagrams=False, here=True)))) == []
