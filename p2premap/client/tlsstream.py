"""A TLS connection that one thread reads while another one writes.

OpenSSL's connection is for one thread at a time (openssl-threads(7)), and a TLS socket cannot be duplicated to give
each thread a time limit of its own. So each step is taken under a lock, without blocking, and waited for outside it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TlsStream:
    """What `Connection` needs of a socket, over TLS.

    Args:
        stream: after its handshake; owned from here on.
        lock: of those that share `stream`.
    """

    def __init__(self, stream: ssl.SSLSocket, lock: threading.Lock | None = None) -> None:
        stream.setblocking(False)
        self.family = stream.family
        self._stream = stream
        self._lock = lock or threading.Lock()
        self._timeout_s: float | None = None

    def dup(self) -> TlsStream:
        """The same connection, with a time limit of its own; closed with it."""
        return TlsStream(self._stream, self._lock)

    def settimeout(self, timeout_s: float | None) -> None:
        """How long each of the next steps may take; None: for ever."""
        self._timeout_s = timeout_s

    def recv(self, size: int) -> bytes:
        """At most so many bytes; none at the end.

        Raises:
            TimeoutError: none came in time.
            OSError: the connection is broken.
        """
        return self._step(lambda: self._stream.recv(size))

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        Raises:
            TimeoutError: the other end did not take any of it in time.
            OSError: the connection is broken.
        """
        left = memoryview(data).cast("B")
        while left:
            some = left
            left = left[self._step(lambda: self._stream.send(some)) :]  # noqa: B023 (it is called at once)

    def shutdown(self, how: int) -> None:
        """Have both ends see the end; whoever waits here does at once."""
        socket.socket.shutdown(self._stream, how)  # SSLSocket's own would have a reader go on without TLS

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def _step(self, act: Callable[[], T]) -> T:
        until = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while True:
            with self._lock:
                try:
                    return act()
                except ssl.SSLWantReadError:
                    event = select.POLLIN
                except ssl.SSLWantWriteError:
                    event = select.POLLOUT
            self._wait(event, until)

    def _wait(self, event: int, until: float | None) -> None:
        left_s = None if until is None else until - time.monotonic()
        if (descriptor := self._stream.fileno()) < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        poll = select.poll()
        poll.register(descriptor, event)
        if (left_s is not None and left_s <= 0) or not poll.poll(None if left_s is None else 1000 * left_s):
            raise TimeoutError("timed out")
