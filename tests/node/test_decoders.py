"""Everything that decodes what strangers may send: any bytes end in a known error or a valid message, never else.

The deep run feeds a million mutated frames through the decoders of every kind of stream::

    pytest -m deep tests/node/test_decoders.py
    python -m tests.node.fuzz_frames --start 0 --count 1000000
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.node.hello import (
    HELLO,
    Hello,
    HelloRefused,
    Peer,
    Purpose,
    Reason,
    hello_decoder,
    hello_frame,
    read_hello,
)
from p2premap.node.links import ON_LINK
from p2premap.node.seal import SALT_BYTES
from p2premap.wire import FrameDecoder, UnknownVersion
from tests.node import fuzz_frames

GENUINE = Hello(
    purpose=Purpose.LINK, node=b"n" * 16, boot=3, version="1", name="x", addresses=(("10.0.0.1", 7321),), salt=b"s" * 16
)


def test_a_hello_is_read_from_any_pieces_and_takes_nothing_beyond_itself() -> None:
    data = hello_frame(GENUINE) + b"what follows"
    decoder = hello_decoder()
    for byte in data[: -len("what follows") - 1]:
        decoder.push(bytes((byte,)))
        assert read_hello(decoder, GENUINE.node) is None
        assert decoder.missing >= 1
    decoder.push(data[-len("what follows") - 1 :])
    peer = read_hello(decoder, GENUINE.node)
    assert isinstance(peer, Peer)
    assert (peer.boot, peer.purpose, peer.addresses[0].port, peer.salt) == (3, Purpose.LINK, 7321, b"s" * SALT_BYTES)
    with pytest.raises(UnknownVersion):
        decoder.next()  # "w" is no version


def hello_from(data: bytes) -> Peer | None:
    decoder = hello_decoder()
    decoder.push(data)
    return read_hello(decoder, GENUINE.node)


@given(data=st.binary(max_size=300))
@example(data=hello_frame(GENUINE))
@example(data=b"\x01\x00\x00\x00\x01\x00\x00\x00\x00\x80")
@example(data=b"\x02")
def test_no_bytes_make_the_hello_fail_otherwise(data: bytes) -> None:
    try:
        peer = hello_from(data)
    except RemoteProtocolError:
        return
    assert peer is None or peer.node == GENUINE.node


@settings(max_examples=500)
@given(place=st.integers(0, 200), value=st.integers(0, 255), cut=st.integers(0, 200))
def test_no_mutation_makes_the_hello_fail_otherwise(place: int, value: int, cut: int) -> None:
    genuine = hello_frame(GENUINE)
    place %= len(genuine)
    test_no_bytes_make_the_hello_fail_otherwise.hypothesis.inner_test(
        data=genuine[:place] + bytes((value,)) + genuine[place + 1 :]
    )
    test_no_bytes_make_the_hello_fail_otherwise.hypothesis.inner_test(data=genuine[:cut])


def test_a_hello_in_anothers_name_or_without_a_salt_is_refused() -> None:
    for wrong in (
        msgspec.structs.replace(GENUINE, node=b"o" * 16),
        msgspec.structs.replace(GENUINE, salt=b""),
        msgspec.structs.replace(GENUINE, salt=b"short"),
    ):
        with pytest.raises(RemoteProtocolError):
            hello_from(hello_frame(wrong))
    client = msgspec.structs.replace(GENUINE, salt=b"", purpose=Purpose.CLIENT)
    assert hello_from(hello_frame(client)) is not None


def test_the_bytes_of_a_hello_never_change() -> None:
    """Nodes of different releases meet by these bytes; new fields go at the end."""
    assert HELLO.encode(GENUINE).hex() == (
        "8b1400506e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e03613161788182683130"
        "2e302e302e31191c995073737373737373737373737373737373"
        "00fb000000000000000000"
    )
    shorter = HELLO.encode(GENUINE)[1:-1]
    assert HELLO.decode(b"\x8a" + shorter) == GENUINE, "a hello of before its last field came is one still"
    assert HELLO.encode(HelloRefused(reason=Reason.FULL, text="x")).hex() == "8315026178"


def test_a_short_deep_run() -> None:
    counts = fuzz_frames.run(start=0, count=4_000)
    assert counts["refused"] > 1_000
    assert counts["decoded"] > 100  # mutations that nothing can notice, and genuine frames in between


@pytest.mark.deep
@pytest.mark.timeout(3_600)
def test_a_million_mutated_frames() -> None:
    counts = fuzz_frames.run(start=0, count=1_000_000)
    assert sum(counts.values()) >= 1_000_000


@given(data=st.lists(st.binary(max_size=64), max_size=20))
def test_a_link_decoder_fails_once_and_in_one_way(data: list[bytes]) -> None:
    decoder = FrameDecoder(ON_LINK)
    try:
        for piece in data:
            decoder.feed(piece)
    except RemoteProtocolError:
        pass
