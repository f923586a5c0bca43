"""From the paths that a user typed to a map/reduce job: files, splits, digests. Plain file I/O, no trio.

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
from typing import TYPE_CHECKING, Final

import msgspec
from blake3 import blake3

from p2premap.client.bundle import JobCode, load_job
from p2premap.client.cutting import Look, first_row, line_end, looking, row_end
from p2premap.client.submission import Submission, submission_of
from p2premap.client.urlfiles import files_at, looking_at, needing
from p2premap.errors import JobRejected
from p2premap.ids import DIGEST_BYTES
from p2premap.tasks.job import JobOptions
from p2premap.tasks.mapreduce import KIND
from p2premap.tasks.mapreduce_plan import PARTITIONS_MAX, InputFile, Split, pack_plan, packing_of
from p2premap.worker.urls import is_url

if TYPE_CHECKING:
    from p2premap.client.planning import Asked

TASK_BYTES_MIN: Final = 1 << 10
"""Small: a short file may be a list of long computations, and should reach every slot."""

TASK_BYTES_MAX: Final = 64 << 20
SMALLEST_SHARE: Final = 8
"""The last tasks are about 1/8 of a slot's share: four tasks a slot in all, and slots that finish together."""

KEYS_TASKS: Final = 8
"""The keys of a datasource are shared out to so many tasks a slot: nobody knows which of them take long."""

PARTITION_BYTES: Final = 4 << 20
"""Less input than this a partition is not worth another reduce task."""

_READ_BYTES: Final = 1 << 20
_LOOK_BYTES: Final = 64 << 10
_HASH_THREADS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class _File:
    input: InputFile
    size: int


def plan(asked: Asked) -> Submission:
    """The planner of map/reduce jobs; see `p2premap.client.planning`.

    Raises:
        JobRejected: as `plan_mapreduce`.
    """
    if asked.given:
        raise JobRejected(f"Map/reduce jobs have no option {next(iter(asked.given))!r}: leave --option out.")
    return plan_asked(asked)


def plan_asked(asked: Asked, *, code: JobCode | None = None) -> Submission:
    """`plan_mapreduce` of what a command was given.

    Args:
        code: see there.

    Raises:
        JobRejected: see there.
    """
    return plan_mapreduce(
        asked.file,
        asked.inputs,
        slots=asked.slots,
        partitions=asked.partitions,
        compression="none" if asked.one_machine else "zlib",
        options=asked.options,
        code=code,
    )


def plan_mapreduce(
    job_file: str,
    inputs: Sequence[str],
    *,
    slots: int,
    partitions: int = 0,
    compression: str = "zlib",
    options: JobOptions | None = None,
    code: JobCode | None = None,
) -> Submission:
    """Plan a map/reduce job over files of this machine.

    Args:
        job_file: a Python file with `map` and perhaps `combine`, `reduce` and others (docs/job-files.md).
        inputs: paths of files and directories, glob patterns, and URLs.
        slots: worker processes of the whole cluster now.
        partitions: output parts that pairs are brought together in, of each set; 0: chosen from the slots and the size.
        compression: of what goes from map to reduce: "zlib", "zstd" where every node has it, "none" where all nodes
            are on one machine.
        code: the job file, where it has been loaded.

    Raises:
        JobRejected: one sentence: a wrong job file, path, or input.
    """
    code = code or load_job(job_file)
    most = PARTITIONS_MAX // max(len(code.sets), 1)
    if not 0 <= partitions <= most:
        raise JobRejected(f"{partitions} partitions: choose between 1 and {most}.")
    slots = max(slots, 1)
    listed = code.datasource or code.open != ""
    used, tasks = _no_files(inputs) if listed else _files(inputs, slots, code)
    total = sum(split.end - split.start for task in tasks for split in task)
    if not code.shuffles:
        partitions = 0
    elif not partitions:
        partitions = min(slots, slots if listed else -(-total // PARTITION_BYTES), most)
    options = options or JobOptions()
    plan = pack_plan(
        files=used,
        tasks=tasks,
        partitions=partitions * max(len(code.sets), 1),
        compression=compression,
        finish=code.finishes,
        sets=code.sets,
        suffix=code.suffix,
        memory_bytes=options.limits.memory_bytes,
        keys=min(KEYS_TASKS * slots, PARTITIONS_MAX) if listed else 0,
        open=code.open,
        lasts_s=code.lasts_s,
    )
    return submission_of(
        KIND,
        needing(options, (file.name for file in used if not file.path)),
        name=code.name,
        code=code.bundle,
        plan=plan,
        files=[file.path for file in used if file.path],
        bytes_in=total,
        tasks=len(tasks),
    )


def _files(inputs: Sequence[str], slots: int, code: JobCode) -> tuple[Sequence[InputFile], list[list[Split]]]:
    """The files to read, and the splits of each map task."""
    files = [f for f in find_files(inputs) if f.size]
    total = sum(f.size for f in files)
    if not total:
        raise JobRejected(f"The input is empty: {_listing(inputs)}.")
    cuts = _cut_into_tasks(files, total, slots, code)
    tasks = _digest(files, cuts, text=code.text)
    return [f.input for f in (_headed(files, cuts) if code.cut == "rows" and code.header else files)], tasks


def _no_files(inputs: Sequence[str]) -> tuple[Sequence[InputFile], list[list[Split]]]:
    if inputs:
        raise JobRejected(
            f"The job file has a datasource or each_node, and reads no files: leave {_listing(inputs)} out."
        )
    return (), []


def find_files(inputs: Sequence[str]) -> list[_File]:
    """The files that paths, URLs, glob patterns and directories name, in the order given, sorted within each.

    Directories are searched to the bottom; hidden files and directories in them are skipped. A file that is named
    again, also through a link, counts once.

    Raises:
        JobRejected: a path or URL that does not exist or cannot be read, a pattern or directory without files.
    """
    if not inputs:
        raise JobRejected("No input: name files, directories or patterns after the job file.")
    found: dict[tuple[int, int] | str, _File] = {}
    for given in inputs:
        if is_url(given):
            for input in files_at(given):
                found.setdefault(input.name, _File(input, 1 if input.size is None else input.size))
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


def _file(name: str) -> tuple[tuple[int, int], _File]:
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
    file = _File(InputFile(path=os.path.abspath(name), name=name, mtime_ns=status.st_mtime_ns), status.st_size)
    return (status.st_dev, status.st_ino), file


def task_sizes(total: int, slots: int) -> Iterator[int]:
    """About how many bytes each map task should read, without end: the last size repeats."""
    least = min(max(total // (SMALLEST_SHARE * slots), TASK_BYTES_MIN), TASK_BYTES_MAX)
    left = total
    while True:
        size = min(max(left // (2 * slots), least), TASK_BYTES_MAX)
        for _ in range(slots):
            left = max(left - size, 0)
            yield size


def _cut_into_tasks(files: Sequence[_File], total: int, slots: int, code: JobCode) -> list[list[tuple[int, int, int]]]:
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
            whole = file.size - start <= room + want // 8 or not code.cut or not _can_be_cut(file.input)
            end = file.size if whole else _cut(file, start, start + room, code)
            task.append((index, start, end))
            room -= end - start
            left -= end - start
            start = end
    return [*tasks, task]


def _can_be_cut(file: InputFile) -> bool:
    return packing_of(file.name) == "" and (file.path != "" or (file.ranges and file.size is not None))


def _cut(file: _File, start: int, offset: int, code: JobCode) -> int:
    if code.cut == "rows":
        return row_end(_look(file.input), file.size, start, offset)
    return line_end(_look(file.input), file.size, offset)


def _look(file: InputFile) -> Look:
    return looking(file.path, file.name) if file.path else looking_at(file)


def _headed(files: Sequence[_File], tasks: Iterable[Sequence[tuple[int, int, int]]]) -> list[_File]:
    """The files, those that are cut with their first row."""
    cut = {index for task in tasks for index, start, _ in task if start}
    return [
        replace(f, input=msgspec.structs.replace(f.input, head=first_row(_look(f.input), f.input.name, f.size)))
        if index in cut
        else f
        for index, f in enumerate(files)
    ]


def _digest(
    files: Sequence[_File], tasks: Iterable[Sequence[tuple[int, int, int]]], *, text: bool
) -> list[list[Split]]:
    """The splits with the digests of their bytes, read by a few threads (BLAKE3 and reads let go of the GIL)."""

    def digest(cut: tuple[int, int, int]) -> Split:
        file, start, end = cut
        if not files[file].input.path:
            return Split(file, start, end, bytes(DIGEST_BYTES))  # whoever fetches it looks whether it has changed
        return Split(file, start, end, _hash_range(files[file], start, end, text=text))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _HASH_THREADS_MAX)) as pool:
        return [list(splits) for splits in [pool.map(digest, task) for task in tasks]]


def _hash_range(file: _File, start: int, end: int, *, text: bool) -> bytes:
    hasher, left = blake3(), end - start
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
                    raise JobRejected(
                        f"{name} is not text: there are NUL bytes in it; leave it out, or say encoding = None "
                        "in the job file to read bytes."
                    )
                hasher.update(view[:size])
                left -= size
    except OSError as error:
        raise JobRejected(f"Cannot read {name}: {error.strerror}.") from None
    return hasher.digest()


def _listing(inputs: Sequence[str]) -> str:
    shown = ", ".join(inputs[:3])
    return shown if len(inputs) <= 3 else f"{shown} and {len(inputs) - 3} more"
