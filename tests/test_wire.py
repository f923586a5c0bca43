"""The wire: what it carries whole, and what it refuses, whoever sends it."""

from __future__ import annotations

import contextlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import LocalProtocolError, RemoteProtocolError
from p2premap.ids import Ballot, NodeId
from p2premap.wire import (
    DEPTH_MAX,
    WIRE_VERSION,
    Frame,
    FrameDecoder,
    Message,
    NodeIdField,
    Record,
    Registry,
    decode_cbor,
    encode_frame,
)


class Point(Record, frozen=True, kw_only=True):
    x: int
    y: float = 0.5


class Hello(Message, tag=1, frozen=True, kw_only=True):
    node: NodeIdField
    ballot: Ballot
    points: tuple[Point, ...] = ()
    name: str | None = None


class Bye(Message, tag=2, frozen=True, kw_only=True):
    pass


class Stranger(Message, tag=3, frozen=True, kw_only=True):
    pass


NODE = NodeId(b"n" * 16)
HELLO = Hello(node=NODE, ballot=Ballot(1, 2, NODE), points=(Point(x=1), Point(x=2, y=3.0)), name="Zoë")
REGISTRY = Registry((Hello, Bye), header_bytes_max=4096)


def test_a_message_keeps_its_bytes_between_releases() -> None:
    """Golden bytes: a change here is a change of the wire version."""
    assert REGISTRY.encode(HELLO).hex() == (
        "8501506e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e830102506e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e"
        "828201fb3fe00000000000008202fb4008000000000000645a6fc3ab"
    )
    assert REGISTRY.decode(REGISTRY.encode(HELLO)) == HELLO
    assert REGISTRY.encode(Bye()).hex() == "8102"


def test_unknown_trailing_fields_of_a_later_release_are_ignored() -> None:
    assert REGISTRY.decode(cbor2.dumps([2, "new", 5])) == Bye()


@pytest.mark.parametrize(
    "item",
    [
        [9],
        [],
        {},
        None,
        "text",
        [1],
        [1, b"n" * 15, [1, 2, NODE]],
        [1, "bm5ubm5ubm5ubm5ubm5ubg==", [1, 2, NODE]],
        [1, NODE, [1, 2]],
        [1, NODE, [1, 2, NODE], [[1.5]]],
        [1, NODE, [True, 2, NODE]],
        [2.0],
        ["2"],
    ],
)
def test_wrong_shapes_are_refused(item: object) -> None:
    with pytest.raises(RemoteProtocolError, match="not a known message"):
        REGISTRY.decode(cbor2.dumps(item))


def test_no_cbor_tag_is_ever_decoded() -> None:
    """Tag 35 would compile a regular expression, tag 28 share references; nobody needs any of them."""
    for tag in (*range(1100), 43000, 55799, 65535, 1 << 32):
        for inner in (b"\x00", b"\x41a", b"\x61a", b"\x82\x00\x00", b"\xa0"):
            with pytest.raises(RemoteProtocolError):
                decode_cbor(cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1] + inner)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        cbor2.dumps([2]) + b"\x00",
        b"\xa2\x01\x01\x01\x01",
        b"\x81" * (DEPTH_MAX + 1) + b"\x00",
        b"\x9f\x02\xff",
        b"\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_malformed_input_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_cbor(data)


def test_caps_hold_on_both_sides() -> None:
    with pytest.raises(LocalProtocolError, match="over 4096"):
        REGISTRY.encode(Hello(node=NODE, ballot=Ballot(0, 0, NODE), name="x" * 5000))
    with pytest.raises(RemoteProtocolError, match="over 4096"):
        REGISTRY.decode(b"\x00" * 5000)
    with pytest.raises(LocalProtocolError, match="does not belong"):
        REGISTRY.encode(Stranger())
    with pytest.raises(LocalProtocolError, match="share a number"):
        Registry((Hello, Hello))


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_whole_however_they_arrive(payloads: list[bytes], pieces: list[int]) -> None:
    stream = b"".join(encode_frame(REGISTRY, HELLO, p) for p in payloads)
    decoder, frames, at, turn = FrameDecoder(REGISTRY), [], 0, 0
    while at < len(stream):
        step = pieces[turn % len(pieces)]
        frames += decoder.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert frames == [Frame(HELLO, p) for p in payloads]


def test_a_frame_over_the_cap_is_refused_by_its_head_alone() -> None:
    decoder = FrameDecoder(REGISTRY, payload_bytes_max=0)
    with pytest.raises(RemoteProtocolError, match="over the cap"):
        decoder.feed(encode_frame(REGISTRY, Bye(), b"x")[:9])
    with pytest.raises(RemoteProtocolError, match="version"):
        FrameDecoder(REGISTRY).feed(bytes([WIRE_VERSION + 1]))


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    for attempt in (data, bytes([WIRE_VERSION]) + data):
        with contextlib.suppress(RemoteProtocolError):
            FrameDecoder(REGISTRY).feed(attempt)
    with contextlib.suppress(RemoteProtocolError):
        REGISTRY.decode(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_never_raises_anything_else(place: int, byte: int) -> None:
    stream = bytearray(encode_frame(REGISTRY, HELLO, b"payload"))
    stream[place % len(stream)] = byte
    with contextlib.suppress(RemoteProtocolError):
        FrameDecoder(REGISTRY).feed(bytes(stream))
