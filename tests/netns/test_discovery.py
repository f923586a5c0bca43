"""Discovery on a real network of namespaces: who is found, how fast, over what, and what is said where it cannot be."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from tests.cluster import eventually
from tests.netns.conftest import ENVIRONMENT

pytestmark = pytest.mark.netns

DOCTOR = """
import json
from p2premap.node.examiner import examine_alone
from p2premap.node.paths import Paths
print(json.dumps([[f.ok, f.about, f.text, f.remedy] for f in examine_alone(Paths.of_user())]))
"""
HOLD_MDNS_PORT = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 5353))
print("{}", flush=True)
sys.stdin.read()
"""
RAW_QUERY = """
import socket, sys
from zeroconf import DNSIncoming, DNSOutgoing, DNSQuestion, const
out = DNSOutgoing(const._FLAGS_QR_QUERY)
out.add_question(DNSQuestion("_p2premap._tcp.local.", const._TYPE_PTR, const._CLASS_IN))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3.0)
for _ in range(10):
    s.sendto(out.packets()[0], ("224.0.0.251", 5353))
    try:
        print(*(a.alias for a in DNSIncoming(s.recv(9000)).answers() if hasattr(a, "alias")))
        break
    except TimeoutError:
        continue
"""


def findings(lab, node, home):
    done = lab.run(node, sys.executable, "-c", DOCTOR, env={**ENVIRONMENT, "P2PREMAP_HOME": str(home)})
    return [dict(zip(("ok", "about", "text", "remedy"), row, strict=True)) for row in json.loads(done.stdout)]


def took(found, *nodes):
    """Seconds from the last one's start until all was found, but for those in which the machine did something else."""
    stalled_s = [max(line["stalled_s"] for line in node.seen if line["event"] == "hint") for node in nodes]
    return max(hint["at"] for hint in found) - max(node.started_at for node in nodes) - sum(stalled_s)


def test_three_nodes_find_each_other_within_three_seconds(make_lab, speak):
    lab = make_lab(3)
    nodes = {number: speak(lab, number) for number in lab.nodes()}
    pairs = [(lines, other) for number, lines in nodes.items() for other in lab.nodes() if other != number]
    found = [lines.reached(other, host=lab.ip(other)) for lines, other in pairs]
    assert took(found, *nodes.values()) < 3.0
    nodes[3].stop()
    nodes[1].state(lambda state: state["found"] == [2])


def test_a_late_joiner_is_found_at_once(make_lab, speak):
    lab = make_lab(2)
    first = speak(lab, 1)
    late = speak(lab, 2)
    assert took([late.reached(1), first.reached(2)], first, late) < 2.5


def test_link_local_ipv6_alone_is_enough(make_lab, speak):
    lab = make_lab(2, addressed=())
    one, two = speak(lab, 1), speak(lab, 2)
    assert one.reached(2, host="fe80::")["host"].endswith("%eth0")
    assert two.reached(1, host="fe80::")["host"].endswith("%eth0")


def test_an_address_that_comes_later(make_lab, speak):
    lab = make_lab(2, addressed=(1,))
    for node in lab.nodes():  # no IPv6 that could do instead
        lab.run(node, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
    one, two = speak(lab, 1), speak(lab, 2)
    two.state(lambda state: "No network interface is up" in str(state["warnings"]))
    lab.give_address(2)
    one.reached(2, host=lab.ip(2))
    two.reached(1, host=lab.ip(1))
    two.state(lambda state: state["warnings"] == [])


def test_an_address_that_changes(make_lab, speak):
    lab = make_lab(2)
    one, two = speak(lab, 1), speak(lab, 2)
    one.reached(2, host=lab.ip(2))
    lab.run(2, "ip", "addr", "del", f"{lab.ip(2)}/24", "dev", "eth0")
    lab.run(2, "ip", "addr", "add", "10.77.0.99/24", "dev", "eth0")
    one.reached(2, host="10.77.0.99")
    two.forget()
    lab.unplug(2)
    two.state(lambda state: state["warnings"] != [])
    lab.plug(2)
    two.state(lambda state: state["warnings"] == [])


def test_another_cluster_is_shown_and_never_dialled(make_lab, speak):
    lab = make_lab(2)
    ours, theirs = speak(lab, 1), speak(lab, 2, tag="theirs")
    shown = ours.state(lambda state: state["foreign"] != [])["foreign"]
    assert shown[0][0] == "theirs"
    assert shown[0][1].startswith(lab.ip(2))
    assert "p2premap join TOKEN" in shown[0][2]
    theirs.state(lambda state: state["foreign"] != [])
    assert not [line for line in ours.seen + theirs.seen if line["event"] == "hint"]


def test_a_firewall_that_blocks_multicast_is_named_by_the_doctor(make_lab, home):
    lab = make_lab(1)

    def of_eth0():
        return [finding for finding in findings(lab, 1, home) if finding["about"] == "eth0"]

    eventually(lambda: all(finding["ok"] for finding in of_eth0()))
    lab.nft(
        "add table inet guard; add chain inet guard door { type filter hook input priority 0; };"
        "add rule inet guard door udp dport 5353 drop",
        node=1,
    )
    (blocked, *_) = [finding for finding in of_eth0() if not finding["ok"]]
    assert "Multicast is blocked" in blocked["text"]
    line = blocked["remedy"].splitlines()[0]
    assert line.startswith("sudo nft 'insert rule inet guard door")
    lab.run(1, "sh", "-c", line.removeprefix("sudo "))
    eventually(lambda: all(finding["ok"] for finding in of_eth0()))


def test_no_address_is_named_by_the_doctor(make_lab, home):
    lab = make_lab(1, addressed=())
    lab.run(1, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
    (bare,) = [f for f in findings(lab, 1, home) if f["about"] == "eth0"]
    assert bare["text"] == "It is up but has no address."


def test_a_held_mdns_port_is_a_warning_and_mended_when_it_is_free(make_lab, speak):
    lab = make_lab(2)
    holder = lab.popen(2, [sys.executable, "-c", HOLD_MDNS_PORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline()
    one, two = speak(lab, 1), speak(lab, 2)
    two.state(lambda state: "UDP port 5353" in str(state["warnings"]))
    holder.stdin.close()
    two.state(lambda state: state["warnings"] == [])
    one.reached(2)
    two.reached(1)


def test_a_plain_mdns_query_is_answered(make_lab, speak):
    lab = make_lab(2)
    speak(lab, 1)
    answer = lab.run(2, sys.executable, "-W", "error", "-c", RAW_QUERY).stdout
    assert answer.strip() == f"n1-{'01' * 16}._p2premap._tcp.local."


def test_hosts_without_ipv6_find_each_other(make_lab, speak):
    lab = make_lab(2)
    for node in lab.nodes():
        lab.run(node, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    one, two = speak(lab, 1), speak(lab, 2)
    one.reached(2, host=lab.ip(2))
    two.reached(1, host=lab.ip(1))


def test_this_machine_itself_was_left_alone():
    assert not [name for _, name in socket.if_nameindex() if name in ("br0", "p1")]
