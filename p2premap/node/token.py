"""An invitation as text that survives copying: where to ask, whom to believe, and what to say. Pure.

::

    "p2pm" + base32 of:  version (1) | hash of the CA certificate (16) | secret (16)
                         | per address: IP version (1), IP (4 or 16), port (2) | checksum (4)

Small letters and digits only, so that a double click selects it, a messenger does not change it, and it can be read
out. The checksum tells a mistyped token from a refused one before anything is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from collections.abc import Iterable
from typing import Final

import msgspec

from p2premap.errors import ConfigError
from p2premap.ids import Address

HASH_BYTES: Final = 16
TOKEN_SECRET_BYTES: Final = 16
ADDRESSES_MAX: Final = 8
_PREFIX: Final = "p2pm"
_VERSION: Final = 1
_CHECKSUM_BYTES: Final = 4
_TEXT_MAX: Final = 1_024


class Token(msgspec.Struct, frozen=True):
    """What an invitation says.

    Args:
        ca_hash: `hash_of_ca` of the cluster's CA certificate.
        secret: proves to the inviting node that its user has handed this token on.
        addresses: where the inviting node may be, the best first; numeric, without scope.
    """

    ca_hash: bytes
    secret: bytes
    addresses: tuple[Address, ...]

    def __repr__(self) -> str:
        return f"<Token for {self.ca_hash.hex()}>"


def hash_of_ca(ca: bytes) -> bytes:
    """128 bits of the SHA-256 of a CA certificate (DER): another one with the same takes 2^128 tries."""
    return hashlib.sha256(ca).digest()[:HASH_BYTES]


def print_token(token: Token) -> str:
    """The text. Addresses with a scope are left out (it means nothing elsewhere), and those beyond ADDRESSES_MAX."""
    parts = [bytes((_VERSION,)), token.ca_hash, token.secret, *_packed(token.addresses)]
    content = b"".join(parts)
    return _PREFIX + base64.b32encode(content + _checksum(content)).decode().rstrip("=").lower()


def read_token(text: str) -> Token:
    """The token in `text`; blanks and line breaks from copying are ignored.

    Raises:
        ConfigError: it was not copied whole, is mistyped, or is of a newer release.
    """
    mistyped = ConfigError("This is not a whole invitation token: copy it again, from `p2pm` to its last character.")
    letters = "".join(text.split()).lower()
    if not letters.startswith(_PREFIX) or len(letters) > _TEXT_MAX:
        raise mistyped
    letters = letters.removeprefix(_PREFIX).upper()
    try:
        content = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        raise mistyped from None
    content, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if len(content) < 1 + HASH_BYTES + TOKEN_SECRET_BYTES or checksum != _checksum(content):
        raise mistyped
    if content[0] != _VERSION:
        raise ConfigError("This invitation token is of another release of p2premap; upgrade this machine.")
    middle = 1 + HASH_BYTES
    end = middle + TOKEN_SECRET_BYTES
    try:
        addresses = _unpacked(content[end:])
    except ValueError:
        raise mistyped from None
    return Token(content[1:middle], content[middle:end], addresses)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(b"p2premap token " + content).digest()[:_CHECKSUM_BYTES]


def _packed(addresses: Iterable[Address]) -> list[bytes]:
    plain = [a for a in addresses if "%" not in a.host][:ADDRESSES_MAX]
    ips = [(ipaddress.ip_address(a.host), a.port) for a in plain]
    return [bytes((ip.version,)) + ip.packed + port.to_bytes(2, "big") for ip, port in ips]


def _unpacked(content: bytes) -> tuple[Address, ...]:
    """Raises ValueError where the bytes are not addresses."""
    addresses = []
    while content:
        size = {4: 4, 6: 16}.get(content[0], 0)
        if not size or len(content) < size + 3:
            raise ValueError("not an address")
        host = str(ipaddress.ip_address(content[1 : size + 1]))
        addresses.append(Address(host, int.from_bytes(content[size + 1 : size + 3], "big")))
        content = content[size + 3 :]
    if len(addresses) > ADDRESSES_MAX or any(not a.port for a in addresses):
        raise ValueError("not an address")
    return tuple(addresses)
