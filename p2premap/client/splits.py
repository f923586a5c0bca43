"""Files that a user typed, found and cut into splits, with digests. Plain file I/O, no trio.

One pass over the bytes: each split is read once, for its BLAKE3 digest (and its first block is looked at, for NUL
bytes); cutting at line ends reads only the neighbourhood of each cut.

Sizes of map tasks follow *factoring* (Hummel, Schonberg and Flynn, 1992): each round hands out half of what remains,
in equal shares, so that early tasks are large (little overhead) and late ones small (the slots finish together).
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec
from blake3 import blake3

from p2premap.client.cutting import Look, first_row, line_end, looking, row_end
from p2premap.client.urlfiles import files_at, looking_at
from p2premap.errors import JobRejected
from p2premap.ids import DIGEST_BYTES
from p2premap.tasks.mapreduce_plan import InputFile, Split, packing_of
from p2premap.worker.urls import is_url

TASK_BYTES_MIN: Final = 1 << 10
"""Small: a short file may be a list of long computations, and should reach every slot."""

TASK_BYTES_MAX: Final = 64 << 20
SMALLEST_SHARE: Final = 8
"""The last tasks are about 1/8 of a slot's share: four tasks a slot in all, and slots that finish together."""

_READ_BYTES: Final = 1 << 20
_LOOK_BYTES: Final = 64 << 10
_HASH_THREADS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read. `size` in bytes; 1 where a URL does not say."""

    input: InputFile
    size: int


class Cutting(Protocol):
    """How files may be cut, see `p2premap.client.bundle.JobCode`."""

    @property
    def text(self) -> bool:
        """They must be text."""

    @property
    def cut(self) -> str:
        """Behind "lines", "rows", or nowhere."""

    @property
    def header(self) -> bool:
        """The first row names the fields, and is told to each task."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Files cut into tasks.

    Args:
        files: as `Split.file` numbers them.
        tasks: the splits of each.
        first_lines: how many lines of its file come before each split, in order; empty where nobody has counted.
    """

    files: Sequence[InputFile]
    tasks: list[list[Split]]
    first_lines: list[int]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(split.end - split.start for task in self.tasks for split in task)


def find_files(inputs: Sequence[str]) -> list[FoundFile]:
    """The files that paths, URLs, glob patterns and directories name, in the order given, sorted within each.

    Directories are searched to the bottom; hidden files and directories in them are skipped. A file that is named
    again, also through a link, counts once.

    Raises:
        JobRejected: a path or URL that does not exist or cannot be read, a pattern or directory without files.
    """
    if not inputs:
        raise JobRejected("No input: name files, directories or patterns after the job file.")
    found: dict[tuple[int, int] | str, FoundFile] = {}
    for given in inputs:
        if is_url(given):
            for input in files_at(given):
                found.setdefault(input.name, FoundFile(input, 1 if input.size is None else input.size))
            continue
        there = False
        for path in _matches(given):
            for name in _walk(path) if os.path.isdir(path) else [path]:
                there = True
                which, file = _file(name)
                found.setdefault(which, file)
        if not there:
            raise JobRejected(f"There are no files in {given} (hidden ones are skipped).")
    return list(found.values())


def _matches(given: str) -> list[str]:
    if os.path.lexists(given) or not glob.has_magic(given):
        return [given]
    matches = sorted(glob.glob(given, recursive=True))
    if not matches:
        raise JobRejected(f"Nothing matches {given}.")
    return matches


def _walk(top: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise JobRejected(f"Cannot read the directory {error.filename}: {error.strerror}.")

    for directory, subdirectories, names in os.walk(top, onerror=refuse):
        subdirectories[:] = sorted(d for d in subdirectories if not d.startswith("."))
        for name in sorted(names):
            path = os.path.join(directory, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _file(name: str) -> tuple[tuple[int, int], FoundFile]:
    """Which file on this machine's disks the name means, and what a job needs to know of it."""
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise JobRejected(f"{name} is not a regular file; copy what it gives into one first.")
        if not os.access(name, os.R_OK):
            raise JobRejected(f"Cannot read {name}: permission denied.")
        name.encode()
    except OSError as error:
        raise JobRejected(f"Cannot read {name}: {error.strerror}.") from None
    except UnicodeEncodeError:
        raise JobRejected(f"The file name {name!r} is not UTF-8; rename the file.") from None
    file = FoundFile(InputFile(path=os.path.abspath(name), name=name, mtime_ns=status.st_mtime_ns), status.st_size)
    return (status.st_dev, status.st_ino), file


def cut_files(
    found: Sequence[FoundFile],
    inputs: Sequence[str],
    slots: int,
    how: Cutting,
    *,
    counted: bool = False,
    otherwise: str = "say encoding = None in the job file to read bytes",
) -> Splits:
    """The files to read, and the splits of each map task.

    Args:
        inputs: what the files were found by, for people.
        counted: count lines, too.
        otherwise: what to do with a file that is not text, beside leaving it out.

    Raises:
        JobRejected: there is nothing in them, one cannot be read, or is not what it should be.
    """
    files = [f for f in found if f.size]
    total = sum(f.size for f in files)
    if not total:
        raise JobRejected(f"The input is empty: {listing(inputs)}.")
    cuts = _cut_into_tasks(files, total, slots, how)
    tasks, lines = _digest(files, cuts, text=otherwise if how.text else "", counted=counted)
    used = [f.input for f in (_headed(files, cuts) if how.cut == "rows" and how.header else files)]
    return Splits(used, tasks, _lines_before(files, tasks, lines) if counted else [])


def _lines_before(files: Sequence[FoundFile], tasks: Iterable[Sequence[Split]], lines: Sequence[int]) -> list[int]:
    """How many lines of its file come before each split; nothing where somebody else has to count them."""
    before, found = [0] * len(files), []
    for split, count in zip((split for task in tasks for split in task), lines, strict=True):
        if split.start and not files[split.file].input.path:
            return []
        found.append(before[split.file])
        before[split.file] += count
    return found


def task_sizes(total: int, slots: int) -> Iterator[int]:
    """About how many bytes each map task should read, without end: the last size repeats."""
    least = min(max(total // (SMALLEST_SHARE * slots), TASK_BYTES_MIN), TASK_BYTES_MAX)
    left = total
    while True:
        size = min(max(left // (2 * slots), least), TASK_BYTES_MAX)
        for _ in range(slots):
            left = max(left - size, 0)
            yield size


def _cut_into_tasks(
    files: Sequence[FoundFile], total: int, slots: int, how: Cutting
) -> list[list[tuple[int, int, int]]]:
    """The ranges (file, start, end) of each map task."""
    tasks: list[list[tuple[int, int, int]]] = []
    sizes = task_sizes(total, slots)
    task: list[tuple[int, int, int]] = []
    left, want = total, next(sizes)
    room = want
    for index, file in enumerate(files):
        start = 0
        while start < file.size:
            # A little too much is better than a sliver of a file in the next task, a little too few than one in this.
            if task and room < max(min(want // 8, file.size - start), 1):
                tasks.append(task)
                task, want = [], next(sizes)
                room = want if left >= want + want // 2 else left
            whole = file.size - start <= room + want // 8 or not how.cut or not _can_be_cut(file.input)
            end = file.size if whole else _cut(file, start, start + room, how)
            task.append((index, start, end))
            room -= end - start
            left -= end - start
            start = end
    return [*tasks, task]


def _can_be_cut(file: InputFile) -> bool:
    return packing_of(file.name) == "" and (file.path != "" or (file.ranges and file.size is not None))


def _cut(file: FoundFile, start: int, offset: int, how: Cutting) -> int:
    if how.cut == "rows":
        return row_end(look_into(file.input), file.size, start, offset)
    return line_end(look_into(file.input), file.size, offset)


def look_into(file: InputFile) -> Look:
    """Looks into a file, wherever it is."""
    return looking(file.path, file.name) if file.path else looking_at(file)


def _headed(files: Sequence[FoundFile], tasks: Iterable[Sequence[tuple[int, int, int]]]) -> list[FoundFile]:
    """The files, those that are cut with their first row."""
    cut = {index for task in tasks for index, start, _ in task if start}
    return [
        replace(f, input=msgspec.structs.replace(f.input, head=first_row(look_into(f.input), f.input.name, f.size)))
        if index in cut
        else f
        for index, f in enumerate(files)
    ]


def _digest(
    files: Sequence[FoundFile], tasks: Iterable[Sequence[tuple[int, int, int]]], *, text: str, counted: bool
) -> tuple[list[list[Split]], list[int]]:
    """The splits with the digests of their bytes, read by a few threads (BLAKE3 and reads let go of the GIL).

    Args:
        text: they must be text, and this is what else to do with one that is not; "": they need not be.

    Returns:
        With the number of line ends in each; 0 where they are not counted.
    """

    def digest(cut: tuple[int, int, int]) -> tuple[Split, int]:
        file, start, end = cut
        if not files[file].input.path:
            return Split(file, start, end, bytes(DIGEST_BYTES)), 0  # whoever fetches it looks whether it has changed
        hashed, lines = _hash_range(files[file], start, end, text=text, counted=counted)
        return Split(file, start, end, hashed), lines

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _HASH_THREADS_MAX)) as pool:
        done = [list(each) for each in [pool.map(digest, task) for task in tasks]]
    return [[split for split, _ in each] for each in done], [lines for each in done for _, lines in each]


def _hash_range(file: FoundFile, start: int, end: int, *, text: str, counted: bool) -> tuple[bytes, int]:
    hasher, left, lines = blake3(), end - start, 0
    buffer = bytearray(min(_READ_BYTES, left))
    name = file.input.name
    packed = packing_of(name)
    try:
        with open(file.input.path, "rb", buffering=0) as stream, memoryview(buffer) as view:
            stream.seek(start)
            while left:
                size = stream.readinto(view[:left])
                if not size:
                    raise JobRejected(f"{name} became shorter while it was read; submit again when it is at rest.")
                if (
                    text
                    and not packed
                    and start + left == end
                    and start == 0
                    and b"\0" in buffer[: min(size, _LOOK_BYTES)]
                ):
                    raise JobRejected(f"{name} is not text: there are NUL bytes in it; leave it out, or {text}.")
                hasher.update(view[:size])
                lines += buffer.count(b"\n", 0, size) if counted else 0
                left -= size
    except OSError as error:
        raise JobRejected(f"Cannot read {name}: {error.strerror}.") from None
    return hasher.digest(), lines


def listing(inputs: Sequence[str]) -> str:
    """The inputs, as a part of a sentence."""
    shown = ", ".join(inputs[:3])
    return shown if len(inputs) <= 3 else f"{shown} and {len(inputs) - 3} more"
