"""How two processes of a gang prove to each other that they belong to one meeting. No trio here: workers use it too.

::

    dialler                                             acceptor
      | PREFACE, meeting, from, to, nonce D, tag(K, 1) ---->|   in the clear, over TCP or a Unix socket
      |<------------------------------ nonce A, tag(K, 2) --|
      |<===== frames, sealed with keys from K, D and A ====>|   between machines; on one machine they are not sealed

K is derived from the cluster's secret and the meeting's name by each daemon, and given to its worker: so who knows it
was asked to take part. A recorded introduction is of no use: it is answered by another nonce, and the keys for what
follows are made from both. The daemon looks at the first tag before it bothers a worker with a connection
(`p2premap.node.gangs`).
"""

from __future__ import annotations

import hmac
import struct
from typing import Final, NamedTuple

from p2premap.node.secret import derive

PREFACE: Final = b"gang of p2premap 1\n"
"""What a connection begins with; no TLS, and no guest's."""

NONCE_BYTES: Final = 32
TAG_BYTES: Final = 32
_HEAD: Final = struct.Struct(f">16sII{NONCE_BYTES}s")
INTRODUCTION_BYTES: Final = len(PREFACE) + _HEAD.size + TAG_BYTES
REPLY_BYTES: Final = NONCE_BYTES + TAG_BYTES


class Introduction(NamedTuple):
    """What a dialler says.

    Args:
        meeting: its name.
        seat: of the dialler.
        to: the seat that it wants.
        nonce: drawn by the dialler.
        proof: over all this.
    """

    meeting: bytes
    seat: int
    to: int
    nonce: bytes
    proof: bytes


class LineKeys(NamedTuple):
    """What seals each direction of a connection.

    Args:
        dialled: what the dialler sends.
        accepted: what the acceptor sends.
    """

    dialled: bytes
    accepted: bytes


def meeting_key(secret: bytes, meeting: bytes) -> bytes:
    """K of this meeting, from the cluster's secret."""
    return derive(secret, "p2premap 1 gang", salt=meeting)


def introduce(key: bytes, meeting: bytes, seat: int, to: int, nonce: bytes) -> bytes:
    """The dialler's first words."""
    said = PREFACE + _HEAD.pack(meeting, seat, to, nonce)
    return said + _tag(key, b"1", said)


def read_introduction(data: bytes) -> Introduction | None:
    """What these first words say; None where they are none. Nothing is proved yet."""
    if len(data) != INTRODUCTION_BYTES or not data.startswith(PREFACE):
        return None
    meeting, seat, to, nonce = _HEAD.unpack_from(data, len(PREFACE))
    return Introduction(meeting, seat, to, nonce, data[-TAG_BYTES:])


def is_proved(key: bytes, said: Introduction) -> bool:
    """Whether who says this knows K (or has heard it from somebody who does)."""
    known = _tag(key, b"1", PREFACE + _HEAD.pack(said.meeting, said.seat, said.to, said.nonce))
    return hmac.compare_digest(known, said.proof)


def reply_to(key: bytes, said: Introduction, nonce: bytes) -> bytes:
    """The acceptor's answer."""
    return nonce + _tag(key, b"2", said.nonce + nonce)


def keys_of(key: bytes, dialler_nonce: bytes, reply: bytes) -> LineKeys | None:
    """The keys of a connection, for both ends; None where the answer was given by somebody who does not know K."""
    nonce = reply[:NONCE_BYTES]
    if not hmac.compare_digest(_tag(key, b"2", dialler_nonce + nonce), reply[NONCE_BYTES:]):
        return None
    salt = dialler_nonce + nonce
    return LineKeys(derive(key, "p2premap 1 dialled", salt=salt), derive(key, "p2premap 1 accepted", salt=salt))


def _tag(key: bytes, which: bytes, data: bytes) -> bytes:
    return hmac.digest(key, which + data, "sha256")
