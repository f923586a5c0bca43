"""Code of a task that waits for other tasks of the cluster says so, and its slot is theirs meanwhile.

Whoever blocks until another task has ended (`p2premap.client`) does so within `waiting()`. In a worker process the
node is told; in any other program nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

_around: Callable[[], AbstractContextManager[None]] = nullcontext


def waiting() -> AbstractContextManager[None]:
    """Around what blocks until another task has ended."""
    return _around()


def install(around: Callable[[], AbstractContextManager[None]]) -> None:
    """From now on this process is a worker, which tells its node with `around`."""
    global _around
    _around = around
