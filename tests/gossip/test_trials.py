"""Probes, lost links, inquiries and doubts, as dialogues with exact times."""

from __future__ import annotations

import pytest

from p2premap.config import GossipConfig
from p2premap.gossip.events import Dial, DialOutcome, MemberState, SendDatagram, SendLink, Woke
from p2premap.gossip.messages import Ack, Evidence, Inquire, Ping, Rumours, Witness
from p2premap.ids import Boot
from tests.gossip.dialogue import ME, Dialogue, address, record
from tests.gossip.harness import node_id

SUSPECT, STALLED, DEAD, ALIVE = MemberState.SUSPECT, MemberState.STALLED, MemberState.DEAD, MemberState.ALIVE


def jurors(d: Dialogue) -> list[int]:
    return [n for n in range(20) for peer, _ in d.sent(Inquire) if peer == node_id(n)]


def until_asked(d: Dialogue, number: int) -> int:
    """Let time pass, others answering, until jurors are asked about this member; the nonce."""
    while not [m for _, m in d.sent(Inquire) if m.node == node_id(number)]:
        for effect in d.tick():
            if isinstance(effect, SendDatagram) and isinstance(effect.message, Ping) and effect.peer != node_id(number):
                asked = d.effects
                d.ack(effect)
                d.effects = asked
    return next(m.nonce for _, m in d.sent(Inquire) if m.node == node_id(number))


def answer(d: Dialogue, nonce: int, juror: int, evidence: Evidence) -> None:
    d.hear(juror, Witness(nonce=nonce, evidence=evidence))


# --- probes --------------------------------------------------------------------------------------------------------


def test_a_probe_pings_twice_then_asks_three_jurors_and_dials_then_suspects() -> None:
    d = Dialogue(6)
    ping = d.next_probe(4)
    start = d.now
    assert ping.address == address(4)
    d.tick()
    assert d.now == pytest.approx(start + 0.1)
    assert [(p, m.nonce) for p, m in d.sent(Ping)] == [(node_id(4), ping.message.nonce)]
    d.tick()
    assert d.now == pytest.approx(start + 0.2)
    assert len(d.sent(Inquire)) == 3
    assert {m.node for _, m in d.sent(Inquire)} == {node_id(4)}
    assert node_id(4) not in [p for p, _ in d.sent(Inquire)]
    (dial,) = d.asked(Dial)
    assert (dial.address, dial.keep) == (address(4), False)
    assert d.now + dial.timeout_s < start + 0.5
    d.ended(dial, DialOutcome.SILENT)
    assert d.changes() == []
    while d.state(4) == ALIVE:
        d.tick()
    assert d.now == pytest.approx(start + 0.5)
    assert d.state(4) == SUSPECT
    # the suspect is the first to be told, that it may refute
    assert (node_id(4), record(4, state=SUSPECT)) in [(p, m.members[0]) for p, m in d.sent(Ping)]


def test_jurors_are_the_nodes_before_the_target_on_the_ring() -> None:
    d = Dialogue(8)
    d.next_probe(4)
    until_asked(d, 4)
    ring = sorted(node_id(n) for n in range(9))
    at = ring.index(node_id(4))
    before = [ring[(at - i) % 9] for i in range(1, 9)]
    assert [p for p, _ in d.sent(Inquire)] == [n for n in before if n != ME][:3]


def test_an_ack_ends_a_probe_and_a_wrong_one_does_not() -> None:
    d = Dialogue(4)
    ping = d.next_probe(3)
    start = d.now
    nonce = ping.message.nonce
    d.hear(2, Ack(nonce=nonce, root=d.core.root_hash))  # another's ack of that nonce
    d.hear(3, Ack(nonce=nonce + 1, root=d.core.root_hash))  # not an answer to this
    assert d.core.statistics().trials == 1
    d.ack(ping)
    assert d.core.statistics().trials == 0
    d.until(start + 0.3)
    assert d.state(3) == ALIVE


def test_a_jurors_answer_means_a_fault_of_the_link() -> None:
    d = Dialogue(4)
    ping = d.next_probe(3)
    d.tick()
    d.tick()
    answer(d, ping.message.nonce, jurors(d)[0], Evidence.ANSWERED)
    assert d.core.statistics().trials == 0
    assert d.core.statistics().counters.link_faults == 1
    assert d.state(3) == ALIVE


def test_a_testimony_that_nobody_asked_for_counts_for_nothing() -> None:
    d = Dialogue(4)
    ping = d.next_probe(3)
    answer(d, ping.message.nonce, 2, Evidence.ANSWERED)
    assert d.core.statistics().trials == 1


def test_targets_alternate_between_the_successor_and_the_others() -> None:
    d = Dialogue(6)
    successor = d.core._context.table.neighbours(ME, 1)[0]
    peers = []
    for _ in range(24):
        ping = d.next_probe()
        peers.append(ping.peer)
        d.ack(ping)
    assert peers[::2].count(successor) == 12 or peers[1::2].count(successor) == 12
    assert set(peers) == {node_id(n) for n in range(1, 7)}


def test_local_health_stretches_the_timeouts() -> None:
    d = Dialogue(4)
    ping = d.next_probe()
    d.ack(ping)
    d.give(Woke(lost_s=5.0))
    assert d.core.statistics().health == 1
    first = d.next_probe()
    start = d.now
    d.tick()
    while first.peer not in [p for p, _ in d.sent(Ping)]:
        d.tick()
    assert d.now == pytest.approx(start + 0.2)


# --- a suspect -----------------------------------------------------------------------------------------------------


def suspect(d: Dialogue, number: int) -> float:
    """Let a member become SUSPECT by silence; when it did."""
    d.next_probe(number)
    while d.state(number) == ALIVE:
        d.tick()
        for dial in d.asked(Dial):
            d.ended(dial, DialOutcome.SILENT)
    return d.now


def test_a_suspect_is_dead_after_two_seconds_of_the_same_evidence() -> None:
    d = Dialogue(4)
    since = suspect(d, 3)
    d.quiet(since + 1.99)
    assert d.state(3) == SUSPECT
    d.quiet(since + 2.01)
    assert d.state(3) == DEAD


def test_of_two_nodes_one_waits_four_seconds() -> None:
    d = Dialogue(1)
    since = suspect(d, 1)
    d.quiet(since + 3.99)
    assert d.state(1) == SUSPECT
    d.quiet(since + 4.01)
    assert d.state(1) == DEAD


def test_a_suspect_refutes_by_a_higher_incarnation_only() -> None:
    d = Dialogue(4)
    suspect(d, 3)
    d.hear(3, Rumours(members=(record(3),)))
    assert d.state(3) == SUSPECT
    d.hear(3, Rumours(members=(record(3, incarnation=1),)))
    assert (d.state(3), d.changes()) == (ALIVE, [(node_id(3), ALIVE)])
    d.quiet(d.now + 0.9)
    assert d.core.statistics().doubts == 0


def test_a_suspect_that_answers_somebody_is_not_declared_dead() -> None:
    d = Dialogue(4)
    since = suspect(d, 3)
    nonce = until_asked(d, 3)
    answer(d, nonce, jurors(d)[0], Evidence.ANSWERED)
    d.quiet(since + 2.5)
    assert d.state(3) == SUSPECT


def test_a_suspect_whose_kernel_still_accepts_waits_like_a_stalled_one() -> None:
    d = Dialogue(4)
    since = suspect(d, 3)
    while d.now < since + 10:
        for effect in d.tick():
            if isinstance(effect, Dial):
                d.ended(effect, DialOutcome.STALLED)
            elif isinstance(effect, SendDatagram) and isinstance(effect.message, Ping) and d.state_of(effect) == ALIVE:
                d.ack(effect)
    assert d.state(3) == SUSPECT


def test_a_rumour_of_a_suspicion_is_looked_into_when_nobody_ends_it() -> None:
    d = Dialogue(4)
    d.hear(1, Rumours(members=(record(3, state=SUSPECT),)))
    heard = d.now
    assert d.sent(Inquire) == []
    d.quiet(heard + 3.9)
    assert d.state(3) == SUSPECT
    d.quiet(heard + 8 + 0.5 + 2 + 0.1)
    assert d.state(3) == DEAD


# --- stalled -------------------------------------------------------------------------------------------------------


def test_a_stalled_member_is_dead_after_fifteen_seconds_not_before() -> None:
    d = Dialogue(4)
    d.next_probe(3)
    since = 0.0
    while d.state(3) != DEAD:
        for effect in d.tick():
            if isinstance(effect, Dial):
                d.ended(effect, DialOutcome.STALLED if effect.address == address(3) else DialOutcome.SILENT)
            elif isinstance(effect, SendDatagram) and isinstance(effect.message, Ping) and effect.peer != node_id(3):
                d.ack(effect)
        if not since and d.state(3) == STALLED:
            since = d.now
    assert since > 0
    assert d.now - since == pytest.approx(15.0, abs=0.01)


# --- a lost link ---------------------------------------------------------------------------------------------------


def lost(others: int = 4, number: int = 3) -> Dialogue:
    """A member whose link just closed: its first ping is out."""
    d = Dialogue(others)
    d.link(number)
    d.until(d.now + 0.3)
    d.unlink(number)
    assert [p for p, _ in d.sent(Ping)] == [node_id(number)]
    assert d.asked(Dial) == []
    return d


def test_a_closed_link_and_two_refusals_and_one_juror_are_a_death() -> None:
    d = lost()
    start = d.now
    d.tick()
    assert d.now == pytest.approx(start + 0.02)
    (dial,) = d.asked(Dial)
    nonce = d.sent(Inquire)[0][1].nonce
    juror = jurors(d)[0]
    d.ended(dial, DialOutcome.REFUSED)
    answer(d, nonce, juror, Evidence.GONE)
    assert d.state(3) == ALIVE  # refused once: a connection to a process just killed may go either way
    d.until(start + 0.069)
    d.tick()
    (again,) = d.asked(Dial)
    assert d.now == pytest.approx(start + 0.07)
    d.ended(again, DialOutcome.REFUSED)
    assert d.changes() == [(node_id(3), DEAD)]
    # and is told to three at once, without waiting for a tick
    told = [p for p, m in d.sent(Rumours) if record(3, state=DEAD) in m.members]
    assert len(told) == 3


@pytest.mark.parametrize("voice", [Evidence.SILENT, Evidence.STALLED, None])
def test_without_a_jurors_agreement_it_is_no_death(voice: Evidence | None) -> None:
    d = lost()
    d.tick()
    (dial,) = d.asked(Dial)
    nonce, juror = d.sent(Inquire)[0][1].nonce, jurors(d)[0]
    if voice is not None:
        answer(d, nonce, juror, voice)
    d.ended(dial, DialOutcome.REFUSED)
    while not d.asked(Dial):
        d.tick()
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    assert d.state(3) == ALIVE
    d.until(d.now + 0.6)
    assert d.state(3) == (STALLED if voice == Evidence.STALLED else SUSPECT)


def test_with_two_nodes_no_juror_is_needed() -> None:
    d = lost(1, 1)
    d.tick()
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    d.tick()
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    assert d.state(1) == DEAD


def test_jurors_who_all_abstain_are_no_jurors() -> None:
    d = lost(2, 2)
    d.tick()
    (dial,) = d.asked(Dial)
    ((_, inquiry),) = d.sent(Inquire)
    answer(d, inquiry.nonce, 1, Evidence.ABSTAINS)
    d.ended(dial, DialOutcome.REFUSED)
    while not d.asked(Dial):
        d.tick()
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    assert d.state(2) == DEAD


def test_an_ack_after_a_closed_link_costs_nothing_more() -> None:
    d = lost()
    ping = next(e for e in d.effects if isinstance(e, SendDatagram))
    d.ack(ping)
    d.until(d.now + 0.1)
    assert not [e for _, e in d.log if isinstance(e, SendDatagram) and isinstance(e.message, Inquire)]
    assert d.state(3) == ALIVE


def test_another_id_at_the_proven_address_is_gone_too() -> None:
    d = lost()
    d.tick()
    nonce, juror = d.sent(Inquire)[0][1].nonce, jurors(d)[0]
    d.ended(d.asked(Dial)[0], DialOutcome.CONNECTED, by=9)
    answer(d, nonce, juror, Evidence.GONE)
    assert d.state(3) == DEAD


def test_the_closing_link_of_an_earlier_boot_means_nothing() -> None:
    d = Dialogue(4)
    d.link(3, boot=1)
    d.hear(3, Rumours(members=(record(3, boot=2),)))
    d.link(3, boot=2)
    assert d.unlink(3, boot=1) == []


def test_a_new_boot_ends_the_trial_of_the_old() -> None:
    d = lost()
    d.hear(3, Rumours(members=(record(3, boot=2),)))
    assert d.core.statistics().trials == 0
    assert d.state(3) == ALIVE


# --- a juror -------------------------------------------------------------------------------------------------------


def inquire(d: Dialogue, number: int = 3) -> None:
    d.hear(1, Inquire(nonce=77, node=node_id(number), boot=Boot(1)))


def test_a_juror_pings_and_dials_at_once_and_tells_of_an_answer_at_once() -> None:
    d = Dialogue(4)
    inquire(d)
    (ping,) = [e for e in d.asked(SendDatagram) if isinstance(e.message, Ping)]
    assert len(d.asked(Dial)) == 1
    assert d.sent(Inquire) == []
    d.ack(ping)
    assert d.sent(Witness) == [(node_id(1), Witness(nonce=77, evidence=Evidence.ANSWERED))]


def test_a_juror_that_never_met_the_node_abstains() -> None:
    d = Dialogue(4)
    inquire(d)
    asked = d.now
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    assert d.sent(Witness) == []
    while not d.sent(Witness):
        d.tick()
    assert d.sent(Witness) == [(node_id(1), Witness(nonce=77, evidence=Evidence.ABSTAINS))]
    assert d.now < asked + 0.3  # in time for an accuser that asked at 200 ms and decides at 500 ms


@pytest.mark.parametrize(
    ("outcome", "evidence"), [(DialOutcome.SILENT, Evidence.SILENT), (DialOutcome.STALLED, Evidence.STALLED)]
)
def test_a_juror_tells_what_its_dial_found(outcome: DialOutcome, evidence: Evidence) -> None:
    d = Dialogue(4)
    d.link(3)
    inquire(d)
    d.ended(d.asked(Dial)[0], outcome)
    while not d.sent(Witness):
        d.tick()
    assert d.sent(Witness) == [(node_id(1), Witness(nonce=77, evidence=evidence))]


def test_a_juror_tells_of_two_refusals_as_soon_as_it_has_them() -> None:
    d = Dialogue(4)
    d.link(3)
    inquire(d)
    asked = d.now
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    d.tick()
    assert d.now == pytest.approx(asked + 0.05)
    d.ended(d.asked(Dial)[0], DialOutcome.REFUSED)
    assert d.sent(Witness) == [(node_id(1), Witness(nonce=77, evidence=Evidence.GONE))]


def test_an_inquiry_over_a_link_is_answered_over_it() -> None:
    d = Dialogue(4)
    d.link(1)
    d.hear(1, Inquire(nonce=5, node=node_id(3), boot=Boot(1)), link=True)
    while not d.sent(Witness):
        d.tick()
        for dial in d.asked(Dial):
            d.ended(dial, DialOutcome.SILENT)
    assert SendLink(peer=node_id(1), message=Witness(nonce=5, evidence=Evidence.ABSTAINS)) in d.effects


def test_a_juror_asks_over_its_link_too_since_the_node_may_have_no_other_way() -> None:
    d = Dialogue(4)
    d.link(3, dialled=False)
    inquire(d)
    assert [type(e) for e in d.effects if getattr(e, "peer", None) == node_id(3)] == [SendDatagram, SendLink]


def test_inquiries_about_oneself_and_floods_of_them_are_bounded() -> None:
    d = Dialogue(4, config=GossipConfig())
    assert d.hear(1, Inquire(nonce=1, node=ME, boot=Boot(1))) == []
    for n in range(400):
        d.hear(1, Inquire(nonce=n, node=node_id(1000 + n), boot=Boot(1)))
    assert d.core.statistics().trials <= 256


# --- our own stall -------------------------------------------------------------------------------------------------


def test_time_that_was_lost_is_credited_to_a_running_trial() -> None:
    d = Dialogue(4)
    ping = d.next_probe(3)
    start = d.now
    d.now += 60.0
    d.give(Woke(lost_s=60.0))
    d.until(start + 60.0 + 0.09)
    assert d.state(3) == ALIVE
    d.ack(ping)
    assert d.core.statistics().trials == 0


def test_who_woke_raises_its_incarnation_and_says_so() -> None:
    d = Dialogue(4)
    d.give(Woke(lost_s=60.0))
    assert d.core.own.incarnation == 1
    assert all(d.core.own in m.members for _, m in d.sent(Rumours))
    assert len(d.sent(Rumours)) == 3
