"""Frames over any trio stream: the local Unix socket, or TLS to a member."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import trio

from p2premap.errors import PeerUnreachable
from p2premap.ids import NodeId
from p2premap.wire import Frame, FrameDecoder, Message, Registry, encode_frame

READ_BYTES: Final = 256 << 10


@runtime_checkable
class SendsNow(Protocol):
    """A `trio.abc.Stream` that can send without waiting."""

    def send_now(self, data: bytes | memoryview) -> int:
        """How many of these bytes are taken at once.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: none will be any more.
        """


class StreamFrames:
    """A `p2premap.ports.FrameStream`. Several tasks may send at once; one receives.

    Args:
        stream: the bytes.
        peer: who is at the other end; None for a local or remote client.
        sends: what this side may say.
        decoder: what may come; it may hold bytes that have come already.
        local: it is a Unix socket.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        peer: NodeId | None,
        sends: Registry,
        decoder: FrameDecoder,
        local: bool = False,
    ) -> None:
        self.local = local
        self._stream = stream
        self._peer = peer
        self._sends = sends
        self._decoder = decoder
        self._turn = trio.StrictFIFOLock()
        self._now = stream if isinstance(stream, SendsNow) else None
        self._rest = b""
        """What was to be sent now, and could not."""

    @property
    def peer(self) -> NodeId | None:
        """Who is at the other end; None for a client."""
        return self._peer

    async def send(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Send one frame.

        Raises:
            PeerUnreachable: the stream is broken.
            LocalProtocolError: the message does not belong here, or is over its cap.
        """
        data = encode_frame(self._sends, message, payload)
        try:
            self._turn.acquire_nowait()  # waiting for a lock that is free costs a turn of the event loop
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            if self._rest:
                data, self._rest = self._rest + data, b""
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise PeerUnreachable("The other side has closed the connection.") from None
        finally:
            self._turn.release()

    def send_now(self, message: Message, payload: bytes | memoryview = b"") -> bool:
        """Send one frame as far as that needs no waiting. False: the rest goes before whatever is sent next.

        Raises:
            PeerUnreachable: the stream is broken.
            LocalProtocolError: as `send`.
        """
        data = encode_frame(self._sends, message, payload)
        sent = 0
        if self._now is not None and not self._rest and not self._turn.locked():
            try:
                sent = self._now.send_now(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise PeerUnreachable("The other side has closed the connection.") from None
        self._rest += data[sent:]
        return not self._rest

    async def receive(self) -> Frame | None:
        """The next frame; None when the other end has closed between two frames.

        Raises:
            PeerUnreachable: the stream is broken.
            RemoteProtocolError: what came is not a frame that belongs here; close the stream.
        """
        if (frame := self._decoder.next()) is not None:
            await trio.lowlevel.checkpoint()  # others have their turn, however much has come
        while frame is None:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise PeerUnreachable("The connection broke.") from None
            if not data:
                if self._decoder.partial:
                    raise PeerUnreachable("The connection ended in the middle of a frame.")
                return None
            self._decoder.push(bytes(data))
            frame = self._decoder.next()
        return frame

    async def aclose(self) -> None:
        """Close; never raises."""
        await close(self._stream)


async def close(stream: trio.abc.Stream) -> None:
    """Close in good order where that needs no waiting; never raises.

    TLS wants to say good-bye first (close_notify): tried for an instant, as a peer that does not read must not hold
    this side up.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 0.2):
        try:
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await trio.aclose_forcefully(stream)
