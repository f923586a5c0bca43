"""uvicorn, with what it lacks: a limit of connections, a time for a request to come, hanging up for good."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX: Final = 512
REQUEST_S: Final = 30.0
"""A connection that has not asked anything after so long is closed."""
IDLE_S: Final = 15
HEADERS_BYTES_MAX: Final = 32 << 10
BACKLOG: Final = 128
TRIED: Final = 32

log = logging.getLogger(__name__)


class Lines:
    """The connections that are open, by the address of the other end: so that one can be cut, whatever waits in it."""

    def __init__(self) -> None:
        self.open: dict[Any, asyncio.Transport] = {}

    def cut(self, client: object) -> None:
        """Hang up at once."""
        if client is not None and (transport := self.open.get(tuple(client))) is not None:  # type: ignore[arg-type]
            transport.abort()


def protocol_of(lines: Lines) -> type[H11Protocol]:
    """The protocol of one server."""

    class Protocol(H11Protocol):
        """One connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """It begins."""
            super().connection_made(transport)
            self._peer = transport.get_extra_info("peername")[:2]
            if len(lines.open) >= CONNECTIONS_MAX:
                transport.abort()
                return
            lines.open[self._peer] = transport
            self._began = False
            self._asked = self.loop.call_later(REQUEST_S, self._look)

        def _look(self) -> None:
            if not self._began:
                self.transport.abort()

        def handle_events(self) -> None:
            """Something has come."""
            super().handle_events()
            self._began = self._began or self.scope is not None

        def connection_lost(self, exc: Exception | None) -> None:
            """It is over."""
            if lines.open.get(self._peer) is self.transport:
                del lines.open[self._peer]
            super().connection_lost(exc)

    return Protocol


class Server(uvicorn.Server):
    """One that leaves signals alone: it ends with its process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not here."""
        yield


def make(app: Any, lines: Lines, *, tls: ssl.SSLContext | None = None) -> Server:  # noqa: ANN401  (an ASGI app)
    """A server of this app."""
    config = uvicorn.Config(
        app,
        http=protocol_of(lines),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=HEADERS_BYTES_MAX,
    )
    config.load()
    config.ssl = tls
    return Server(config)


def bind(host: str, port: int) -> socket.socket:
    """Listen at the first port from this one on that is free.

    Raises:
        OSError: none of them is.
    """
    tries = range(port, port + TRIED) if port else range(1)
    for tried in tries:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, tried))
            one.listen(BACKLOG)
            one.setblocking(False)
        except OSError:
            one.close()
            if tried == tries[-1]:
                raise
            continue
        return one
    raise AssertionError
