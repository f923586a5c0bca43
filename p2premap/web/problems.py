"""Errors as problem+json (RFC 9457), each with one sentence, whatever went wrong."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.responses import Response

from p2premap.client.connection import RequestRefused
from p2premap.control.answers import Trouble
from p2premap.errors import ConfigError, JobError, NodeUnavailable, P2PRemapError, PeerUnreachable

MEDIA = "application/problem+json"

_STATUS = {
    Trouble.USAGE: HTTPStatus.BAD_REQUEST,
    Trouble.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Trouble.UNREACHABLE: HTTPStatus.BAD_GATEWAY,
    Trouble.REFUSED: HTTPStatus.CONFLICT,
}


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP.
        detail: one sentence.
        headers: besides.
    """

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        """As it is sent."""
        shape = ProblemShape(title=self.status.phrase, status=int(self.status), detail=self.detail)
        return Response(msgspec.json.encode(shape), int(self.status), self.headers, MEDIA)


class ProblemShape(msgspec.Struct, frozen=True, kw_only=True):
    """An error."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def problem_of(error: P2PRemapError) -> Problem:
    """What an error of ours is to who asked."""
    match error:
        case RequestRefused():
            return Problem(_STATUS[error.trouble], str(error))
        case PeerUnreachable() | NodeUnavailable():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        case ConfigError() | JobError():
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        case _:
            return Problem(HTTPStatus.BAD_GATEWAY, str(error))
