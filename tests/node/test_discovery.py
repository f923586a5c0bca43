"""What a stranger's announcement may do, and what becomes of it. The real network is in tests/netns."""

import threading

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from p2premap.config import DiscoveryConfig
from p2premap.gossip.events import Hinted
from p2premap.ids import Address, NodeId
from p2premap.node.discovery import (
    Announcement,
    Discovery,
    announced_versions,
    foreign_hint,
    read_sighting,
    service_of,
)
from p2premap.node.interfaces import Interface, Kind
from p2premap.node.loopthread import LoopThread
from p2premap.node.mdns import Sighting, usable
from p2premap.wire import WIRE_VERSION

ME, OTHER = NodeId(b"\x01" * 16), NodeId(b"\x02" * 16)
LAN = Interface("eth0", 2, True, True, Kind.LAN, ("10.0.0.5/24", "fe80::5/64"))


def properties(**changes):
    texts = {"v": str(WIRE_VERSION), "id": OTHER.hex(), "tag": "ours", "name": "pi2"} | changes
    return {key.encode(): value.encode() for key, value in texts.items()}


def sighting(instance="pi2-02", port=7321, hosts=("10.0.0.9",), **changes):
    return Sighting(instance, port, hosts, properties(**changes))


class Seen:
    """A discovery without a network, and what it hinted."""

    def __init__(self, **limits):
        self.hints, self.members = [], set()
        self.discovery = Discovery(
            me=ME,
            tag="ours",
            config=DiscoveryConfig(**limits),
            hint=self.hints.append,
            known=self.members.__contains__,
        )
        self.discovery._take_interfaces((LAN,))

    def see(self, *sightings):
        for one in sightings:
            self.discovery._on_sighting(one)


def test_our_own_cluster_is_hinted_nearest_first():
    seen = Seen()
    seen.see(sighting(hosts=("8.8.8.8", "10.0.0.9")))
    assert seen.hints == [
        Hinted(address=Address("10.0.0.9", 7321), node=OTHER),
        Hinted(address=Address("8.8.8.8", 7321), node=OTHER),
    ]
    assert seen.discovery.foreign == ()


def test_another_cluster_is_shown_and_never_hinted():
    seen = Seen()
    seen.see(sighting(tag="theirs"), sighting("b", tag="theirs", name="pi3", id="03" * 16), sighting("c", tag="more"))
    assert seen.hints == []
    assert [f.cluster for f in seen.discovery.foreign] == ["more", "theirs"]
    (theirs,) = [f for f in seen.discovery.foreign if f.cluster == "theirs"]
    assert theirs.address == "10.0.0.9:7321"
    assert "p2premap join TOKEN" in theirs.hint
    seen.see(Sighting("c", 0, (), None))
    assert [f.cluster for f in seen.discovery.foreign] == ["theirs"]


def test_an_open_cluster_is_joined_by_its_name():
    found = read_sighting(sighting(tag="theirs", open="lab"), (LAN,), 16)
    assert found is not None
    assert "p2premap node --open lab" in foreign_hint(found)


def test_a_member_is_not_hinted_again_but_a_new_address_is():
    seen = Seen()
    seen.see(sighting())
    seen.members.add(OTHER)
    seen.see(sighting())
    assert len(seen.hints) == 1
    seen.see(sighting(hosts=("10.0.0.10",)))
    assert seen.hints[1:] == [Hinted(address=Address("10.0.0.10", 7321), node=OTHER)]


def test_a_link_that_comes_later_makes_its_addresses_known():
    seen = Seen()
    seen.discovery._take_interfaces(())
    seen.see(sighting(hosts=("fe80::9",)))
    assert seen.hints == []
    seen.discovery._take_interfaces((LAN,))
    assert seen.hints == [Hinted(address=Address("fe80::9%eth0", 7321), node=OTHER)]


def test_our_own_announcement_is_no_hint_but_a_copy_of_us_is():
    seen = Seen()
    seen.see(sighting("me", id=ME.hex(), hosts=("10.0.0.5",)))
    assert seen.hints == []
    seen.see(sighting("me", id=ME.hex(), hosts=("10.0.0.5", "10.0.0.77")))
    assert seen.hints == [Hinted(address=Address("10.0.0.77", 7321), node=None)]


@pytest.mark.parametrize(
    "changes",
    [{"v": "x"}, {"v": ""}, {"id": "zz"}, {"id": "00"}, {"id": ""}, {"tag": ""}, {"port": 0}, {"port": 70_000}],
)
def test_announcements_that_are_not_ours_are_counted_and_forgotten(changes):
    seen = Seen()
    seen.see(sighting(**changes))
    assert seen.hints == []
    assert seen.discovery.found == ()
    assert seen.discovery.statistics().refused == 1


@given(st.dictionaries(st.binary(max_size=9), st.none() | st.binary(max_size=300)), st.integers(), st.lists(st.text()))
def test_whatever_a_stranger_says_nothing_breaks(texts, port, hosts):
    found = read_sighting(Sighting("x", port, tuple(hosts), properties() | texts), (LAN,), 16)
    if found is not None:
        assert all(len(text) <= 64 and text.isprintable() for text in (found.name, found.tag, found.open_name))
        assert len(found.addresses) <= 16


def test_terminal_escapes_do_not_reach_a_terminal():
    found = read_sighting(sighting(name="\x1b[2Jpi\n2"), (LAN,), 16)
    assert found is not None
    assert found.name == "[2Jpi2"


def test_tables_are_bounded():
    seen = Seen(found_max=3, foreign_max=2)
    for number in range(1, 10):
        seen.see(sighting(f"i{number}", tag=f"t{number}", id=f"{number + 5:02x}" * 16))
    assert len(seen.discovery.found) == 3
    assert len(seen.discovery.foreign) == 2
    seen.see(Sighting("i1", 0, (), None))
    seen.see(sighting("i9", tag="t9"))
    assert len(seen.discovery.found) == 3


@pytest.mark.trio
async def test_who_is_announced_and_no_member_is_hinted_again(autojump_clock):
    seen = Seen(hint_again_s=10)
    seen.see(sighting(), sighting("t", tag="theirs", id="03" * 16))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seen.discovery._hint_again)
        await trio.sleep(25)
        assert len(seen.hints) == 3
        seen.members.add(OTHER)
        await trio.sleep(25)
        assert len(seen.hints) == 3
        nursery.cancel_scope.cancel()


def test_other_protocol_versions_are_told():
    found = [read_sighting(sighting(v=str(v), name=f"pi{v}"), (LAN,), 16) for v in (WIRE_VERSION, WIRE_VERSION + 1)]
    assert announced_versions([f for f in found if f], "ours") == {f"pi{WIRE_VERSION + 1}": WIRE_VERSION + 1}


def test_what_is_announced():
    service = service_of(
        Announcement(
            node=ME,
            tag="ours",
            name="pi 1.local " + "x" * 80,
            addresses=(Address("127.0.0.1", 9), Address("10.0.0.5", 7), Address("fe80::5%eth0", 7)),
            open_name="lab",
        )
    )
    assert service is not None
    assert service.port == 7
    assert service.hosts == ("10.0.0.5", "fe80::5")
    assert len(service.instance.encode()) <= 63
    assert "." not in service.instance
    assert service.instance.endswith(ME.hex())
    texts = dict(service.properties)
    assert (texts["id"], texts["tag"], texts["open"]) == (ME.hex(), "ours", "lab")
    assert len(texts["name"]) <= 64


def test_a_node_on_loopback_only_is_not_announced():
    assert service_of(Announcement(node=ME, tag="t", name="n", addresses=(Address("::1", 7),))) is None


def test_zeroconf_gets_one_socket_an_ipv4_address_and_one_an_ipv6_link():
    twin = Interface("eth1", 3, True, True, Kind.LAN, ("10.1.0.5/24", "10.2.0.5/24", "fe80::5/64"))
    six = Interface("eth2", 4, True, True, Kind.LAN, ("2001:db8::1/64",))
    mute = Interface("tun0", 5, True, False, Kind.TUNNEL, ("10.3.0.5/24",))
    down = Interface("eth3", 6, False, True, Kind.LAN, ("10.4.0.5/24",))
    assert usable([LAN, twin, six, mute, down]) == {
        "10.0.0.5": "eth0",
        "fe80::5": "eth0",
        "10.1.0.5": "eth1",
        "10.2.0.5": "eth1",
        3: "eth1",
        "2001:db8::1": "eth2",
    }


# --- the thread -----------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_coroutines_run_in_the_thread_and_their_ends_come_back():
    thread = LoopThread()
    await thread.start()
    try:

        async def name() -> str:
            return threading.current_thread().name

        async def fail() -> None:
            raise KeyError("x")

        assert await thread.call(name) == "p2premap loop"
        with pytest.raises(KeyError):
            await thread.call(fail)
    finally:
        await thread.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await thread.call(name)


@pytest.mark.trio
async def test_cancelling_a_call_cancels_the_coroutine():
    import asyncio

    thread = LoopThread()
    await thread.start()
    begun, cancelled = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await given_up(thread, forever, begun)
    await trio.to_thread.run_sync(cancelled.wait, 60)
    assert cancelled.is_set()
    await thread.aclose()


@pytest.mark.trio
async def test_a_thread_that_hangs_is_left_behind_in_time():
    thread = LoopThread(stop_s=0.1)
    await thread.start()
    begun, free, over = threading.Event(), threading.Event(), threading.Event()

    async def hang() -> None:
        begun.set()
        free.wait(100)
        over.set()

    await given_up(thread, hang, begun)
    with trio.fail_after(60):
        await thread.aclose()
    assert not over.is_set()
    free.set()


async def given_up(thread: LoopThread, function, begun: threading.Event) -> None:
    """Call it, and wait no longer once it has begun."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.call, function)
        await trio.to_thread.run_sync(begun.wait, 60)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_closing_before_starting_and_twice():
    await LoopThread().aclose()
    thread = LoopThread()
    await thread.start()
    await thread.aclose()
    await thread.aclose()
