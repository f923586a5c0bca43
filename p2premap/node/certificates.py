"""Keys and certificates: the cluster's derived authority, a node's own leaf, and the id that a leaf proves.

Every member derives the byte-identical CA certificate from the secret (Ed25519 signatures are deterministic, RFC 8032;
serial and dates are fixed), so a hash of it names the cluster. Leaves are valid from 1950 to 9999: a Raspberry Pi has
no clock at boot, and a lost machine is shut out by a new secret, not by a date. A leaf's names prove nothing; its key
does.

`cryptography.x509` is imported only to make a certificate, and by a guest: it costs 2 MB and 40 ms.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import blake3

from p2premap.errors import RemoteProtocolError
from p2premap.ids import NODE_ID_BYTES, NodeId
from p2premap.node.secret import TAG_BYTES, ClusterSecret

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES: Final = 32
ORGANISATION: Final = "p2premap"
_CA_SERIAL: Final = 1
_NOT_BEFORE: Final = datetime.datetime(1950, 1, 1)
_NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59)

# SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410, section 4)
_ED25519_INFO: Final = bytes.fromhex("302a300506032b6570032100")

_ORGANISATION_NAME: Final = bytes.fromhex("060355040a")
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_UTF8_STRING: Final = 0x0C


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What one end of a TLS connection shows and trusts, PEM each.

    Args:
        ca: the cluster's authority: what the other end must be signed by.
        leaf: this end's certificate.
        key: this end's private key.
    """

    ca: bytes
    leaf: bytes
    key: bytes


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
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    authority, key = _private(secret.ca_seed), _private(seed)
    issuer = _name(secret.tag)
    key_id = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    ca = (
        _builder(issuer, issuer, authority, _CA_SERIAL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(key_id, critical=False)
        .sign(authority, None)
    )
    mine = public_key(seed)
    leaf = (
        _builder(_name(node_id(mine).hex()), issuer, key, int.from_bytes(b"\x01" + node_id(mine), "big"))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id),
            critical=False,
        )
        .sign(authority, None)
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(ca.public_bytes(pem), leaf.public_bytes(pem), private)


def _private(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: Ed25519PrivateKey, serial: int) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


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

    try:
        x509.load_der_x509_certificate(leaf).verify_directly_issued_by(x509.load_der_x509_certificate(ca))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
