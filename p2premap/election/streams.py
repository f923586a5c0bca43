"""Facts of one job at one replica: which batches it holds, and in which order they are applied.

Every leader writes a stream of its own, named by its ballot: batches 1, 2, 3..., and as serial 0 the *head*, which
says what the leader had when it began, its *base*: a vector {older ballot: serial}. Nothing is ever changed or removed.

**What a replica holds** is therefore one number a stream, if it keeps two rules: of a stream it stores only a
prefix; and a head only once it holds the head's base. So its vector is *closed*: who has (b, s) has all that b's
leader had when it wrote s. The union of closed vectors is closed, and a batch sent in order of (ballot, serial) to
somebody who holds a closed vector always fits.

**The order of facts** is fixed by the heads (`fold`): of a closed vector, first what the leader of its highest
ballot had when it began, recursively; then that leader's own batches; then, lowest ballot first, what it did not have.
A successor whose base holds b up to s so goes through exactly the states of b's leader up to s, whatever came
late from others: tasks that are not deterministic cannot mix two lineages (SPARK-23207 tells what happens where they
can).

Sources: version vectors (Parker and others 1983); for facts that merge by union, CALM (Hellerstein and Alvaro
2020); for terms, Raft (Ongaro and Ousterhout 2014), from which this differs in that nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import cbor2
import msgspec

from p2premap.election.records import StoredBatch
from p2premap.errors import RemoteProtocolError
from p2premap.ids import Ballot
from p2premap.wire import Count, Record, decode_cbor

Vector: TypeAlias = dict[Ballot, int]
"""How far each stream goes: its highest serial, 0 where only the head is there."""

Span: TypeAlias = tuple[Ballot, int, int]
"""Batches of one stream: the first serial and the last one."""


class Head(Record, frozen=True, kw_only=True):
    """Serial 0 of a stream: what its leader had when it began."""

    base: tuple[tuple[Ballot, Count], ...] = ()


def encode_head(base: Mapping[Ballot, int]) -> bytes:
    """The head's bytes."""
    data: bytes = cbor2.dumps(msgspec.to_builtins(Head(base=tuple(sorted(base.items()))), builtin_types=(bytes,)))
    return data


def decode_head(data: bytes) -> Vector:
    """The base that a head tells.

    Raises:
        RemoteProtocolError: it is no head.
    """
    try:
        head = msgspec.convert(decode_cbor(data), Head, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"not the head of a stream: {error}") from None
    return dict(head.base)


class Streams:
    """The streams of one job at this replica. See the module for the two rules."""

    __slots__ = ("_bases", "serials")

    def __init__(self) -> None:
        self.serials: Vector = {}
        self._bases: dict[Ballot, Vector] = {}

    def restore(self, ballot: Ballot, serial: int, head: bytes) -> None:
        """A stream as it was found on disk."""
        self._bases[ballot] = decode_head(head)
        self.serials[ballot] = serial

    def vector(self) -> tuple[tuple[Ballot, int], ...]:
        """What is held, for a message."""
        return tuple(sorted(self.serials.items()))

    def covers(self, vector: Iterable[tuple[Ballot, int]]) -> bool:
        """Whether all of this is held."""
        serials = self.serials
        return all(serials.get(ballot, -1) >= serial for ballot, serial in vector)

    def exceeds(self, vector: Mapping[Ballot, int]) -> bool:
        """Whether something is held that is beyond this."""
        return any(vector.get(ballot, -1) < serial for ballot, serial in self.serials.items())

    def take(self, ballot: Ballot, serial: int, batch: bytes) -> bool:
        """Hold this batch too. False, and nothing changes, where it does not fit or is held already."""
        if serial:
            if self.serials.get(ballot, -1) + 1 != serial:
                return False
        else:
            if ballot in self.serials:
                return False
            try:
                base = decode_head(batch)
            except RemoteProtocolError:
                return False
            if not self.covers(base.items()) or any(older >= ballot for older in base):
                return False
            self._bases[ballot] = base
        self.serials[ballot] = serial
        return True

    def base(self, ballot: Ballot) -> Vector:
        """What the leader of this stream had when it began."""
        return dict(self._bases[ballot])

    def fold(self, vector: Mapping[Ballot, int]) -> list[Span]:
        """The order in which the facts of a closed vector are applied. See the module."""
        levels: list[Mapping[Ballot, int]] = []
        level = vector
        while level:
            levels.append(level)
            level = self._bases[max(level)]
        done: Vector = {}
        spans: list[Span] = []
        for level in reversed(levels):
            top = max(level)
            for ballot in (top, *sorted(level)):
                first, last = done.get(ballot, 0) + 1, level[ballot]
                if first <= last:
                    spans.append((ballot, first, last))
                    done[ballot] = last
        return spans


def in_order(spans: Iterable[Span], batches: Iterable[StoredBatch]) -> Iterator[bytes]:
    """The batches of these spans, in this order.

    Raises:
        KeyError: one is missing; what was held was not read back.
    """
    found = {(batch.ballot, batch.serial): batch.batch for batch in batches}
    for ballot, first, last in spans:
        for serial in range(first, last + 1):
            yield found[ballot, serial]


def portions(batches: Iterable[StoredBatch], bytes_max: int) -> Iterator[tuple[StoredBatch, ...]]:
    """Batches in groups for one message each: of at most so many bytes, or of one batch."""
    group: list[StoredBatch] = []
    size = 0
    for batch in batches:
        if group and size + len(batch.batch) > bytes_max:
            yield tuple(group)
            group, size = [], 0
        group.append(batch)
        size += len(batch.batch)
    if group:
        yield tuple(group)
