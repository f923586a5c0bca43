"""The forms that certificates are filled into, against the same certificates built by `cryptography.x509`."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.node import certificates
from p2premap.node.certificates import Credentials, node_id, public_key
from p2premap.node.secret import ClusterSecret

SEEDS = st.binary(min_size=32, max_size=32)


@given(secret=SEEDS, seed=SEEDS)
@settings(max_examples=30)
def test_a_filled_in_certificate_is_what_the_library_builds(secret: bytes, seed: bytes) -> None:
    made, built = certificates.issue(ClusterSecret(secret), seed), build(ClusterSecret(secret), seed)
    assert (made.ca, made.leaf, made.key) == (built.ca, built.leaf, built.key)


def build(secret: ClusterSecret, seed: bytes) -> Credentials:
    """The same by the library."""
    authority, key = Ed25519PrivateKey.from_private_bytes(secret.ca_seed), Ed25519PrivateKey.from_private_bytes(seed)
    issuer = name(secret.tag)
    key_id = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    ca = (
        builder(issuer, issuer, authority, 1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(sign_certificates=True), critical=True)
        .add_extension(key_id, critical=False)
        .sign(authority, None)
    )
    mine = public_key(seed)
    leaf = (
        builder(name(node_id(mine).hex()), issuer, key, int.from_bytes(b"\x01" + node_id(mine), "big"))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(sign_certificates=False), critical=True)
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


def name(common: str) -> x509.Name:

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, certificates.ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def builder(subject: x509.Name, issuer: x509.Name, key: Ed25519PrivateKey, serial: int) -> x509.CertificateBuilder:

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime.datetime(1950, 1, 1))
        .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59))
    )


def usage(*, sign_certificates: bool) -> x509.KeyUsage:

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
