"""Files at URLs: http, https and file by the standard library, others where fsspec and what it needs are installed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_BY_LIBRARY: Final = ("http", "https", "file", "ftp")
_WAIT_S: Final = 60.0
_SAFE: Final = re.compile(r"[^\w.,=+-]+")
NAME_MAX: Final = 150


def is_url(text: str) -> bool:
    """Whether it begins like one."""
    return _URL.match(text) is not None


def name_of(url: str) -> str:
    """What a file from there may be called."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return _SAFE.sub("_", name)[-NAME_MAX:].lstrip(".") or "input"


def fetch(url: str, target: Path) -> None:
    """Write what is at a URL into a file.

    Raises:
        OSError, ValueError: it cannot be had.
        ImportError: nothing that is installed knows such URLs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if urlsplit(url).scheme.lower() in _BY_LIBRARY:
        from urllib.request import urlopen

        with urlopen(url, timeout=_WAIT_S) as source, target.open("wb") as file:  # noqa: S310  (whatever is asked for)
            shutil.copyfileobj(source, file)
        return
    with _opened(url, "rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def send(path: Path, url: str) -> None:
    """Write a file to a URL; a local one is whole as soon as it is there.

    Raises:
        OSError, ValueError, ImportError: as `fetch`.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() == "file":
        target = Path(unquote(parts.path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(path, temporary)
        temporary.replace(target)
        return
    with path.open("rb") as file, _opened(url, "wb") as target_file:
        shutil.copyfileobj(file, target_file)


def _opened(url: str, mode: str) -> IO[Any]:
    try:
        import fsspec
    except ImportError:
        scheme = urlsplit(url).scheme
        raise ImportError(f"URLs that begin with {scheme}:// need the package fsspec on that node") from None
    opened: IO[Any] = fsspec.open(url, mode).open()
    return opened
