"""Trees of processes: who descends from whom, what they hold in memory, and how to end them all.

A process group is not enough: a grandchild that calls ``setsid`` leaves it. On Linux the supervisor of a worker is
the subreaper of its tree (prctl(2), PR_SET_CHILD_SUBREAPER), so that whoever loses its parent becomes the
supervisor's child and is found by walking ``/proc`` down from it. Elsewhere psutil's table is walked: there, a
grandchild whose parent has ended before is missed.

No trio here: the supervisor of a worker uses it too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LINUX: Final = sys.platform == "linux"


def die_with_parent(with_signal: int) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux; elsewhere nothing)."""
    _prctl(_PR_SET_PDEATHSIG, with_signal)


def become_subreaper() -> None:
    """Have orphans among this process's descendants become its children (Linux; elsewhere nothing)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: bytes) -> None:
    """Show up as `name` (at most 15 bytes) in ``ps`` and ``top`` (Linux; elsewhere nothing)."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name))


def _prctl(option: int, argument: int | ctypes.c_char_p) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """The process ids of all that descend from `root`, parents before their children; without `root`."""
    found: list[int] = []
    level = [root]
    while level:
        level = [child for pid in level for child in _children(pid)]
        found += level
    return found


def _children(pid: int) -> list[int]:
    if not _LINUX:
        return _children_by_table(pid)
    found: list[int] = []
    try:
        # each thread lists the children that it started
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except FileNotFoundError:
        pass
    return found


def _children_by_table(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def send_signal(pids: Iterable[int], number: int) -> None:
    """Send a signal to each of these that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def resident_bytes(root: int) -> int:
    """Memory that the descendants of `root` hold now.

    The sum of resident set sizes counts what forked children share with their parent several times over: use
    `proportional_bytes` before acting on it.
    """
    return sum(map(_resident, descendants(root)))


def proportional_bytes(root: int) -> int:
    """Memory that the descendants of `root` hold now, shared pages divided among those who share them.

    Slower than `resident_bytes` (the kernel walks the page tables), and the same where there is no /proc.
    """
    return sum(map(_proportional, descendants(root)))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far, with that of children that it has waited for; 0 if it is gone."""
    if not _LINUX:
        import psutil

        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system + times.children_user + times.children_system)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    except (OSError, ValueError):
        return 0.0


def _resident(pid: int) -> int:
    if not _LINUX:
        import psutil

        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):  # gone, or just going
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return _resident(pid)


def signal_name(number: int) -> str:
    """ "SIGSEGV" for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
