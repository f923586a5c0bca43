"""The line to the daemon: the client's messages (`p2premap.control`) on its Unix socket, under asyncio.

A connection carries one request at a time; those that are free are used again. Whoever stops listening to a stream
hangs up, and the daemon stops what it did for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

from p2premap.client.connection import RequestRefused
from p2premap.control import FROM_CLIENT, FROM_DAEMON
from p2premap.control.answers import Chunk, Done, Refused, Welcome
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import RequestId
from p2premap.wire import Frame, FrameDecoder, Message, encode_frame

ANSWER_S: Final = 35.0
WELCOME_S: Final = 5.0
FREE_MAX: Final = 8
READ_BYTES: Final = 256 << 10

M = TypeVar("M", bound=Message)
Make = Callable[[RequestId], Message]


class _Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(FROM_DAEMON)
        self._requests = 0

    async def send(self, make: Make, payload: bytes = b"") -> RequestId:
        self._requests += 1
        request = RequestId(self._requests)
        self._writer.write(encode_frame(FROM_CLIENT, make(request), payload))
        await self._writer.drain()
        return request

    async def receive(self) -> Frame:
        while (frame := self._decoder.next()) is None:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise PeerUnreachable("The node has gone.")
            self._decoder.push(data)
        return frame

    async def answer(self, request: RequestId) -> Frame:
        """The next answer to this request.

        Raises:
            RequestRefused: the daemon said no.
        """
        while True:
            frame = await self.receive()
            if getattr(frame.message, "request", None) != request:
                continue
            if isinstance(frame.message, Refused):
                raise RequestRefused(frame.message.text, frame.message.trouble)
            return frame

    def close(self) -> None:
        self._writer.close()


class Daemon:
    """The daemon that this process serves.

    Args:
        path: of its socket.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._free: list[_Line] = []

    async def ask(self, make: Make, answer: type[M], *, timeout_s: float = ANSWER_S) -> M:
        """One question, its one answer.

        Raises:
            RequestRefused: the daemon said no.
            PeerUnreachable: it does not answer, or is gone.
            RemoteProtocolError: it gave another kind of answer.
        """
        line = await self._line()
        try:
            async with asyncio.timeout(timeout_s):
                frame = await line.answer(await line.send(make))
        except RequestRefused:
            self._give_back(line)
            raise
        except TimeoutError:
            line.close()
            raise PeerUnreachable(f"The node did not answer within {timeout_s:.0f} s.") from None
        except OSError:
            line.close()
            raise PeerUnreachable("The node has gone.") from None
        except BaseException:
            line.close()
            raise
        self._give_back(line)
        if not isinstance(frame.message, answer):
            raise RemoteProtocolError("The node gave an answer that does not fit the question.")
        return frame.message

    async def do(self, make: Make, *, timeout_s: float = ANSWER_S) -> str:
        """Have something done; what the daemon says about it, or ""."""
        return (await self.ask(make, Done, timeout_s=timeout_s)).text

    async def stream(self, make: Make, *, silence_s: float = ANSWER_S) -> AsyncIterator[Frame]:
        """The many answers to one question, until the caller has enough.

        Args:
            silence_s: so long at most between two of them.

        Raises:
            as of `ask`.
        """
        line = await self._line()
        try:
            request = await line.send(make)
            while True:
                async with asyncio.timeout(silence_s):
                    frame = await line.answer(request)
                yield frame
        except TimeoutError:
            raise PeerUnreachable(f"The node said nothing for {silence_s:.0f} s.") from None
        except OSError:
            raise PeerUnreachable("The node has gone.") from None
        finally:
            line.close()

    async def chunks(self, make: Make) -> AsyncIterator[bytes]:
        """The bytes of an answer that comes in pieces."""
        async with contextlib.aclosing(self.stream(make)) as frames:  # type: ignore[type-var]  # an async generator
            async for frame in frames:
                if not isinstance(frame.message, Chunk):
                    raise RemoteProtocolError("The node gave an answer that does not fit the question.")
                if frame.payload:
                    yield frame.payload
                if frame.message.last:
                    return

    async def _line(self) -> _Line:
        if self._free:
            return self._free.pop()
        try:
            async with asyncio.timeout(WELCOME_S):
                reader, writer = await asyncio.open_unix_connection(self.path)
                line = _Line(reader, writer)
                frame = await line.receive()
        except (OSError, TimeoutError):
            raise PeerUnreachable("The node does not answer.") from None
        if not isinstance(frame.message, Welcome):
            raise RemoteProtocolError("The node speaks out of turn.")
        self.welcome = frame.message
        return line

    def _give_back(self, line: _Line) -> None:
        if len(self._free) < FREE_MAX:
            self._free.append(line)
        else:
            line.close()
