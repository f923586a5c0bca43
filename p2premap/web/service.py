"""What all endpoints share: the line to the daemon, the hub, and how a request becomes a call and an answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import msgspec
from blake3 import blake3
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from p2premap.control.nodes import ListNodes, Nodes
from p2premap.errors import P2PRemapError
from p2premap.node.webtold import WebSettings
from p2premap.web.daemon import Daemon
from p2premap.web.endpoints import PATHS, Call, Endpoint, Media
from p2premap.web.hub import Hub
from p2premap.web.passes import Passes
from p2premap.web.problems import Problem, problem_of

JSON: Final = "application/json"
JSON_BYTES_MAX: Final = 1 << 20
_FIELD: Final = re.compile(r"`\$\.(\w+)`")
CURSOR: Final = "what the page before said as `next`"
BODY_S: Final = 30.0
"""For each piece of a body to come."""
DOWNLOADS_MAX: Final = 32
FOLLOWERS_MAX: Final = 200


S = TypeVar("S")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{0,9}\Z", description=CURSOR)] = ""


class Service:
    """One node's.

    Args:
        settings: as the daemon told them.
        origins: where it is served, the first for a browser on this machine.
        passes: who may come in.
    """

    def __init__(self, settings: WebSettings, *, origins: list[str], passes: Passes) -> None:
        self.settings = settings
        self.origins = origins
        self.passes = passes
        self.daemon = Daemon(settings.socket)
        self.hub = Hub(self.daemon)
        self.cookie = f"p2premap_{settings.node[:8]}"
        self.downloads = 0
        self.background: set[asyncio.Task[None]] = set()
        self.hang_up: Callable[[Scope], None] = lambda scope: None
        """Cut the connection that a request came on, whatever waits in it."""
        self.refused: Callable[[], int] = lambda: 0
        """How many requests the gate has refused."""

    async def names(self) -> dict[bytes, str]:
        """What the nodes are called."""
        if self.hub.nodes:
            return {node: shape.name for node, shape in self.hub.nodes.items()}
        views = (await self.daemon.ask(lambda n: ListNodes(request=n), Nodes)).views
        return {view.node: view.name for view in views}

    def start(self, work: Awaitable[None]) -> None:
        """Do something that nobody waits for."""

        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self.background.add(task)
        task.add_done_callback(self.background.discard)


def answering(web: Service, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """What Starlette calls for an endpoint."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint.handler(await _call(web, endpoint, request))
        except Problem as problem:
            return problem.response()
        except P2PRemapError as error:
            return problem_of(error).response()
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)

    return answer


async def _call(web: Service, endpoint: Endpoint, request: Request) -> Call:
    """Raises Problem where the request is not what the table says."""
    path = {name: _path_value(name, str(value)) for name, value in request.path_params.items()}
    query = _query(endpoint, request)
    if endpoint.body is None or isinstance(endpoint.body, Media):
        return Call(web, request, path, query)
    data = await whole_body(request, JSON_BYTES_MAX)
    if not data and endpoint.optional_body:
        return Call(web, request, path, query, endpoint.body())
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send JSON, as Content-Type: {JSON}.")
    try:
        return Call(web, request, path, query, msgspec.json.decode(data, type=endpoint.body))
    except msgspec.ValidationError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"The JSON does not fit: {error}.") from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"This is not JSON: {error}.") from None


def _path_value(name: str, value: str) -> str:
    told, schema = PATHS[name]
    if schema["type"] == "integer":
        fits = value.isascii() and value.isdecimal() and len(value) < 12 and int(value) <= schema["maximum"]
    elif "pattern" in schema:
        fits = re.fullmatch(schema["pattern"].strip("^$"), value) is not None
    else:
        fits = schema["minLength"] <= len(value) <= schema["maxLength"]
    if not fits:
        raise Problem(HTTPStatus.BAD_REQUEST, f"{value[:64]!r} is none: {told}")
    return value


def _query(endpoint: Endpoint, request: Request) -> msgspec.Struct | None:
    given = request.query_params.multi_items()
    asked: dict[str, Any] = {}
    known = endpoint.query.__struct_encode_fields__ if endpoint.query is not None else ()
    for name, value in given:
        if name not in known:
            raise Problem(HTTPStatus.BAD_REQUEST, f"There is no {name[:64]!r} to ask for here.")
        if name in asked:
            raise Problem(HTTPStatus.BAD_REQUEST, f"{name[:64]!r} is there twice.")
        asked[name] = value
    if endpoint.query is None:
        return None
    try:
        return msgspec.convert(asked, endpoint.query, strict=False)
    except msgspec.ValidationError as error:
        told = str(error)
        field = _FIELD.search(told)
        if field is None or field[1] not in asked:
            raise Problem(HTTPStatus.BAD_REQUEST, f"What is asked for does not fit: {told}.") from None
        shown = f"{field[1]}={asked[field[1]][:64]!r}"
        fitting = _description(endpoint.query, field[1])
        raise Problem(HTTPStatus.BAD_REQUEST, f"{shown} does not fit: {fitting or told}.") from None


def _description(query: type[msgspec.Struct], name: str) -> str:
    """What a field may be, in words; "": nobody has said so."""
    hints = get_type_hints(query, include_extras=True)
    metas = getattr(hints[name], "__metadata__", ())
    return next((meta.description for meta in metas if meta.description), "")


async def body_pieces(request: Request, bytes_max: int) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        Problem: it is too long, or does not go on.
    """
    too_long = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"More than {bytes_max >> 20} MiB.")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > bytes_max:
        raise too_long
    size, pieces = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(BODY_S):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise Problem(HTTPStatus.BAD_REQUEST, "The body does not go on.") from None
        if piece is None:
            return
        size += len(piece)
        if size > bytes_max:
            raise too_long
        yield piece


async def whole_body(request: Request, bytes_max: int) -> bytes:
    """All of it; see `body_pieces`."""
    return b"".join([piece async for piece in body_pieces(request, bytes_max)])


def reply(
    call: Call,
    shape: object,
    status: int = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
    *,
    same: object = None,
) -> Response:
    """JSON; nothing where the client has it already.

    Args:
        same: what of it makes it another answer, where that is not all.
    """
    data = msgspec.json.encode(shape)
    extra = dict(headers or {})
    if call.request.method in ("GET", "HEAD"):
        tag = tag_of(data if same is None else msgspec.json.encode(same))
        extra |= {"etag": f"W/{tag}", "cache-control": "no-cache"}
        if has(call.request, tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=extra)
    return Response(data, status, extra, JSON)


def tag_of(data: bytes) -> str:
    """An entity tag."""
    return f'"{blake3(data).hexdigest(16)}"'


def has(request: Request, tag: str) -> bool:
    """Whether the client says that it has what this tag names (RFC 9110, 13.1.2)."""
    shown = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return tag in shown or shown == ["*"]


def page(items: list[S], query: Page) -> tuple[list[S], str | None]:
    """Those that are asked for, and the cursor of the next ones."""
    start = int(query.cursor or 0)
    stop = start + query.limit
    return items[start:stop], str(stop) if stop < len(items) else None
