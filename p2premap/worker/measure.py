"""Figures of an attempt, and its scratch directory, at the price of a system call or two."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from typing import Final

_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""Of ``ru_maxrss``: bytes on macOS, KiB elsewhere."""
_NOTABLE_BYTES: Final = 1 << 20
_MEASURED_S: Final = 0.001
_LONG_S: Final = 0.05
_TICK_NS: Final = 20_000_000


class PeakMemory:
    """The peak of resident memory, attempt by attempt.

    The kernel keeps the peak since the last reset (proc(5), clear_refs). It is reset only after an attempt that moved
    it by 1 MiB or took 50 ms, so the figure of a short attempt may be up to 1 MiB too high. Children count once they
    have been waited for, with the largest of them. Where there is no reset, the peak is that of the process so far.
    Attempts under a millisecond are not measured: to ask would take longer than they do.
    """

    def __init__(self) -> None:
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self._base = self._reset()

    def of_attempt(self, seconds: float) -> int:
        """The peak in bytes during the attempt that has just ended and took `seconds`; 0 if it was not measured."""
        if seconds < _MEASURED_S:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
        total = peak
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        if children > self._children:
            self._children = children
            total += children * _UNIT
        if seconds > _LONG_S or peak > self._base + _NOTABLE_BYTES:
            self._base = self._reset()
        return total

    def _reset(self) -> int:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


class Directory:
    """The scratch directory, the current one at the start of each attempt; emptied after each that used it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._changed_ns = os.stat(path).st_mtime_ns

    def clear(self) -> None:
        """Remove what an attempt left, and go back to the directory."""
        status = os.fstat(self._descriptor)
        if not status.st_nlink:  # the attempt has removed it
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            os.close(self._descriptor)
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.fchdir(self._descriptor)
        changed_ns = status.st_mtime_ns
        # some file systems tell time in steps of several ms: a change within one step does not show
        if changed_ns == self._changed_ns and time.time_ns() - changed_ns > _TICK_NS:
            return
        for entry in os.scandir(self._path):
            if entry.is_dir(follow_symlinks=False):
                import shutil  # a worker process starts sooner without it

                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
        self._changed_ns = os.stat(self._path).st_mtime_ns
