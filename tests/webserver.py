"""An HTTP server for tests: files in memory, with ranges and tags, and the faults that servers have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebServer(ThreadingHTTPServer):
    """Serves `files`, by path.

    Attributes:
        asked: (method, path, Range) of each request.
        ranges: it knows ranges.
        sized: it tells sizes.
        deletes: it removes files.
        faults: for the next requests of files: a status to answer with, or (for a number < 0) so many bytes, then no
            more.
        change: a path whose request changes the file of another path to these bytes.
        holds: the next PUT with this in its path is not read before `go_on`; `held` is the port that it came from.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.ranges = self.sized = self.deletes = True
        self.faults: list[int] = []
        self.change = ("", "", b"")
        self.holds = ""
        self.held = 0
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        """Of its root, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        path = self.path.partition("?")[0]
        self.server.asked.append(("GET", self.path, wanted))
        if path == self.server.change[0]:
            self.server.files[self.server.change[1]] = self.server.change[2]
        fault = self.server.faults.pop(0) if self.server.faults else 0
        data = self.server.files.get(path)
        if fault > 0 or data is None:
            self._say(fault or 404)
            return
        tag = f'"{md5(data, usedforsecurity=False).hexdigest()}"'
        body, status, extra = data, 200, {"ETag": tag}
        if wanted and self.server.ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1, len(data))
            total = str(len(data)) if self.server.sized else "*"
            if start >= len(data):
                self._say(416, {"Content-Range": f"bytes */{total}"})
                return
            body, status = data[start:end], 206
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
        self.send_response(status)
        if self.server.sized or status == 206:
            extra["Content-Length"] = str(len(body))
        else:
            extra["Connection"] = "close"
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:-fault] if fault < 0 else body)
        self.close_connection = self.close_connection or fault < 0

    def do_PUT(self) -> None:
        self.server.asked.append(("PUT", self.path, ""))
        if self.server.holds and self.server.holds in self.path:
            self.server.holds, self.server.held = "", self.client_address[1]
            self.server.go_on.wait(120.0)
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if len(data) == int(self.headers["Content-Length"]):
            self.server.files[self.path.partition("?")[0]] = data
        with suppress(OSError):  # who asked may be gone
            self._say(201)

    def do_DELETE(self) -> None:
        self.server.asked.append(("DELETE", self.path, ""))
        if not self.server.deletes:
            self._say(405)
            return
        self._say(204 if self.server.files.pop(self.path.partition("?")[0], None) is not None else 404)

    def _say(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(**files: bytes) -> Iterator[WebServer]:
    """A server on a free port, with these files in its root."""
    with WebServer() as server:
        server.files.update({f"/{name}": data for name, data in files.items()})
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
