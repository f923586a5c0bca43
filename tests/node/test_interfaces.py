"""Interfaces: their order, their addresses, and the watcher."""

import socket

import pytest
import trio
import trio.testing

from p2premap.ids import Address
from p2premap.node.interfaces import (
    Interface,
    InterfaceWatcher,
    Kind,
    NetlinkChanges,
    PolledChanges,
    addresses,
    by_closeness,
    in_order,
    is_loopback,
    kind_of,
    open_changes,
    read_interfaces,
)

LAN = Interface("eth0", 2, True, True, Kind.LAN, ("10.0.0.5/24", "2001:db8::5/64", "fe80::5/64"))
DOCKER = Interface("docker0", 3, True, True, Kind.VIRTUAL, ("172.17.0.1/16",))
WIFI = Interface("wlan0", 4, True, True, Kind.LAN, ("192.168.1.5/24", "fe80::6/64"))
TUNNEL = Interface("wg0", 5, True, False, Kind.TUNNEL, ("10.9.0.1/24",))
DOWN = Interface("eth1", 6, False, True, Kind.LAN, ("10.1.0.1/24",))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("eth0", Kind.LAN), ("enp3s0", Kind.LAN), ("wlan0", Kind.LAN), ("wlp2s0", Kind.LAN), ("en0", Kind.LAN),
        ("docker0", Kind.VIRTUAL), ("br-1a2b", Kind.VIRTUAL), ("veth12", Kind.VIRTUAL), ("virbr0", Kind.VIRTUAL),
        ("tun0", Kind.TUNNEL), ("wg0", Kind.TUNNEL), ("utun4", Kind.TUNNEL), ("tailscale0", Kind.TUNNEL),
        ("br0", Kind.OTHER), ("weird", Kind.OTHER),
    ],
)  # fmt: skip
def test_kinds_by_name(name, kind):
    assert kind_of(name, point_to_point=False) is kind
    assert kind_of(name, point_to_point=True) is Kind.TUNNEL


def test_the_lan_comes_first_and_nothing_is_excluded():
    order = [i.name for i in in_order([TUNNEL, DOWN, DOCKER, WIFI, LAN])]
    assert order == ["eth0", "wlan0", "docker0", "wg0", "eth1"]


def test_addresses_carry_scopes_and_are_bounded():
    assert addresses([LAN, DOWN, DOCKER], 7, 16) == (
        Address("10.0.0.5", 7),
        Address("2001:db8::5", 7),
        Address("fe80::5%eth0", 7),
        Address("172.17.0.1", 7),
    )
    assert len(addresses([LAN, DOCKER], 7, 2)) == 2


def test_what_is_read_here_is_real():
    before, read, after = (look() for look in (socket.if_nameindex, read_interfaces, socket.if_nameindex))
    for interface in read:
        assert interface.name not in ("lo", "lo0")
        known = {index for index, name in {*before, *after} if name == interface.name}
        assert interface.index in known or not known, "it may come and go meanwhile"
        assert not any(is_loopback(host) for host in interface.hosts)


def test_the_nearest_address_is_tried_first():
    given = [
        Address("8.8.8.8", 1), Address("172.17.0.9", 1), Address("fe80::9%eth0", 1), Address("192.168.1.9", 1),
        Address("2001:db8::9", 1),
    ]  # fmt: skip
    assert [a.host for a in by_closeness(given, [LAN, DOCKER, WIFI])] == [
        "192.168.1.9", "2001:db8::9", "172.17.0.9", "fe80::9%eth0", "8.8.8.8",
    ]  # fmt: skip


def test_a_link_local_address_without_scope_may_be_on_any_link():
    found = by_closeness([Address("fe80::9", 1)], [LAN, DOCKER, WIFI])
    assert [a.host for a in found] == ["fe80::9%eth0", "fe80::9%wlan0"]
    assert by_closeness([Address("fe80::9%wlan0", 1)], [LAN, WIFI]) == (Address("fe80::9%wlan0", 1),)
    assert by_closeness([Address("fe80::9", 1)], [DOCKER]) == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.251", "ff02::fb", "no number"])
def test_addresses_that_are_nobodys_are_dropped(host):
    assert by_closeness([Address(host, 1)], [LAN]) == ()


class Knocks:
    """Changes when told to."""

    def __init__(self):
        self.send, self.receive = trio.open_memory_channel(10)
        self.closed = False

    async def wait(self):
        await self.receive.receive()

    def close(self):
        self.closed = True


@pytest.mark.trio
async def test_the_watcher_tells_the_start_and_real_changes_only(autojump_clock):
    knocks, told, now = Knocks(), [], [(LAN,)]
    watcher = InterfaceWatcher(told.append, changes=lambda: knocks, settle_s=0.2, read=lambda: now[0])
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        assert told == [(LAN,)]
        await knocks.send.send(None)
        await trio.sleep(1)
        assert told == [(LAN,)]
        await knocks.send.send(None)
        await trio.sleep(0.1)
        now[0] = (LAN, DOCKER)  # the second half of the same change
        await trio.sleep(1)
        assert told == [(LAN,), (LAN, DOCKER)]
        nursery.cancel_scope.cancel()
    assert knocks.closed


@pytest.mark.trio
async def test_where_the_kernel_does_not_tell_it_is_asked(autojump_clock):
    told, now = [], [(LAN,)]
    watcher = InterfaceWatcher(told.append, changes=lambda: PolledChanges(5.0), settle_s=0.2, read=lambda: now[0])
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        now[0] = ()
        await trio.sleep(4.9)
        assert told == [(LAN,)]
        await trio.sleep(0.5)
        assert told == [(LAN,), ()]
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_opening_and_closing_what_this_system_has():
    changes = open_changes(5.0)
    with trio.move_on_after(0.01):
        await changes.wait()
    changes.close()
    assert isinstance(changes, NetlinkChanges | PolledChanges)
