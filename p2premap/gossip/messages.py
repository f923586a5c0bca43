"""What members say to each other about who is here. `p2premap.gossip.core` tells when each is sent.

::

    A  -- Ping(nonce, root, rumours) -->  B        datagram; over the link where B cannot be dialled
    A  <-- Ack(nonce, root, rumours) ---  B

    A  -- Inquire(nonce, T) ---------->  juror     "can you reach T?": the juror pings and dials T
    A  <-- Witness(nonce, evidence) ----  juror

    A  -- Buckets(64 hashes) --------->  B         the roots differed
    A  <-- Digests(ranges) ------------  B         the hashes of B's entries, where a bucket differed
    A  -- Entries(entries, wanted) --->  B         what B lacks, and the hashes of what A lacks
    A  <-- Entries(entries) -----------  B

Nothing here depends on the order or number of arrivals: each message may be lost, repeated or late.
"""

import enum
from typing import Annotated, Final

import msgspec

from p2premap.gossip.events import MemberState
from p2premap.ids import Address
from p2premap.wire import BootField, Count, IncarnationField, Message, NodeIdField, Record, Short

BUCKETS: Final = 64
HASH_BYTES: Final = 8
ADDRESSES_MAX: Final = 16
FACT_BYTES_MAX: Final = 16 << 10
LOAD_BYTES_MAX: Final = 64
ENTRIES_MAX: Final = 1024

Word = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A hash or a nonce: 63 bits, eight bytes on the wire."""

Hashes = Annotated[bytes, msgspec.Meta(max_length=ENTRIES_MAX * HASH_BYTES)]
"""Words in eight bytes each, big-endian, one after another."""

AddressField = tuple[
    Annotated[str, msgspec.Meta(min_length=1, max_length=64)], Annotated[int, msgspec.Meta(ge=1, le=65535)]
]
Addresses = Annotated[tuple[AddressField, ...], msgspec.Meta(max_length=ADDRESSES_MAX)]
FactKey = Annotated[str, msgspec.Meta(max_length=64)]
FactValue = Annotated[bytes, msgspec.Meta(max_length=FACT_BYTES_MAX)]
LoadValue = Annotated[bytes, msgspec.Meta(max_length=LOAD_BYTES_MAX)]


class Evidence(enum.IntEnum):
    """What a juror found when it tried to reach a node (the table in `p2premap.gossip.probe`)."""

    ANSWERED = 0
    """An authenticated answer: a datagram, or a hello, of that id and boot."""
    STALLED = 1
    """The kernel there accepts; the process does not speak."""
    SILENT = 2
    """Nothing answers at an address where this juror had finished a hello before."""
    GONE = 3
    """Refused twice, or answered by another, at every address where a hello had succeeded."""
    ABSTAINS = 4
    """This juror has never finished a hello there, so its failure proves nothing."""


class MemberEntry(Record, frozen=True, kw_only=True):
    """One member: the record that `p2premap.gossip.members.newer` orders.

    Args:
        name, addresses: what its owner said under this (boot, incarnation).
        age: seconds since it was found DEAD or had LEFT; 0 for others. Not part of the order: it only lets a
            newcomer forget the record when everybody else does.
    """

    node: NodeIdField
    boot: BootField
    incarnation: IncarnationField
    state: MemberState
    name: Short
    addresses: Addresses
    age: Count = 0


class FactEntry(Record, frozen=True, kw_only=True):
    """One slow fact, written by its node only; (boot, version) orders what it said under one key."""

    node: NodeIdField
    boot: BootField
    version: Count
    key: FactKey
    value: FactValue


class LoadEntry(Record, frozen=True, kw_only=True):
    """How busy a node is: overtaken by the next one, neither hashed nor repaired."""

    node: NodeIdField
    boot: BootField
    version: Count
    value: LoadValue


Members = Annotated[tuple[MemberEntry, ...], msgspec.Meta(max_length=ENTRIES_MAX)]
Facts = Annotated[tuple[FactEntry, ...], msgspec.Meta(max_length=ENTRIES_MAX)]
Loads = Annotated[tuple[LoadEntry, ...], msgspec.Meta(max_length=ENTRIES_MAX)]


class Ping(Message, tag=1, frozen=True, kw_only=True):
    """Are you there? Answered by `Ack` at once."""

    nonce: Word
    root: Word
    members: Members = ()
    facts: Facts = ()
    loads: Loads = ()


class Ack(Message, tag=2, frozen=True, kw_only=True):
    """I am here."""

    nonce: Word
    root: Word
    members: Members = ()
    facts: Facts = ()
    loads: Loads = ()


class Rumours(Message, tag=3, frozen=True, kw_only=True):
    """News, without a question."""

    members: Members = ()
    facts: Facts = ()
    loads: Loads = ()


class Inquire(Message, tag=4, frozen=True, kw_only=True):
    """Can you reach this node? Answered by `Witness` when the juror knows."""

    nonce: Word
    node: NodeIdField
    boot: BootField


class Witness(Message, tag=5, frozen=True, kw_only=True):
    """What the juror found."""

    nonce: Word
    evidence: Evidence


class Buckets(Message, tag=6, frozen=True, kw_only=True):
    """The hash of each bucket of the sender's entries, in order."""

    hashes: Annotated[bytes, msgspec.Meta(min_length=BUCKETS * HASH_BYTES, max_length=BUCKETS * HASH_BYTES)]


class DigestRange(Record, frozen=True, kw_only=True):
    """The hashes of all the sender's entries in one bucket that lie within [low, high]."""

    bucket: Annotated[int, msgspec.Meta(ge=0, lt=BUCKETS)]
    low: Word
    high: Word
    hashes: Hashes


class Digests(Message, tag=7, frozen=True, kw_only=True):
    """The sender's entries where the buckets differed, by hash."""

    ranges: Annotated[tuple[DigestRange, ...], msgspec.Meta(max_length=ENTRIES_MAX)]


class Entries(Message, tag=8, frozen=True, kw_only=True):
    """Entries that the receiver lacks, the loads of those members, and the hashes of entries that the sender lacks."""

    members: Members = ()
    facts: Facts = ()
    wanted: Hashes = b""
    loads: Loads = ()


class CallBack(Message, tag=9, frozen=True, kw_only=True):
    """The caller wants a link to `callee` and cannot dial it: whoever has a link to `callee` passes this on to it."""

    caller: NodeIdField
    callee: NodeIdField
    addresses: Addresses


MESSAGES: Final = (Ping, Ack, Rumours, Inquire, Witness, Buckets, Digests, Entries, CallBack)


def address_of(field: AddressField) -> Address:
    """The address in a message."""
    return Address(*field)
