"""The first frames of every TLS connection between members, and of a remote client with a member. Pure.

TLS has proved both keys and the cluster when these are sent; the hello says the rest, and shows that a process speaks
there and not only a kernel. In TLS 1.3 a client sees a finished handshake before its certificate is refused: only the
hello back means "connected"::

    dialler                                       acceptor
      | Hello(purpose, node, boot, ...) ----------->|
      |<------------------------- Hello(...) -------|    or HelloRefused(reason, text), and the end;
      |                                             |    or, to a member that was away, SecretGiven, and the end
      |                                             |
      |   PROBE: either side closes                 |
      |   CONTROL, CLIENT: the control service      |    `p2premap.control`: the acceptor speaks next, with Welcome
      |   BULK: the bulk service                    |    `p2premap.node.bulk`: the dialler speaks next
      |   RETURN: from here on the roles change     |    `p2premap.node.returns`
      |   LINK:                                     |
      | LinkStart --------------------------------->|   the dialler has no other link to this acceptor
      |<------------------------- LinkStarted ------|   the link is up; or contested, and this connection ends
      |<------------ messages of every room ------->|
      | LinkEnd ----------------------------------->|   nothing more comes from here; the connection ends

All frames have the format of `p2premap.wire`, without payload. The first byte that either side ever sends is its
major version: a peer of another one understands nothing else, and needs nothing else to say so.

A client that is no node uses an ephemeral key, boot 0 and purpose CLIENT; see `p2premap.node.tls`.
"""

import enum
from typing import Annotated, Final

import msgspec

from p2premap.errors import RemoteProtocolError
from p2premap.event import Event
from p2premap.gossip.messages import Addresses
from p2premap.ids import Address, Boot, NodeId
from p2premap.node.seal import SALT_BYTES
from p2premap.node.secret import SECRET_BYTES, ClusterSecret
from p2premap.wire import BootField, Count, FrameDecoder, Message, NodeIdField, Registry, Seconds, Short, encode_frame

HELLO_BYTES_MAX: Final = 8 << 10


class Purpose(enum.IntEnum):
    """What a connection is for."""

    LINK = 0
    """This pair's link: messages of every room."""
    PROBE = 1
    """Are you there? Closed after the hello."""
    CONTROL = 2
    """A member asks the control service."""
    BULK = 3
    """A member reads blobs."""
    CLIENT = 4
    """A program that knows the secret asks the control service."""
    RETURN = 5
    """The acceptor has asked for this connection with `CallMe`: after the hello it is the one that asks."""


class Reason(enum.IntEnum):
    """Why a connection was refused after the TLS handshake."""

    VERSION = 0
    """The major versions differ."""
    PROTOCOL = 1
    """The hello was not one."""
    FULL = 2
    """Too many connections."""
    ROTATED = 3
    """The cluster has another secret, and the dialler is none of those that are given it."""


class Hello(Message, frozen=True, tag=20, kw_only=True):
    """Who this is. TLS has proved the key behind `node` already; a hello that names another is refused.

    Args:
        boot: 0 for a client that is no node.
        version: of the software, for people.
        addresses: where this node listens; of an acceptor and of a LINK dialler.
        salt, counter: of the sender's datagrams (see `p2premap.node.seal`).
        up_s: how long the node has run: of two with one id, the younger gives it up.
        answers: of a RETURN, the number in the `CallMe`.
    """

    purpose: Purpose
    node: NodeIdField
    boot: BootField
    version: Short
    name: Short
    addresses: Addresses = ()
    salt: Annotated[bytes, msgspec.Meta(max_length=SALT_BYTES)] = b""
    counter: Count = 0
    up_s: Seconds = 0.0
    answers: Count = 0


class HelloRefused(Message, frozen=True, tag=21, kw_only=True):
    """No. `text` is one sentence for a person."""

    reason: Reason
    text: Short


class SecretGiven(Message, frozen=True, tag=29, kw_only=True):
    """Instead of a hello, to a member that was away: the cluster's secret is this now (`p2premap.node.keyring`)."""

    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    epoch: Count
    origin: Short


class LinkStart(Message, frozen=True, tag=22, kw_only=True):
    """Let this connection be our link: as I say this, I have no other to you. Sent by the dialler."""


class LinkStarted(Message, frozen=True, tag=23, kw_only=True):
    """The answer to `LinkStart`; before it nothing else is said.

    Args:
        contested: no, as I have started one of mine at the same time, and mine stays (see `p2premap.node.links`).
    """

    contested: bool


class LinkEnd(Message, frozen=True, tag=24, kw_only=True):
    """I close this link; nothing more comes from me on it."""


class CallMe(Message, frozen=True, tag=25, kw_only=True):
    """Open a connection to me and serve me on it: I cannot dial you. Said on a link that is up.

    Args:
        number: what the hello of that connection shall answer.
        purpose: CONTROL or BULK; anything else is ignored.
    """

    number: Count
    purpose: Purpose


HELLO = Registry((Hello, HelloRefused, SecretGiven), header_bytes_max=HELLO_BYTES_MAX)
"""What may come first."""

LINK_CONTROL: Final = (LinkStart, LinkStarted, LinkEnd)
"""What a link carries besides the messages of the rooms."""


class Refused(RemoteProtocolError):
    """The other side answered the hello with a refusal.

    Args:
        refusal: what it said.
    """

    def __init__(self, refusal: HelloRefused) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class Given(RemoteProtocolError):
    """The other side answered the hello with the cluster's present secret.

    Args:
        secret: what it gave.
    """

    def __init__(self, secret: ClusterSecret) -> None:
        super().__init__("the cluster's secret was rotated")
        self.secret = secret


class Peer(Event, frozen=True, kw_only=True):
    """Who is at the other end, after the hello.

    Args:
        node: proved by TLS.
        rest: as told; authenticated, as only a member can tell it.
    """

    node: NodeId
    boot: Boot
    purpose: Purpose
    version: str
    name: str
    addresses: tuple[Address, ...]
    salt: bytes
    counter: int
    up_s: float
    answers: int = 0


def hello_frame(hello: Hello) -> bytes:
    """The bytes of a hello."""
    return encode_frame(HELLO, hello)


def refusal_frame(reason: Reason, text: str) -> bytes:
    """The bytes of a refusal."""
    return encode_frame(HELLO, HelloRefused(reason=reason, text=text[:255]))


def secret_frame(secret: ClusterSecret) -> bytes:
    """The bytes that give a member that was away the cluster's secret."""
    given = SecretGiven(secret=secret.value, epoch=secret.epoch, origin=secret.origin)
    return encode_frame(HELLO, given)


def hello_decoder() -> FrameDecoder:
    """For the first frame of a connection; after it, `admit` what may come next."""
    return FrameDecoder(HELLO, payload_bytes_max=0)


def read_hello(decoder: FrameDecoder, proved: NodeId) -> Peer | None:
    """The hello among what was pushed into `decoder`; None until it is complete.

    Args:
        decoder: of `hello_decoder`.
        proved: the id that the peer has proved by TLS.

    Raises:
        UnknownVersion: the peer speaks another major version.
        Refused: the peer refused ours.
        Given: the peer gave us the cluster's present secret, which we had missed.
        RemoteProtocolError: not a hello, or one in another's name.
    """
    frame = decoder.next()
    if frame is None:
        return None
    match frame.message:
        case Hello() as hello:
            if hello.node != proved:
                raise RemoteProtocolError("a hello in the name of another node")
            if hello.purpose is not Purpose.CLIENT and len(hello.salt) != SALT_BYTES:
                raise RemoteProtocolError("a node's hello without a salt")
            return Peer(
                node=hello.node,
                boot=hello.boot,
                purpose=hello.purpose,
                version=hello.version,
                name=hello.name,
                addresses=tuple(Address(*a) for a in hello.addresses),
                salt=hello.salt,
                counter=hello.counter,
                up_s=hello.up_s,
                answers=hello.answers,
            )
        case HelloRefused() as refusal:
            raise Refused(refusal)
        case SecretGiven() as given:
            raise Given(ClusterSecret(given.secret, "", given.epoch, given.origin))
        case _:
            raise RemoteProtocolError("not a hello")
