"""Where a job's output goes on this machine, and how a job that is over is told."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

import msgspec

from p2premap.cli.show import count, say
from p2premap.client.amounts import duration, size
from p2premap.client.session import Collector
from p2premap.errors import ConfigError, JobCancelled, JobFailed, NodeUnavailable, P2PRemapError
from p2premap.tasks.job import SAVED_PARTS_FIRST, JobView, Part, Phase
from p2premap.worker import urls
from p2premap.worker.places import Unlisted, UrlError
from p2premap.worker.urls import PARTS

MEMORY_BYTES_MAX = 16 << 20
_PIECE_BYTES = 1 << 20
_SKIPPED_SHOWN_MAX = 3

PROBE = ".p2premap"
"""An empty file, written to see whether anything can be."""


class OutputFailed(P2PRemapError):
    """A part could not be written here; the job itself is well."""


class PartsDirectory:
    """Writes each part under a name of its own and renames it when it is whole: what is there is complete.

    Args:
        path: made when the first part comes, so that a job that is not accepted leaves nothing behind.
        overwrite: the parts of an earlier job are replaced, at the end, when all parts of this one are here.

    Raises:
        ConfigError: it cannot be written, or holds the parts of an earlier job.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        if not path:
            raise ConfigError("The output directory has no name; say -o . for this one.")
        self.path = Path(path)
        self._ours: set[Path] = set()
        try:
            found = chain.from_iterable(map(self.path.glob, PARTS)) if self.path.exists() else ()
            self._old = [file for file in found if not file.is_dir()]
        except OSError as error:
            raise ConfigError(f"Cannot read the output directory {path}: {error.strerror}.") from None
        if self._old and not overwrite:
            name = self._old[0].relative_to(self.path)
            raise ConfigError(
                f"{path} holds the output of an earlier job ({name}); name another, or say --overwrite to replace it."
            )
        self._place = self.path / f".new-{os.getpid()}" if overwrite else self.path
        place = self.path.absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise ConfigError(f"The output directory cannot be {path}: {place} is a file.")
        try:
            os.rmdir(tempfile.mkdtemp(prefix=".p2premap-", dir=place))  # access(2) says yes to root everywhere
        except OSError:
            raise ConfigError(f"Cannot write the output to {path}: {place} is not writable.") from None

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
        self._ours.add(final)
        try:
            if self._place != self.path and not self._place.exists():
                atexit.register(shutil.rmtree, self._place, ignore_errors=True)  # of a job that does not succeed
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                size = sum(file.write(piece) for piece in pieces)
            temporary.replace(final)
        except OSError as error:
            raise OutputFailed(f"Cannot write {final}: {error.strerror}.") from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return size

    def deliver(self) -> None:
        """All parts are here: now they replace those of the earlier job.

        Raises:
            OutputFailed: the disk is gone, or a file is in the way; what could not be moved is still there.
        """
        if self._place == self.path:
            return
        try:
            for old in self._old:
                old.unlink(missing_ok=True)
                with suppress(OSError):  # other files may be in it
                    if old.parent != self.path:
                        old.parent.rmdir()
            for file in sorted(self._ours):
                final = self.path / file.relative_to(self._place)
                final.parent.mkdir(exist_ok=True)
                file.replace(final)
        except OSError as error:
            raise OutputFailed(f"Cannot replace the output in {self.path}: {error.strerror}.") from None


class UrlDirectory:
    """A directory at a URL. For `run` the nodes write to it (`p2premap.tasks.delivery`), other commands do themselves.

    Args:
        url: as the user typed it.
        overwrite: the parts of an earlier job are replaced.

    Raises:
        ConfigError: it cannot be written, or holds the parts of an earlier job.
    """

    def __init__(self, url: str, *, overwrite: bool = False) -> None:
        self.path = url.rstrip("/")
        self._ours: set[str] | None = set() if overwrite else None
        if not overwrite:
            refuse_earlier(url, "name another, or ")
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


def refuse_earlier(url: str, instead: str = "") -> None:
    """See to it that no output is replaced unasked.

    Args:
        instead: what else than to overwrite it can be done, as a part of a sentence.

    Raises:
        ConfigError: there are parts of an earlier job, or nobody can tell whether there are.
    """
    try:
        old = urls.parts_in(url)
    except Unlisted as error:
        raise ConfigError(f"{error} Say --overwrite to write there whatever there is.") from None
    except UrlError as error:
        raise ConfigError(f"The output cannot go to {url}: {error}") from None
    if old:
        said = f"{url} holds the output of an earlier job ({old[0]})"
        raise ConfigError(f"{said}; {instead}say --overwrite to replace it.")


class StandardOutput:
    """Keeps the parts until all are here: a pipe must not see half the result of a job that then fails.

    Args:
        saved: files that were saved beside results are wanted, too.
    """

    def __init__(self, *, saved: bool = False) -> None:
        self._saved = saved
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX)  # noqa: SIM115  (until this one goes)
        weakref.finalize(self, self._file.close)
        self._end = 0
        self._kept: dict[int, tuple[int, int]] = {}
        """Where each part is in the file, and its size."""

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """Take one whole part.

        Raises:
            OutputFailed: there is no room for it.
        """
        if part.number >= SAVED_PARTS_FIRST and not self._saved:
            return sum(map(len, pieces))
        try:
            self._file.seek(self._end)
            size = sum(self._file.write(piece) for piece in pieces)
        except OSError as error:
            raise OutputFailed(f"The output cannot be kept in {tempfile.gettempdir()}: {error.strerror}.") from None
        self._kept[part.number] = self._end, size
        self._end += size
        return size

    def flush(self) -> None:
        """Write the parts in order."""
        for number in sorted(self._kept):
            start, left = self._kept[number]
            self._file.seek(start)
            while left and (piece := self._file.read(min(left, _PIECE_BYTES))):
                sys.stdout.buffer.write(piece)
                left -= len(piece)
        sys.stdout.buffer.flush()


def _relative(name: str) -> str:
    """The name of a file in the directory: what other nodes say must not lead out of it."""
    place = PurePosixPath(name)
    return "" if place.is_absolute() or ".." in place.parts or "\0" in name else name


Target: TypeAlias = PartsDirectory | UrlDirectory | StandardOutput | None


def output_to(path: str | None, *, as_json: bool, overwrite: bool = False) -> Target:
    """Where the parts go. With ``--json``, standard output belongs to the JSON.

    Raises:
        ConfigError: see `PartsDirectory` and `UrlDirectory`; or there is nothing to overwrite.
    """
    check_overwrite(path, overwrite)
    if path is not None:
        return (UrlDirectory if urls.is_url(path) else PartsDirectory)(path, overwrite=overwrite)
    return None if as_json else StandardOutput()


def check_overwrite(path: str | None, overwrite: bool) -> None:
    """What ``--overwrite`` needs.

    Raises:
        ConfigError: there is no directory.
    """
    if overwrite and path is None:
        raise ConfigError("--overwrite replaces what is in a directory: name it with -o DIR.")


@contextmanager
def fetchable(job: str, *, handed_in: bool = False) -> Iterator[None]:
    """Add to a trouble that the job survives how to have its output all the same.

    Args:
        handed_in: the job exists for certain.

    Raises:
        OutputFailed, NodeUnavailable: as inside, with that sentence.
    """
    try:
        yield
    except NodeUnavailable as error:
        if not handed_in:
            raise
        raise NodeUnavailable(
            f"{error} The job {job} is kept by its nodes: it goes on when they are started again, and "
            f"`p2premap watch {job} -o DIR` fetches its output."
        ) from None
    except OutputFailed as error:
        raise OutputFailed(f"{error} The job lives on: fetch its output with `p2premap watch {job} -o DIR`.") from None


def raise_unless_done(view: JobView) -> None:
    """Say how a job that is over ended.

    Raises:
        JobFailed: with the remote traceback.
        JobCancelled: somebody ended it.
    """
    job = view.job.hex()
    if view.phase is Phase.CANCELLED:
        raise JobCancelled(f"Job {job[:8]} was cancelled{': ' + view.error if view.error else '.'}", job=job)
    if view.phase is Phase.FAILED:
        kept = f" `p2premap results {job[:8]} -o DIR` fetches the parts." if view.output and view.parts else ""
        raise JobFailed(f"Job {job[:8]} failed: {view.error}{kept}", job=job, detail=view.detail)


def finish(view: JobView, collector: Collector, target: Target, *, took_s: float = 0.0, bytes_in: int = 0) -> None:
    """Deliver what was kept, and tell where the result is and what it took."""
    if isinstance(target, StandardOutput):
        target.flush()
    saved = sum(part.number >= SAVED_PARTS_FIRST for part in view.parts)
    parts = count(len(view.parts) - saved, "part") + (f" and {count(saved, 'saved file')}" if saved else "")
    place = f"{target.path}/" if isinstance(target, PartsDirectory | UrlDirectory) else view.output
    what = f"{parts}, {size(sum(part.source.size for part in view.parts))}, in {place}" if place else parts
    rate = f" ({size(bytes_in / took_s)}/s of input)" if bytes_in and took_s > 0 else ""
    for stage, task, error in view.skipped[:_SKIPPED_SHOWN_MAX]:
        say(f"Left out: {error if error.startswith('Task ') else f'task {task} of stage {stage}: {error}.'}")
    if (more := sum(stage.skipped for stage in view.stages) - _SKIPPED_SHOWN_MAX) > 0:
        say(f"Left out: {count(more, 'more task')}; `p2premap why JOB STAGE.TASK` says why.")
    if saved and not place:
        say(f"The saved files are kept by the nodes: `p2premap watch {view.job.hex()[:8]} -o DIR` fetches them.")
    say(f"Job {view.job.hex()[:8]} is done after {duration(took_s or view.age_s)}{rate}: {what}.")
