"""Where a job's output goes on this machine, and how a job that is over is told."""

from __future__ import annotations

import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TypeAlias

from p2premap.cli.show import count, say
from p2premap.client.amounts import duration, size
from p2premap.client.directories import OutputFailed, PartsDirectory, UrlDirectory
from p2premap.client.session import Collector
from p2premap.errors import ConfigError, NodeUnavailable
from p2premap.tasks.job import SAVED_PARTS_FIRST, JobView, Part
from p2premap.worker import urls

MEMORY_BYTES_MAX = 16 << 20
_PIECE_BYTES = 1 << 20
_SKIPPED_SHOWN_MAX = 3


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
        """Write the parts in order.

        Raises:
            OutputFailed: there is no room for them where standard output goes.
        """
        try:
            for number in sorted(self._kept):
                start, left = self._kept[number]
                self._file.seek(start)
                while left and (piece := self._file.read(min(left, _PIECE_BYTES))):
                    sys.stdout.buffer.write(piece)
                    left -= len(piece)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(f"Standard output cannot be written: {error.strerror}.") from None


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


def finish(view: JobView, collector: Collector, target: Target, *, took_s: float = 0.0, bytes_in: int = 0) -> None:
    """Deliver what was kept, and tell where the result is and what it took."""
    if isinstance(target, StandardOutput):
        with fetchable(view.job.hex()[:8]):
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
    say(f"Job {view.job.hex()[:8]} is done after {duration(took_s or view.lasted_s or view.age_s)}{rate}: {what}.")
