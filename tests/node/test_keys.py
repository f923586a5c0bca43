"""Transports in the middle of a rotation: who understands whom, who is given the secret, who is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from p2premap.gossip.events import DialOutcome, LinkDown, LinkUp, Received
from p2premap.gossip.messages import Rumours
from p2premap.node import keyring, secret
from p2premap.node.keyring import Offer
from p2premap.node.keys import Keys
from p2premap.node.secret import ClusterSecret
from tests.node.nodes import Node, node

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
