"""A connected socket for small frames that somebody waits for: a program's calls, and the processes that make them.

trio's own sockets give way to other tasks after each `send` and `recv` that succeeds at once, which costs a turn of the
event loop each, and try before they wait, which costs a system call and an exception each. Here a send that the kernel
takes at once is that system call and nothing else, and a receive waits first: one turn of the loop. So whoever receives
gives way each time, and whoever sends much does, too.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

_MUCH_BYTES: Final = 64 << 10


class QuickStream(trio.abc.Stream):
    """A `trio.abc.Stream` over a connected socket.

    Args:
        connected: a stream socket, owned from now on.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected

    def send_now(self, data: bytes | memoryview) -> int:
        """How many of these bytes the kernel takes at once.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: none will be taken any more.
        """
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; gives way to other tasks where it has to wait, or where it is much.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: see there.
        """
        if len(data) > _MUCH_BYTES:
            await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest := rest[self.send_now(rest) :]:
            await self._until(trio.lowlevel.wait_writable)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._until(trio.lowlevel.wait_writable)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, up to so many bytes; b"" at the end.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: see there.
        """
        while True:
            await self._until(trio.lowlevel.wait_readable)
            try:
                return self._socket.recv(max_bytes or _MUCH_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def _until(self, ready: Callable[[socket.socket], Awaitable[None]]) -> None:
        if self._socket.fileno() < 0:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        await ready(self._socket)

    def shutdown(self) -> None:
        """Nothing more is sent; what has come can still be received."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close at once; whoever waits has `trio.ClosedResourceError` raised."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """Close."""
        self.close()
        await trio.lowlevel.checkpoint()
