"""What is installed on a node: the slow fact "software", of which jobs may require something.

A node publishes it when it has been up for a moment (`p2premap.node.installed` looks). Packages are those that worker
processes find, as they run the node's own Python.
"""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from p2premap.errors import RemoteProtocolError

FACT: Final = "software"
"""The key under which gossip spreads it."""

FACT_BYTES_MAX: Final = 12 << 10
"""Of its value; programs beyond it are left out, the last ones first."""
PLAIN_BYTES_MAX: Final = 1 << 20


class Software(msgspec.Struct, frozen=True, array_like=True):
    """What is installed.

    Args:
        packages: distributions by their normal name, with their versions.
        programs: what is on the PATH.
    """

    packages: dict[str, str] = {}
    programs: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """As the fact's value."""
        one = self
        while len(value := zlib.compress(msgspec.msgpack.encode(one), 9)) > FACT_BYTES_MAX and one.programs:
            one = Software(one.packages, one.programs[: len(one.programs) * 3 // 4])
        return value if len(value) <= FACT_BYTES_MAX else b""

    @classmethod
    def decode(cls, value: bytes) -> Software:
        """From the fact's value.

        Raises:
            RemoteProtocolError: it is not one.
        """
        try:
            unpacker = zlib.decompressobj()
            plain = unpacker.decompress(value, PLAIN_BYTES_MAX)
            if not unpacker.eof:
                raise RemoteProtocolError("not software: it is too long, or cut off")
            return msgspec.msgpack.decode(plain, type=cls)
        except (zlib.error, msgspec.DecodeError) as error:
            raise RemoteProtocolError(f"not software: {error}") from None
