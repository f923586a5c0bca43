"""Output parts on this machine, or written from here: a directory, at a path or a URL.

Each part is there whole or not at all, and the parts of an earlier job are not replaced unasked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

import msgspec

from p2premap.client import leftovers
from p2premap.errors import ConfigError, P2PRemapError
from p2premap.tasks.job import Part
from p2premap.worker import urls
from p2premap.worker.places import Unlisted, UrlError
from p2premap.worker.urls import PARTS

OVERWRITE = "--overwrite"

PROBE = ".p2premap"
"""An empty file, written to see whether anything can be."""
_NEW = ".new-"
"""So begins the place of parts that are to replace others."""


class OutputFailed(P2PRemapError):
    """A part could not be written here; the job itself is well."""


class PartsDirectory:
    """Writes each part under a name of its own and renames it when it is whole: what is there is complete.

    Args:
        path: made when the first part comes, so that a job that is not accepted leaves nothing behind.
        overwrite: the parts of an earlier job are replaced, at the end, when all parts of this one are here.
        said: how a user asks for that.

    Raises:
        ConfigError: it cannot be written, or holds the parts of an earlier job.
    """

    def __init__(self, path: str, *, overwrite: bool = False, said: str = OVERWRITE) -> None:
        if not path:
            raise ConfigError('The output directory has no name; this one is called ".".')
        self.path = Path(path)
        self._ours: set[Path] = set()
        try:
            found = chain.from_iterable(map(self.path.glob, PARTS)) if self.path.exists() else ()
            self._old = [file for file in found if not file.is_dir() and not self._is_new(file)]
        except OSError as error:
            raise ConfigError(f"Cannot read the output directory {path}: {error.strerror}.") from None
        if self._old and not overwrite:
            name = self._old[0].relative_to(self.path)
            raise ConfigError(
                f"{path} holds the output of an earlier job ({name}); name another, or say {said} to replace it."
            )
        self._place = self.path / f"{_NEW}{os.getpid()}-{os.urandom(4).hex()}" if overwrite else self.path
        place = self.path.absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise ConfigError(f"The output directory cannot be {path}: {place} is a file.")
        try:
            os.rmdir(tempfile.mkdtemp(prefix=".p2premap-", dir=place))  # access(2) says yes to root everywhere
        except OSError:
            raise ConfigError(f"Cannot write the output to {path}: {place} is not writable.") from None

    def _is_new(self, file: Path) -> bool:
        """It is of another job, which is to replace the same output."""
        return file.relative_to(self.path).parts[0].startswith(_NEW)

    def refuse_old_as_input(self, files: Collection[str]) -> None:
        """See to it that a job does not read what it is to replace, as ``run job.py . -o out --overwrite`` would.

        Args:
            files: absolute paths of its inputs.

        Raises:
            ConfigError: it would.
        """
        both = {str(old.absolute()) for old in self._old}.intersection(files)
        if both:
            said = f"The input {min(both)} is output that would be replaced"
            raise ConfigError(f"{said}: leave {self.path}/ out of the inputs.")

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """Take one whole part.

        Raises:
            OutputFailed: the disk is full, or gone, or another file is in the way; nothing of the part is there.
        """
        final = self._place / (_relative(part.name) or msgspec.structs.replace(part, name="").file_name)
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        if final not in self._ours and os.path.lexists(final):
            raise OutputFailed(f"{final} is there already; remove it or name another directory.")
        try:
            if self._place != self.path:
                leftovers.places.add(self._place)  # of a job that does not succeed
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                size = sum(file.write(piece) for piece in pieces)
            temporary.replace(final)
            self._ours.add(final)
        except OSError as error:
            raise OutputFailed(f"Cannot write {final}: {error.strerror}.") from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return size

    def deliver(self) -> None:
        """All parts are here: now they replace those of the earlier job.

        Raises:
            OutputFailed: a part is gone, and nothing is replaced; the disk is gone, or a file is in the way, and what
                could not be moved is still there, also when the program ends.
        """
        if self._place == self.path:
            return
        if gone := [file for file in self._ours if not file.is_file()]:
            raise OutputFailed(f"{min(gone)} is gone, and nothing in {self.path} was replaced; fetch the output again.")
        leftovers.places.discard(self._place)
        try:
            while self._old:
                old = self._old[-1]
                old.unlink(missing_ok=True)
                self._old.pop()
                with suppress(OSError):  # other files may be in it
                    if old.parent != self.path:
                        old.parent.rmdir()
            for file in sorted(self._ours):
                final = self.path / file.relative_to(self._place)
                final.parent.mkdir(exist_ok=True)
                file.replace(final)
                self._ours.discard(file)
            leftovers.remove(self._place)
        except OSError as error:
            why = f"{error.strerror}; what is not there yet is in {self._place}"
            raise OutputFailed(f"Cannot replace the output in {self.path}: {why}.") from None

    def discard(self) -> None:
        """No more parts come, and those that are to replace others will not; where there were none they stay."""
        if self._place != self.path:
            leftovers.remove(self._place)
            self._ours.clear()


class UrlDirectory:
    """A directory at a URL. For `run` the nodes write to it (`p2premap.tasks.delivery`), other commands do themselves.

    Args:
        url: as the user typed it.
        overwrite: the parts of an earlier job are replaced.
        said: how a user asks for that.

    Raises:
        ConfigError: it cannot be written, or holds the parts of an earlier job.
    """

    def __init__(self, url: str, *, overwrite: bool = False, said: str = OVERWRITE) -> None:
        self.path = url.rstrip("/")
        self._ours: set[str] | None = set() if overwrite else None
        if not overwrite:
            refuse_earlier(url, "name another, or ", said=said)
        try:
            with tempfile.NamedTemporaryFile() as probe:
                urls.send(Path(probe.name), urls.below(url, PROBE))
            with suppress(UrlError):  # who may write need not be allowed to remove
                urls.remove(urls.below(url, PROBE))
        except UrlError as error:
            raise ConfigError(f"The output cannot go to {url}: {error}") from None

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """Take one whole part.

        Raises:
            OutputFailed: it cannot be written; nothing of the part is there.
        """
        with tempfile.NamedTemporaryFile() as file:
            size = sum(file.write(piece) for piece in pieces)
            file.flush()
            try:
                urls.send(Path(file.name), urls.below(self.path, part.file_name))
            except UrlError as error:
                raise OutputFailed(str(error)) from None
        if self._ours is not None:
            self._ours.add(part.file_name)
        return size

    def deliver(self) -> None:
        """All parts are there: now those of an earlier job go.

        Raises:
            OutputFailed: one of them cannot be removed.
        """
        try:
            if self._ours is not None:
                urls.remove_others(self.path, self._ours)
        except UrlError as error:
            raise OutputFailed(str(error)) from None

    def discard(self) -> None:
        """No more parts come; those that are there stay: each took the place of the one with its name at once."""


def refuse_earlier(url: str, instead: str = "", *, said: str = OVERWRITE) -> None:
    """See to it that no output is replaced unasked.

    Args:
        instead: what else than to overwrite it can be done, as a part of a sentence.
        said: how a user asks for that.

    Raises:
        ConfigError: there are parts of an earlier job, or nobody can tell whether there are.
    """
    try:
        old = urls.parts_in(url)
    except Unlisted as error:
        raise ConfigError(f"{error} Say {said} to write there whatever there is.") from None
    except UrlError as error:
        raise ConfigError(f"The output cannot go to {url}: {error}") from None
    if old:
        raise ConfigError(f"{url} holds the output of an earlier job ({old[0]}); {instead}say {said} to replace it.")


def _relative(name: str) -> str:
    """The name of a file in the directory: what other nodes say must not lead out of it."""
    place = PurePosixPath(name)
    return "" if place.is_absolute() or ".." in place.parts or "\0" in name else name
