"""A program's line to a member of the cluster on another machine, where it has no daemon of its own. No trio.

Whoever knows the cluster's secret may use a member's control service (purpose CLIENT in `p2premap.node.hello`): the
program issues itself a leaf for the moment and proves that it knows the secret, as a node does. After this the
connection carries what the local Unix socket carries (`p2premap.control`), beginning with the daemon's `Welcome`.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Final

from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import Address, Boot
from p2premap.node import tls
from p2premap.node.certificates import proved_id
from p2premap.node.hello import Hello, Peer, Purpose, hello_decoder, hello_frame, read_hello
from p2premap.node.listeners import socket_address
from p2premap.node.secret import ClusterSecret

CONNECT_S: Final = 3.0


def connect_member(
    secret: ClusterSecret, address: Address, *, name: str, version: str, timeout_s: float = CONNECT_S
) -> tuple[ssl.SSLSocket, Peer]:
    """A connection to the control service of the member at `address`, hellos done, and who it is.

    Args:
        secret: the cluster's.
        address: numeric.
        name, version: of the program, for people.
        timeout_s: for all of it.

    Raises:
        PeerUnreachable: nobody there, somebody of another cluster, or another version; the sentence says which.
    """
    until = time.monotonic() + timeout_s
    credentials = tls.ephemeral(secret)
    context = tls.client_context(credentials)
    try:
        family, where = socket_address(address)
        raw = socket.socket(family, socket.SOCK_STREAM)
    except (ValueError, OSError) as error:
        raise PeerUnreachable(f"{address} cannot be reached from here: {error}.") from None
    try:
        raw.settimeout(timeout_s)
        raw.connect(where)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = context.wrap_socket(raw, server_hostname=tls.server_name(secret.tag), do_handshake_on_connect=False)
    except OSError as error:
        raw.close()
        raise PeerUnreachable(f"The node at {address} does not answer: {error.strerror or error}.") from None
    try:
        stream.settimeout(max(0.01, until - time.monotonic()))
        stream.do_handshake()
        own = proved_id(ssl.PEM_cert_to_DER_cert(credentials.leaf.decode()))
        hello = Hello(purpose=Purpose.CLIENT, node=own, boot=Boot(0), version=version, name=name)
        stream.sendall(hello_frame(hello))
        return stream, _hear_hello(stream)
    except ssl.SSLError as error:
        stream.close()
        raise PeerUnreachable(f"What answers at {address} is not of this cluster ({error.reason or error}).") from None
    except (OSError, RemoteProtocolError) as error:
        stream.close()
        raise PeerUnreachable(f"The node at {address} does not let this program in: {error}.") from None


def _hear_hello(stream: ssl.SSLSocket) -> Peer:
    """The member's hello, and not a byte of what follows it."""
    certificate = stream.getpeercert(binary_form=True)
    assert certificate is not None, "TLS has verified a certificate"
    proved = proved_id(certificate)
    decoder = hello_decoder()
    while (peer := read_hello(decoder, proved)) is None:
        data = stream.recv(decoder.missing)
        if not data:
            raise RemoteProtocolError("it closed the connection")
        decoder.push(data)
    return peer
