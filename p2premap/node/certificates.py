"""Keys and certificates: the cluster's derived authority, a node's own leaf, and the id that a leaf proves.

Every member derives the byte-identical CA certificate from the secret (Ed25519 signatures are deterministic, RFC 8032;
serial and dates are fixed), so a hash of it names the cluster. Leaves are valid from 1950 to 9999: a Raspberry Pi has
no clock at boot, and a lost machine is shut out by a new secret, not by a date. A leaf's names prove nothing; its key
does.

All fields have fixed sizes, so a certificate is a form that is filled in and signed: byte-identical under every version
of every library, which is what a derived authority needs, and without `cryptography.x509`, which costs 2 MB and 65 ms
at a node's first start. A test builds the same certificates with that library and compares. A guest does load it, to
verify a signature.
"""

from __future__ import annotations

import base64
import hashlib
import warnings
from typing import TYPE_CHECKING, Final

import blake3
import msgspec

from p2premap.errors import RemoteProtocolError
from p2premap.ids import NODE_ID_BYTES, NodeId
from p2premap.node.secret import TAG_BYTES, ClusterSecret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES: Final = 32
ORGANISATION: Final = "p2premap"

# SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410, section 4)
_ED25519_INFO: Final = bytes.fromhex("302a300506032b6570032100")

# The body of each certificate (TBSCertificate, RFC 5280, section 4.1) in DER, with the names of its fields
_ALGORITHM: Final = bytes.fromhex("300506032b6570")  # Ed25519
_NAME: Final = bytes.fromhex("3111300f060355040a0c0870327072656d6170")  # O=p2premap
_TAG_NAME: Final = bytes.fromhex("302e") + _NAME + bytes.fromhex("3119301706035504030c10")  # ..., CN=<16 characters>
_NODE_NAME: Final = bytes.fromhex("303e") + _NAME + bytes.fromhex("3129302706035504030c20")  # ..., CN=<32 characters>
_VALIDITY: Final = bytes.fromhex("3020170d") + b"500101000000Z" + bytes.fromhex("180f") + b"99991231235959Z"
_CA: Final[tuple[bytes | str, ...]] = (
    bytes.fromhex("30820104a003020102020101") + _ALGORITHM + _TAG_NAME,  # version 3, serial 1, issuer
    "tag",
    _VALIDITY + _TAG_NAME,
    "tag",
    _ED25519_INFO,
    "key",
    # critical CA:true with path length 0; critical use: certificates are signed; subject key identifier
    bytes.fromhex(
        "a345304330120603551d130101ff040830060101ff020100300e0603551d0f0101ff040403020204301d0603551d0e04160414"
    ),
    "key_id",
)
_LEAF: Final[tuple[bytes | str, ...]] = (
    bytes.fromhex("3082013fa003020102021101"),  # version 3, serial 0x01 and the node id
    "serial",
    _ALGORITHM + _TAG_NAME,
    "tag",
    _VALIDITY + _NODE_NAME,
    "node",
    _ED25519_INFO,
    "key",
    # critical CA:false; critical use: signatures; subject and authority key identifiers
    bytes.fromhex("a360305e300c0603551d130101ff04023000300e0603551d0f0101ff040403020780301d0603551d0e04160414"),
    "key_id",
    bytes.fromhex("301f0603551d23041830168014"),
    "ca_key_id",
)
_OUTER: Final = {264: bytes.fromhex("30820152"), 323: bytes.fromhex("3082018d")}  # SEQUENCE of all, by size of the body
_PKCS8: Final = bytes.fromhex("302e020100300506032b657004220420")  # up to the seed (RFC 8410, section 7)

_ORGANISATION_NAME: Final = bytes.fromhex("060355040a")
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_UTF8_STRING: Final = 0x0C


class Credentials(msgspec.Struct, frozen=True):
    """What one end of a TLS connection shows and trusts, PEM each.

    Args:
        ca: the cluster's authority: what the other end must be signed by.
        leaf: this end's certificate.
        key: this end's private key.
    """

    ca: bytes
    leaf: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<Credentials>"


def node_id(public_key: bytes) -> NodeId:
    """The id of whoever holds this Ed25519 key."""
    return NodeId(blake3.blake3(public_key).digest(NODE_ID_BYTES))


def public_key(seed: bytes) -> bytes:
    """The public half of an Ed25519 seed."""
    return _private(seed).public_key().public_bytes_raw()


def issue(secret: ClusterSecret, seed: bytes) -> Credentials:
    """A member's credentials, made by the member itself: whoever knows the secret may.

    Args:
        secret: the cluster's.
        seed: the node's own 32-byte Ed25519 seed.
    """
    authority, key = _private(secret.ca_seed), _private(seed)
    tag, ca_key, mine = secret.tag.encode(), authority.public_key().public_bytes_raw(), public_key(seed)
    node = node_id(mine)
    ca = _signed(authority, _CA, tag=tag, key=ca_key, key_id=_key_id(ca_key))
    leaf = _signed(
        authority,
        _LEAF,
        serial=node,
        tag=tag,
        node=node.hex().encode(),
        key=mine,
        key_id=_key_id(mine),
        ca_key_id=_key_id(ca_key),
    )
    return Credentials(_pem(ca), _pem(leaf), _pem(_PKCS8 + key.private_bytes_raw(), "PRIVATE KEY"))


def _signed(authority: Ed25519PrivateKey, form: tuple[bytes | str, ...], **fields: bytes) -> bytes:
    """A certificate: `form` with its named fields filled in, and the authority's signature (RFC 8410, section 3)."""
    body = b"".join(part if isinstance(part, bytes) else fields[part] for part in form)
    return b"".join((_OUTER[len(body)], body, _ALGORITHM, b"\x03\x41\x00", authority.sign(body)))


def _key_id(key: bytes) -> bytes:
    """The subject key identifier of a public key (RFC 5280, section 4.2.1.2, method 1)."""
    return hashlib.sha1(key, usedforsecurity=False).digest()


def _pem(der: bytes, what: str = "CERTIFICATE") -> bytes:
    """PEM (RFC 7468)."""
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join((f"-----BEGIN {what}-----".encode(), *lines, f"-----END {what}-----".encode(), b""))


def _private(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


def proved_id(leaf: bytes) -> NodeId:
    """The node id that a peer has proved, from its certificate (DER), which TLS has verified already.

    Only as much of X.509 as leads to the key (RFC 5280, section 4.1): SEQUENCE { SEQUENCE { [0] version, serial,
    algorithm, issuer, validity, subject, key, ...

    Raises:
        RemoteProtocolError: not of this shape, or another kind of key.
    """
    certificate, _ = _inside(leaf, 0, 0x30)
    position, _ = _inside(leaf, certificate, 0x30)
    for tag in (0xA0, 0x02, 0x30, 0x30, 0x30, 0x30):
        _, position = _inside(leaf, position, tag)
    _, end = _inside(leaf, position, 0x30)
    info = leaf[position:end]
    if len(info) != len(_ED25519_INFO) + KEY_BYTES or not info.startswith(_ED25519_INFO):
        raise RemoteProtocolError("the peer's certificate has no Ed25519 key")
    return node_id(info[len(_ED25519_INFO) :])


def _inside(data: bytes, position: int, tag: int) -> tuple[int, int]:
    """Where the content of the DER element at `position` begins and ends (X.690, 8.1 and 10.1).

    Raises:
        RemoteProtocolError: no such element.
    """
    if position + 2 > len(data) or data[position] != tag:
        raise RemoteProtocolError("the peer's certificate is malformed")
    size, position = data[position + 1], position + 2
    if size >= 0x80:
        width = size & 0x7F
        if not 1 <= width <= 2 or position + width > len(data):
            raise RemoteProtocolError("the peer's certificate is malformed")
        size, position = int.from_bytes(data[position : position + width], "big"), position + width
    if position + size > len(data):
        raise RemoteProtocolError("the peer's certificate is malformed")
    return position, position + size


def claimed_cluster(leaf: bytes) -> str:
    """The tag of the cluster that a stranger's certificate (DER) claims to be of; "" where it is not p2premap's.

    Nothing about it has been verified: it is for showing only. Names are looked for by their object identifiers
    (RFC 5280, A.1: organisation 2.5.4.10, common name 2.5.4.3), in the issuer alone.
    """
    try:
        issuer = _issuer(leaf)
        tag = _text_after(issuer, _COMMON_NAME)
        ours = _text_after(issuer, _ORGANISATION_NAME) == ORGANISATION
    except RemoteProtocolError:
        return ""
    return tag if ours and is_tag(tag) else ""


def _issuer(leaf: bytes) -> bytes:
    certificate, _ = _inside(leaf, 0, 0x30)
    position, _ = _inside(leaf, certificate, 0x30)
    for tag in (0xA0, 0x02, 0x30):
        _, position = _inside(leaf, position, tag)
    start, end = _inside(leaf, position, 0x30)
    return leaf[start:end]


def _text_after(names: bytes, identifier: bytes) -> str:
    place = names.find(identifier)
    if place < 0:
        return ""
    start, end = _inside(names, place + len(identifier), _UTF8_STRING)
    return names[start:end].decode(errors="replace")


def is_tag(text: str) -> bool:
    """Whether this has the form of a cluster's public tag."""
    return len(text) == 2 * TAG_BYTES and all(c in "0123456789abcdef" for c in text)


def signed_by(leaf: bytes, ca: bytes) -> bool:
    """Whether the CA certificate `ca` (DER) has signed the certificate `leaf` (DER)."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.utils import CryptographyDeprecationWarning

    try:
        # what is still read, but against the rules, such as a serial number below zero, no member has ever issued
        with warnings.catch_warnings(action="error", category=CryptographyDeprecationWarning):
            x509.load_der_x509_certificate(leaf).verify_directly_issued_by(x509.load_der_x509_certificate(ca))
    except (ValueError, TypeError, InvalidSignature, x509.InvalidVersion, CryptographyDeprecationWarning):
        return False
    return True
