"""What a member with a bug, or of another version, may say of itself: nobody who hears it may fall over it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2premap.config import NodeConfig
from p2premap.gossip.events import MemberChanged, MemberState
from p2premap.gossip.messages import Rumours
from p2premap.ids import Address, Boot, Incarnation, NodeId
from p2premap.node.bulletin import Warnings
from p2premap.node.datagrams import Datagrams
from p2premap.node.interfaces import is_loopback
from p2premap.node.listeners import socket_address
from p2premap.node.paths import Paths
from p2premap.node.seal import Sealer
from p2premap.node.search import Search
from p2premap.node.secret import new_secret
from p2premap.protocol import GOSSIP
from p2premap.tasks.messages import ForgetJob
from p2premap.wire import Message
from tests.gossip.test_members import entry
from tests.tasks.dialogue import BALLOT, JOB

ME, OTHER = NodeId(b"a" * 16), NodeId(b"b" * 16)
NONSENSE = ("not numeric", "", "\0", "1.2.3.4.5", "fe80::1%99999999999999", "::1::2")


@pytest.mark.parametrize("host", NONSENSE)
def test_a_host_that_is_no_address_is_no_loopback_address(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", NONSENSE)
def test_a_member_may_be_at_a_host_that_is_no_address(host: str, tmp_path: Path) -> None:
    opened: list[str] = []
    paths = Paths(tmp_path, tmp_path, tmp_path)
    transport = SimpleNamespace(network=False, addresses=(), open_to_network=lambda: opened.append("network"))
    search = Search(
        me=ME,
        name="a",
        keys=SimpleNamespace(secret=new_secret(os.urandom)),
        user=paths,
        paths=paths,
        config=NodeConfig(),
        transport=transport,
        store=SimpleNamespace(),
        post=lambda _: None,
        warnings=Warnings(),
    )
    where = (Address(host, 7321),)
    search.on_member(
        MemberChanged(
            node=OTHER,
            boot=Boot(1),
            incarnation=Incarnation(0),
            state=MemberState.ALIVE,
            name="b",
            addresses=where,
        )
    )
    assert search.addresses_of(OTHER) == where
    assert opened == ["network"]


@pytest.mark.parametrize("host", NONSENSE)
def test_a_host_that_is_no_address_is_not_dialled(host: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        socket_address(Address(host, 7321))


@pytest.mark.parametrize(
    "message",
    [
        Rumours(members=(entry(name="n" * 255, addresses=((64 * "1", 65535),) * 16),)),
        ForgetJob(job=JOB, ballot=BALLOT),
    ],
    ids=["too large", "not for datagrams"],
)
def test_what_does_not_fit_into_a_datagram_is_dropped_and_counted(message: Message) -> None:
    sealer = Sealer(me=ME, gossip_key=b"k" * 32, randomness=os.urandom, senders_max=8)
    datagrams = Datagrams(sealer=sealer, registry=GOSSIP, deliver=lambda _: None, salt_idle_s=5.0)
    datagrams.send(OTHER, Address("127.0.0.1", 9), message)
    assert datagrams.statistics()["unsent"] == 1
    assert datagrams.statistics().get("sent_bytes", 0) == 0
