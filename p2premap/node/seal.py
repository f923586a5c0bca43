"""Sealed datagrams: AES-256-GCM between members, with replay refused and a sender's restart proved fresh. Pure.

::

    version (1) | sender (16) | salt (16) | counter (8) | AES-256-GCM: flags (1) | challenge (8)? | echo (8)? | message

    key    = HKDF-SHA256(gossip key, salt = salt, info = sender)      one for each start of each sender
    nonce  = the counter, never used twice under one salt             (NIST SP 800-38D, 8.2.1)
    also authenticated: the header, and the receiver's id             (a datagram to one member is nothing to another)

A recorded datagram is refused in one of two ways. Under the salt that the receiver believes current, a window of the
last 1,024 counters tells what is new (RFC 4303, 3.4.3). Under any other salt the receiver believes nothing until the
sender has echoed, under that salt, a nonce that the receiver has just drawn; meanwhile it keeps a few messages::

    A  -- message, challenge a ------------>  B      neither knows the other's salt
    A  <-- challenge b, echo a -------------  B      A believes B's salt
    A  -- echo b -------------------------->  B      B believes A's salt and delivers the message

A hello over TLS says salt and counter too, which spares linked members the exchange. A sender draws a new salt when
it starts and whenever it may have been suspended: a restored image would use counters again.

Everything is bounded: senders and half-proved salts are tables that forget the least recently heard.
"""

from __future__ import annotations

import enum
import hmac
import struct
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2premap.errors import LocalProtocolError
from p2premap.event import Event
from p2premap.ids import NODE_ID_BYTES, NodeId
from p2premap.node.secret import derive
from p2premap.ports import Randomness

DATAGRAM_BYTES_MAX: Final = 1_200
SALT_BYTES: Final = 16
VERSION: Final = 1
WINDOW: Final = 1_024
COUNTER_MAX: Final = 2**63
KEPT_MESSAGES_MAX: Final = 4
KEPT_S: Final = 1.0
UNPROVED_MAX: Final = 512

_HEADER: Final = struct.Struct(f">B{NODE_ID_BYTES}s{SALT_BYTES}sQ")
_NONCE_BYTES: Final = 8
_TAG_BYTES: Final = 16
_CHALLENGE: Final = 1
_ECHO: Final = 2

OVERHEAD_BYTES: Final = _HEADER.size + _TAG_BYTES + 1 + 2 * _NONCE_BYTES
MESSAGE_BYTES_MAX: Final = DATAGRAM_BYTES_MAX - OVERHEAD_BYTES
"""A message of this size always fits."""


class Refusal(enum.Enum):
    """Why a datagram was dropped."""

    MALFORMED = "malformed"
    """Not of this format or version, too short or too long."""
    FORGED = "forged"
    """Not sealed by a member for us: another cluster, another receiver, noise, an attack."""
    REPLAYED = "replayed"
    """Seen before, or too old to tell."""
    OWN = "own"
    """It says to be from us."""


class Opened(Event, frozen=True, kw_only=True):
    """What a datagram brought.

    Args:
        sender: proved.
        messages: to deliver, in order; more than one where this datagram has proved earlier ones fresh.
        reply: a datagram to send back at once to where this one came from; b"" for none.
    """

    sender: NodeId
    messages: tuple[bytes, ...]
    reply: bytes


class _Window(msgspec.Struct):
    """Which counters of one salt have been seen: bit i of `seen` is `highest - i`."""

    highest: int = -1
    seen: int = 0

    def take(self, counter: int) -> bool:
        """Whether this counter is new; from now on it is not."""
        ahead = counter - self.highest
        if ahead > 0:
            self.seen = ((self.seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self.highest = counter
            return True
        if ahead <= -WINDOW or self.seen >> -ahead & 1:
            return False
        self.seen |= 1 << -ahead
        return True


class _Salt(msgspec.Struct):
    """A salt under which a sender seals, current or not yet proved.

    Args:
        floor: counters below it are refused: they are from before the proof.
    """

    value: bytes
    cipher: AESGCM
    floor: int = 0
    window: _Window = msgspec.field(default_factory=_Window)
    kept: list[tuple[float, bytes]] = msgspec.field(default_factory=list)


class _Sender(msgspec.Struct):
    """What is known of one peer.

    Args:
        current: its proved salt.
        challenge: the nonce that it has to echo; drawn when needed, used once.
    """

    current: _Salt | None = None
    challenge: bytes = b""


class Sealer:
    """One node's end of all sealed datagrams.

    Args:
        me: this node.
        gossip_key: the cluster's.
        randomness: for salts and challenges.
        senders_max: how many peers are remembered; a forgotten one proves itself again.
    """

    def __init__(self, *, me: NodeId, gossip_key: bytes, randomness: Randomness, senders_max: int) -> None:
        self._me = me
        self._gossip_key = gossip_key
        self._randomness = randomness
        self._senders_max = senders_max
        self._senders: OrderedDict[NodeId, _Sender] = OrderedDict()
        self._unproved: OrderedDict[tuple[NodeId, bytes], _Salt] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self.renew()

    @property
    def salt(self) -> bytes:
        """This node's own, for its hellos."""
        return self._salt

    @property
    def counter(self) -> int:
        """This node's next, for its hellos."""
        return self._counter

    def heard(self, peer: NodeId) -> bool:
        """Whether a datagram has come under the peer's present salt."""
        sender = self._senders.get(peer)
        return sender is not None and sender.current is not None and sender.current.window.highest >= 0

    def statistics(self) -> Mapping[str, int]:
        """How many datagrams were sealed, opened, and refused why; how many peers are in the table."""
        return {**self._counts, "senders": len(self._senders), "unproved": len(self._unproved)}

    def renew(self) -> None:
        """Draw a new salt: at the start, after a suspension, and before the counter ends."""
        self._salt = self._randomness(SALT_BYTES)
        self._counter = 0
        self._cipher = self._cipher_of(self._me, self._salt)
        self._counts["salts"] += 1

    def rekey(self, gossip_key: bytes) -> None:
        """The cluster has another secret: everybody, this node too, has to prove a salt anew."""
        self._gossip_key = gossip_key
        self._senders.clear()
        self._unproved.clear()
        self.renew()

    def trust(self, peer: NodeId, salt: bytes, counter: int) -> None:
        """A fresh hello over TLS has said that this is the peer's salt, and its next counter."""
        sender = self._sender(peer)
        if sender.current is None or sender.current.value != salt:
            self._unproved.pop((peer, salt), None)
            sender.current = _Salt(salt, self._cipher_of(peer, salt), floor=counter)

    def seal(self, peer: NodeId, message: bytes) -> bytes:
        """A datagram for `peer`.

        Raises:
            LocalProtocolError: the message is over MESSAGE_BYTES_MAX.
        """
        if len(message) > MESSAGE_BYTES_MAX:
            raise LocalProtocolError(f"a message of {len(message)} bytes does not fit into a datagram")
        return self._seal(peer, self._sender(peer), message)

    def open(self, now: float, data: bytes) -> Opened | Refusal:
        """What a datagram brought, or why it was dropped; a dropped one has changed nothing but a count.

        Args:
            now: seconds; limits how long a message waits for its sender's proof.
            data: as it came.
        """
        opened = self._open(now, data)
        self._counts["opened" if isinstance(opened, Opened) else opened.value] += 1
        return opened

    def _open(self, now: float, data: bytes) -> Opened | Refusal:
        if not _HEADER.size + _TAG_BYTES < len(data) <= DATAGRAM_BYTES_MAX or data[0] != VERSION:
            return Refusal.MALFORMED
        _, who, value, counter = _HEADER.unpack_from(data)
        peer = NodeId(who)
        if peer == self._me:
            return Refusal.OWN
        sender = self._senders.get(peer)
        salt = self._salt_of(peer, sender, value)
        header = data[: _HEADER.size]
        try:
            inner = salt.cipher.decrypt(_nonce(counter), data[_HEADER.size :], header + self._me)
        except InvalidTag:
            return Refusal.FORGED
        parts = _split(inner)
        if parts is None:
            return Refusal.MALFORMED  # a member's bug
        if counter < salt.floor or not salt.window.take(counter):
            return Refusal.REPLAYED
        challenge, echo, message = parts
        sender = self._sender(peer)
        fresh = bool(echo and sender.challenge) and hmac.compare_digest(echo, sender.challenge)
        if fresh:
            sender.challenge = b""
        messages = [message] if message else []
        if salt is not sender.current and fresh:
            # what was recorded before the proof must not count after it, except what this very exchange has kept
            messages = [m for at, m in salt.kept if now - at <= KEPT_S] + messages
            salt.kept.clear()
            salt.floor = counter + 1
            self._unproved.pop((peer, value), None)
            sender.current = salt
        elif salt is not sender.current:
            self._keep(now, peer, salt, messages)
            messages = []
        question = salt is not sender.current
        reply = self._seal(peer, sender, b"", echo=challenge, question=question) if challenge or question else b""
        return Opened(sender=peer, messages=tuple(messages), reply=reply)

    def _keep(self, now: float, peer: NodeId, salt: _Salt, messages: list[bytes]) -> None:
        """Hold back genuine messages under a salt that may be an old one."""
        if len(salt.kept) < KEPT_MESSAGES_MAX:
            salt.kept += [(now, m) for m in messages]
        self._unproved[peer, salt.value] = salt
        self._unproved.move_to_end((peer, salt.value))
        if len(self._unproved) > UNPROVED_MAX:
            self._unproved.popitem(last=False)

    def _salt_of(self, peer: NodeId, sender: _Sender | None, value: bytes) -> _Salt:
        if sender is not None and sender.current is not None and sender.current.value == value:
            return sender.current
        found = self._unproved.get((peer, value))
        return found if found is not None else _Salt(value, self._cipher_of(peer, value))

    def _sender(self, peer: NodeId) -> _Sender:
        sender = self._senders.get(peer)
        if sender is None:
            sender = self._senders[peer] = _Sender()
            if len(self._senders) > self._senders_max:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(peer)
        return sender

    def _seal(
        self, peer: NodeId, sender: _Sender, message: bytes, *, echo: bytes = b"", question: bool = False
    ) -> bytes:
        if self._counter >= COUNTER_MAX:
            self.renew()
        challenge = b""
        if question or sender.current is None:
            challenge = sender.challenge = sender.challenge or self._randomness(_NONCE_BYTES)
        flags = (_CHALLENGE if challenge else 0) | (_ECHO if echo else 0)
        header = _HEADER.pack(VERSION, self._me, self._salt, self._counter)
        inner = b"".join((bytes((flags,)), challenge, echo, message))
        sealed = header + self._cipher.encrypt(_nonce(self._counter), inner, header + peer)
        self._counter += 1
        self._counts["sealed"] += 1
        return sealed

    def _cipher_of(self, sender: NodeId, salt: bytes) -> AESGCM:
        return AESGCM(derive(self._gossip_key, f"p2premap 1 datagram {sender.hex()}", salt=salt))


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


def _split(inner: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Challenge, echo and message; None where the inside is malformed."""
    if not inner or inner[0] & ~(_CHALLENGE | _ECHO):
        return None
    middle = 1 + (_NONCE_BYTES if inner[0] & _CHALLENGE else 0)
    end = middle + (_NONCE_BYTES if inner[0] & _ECHO else 0)
    if len(inner) < end:
        return None
    return inner[1:middle], inner[middle:end], inner[end:]
