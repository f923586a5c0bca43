"""Somebody outside who is told of the ends of jobs: answers as a test wants it, and keeps what came."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple


class Heard(NamedTuple):
    """One delivery. `status`: what was answered."""

    key: str
    timestamp: str
    signature: str
    data: bytes
    status: int

    @property
    def json(self) -> Any:
        """What was told."""
        return json.loads(self.data)

    def signed_by(self, secret: str) -> bool:
        """Whether the signature is of this secret, over time and body."""
        signed = hmac.new(secret.encode(), self.timestamp.encode() + b"." + self.data, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.signature, f"v1={signed}")


class Receiver:
    """Listens until it is closed.

    Args:
        answer: the status for the n-th delivery, from 0.
    """

    def __init__(self, answer: Callable[[int], int]) -> None:
        self.heard: list[Heard] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                status = answer(len(receiver.heard))
                names = ("Idempotency-Key", "P2premap-Timestamp", "P2premap-Signature")
                key, timestamp, signature = (self.headers.get(name, "") for name in names)
                receiver.heard.append(Heard(key, timestamp, signature, data, status))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?from=test"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def accepted(self) -> list[str]:
        """Keys of the deliveries that were answered with success."""
        return [one.key for one in self.heard if 200 <= one.status < 300]
