"""Looking at this machine: ports, directories, the secret, and the daemon's doctor with members that answer."""

import os
import socket
from pathlib import Path

import pytest
import trio

from p2premap import __version__
from p2premap.config import DiscoveryConfig
from p2premap.control.answers import Welcome
from p2premap.control.nodes import NodeView, Tried, TryAddresses
from p2premap.errors import PeerUnreachable
from p2premap.ids import Address, NodeId
from p2premap.node import examiner, probes
from p2premap.node.examiner import Examiner, examine_alone
from p2premap.node.interfaces import Interface, Kind, read_interfaces
from p2premap.node.paths import Paths
from p2premap.node.probes import Multicast, probe_directory, probe_multicast, probe_port, probe_secret, query
from p2premap.node.reach import ADDRESSES_MAX, try_addresses
from p2premap.node.secret import load_or_make
from p2premap.wire import Frame


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path / "config", tmp_path / "state", tmp_path / "run")


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address("127.0.0.1", server.getsockname()[1])


@pytest.fixture
def refusing():
    """A port that is ours and does not listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", held.getsockname()[1])


def test_a_port_that_is_held_names_its_holder(listening):
    found = probe_port(listening.port)
    assert not found.free
    assert f"(pid {os.getpid()})" in found.taken_by


def test_a_port_held_for_udp_only_is_not_free():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("", 0))
        assert not probe_port(held.getsockname()[1]).free


def test_a_free_port(refusing):
    assert probe_port(0).free


def test_a_directory_that_can_be_written_is_left_as_it_was(tmp_path):
    found = probe_directory(tmp_path / "not" / "yet")
    assert found.error == ""
    assert found.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system here that refuses even root")
def test_a_directory_that_cannot_be_written_says_why():
    assert probe_directory(Path("/proc/self")).error


def test_the_secret(paths):
    assert probe_secret(paths) is None
    load_or_make(paths.config)
    assert probe_secret(paths) == ""
    (paths.config / "secret").chmod(0o644)
    assert "chmod 600" in (probe_secret(paths) or "")


def test_the_question_is_well_formed_mdns():
    from zeroconf import DNSIncoming

    parsed = DNSIncoming(query("probe-1"))
    assert parsed.valid
    assert parsed.is_query()
    assert [q.name for q in parsed.questions] == ["probe-1._p2premap._tcp.local."]


def test_an_interface_that_went_away_is_no_crash():
    gone = Interface("gone0", 99_999, True, True, Kind.LAN, ("192.0.2.1/24", "fe80::77/64"))
    outcomes = {probe.outcome for probe in probe_multicast([gone], 0.1)}
    assert outcomes <= {Multicast.UNROUTABLE, Multicast.REFUSED}
    assert outcomes


def test_real_interfaces_can_be_probed():
    probed = probe_multicast([i for i in read_interfaces() if i.up and i.multicast], 0.2)
    assert all(isinstance(probe.outcome, Multicast) for probe in probed)


def test_alone_it_says_that_no_node_runs(paths, monkeypatch):
    monkeypatch.setattr(probes, "port_owner", lambda _: "somebody")
    found = examine_alone(paths)
    assert "No node runs on this machine." in [finding.text for finding in found]
    assert all(finding.ok or finding.remedy for finding in found)


@pytest.mark.trio
async def test_what_becomes_of_addresses(listening, refusing):
    nowhere = Address("fe80::1%no-such-link", 7)
    assert await try_addresses([listening, refusing, nowhere], 60.0) == ("open", "refused", "unroutable")
    assert len(await try_addresses([refusing] * 99, 2.0)) == ADDRESSES_MAX


class Peer:
    """A member's control stream that answers as told."""

    def __init__(self, outcomes, clock):
        self.outcomes, self.clock = outcomes, clock
        self.asked = []
        self.closed = False
        welcome = Welcome(node=NodeId(b"\x02" * 16), name="b", pid=1, version="0", cluster="c")
        self.frames = [Frame(welcome, b"")]

    async def send(self, message, payload=b""):
        await trio.lowlevel.checkpoint()
        assert isinstance(message, TryAddresses)
        self.asked.append(message.addresses)
        answer = Tried(request=message.request, outcomes=self.outcomes, clock_unix_s=self.clock)
        self.frames.append(Frame(answer, b""))

    async def receive(self):
        await trio.lowlevel.checkpoint()
        return self.frames.pop(0) if self.frames else None

    async def aclose(self):
        self.closed = True
        await trio.lowlevel.checkpoint()


class FakeTransport:
    """Members' streams by id; others are unreachable."""

    def __init__(self, addresses, peers):
        self.addresses, self.peers = addresses, peers

    async def open_control(self, peer):
        await trio.lowlevel.checkpoint()
        if (stream := self.peers.get(peer)) is None:
            raise PeerUnreachable("gone")
        return stream


def view(number, state="alive", addresses=(), **changes):
    facts = {"name": f"n{number}", "pid": 1, "boot": 1, "version": __version__} | changes
    return NodeView(node=NodeId(bytes([number]) * 16), state=state, addresses=addresses, **facts)


async def examined(paths, monkeypatch, views, peers, addresses):
    monkeypatch.setattr(examiner, "read_interfaces", lambda: ())
    doctor = Examiner(
        paths=paths,
        config=DiscoveryConfig(doctor_probe_s=60.0, doctor_peer_s=60.0),
        port_first=addresses[0].port,
        transport=FakeTransport(addresses, peers),
        nodes=lambda: views,
        scope=lambda: "network",
        discovery=None,
        heard=lambda _: False,
        troubles=lambda: ("Beware; do so.",),
    )
    return {finding.about: finding for finding in await doctor.examine()}


@pytest.mark.trio
async def test_the_daemons_doctor_asks_members(paths, monkeypatch, listening, refusing):
    mine = (Address("192.0.2.5", listening.port), Address("127.0.0.1", listening.port))
    far = Peer(("refused",), 0.0)  # a clock at 1970: a machine without one
    views = [
        view(1, addresses=()),
        view(2, addresses=("[fe80::9%no-such-link]:7321",), since_s=60.0),
        view(3, addresses=(str(listening),)),
        view(4, "dead", ("192.0.2.10:7321",)),
        view(5, addresses=("garbage",)),
    ]
    found = await examined(paths, monkeypatch, views, {views[1].node: far}, mine)
    assert far.asked == [(Address("192.0.2.5", listening.port),)], "a far member is not asked about our loopback"
    assert far.closed
    assert not found[f"port {listening.port}"].ok
    assert "n2 was refused" in found[f"port {listening.port}"].text
    assert "behind this machine's" in found["member n2"].text
    assert found["member n3"].text == "It answers."
    assert not found["member n4"].ok
    assert found["node"].text == "Beware; do so."
    assert "No datagram of n2 arrives" in found[f"port {listening.port}/udp"].text
