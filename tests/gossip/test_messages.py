"""The bytes of each message: another release must be able to read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.gossip.events import MemberState
from p2premap.gossip.messages import (
    MESSAGES,
    Ack,
    Buckets,
    CallBack,
    DigestRange,
    Digests,
    Entries,
    Evidence,
    FactEntry,
    Inquire,
    LoadEntry,
    MemberEntry,
    Ping,
    Rumours,
    Witness,
)
from p2premap.ids import Boot, Incarnation, NodeId
from p2premap.wire import Message, Registry

REGISTRY = Registry(MESSAGES, header_bytes_max=64 << 10)
A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
MEMBER = MemberEntry(
    node=A, boot=Boot(1), incarnation=Incarnation(2), state=MemberState.SUSPECT, name="n", addresses=(("::1", 7321),)
)
FACT = FactEntry(node=A, boot=Boot(1), version=3, key="k", value=b"v")
LOAD = LoadEntry(node=A, boot=Boot(1), version=4, value=b"12345")

A_HEX, B_HEX = "50" + "61" * 16, "50" + "62" * 16
MEMBER_HEX = f"87{A_HEX}010202616e8182633a3a31191c9900"
FACT_HEX = f"85{A_HEX}0103616b4176"
LOAD_HEX = f"84{A_HEX}0104453132333435"

GOLDEN: list[tuple[Message, str]] = [
    (
        Ping(nonce=1, root=2, members=(MEMBER,), facts=(FACT,), loads=(LOAD,)),
        f"86010102 81{MEMBER_HEX}81{FACT_HEX}81{LOAD_HEX}",
    ),
    (Ack(nonce=1, root=2**63 - 1), "860201 1b7fffffffffffffff 808080"),
    (Rumours(members=(MEMBER,)), f"840381{MEMBER_HEX}8080"),
    (Inquire(nonce=9, node=B, boot=Boot(5)), f"840409{B_HEX}05"),
    (Witness(nonce=9, evidence=Evidence.GONE), "83050903"),
    (Buckets(hashes=b"\1" * 512), "8206590200" + "01" * 512),
    (
        Digests(ranges=(DigestRange(bucket=3, low=0, high=7, hashes=b"8bytes!!"),)),
        "8207818403000748" + b"8bytes!!".hex(),
    ),
    (Entries(wanted=b"8bytes!!"), "85088080 48" + b"8bytes!!".hex() + "80"),
    (CallBack(caller=A, callee=B, addresses=(("10.0.0.1", 80),)), f"8409{A_HEX}{B_HEX}8182683130 2e302e302e311850"),
]


@pytest.mark.parametrize(
    ("message", "golden"), GOLDEN, ids=lambda v: type(v).__name__ if isinstance(v, Message) else ""
)
def test_golden_bytes(message: Message, golden: str) -> None:
    data = bytes.fromhex(golden.replace(" ", ""))
    assert REGISTRY.encode(message) == data
    assert REGISTRY.decode(data) == message


def test_every_message_has_golden_bytes() -> None:
    assert {type(message) for message, _ in GOLDEN} == set(MESSAGES)


def test_a_ping_is_small() -> None:
    assert len(REGISTRY.encode(Ping(nonce=2**63 - 1, root=2**63 - 1))) <= 24


@given(st.sampled_from(GOLDEN), st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_another_message_or_refused(golden: tuple[Message, str], at: int, value: int) -> None:
    data = bytearray(bytes.fromhex(golden[1].replace(" ", "")))
    data[at % len(data)] = value
    try:
        message = REGISTRY.decode(bytes(data))
    except RemoteProtocolError:
        return
    assert REGISTRY.decode(REGISTRY.encode(message)) == message
