"""What attempts printed: ``logs/<job>/<stage>-<lineage>/<task>.<attempt>.log``, one file for each that said anything.

stdout, stderr and logging of an attempt are one file, in the order in which they were written. A file over its limit
keeps its beginning and its end, with a marker between. No trio here: worker processes store their logs themselves.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final, NamedTuple

from p2premap.ids import JobId
from p2premap.tasks.job import StageId

LOG_BYTES_MAX: Final = 1 << 20
TAIL_BYTES: Final = 4 << 10
CUT: Final = b"\n[p2premap cut %d bytes here]\n"
"""Between the two ends of a log, which have one length."""
CUT_TAIL: Final = b"\n[p2premap cut about %d bytes here]\n"
"""Before what an attempt printed after its output so far had become far too long."""


class LogFile(NamedTuple):
    """One attempt's log. `lineage` in hexadecimal, `size` in bytes."""

    stage: int
    lineage: str
    task: int
    attempt: int
    path: str
    size: int


def job_directory(logs: str, job: JobId) -> str:
    """Where the logs of a job are, under the node's directory of logs."""
    return f"{logs}/{job.hex()}"


def log_path(job_logs: str, stage: StageId, task: int, attempt: int) -> str:
    """The file of an attempt, under the directory of its job."""
    return f"{job_logs}/{stage.number}-{stage.lineage.hex()}/{task}.{attempt}.log"


def store_output(output: str, destination: str, bytes_max: int) -> None:
    """Move captured output to the place of its log, cut to `bytes_max`.

    Raises:
        OSError: the disk is full or read-only; the output is still where it was.
    """
    if os.stat(output).st_size > bytes_max:
        cut_middle(output, bytes_max)
    try:
        os.rename(output, destination)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(destination), mode=0o700, exist_ok=True)
        os.rename(output, destination)


def cut_middle(path: str, bytes_max: int) -> None:
    """Keep the first and the last half of `bytes_max` of a file, and say between them how much was cut."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        half = bytes_max // 2
        file.seek(size - half)
        end = file.read(half)
        file.seek(half)
        file.write(CUT % (size - 2 * half))
        file.write(end)
        file.truncate()


def cut_tail(path: str, bytes_max: int) -> None:
    """While a process still appends to `path`: throw away what is beyond `bytes_max`, and say so in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        os.ftruncate(descriptor, bytes_max)
        os.write(descriptor, CUT_TAIL % (size - bytes_max))
    finally:
        os.close(descriptor)


def read_tail(path: str, size: int = TAIL_BYTES) -> str:
    """The last bytes of a file as text; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def list_logs(logs: str, job: JobId, *, stage: int = -1, task: int = -1) -> list[LogFile]:
    """The logs of a job on this node, by stage, task and attempt; -1 means all."""
    found: list[LogFile] = []
    for directory in _entries(job_directory(logs, job)):
        number, _, lineage = directory.name.partition("-")
        if not number.isdecimal() or stage not in (-1, int(number)):
            continue
        for entry in _entries(directory.path):
            parts = entry.name.split(".")
            if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
                continue
            if task in (-1, int(parts[0])):
                with contextlib.suppress(OSError):
                    size = entry.stat().st_size
                    found.append(LogFile(int(number), lineage, int(parts[0]), int(parts[1]), entry.path, size))
    return sorted(found)


def read_log(log: LogFile) -> bytes:
    """All that is kept of one log, at most about `LOG_BYTES_MAX`; b"" if it has gone."""
    try:
        with open(log.path, "rb") as file:
            return file.read(LOG_BYTES_MAX + TAIL_BYTES)
    except OSError:
        return b""


def read_output(path: str) -> bytes:
    """What an attempt that runs has printed so far, as its log will have it; b"" if it has gone."""
    half = LOG_BYTES_MAX // 2
    try:
        with open(path, "rb") as file:
            text = file.read(LOG_BYTES_MAX + 1)
            if len(text) <= LOG_BYTES_MAX:
                return text
            cut = file.seek(-half, os.SEEK_END) - half
            return text[:half] + CUT % cut + file.read(half)
    except OSError:
        return b""


def remove_logs(logs: str, job: JobId) -> None:
    """Forget what this job printed."""
    import shutil  # worker processes, which need other things here, start sooner without it

    shutil.rmtree(job_directory(logs, job), ignore_errors=True)


def sweep_logs(logs: str, *, older_s: float) -> None:
    """Remove the logs of jobs to which nothing was added for `older_s` seconds."""
    oldest = time.time() - older_s
    for job in _entries(logs):
        with contextlib.suppress(OSError, ValueError):
            stages = [entry.stat().st_mtime for entry in _entries(job.path)]
            if max(stages, default=job.stat().st_mtime) < oldest:
                remove_logs(logs, JobId(bytes.fromhex(job.name)))


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []
