"""Files at URLs: file, http, https and ftp by the standard library, others by fsspec, where that is installed.

For worker processes and for clients. What a scheme needs is imported when a URL of it is first met: none of it is
small.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Container, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from p2premap.worker.places import Found, Places, Unlisted, UrlError

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_SAFE: Final = re.compile(r"[^\w.,=+-]+")
NAME_MAX: Final = 150
PARTS: Final = ("part-*", "*/part-*", f"{5 * '[0-9]'}*/*")
"""Names of output parts in their directory; those of sets, and what a unit of an action has saved, are in one of their
own."""

_EXTRAS: Final = {"s3": "s3", "s3a": "s3"}
_PACKAGES: Final = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs"}
_BY_LIBRARY: Final = ("http", "https", "ftp")

_places: dict[str, Places] = {}


def is_url(text: str) -> bool:
    """Whether it begins like one."""
    return _URL.match(text) is not None


def is_web(url: str) -> bool:
    """Whether it is an http or https URL with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0 and url.isascii()
    except ValueError:
        return False


def name_of(url: str) -> str:
    """What a file from there may be called."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return _SAFE.sub("_", name)[-NAME_MAX:].lstrip(".") or "input"


def needs(url: str) -> str:
    """The package that a node needs for such URLs; "": none."""
    scheme = _scheme(url)
    return "" if scheme == "file" or scheme in _BY_LIBRARY else _PACKAGES.get(scheme, "fsspec")


def find(url: str) -> list[Found]:
    """See `Places.find`.

    Raises:
        Missing, UrlError: see there.
    """
    return _at(url).find(url)


def read(found: Found, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """See `Places.read`.

    Raises:
        Changed, UrlError: see there.
    """
    return _at(found.url).read(found, start, end)


def fetch(url: str, target: Path) -> None:
    """Write what is at a URL into a file.

    Raises:
        UrlError: it cannot be had, or is no single file.
        OSError: it cannot be written here.
    """
    found = find(url)
    if len(found) != 1:
        raise UrlError(f"{url} names {len(found)} files; name one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for piece in read(found[0]):
            file.write(piece)


def send(path: Path, url: str) -> None:
    """Have a file at a URL, whole or not at all.

    Raises:
        UrlError: it cannot be written there.
    """
    _at(url).write(path, url)


def below(url: str, name: str) -> str:
    """The URL of a file in a directory."""
    return _at(url).below(url, name)


def parts_in(url: str) -> list[str]:
    """Names of output parts that are in a directory.

    Raises:
        Unlisted: nobody can be asked.
        UrlError: it cannot be read.
    """
    return sorted(name for name in _at(url).names(url) if any(fnmatchcase(name, pattern) for pattern in PARTS))


def remove_others(url: str, ours: Container[str]) -> None:
    """Have no other output parts in a directory, as far as it can be listed.

    Raises:
        UrlError: one cannot be removed.
    """
    with suppress(Unlisted):
        for name in parts_in(url):
            if name not in ours:
                remove(below(url, name))


def remove(url: str) -> None:
    """Have no file there.

    Raises:
        UrlError: it cannot be removed.
    """
    _at(url).remove(url)


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _at(url: str) -> Places:
    """Whose URL it is.

    Raises:
        UrlError: nothing that is installed knows such URLs.
    """
    scheme = _scheme(url)
    if scheme not in _places:
        _places[scheme] = _make(scheme)
    return _places[scheme]


def _make(scheme: str) -> Places:
    if scheme == "file":
        from p2premap.worker.localfiles import LocalFiles

        return LocalFiles()
    if scheme in _BY_LIBRARY:
        from p2premap.worker.web import Web

        return Web()
    if importlib.util.find_spec("fsspec") is None:
        raise UrlError(lacking(scheme))
    from p2premap.worker.filesystems import FileSystems

    return FileSystems(scheme, lacking(scheme))


def lacking(scheme: str) -> str:
    """What to do where a package for such URLs is missing."""
    extra = f"p2premap[{_EXTRAS[scheme]}]" if scheme in _EXTRAS else f"fsspec {_PACKAGES.get(scheme, '')}".strip()
    install = f"'{extra}'" if "[" in extra else extra
    package = _PACKAGES.get(scheme, "fsspec")
    return f"URLs that begin with {scheme}:// need the package {package} on every node: pip install {install}."
