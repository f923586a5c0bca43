"""What others do with this machine: the CPUs that programs use which this node has not started, and who is at it.

Costs a few system calls a process of ours, so it is looked at only where the owner has set limits.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from p2premap.node.load import MachineLoad
from p2premap.node.processes import cpu_seconds, descendants
from p2premap.tasks.events import MachineNow

TYPED_S: Final = 300.0
"""Who typed in a terminal within this time is at the machine."""

_TERMINALS: Final = Path("/dev/pts")


class Others(NamedTuple):
    """One look.

    Args:
        own_cpus: CPUs that this node and its worker processes have used since the last look, on average.
        user_active: somebody has typed in a terminal lately.
    """

    own_cpus: float
    user_active: bool


class OthersSampler:
    """Looks; each look covers the time since the one before."""

    def __init__(self) -> None:
        self._at, self._used = time.monotonic(), _own_seconds()

    def look(self) -> Others:
        """What our own processes took, and whether somebody is here. Reads /proc: for a thread."""
        at, used = time.monotonic(), _own_seconds()
        own = (used - self._used) / max(0.001, at - self._at)
        self._at, self._used = at, used
        return Others(max(0.0, own), _typed_within(TYPED_S))


def machine_now(load: MachineLoad, others: Others, *, cpus: int) -> MachineNow:
    """What the worker core wants to know."""
    return MachineNow(
        cpus=cpus,
        others_cpus=max(0.0, load.cpu * (os.cpu_count() or cpus) - others.own_cpus),
        memory_free_bytes=load.memory_free_bytes,
        on_battery=load.on_battery,
        user_active=others.user_active,
    )


def _own_seconds() -> float:
    return sum(cpu_seconds(pid) for pid in (os.getpid(), *descendants(os.getpid())))


def _typed_within(seconds: float) -> bool:
    """Whether a terminal was read from lately: the kernel notes it as the time of its last access, as `w` shows."""
    oldest = time.time() - seconds
    terminals = [*_TERMINALS.glob("[0-9]*"), *Path("/dev").glob("tty[0-9]*")]
    for terminal in terminals:
        with contextlib.suppress(OSError):
            if terminal.stat().st_atime > oldest:
                return True
    return False
