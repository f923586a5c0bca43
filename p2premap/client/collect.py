"""The output directory: parts as they commit, each whole or not there.

A part is written under a temporary name and renamed, so that ``part-00003`` is complete whenever it exists, also where
the client dies in between. The directory belongs to one job: the file ``.p2premap-job`` in it names it until all parts
are there. Then that file goes and an empty ``_SUCCESS`` comes, as Hadoop's users and tools expect; scripts can wait
for it. A directory that holds anything else is never written to.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from p2premap.errors import ConfigError

OWNER: Final = ".p2premap-job"
SUCCESS: Final = "_SUCCESS"


class OutputDirectory:
    """Where the parts of one job are collected.

    Args:
        path: as the user gave it.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def check(self) -> None:
        """Refuse, before there is a job, what could not be written to later.

        Raises:
            ConfigError: one sentence.
        """
        if self.path.exists():
            if not self.path.is_dir():
                raise ConfigError(f"The output {self.path} is a file; name a directory.")
            if any(self.path.iterdir()):
                raise ConfigError(f"The output directory {self.path} is not empty; name a new one, or empty it first.")
        self._make()
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigError(f"Cannot write to the output directory {self.path}: permission denied.")

    def claim(self, job: str) -> frozenset[int]:
        """Make the directory this job's own; the numbers of the parts that are there already.

        Collecting again for the same job goes on where it stopped.

        Args:
            job: the job's id in hexadecimal.

        Raises:
            ConfigError: another job's, or something else is in it.
        """
        self._make()
        owner = self.path / OWNER
        try:
            names = {entry.name for entry in self.path.iterdir()}
            if OWNER in names:
                if owner.read_text() != job:
                    raise ConfigError(
                        f"The output directory {self.path} is being written by another job; name a new one."
                    )
            elif names:
                raise ConfigError(f"The output directory {self.path} is not empty; name a new one, or empty it first.")
            else:
                owner.write_text(job)
        except OSError as error:
            raise ConfigError(f"Cannot write to the output directory {self.path}: {error.strerror}.") from None
        return frozenset(int(name[5:]) for name in names if name.startswith("part-") and name[5:].isdecimal())

    def part(self, number: int) -> PartFile:
        """Start writing a part."""
        return PartFile(self.path / part_name(number))

    def finish(self) -> None:
        """All parts are there.

        Raises:
            ConfigError: the disk does not allow it.
        """
        try:
            (self.path / SUCCESS).touch()
            (self.path / OWNER).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"Cannot write to the output directory {self.path}: {error.strerror}.") from None

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"Cannot make the output directory {self.path}: {error.strerror}.") from None


def part_name(number: int) -> str:
    """``part-00003``: sorts by name as by number up to a hundred thousand parts."""
    return f"part-{number:05}"


class PartFile:
    """One part while it is written: a context that leaves a whole part, or after an exception nothing.

    Raises:
        ConfigError: the disk is full or read-only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._file: BinaryIO | None = None
        self.size_bytes = 0

    def __enter__(self) -> Self:
        try:
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise self._unwritable(error) from None
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        assert self._file is not None
        try:
            self._file.write(data)
        except OSError as error:
            raise self._unwritable(error) from None
        self.size_bytes += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            self._file.close()
            if error is None:
                self._temporary.replace(self._path)
        except OSError as failure:
            if error is None:
                raise self._unwritable(failure) from None
        finally:
            self._temporary.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(f"Cannot write {self._path}: {error.strerror}. What has been collected before stays.")
