"""The page for other machines: only where its owner says so, under TLS by an authority that all nodes share."""

from __future__ import annotations

import datetime
import http.client
import json
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from p2premap.web.authority import authority, context
from tests.cluster import p2premap, short_home, start, stop
from tests.web.api import Api, soon

NOW = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
SEED = bytes(range(32))


def test_every_node_has_the_same_authority_and_a_certificate_of_its_own() -> None:
    (one, first), (_, second) = authority(SEED, "c0ffee"), authority(SEED, "c0ffee")
    assert first.public_key() == second.public_key() == one.public_key()
    assert authority(bytes(32), "c0ffee")[1].public_key() != first.public_key()
    assert first.subject == second.subject


@pytest.mark.parametrize(("called", "trusted"), [("ada", True), ("10.0.0.5", True), ("bob", False)])
def test_who_trusts_one_node_trusts_all_under_their_own_names(called: str, trusted: bool) -> None:
    served, _ = context(SEED, "c0ffee", ["ada", "ada.local", "10.0.0.5"], datetime.datetime.now(datetime.UTC))
    _, certificate = context(SEED, "c0ffee", ["bob"], NOW)  # of another node
    client = ssl.create_default_context(cadata=certificate.decode())
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    a = client.wrap_bio(ours, theirs, server_hostname=called)
    b = served.wrap_bio(theirs, ours, server_side=True)
    assert _agree(a, b) == trusted


def _agree(client: ssl.SSLObject, server: ssl.SSLObject) -> bool:
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError:
                return False
    return client.version() == "TLSv1.3"


def test_a_node_for_other_machines() -> None:
    with short_home() as home:
        node = start(home, "node", "--name", "lan", "--slots", "1", "--http-lan", "--http-port", "0", "--json")
        try:
            assert node.stdout is not None
            node.stdout.readline()
            api = Api(home, "lan")
            origin = next(one for one in api.opened["origins"] if one.startswith("https:"))
            host, port = urlsplit(origin).hostname, urlsplit(origin).port
            certificate = Path(api.opened["authority_file"])
            x509.load_pem_x509_certificate(certificate.read_bytes())
            trust = ssl.create_default_context(cafile=str(certificate))
            raw = socket.create_connection(("127.0.0.1", port or 0))
            connection = http.client.HTTPSConnection(host or "", port, context=trust)
            connection.sock = trust.wrap_socket(raw, server_hostname=host)
            headers = {"Authorization": f"Bearer {api.token}"}
            connection.request("GET", "/api/v1", headers=headers)
            assert json.loads(connection.getresponse().read())["name"] == "lan"
            connection.request("GET", f"/login?ticket={urlsplit(api.opened['url']).query.partition('=')[2]}")
            answer = connection.getresponse()
            assert "Secure" in (answer.getheader("Set-Cookie") or "")
            answer.read()
            connection.request("GET", "/api/v1", headers={**headers, "Host": f"other:{port}"})
            assert connection.getresponse().status == 421
            connection.close()
        finally:
            stop(node)


def _trusts(origin: str, authority: str) -> bool:
    """Whether a browser that was told to trust this certificate trusts the page."""
    trust = ssl.create_default_context(cadata=authority)
    with socket.create_connection(("127.0.0.1", urlsplit(origin).port or 0)) as raw:
        try:
            trust.wrap_socket(raw, server_hostname=urlsplit(origin).hostname).close()
        except ssl.SSLCertVerificationError:
            return False
    return True


def test_who_trusts_the_authority_of_before_a_rotation_does_not_trust_the_page() -> None:
    """Whoever was evicted knows its key."""
    with short_home() as home:
        node = start(home, "node", "--name", "lan", "--slots", "1", "--http-lan", "--http-port", "0", "--json")
        try:
            assert node.stdout is not None
            node.stdout.readline()
            before = Api(home, "lan")
            file = Path(before.opened["authority_file"])
            former = file.read_text()
            assert p2premap(home, "rotate").exit_code == 0
            soon(lambda: file.exists() and "END" in file.read_text() and file.read_text() != former)
            after = Api(home, "lan")
            assert after.token == before.token
            origin = next(one for one in after.opened["origins"] if one.startswith("https:"))
            assert _trusts(origin, file.read_text())
            assert not _trusts(origin, former)
        finally:
            stop(node)


def test_an_open_cluster_has_no_page_for_others() -> None:
    with short_home() as home:
        refused = p2premap(home, "node", "--open", "class", "--http-lan")
        assert refused.exit_code == 2
        assert "--http-lan" in refused.stderr
