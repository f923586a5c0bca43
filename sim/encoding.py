"""Messages between virtual nodes as bytes: what the real wire carries is what the trace hashes and the budgets count.

Encoding and decoding cost as much as a step of a core. So most messages are taken as they were sent, and every
`DECODED_EVERY`th is encoded, decoded and compared, since what cannot be read as it was written must not go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from p2premap import protocol
from p2premap.errors import RemoteProtocolError
from p2premap.sim.observers import InvariantBroken
from p2premap.wire import HEADER_BYTES_MAX, Message

DECODED_EVERY: Final = 16

_CACHED_MAX: Final = 4096
_pack: Final = msgspec.msgpack.Encoder(enc_hook=repr).encode


class Encoding:
    """The codec of one world.

    Args:
        broken: makes the error for a message that is read as another one (checker `wire`).
    """

    def __init__(self, broken: Callable[[str, str], InvariantBroken]) -> None:
        self._broken = broken
        self._received = 0
        self._sent: dict[bytes, Message] = {}
        """Datagrams, by their bytes."""
        self._last: tuple[Message | None, bytes] = (None, b"")

    def datagram(self, message: Message) -> bytes:
        """The bytes of a datagram; one that goes to several is encoded once."""
        last, data = self._last
        if last is not message:
            data = protocol.GOSSIP.encode(message)
            self._last = (message, data)
            if len(self._sent) >= _CACHED_MAX:
                self._sent.clear()
            self._sent[data] = message
        return data

    def read_datagram(self, data: bytes) -> Message:
        """What its receiver reads.

        Raises:
            InvariantBroken: `wire`.
        """
        message = self._sent.get(data)
        self._received += 1
        if message is not None and self._received % DECODED_EVERY:
            return message
        try:
            decoded = protocol.GOSSIP.decode(data)
        except RemoteProtocolError as error:
            raise self._broken("wire", f"a node sent what cannot be read: {error}") from error
        if message is not None and message != decoded:
            raise self._broken("wire", f"{message} is read as {decoded}")
        return decoded

    def frame(self, message: Message) -> bytes:
        """What stands for a message on a link: MessagePack has the same content in as many bytes, ten times as fast."""
        data = _pack(message)
        if len(data) > HEADER_BYTES_MAX:
            protocol.LINK.encode(message)  # says what is wrong
        return data

    def read_frame(self, message: Message) -> Message:
        """What a peer reads.

        Raises:
            InvariantBroken: `wire`.
        """
        self._received += 1
        if self._received % DECODED_EVERY:
            return message
        decoded = protocol.LINK.decode(protocol.LINK.encode(message))
        if message != decoded:
            raise self._broken("wire", f"{message} is read as {decoded}")
        return decoded


def told(thing: object) -> bytes:
    """An event or an effect as bytes, for the trace."""
    return type(thing).__name__.encode() + _pack(thing)
