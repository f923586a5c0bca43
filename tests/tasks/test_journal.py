"""Facts as bytes: what is written is read again, and nothing else is."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.ids import Digest
from p2premap.tasks import journal
from p2premap.tasks.job import AttemptEnd, BlobRef, Outcome, Spill, StageId
from tests.tasks.working import A, B

MAP = StageId(0, b"")
LATER = StageId(2, b"lineage!")

blobs = st.lists(
    st.builds(BlobRef, digest=st.binary(min_size=32, max_size=32).map(Digest), size=st.integers(0, 2**53)), max_size=2
).map(tuple)
ends = st.builds(
    AttemptEnd,
    task=st.integers(0, 2**32 - 1),
    attempt=st.integers(0, 5) | st.integers(0, 2**32 - 1),
    outcome=st.just(Outcome.DONE),
    value=st.binary(max_size=3),
    blobs=blobs,
    seconds=st.floats(0, 10),
    records_out=st.integers(0, 3) | st.integers(0, 2**53),
    spill=st.none() | st.builds(Spill, bytes=st.integers(0, 2**40), seconds=st.floats(0, 10)),
)

OTHERS = (
    journal.Failed(
        stage=MAP,
        task=1,
        attempt=2,
        node=A,
        outcome=Outcome.CRASHED,
        error="no",
        detail="signal 9",
        value=b"x",
        answer=True,
    ),
    journal.Chosen(stage=LATER, generation=3, task=1, attempt=2, node=A),
    journal.Held(stage=LATER, task=1, attempt=2, node=A, holder=B),
    journal.Extended(payload=b"more"),
    journal.Pin(stage=MAP, generation=1),
    journal.Cancelled(reason="enough"),
    journal.Ending(error="Task 3 …", detail="trace"),
    journal.Term(leader=B),
    journal.Named(node=A, name="a"),
    journal.Lost(stage=MAP, attempts=7),
    journal.Said(stage=MAP, task=1, attempt=2, node=A, text="hello"),
)


@given(st.lists(ends, min_size=1, max_size=8))
def test_results_come_back_as_they_were(written: list[AttemptEnd]) -> None:
    (fact,) = journal.decode(journal.encode(1.0, [journal.results(LATER, A, written)])).facts
    assert isinstance(fact, journal.Results)
    tasks, attempts, values, records, found = journal.columns(fact)
    assert list(tasks) == [e.task for e in written]
    assert list(attempts) == [e.attempt for e in written]
    assert list(values) == [e.value for e in written]
    assert list(records) == [e.records_out for e in written]
    assert [found.get(i, ()) for i in range(len(written))] == [e.blobs for e in written]
    assert journal.blobs_of(fact) == [b for e in written for b in e.blobs]
    assert (fact.stage, fact.node) == (LATER, A)
    assert fact.seconds == pytest.approx(sum(e.seconds for e in written))
    assert fact.spilled == sum(e.spill.bytes for e in written if e.spill is not None)


def test_every_other_fact_comes_back_too() -> None:
    assert journal.decode(journal.encode(3.5, OTHERS)) == journal.Batch(3.5, OTHERS)


def test_a_thousand_tasks_that_yield_nothing_take_sixty_bytes() -> None:
    written = [AttemptEnd(task=t, attempt=0, outcome=Outcome.DONE, seconds=0.1) for t in range(5_000, 6_000)]
    assert len(journal.encode(1.0, [journal.results(MAP, A, written)])) < 70


def test_different_small_results_take_their_size_and_a_few_bytes() -> None:
    written = [AttemptEnd(task=7 * t, attempt=t % 3, outcome=Outcome.DONE, value=bytes(t % 9)) for t in range(1_000)]
    values = sum(len(e.value) for e in written)
    assert len(journal.encode(1.0, [journal.results(MAP, A, written)])) < values + 13 * 1_000


# --- what is refused ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=60))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        journal.decode(data)


@given(st.integers(0, 400), st.integers(0, 255), st.integers(0, 2**32))
def test_a_batch_with_a_wrong_byte_is_refused_or_still_a_batch(at: int, byte: int, cut: int) -> None:
    written = [AttemptEnd(task=t * t, attempt=t, outcome=Outcome.DONE, value=bytes(t)) for t in range(5)]
    data = bytearray(journal.encode(1.0, [journal.results(MAP, A, written), *OTHERS]))
    data[at % len(data)] = byte
    for damaged in (bytes(data), bytes(data[: cut % len(data)])):
        try:
            batch = journal.decode(damaged)
        except RemoteProtocolError:
            continue
        for fact in batch.facts:
            if isinstance(fact, journal.Results):
                columns = journal.columns(fact)
                assert len(columns.tasks) == len(columns.attempts) == len(columns.values) == fact.count


def _results(**changed: object) -> list[object]:
    """The fields of a `Results` of two tasks, some of them changed."""
    fields: dict[str, object] = {
        "tag": 1, "stage": (0, b""), "node": A, "count": 2, "first": 0, "attempt": 0, "value": b"", "records_out": 0,
        "seconds": 0.0, "tasks": b"", "attempts": b"", "sizes": b"", "records": b"", "blobs": b"",
    }  # fmt: skip
    return list((fields | changed).values())


@pytest.mark.parametrize(
    "facts",
    [
        [_results(tasks=b"123")],
        [_results(attempts=bytes(12))],
        [_results(sizes=bytes(4))],
        [_results(value=b"abc", sizes=b"\x01\0\0\0\x01\0\0\0")],
        [_results(records=bytes(8))],
        [_results(blobs=b"\0")],
        [_results(blobs=b"\x02\0\0\0\0\0")],
        [_results(blobs=b"\0\0\0\0\xff\xff")],
        [_results(blobs=b"\0\0\0\0\0\0\0\0\0\0\0\0")],
        [_results(count=0)],
        [_results(count=2**40)],
        [_results(node=b"short")],
        [_results(first=-1)],
        [[99, b"of another version"]],
        [7],
    ],
)
def test_contradictions_are_refused(facts: list[object]) -> None:
    with pytest.raises(RemoteProtocolError):
        journal.decode(cbor2.dumps((1, 0.0, facts)))


def test_the_same_fields_without_contradiction_are_read() -> None:
    (fact,) = journal.decode(cbor2.dumps((1, 0.0, [_results()]))).facts
    assert isinstance(fact, journal.Results)


def test_another_version_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        journal.decode(cbor2.dumps((2, 0.0, [])))


def test_the_format_of_the_first_version() -> None:
    """What the first release wrote, byte for byte: later ones must read it."""
    written = bytes.fromhex(
        "8301fb3ff8000000000000828f0182004050"
        + "41" * 16
        + "02050042767700fb3fe0000000000000480500000009000000404801000000010000004040008209"
        + "50"
        + "42" * 16
    )
    ends = [
        AttemptEnd(task=5, attempt=0, outcome=Outcome.DONE, value=b"v", seconds=0.25),
        AttemptEnd(task=9, attempt=0, outcome=Outcome.DONE, value=b"w", seconds=0.25),
    ]
    assert journal.encode(1.5, [journal.results(MAP, A, ends), journal.Term(leader=B)]).hex() == written.hex()
