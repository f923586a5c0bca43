"""Sealed datagrams: what is delivered, what is refused, and that a refused one changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.errors import LocalProtocolError
from p2premap.ids import NodeId
from p2premap.node import seal
from p2premap.node.seal import Opened, Refusal, Sealer

A, B, C = (NodeId(bytes([n]) * 16) for n in (1, 2, 3))
KEY = b"k" * 32


def drawn(seed: str) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def sealer(me: NodeId, seed: str = "", *, key: bytes = KEY, senders_max: int = 64) -> Sealer:
    return Sealer(me=me, gossip_key=key, randomness=drawn(f"{me.hex()}{seed}"), senders_max=senders_max)


def acquainted() -> tuple[Sealer, Sealer]:
    """Two nodes that have exchanged hellos."""
    a, b = sealer(A), sealer(B)
    a.trust(B, b.salt, b.counter)
    b.trust(A, a.salt, a.counter)
    return a, b


def opened(end: Sealer, data: bytes, now: float = 0.0) -> Opened:
    result = end.open(now, data)
    assert isinstance(result, Opened), result
    return result


def test_a_message_between_acquainted_nodes_arrives_without_a_reply() -> None:
    a, b = acquainted()
    got = opened(b, a.seal(B, b"hello"))
    assert got == Opened(sender=A, messages=(b"hello",), reply=b"")


def test_strangers_prove_themselves_fresh_before_anything_is_delivered() -> None:
    a, b = sealer(A), sealer(B)
    first = opened(b, a.seal(B, b"ping"))
    assert first.messages == ()
    second = opened(a, first.reply)
    assert second.messages == ()
    third = opened(b, second.reply)
    assert third.messages == (b"ping",)
    assert third.reply == b""
    assert opened(a, b.seal(A, b"ack")).messages == (b"ack",)  # the exchange was good for both directions


def test_a_replayed_datagram_is_refused() -> None:
    a, b = acquainted()
    data = a.seal(B, b"once")
    assert opened(b, data).messages == (b"once",)
    assert b.open(0.0, data) is Refusal.REPLAYED


def test_reordering_within_the_window_is_delivered_and_beyond_it_refused() -> None:
    a, b = acquainted()
    sent = [a.seal(B, b"%d" % n) for n in range(seal.WINDOW + 1)]
    assert opened(b, sent[-1]).messages
    order = list(range(1, seal.WINDOW))
    random.Random(1).shuffle(order)
    assert all(opened(b, sent[n]).messages == (b"%d" % n,) for n in order)
    assert b.open(0.0, sent[0]) is Refusal.REPLAYED
    assert all(b.open(0.0, data) is Refusal.REPLAYED for data in sent)


def test_a_restarted_sender_is_believed_after_one_round_trip() -> None:
    a, b = acquainted()
    assert opened(b, a.seal(B, b"old")).messages == (b"old",)
    a.renew()
    first = opened(b, a.seal(B, b"new"))
    assert first.messages == ()
    echoed = opened(a, first.reply)
    assert opened(b, echoed.reply).messages == (b"new",)
    assert opened(b, a.seal(B, b"newer")) == Opened(sender=A, messages=(b"newer",), reply=b"")


def test_a_recording_of_an_earlier_salt_is_never_delivered() -> None:
    """The attacker has every datagram of a's first life, and b has restarted since: it knows no counters."""
    a, _ = acquainted()
    recorded = [a.seal(B, b"%d" % n) for n in range(20)]
    a.renew()
    b = sealer(B, "second life")
    questions = []
    for data in recorded:
        result = opened(b, data)
        assert result.messages == ()
        questions.append(result.reply)
    # a itself answers the questions, under its present salt: that proves the present one only
    for question in questions:
        answer = a.open(0.0, question)
        if isinstance(answer, Opened) and answer.reply:
            assert opened(b, answer.reply).messages == ()
    for data in recorded:
        result = b.open(0.0, data)
        assert result is Refusal.REPLAYED or (isinstance(result, Opened) and result.messages == ())
    assert opened(b, a.seal(B, b"present")).messages == (b"present",)


def test_what_was_recorded_before_a_hello_does_not_count_after_it() -> None:
    a, b = sealer(A), sealer(B)
    recorded = a.seal(B, b"before")
    b.trust(A, a.salt, a.counter)
    assert b.open(0.0, recorded) is Refusal.REPLAYED


def test_a_recording_of_the_present_salt_from_before_the_proof_is_refused() -> None:
    """b has restarted; a has not, so its salt is good, but b cannot know which counters it has seen."""
    a, _ = acquainted()
    recorded = [a.seal(B, b"%d" % n) for n in range(3)]
    b = sealer(B, "second life")
    echo = opened(a, opened(b, a.seal(B, b"fresh")).reply).reply
    assert opened(b, echo).messages == (b"fresh",)
    assert [b.open(0.0, data) for data in recorded] == [Refusal.REPLAYED] * 3


def test_messages_wait_for_the_proof_only_a_short_time_and_only_a_few() -> None:
    a, b = sealer(A), sealer(B)
    replies = [opened(b, a.seal(B, b"%d" % n), now=0.0).reply for n in range(10)]
    echo = opened(a, replies[0]).reply
    assert opened(b, echo, now=seal.KEPT_S / 2).messages == tuple(b"%d" % n for n in range(seal.KEPT_MESSAGES_MAX))
    a, b = sealer(A, "2"), sealer(B, "2")
    echo = opened(a, opened(b, a.seal(B, b"x"), now=0.0).reply).reply
    assert opened(b, echo, now=seal.KEPT_S * 2).messages == ()


def test_another_key_another_receiver_and_our_own_are_refused() -> None:
    a, b = acquainted()
    assert sealer(B, key=b"x" * 32).open(0.0, a.seal(B, b"m")) is Refusal.FORGED
    assert b.open(0.0, a.seal(C, b"m")) is Refusal.FORGED
    assert a.open(0.0, a.seal(B, b"m")) is Refusal.OWN


def test_no_datagram_is_larger_than_1200_bytes() -> None:
    a, b = sealer(A), sealer(B)
    largest = a.seal(B, bytes(seal.MESSAGE_BYTES_MAX))
    assert len(largest) <= 1200
    assert opened(b, largest).reply
    with pytest.raises(LocalProtocolError):
        a.seal(B, bytes(seal.MESSAGE_BYTES_MAX + 1))


def test_tables_are_bounded_and_a_forgotten_sender_proves_itself_again() -> None:
    b = sealer(B, senders_max=8)
    for n in range(2_000):
        peer = NodeId(n.to_bytes(16, "big"))
        opened(b, sealer(peer).seal(B, b"m"))
    counts = b.statistics()
    assert counts["senders"] <= 8
    assert counts["unproved"] <= seal.UNPROVED_MAX


def test_a_nonce_is_never_used_twice_under_a_salt() -> None:
    a = sealer(A)
    seen = set()
    for n in range(1_000):
        if n % 100 == 99:
            a.renew()
        data = a.seal(B if n % 2 else C, b"m")
        assert data[17:41] not in seen
        seen.add(data[17:41])


@given(data=st.binary(max_size=1_400))
def test_noise_is_refused_and_changes_nothing(data: bytes) -> None:
    _, b = acquainted()
    before = (b.salt, b.counter, b.statistics()["senders"], b.statistics()["unproved"])
    assert isinstance(b.open(0.0, data), Refusal)
    assert (b.salt, b.counter, b.statistics()["senders"], b.statistics()["unproved"]) == before


@settings(max_examples=300)
@given(place=st.integers(0, 200), value=st.integers(1, 255), cut=st.integers(0, 200), message=st.binary(max_size=64))
def test_a_changed_datagram_is_refused_and_the_genuine_one_still_counts(
    place: int, value: int, cut: int, message: bytes
) -> None:
    a, b = acquainted()
    genuine = a.seal(B, b"m" + message)
    mutated = bytearray(genuine)
    mutated[place % len(mutated)] ^= value
    assert isinstance(b.open(0.0, bytes(mutated)), Refusal)
    assert isinstance(b.open(0.0, genuine[: cut % len(genuine)]), Refusal)
    assert opened(b, genuine).messages == (b"m" + message,)


class Wire:
    """Carries datagrams between two ends; an attacker repeats, delays and drops them as it likes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ends = {A: sealer(A), B: sealer(B)}
        self.lives = {A: 0, B: 0}
        self.recorded: list[tuple[NodeId, bytes]] = []
        self.delivered: list[tuple[NodeId, bytes]] = []
        self.sent = 0

    def send(self, sender: NodeId) -> None:
        to = B if sender == A else A
        self.recorded.append((to, self.ends[sender].seal(to, b"%d" % self.sent)))
        self.sent += 1

    def deliver(self) -> None:
        if not self.recorded:
            return
        to, data = self.rng.choice(self.recorded[-50:] if self.rng.random() < 0.7 else self.recorded)
        result = self.ends[to].open(0.0, data)
        if isinstance(result, Opened):
            self.delivered += [(to, m) for m in result.messages]
            if result.reply:
                self.recorded.append((result.sender, result.reply))


@pytest.mark.parametrize("seed", range(30))
def test_under_any_order_repetition_and_salt_change_nothing_is_delivered_twice(seed: int) -> None:
    wire = Wire(random.Random(seed))
    for _ in range(1_500):
        draw = wire.rng.random()
        if draw < 0.3:
            wire.send(wire.rng.choice((A, B)))
        elif draw < 0.31:
            wire.ends[wire.rng.choice((A, B))].renew()
        else:
            wire.deliver()
    assert len(set(wire.delivered)) == len(wire.delivered)
    assert len(wire.delivered) > 50
