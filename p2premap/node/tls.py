"""TLS 1.3 contexts, for the daemon's sockets and for a client's. No trio here: `p2premap.client` uses it too.

Both ends show a leaf and verify the other's against the cluster's derived CA; host names play no part, as a node is
its key. A client that is no node (the CLI when its own daemon is gone) issues itself a leaf for the moment::

    context = client_context(ephemeral(secret, os.urandom))
    tls = context.wrap_socket(tcp, server_hostname=server_name(secret.tag))
    peer = p2premap.node.certificates.proved_id(tls.getpeercert(binary_form=True))
    ... then the hello, see p2premap.node.hello
"""

from __future__ import annotations

import os
import ssl
import tempfile
from typing import Final

from p2premap.errors import ConfigError
from p2premap.node.certificates import KEY_BYTES, Credentials, is_tag, issue
from p2premap.node.secret import ClusterSecret
from p2premap.ports import Randomness

_DOMAIN: Final = ".p2premap"


def ephemeral(secret: ClusterSecret, randomness: Randomness = os.urandom) -> Credentials:
    """Credentials of somebody who knows the secret and is no node: good for the control service only."""
    return issue(secret, randomness(KEY_BYTES))


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """For whoever connects to a member."""
    return _mutual(ssl.PROTOCOL_TLS_CLIENT, credentials)


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """For whoever is connected to by members."""
    return _mutual(ssl.PROTOCOL_TLS_SERVER, credentials)


def inviting_context(credentials: Credentials) -> ssl.SSLContext:
    """For a member whose guests have no certificate yet (see `p2premap.node.invite`). It authenticates nobody."""
    context = _versions(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.verify_mode = ssl.CERT_NONE
    _load(context, credentials)
    return context


def unverified_context() -> ssl.SSLContext:
    """For a guest, who checks the certificate itself, and for a look at whom a foreign cluster claims to be."""
    context = _versions(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.verify_mode = ssl.CERT_NONE
    return context


def server_name(tag: str) -> str:
    """What a client sends in the clear (SNI, RFC 6066): the tag of its own cluster, so that a foreign one is named."""
    return f"{tag}{_DOMAIN}"


def tag_in(name: str | None) -> str:
    """The cluster that a client claims to be of; "" where it names none. A claim, for showing only."""
    tag = (name or "").removesuffix(_DOMAIN)
    return tag if is_tag(tag) else ""


def _mutual(protocol: ssl._SSLMethod, credentials: Credentials) -> ssl.SSLContext:
    context = _versions(ssl.SSLContext(protocol))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=credentials.ca.decode())
    _load(context, credentials)
    return context


def _versions(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False  # a node is its key, wherever it is
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # nobody resumes; tickets would be two more records on each connection
    return context


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Give the context its own certificate: OpenSSL's Python binding reads them from a file only.

    Raises:
        ConfigError: no temporary file can be written.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix="p2premap-") as file:  # mode 0600, gone at once
            file.write(credentials.leaf + credentials.key)
            file.flush()
            context.load_cert_chain(file.name)
    except OSError as error:
        if isinstance(error, ssl.SSLError):
            raise
        raise ConfigError(f"Cannot write a temporary file: {error.strerror}. Free some space.") from None
