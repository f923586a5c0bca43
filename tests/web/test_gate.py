"""The gate before every endpoint: no token, a wrong Host, a foreign Origin, another site's page, too many requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import pytest

from p2premap.web.app import ENDPOINTS
from p2premap.web.gate import REQUESTS_AT_ONCE, WRONG_A_MINUTE, Bucket, Gate
from p2premap.web.passes import Passes

ORIGIN = "http://ada-00010203.localhost:8321"
HOST = "ada-00010203.localhost:8321"
TOKEN = "ab" * 32
PRIVATE = [endpoint for endpoint in ENDPOINTS if not endpoint.public]


class Behind:
    """Stands where the app does: whatever gets here was let in."""

    def __init__(self) -> None:
        self.seen = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.seen += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Asker:
    def __init__(self) -> None:
        self.behind = Behind()
        self.passes = Passes(key=bytes(32), token=TOKEN)
        origins = [ORIGIN, "http://127.0.0.1:8321"]
        self.gate = Gate(self.behind, origins=origins, cookie="p2premap_00010203", passes=self.passes)
        self.headers: dict[str, str] = {}

    def ask(self, method: str = "GET", path: str = "/api/v1/jobs", *, host: str = HOST, **headers: str) -> int:
        """The status of the answer."""
        sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        encoded = [(name.encode(), value.encode()) for name, value in sent.items() if value]
        scope = {"type": "http", "method": method, "path": path, "headers": encoded}
        told: list[MutableMapping[str, Any]] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            told.append(message)

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.disconnect"}

        asyncio.run(self.gate(scope, receive, send))
        self.headers = {name.decode(): value.decode() for name, value in told[0]["headers"]}
        return int(told[0]["status"])


@pytest.fixture
def asker() -> Asker:
    return Asker()


BEARER = f"Bearer {TOKEN}"


@pytest.mark.parametrize("endpoint", PRIVATE, ids=lambda e: f"{e.method} {e.path}")
def test_every_endpoint_refuses_who_may_not(asker: Asker, endpoint: Any) -> None:
    def ask(**headers: str) -> int:
        return asker.ask(endpoint.method, endpoint.path, **headers)

    assert ask() == 401
    assert ask(authorization="Bearer " + "cd" * 32) == 401
    assert ask(authorization=BEARER, host="evil.example:8321") == 421
    assert ask(authorization=BEARER, host="127.0.0.1") == 421
    assert ask(authorization=BEARER, host="") == 421
    assert ask(authorization=BEARER, origin="http://evil.example") == 403
    assert ask(authorization=BEARER, origin="null") == 403
    assert ask(authorization=BEARER, origin="http://127.0.0.1:9999") == 403
    assert ask(authorization=BEARER, sec_fetch_site="cross-site") == 403
    assert ask(authorization=BEARER, sec_fetch_site="same-site") == 403
    assert asker.behind.seen == 0
    assert ask(authorization=BEARER) == 200
    assert ask(authorization=BEARER, origin=ORIGIN, sec_fetch_site="same-origin") == 200
    assert ask(authorization=BEARER, host="127.0.0.1:8321") == 200


def test_public_ones_are_for_our_own_names_only(asker: Asker) -> None:
    for path in ("/", "/login", "/alive", "/page/app.js", "/api/v1/openapi.json"):
        assert asker.ask(path=path) == 200
        assert asker.ask(path=path, host="rebound.example:8321") == 421
        assert asker.ask(path=path, origin="http://evil.example") == 403
        assert asker.ask("POST", path) == 401
    assert asker.ask(path="/login", sec_fetch_site="cross-site") == 200
    assert asker.ask(path="/page/app.js", sec_fetch_site="cross-site") == 403


def test_a_cookie_reads_and_only_our_own_page_changes_anything_with_it(asker: Asker) -> None:
    cookie = f"other=1; p2premap_00010203={asker.passes.cookie(time.time())}"
    assert asker.ask(cookie=cookie) == 200
    assert asker.ask("POST", cookie=cookie) == 403
    assert asker.ask("POST", cookie=cookie, origin="http://evil.example") == 403
    assert asker.ask("POST", cookie=cookie, origin=ORIGIN) == 200
    assert asker.ask(cookie="p2premap_ffffffff=" + cookie.rpartition("=")[2]) == 401


def test_a_second_host_header_makes_it_none_of_ours(asker: Asker) -> None:
    from p2premap.web.gate import _headers

    assert _headers({"headers": [(b"host", b"a"), (b"Host", b"b")]})["host"] == "a, b"


def test_every_answer_has_its_headers(asker: Asker) -> None:
    for headers in ({"authorization": BEARER}, {}):
        asker.ask(**headers)
        assert asker.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert asker.headers["x-content-type-options"] == "nosniff"
        assert asker.headers["cache-control"] == "no-store"
        assert asker.headers["cross-origin-resource-policy"] == "same-origin"


def test_wrong_tokens_are_counted(asker: Asker) -> None:
    statuses = [asker.ask(authorization="Bearer no") for _ in range(WRONG_A_MINUTE + 5)]
    assert statuses[:WRONG_A_MINUTE] == [401] * WRONG_A_MINUTE
    assert 429 in statuses[WRONG_A_MINUTE:]
    assert asker.ask(authorization=BEARER) == 200  # who has it is not locked out


def test_so_many_requests_and_no_more() -> None:
    now = 0.0
    bucket = Bucket(2.0, 3.0, lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert sum(bucket.take() for _ in range(10)) == 3
    assert REQUESTS_AT_ONCE > 100
