"""Streams to a member that cannot be dialled: it opens them itself, asked over the link."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from p2premap.config import TransportConfig
from p2premap.control.nodes import Announced, TryAddresses
from p2premap.errors import PeerUnreachable
from p2premap.gossip.events import LinkUp, WantLink
from p2premap.ids import Address, NodeId, RequestId
from p2premap.node import dialler
from p2premap.node.bulk import NoSuch
from p2premap.node.hello import CallMe, Purpose
from p2premap.node.secret import new_secret
from p2premap.node.streams import close
from p2premap.ports import FrameStream
from tests.node.nodes import PATIENCE_S, Node, node

SECRET = new_secret(lambda size: b"s" * size)
BRIEF = TransportConfig(port_first=0, hello_s=PATIENCE_S, dial_s=0.3)
"""For who is to learn that nobody comes."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a dial nor a link that takes a while is taken for one that does not come about."""
    monkeypatch.setattr(dialler, "RETURN_AFTER_S", PATIENCE_S)
    monkeypatch.setattr(dialler, "RETURN_LINK_S", PATIENCE_S)


async def failed_return(one: Node) -> None:
    """Wait until this node could not do what it was asked."""
    with trio.fail_after(PATIENCE_S):
        while not one.transport.statistics().counts.get("returns_failed"):
            await trio.testing.wait_all_tasks_blocked(0.01)


class Service:
    """Answers each request; notes who asked, and when a visitor has gone."""

    def __init__(self) -> None:
        self.peers: list[object] = []
        self.gone = trio.Event()

    async def control(self, stream: FrameStream) -> None:
        self.peers.append(stream.peer)
        while (frame := await stream.receive()) is not None:
            await stream.send(Announced(request=frame.message.request, node=bytes(16), addresses=()))
        self.gone.set()

    async def bulk(self, stream: FrameStream) -> None:
        await stream.send(NoSuch(text="no"))
        await stream.receive()
        self.gone.set()


@pytest.mark.trio
async def test_a_member_that_cannot_be_dialled_is_asked_to_connect(tmp_path: Path) -> None:
    service = Service()
    async with (
        node(tmp_path / "a", SECRET) as asks,
        node(tmp_path / "b", SECRET, serve_control=service.control, addresses_of=lambda _: (asks.address,)) as hidden,
    ):
        await hidden.dial(asks.address)
        await asks.until(lambda: asks.all(LinkUp))
        for number in (1, 2):  # the second time it is known at once that dialling is in vain
            stream = await asks.transport.open_control(hidden.id)
            assert stream.peer == hidden.id
            await stream.send(TryAddresses(request=RequestId(number), addresses=()))
            frame = await stream.receive()
            assert frame is not None
            assert frame.message.request == number
            await stream.aclose()
            with trio.fail_after(PATIENCE_S):
                await service.gone.wait()
            service.gone = trio.Event()
        assert service.peers == [asks.id, asks.id]
        with trio.fail_after(PATIENCE_S):
            while asks.transport.statistics().members > 1:  # the link alone is left
                await trio.testing.wait_all_tasks_blocked()


@pytest.mark.trio
async def test_blobs_come_the_same_way(tmp_path: Path) -> None:
    service = Service()
    async with (
        node(tmp_path / "a", SECRET) as asks,
        node(tmp_path / "b", SECRET, serve_bulk=service.bulk, addresses_of=lambda _: (asks.address,)) as hidden,
    ):
        await hidden.dial(asks.address)
        await asks.until(lambda: asks.all(LinkUp))
        stream = await asks.transport.open_bulk(hidden.id)
        frame = await stream.receive()
        assert frame is not None
        assert isinstance(frame.message, NoSuch)
        await stream.aclose()
        with trio.fail_after(PATIENCE_S):
            await service.gone.wait()


@pytest.mark.trio
async def test_without_a_link_gossip_is_asked_for_one(tmp_path: Path) -> None:
    service = Service()
    async with (
        node(tmp_path / "a", SECRET) as asks,
        node(tmp_path / "b", SECRET, serve_control=service.control, addresses_of=lambda _: (asks.address,)) as hidden,
        trio.open_nursery() as nursery,
    ):

        async def bring_link_up() -> None:
            await asks.until(lambda: asks.all(WantLink))
            await hidden.dial(asks.address)

        nursery.start_soon(bring_link_up)
        stream = await asks.transport.open_control(hidden.id)
        assert stream.peer == hidden.id
        await stream.aclose()


@pytest.mark.trio
async def test_a_member_that_can_be_dialled_is_dialled(tmp_path: Path) -> None:
    service = Service()
    where: dict[NodeId, tuple[Address, ...]] = {}
    async with (
        node(tmp_path / "a", SECRET, addresses_of=lambda peer: where.get(peer, ())) as asks,
        node(tmp_path / "b", SECRET, serve_control=service.control) as plain,
    ):
        where[plain.id] = (plain.address,)
        stream = await asks.transport.open_control(plain.id)
        await stream.aclose()
        assert not asks.all(WantLink)


@pytest.mark.trio
async def test_where_neither_can_dial_it_is_told_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialler, "RETURN_LINK_S", 0.3)
    async with node(tmp_path / "a", SECRET, config=BRIEF) as asks, node(tmp_path / "b", SECRET) as hidden:
        with trio.fail_after(PATIENCE_S), pytest.raises(PeerUnreachable, match="no known address"):
            await asks.transport.open_control(hidden.id)
        await hidden.dial(asks.address)
        await asks.until(lambda: asks.all(LinkUp))
        with trio.fail_after(PATIENCE_S), pytest.raises(PeerUnreachable):
            await asks.transport.open_control(hidden.id)
        await failed_return(hidden)
        assert hidden.transport.statistics().counts["returns_failed"] == 1


@pytest.mark.trio
async def test_a_connection_that_nobody_asked_for_and_a_wrong_purpose_come_to_nothing(tmp_path: Path) -> None:
    service = Service()
    async with (
        node(tmp_path / "a", SECRET, serve_control=service.control) as a,
        node(tmp_path / "b", SECRET, serve_control=service.control, addresses_of=lambda _: (a.address,)) as b,
    ):
        await b.dial(a.address)
        await a.until(lambda: a.all(LinkUp))
        a.transport.send_link(b.id, CallMe(number=77, purpose=Purpose.LINK))
        a.transport.send_link(b.id, CallMe(number=77, purpose=Purpose.CONTROL))
        with trio.fail_after(PATIENCE_S):
            await service.gone.wait()  # b has served a connection that a closed at once
        assert service.peers == [a.id]
        assert b.transport.statistics().counts["calls_dropped"] == 1
        assert a.all(LinkUp), "and the link is as it was"


@pytest.mark.trio
async def test_cancelling_leaves_no_connection_behind(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as asks, node(tmp_path / "b", SECRET) as hidden:
        await hidden.dial(asks.address)
        await asks.until(lambda: asks.all(LinkUp))
        for wait_s in (0.0, 0.01, 0.3):
            with trio.move_on_after(wait_s):
                await asks.transport.open_control(hidden.id)
        assert asks.transport.statistics().members == 1


@pytest.mark.trio
async def test_another_members_answer_does_not_count(tmp_path: Path) -> None:
    async with (
        node(tmp_path / "a", SECRET) as asks,
        node(tmp_path / "b", SECRET) as hidden,
        node(tmp_path / "c", SECRET, addresses_of=lambda _: (asks.address,)) as third,
        trio.open_nursery() as nursery,
    ):
        await hidden.dial(asks.address)
        await asks.until(lambda: asks.all(LinkUp))

        async def meddle() -> None:
            await failed_return(hidden)
            call = CallMe(number=1, purpose=Purpose.CONTROL)  # what `hidden` was asked
            channel = await third.transport._dialler.call_back(asks.id, call)
            assert channel is not None
            with trio.fail_after(PATIENCE_S):
                assert await channel.stream.receive_some(1) == b"", "closed at once"
            await close(channel.stream)
            asking.cancel()

        nursery.start_soon(meddle)
        with trio.CancelScope() as asking:
            await asks.transport.open_control(hidden.id)
        assert asking.cancelled_caught, "nobody has come"
