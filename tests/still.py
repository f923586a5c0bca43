"""The only node of a machine stands still, as under SIGSTOP, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from p2premap.client import connection as lines
from p2premap.ids import NodeId
from p2premap.node import sockets
from p2premap.node.paths import Paths


class Clock:
    """Seconds that pass only where somebody sleeps, or looks at a node that says nothing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0

    def sleep(self, seconds: float) -> None:
        """They pass."""
        self.now += seconds

    def is_over(self, until: float, error: type[Exception]) -> None:
        """Raises `error` from then on: a deadline, or a key that is pressed."""
        if self.now >= until:
            raise error


@contextmanager
def standing_still(paths: Paths, *modules: ModuleType) -> Iterator[Clock]:
    """A node that is there and never speaks.

    Args:
        modules: whose time is virtual, beside that of connections.
    """
    clock = Clock()

    def connect_once(path: Path) -> lines.Connection:
        clock.looks += 1
        clock.sleep(lines.WELCOME_S)
        raise lines._Silent("it may be stopped")

    with pytest.MonkeyPatch.context() as patch, sockets.publish(paths.sockets("c0ffee"), NodeId(bytes(16))):
        patch.setattr(lines, "_connect_once", connect_once)
        for module in (lines, *modules):
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep))
        yield clock
