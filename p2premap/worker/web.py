"""Files at http, https and ftp URLs, by the standard library: nothing to install, and nothing large to import.

A server that knows ranges (RFC 9110, 14) is asked for parts; of another, or where the size is not told, a file is read
from its beginning. Each answer says itself which state of the file it is of (ETag, Last-Modified, size), so that a
change is noticed in the very answer that it would spoil. Servers that fail for a moment are asked again, on from the
last byte.
"""

from __future__ import annotations

import http.client
import os
import re
import time
from collections.abc import Iterator
from email.message import Message as Headers
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from p2premap.worker.places import PIECE_BYTES, Found, Missing, Unlisted, UrlError, changed

WAIT_S: Final = 60.0
TRIES: Final = 4
AGAIN_S: Final = 0.3

_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_GONE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class Web:
    """See `p2premap.worker.places.Places`."""

    def find(self, url: str) -> list[Found]:
        """One file: these servers cannot be asked what there is, so that a pattern is none here."""
        for left in reversed(range(TRIES)):
            try:
                with _opened(url, "bytes=0-0") as response:
                    return [_found(url, _status(response), response.headers)]
            except HTTPError as error:
                if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # it is empty
                    return [_found(url, error.code, error.headers)]
                _refuse(url, error, left)
            except (OSError, ValueError, http.client.HTTPException) as error:
                _refuse(url, error, left)
            time.sleep(AGAIN_S * 2 ** (TRIES - 1 - left))
        raise AssertionError

    def read(self, found: Found, start: int, end: int | None) -> Iterator[bytes]:
        """See there."""
        end = found.size if end is None else end
        at, failed = start, 0
        while end is None or at < end:
            try:
                with _opened(found.url, _range(found, at, end)) as response:
                    status = _status(response)
                    _check(found, status, response.headers)
                    skip = 0 if status == HTTPStatus.PARTIAL_CONTENT else at
                    for piece in _pieces(response, skip, None if end is None else end - at):
                        at += len(piece)
                        failed = 0
                        yield piece
                if end is None:
                    return
                trouble: Exception = ConnectionError("the answer ended too soon")
            except (OSError, ValueError, http.client.HTTPException) as error:
                trouble = error
                if end is None and at > start:  # of an unknown size: nobody knows what is missing
                    raise UrlError(f"{found.url} cannot be read: {_said(error)}.") from None
            if end is None or at < end:
                failed += 1
                _refuse(found.url, trouble, TRIES - failed)
                time.sleep(AGAIN_S * 2**failed)

    def write(self, path: Path, url: str) -> None:
        """By PUT; a server has the file once it has all of it."""
        try:
            with path.open("rb") as file:
                headers = {"Content-Length": str(os.path.getsize(path)), "Content-Type": "application/octet-stream"}
                with urlopen(Request(url, data=file, headers=headers, method="PUT"), timeout=WAIT_S) as response:  # noqa: S310
                    response.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UrlError(f"{url} cannot be written by PUT: {_said(error)}.") from None

    def names(self, url: str) -> list[str]:
        """These servers cannot be asked."""
        raise Unlisted(f"What is in {url} cannot be listed.")

    def remove(self, url: str) -> None:
        """See there."""
        try:
            with urlopen(Request(url, method="DELETE"), timeout=WAIT_S) as response:  # noqa: S310  (whatever is asked for)
                response.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not isinstance(error, HTTPError) or error.code not in _GONE:
                raise UrlError(f"{url} cannot be removed: {_said(error)}.") from None

    def below(self, url: str, name: str) -> str:
        """In the path; what is asked of the server stays behind it."""
        parts = urlsplit(url)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()


def _opened(url: str, range_: str) -> Any:  # noqa: ANN401  (urllib's response, of which there are several)
    headers = {"Range": range_} if range_ else {}
    return urlopen(Request(url, headers=headers), timeout=WAIT_S)  # noqa: S310  (whatever is asked for)


def _status(response: Any) -> int:  # noqa: ANN401  (see there)
    return int(response.status or HTTPStatus.OK)  # none with ftp


def _range(found: Found, at: int, end: int | None) -> str:
    return f"bytes={at}-{end - 1}" if found.ranges and end is not None else ""


def _found(url: str, status: int, headers: Headers) -> Found:
    ranges = status != HTTPStatus.OK
    return Found(url, _size(headers, ranges=ranges), _identity(headers), ranges=ranges)


def _size(headers: Headers, *, ranges: bool) -> int | None:
    if ranges:
        told = _RANGE.match(headers.get("Content-Range", ""))
        return int(told[2]) if told is not None and told[2] != "*" else None
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _identity(headers: Headers) -> str:
    return " ".join(value for name in ("ETag", "Last-Modified") if (value := headers.get(name)))


def _check(found: Found, status: int, headers: Headers) -> None:
    if _identity(headers) != found.identity:
        raise changed(found.url)
    size = _size(headers, ranges=status == HTTPStatus.PARTIAL_CONTENT)
    if size is not None and found.size is not None and size != found.size:
        raise changed(found.url)


def _pieces(response: IO[bytes], skip: int, left: int | None) -> Iterator[bytes]:
    """So many bytes of an answer, behind some that nobody wants; None: all the rest."""
    while piece := response.read(PIECE_BYTES):
        if skip:
            dropped = min(skip, len(piece))
            piece, skip = piece[dropped:], skip - dropped
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
        if left == 0:
            return


def _refuse(url: str, error: Exception, left: int) -> None:
    """Raise a sentence about what went wrong, unless it may pass and tries are left."""
    if isinstance(error, HTTPError):
        error.close()
        if error.code in _GONE:
            raise Missing(f"There is nothing at {url}: {_said(error)}.") from None
        passing = error.code in _PASSING
    else:
        passing = not isinstance(error, ValueError)
    if not passing or left <= 0:
        raise UrlError(f"{url} cannot be read: {_said(error)}.") from None


def _said(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server says {error.code} {error.reason}"
    if isinstance(error, URLError):
        reason = error.reason
        return str(getattr(reason, "strerror", None) or reason).rstrip(".")
    return (str(getattr(error, "strerror", None) or error) or type(error).__name__).rstrip(".")
