"""Being let in: the guest's half of an invitation (`p2premap.node.invite` draws the exchange).

Plain sockets, no trio and no daemon: `p2premap join TOKEN` works on a machine where nothing runs yet; a daemon calls
it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from p2premap.errors import JoinRefused, PeerUnreachable, RemoteProtocolError
from p2premap.ids import Address
from p2premap.node import tls
from p2premap.node.certificates import KEY_BYTES, is_tag, issue, signed_by
from p2premap.node.invite import (
    FROM_GUEST,
    GUEST_BYTES,
    PREFACE,
    PREFACE_ANSWER,
    TO_GUEST,
    GuestCa,
    GuestRefused,
    GuestSecret,
    GuestWelcome,
)
from p2premap.node.listeners import socket_address
from p2premap.node.secret import ClusterSecret
from p2premap.node.token import Token, hash_of_ca, read_token
from p2premap.ports import Randomness
from p2premap.wire import FrameDecoder, Message, encode_frame

CONNECT_S: Final = 3.0
EXCHANGE_S: Final = 5.0


class Joined(msgspec.Struct, frozen=True):
    """What the guest has got.

    Args:
        secret: of the cluster that it is now a member of.
        addresses: where members are.
    """

    secret: ClusterSecret
    addresses: tuple[Address, ...]


def join(text: str, randomness: Randomness = os.urandom) -> Joined:
    """Ask the node that made the token to let this machine in. Nothing is stored here.

    Raises:
        ConfigError: the token was not copied whole.
        JoinRefused: the token is unknown, used up or expired, or who answers is not of the token's cluster.
        PeerUnreachable: the inviting node answers at none of the token's addresses.
    """
    token = read_token(text)
    guest = randomness(GUEST_BYTES)
    strangers: list[Address] = []
    for address, connection in _connections(token.addresses):
        with connection:
            connection.settimeout(EXCHANGE_S)
            try:
                return _ask(connection, token, guest)
            except (OSError, RemoteProtocolError, _Impostor):
                strangers.append(address)
    where = ", ".join(map(str, token.addresses)) or "no address"
    if strangers:
        raise JoinRefused(
            f"What answers at {', '.join(map(str, strangers))} does not invite into the token's cluster: the token may "
            "have expired, or its node has restarted; run `p2premap invite` again."
        )
    raise PeerUnreachable(
        f"The inviting node does not answer at {where}: check that both machines are on one network and that its "
        "firewall lets the port in (`p2premap doctor` there prints the command)."
    )


class _Impostor(Exception):
    """Who answers is not of the token's cluster; it has been told nothing."""


def _ask(connection: socket.socket, token: Token, guest: bytes) -> Joined:
    """The exchange.

    Raises:
        JoinRefused: by the inviting node.
        OSError, RemoteProtocolError: the other side is something else, or gone.
    """
    connection.sendall(PREFACE)
    if connection.recv(len(PREFACE_ANSWER), socket.MSG_WAITALL) != PREFACE_ANSWER:
        raise _Impostor
    with tls.unverified_context().wrap_socket(connection) as stream:
        decoder = FrameDecoder(TO_GUEST, payload_bytes_max=0)
        leaf = stream.getpeercert(binary_form=True) or b""
        shown = _receive(stream, decoder)
        if not isinstance(shown, GuestCa) or hash_of_ca(shown.ca) != token.ca_hash or not signed_by(leaf, shown.ca):
            raise _Impostor
        stream.sendall(encode_frame(FROM_GUEST, GuestSecret(secret=token.secret, guest=guest)))
        match _receive(stream, decoder):
            case GuestWelcome() as welcome:
                secret = ClusterSecret(welcome.secret, welcome.open_name, welcome.epoch, welcome.origin)
                if welcome.origin and not is_tag(welcome.origin):  # it names a directory here
                    raise _Impostor
                if issue(secret, bytes(KEY_BYTES)).ca != ssl.DER_cert_to_PEM_cert(shown.ca).encode():
                    raise _Impostor
                return Joined(secret, tuple(Address(*a) for a in welcome.addresses))
            case GuestRefused(text=text):
                raise JoinRefused(text)
            case _:
                raise _Impostor


def _receive(stream: ssl.SSLSocket, decoder: FrameDecoder) -> Message:
    while (frame := decoder.next()) is None:
        data = stream.recv(16 << 10)
        if not data:
            raise RemoteProtocolError("closed in the middle of an invitation")
        decoder.push(data)
    return frame.message


def _connections(addresses: Sequence[Address]) -> Iterator[tuple[Address, socket.socket]]:
    """Connect to all addresses at once; yield each connection as it is made, for CONNECT_S seconds."""
    until = time.monotonic() + CONNECT_S
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for address in addresses:
            with contextlib.suppress(OSError, ValueError):
                family, where = socket_address(address)
                one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.connect(where)
                selector.register(one, selectors.EVENT_WRITE, address)
        while selector.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                if not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    yield key.data, key.fileobj
