"""The desk: where clients of this node, and other members on behalf of theirs, are served (`p2premap.control`).

One stream is one visitor. Requests of a visitor run side by side, at most REQUESTS_MAX of them; each has its answer,
and an error is an answer too. What a member asks is answered from this node alone; what a client asks is passed on
to whoever knows: so no request travels further than one hop.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from p2premap import __version__
from p2premap.control.answers import Refused, Trouble, Welcome
from p2premap.errors import (
    ConfigError,
    JobError,
    JobLost,
    JoinRefused,
    P2PRemapError,
    PeerUnreachable,
    RemoteProtocolError,
)
from p2premap.ids import JobId, NodeId, RequestId
from p2premap.node.blobs import StoreUnwritable, Writer
from p2premap.ports import FrameStream
from p2premap.wire import Message

if TYPE_CHECKING:
    from p2premap.node.house import House  # it makes the desk

REQUESTS_MAX: Final = 64
"""Of one visitor at a time; further ones wait in its socket."""

GONE: Final = (PeerUnreachable, RemoteProtocolError)
"""Nobody is there any more to be answered."""

log = logging.getLogger(__name__)


class RequestError(P2PRemapError):
    """A request that is refused with a sentence.

    Args:
        trouble: whose fault it is.
    """

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class Visit:
    """One visitor: its stream, and the blobs that it is bringing, in frames or as files.

    Attributes:
        peer: the member that asks; None for a client.
        local: it is on this machine, and of this user.
    """

    def __init__(self, house: House, stream: FrameStream) -> None:
        self.house = house
        self.peer: NodeId | None = stream.peer
        self.local = stream.local
        self.uploads: dict[bytes, Writer] = {}
        self.files: dict[RequestId, tuple[Writer, JobId | None]] = {}
        self._stream = stream

    async def say(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Send one answer.

        Raises:
            PeerUnreachable: the visitor has gone.
        """
        await self._stream.send(message, payload)

    def say_now(self, message: Message, payload: bytes | memoryview = b"") -> bool:
        """The same as far as that needs no waiting. False: the rest goes before whatever is said next.

        Raises:
            PeerUnreachable: as `say`.
        """
        return self._stream.send_now(message, payload)


Handler: TypeAlias = Callable[[Visit, Message, bytes], Awaitable[None]]


class Desk:
    """Serves visitors.

    Args:
        house: the node.
        handlers: who answers which request; see `p2premap.node.handlers`.
    """

    def __init__(self, house: House, handlers: Mapping[type[Message], Handler]) -> None:
        self._house = house
        self._handlers = handlers

    async def serve(self, stream: FrameStream) -> None:
        """Serve one visitor until it goes. Never raises but for cancellation."""
        visit = Visit(self._house, stream)
        try:
            with contextlib.suppress(PeerUnreachable):  # who has hung up already may have asked something before
                await visit.say(self._welcome())
            async with trio.open_nursery() as nursery:
                await self._listen(visit, stream, nursery)
                nursery.cancel_scope.cancel()
        except* GONE as gone:
            log.debug("a visitor has gone: %s", gone.exceptions[0])
        finally:
            for writer in (*visit.uploads.values(), *(writer for writer, _ in visit.files.values())):
                writer.discard()
            await stream.aclose()

    def _welcome(self) -> Welcome:
        house = self._house
        return Welcome(
            node=house.identity.node,
            name=house.name,
            pid=os.getpid(),
            version=__version__,
            cluster=house.keys.secret.tag,
            open_name=house.keys.secret.open_name,
        )

    async def _listen(self, visit: Visit, stream: FrameStream, nursery: trio.Nursery) -> None:
        places = trio.CapacityLimiter(REQUESTS_MAX)
        while (frame := await stream.receive()) is not None:
            # blobs and calls come in pieces that must be kept in order; everything else runs side by side
            if frame.payload:
                await self._answer(visit, frame.message, frame.payload)
            else:
                token = object()
                await places.acquire_on_behalf_of(token)
                nursery.start_soon(self._answer_beside, visit, frame.message, places, token)

    async def _answer_beside(self, visit: Visit, message: Message, places: trio.CapacityLimiter, token: object) -> None:
        try:
            await self._answer(visit, message, b"")
        finally:
            places.release_on_behalf_of(token)

    async def _answer(self, visit: Visit, message: Message, payload: bytes) -> None:
        request: RequestId = getattr(message, "request", RequestId(0))
        try:
            handler = self._handlers.get(type(message))
            if handler is None:
                raise RequestError(Trouble.USAGE, f"This node does not know the request {type(message).__name__}.")
            await handler(visit, message, payload)
        except P2PRemapError as error:
            await visit.say(Refused(request=request, trouble=_trouble(error), text=str(error)))
        except OSError as error:
            text = f"The node could not do it: {error.strerror or error}."
            await visit.say(Refused(request=request, trouble=Trouble.REFUSED, text=text))
        except Exception as error:
            if isinstance(error, ExceptionGroup) and error.split(GONE)[1] is None:
                raise
            # a fault of ours ends this answer alone; one of the core's ends the node, in its driver
            log.exception("the request %s could not be answered", type(message).__name__)
            await visit.say(Refused(request=request, trouble=Trouble.REFUSED, text=_fault(error, visit.house.name)))


def _fault(error: BaseException, name: str) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"This is a fault of p2premap, not yours: {type(error).__name__}: {error}. The log of {name} has more."


def _trouble(error: P2PRemapError) -> Trouble:
    match error:
        case RequestError():
            return error.trouble
        case StoreUnwritable() | JoinRefused():
            return Trouble.REFUSED
        case JobLost():
            return Trouble.NOT_FOUND
        case ConfigError() | JobError():
            return Trouble.USAGE
        case PeerUnreachable():
            return Trouble.UNREACHABLE
        case _:
            return Trouble.REFUSED
