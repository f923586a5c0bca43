"""From a TCP connection to an authenticated one: TLS 1.3, then hello both ways. Tells apart how it can fail.

What the dialler sees, and what it means (trap: in TLS 1.3 its own handshake ends before the acceptor has looked at
its certificate, so a refusal of it may arrive in place of the hello):

=============================================== ============
refused, or closed or reset without a word      REFUSED: the process has just ended, or nobody listens
no SYN-ACK, no route                            SILENT
accepted, then nothing in time                  STALLED
not TLS 1.3; signed by another CA; our
certificate refused; another secret by now      FOREIGN
the first byte after TLS is another version     INCOMPATIBLE
=============================================== ============
"""

from __future__ import annotations

import errno
import ssl
from typing import Final, TypeAlias

import trio

from p2premap.errors import RemoteProtocolError
from p2premap.event import Event
from p2premap.gossip.events import DialOutcome
from p2premap.ids import Address
from p2premap.node.certificates import proved_id
from p2premap.node.hello import (
    Given,
    Hello,
    HelloRefused,
    Peer,
    Reason,
    Refused,
    hello_decoder,
    hello_frame,
    read_hello,
)
from p2premap.node.keys import Face
from p2premap.node.listeners import socket_address, tune
from p2premap.node.secret import ClusterSecret
from p2premap.wire import FrameDecoder, UnknownVersion

TlsStream: TypeAlias = trio.SSLStream[trio.SocketStream]

_FIRST_READ_BYTES: Final = 16 << 10
_REFUSED: Final = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


class Channel(Event, frozen=True):
    """A connection to a member, hellos done.

    Args:
        stream: the bytes that follow.
        decoder: holds what has come after the hello; `admit` what may come before reading on.
        peer: who is there.
    """

    stream: TlsStream
    decoder: FrameDecoder
    peer: Peer


class DialFailed(Exception):
    """The address did not lead to a member. `outcome` says how.

    Args:
        given: the cluster's present secret, where a member gave it to us, who had missed it.
        rotated: it was a member that said that we are none any more.
    """

    def __init__(
        self, outcome: DialOutcome, text: str, given: ClusterSecret | None = None, *, rotated: bool = False
    ) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.given = given
        self.rotated = rotated


class Dialling:
    """One attempt to reach a member at an address.

    Args:
        address: numeric.
        face: ours, under the secret that the other end is to know as well.
        hello: what to say.
        silent_s: see `p2premap.node.listeners.tune`.
    """

    def __init__(self, address: Address, *, face: Face, hello: Hello, silent_s: float) -> None:
        self.face = face
        self._address = address
        self._hello = hello
        self._silent_s = silent_s
        self._accepted = False

    async def run(self) -> Channel:
        """The connection. The caller sets the deadline; if that passes, ask `timed_out` what it means.

        Raises:
            DialFailed: any other end than CONNECTED.
        """
        tcp = await connect(self._address, self._silent_s)
        self._accepted = True
        stream = trio.SSLStream(tcp, self.face.client_context, server_hostname=self.face.server_name)
        try:
            return await say_hello(stream, self._hello)
        except BaseException as error:
            await trio.aclose_forcefully(tcp)
            if isinstance(error, (trio.BrokenResourceError, RemoteProtocolError)):
                given = error.secret if isinstance(error, Given) else None
                rotated = isinstance(error, Refused) and error.refusal.reason is Reason.ROTATED
                raise DialFailed(_meaning(error), str(error.__cause__ or error), given, rotated=rotated) from None
            raise

    @property
    def timed_out(self) -> DialOutcome:
        """What it means that the time is over."""
        return DialOutcome.STALLED if self._accepted else DialOutcome.SILENT


async def connect(address: Address, silent_s: float) -> trio.SocketStream:
    """A TCP connection.

    Raises:
        DialFailed: REFUSED or SILENT.
    """
    try:
        family, where = socket_address(address)
    except ValueError as error:
        raise DialFailed(DialOutcome.SILENT, str(error)) from None
    try:
        one = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    except OSError as error:
        raise DialFailed(DialOutcome.SILENT, str(error)) from None  # this machine lacks the family, or descriptors
    try:
        await one.connect(where)
        stream = trio.SocketStream(one)
        tune(stream.setsockopt, silent_s)
    except BaseException as error:
        one.close()
        if isinstance(error, OSError):
            refused = error.errno in _REFUSED
            raise DialFailed(DialOutcome.REFUSED if refused else DialOutcome.SILENT, str(error)) from None
        raise
    return stream


async def say_hello(stream: TlsStream, hello: Hello) -> Channel:
    """The dialler's half: TLS, our hello, the peer's.

    Raises:
        trio.BrokenResourceError: closed, reset, or a TLS failure (its cause).
        RemoteProtocolError: no hello, a refusal, or another version.
    """
    await stream.do_handshake()
    await stream.send_all(hello_frame(hello))
    return await hear_hello(stream)


async def hear_hello(stream: TlsStream) -> Channel:
    """The peer's hello, after TLS.

    Raises:
        trio.BrokenResourceError: closed, reset, or a TLS failure (its cause).
        RemoteProtocolError: no hello, a refusal, or another version.
    """
    certificate = stream.getpeercert(binary_form=True)
    assert certificate is not None, "TLS has verified a certificate"
    proved = proved_id(certificate)
    decoder = hello_decoder()
    while (peer := read_hello(decoder, proved)) is None:
        data = await stream.receive_some(_FIRST_READ_BYTES)
        if not data:
            raise trio.BrokenResourceError("closed before the hello")
        decoder.push(bytes(data))
    return Channel(stream, decoder, peer)


def _meaning(error: Exception) -> DialOutcome:
    match error:
        case UnknownVersion() | Refused(refusal=HelloRefused(reason=Reason.VERSION)):
            return DialOutcome.INCOMPATIBLE
        case Refused(refusal=HelloRefused(reason=Reason.FULL)):
            return DialOutcome.STALLED  # it lives, and has no time for us
        case Refused(refusal=HelloRefused(reason=Reason.ROTATED)):
            return DialOutcome.FOREIGN
        case Refused():
            return DialOutcome.INCOMPATIBLE
        case RemoteProtocolError():
            return DialOutcome.FOREIGN
    # an end of file in the middle of TLS comes as one of its errors, too
    tls = isinstance(error.__cause__, ssl.SSLError) and not isinstance(
        error.__cause__, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    )
    return DialOutcome.FOREIGN if tls else DialOutcome.REFUSED


def foreign_certificate(error: BaseException) -> bool:
    """Whether the other side of a failed handshake is a stranger to our cluster, rather than gone."""
    return isinstance(error, trio.BrokenResourceError) and _meaning(error) is DialOutcome.FOREIGN
