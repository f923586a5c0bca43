"""Transports in the middle of a rotation: who understands whom, who is given the secret, who is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from p2premap.control.nodes import Announced, TryAddresses
from p2premap.errors import PeerUnreachable
from p2premap.gossip.events import DialOutcome, LinkDown, LinkUp, Received
from p2premap.gossip.messages import Rumours
from p2premap.ids import Address, NodeId, RequestId
from p2premap.node import keyring, secret
from p2premap.node.keyring import Offer
from p2premap.node.keys import Keys
from p2premap.node.secret import ClusterSecret
from p2premap.ports import FrameStream
from tests.node.nodes import PATIENCE_S, Node, node

SECRET = ClusterSecret(b"s" * 32)


def offer(*members: Node, evicts: bool = False) -> Offer:
    listed = tuple(member.id for member in members)
    return keyring.next_offer(members[0].keys.ring, b"n" * 32, listed=listed, evicts=evicts)


@pytest.mark.trio
async def test_who_hears_the_new_secret_proved_switches(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        new = offer(a, b)
        for one in (a, b):
            one.keys.prepare(new)
        assert (await a.dial(b.address)).outcome is DialOutcome.CONNECTED, "prepared nodes speak under the old one"
        a.keys.switch(new.secret.tag)
        await b.until(lambda: b.all(LinkDown))  # it is made anew
        ended = await a.dial(b.address)
        assert (ended.outcome, ended.peer) == (DialOutcome.CONNECTED, b.id)
        assert b.keys.secret == new.secret
        a.transport.send_datagram(b.id, b.address, Rumours())
        await b.until(lambda: b.all(Received))


@pytest.mark.trio
async def test_who_dials_a_member_that_has_switched_switches_too_even_after_an_eviction(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        new = offer(a, b, evicts=True)
        for one in (a, b):
            one.keys.prepare(new)
        a.keys.switch(new.secret.tag)
        assert (await b.dial(a.address)).outcome is DialOutcome.SILENT, "neither gone nor a stranger: dialled anew"
        assert b.keys.secret == new.secret
        assert (await b.dial(a.address)).outcome is DialOutcome.CONNECTED


@pytest.mark.trio
async def test_a_member_that_was_away_is_given_the_secret_and_another_is_told_to_join(tmp_path: Path) -> None:
    async with (
        node(tmp_path / "a", SECRET) as a,
        node(tmp_path / "b", SECRET) as away,
        node(tmp_path / "c", SECRET) as thief,
    ):
        new = offer(a, away)
        a.keys.prepare(new)
        a.keys.switch(new.secret.tag)
        assert (await thief.dial(a.address)).outcome is DialOutcome.FOREIGN
        assert thief.keys.secret == SECRET
        await thief.until(lambda: thief.foreign)
        assert (thief.foreign[0].tag, thief.foreign[0].node) == (new.secret.tag, a.id), "it has proved its key"
        assert (await away.dial(a.address)).outcome is DialOutcome.SILENT
        assert away.keys.secret == new.secret
        assert (await away.dial(a.address)).outcome is DialOutcome.CONNECTED
        assert a.transport.statistics().counts["secrets_given"] == 1


@pytest.mark.trio
async def test_who_is_evicted_is_cut_off_and_named_by_its_old_secret(tmp_path: Path) -> None:
    async with (
        node(tmp_path / "a", SECRET) as a,
        node(tmp_path / "b", SECRET) as b,
        node(tmp_path / "c", SECRET) as out,
    ):
        await out.dial(a.address)
        await b.dial(a.address)
        new = offer(a, b, evicts=True)
        for one in (a, b):
            one.keys.prepare(new)
            one.keys.switch(new.secret.tag)
        await out.until(lambda: out.all(LinkDown))
        assert (await out.dial(a.address)).outcome is DialOutcome.FOREIGN
        await a.until(lambda: a.foreign)
        assert a.foreign[0].tag == SECRET.tag
        assert a.keys.ring.was_ours(SECRET.tag)
        out.transport.send_datagram(a.id, a.address, Rumours())
        assert (await b.dial(a.address)).outcome is DialOutcome.CONNECTED
        await a.until(lambda: len([e for e in a.all(LinkUp) if e.peer == b.id]) == 2)
        assert not a.all(Received)
        assert a.transport.statistics().counts["forged"] == 1


async def settled() -> None:
    """Nothing is under way any more."""
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked(0.005)


@pytest.mark.trio
@pytest.mark.parametrize("dials", ["the member", "who is evicted"])
async def test_who_is_evicted_gets_no_connection_that_is_in_the_making_at_any_moment(
    tmp_path: Path, dials: str
) -> None:
    """The switch comes after each number of turns of the loop in which the dial goes on."""
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "c", SECRET) as out:
        dialler, other = (a, out) if dials == "the member" else (out, a)
        outcomes: list[DialOutcome] = []
        cut = 0

        async def dial() -> None:
            outcomes.append((await dialler.dial(other.address)).outcome)

        for turns in range(1_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                new = keyring.next_offer(a.keys.ring, turns.to_bytes(32, "big"), listed=(a.id,), evicts=True)
                a.keys.prepare(new)
                a.keys.switch(new.secret.tag)
                cut += len(a.all(LinkUp)) == 0
            await settled()
            statistics = a.transport.statistics()
            assert (statistics.links.up, statistics.members) == (0, 0), f"cut off after {turns} turns"
            if a.all(LinkUp):
                break
            out.keys.prepare(Offer(new.secret, 0.0, (a.id, out.id)))
            out.keys.switch(new.secret.tag)
        assert cut > 10, "most of the way was walked"
        assert len(set(outcomes)) > 1


async def answer(stream: FrameStream) -> None:
    """A service that answers each request."""
    while (frame := await stream.receive()) is not None:
        await stream.send(Announced(request=frame.message.request, node=bytes(16), addresses=()))


async def answers(stream: FrameStream) -> bool:
    """Whether there is anybody still."""
    with trio.fail_after(PATIENCE_S):
        try:
            await stream.send(TryAddresses(request=RequestId(1), addresses=()))
            return await stream.receive() is not None
        except PeerUnreachable:
            return False


@pytest.mark.trio
@pytest.mark.parametrize("evicts", [False, True])
@pytest.mark.parametrize("dialled", [True, False])
async def test_an_eviction_ends_the_streams_from_and_to_who_is_evicted_and_no_others(
    tmp_path: Path, dialled: bool, evicts: bool
) -> None:
    """Those too that a member has opened: who answers on them could go on answering."""
    where: dict[NodeId, tuple[Address, ...]] = {}

    def of_member(node: NodeId) -> tuple[Address, ...]:
        return where.get(node, ()) if dialled else ()  # else the other one is asked to open it

    async with (
        node(tmp_path / "a", SECRET, serve_control=answer, addresses_of=of_member) as a,
        node(tmp_path / "b", SECRET, serve_control=answer, addresses_of=lambda n: where.get(n, ())) as b,
        node(tmp_path / "c", SECRET, serve_control=answer, addresses_of=lambda n: where.get(n, ())) as out,
    ):
        where.update({one.id: (one.address,) for one in (a, b, out)})
        for one in (b, out):
            await one.dial(a.address)
        streams = {one.id: await a.transport.open_control(one.id) for one in (b, out)}
        waits = await a.transport.open_control(out.id)
        back = {one.id: await one.transport.open_control(a.id) for one in (b, out)}
        for stream in (*streams.values(), waits, *back.values()):
            assert await answers(stream)
        ended = trio.Event()

        async def wait() -> None:
            with pytest.raises(PeerUnreachable):
                await waits.receive()
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settled()
            new = offer(*((a, b) if evicts else (a, b, out)), evicts=evicts)
            a.keys.prepare(new)
            a.keys.switch(new.secret.tag)
            assert await answers(streams[b.id])
            assert await answers(back[b.id])
            assert await answers(streams[out.id]) == await answers(back[out.id]) == (not evicts)
            if not evicts:
                await waits.aclose()
            with trio.fail_after(PATIENCE_S):
                await ended.wait()
        for stream in (*streams.values(), waits, *back.values()):
            await stream.aclose()


@pytest.mark.trio
async def test_who_reads_of_an_eviction_in_the_file_shuts_out_too(tmp_path: Path) -> None:
    config = tmp_path / "config"
    made = secret.load_or_make(config)
    where: dict[NodeId, tuple[Address, ...]] = {}
    async with (
        node(tmp_path / "a", made, ring=config) as a,
        node(tmp_path / "b", made, ring=config, serve_control=answer) as b,
        node(tmp_path / "c", made, addresses_of=lambda n: where.get(n, ())) as out,
    ):
        where[b.id] = (b.address,)
        stream = await out.transport.open_control(b.id)
        plain = offer(a, b, out)
        a.keys.prepare(plain)
        a.keys.switch(plain.secret.tag)
        assert b.keys.look()
        assert await answers(stream)
        new = keyring.next_offer(a.keys.ring, b"m" * 32, listed=(a.id, b.id), evicts=True)
        a.keys.prepare(new)
        a.keys.switch(new.secret.tag)
        assert await answers(stream)
        assert b.keys.look()
        assert not await answers(stream)
        await stream.aclose()


@pytest.mark.trio
async def test_a_node_learns_from_the_file_what_another_of_its_machine_has_been_told(tmp_path: Path) -> None:
    config = tmp_path / "config"
    made = secret.load_or_make(config)
    async with (
        node(tmp_path / "a", made, ring=config) as a,
        node(tmp_path / "b", made, ring=config) as b,
        node(tmp_path / "c", made) as c,
    ):
        new = offer(a, b, c, evicts=True)
        for one in (a, c):
            one.keys.prepare(new)
            one.keys.switch(new.secret.tag)
        assert b.keys.secret == made
        assert (await b.dial(c.address)).outcome is DialOutcome.SILENT
        assert b.keys.secret == new.secret
        assert (await b.dial(c.address)).outcome is DialOutcome.CONNECTED


@pytest.mark.trio
async def test_tokens_of_before_a_rotation_invite_nobody(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a:
        a.inviter.invite(uses=1, valid_s=60.0)
        assert a.inviter.is_open
        a.inviter.rekey(ClusterSecret(b"n" * 32, "", 2, SECRET.tag), a.keys.face.credentials)
        assert not a.inviter.is_open


@pytest.mark.trio
async def test_a_disk_that_refuses_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    made = secret.load_or_make(config)
    async with node(tmp_path / "a", made, ring=config) as a:
        new = offer(a)
        a.keys.prepare(new)

        def full(*_: object) -> None:
            raise secret.ConfigError("Cannot store the cluster's secret.")

        with monkeypatch.context() as patch:
            patch.setattr(secret, "replace", full)
            a.keys.proved(new.secret.tag)
        assert a.keys.secret == made
        assert a.keys.ring.is_pending(new.secret.tag)
        a.keys.proved(new.secret.tag)
        assert a.keys.secret == new.secret
        later = Keys(identity=a.identity, secret=new.secret, config=config, wall_s=lambda: 0.0)
        assert later.ring == a.keys.ring
        await trio.lowlevel.checkpoint()
