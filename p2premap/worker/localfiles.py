"""Files at file:// URLs: on a disk that all nodes share, or that they all have alike."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from p2premap.worker.places import PIECE_BYTES, Found, Missing, UrlError, changed, hidden


class LocalFiles:
    """See `p2premap.worker.places.Places`."""

    def find(self, url: str) -> list[Found]:
        """See there."""
        path = _path(url)
        if os.path.isdir(path):
            names = [os.path.join(path, name) for name in self._walk(path, deep=True) if not hidden(name)]
        elif not os.path.lexists(path) and glob.has_magic(path):
            names = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
        else:
            names = [path]
        if not names:
            raise Missing(f"There are no files at {url}.")
        return [self._look(_url(name), name) for name in sorted(names)]

    def read(self, found: Found, start: int, end: int | None) -> Iterator[bytes]:
        """See there."""
        try:
            with open(_path(found.url), "rb", buffering=0) as file:
                self._check(found, os.fstat(file.fileno()))
                file.seek(start)
                left = (found.size or 0) - start if end is None else end - start
                while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
                    left -= len(piece)
                    yield piece
                self._check(found, os.fstat(file.fileno()))
        except OSError as error:
            raise _unreadable(found.url, error) from None

    def write(self, path: Path, url: str) -> None:
        """See there."""
        target = Path(_path(url))
        temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, temporary)
                temporary.replace(target)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except OSError as error:
            raise UrlError(f"{url} cannot be written: {error.strerror}.") from None

    def names(self, url: str) -> list[str]:
        """See there."""
        return list(self._walk(_path(url), deep=False))

    def remove(self, url: str) -> None:
        """See there."""
        try:
            Path(_path(url)).unlink(missing_ok=True)
        except OSError as error:
            raise UrlError(f"{url} cannot be removed: {error.strerror}.") from None

    def below(self, url: str, name: str) -> str:
        """See there."""
        return f"{url.rstrip('/')}/{quote(name)}"

    @staticmethod
    def _walk(top: str, *, deep: bool) -> Iterator[str]:
        for directory, subdirectories, names in os.walk(top):
            place = os.path.relpath(directory, top)
            if not deep and place != ".":
                subdirectories.clear()
            yield from (name if place == "." else f"{place}/{name}" for name in names)

    @staticmethod
    def _look(url: str, path: str) -> Found:
        try:
            status = os.stat(path)
        except OSError as error:
            raise _unreadable(url, error) from None
        if not stat.S_ISREG(status.st_mode):
            raise UrlError(f"{url} is not a regular file.")
        return Found(url, status.st_size, str(status.st_mtime_ns), ranges=True)

    @staticmethod
    def _check(found: Found, status: os.stat_result) -> None:
        if status.st_size != found.size or str(status.st_mtime_ns) != found.identity:
            raise changed(found.url)


def _path(url: str) -> str:
    """The path, in which "?" is a part of a pattern, and no question to a server.

    Raises:
        UrlError: it is of another machine, or what should be a directory stands in the place of one.
    """
    host, slash, path = url.partition("://")[2].partition("/")
    if host not in ("", "localhost") or not slash:
        raise UrlError(f"{url} names no file: write file:/// and then the path from the root on.")
    return unquote(f"/{path}")


def _url(path: str) -> str:
    return f"file://{quote(path)}"


def _unreadable(url: str, error: OSError) -> UrlError:
    kind = Missing if isinstance(error, FileNotFoundError) else UrlError
    return kind(f"{url} cannot be read: {error.strerror}.")
