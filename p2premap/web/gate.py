"""Who may ask what: the first thing that sees a request. An ASGI middleware.

A page of anybody's in the user's browser can send requests to this port, and by a name that it makes resolve to
127.0.0.1 (DNS rebinding) even read the answers. So: `Host` must be exactly one of our own names; `Origin`, where there
is one, exactly ours, and where a cookie would change something there must be one; fetch metadata of another site is
refused. Then there must be the token or a cookie, but for what is the same for everybody.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from p2premap.web.passes import Passes
from p2premap.web.problems import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PUBLIC: Final = frozenset(("/", "/login", "/alive", "/favicon.ico", "/api/v1/openapi.json"))
PUBLIC_UNDER: Final = "/page/"
FROM_ELSEWHERE: Final = frozenset(("/", "/login", "/alive"))
"""What a link on another page, or in a mail, may lead to."""
SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))

REQUESTS_A_S: Final = 200.0
REQUESTS_AT_ONCE: Final = 400.0
WRONG_A_MINUTE: Final = 20
WRONG_S: Final = 60.0

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self' http://*.localhost:*; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing comes from elsewhere. Before the page moves to another node of this machine it asks whether it is there."""

_HEADERS: Final = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_SAME_ORIGIN: Final = (b"cross-origin-resource-policy", b"same-origin")
_NOT_KEPT: Final = (b"cache-control", b"no-store")


class Bucket:
    """So many a second, and so many at once.

    Args:
        a_second, at_once: how many.
        clock: in seconds.
    """

    def __init__(self, a_second: float, at_once: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most = a_second, at_once
        self._clock = clock
        self._left, self._at = at_once, clock()

    def take(self) -> bool:
        """Whether there is one left, which is taken."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Gate:
    """Lets requests in, or answers them.

    Args:
        app: what is behind it.
        origins: ours, such as "http://ada-2d7a4f10.localhost:8321": their hosts are those that may be named.
        cookie: its name.
        passes: who may come in.
    """

    def __init__(self, app: App, *, origins: Collection[str], cookie: str, passes: Passes) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = frozenset(origin.partition("://")[2] for origin in origins)
        self._cookie = cookie
        self._passes = passes
        self._requests = Bucket(REQUESTS_A_S, REQUESTS_AT_ONCE)
        self._wrong = Bucket(WRONG_A_MINUTE / WRONG_S, WRONG_A_MINUTE)
        self.last_used = time.monotonic()
        """When somebody who may asked for something."""
        self.refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return
        path = scope["path"]

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [*_HEADERS]
                if path != "/alive":
                    extra.append(_SAME_ORIGIN)
                if not any(name == b"cache-control" for name, _ in message["headers"]):
                    extra.append(_NOT_KEPT)
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            self._admit(scope, _headers(scope))
        except Problem as problem:
            self.refused += 1
            await problem.response()(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises Problem for who may not."""
        path, method = scope["path"], scope["method"]
        if not self._requests.take():
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests; wait a second.", Retry_After="1")
        if headers.get("host", "").lower() not in self._hosts:
            raise Problem(HTTPStatus.MISDIRECTED_REQUEST, "This node is not called so; use the address that it gave.")
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins:
            raise Problem(HTTPStatus.FORBIDDEN, "Pages of other origins may not use this node.")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and path not in FROM_ELSEWHERE:
            raise Problem(HTTPStatus.FORBIDDEN, "Pages of other origins may not use this node.")
        if (path in PUBLIC or path.startswith(PUBLIC_UNDER)) and method in SAFE:
            return
        how = self._who(headers)
        if how == "":
            if "authorization" in headers and not self._wrong.take():
                raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "Too many wrong tokens; wait a minute.", Retry_After="60")
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "Show the token, or log in by the link that `p2premap dashboard` prints.",
                WWW_Authenticate="Bearer",
            )
        if how == "cookie" and method not in SAFE and origin is None:
            raise Problem(HTTPStatus.FORBIDDEN, "A page that changes something has to say its origin.")
        scope["p2premap.by"] = how
        self.last_used = time.monotonic()

    def _who(self, headers: dict[str, str]) -> str:
        """By what somebody may ask: "token", "cookie", or "" for nothing."""
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._passes.token_fits(shown.strip()):
            return "token"
        for pair in headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._cookie and self._passes.cookie_fits(value, time.time()):
                return "cookie"
        return ""


def _headers(scope: Scope) -> dict[str, str]:
    """By name. Of one that is there twice, such as a second Host, both: then it fits nothing."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
