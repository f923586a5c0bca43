"""Callbacks, sent: a POST to whoever wants to know that a job is over (docs/api.md).

In a thread, by the standard library's client, which is imported when the first job asks for it. A redirect is not
followed: the secret is for the one who was named. The body is signed with the time, so that who listens in cannot send
it again later.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import msgspec
import trio

from p2premap.client.shapes import EndShape
from p2premap.node.events import CalledBack
from p2premap.tasks.events import CallBack

ANSWER_S: Final = 10.0
AT_ONCE_MAX: Final = 8


class Callbacks:
    """One node's.

    Args:
        deliver: takes what was answered.
    """

    def __init__(self, deliver: Callable[[CalledBack], object]) -> None:
        self._deliver = deliver
        self._wake = trio.Event()
        self._waiting: list[CallBack] = []

    def perform(self, effect: CallBack) -> None:
        """Tell it; answered by `CalledBack`."""
        self._waiting.append(effect)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        places = trio.CapacityLimiter(AT_ONCE_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                for effect in self._waiting:
                    nursery.start_soon(self._tell, effect, places)
                self._waiting = []

    async def _tell(self, effect: CallBack, places: trio.CapacityLimiter) -> None:
        send = partial(send_callback, effect, time.time())
        status, error = await trio.to_thread.run_sync(send, limiter=places, abandon_on_cancel=True)
        self._deliver(CalledBack(job=effect.job, status=status, error=error))


def send_callback(effect: CallBack, now_s: float) -> tuple[int, str]:
    """Send one: the status that was answered, or 0 and why there is none.

    Args:
        now_s: in seconds since 1970.
    """
    import http.client
    import ssl

    parts = urlsplit(effect.url)
    body = msgspec.json.encode(EndShape.of_end(effect.view))
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = make(parts.hostname or "", parts.port, timeout=ANSWER_S)
        try:
            path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            connection.request("POST", path, body, headers_of(effect, body, now_s))
            return connection.getresponse().status, ""
        finally:
            connection.close()
    except (OSError, ssl.SSLError, http.client.HTTPException, ValueError) as error:
        return 0, f"{parts.hostname} does not answer: {error}"[:255]


def headers_of(effect: CallBack, body: bytes, now_s: float) -> dict[str, str]:
    """What tells a receiver that it is us, when, and what it may have heard already."""
    timestamp = str(int(now_s))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "p2premap",
        "Idempotency-Key": effect.key,
        "P2premap-Timestamp": timestamp,
    }
    if effect.secret:
        signed = hmac.digest(effect.secret.encode(), timestamp.encode() + b"." + body, "sha256")
        headers["P2premap-Signature"] = f"v1={signed.hex()}"
    return headers
