"""A machine that stands still: every process of a node stops at once, and goes on when thawed.

By a cgroup (version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html, "cgroup.freeze") where one can be made:
no process sees it coming, and no child escapes. Else by SIGSTOP to the whole process tree, which parents of stopped
processes could notice.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

import psutil

FROZEN_S = 30.0
_numbers = itertools.count(1)


class Freezer:
    """Freezes one process tree.

    Args:
        pid: its root.

    Attributes:
        how: "cgroup" or "SIGSTOP".
        frozen: it stands still now.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._group = _new_group()
        self.how = "cgroup" if self._group is not None else "SIGSTOP"
        self.frozen = False
        self._stopped: list[psutil.Process] = []

    def freeze(self) -> float:
        """Returns when the freezing began, once everything stands still."""
        self.frozen = True
        if self._group is None:
            at = time.monotonic()
            while fresh := [p for p in _tree(self._pid) if p not in self._stopped]:
                for process in fresh:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGSTOP)
                self._stopped += fresh
            return at
        while outside := [p.pid for p in _tree(self._pid) if not self._holds(p.pid)]:
            for pid in outside:
                with contextlib.suppress(ProcessLookupError):
                    (self._group / "cgroup.procs").write_text(str(pid))
        at = time.monotonic()
        (self._group / "cgroup.freeze").write_text("1")
        while "frozen 1" not in (self._group / "cgroup.events").read_text():
            assert time.monotonic() < at + FROZEN_S, "the cgroup did not freeze"
            time.sleep(0.001)
        return at

    def thaw(self) -> float:
        """Returns when; harmless where nothing is frozen."""
        at = time.monotonic()
        self.frozen = False
        if self._group is not None:
            if self._group.exists():
                (self._group / "cgroup.freeze").write_text("0")
        else:
            for process in self._stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            self._stopped = []
        return at

    def remove(self) -> None:
        """After the processes have ended."""
        if self._group is None:
            return
        with contextlib.suppress(OSError):
            (self._group / "cgroup.kill").write_text("1")
        until = time.monotonic() + FROZEN_S
        while self._group.exists() and time.monotonic() < until:
            try:
                self._group.rmdir()
            except OSError:
                time.sleep(0.01)

    def _holds(self, pid: int) -> bool:
        assert self._group is not None
        return str(pid) in (self._group / "cgroup.procs").read_text().split()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _new_group() -> Path | None:
    """A fresh cgroup that can be frozen; None where the system gives none."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return None
    for mount in (Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"):
        group = mount / f"p2soak-{os.getpid()}-{next(_numbers)}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / "cgroup.freeze").exists():
            return group
        group.rmdir()
    return None
