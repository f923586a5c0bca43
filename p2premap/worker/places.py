"""What can be done with files at URLs, whatever their scheme; `p2premap.worker.urls` chooses who does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from p2premap.errors import P2PRemapError

PIECE_BYTES: Final = 1 << 20
"""Files are read and copied in pieces of this size."""


class UrlError(P2PRemapError):
    """A file at a URL cannot be had, written or removed. Its text is one sentence. Nothing was torn."""


class Changed(UrlError):
    """It is not what it was when the job was submitted. Definite."""


class Missing(UrlError):
    """There is nothing at this URL. Definite for now."""


class Unlisted(UrlError):
    """Nobody can be asked what is in this directory. Definite."""


class Found(NamedTuple):
    """A file at a URL, as it was when somebody looked.

    Args:
        size: in bytes; None: it is not told.
        identity: what would be another after a change: its tag, its time; "": nothing of that kind is told.
        ranges: parts of it can be read.
    """

    url: str
    size: int | None
    identity: str
    ranges: bool


class Places(Protocol):
    """The files behind the URLs of some schemes. All of it blocks on the network, and raises `UrlError`."""

    def find(self, url: str) -> list[Found]:
        """The file, or those that a pattern or a directory names, sorted; hidden ones in directories are left out.

        Raises:
            Missing: there is none.
        """

    def read(self, found: Found, start: int, end: int | None) -> Iterator[bytes]:
        """The bytes from `start` to before `end`; None: all the rest.

        Raises:
            Changed: it is another file by now; at the beginning, or after the last piece.
        """

    def write(self, path: Path, url: str) -> None:
        """Have a file there, whole or not at all, in place of what may be there."""

    def names(self, url: str) -> list[str]:
        """The files in a directory and those right below it, relative to it; none where there is no directory.

        Raises:
            Unlisted: nobody can be asked.
        """

    def remove(self, url: str) -> None:
        """Have no file there."""

    def below(self, url: str, name: str) -> str:
        """The URL of a file in a directory."""


def changed(url: str) -> Changed:
    """What is raised where a file is another than was announced."""
    return Changed(f"{url} has changed since the job was submitted; submit it again.")


def hidden(name: str) -> bool:
    """Whether a relative name, or a directory in it, begins with a dot."""
    return name.startswith(".") or "/." in name
