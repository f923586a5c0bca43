"""A client of the API for tests: the standard library's, one connection a request, nothing hidden."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

from tests.cluster import eventually, p2premap

soon = partial(eventually, within_s=60.0)
"""Also where the machine is busy with other things."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body read."""
        return json.loads(self.body)


class Api:
    """Talks to one node.

    Args:
        home: P2PREMAP_HOME of the node.
        node: its name.
    """

    def __init__(self, home: str | Path, node: str) -> None:
        self.opened = json.loads(p2premap(home, "--node", node, "dashboard", "--json").stdout)
        self.origin: str = self.opened["origins"][0]
        self.host = urlsplit(self.origin).netloc
        self.port = urlsplit(self.origin).port or 0
        self.token = Path(self.opened["token_file"]).read_text().strip()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str | None] | None = None,
        timeout_s: float = 40.0,
    ) -> Answer:
        """One request; a header that is None is left out."""
        data, sent = self._ready(body, headers)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """A `GET` below /api/v1."""
        return self.ask("GET", f"/api/v1{path}", headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path: str, body: object = None) -> Answer:
        """A `POST` below /api/v1."""
        return self.ask("POST", f"/api/v1{path}", body)

    def _ready(self, body: object, headers: dict[str, str | None] | None) -> tuple[bytes, dict[str, str]]:
        sent: dict[str, str | None] = {"Host": self.host, "Authorization": f"Bearer {self.token}"}
        data = b""
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        if data:
            sent["Content-Length"] = str(len(data))
        sent.update(headers or {})
        return data, {name: value for name, value in sent.items() if value is not None}

    @contextlib.contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """A `GET` below /api/v1 whose answer goes on."""
        _, sent = self._ready(None, {k.replace("_", "-"): v for k, v in headers.items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest("GET", f"/api/v1{path}", skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            yield connection.getresponse()
        finally:
            connection.close()

    def raw(self, path: str, *, receive_bytes: int = 0) -> socket.socket:
        """A request for an answer that nobody reads.

        Args:
            receive_bytes: the size of the socket's buffer.
        """
        one = socket.socket()
        if receive_bytes:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        one.connect(("127.0.0.1", self.port))
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode())
        return one


def web_of(pid: int) -> list[psutil.Process]:
    """The processes that serve HTTP for this node."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that has just ended, say
            found += [child] if "p2premap.web" in child.cmdline() else []
    return found


def ended(process: psutil.Process) -> bool:
    """Whether it runs no more, also where nobody has heard of its end yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Event(NamedTuple):
    """One of a stream."""

    id: str
    name: str
    data: Any


def events(stream: http.client.HTTPResponse) -> Iterator[Event]:
    """The events of a stream, as they come."""
    fields: dict[str, str] = {}
    while line := stream.readline():
        text = line.decode().rstrip("\n")
        if not text:
            if "data" in fields:
                yield Event(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
            fields = {}
        elif not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value
