"""Labs of network namespaces; without root and the programs for them, these tests are skipped with the reason."""

from __future__ import annotations

import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.netlab import Lab, why_not

REPOSITORY = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@functools.cache
def missing(fabric: str) -> str:
    """Asked once for all tests."""
    return why_not(fabric)


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Builds a lab that is gone after the test."""
    made: list[Lab] = []

    def make(nodes: int, **options: Any) -> Lab:
        if reason := missing(options.get("fabric", "bridge")):
            pytest.skip(reason)
        made.append(Lab(nodes, **options).__enter__())
        return made[-1]

    yield make
    for lab in made:
        lab.down()


class Lines:
    """A process on a node whose JSON lines are read as they come."""

    def __init__(self, lab: Lab, node: int, *argv: object) -> None:
        self.started_at = 0.0
        self.seen: list[dict[str, Any]] = []
        self.process = lab.popen(node, [sys.executable, "-W", "error", *argv], stdout=subprocess.PIPE, env=ENVIRONMENT)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._buffer = b""

    def wait(self, wanted: Callable[[dict[str, Any]], bool], limit_s: float = 60.0) -> dict[str, Any]:
        """The first line, of those seen or to come, that is wanted."""
        until, looked = time.monotonic() + limit_s, 0
        while True:
            for line in self.seen[looked:]:
                if wanted(line):
                    return line
            looked = len(self.seen)
            left = until - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise AssertionError(f"not seen within {limit_s} s; seen: {self.seen}")
            data = os.read(self.process.stdout.fileno(), 65_536)
            if not data:
                raise AssertionError(f"the process ended ({self.process.wait()}); seen: {self.seen}")
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self.seen += [json.loads(line) for line in lines]

    def reached(self, node: int, *, host: str = "", limit_s: float = 60.0) -> dict[str, Any]:
        """A hint of this node whose address could be dialled."""
        return self.wait(
            lambda line: (
                line["event"] == "hint"
                and line["node"] == node
                and line["outcome"] == "open"
                and line["host"].startswith(host)
            ),
            limit_s,
        )

    def state(self, wanted: Callable[[dict[str, Any]], bool], limit_s: float = 60.0) -> dict[str, Any]:
        """A state line that is wanted."""
        return self.wait(lambda line: line["event"] == "state" and wanted(line), limit_s)

    def forget(self) -> None:
        """Only what comes from now on counts."""
        self.seen.clear()

    def stop(self) -> None:
        """SIGTERM, and its end in good order."""
        self.process.send_signal(signal.SIGTERM)
        self.wait(lambda line: line["event"] == "ended")


@pytest.fixture
def speak() -> Callable[..., Lines]:
    """Starts `speaker.py` on a node of a lab."""

    def start(lab: Lab, node: int, *, tag: str = "ours") -> Lines:
        lines = Lines(lab, node, REPOSITORY / "tests" / "netns" / "speaker.py", node, tag)
        lines.started_at = lines.wait(lambda line: line["event"] == "started")["at"]
        return lines

    return start
