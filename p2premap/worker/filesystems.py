"""Files at URLs that fsspec knows: s3, gs, abfs, sftp, hdfs and what else there is a package for.

A file is what it was if its tag or time and its size are the same before the first byte is read and after the last:
these libraries do not tell which state an answer is of. Object stores show a file once all of it has been sent;
elsewhere it is written under another name and moved.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from p2premap.worker.places import Found, Missing, UrlError, changed, hidden

_RANGE_BYTES: Final = 16 << 20
"""One request: large, as each takes its tens of milliseconds to begin."""
_WHOLE_AT_ONCE: Final = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"))
_TAGS: Final = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "modified",
    "created",
)


class FileSystems:
    """See `p2premap.worker.places.Places`.

    Args:
        scheme: of these URLs.
        lacking: a sentence for where a package is missing.
    """

    def __init__(self, scheme: str, lacking: str) -> None:
        self._scheme = scheme
        self._lacking = lacking

    def find(self, url: str) -> list[Found]:
        """See there."""
        with self._using(url, "read") as (system, path):
            if system.isfile(path):
                return [_found(url, system.info(path))]
            told: dict[str, Any] = {}
            if system.isdir(path):
                top = path.rstrip("/")
                told = system.find(path, detail=True)
                told = {name: one for name, one in told.items() if not hidden(name[len(top) :].lstrip("/"))}
            elif any(sign in path for sign in "*?["):
                told = {name: one for name, one in system.glob(path, detail=True).items() if one["type"] == "file"}
            if told and "::" in url:
                raise UrlError(f"{url} names files inside of something else: name each of them.")
            found = [_found(self._url(system, name), told[name]) for name in sorted(told)]
        if not found:
            raise Missing(f"There is nothing at {url}.")
        return found

    def read(self, found: Found, start: int, end: int | None) -> Iterator[bytes]:
        """See there."""
        end = found.size if end is None else end
        with self._using(found.url, "read") as (system, path):
            _check(system, path, found)
            if end is None:
                with system.open(path, "rb") as file:
                    while piece := file.read(_RANGE_BYTES):
                        yield piece
            while end is not None and start < end:
                piece = system.cat_file(path, start=start, end=min(start + _RANGE_BYTES, end))
                if not piece:
                    raise changed(found.url)
                start += len(piece)
                yield piece
            _check(system, path, found)

    def write(self, path: Path, url: str) -> None:
        """See there."""
        with self._using(url, "written") as (system, target):
            if self._scheme in _WHOLE_AT_ONCE:
                system.put_file(str(path), target)
                return
            directory, name = posixpath.split(target)
            temporary = f"{directory}/.{name}.{uuid4().hex[:12]}"
            system.makedirs(directory, exist_ok=True)
            system.put_file(str(path), temporary)
            if system.exists(target):
                system.rm_file(target)
            system.mv(temporary, target)

    def names(self, url: str) -> list[str]:
        """See there."""
        with self._using(url, "listed") as (system, path):
            top = path.rstrip("/")
            try:
                return [name[len(top) :].lstrip("/") for name in system.find(top, maxdepth=2)]
            except FileNotFoundError:
                return []

    def remove(self, url: str) -> None:
        """See there."""
        with self._using(url, "removed") as (system, path):
            try:
                system.rm_file(path)
            except FileNotFoundError:
                return

    def below(self, url: str, name: str) -> str:
        """See there."""
        return f"{url.rstrip('/')}/{name}"

    def _url(self, system: Any, path: str) -> str:  # noqa: ANN401  (fsspec has no types)
        """The URL of a path, under the scheme that it was asked for by: some file systems have several."""
        return f"{self._scheme}://{system.unstrip_protocol(path).partition('://')[2]}"

    @contextmanager
    def _using(self, url: str, done: str) -> Iterator[tuple[Any, str]]:
        """The file system of a URL, and the path in it; whatever these libraries raise becomes one sentence."""
        try:
            from fsspec.core import url_to_fs

            system, path = url_to_fs(url, use_listings_cache=False)
            system.invalidate_cache()
            yield system, path
        except UrlError:
            raise
        except ImportError:
            raise UrlError(self._lacking) from None
        except FileNotFoundError:
            raise Missing(f"{url} cannot be {done}: there is nothing of that name.") from None
        except Exception as error:  # each library has errors of its own
            said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise UrlError(f"{url} cannot be {done}: {said}.") from None


def _found(url: str, told: Mapping[str, Any]) -> Found:
    size = told.get("size")
    identity = next((str(told[tag]) for tag in _TAGS if told.get(tag) is not None), "")
    return Found(url, size, identity, ranges=size is not None)


def _check(system: Any, path: str, found: Found) -> None:  # noqa: ANN401  (fsspec has no types)
    if _found(found.url, system.info(path)) != found:
        raise changed(found.url)
