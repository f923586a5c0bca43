"""Links, probes and datagrams between real transports on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from p2premap.config import TransportConfig
from p2premap.errors import ConfigError
from p2premap.gossip.events import DialEnded, DialOutcome, LinkDown, LinkUp, Received
from p2premap.gossip.messages import Ping, Rumours
from p2premap.ids import Address, Ballot, JobId, NodeId, starts_of
from p2premap.node import greeting
from p2premap.node.datagrams import Datagrams
from p2premap.node.interfaces import Interface, Kind
from p2premap.node.seal import Sealer
from p2premap.node.secret import new_secret
from p2premap.ports import FrameReceived
from p2premap.protocol import GOSSIP
from p2premap.tasks.messages import ForgetJob
from tests.node.nodes import Node, cloned, node

SECRET = new_secret(lambda size: b"s" * size)
OTHER = new_secret(lambda size: b"o" * size)


def link_events(one: Node) -> list[str]:
    return [type(e).__name__ for e in one.events if isinstance(e, (LinkUp, LinkDown))]


@pytest.mark.trio
async def test_a_kept_dial_is_a_link_for_both_sides(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        ended = await a.dial(b.address)
        assert ended == DialEnded(
            dial=1, address=b.address, outcome=DialOutcome.CONNECTED, peer=b.id, boot=b.identity.boot
        )
        assert a.events == [LinkUp(peer=b.id, boot=b.identity.boot, address=b.address), ended]  # in this order
        await b.until(lambda: b.all(LinkUp))
        assert b.all(LinkUp) == [LinkUp(peer=a.id, boot=a.identity.boot, address=None)]
        a.transport.hangup(b.id)
        await b.until(lambda: b.all(LinkDown))
        assert link_events(a) == link_events(b) == ["LinkUp", "LinkDown"]


@pytest.mark.trio
async def test_frames_arrive_in_order_with_their_payload_and_gossip_apart(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        await a.dial(b.address)
        order = ForgetJob(job=JobId(bytes(16)), ballot=Ballot(1, 2, a.id))
        payloads = [os.urandom(size) for size in (0, 1, 1_000, 300_000, 5, 2_000_000, 7)]
        assert all(a.transport.send_link(b.id, order, payload) for payload in payloads)
        assert a.transport.send_link(b.id, Rumours())
        await b.until(lambda: b.all(Received))
        assert [e.frame.payload for e in b.all(FrameReceived)] == payloads
        assert {(e.peer, e.frame.message) for e in b.all(FrameReceived)} == {(a.id, order)}
        assert b.all(Received) == [Received(sender=a.id, address=None, message=Rumours())]
        # and the other way, over the link that the other side dialled
        assert b.transport.send_link(a.id, Rumours())
        await a.until(lambda: a.all(Received))


@pytest.mark.trio
async def test_a_probe_says_who_is_there_and_leaves_no_link(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        ended = await a.dial(b.address, keep=False)
        assert not a.transport.heard(b.id), "TCP is no datagram"
        assert (ended.outcome, ended.peer, ended.boot) == (DialOutcome.CONNECTED, b.id, b.identity.boot)
        assert link_events(a) == link_events(b) == []
        assert not a.transport.send_link(b.id, Rumours())


@pytest.mark.trio
async def test_dialling_ourselves_connects_and_makes_no_link(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a:
        ended = await a.dial(a.address)
        assert (ended.outcome, ended.peer) == (DialOutcome.CONNECTED, a.id)
        assert link_events(a) == []
        assert a.clashes == []


@pytest.mark.trio
@pytest.mark.parametrize("attempt", range(5))
async def test_two_simultaneous_dials_end_with_one_link_each_and_no_gap(tmp_path: Path, attempt: int) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        for _ in range(6):
            a.events.clear()
            b.events.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.dial, b.address)
                nursery.start_soon(b.dial, a.address)
            assert {e.outcome for e in (*a.all(DialEnded), *b.all(DialEnded))} == {DialOutcome.CONNECTED}
            assert link_events(a) == link_events(b) == ["LinkUp"]
            for sender, receiver in ((a, b), (b, a)):
                assert sender.transport.send_link(receiver.id, Rumours())
                await receiver.until(lambda receiver=receiver: receiver.all(Received))
            assert link_events(a) == link_events(b) == ["LinkUp"]
            assert a.transport.statistics().links.up == b.transport.statistics().links.up == 1
            a.transport.hangup(b.id)
            await b.until(lambda: b.all(LinkDown))
        # the case that this test is about has really happened
        assert a.transport.statistics().links.contested + b.transport.statistics().links.contested > 0


@pytest.mark.trio
async def test_a_second_dial_to_a_linked_peer_changes_nothing(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        await a.dial(b.address)
        assert (await a.dial(b.address)).outcome is DialOutcome.CONNECTED
        assert (await b.dial(a.address)).outcome is DialOutcome.CONNECTED
        assert link_events(a) == link_events(b) == ["LinkUp"]


@pytest.mark.trio
async def test_the_end_of_a_process_ends_its_links_at_once(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a:
        async with node(tmp_path / "b", SECRET) as b:
            await a.dial(b.address)
            where = b.address
        with held(where):
            await a.until(lambda: a.all(LinkDown))
            assert (await a.dial(where)).outcome is DialOutcome.REFUSED


@contextmanager
def held(where: Address) -> Iterator[None]:
    """Nobody else gets this port meanwhile, and nobody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before linger
        one.bind(where)
        yield


@pytest.mark.trio
async def test_a_restarted_peer_replaces_its_old_link(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a:
        async with node(tmp_path / "b", SECRET) as b:
            await b.dial(a.address)
            await a.until(lambda: a.all(LinkUp))
        async with node(tmp_path / "b", SECRET) as b:
            await b.dial(a.address)
            await a.until(lambda: len(a.all(LinkUp)) == 2)
            ups = a.all(LinkUp)
            assert ups[1].peer == ups[0].peer
            assert starts_of(ups[1].boot) == starts_of(ups[0].boot) + 1
            assert link_events(a) == ["LinkUp", "LinkDown", "LinkUp"]


@pytest.mark.trio
async def test_a_peer_that_has_lost_its_link_and_dials_again_replaces_it(tmp_path: Path) -> None:
    """The old one is half open: only one side knows that it is gone."""
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        for dialler, other in ((a, b), (b, a)):
            for one in (a, b):
                one.events.clear()
            await dialler.dial(other.address)
            await other.until(lambda other=other: other.all(LinkUp))
            dialler.transport._links._up.clear()
            await dialler.dial(other.address)
            await other.until(lambda other=other: len(other.all(LinkUp)) == 2)
            assert link_events(other) == ["LinkUp", "LinkDown", "LinkUp"]
            assert dialler.transport.send_link(other.id, Rumours())
            await other.until(lambda other=other: other.all(Received))
            other.transport.hangup(dialler.id)
            await dialler.until(lambda dialler=dialler: dialler.all(LinkDown))


@pytest.mark.trio
async def test_a_full_outbox_refuses_and_says_so(tmp_path: Path) -> None:
    small = TransportConfig(port_first=0, outbox_frames_max=10)
    async with node(tmp_path / "a", SECRET, config=small) as a, node(tmp_path / "b", SECRET) as b:
        await a.dial(b.address)
        taken = [a.transport.send_link(b.id, Rumours()) for _ in range(20)]  # no await: nothing can leave meanwhile
        assert taken == [True] * 10 + [False] * 10
        await b.until(lambda: len(b.all(Received)) == 10)
        assert a.transport.statistics().links.refused_frames == 10
    heavy = TransportConfig(port_first=0, outbox_bytes_max=4 << 20)
    async with node(tmp_path / "a", SECRET, config=heavy) as a, node(tmp_path / "b", SECRET) as b:
        await a.dial(b.address)
        order = ForgetJob(job=JobId(bytes(16)), ballot=Ballot(1, 2, a.id))
        taken = [a.transport.send_link(b.id, order, bytes(1 << 20)) for _ in range(6)]
        assert taken == [True] * 4 + [False] * 2
        assert 4 << 20 <= a.transport.statistics().links.waiting_bytes <= 5 << 20


@pytest.mark.trio
async def test_datagrams_between_strangers_arrive_after_the_proof(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        ping = Ping(nonce=1, root=2)
        a.transport.send_datagram(b.id, b.address, ping)
        await b.until(lambda: b.all(Received))
        assert b.all(Received) == [Received(sender=a.id, address=a.address, message=ping)]
        assert b.transport.heard(a.id)
        assert not b.transport.heard(NodeId(bytes(16)))
        for index, where in enumerate(b.transport.local_addresses):  # IPv4 and IPv6
            a.transport.send_datagram(b.id, where, Ping(nonce=index, root=0))
        await b.until(lambda: len(b.all(Received)) == 1 + len(b.transport.local_addresses))
        a.transport.send_datagram(b.id, Address("203.0.113.7", 9), ping)  # no way there: counted, not raised
        a.transport.send_datagram(b.id, Address("fe80::1%nowhere0", 9), ping)
        assert a.transport.statistics().counts["unsent"] >= 1


@pytest.mark.trio
async def test_an_identity_alive_twice_is_told_to_the_younger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "CLONE_DOUBT_S", 600.0)
    async with node(tmp_path / "a", SECRET) as old:
        twin = cloned(old.identity)
        async with node(tmp_path / "x", SECRET, identity=twin) as young:
            ended = await young.dial(old.address)
            assert (ended.outcome, ended.peer) == (DialOutcome.CONNECTED, old.id)
            await old.until(lambda: old.clashes or young.clashes)
            assert bool(old.clashes) != bool(young.clashes)  # of two as young as these the salts decide
            assert link_events(old) == link_events(young) == []
        old.clashes.clear()
        old.transport._acceptor._greeter._born -= 3_600.0
        async with node(tmp_path / "x", SECRET, identity=cloned(old.identity)) as young:
            await young.dial(old.address)
            await old.dial(young.address)
            assert young.clashes
            assert old.clashes == []


@pytest.mark.trio
async def test_listening_opens_and_closes_at_run_time_and_links_stay(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        await a.dial(b.address)
        port = b.transport.port
        assert all(address.host in ("127.0.0.1", "::1") for address in b.transport.addresses)
        b.transport.open_to_network()
        assert b.transport.network
        assert b.transport.port == port
        bound = {one.getsockname()[0] for one in (*b.transport._bound.tcp, *b.transport._bound.udp)}
        assert bound <= {"0.0.0.0", "::"}
        assert (await a.dial(b.address, keep=False)).outcome is DialOutcome.CONNECTED
        b.transport.send_datagram(a.id, a.address, Rumours())
        await a.until(lambda: a.all(Received))
        b.transport.close_to_loopback()
        assert (await a.dial(b.address, keep=False)).outcome is DialOutcome.CONNECTED
        assert link_events(a) == ["LinkUp"]


@pytest.mark.trio
async def test_nodes_take_the_next_free_port_and_a_typed_one_must_be_free(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a:
        first = a.transport.port
        near = TransportConfig(port_first=first, ports_tried=32)
        if first < 65_000:
            async with node(tmp_path / "b", SECRET, config=near) as b:
                assert first < b.transport.port < first + 32
        typed = TransportConfig(port_first=first, ports_tried=1)
        with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match=f"Port {first} is in use")):
            async with node(tmp_path / "c", SECRET, config=typed):
                pass


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
@pytest.mark.trio
async def test_no_socket_is_inherited_by_a_child(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        await a.dial(b.address)
        mine = [int(fd) for fd in os.listdir("/proc/self/fd")]
        sockets = []
        for fd in mine:
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                    sockets.append(fd)
            except OSError:
                continue
        assert len(sockets) >= 8
        assert not any(os.get_inheritable(fd) for fd in sockets if fd > 2)


@pytest.mark.trio
async def test_after_a_silence_that_may_have_been_a_suspension_a_new_salt_is_drawn() -> None:
    """The wall clock tells: it goes on while a machine sleeps, and jumps where an image is restored."""
    now = [1_000.0]
    sealer = Sealer(me=NodeId(b"a" * 16), gossip_key=b"k" * 32, randomness=os.urandom, senders_max=8)
    datagrams = Datagrams(sealer=sealer, registry=GOSSIP, deliver=lambda _: None, salt_idle_s=5.0, clock=lambda: now[0])
    salts = []
    for step_s in (0.0, 1.0, 5.0, 5.1, 0.0, -3_600.0, 1.0):
        now[0] += step_s
        datagrams.send(NodeId(b"b" * 16), Address("127.0.0.1", 9), Rumours())
        salts.append(sealer.salt)
    assert [salts[i] != salts[i - 1] for i in range(1, 7)] == [False, False, True, False, True, False]


def interface(name: str, kind: Kind, *networks: str) -> Interface:
    return Interface(name=name, index=2, up=True, multicast=True, kind=kind, networks=networks)


@pytest.mark.trio
async def test_what_is_told_to_peers_are_addresses_that_mean_something_to_them(tmp_path: Path) -> None:
    lan = interface("eth0", Kind.LAN, "192.0.2.5/24", "2001:db8::5/64", "fe80::1/64")
    bridge = interface("docker0", Kind.VIRTUAL, "172.17.0.1/16")
    local_only = interface("eth1", Kind.LAN, "fe80::2/64")
    async with node(tmp_path, SECRET) as a:
        a.transport.set_interfaces((lan, bridge))
        assert a.transport.addresses == a.transport.local_addresses
        a.transport.open_to_network()

        def told(*interfaces: Interface) -> list[str]:
            a.transport.set_interfaces(interfaces)
            assert all(address.port == a.transport.port for address in a.transport.addresses)
            return [address.host for address in a.transport.addresses]

        assert told(lan, bridge) == ["192.0.2.5", "2001:db8::5"]
        assert told(bridge) == ["172.17.0.1"]
        assert told(local_only) == ["fe80::2%eth1"]
        assert told() == [address.host for address in a.transport.local_addresses]
