"""Hints, idle links, wanted links, healing: whom a node dials, when, and when it lets be."""

from __future__ import annotations

from itertools import pairwise

import pytest

from p2premap.config import GossipConfig
from p2premap.gossip.events import Dial, DialOutcome, Hangup, Hinted, MemberState, SendDatagram, SendLink, WantLink
from p2premap.gossip.messages import CallBack, MemberEntry, Ping, Rumours
from p2premap.ids import Address, NodeId
from tests.gossip.dialogue import ME, Dialogue, address, record
from tests.gossip.harness import node_id

DEAD = MemberState.DEAD


def dials(d: Dialogue) -> list[tuple[float, Dial]]:
    return [(at, e) for at, e in d.log if isinstance(e, Dial)]


def answer_all(d: Dialogue, until: float, outcome: DialOutcome = DialOutcome.SILENT) -> list[tuple[float, Address]]:
    """Time passes, every dial ends so; when each was made."""
    made: list[tuple[float, Address]] = []
    while d.core.deadline() <= until:
        d.tick()
        waiting = d.asked(Dial)
        while waiting:
            dial = waiting.pop(0)
            made.append((d.now, dial.address))
            d.ended(dial, outcome)
            waiting += d.asked(Dial)
    d.now = until
    return made


# --- hints ---------------------------------------------------------------------------------------------------------


def test_a_hint_is_dialled_at_once_and_kept() -> None:
    d = Dialogue()
    d.give(Hinted(address=address(1), node=node_id(1)))
    (dial,) = d.asked(Dial)
    assert (dial.address, dial.keep) == (address(1), True)


def test_a_hint_about_a_living_member_or_ourselves_is_no_news() -> None:
    d = Dialogue(3)
    assert d.give(Hinted(address=address(1), node=node_id(1))) == []
    assert d.give(Hinted(address=address(0), node=None)) == []
    assert d.give(Hinted(address=address(7), node=ME)) == []


def test_a_hint_about_a_dead_member_is() -> None:
    d = Dialogue(3)
    d.hear(1, Rumours(members=(record(2, state=DEAD),)))
    d.give(Hinted(address=address(2), node=node_id(2)))
    assert len(d.asked(Dial)) == 1


def test_hints_are_tried_a_little_apart_and_a_few_at_a_time() -> None:
    d = Dialogue()
    for n in range(1, 10):
        d.give(Hinted(address=address(n), node=node_id(n)))
    d.until(0.9)
    assert [(at, dial.address) for at, dial in dials(d)] == [
        (pytest.approx(0.15 * i), address(i + 1)) for i in range(3)
    ]
    d.ended(dials(d)[0][1], DialOutcome.SILENT)
    assert [dial.address for dial in d.asked(Dial)] == [address(4)]


def test_a_hint_that_fails_makes_room_for_the_next_at_once() -> None:
    d = Dialogue()
    for n in range(1, 4):
        d.give(Hinted(address=address(n), node=node_id(n)))
    d.ended(dials(d)[0][1], DialOutcome.REFUSED)
    assert [dial.address for dial in d.asked(Dial)] == [address(2)]


def test_a_first_contact_makes_the_other_hints_superfluous() -> None:
    d = Dialogue()
    for n in range(1, 10):
        d.give(Hinted(address=address(n), node=node_id(n)))
    d.hear(1, Rumours(members=tuple(record(n) for n in range(1, 10))))
    d.ended(dials(d)[0][1], DialOutcome.CONNECTED, by=1)
    assert d.core.statistics().hints == 0
    assert len(dials(d)) == 1


def test_failed_hints_are_tried_again_ever_more_rarely() -> None:
    d = Dialogue()
    d.give(Hinted(address=address(1), node=None))
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    times = [0.0] + [at for at, _ in answer_all(d, 400.0, DialOutcome.REFUSED)]
    waits = [b - a for a, b in pairwise(times)]
    assert 0.18 <= waits[0] <= 0.32
    assert max(waits) <= 75.0
    assert waits[-1] >= 45.0
    assert len(times) < 20


@pytest.mark.parametrize("outcome", [DialOutcome.FOREIGN, DialOutcome.INCOMPATIBLE])
def test_strangers_are_left_alone(outcome: DialOutcome) -> None:
    d = Dialogue()
    d.give(Hinted(address=address(1), node=None))
    d.ended(d.asked(Dial)[0], outcome)
    for second in range(40):
        d.now = float(second)
        d.give(Hinted(address=address(1), node=None))  # mDNS says so again and again
        assert d.asked(Dial) == []
    assert len(answer_all(d, 80.0, outcome)) == 1


def test_an_address_that_turns_out_to_be_our_own_is_left_alone() -> None:
    d = Dialogue()
    d.give(Hinted(address=address(1), node=None))
    d.ended(d.asked(Dial)[0], DialOutcome.CONNECTED, by=0)
    d.now = 30.0
    assert d.give(Hinted(address=address(1), node=None)) == []


def test_a_hint_that_comes_again_is_tried_sooner() -> None:
    d = Dialogue()
    d.give(Hinted(address=address(1), node=None))
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    answer_all(d, 130.0, DialOutcome.REFUSED)
    last = dials(d)[-1][0]
    d.now = max(d.now, last + 1.0)
    d.give(Hinted(address=address(1), node=None))
    made = answer_all(d, last + 5.1, DialOutcome.REFUSED)
    assert made or d.asked(Dial)


def test_the_number_of_hints_is_bounded() -> None:
    d = Dialogue(config=GossipConfig(hints_max=4))
    for n in range(1, 10):
        d.give(Hinted(address=address(n), node=None))
        assert d.core.statistics().hints <= 4


# --- the ring ------------------------------------------------------------------------------------------------------


def ring_dialled(d: Dialogue, *members: MemberEntry) -> None:
    """The ring changes; its links are dialled when the bustle is over."""
    d.hear(1, Rumours(members=members))
    changed = d.now
    while not d.asked(Dial):
        d.tick()
    assert 0.2 <= d.now - changed <= 0.4


def test_a_node_keeps_links_to_its_three_successors() -> None:
    d = Dialogue()
    ring_dialled(d, *(record(n) for n in range(1, 9)))
    successors = d.core._context.table.neighbours(ME, 3)
    assert [(dial.address, dial.keep) for dial in d.asked(Dial)] == [
        (address(n), True) for s in successors for n in range(1, 9) if node_id(n) == s
    ]


def test_a_death_makes_room_for_the_next_successor() -> None:
    d = Dialogue()
    ring_dialled(d, *(record(n) for n in range(1, 9)))
    first, *_, fourth = d.core._context.table.neighbours(ME, 4)
    (gone,) = [n for n in range(1, 9) if node_id(n) == first]
    (new,) = [n for n in range(1, 9) if node_id(n) == fourth]
    ring_dialled(d, record(gone, state=DEAD))
    assert [dial.address for dial in d.asked(Dial)] == [address(new)]


def test_a_successor_that_cannot_be_dialled_is_tried_ever_more_rarely() -> None:
    d = Dialogue()
    ring_dialled(d, record(1))
    (first,) = d.asked(Dial)
    d.ended(first, DialOutcome.SILENT)
    made = []
    while d.core.deadline() < 200.0:
        d.tick()
        for e in d.asked(Dial):
            if e.keep:
                made.append(d.now)
                d.ended(e, DialOutcome.SILENT)
        for e in [e for e in d.log[-5:] if hasattr(e[1], "message") and isinstance(e[1].message, Ping)]:
            d.ack(e[1])
    assert 5 <= len(made) <= 15


def test_several_addresses_are_tried_one_after_another_a_little_apart() -> None:
    d = Dialogue()
    entry = record(1)
    two = entry.__class__(
        node=entry.node,
        boot=entry.boot,
        incarnation=entry.incarnation,
        state=entry.state,
        name=entry.name,
        addresses=(address(1), address(2)),
    )
    ring_dialled(d, two)
    (first,) = d.asked(Dial)
    begun = d.now
    d.until(begun + 0.2)
    second = dials(d)[1]
    assert (first.address, second[1].address) == (address(1), address(2))
    assert second[0] == pytest.approx(begun + 0.15)
    d.ended(second[1], DialOutcome.CONNECTED, by=1)
    d.ended(first, DialOutcome.SILENT)
    assert d.asked(Dial) == []


def test_a_link_that_closed_without_a_death_is_dialled_again() -> None:
    d = Dialogue(9)
    successor = next(n for n in range(1, 10) if node_id(n) == d.core._links.ring[0])
    d.link(successor)
    d.quiet(d.now + 1)
    d.unlink(successor)
    d.ack(next(e for e in d.effects if isinstance(e, SendDatagram)))
    d.log = []
    d.quiet(d.now + 5.1)
    assert address(successor) in [dial.address for _, dial in dials(d)]


def test_a_successor_that_dialled_us_is_dialled_back_once_for_the_hello_alone() -> None:
    d = Dialogue(9)
    successor = next(n for n in range(1, 10) if node_id(n) == d.core._links.ring[0])
    d.link(successor, dialled=False)
    linked = d.now
    d.log = []
    while not d.asked(Dial):
        d.tick()
    (dial,) = d.asked(Dial)
    assert (dial.address, dial.keep) == (address(successor), False)
    assert d.now == pytest.approx(linked + 0.5)
    d.ended(dial, DialOutcome.CONNECTED, by=successor)
    d.log = []
    d.quiet(d.now + 20)
    assert address(successor) not in [dial.address for _, dial in dials(d)]


# --- wanted links --------------------------------------------------------------------------------------------------


def test_a_wanted_link_is_dialled_once() -> None:
    d = Dialogue(9)
    far = next(n for n in range(2, 10) if node_id(n) not in d.core._links.ring)
    d.give(WantLink(peer=node_id(far)))
    assert [dial.address for dial in d.asked(Dial)] == [address(far)]
    d.give(WantLink(peer=node_id(far)))
    assert d.asked(Dial) == []
    d.link(far)
    d.give(WantLink(peer=node_id(far)))
    assert d.effects == []


def test_who_cannot_be_dialled_is_asked_through_its_successors() -> None:
    d = Dialogue(9)
    far = next(n for n in range(2, 10) if node_id(n) not in d.core._links.ring)
    d.give(WantLink(peer=node_id(far)))
    d.ended(d.asked(Dial)[0], DialOutcome.SILENT)
    asked = d.sent(CallBack)
    successors = [n for n in d.core._context.table.neighbours(node_id(far), 4) if n != ME]
    assert [p for p, _ in asked] == successors
    assert {m for _, m in asked} == {CallBack(caller=ME, callee=node_id(far), addresses=(address(0),))}


def test_a_call_back_is_passed_on_to_a_linked_peer_only() -> None:
    d = Dialogue(4)
    message = CallBack(caller=node_id(1), callee=node_id(2), addresses=(address(1),))
    assert d.hear(1, message) == []
    d.link(2)
    assert d.hear(1, message) == [SendLink(peer=node_id(2), message=message)]


def test_who_is_called_dials_unless_there_is_a_link() -> None:
    d = Dialogue(4)
    message = CallBack(caller=node_id(1), callee=ME, addresses=(address(1),))
    d.hear(3, message)
    assert [(dial.address, dial.keep) for dial in d.asked(Dial)] == [(address(1), True)]
    d.link(1)
    assert d.hear(3, message) == []


# --- healing and tidiness ------------------------------------------------------------------------------------------


def test_a_dead_member_is_dialled_every_five_seconds_one_who_left_never() -> None:
    d = Dialogue()
    d.hear(1, Rumours(members=(record(1, state=DEAD), record(2, state=MemberState.LEFT))))
    made = answer_all(d, 51.0)
    assert 9 <= len(made) <= 11
    assert {a for _, a in made} == {address(1)}


def hung_up(d: Dialogue) -> list[NodeId]:
    return [e.peer for _, e in d.log if isinstance(e, Hangup)]


def test_surplus_links_are_closed_but_not_by_a_node_that_nobody_can_dial() -> None:
    d = Dialogue(9)
    far = next(n for n in range(2, 10) if node_id(n) not in d.core._links.ring)
    d.link(far)
    d.quiet(d.now + 30)
    assert hung_up(d) == []
    d.link(1, dialled=False)
    d.quiet(d.now + 30)
    assert hung_up(d) == [node_id(far)]
    assert d.unlink(far) == []  # its end is no reason to look after the peer


def test_wanted_links_are_kept() -> None:
    d = Dialogue(9)
    far = next(n for n in range(2, 10) if node_id(n) not in d.core._links.ring)
    d.link(far)
    d.link(1, dialled=False)
    d.give(WantLink(peer=node_id(far)))
    d.quiet(d.now + 30)
    assert hung_up(d) == []


def test_a_dead_member_may_object_over_an_open_link_for_a_while() -> None:
    d = Dialogue(3)
    d.link(2)
    d.hear(1, Rumours(members=(record(2, state=DEAD),)))
    pings = [m for p, m in d.sent(Ping) if p == node_id(2)]
    assert record(2, state=DEAD) in pings[0].members
    d.quiet(d.now + 4.9)
    assert hung_up(d) == []
    d.quiet(d.now + 6)
    assert hung_up(d) == [node_id(2)]
