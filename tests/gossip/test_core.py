"""What one node says to what it hears: joining, beliefs about others and itself, facts, loads, leaving."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from p2premap.config import GossipConfig
from p2premap.errors import LocalProtocolError
from p2premap.gossip.beliefs import OWN_BYTES_MAX
from p2premap.gossip.core import GossipCore
from p2premap.gossip.events import (
    Dial,
    FactChanged,
    IdentityClash,
    Leave,
    Left,
    LoadChanged,
    MemberChanged,
    MemberState,
    SendLink,
    SetAddresses,
    SetFact,
    SetLoad,
)
from p2premap.gossip.messages import Ack, Buckets, Ping, Rumours
from p2premap.gossip.spread import size_of
from p2premap.ids import Address, Boot, Incarnation
from tests.gossip.dialogue import ME, Dialogue, address, fact, load, record
from tests.gossip.harness import node_id

ALIVE, SUSPECT, DEAD, LEFT = MemberState.ALIVE, MemberState.SUSPECT, MemberState.DEAD, MemberState.LEFT


# --- first contact -------------------------------------------------------------------------------------------------


def test_the_dialler_introduces_itself_over_the_new_link_at_once() -> None:
    d = Dialogue()
    (said,) = d.link(1)
    assert isinstance(said, SendLink)
    assert isinstance(said.message, Ping)
    assert (said.message.root, said.message.members) == (d.core.root_hash, (d.core.own,))


def test_the_accepting_side_waits_for_the_dialler() -> None:
    d = Dialogue()
    assert d.link(1, dialled=False) == []


def test_a_ping_from_a_stranger_makes_it_known_and_is_answered_with_our_own_record() -> None:
    d = Dialogue()
    d.link(1, dialled=False)
    d.hear(1, Ping(nonce=9, root=1, members=(record(1),)), link=True)
    assert d.changes() == [(node_id(1), ALIVE)]
    ((peer, ack),) = d.sent(Ack)
    assert (peer, ack.nonce, ack.root, ack.members) == (node_id(1), 9, d.core.root_hash, (d.core.own,))


def test_an_ack_with_another_root_begins_a_repair_at_once() -> None:
    d = Dialogue()
    d.link(1)
    d.hear(1, Ack(nonce=1, root=7, members=(record(1),)), link=True)
    assert [p for p, _ in d.sent(Buckets)] == [node_id(1)]


def test_an_ack_with_the_same_root_begins_none() -> None:
    d = Dialogue(3)
    d.hear(1, Ack(nonce=1, root=d.core.root_hash))
    assert d.effects == []


def test_equal_roots_need_no_introduction() -> None:
    d = Dialogue(3)
    d.hear(1, Ping(nonce=1, root=d.core.root_hash))
    assert d.sent(Ack) == [(node_id(1), Ack(nonce=1, root=d.core.root_hash))]


def test_who_is_believed_dead_hears_it_when_it_asks() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(members=(record(2, state=DEAD),)))
    d.until(d.now + 7.5)
    d.hear(2, Ping(nonce=1, root=5))
    assert record(2, state=DEAD, age=7) in d.sent(Ack)[0][1].members


# --- beliefs about others --------------------------------------------------------------------------------------------


def test_news_is_reported_and_passed_on_once() -> None:
    d = Dialogue(6)
    rumour = Rumours(members=(record(4, incarnation=1),))
    d.hear(1, rumour)
    assert d.changes() == [(node_id(4), ALIVE)]
    assert [m for _, m in d.sent(Rumours)] == [rumour] * 3
    d.hear(2, rumour)
    assert d.effects == []


def test_a_new_boot_replaces_the_old_with_all_its_facts() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(facts=(fact(1), fact(1, "other"))))
    d.hear(1, Rumours(loads=(load(1, b"12345"),)))
    d.hear(1, Rumours(members=(record(1, boot=2),)))
    assert d.asked(MemberChanged)[0].boot == 2
    assert [(e.key, e.value) for e in d.asked(FactChanged)] == [("k", b""), ("other", b"")]
    view = d.core.member(node_id(1))
    assert view is not None
    assert (view.facts, view.load) == ({}, b"")


def test_two_members_of_one_name_are_two_members() -> None:
    d = Dialogue(1)
    d.hear(1, Rumours(members=(record(2).__class__(**{**_fields(record(2)), "name": "node-1"}),)))
    assert [v.name for v in d.core.members()].count("node-1") == 2


def _fields(entry: object) -> dict[str, object]:
    return {name: getattr(entry, name) for name in type(entry).__struct_fields__}  # type: ignore[attr-defined]


def test_the_dead_do_not_rise_by_old_rumours() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(members=(record(2, incarnation=3, state=DEAD),)))
    d.hear(3, Rumours(members=(record(2, incarnation=3), record(2, incarnation=2, state=SUSPECT))))
    assert d.state(2) == DEAD
    d.hear(3, Rumours(members=(record(2, incarnation=4),)))
    assert d.state(2) == ALIVE


def test_the_dead_are_taken_out_of_the_hash_then_forgotten() -> None:
    d = Dialogue(3, config=GossipConfig(dead_kept_s=100.0))
    d.hear(1, Rumours(members=(record(2, state=DEAD),)))
    with_it = d.core.root_hash
    died = d.now
    d.until(died + 120)
    assert d.core.root_hash != with_it
    assert d.state(2) == DEAD
    d.hear(1, Rumours(members=(record(2),)))
    assert d.state(2) == DEAD
    d.until(died + 220)
    assert d.state(2) is None


def test_what_others_have_forgotten_is_not_taken_up_again() -> None:
    d = Dialogue(3, config=GossipConfig(dead_kept_s=100.0))
    d.hear(1, Rumours(members=(record(9, state=DEAD, age=100),)))
    assert d.state(9) is None
    d.hear(1, Rumours(members=(record(9, state=DEAD, age=99),)))
    assert d.state(9) == DEAD


def test_the_number_of_the_dead_is_bounded() -> None:
    d = Dialogue(8, config=GossipConfig(dead_max=3))
    for n in range(1, 9):
        d.now += 1.0
        d.hear(1, Rumours(members=(record(n, state=DEAD),)))
        assert d.core.statistics().dead <= 3
    assert [n for n in range(1, 9) if d.state(n) == DEAD] == [6, 7, 8]
    d.hear(1, Rumours(members=(record(9, state=LEFT),)))
    assert d.state(9) is None  # a tombstone of somebody unknown, and no room


def test_the_number_of_members_is_bounded() -> None:
    d = Dialogue(3, config=GossipConfig(members_max=4))
    d.hear(1, Rumours(members=(record(5),)))
    assert d.state(5) is None
    assert d.core.statistics().counters.entries_refused == 1


# --- beliefs about ourselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [MemberState.STALLED, SUSPECT, DEAD, LEFT])
def test_an_accusation_is_refuted_by_a_higher_incarnation(state: MemberState) -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(members=(record(0, state=state),)))
    assert (d.core.own.incarnation, d.core.own.state) == (1, ALIVE)
    assert len(d.sent(Rumours)) == 3
    assert all(m.members == (record(0, incarnation=1),) for _, m in d.sent(Rumours))


def test_the_refutation_comes_with_the_ack_of_the_ping_that_brought_the_accusation() -> None:
    d = Dialogue(3)
    d.hear(1, Ping(nonce=3, root=d.core.root_hash, members=(record(0, state=SUSPECT),)))
    ((_, ack),) = d.sent(Ack)
    assert record(0, incarnation=1) in ack.members


def test_an_old_accusation_is_ignored() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(members=(record(0, state=SUSPECT),)))
    d.hear(1, Rumours(members=(record(0, state=DEAD),)))
    assert d.core.own.incarnation == 1


def test_a_higher_boot_of_ours_is_a_clash_told_once() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(members=(record(0, boot=2),)))
    assert len(d.asked(IdentityClash)) == 1
    d.hear(2, Rumours(members=(record(0, boot=2),)))
    assert d.asked(IdentityClash) == []


def test_a_lower_boot_of_ours_is_our_own_past() -> None:
    d = Dialogue(3, boot=5)
    d.hear(1, Rumours(members=(record(0, boot=4, incarnation=9, state=DEAD),)))
    assert d.asked(IdentityClash) == []
    assert d.core.own.incarnation == 0


def test_facts_of_this_boot_that_we_never_wrote_are_a_clash() -> None:
    d = Dialogue(3)
    d.give(SetFact(key="k", value=b"mine"))
    d.hear(1, Rumours(facts=(fact(0, value=b"mine"),)))
    assert d.asked(IdentityClash) == []
    d.hear(1, Rumours(facts=(fact(0, version=2, value=b"not mine"),)))
    assert len(d.asked(IdentityClash)) == 1


def copy_of_me(incarnation: int = 0) -> Rumours:
    entry = record(0, incarnation=incarnation)
    return Rumours(members=(entry.__class__(**{**_fields(entry), "addresses": (address(50),)}),))


def test_of_two_copies_the_one_that_started_later_yields() -> None:
    young = Dialogue()
    young.hear(1, copy_of_me())
    assert len(young.asked(IdentityClash)) == 1
    settled = Dialogue(3)
    settled.until(11.0)
    settled.hear(1, copy_of_me())
    assert settled.asked(IdentityClash) == []
    assert settled.core.own.incarnation == 1  # which the younger one hears, and yields


def test_who_hears_an_incarnation_of_its_own_that_it_never_reached_yields() -> None:
    d = Dialogue(3)
    d.until(20.0)
    d.hear(1, Rumours(members=(record(0, incarnation=1),)))
    assert len(d.asked(IdentityClash)) == 1


def test_of_two_copies_that_both_have_been_here_for_long_exactly_one_yields() -> None:
    d = Dialogue(3)
    d.until(20.0)
    d.hear(1, copy_of_me())
    d.hear(1, copy_of_me(1))
    yields = bool(d.asked(IdentityClash))
    assert yields == ((address(50),) > (address(0),))


def test_a_new_address_is_told_under_a_higher_incarnation() -> None:
    d = Dialogue(3)
    d.give(SetAddresses(addresses=(Address("10.9.9.9", 7321),)))
    assert d.core.own.incarnation == 1
    assert d.core.own.addresses == (Address("10.9.9.9", 7321),)
    assert len(d.sent(Rumours)) == 3
    d.give(SetAddresses(addresses=(Address("10.9.9.9", 7321),)))
    assert d.effects == []


def test_a_record_always_fits_into_a_datagram() -> None:
    many = tuple(Address(f"fe80::1234:5678:9abc:{n:x}%wlp0s20f3", 7321) for n in range(40))
    d = Dialogue(3)
    d.give(SetAddresses(addresses=many))
    assert 1 < len(d.core.own.addresses) < 16
    assert d.core.own.addresses == many[: len(d.core.own.addresses)]
    assert size_of(d.core.own) <= OWN_BYTES_MAX


@pytest.mark.parametrize("letter", ["n", "\N{GRINNING FACE}"])
def test_a_name_leaves_room_for_addresses_and_they_for_it(letter: str) -> None:
    many = tuple(Address(f"2001:db8::1234:5678:9abc:{n:x}", 7321) for n in range(40))
    core = GossipCore(
        me=ME, boot=Boot(1), name=255 * letter, addresses=many, config=GossipConfig(), rng=Random(1), now=0.0
    )
    assert 1 < len(core.own.addresses) < 16
    assert size_of(core.own) <= OWN_BYTES_MAX


def test_a_record_that_two_would_not_fit_into_an_ack_is_refused() -> None:
    d = Dialogue(3)
    large = msgspec.structs.replace(record(5), name="n" * 255, addresses=((64 * "1", 65535),) * 16)
    d.hear(1, Rumours(members=(large, msgspec.structs.replace(large, node=node_id(1), incarnation=Incarnation(1)))))
    assert d.state(5) is None
    assert d.core.members()[1].name == "node-1"
    assert d.core.statistics().counters.entries_refused == 2
    assert d.effects == []


# --- facts and loads -----------------------------------------------------------------------------------------------


def test_a_fact_is_published_once_and_withdrawn_by_an_empty_one() -> None:
    d = Dialogue(3)
    d.give(SetFact(key="cpu", value=b"8"))
    assert len(d.sent(Rumours)) == 3
    d.give(SetFact(key="cpu", value=b"8"))
    assert d.effects == []
    d.give(SetFact(key="cpu", value=b""))
    assert len(d.sent(Rumours)) == 3
    assert d.core.members()[0].facts == {}
    d.give(SetFact(key="other", value=b""))
    assert d.effects == []


def test_a_newer_fact_replaces_an_older_whatever_the_order() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(facts=(fact(1, value=b"new", version=2),)))
    assert d.asked(FactChanged) == [FactChanged(node=node_id(1), key="k", value=b"new")]
    d.hear(1, Rumours(facts=(fact(1, value=b"old", version=1),)))
    assert d.asked(FactChanged) == []


def test_facts_of_unknown_members_and_other_boots_are_left_to_the_repair() -> None:
    d = Dialogue(3)
    root = d.core.root_hash
    d.hear(1, Rumours(facts=(fact(9), fact(1, boot=2))))
    assert (d.effects, d.core.root_hash) == ([], root)


def test_a_node_may_not_publish_more_than_its_share() -> None:
    d = Dialogue(3)
    d.give(SetFact(key="a", value=b"x" * 10_000))
    with pytest.raises(LocalProtocolError):
        d.give(SetFact(key="b", value=b"x" * 10_000))
    d.give(SetFact(key="a", value=b"y" * 16_000))
    for n in range(63):
        d.give(SetFact(key=str(n), value=b"1"))
    with pytest.raises(LocalProtocolError):
        d.give(SetFact(key="one too many", value=b"1"))


def test_facts_of_others_are_bounded_too() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(facts=tuple(fact(1, f"k{n}", version=n) for n in range(80))))
    view = d.core.member(node_id(1))
    assert view is not None
    assert len(view.facts) == 64


def test_loads_are_told_at_most_once_a_second_and_the_last_counts() -> None:
    d = Dialogue(3)
    d.give(SetLoad(value=b"1"))
    first = d.core.statistics().loads
    assert first == 1
    d.now += 0.1
    for value in (b"2", b"3", b"4"):
        d.give(SetLoad(value=value))
    d.until(d.now + 2.0)
    own = d.core.member(ME)
    assert own is not None
    assert own.load == b"4"
    told = {
        (entry.version, entry.value)
        for _, effect in d.log
        for entry in getattr(getattr(effect, "message", None), "loads", ())
    }
    assert {value for _, value in told} <= {b"1", b"4"}


def test_a_load_that_is_newer_is_reported_and_passed_on() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(loads=(load(1, b"a", version=2),)))
    assert d.asked(LoadChanged) == [LoadChanged(node=node_id(1), value=b"a")]
    d.hear(1, Rumours(loads=(load(1, b"b", version=1), load(9, b"c"), load(2, b"c", boot=7))))
    assert d.effects == []


# --- leaving -------------------------------------------------------------------------------------------------------


def test_a_leave_is_told_to_all_links_three_times_then_the_node_may_stop() -> None:
    d = Dialogue(4)
    for n in (1, 2):
        d.link(n)
    d.give(Leave())
    heard = {p for p, m in d.sent(Rumours) if m.members == (record(0, incarnation=1, state=LEFT),)}
    assert {node_id(1), node_id(2)} <= heard
    start = d.now
    while not d.asked(Left):
        d.tick()
    assert d.now == pytest.approx(start + 0.2)


def test_who_is_alone_leaves_at_once() -> None:
    d = Dialogue()
    d.give(Leave())
    assert d.asked(Left) == [Left()]


def test_links_that_close_while_leaving_are_no_reason_for_anything() -> None:
    d = Dialogue(2)
    d.link(1)
    d.give(Leave())
    assert d.unlink(1) == []


def test_who_has_left_is_neither_probed_nor_dialled_nor_mourned() -> None:
    d = Dialogue(2)
    d.link(1)
    d.hear(1, Rumours(members=(record(1, incarnation=1, state=LEFT),)), link=True)
    assert d.changes() == [(node_id(1), LEFT)]
    d.unlink(1)
    assert d.effects == []
    d.log = []
    d.until(d.now + 60)
    assert not [e for _, e in d.log if isinstance(e, Dial) and e.address == address(1)]


# --- the contract --------------------------------------------------------------------------------------------------


def test_the_clock_may_stand_still_but_not_go_back() -> None:
    d = Dialogue(2)
    d.give(SetLoad(value=b"1"))
    d.now -= 1.0
    with pytest.raises(AssertionError):
        d.give(SetLoad(value=b"2"))


def test_an_early_tick_does_nothing() -> None:
    d = Dialogue(2)
    before = d.core.deadline()
    d.core.step(before - 0.001, _tick())
    assert d.core.deadline() == before


def _tick() -> object:
    from p2premap.gossip.events import Tick

    return Tick()


def test_views_are_in_the_order_of_ids_and_include_this_node() -> None:
    d = Dialogue(5)
    ids = [view.node for view in d.core.members()]
    assert ids == sorted(ids)
    assert ME in ids
    own = d.core.member(ME)
    assert own is not None
    assert (own.boot, own.incarnation) == (Boot(1), Incarnation(0))
