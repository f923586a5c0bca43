"""Letting a machine in: the inviting node's half. The guest's is `p2premap.node.guest`.

The guest has no certificate yet, so it announces itself in the clear and TLS authenticates the host only::

    guest                                          host
      | "p2premap guest 1\n" ----------------------->|
      |<------------------------ "p2premap host 1\n" -|  or the end, where no invitation is open
      |<========= TLS 1.3, no client certificate ====>|
      |<------------------------ GuestCa(ca) ---------|  the guest checks: the token's hash is this CA's, and this
      |                                               |  CA has signed the leaf that the host has shown
      | GuestSecret(secret, guest) ------------------>|
      |<------------------------ GuestWelcome(S) -----|  or GuestRefused(reason, text)

So the guest says its secret only to a member of the very cluster that the token is of, and the host says S only to who
knows a secret of 128 bits, counted and limited in time. A guest that asks again after a broken connection brings the
same `guest` number and is not counted twice. Invitations end with the node: they are not written to disk.
"""

from __future__ import annotations

import enum
import hashlib
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec
import trio

from p2premap.errors import ConfigError, RemoteProtocolError
from p2premap.gossip.messages import Addresses
from p2premap.ids import Address
from p2premap.node import tls
from p2premap.node.certificates import Credentials
from p2premap.node.secret import SECRET_BYTES, ClusterSecret
from p2premap.node.token import ADDRESSES_MAX, TOKEN_SECRET_BYTES, Token, hash_of_ca, print_token, read_token
from p2premap.ports import Randomness
from p2premap.wire import Count, FrameDecoder, Message, Registry, Short, encode_frame

PREFACE: Final = b"p2premap guest 1\n"
PREFACE_ANSWER: Final = b"p2premap host 1\n"
GUEST_BYTES: Final = 16
INVITES_MAX: Final = 256
USES_MAX: Final = 10_000
VALID_MAX_S: Final = 30 * 86_400.0
REMEMBERED_S: Final = 86_400.0
WRONG_WAIT_S: Final = 0.5


class Answer(enum.IntEnum):
    """Why a guest was refused."""

    WRONG = 0
    USED_UP = 1
    EXPIRED = 2


SENTENCES: Final = {
    Answer.WRONG: "The inviting node does not know this token; it may have restarted: run `p2premap invite` again.",
    Answer.USED_UP: "This token has been used as often as it allows; run `p2premap invite` again, or with --uses N.",
    Answer.EXPIRED: "This token has expired; run `p2premap invite` again, or with --for 1h.",
}


class GuestCa(Message, frozen=True, tag=25, kw_only=True):
    """The cluster's CA certificate (DER)."""

    ca: Annotated[bytes, msgspec.Meta(max_length=4096)]


class GuestSecret(Message, frozen=True, tag=26, kw_only=True):
    """The token's secret. `guest` is drawn anew for each join, and the same when that asks again."""

    secret: Annotated[bytes, msgspec.Meta(min_length=TOKEN_SECRET_BYTES, max_length=TOKEN_SECRET_BYTES)]
    guest: Annotated[bytes, msgspec.Meta(min_length=GUEST_BYTES, max_length=GUEST_BYTES)]


class GuestWelcome(Message, frozen=True, tag=27, kw_only=True):
    """The cluster's secret, which of its secrets this is, and where members are."""

    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    open_name: Short
    addresses: Addresses
    epoch: Count = 1
    origin: Short = ""


class GuestRefused(Message, frozen=True, tag=28, kw_only=True):
    """No. `text` is one sentence for a person."""

    reason: Answer
    text: Short


TO_GUEST: Final = Registry((GuestCa, GuestWelcome, GuestRefused), header_bytes_max=16 << 10)
FROM_GUEST: Final = Registry((GuestSecret,), header_bytes_max=256)


class _Invitation(msgspec.Struct):
    expires_at: float
    uses: int
    guests: set[bytes] = msgspec.field(default_factory=set)


class Inviter:
    """One node's invitations.

    Args:
        secret: what guests get.
        credentials: of this node.
        addresses: where this node listens now, for tokens and guests.
        randomness: the system's CSPRNG.
        clock: seconds, going on while the machine sleeps.
    """

    def __init__(
        self,
        *,
        secret: ClusterSecret,
        credentials: Credentials,
        addresses: Callable[[], tuple[Address, ...]],
        randomness: Randomness,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._addresses = addresses
        self._randomness = randomness
        self._clock = clock or _clock
        self._invitations: dict[bytes, _Invitation] = {}
        self._counts: Counter[str] = Counter()
        self.rekey(secret, credentials)

    def rekey(self, secret: ClusterSecret, credentials: Credentials) -> None:
        """Guests get this secret from now on; tokens of before invite nobody any more."""
        self._secret = secret
        self._ca = ssl.PEM_cert_to_DER_cert(credentials.ca.decode())
        self._credentials = credentials
        self._context: ssl.SSLContext | None = None
        self._invitations.clear()

    @property
    def is_open(self) -> bool:
        """Whether guests are listened to: while an invitation is valid, and to explain it for a day after."""
        self._forget_old()
        return bool(self._invitations)

    def statistics(self) -> Mapping[str, int]:
        """Guests by what became of them."""
        return dict(self._counts)

    def is_ours(self, token: str) -> bool:
        """Whether this token invites into the cluster that this node is in.

        Raises:
            ConfigError: it is no token.
        """
        return read_token(token).ca_hash == hash_of_ca(self._ca)

    def invite(self, *, uses: int, valid_s: float) -> str:
        """A token that lets `uses` machines in for `valid_s` seconds.

        Raises:
            ConfigError: too many or too few, or too long.
        """
        if not 1 <= uses <= USES_MAX:
            raise ConfigError(f"An invitation is for 1 to {USES_MAX} machines, not {uses}.")
        if not 1 <= valid_s <= VALID_MAX_S:
            raise ConfigError(f"An invitation is valid for 1 second to 30 days, not {valid_s:g} s.")
        self._forget_old()
        if len(self._invitations) >= INVITES_MAX:
            raise ConfigError(f"There are {INVITES_MAX} invitations already; wait until some have expired.")
        if self._context is None:
            self._context = tls.inviting_context(self._credentials)
        secret = self._randomness(TOKEN_SECRET_BYTES)
        self._invitations[_name(secret)] = _Invitation(self._clock() + valid_s, uses)
        return print_token(Token(hash_of_ca(self._ca), secret, self._addresses()[:ADDRESSES_MAX]))

    async def serve(self, tcp: trio.SocketStream) -> None:
        """Serve one guest, whose preface has been read. The caller sets the deadline and closes.

        Raises:
            trio.BrokenResourceError: the guest is gone.
            RemoteProtocolError: it does not keep to the protocol.
        """
        if self._context is None:
            return
        await tcp.send_all(PREFACE_ANSWER)
        stream = trio.SSLStream(tcp, self._context, server_side=True)
        await stream.do_handshake()
        await stream.send_all(encode_frame(TO_GUEST, GuestCa(ca=self._ca)))
        decoder = FrameDecoder(FROM_GUEST, payload_bytes_max=0)
        while (frame := decoder.next()) is None:
            data = await stream.receive_some(1024)
            if not data:
                return
            decoder.push(bytes(data))
        if not isinstance(frame.message, GuestSecret):
            raise RemoteProtocolError("a guest without a secret")
        answer = self._admit(frame.message)
        if isinstance(answer, GuestRefused):
            await trio.sleep(WRONG_WAIT_S)
        await stream.send_all(encode_frame(TO_GUEST, answer))
        await stream.aclose()

    def _admit(self, message: GuestSecret) -> GuestWelcome | GuestRefused:
        invitation = self._invitations.get(_name(message.secret))
        if invitation is None:
            return self._refuse(Answer.WRONG)
        if self._clock() >= invitation.expires_at:
            return self._refuse(Answer.EXPIRED)
        if message.guest not in invitation.guests:
            if len(invitation.guests) >= invitation.uses:
                return self._refuse(Answer.USED_UP)
            invitation.guests.add(message.guest)
        self._counts["guests_welcome"] += 1
        addresses = tuple((a.host, a.port) for a in self._addresses())
        secret = self._secret
        return GuestWelcome(
            secret=secret.value,
            open_name=secret.open_name,
            addresses=addresses,
            epoch=secret.epoch,
            origin=secret.origin,
        )

    def _refuse(self, reason: Answer) -> GuestRefused:
        self._counts[f"guests_{reason.name.lower()}"] += 1
        return GuestRefused(reason=reason, text=SENTENCES[reason])

    def _forget_old(self) -> None:
        now = self._clock()
        for name in [n for n, i in self._invitations.items() if now - i.expires_at > REMEMBERED_S]:
            del self._invitations[name]


def _name(secret: bytes) -> bytes:
    """Under which an invitation is found: looking for a hash tells nothing about the secret by its timing."""
    return hashlib.sha256(secret).digest()


def _clock() -> float:
    """Seconds that go on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
