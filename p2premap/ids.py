"""The names of things: nodes, jobs, contents, ballots. Types only, no behaviour beyond showing and numbering them.

An id is never a capability: knowing one gives no right to anything.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

NODE_ID_BYTES = 16
JOB_ID_BYTES = 16
DIGEST_BYTES = 32

NodeId = NewType("NodeId", bytes)
"""16 bytes: the first half of the BLAKE3 hash of the node's Ed25519 public key, proved in every hello."""

Boot = NewType("Boot", int)
"""One start of the node with this id: a later one is higher, and no two are the same (`next_boot`). Stored durably
before the node speaks."""

BOOT_BITS = 24
"""Of a boot, the lowest so many bits are drawn at random."""

Incarnation = NewType("Incarnation", int)
"""Raised only by its owner, within one boot; (boot, incarnation) orders what is said of a member (SWIM, 4.2)."""

JobId = NewType("JobId", bytes)
"""16 bytes: a digest over (submission key, spec digest, first replica set), so that no id can have two."""

Digest = NewType("Digest", bytes)
"""32 bytes: the BLAKE3 hash of a content."""

RequestId = NewType("RequestId", int)
"""Chosen by whoever asks on a connection; the answer repeats it."""


def next_boot(before: Boot, drawn: int) -> Boot:
    """The boot of the next start, from `BOOT_BITS` random bits.

    A machine that is set back to a copy of itself counts its starts from there again; what is drawn tells the new ones
    from those that it has forgotten.
    """
    return Boot(((before >> BOOT_BITS) + 1 << BOOT_BITS) + drawn)


def starts_of(boot: Boot) -> int:
    """How many times the node had started by then, this time included."""
    return boot >> BOOT_BITS


NOBODY = NodeId(bytes(NODE_ID_BYTES))
"""Stands for the leader of a job that nobody leads."""


class Address(NamedTuple):
    """Where a node listens, TCP and UDP on the same port.

    Args:
        host: a numeric IPv4 or IPv6 address; link-local IPv6 with its scope ("fe80::1%eth0").
        port: 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Ballot(NamedTuple):
    """Who may lead a job: ordered as a tuple, so that a higher epoch always wins (Paxos made simple, 2.2).

    Args:
        epoch: the number of the job's replica set, from 0.
        n: the round within the epoch.
        node: breaks ties between two nodes that chose the same round.
    """

    epoch: int
    n: int
    node: NodeId


def short(name: bytes) -> str:
    """The first 8 hexadecimal digits of an id, for people."""
    return name[:4].hex()
