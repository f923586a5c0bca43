"""The order of facts is fixed by the heads: successors go through the states of those before them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.election.records import StoredBatch
from p2premap.election.streams import Streams, decode_head, encode_head, in_order, portions
from p2premap.errors import RemoteProtocolError
from p2premap.ids import JOB_ID_BYTES, Ballot, JobId, NodeId

JOB = JobId(b"j" * JOB_ID_BYTES)


def ballot(n: int) -> Ballot:
    return Ballot(0, n, NodeId(bytes([n]) * 16))


def begin(streams: Streams, n: int, base: dict[Ballot, int]) -> None:
    assert streams.take(ballot(n), 0, encode_head(base))


def test_only_what_fits_is_taken():
    streams = Streams()
    assert not streams.take(ballot(1), 1, b"x"), "no head"
    begin(streams, 1, {})
    assert not streams.take(ballot(1), 2, b"x"), "a gap"
    assert streams.take(ballot(1), 1, b"x")
    assert not streams.take(ballot(1), 1, b"x"), "twice"
    assert not streams.take(ballot(2), 0, encode_head({ballot(1): 2})), "its base is not here"
    assert not streams.take(ballot(2), 0, encode_head({ballot(3): 0})), "a base in the future"
    assert not streams.take(ballot(2), 0, b"rubbish")
    begin(streams, 2, {ballot(1): 1})
    assert streams.vector() == ((ballot(1), 1), (ballot(2), 0))
    assert streams.covers([(ballot(1), 1)])
    assert streams.exceeds({ballot(1): 1})
    assert not streams.exceeds({ballot(1): 1, ballot(2): 0})


def test_the_leader_s_own_order_comes_before_what_it_did_not_have():
    streams = Streams()
    begin(streams, 0, {})
    for serial in range(1, 6):
        streams.take(ballot(0), serial, b"")
    begin(streams, 1, {ballot(0): 2})
    streams.take(ballot(1), 1, b"")
    assert streams.fold(dict(streams.vector())) == [(ballot(0), 1, 2), (ballot(1), 1, 1), (ballot(0), 3, 5)]


@given(st.data())
def test_a_successor_s_facts_begin_with_everything_its_base_names(data):
    """Any leaders, each with any closed part of what was there: who builds on b up to s goes through b's state at s."""
    streams, began = Streams(), {}
    for n in range(data.draw(st.integers(1, 6))):
        base: dict[Ballot, int] = {}
        for older, serial in streams.vector():
            closed = all(base.get(b, -1) >= s for b, s in streams.base(older).items())
            if closed and data.draw(st.booleans()):
                base[older] = data.draw(st.integers(0, serial))
        begin(streams, n, base)
        began[ballot(n)] = streams.fold(base)
        for serial in range(1, 1 + data.draw(st.integers(0, 4))):
            assert streams.take(ballot(n), serial, b"")
    for leader in streams.serials:
        base = streams.base(leader)
        mine = spread(began[leader])
        assert sorted(mine) == sorted((b, s) for b, last in base.items() for s in range(1, last + 1))
        if base:
            top = max(base)
            theirs = spread(began[top]) + [(top, s) for s in range(1, base[top] + 1)]
            assert mine[: len(theirs)] == theirs


def spread(spans):
    return [(b, serial) for b, first, last in spans for serial in range(first, last + 1)]


def test_heads_are_checked():
    base = {ballot(2): 7, ballot(1): 3}
    assert decode_head(encode_head(base)) == base
    with pytest.raises(RemoteProtocolError):
        decode_head(encode_head(base)[:-1])
    with pytest.raises(RemoteProtocolError):
        decode_head(b"\x81\x01")


def test_batches_are_read_in_the_order_of_the_spans():
    batches = [
        StoredBatch(job=JOB, ballot=ballot(n), serial=s, batch=b"%d.%d" % (n, s)) for n in (0, 1) for s in (1, 2)
    ]
    assert list(in_order([(ballot(1), 1, 2), (ballot(0), 2, 2)], batches)) == [b"1.1", b"1.2", b"0.2"]
    with pytest.raises(KeyError):
        list(in_order([(ballot(1), 1, 3)], batches))


def test_portions_are_bounded_but_never_empty():
    batches = [
        StoredBatch(job=JOB, ballot=ballot(0), serial=s, batch=b"x" * size) for s, size in enumerate((3, 3, 9, 1))
    ]
    assert [[b.serial for b in portion] for portion in portions(batches, 6)] == [[0, 1], [2], [3]]
    assert list(portions([], 6)) == []
