"""What lets somebody in: the token, one-time tickets, and cookies. Pure: bytes and instants in, yes or no out.

The daemon makes tickets (`p2premap.node.webtold`); this process makes cookies with the same key. Neither is kept
anywhere but for those that are used up, so that they outlive this process if it ends before the node.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from typing import Final

from p2premap.node.webtold import signature

COOKIE_S: Final = 7 * 86_400.0
USED_MAX: Final = 10_000
_HEAD: Final = 8


class Passes:
    """One node's.

    Args:
        key: signs tickets and cookies.
        token: what programs show.
    """

    def __init__(self, *, key: bytes, token: str) -> None:
        self._key = key
        self._token = token.encode()
        self._used: dict[bytes, int] = {}
        """Tickets that have been used, cookies that were logged out -> until when they would be good."""

    def token_fits(self, shown: str) -> bool:
        """Whether this is the token; takes as long where it is not."""
        return hmac.compare_digest(shown.encode(), self._token)

    def take_ticket(self, ticket: str, now_s: float) -> bool:
        """Whether a ticket lets somebody in; it does so once."""
        found = self._read("ticket", ticket, now_s)
        if found is None:
            return False
        self._use(found, now_s)
        return True

    def cookie(self, now_s: float) -> str:
        """A new one."""
        data = int(now_s + COOKIE_S).to_bytes(_HEAD) + secrets.token_bytes(16)
        return base64.urlsafe_b64encode(data + signature(self._key, "cookie", data)).decode().rstrip("=")

    def cookie_fits(self, cookie: str, now_s: float) -> bool:
        """Whether it is one of ours, and still good."""
        return self._read("cookie", cookie, now_s) is not None

    def log_out(self, cookie: str, now_s: float) -> None:
        """The cookie is good no more."""
        if (found := self._read("cookie", cookie, now_s)) is not None:
            self._use(found, now_s)

    def _read(self, what: str, text: str, now_s: float) -> bytes | None:
        """What is signed, if it is so, not over, and not used up."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        body, signed = data[:-16], data[-16:]
        if len(body) != _HEAD + 16 or not hmac.compare_digest(signature(self._key, what, body), signed):
            return None
        return body if int.from_bytes(body[:_HEAD]) > now_s and body not in self._used else None

    def _use(self, body: bytes, now_s: float) -> None:
        self._used = {used: until for used, until in self._used.items() if until > now_s}
        while len(self._used) >= USED_MAX:
            del self._used[next(iter(self._used))]
        self._used[body] = int.from_bytes(body[:_HEAD])
