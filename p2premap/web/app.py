"""Everything put together: endpoints, the page's files, the gate before them, and the sockets."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from p2premap.node.webtold import WebSettings
from p2premap.web import cluster, jobs, metrics, output, report, server, submit
from p2premap.web.endpoints import Call, Endpoint, Media, document
from p2premap.web.gate import Gate
from p2premap.web.passes import Passes
from p2premap.web.problems import Problem
from p2premap.web.service import Service, answering, reply

PAGE: Final = Path(__file__).parent / "page"
"""The page's own files, served as they are."""
LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104  (only where its owner says so)


async def get_document(call: Call) -> Response:
    """The OpenAPI document."""
    return reply(call, document(ENDPOINTS, call.web.origins[0]))


ENDPOINTS: Final[list[Endpoint]] = [
    *cluster.ENDPOINTS,
    *jobs.ENDPOINTS,
    *submit.ENDPOINTS,
    *output.ENDPOINTS,
    *report.ENDPOINTS,
    *metrics.ENDPOINTS,
    Endpoint(
        "GET",
        "/api/v1/openapi.json",
        get_document,
        "This document.",
        {200: Media("application/json"), 304: Media("the client has it", empty=True)},
        public=True,
    ),
]


class Site:
    """One node's.

    Args:
        settings: as the daemon told them.

    Raises:
        OSError: no port is free.
    """

    def __init__(self, settings: WebSettings) -> None:
        self._socket = server.bind(LOOPBACK, settings.port)
        self.port = int(self._socket.getsockname()[1])
        self.origins = [f"http://{name}:{self.port}" for name in (f"{settings.label}.localhost", LOOPBACK, "localhost")]
        lan = server.bind(EVERYWHERE, self.port + 1) if settings.authority else None
        if lan is not None:
            names = (f"[{name}]" if ":" in name else name for name in settings.names)
            self.origins += [f"https://{name}:{lan.getsockname()[1]}" for name in names]
        passes = Passes(key=bytes.fromhex(settings.key), token=settings.token)
        self.web = Service(settings, origins=self.origins, passes=passes)
        lines = server.Lines()
        self.web.hang_up = lambda scope: lines.cut(scope.get("client"))
        self._gate = Gate(_starlette(self.web), origins=self.origins, cookie=self.web.cookie, passes=passes)
        self.web.refused = lambda: self._gate.refused
        self._servers = [(server.make(self._gate, lines), self._socket)]
        if lan is not None:
            from p2premap.web.authority import context  # most serve nobody else

            made, certificate = context(
                bytes.fromhex(settings.authority), settings.cluster, settings.names, datetime.now(UTC)
            )
            Path(settings.authority_file).write_bytes(certificate)
            self._servers.append((server.make(self._gate, lines, tls=made), lan))

    @property
    def last_used(self) -> float:
        """When somebody who may asked for something, by the monotonic clock."""
        return self._gate.last_used

    async def run(self) -> None:
        """Serve until stopped."""
        hub = asyncio.create_task(self.web.hub.run())
        try:
            await asyncio.gather(*(one.serve(sockets=[listener]) for one, listener in self._servers))
        finally:
            hub.cancel()

    def stop(self) -> None:
        """Serve nobody any more."""
        for one, _ in self._servers:
            one.should_exit = True


def _starlette(web: Service) -> Starlette:
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in ENDPOINTS:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    routes = [Route(path, _by_method(web, methods), methods=list(methods)) for path, methods in by_path.items()]
    pages = [Route("/", _page), Route("/page/{name:path}", _page), Route("/favicon.ico", _icon)]
    app = Starlette(routes=[*routes, *pages], exception_handlers={HTTPException: _failed, Exception: _broken})
    app.router.redirect_slashes = False  # what is not in the table is not there
    return app


def _by_method(web: Service, methods: dict[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
    """One route a path, so that the answer 405 names all that can be done with it."""
    answers = {method: answering(web, endpoint) for method, endpoint in methods.items()}

    async def answer(request: Request) -> Response:
        return await answers["GET" if request.method == "HEAD" else request.method](request)

    return answer


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {request.url.path[:200]}.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not what can be done with {request.url.path[:200]}.",
    }.get(HTTPStatus(error.status_code), error.detail)
    return Problem(error.status_code, text, **dict(error.headers or {})).response()


async def _broken(request: Request, error: Exception) -> Response:
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"A fault of p2premap; please report it: {error!r}.").response()


async def _page(request: Request) -> Response:
    """A file of the page."""
    name = request.path_params.get("name", "index.html")
    file = (PAGE / name).resolve()
    if not file.is_relative_to(PAGE) or not file.is_file():
        raise HTTPException(HTTPStatus.NOT_FOUND)
    media, _ = mimetypes.guess_type(file.name)
    return FileResponse(file, media_type=media or "application/octet-stream", headers={"cache-control": "no-cache"})


async def _icon(request: Request) -> Response:
    """None: the page names its own."""
    return Response(status_code=HTTPStatus.NO_CONTENT)
