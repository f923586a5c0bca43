"""`Cluster` as an executor of the standard library, by CPython's own tests of executors, on real nodes.

They are those of the Python that runs, from its `test` package, which not every distribution installs. What is left
out, and why, is in `LEFT_OUT`; also `ThreadPool*` and `ProcessPool*`, which test threads and processes of those pools.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import unittest
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

import p2premap
from p2premap.client.private import PrivateCluster
from tests.cluster import environment

LEFT_OUT = {
    "test_max_workers_negative": "how many workers there are is the nodes' affair",
    "test_interpreter_shutdown": "it imports the executor from concurrent.futures by name; see the test below",
    "test_submit_after_interpreter_shutdown": "likewise; see the test below",
    "test_hang_gh83386": "likewise; see the test below",
}

MIXINS = {
    "ExecutorTest": "executor",
    "AsCompletedTests": "test_as_completed",
    "WaitTests": "test_wait",
    "ExecutorShutdownTest": "test_shutdown",
}
"""The mixins for any executor, and where they are in the package that the tests are since Python 3.12."""


class _Connected:
    """What the mixins find: an executor for each test."""

    worker_count = 3
    executor: futures.Executor

    @staticmethod
    def executor_type(max_workers: int) -> futures.Executor:
        """An executor; how many workers it has is the nodes' affair."""
        return p2premap.connect()

    @pytest.fixture(autouse=True)
    def _nodes(self, three_nodes: PrivateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)

    def setUp(self) -> None:
        self.executor = p2premap.connect()

    def tearDown(self) -> None:
        self.executor.shutdown(wait=True)


def _adapted(name: str, module: str) -> type[unittest.TestCase]:
    package = "test.test_concurrent_futures"
    try:
        found = importlib.import_module(package)
        if hasattr(found, "__path__"):
            found = importlib.import_module(f"{package}.{module}")
    except ImportError:
        missing = pytest.mark.skip(f"Python {sys.version.split()[0]} is installed without {package}")

        def test_mixin(self: unittest.TestCase) -> None:
            """Stands for all of them."""

        return type(name, (unittest.TestCase,), {"test_mixin": missing(test_mixin)})
    mixin = getattr(found, name)
    skipped: dict[str, Any] = {
        test: unittest.skip(reason)(getattr(mixin, test)) for test, reason in LEFT_OUT.items() if hasattr(mixin, test)
    }
    return type(name, (mixin, _Connected, unittest.TestCase), skipped)


TestExecutor, TestAsCompleted, TestWait, TestShutdown = (_adapted(*item) for item in MIXINS.items())

AT_EXIT = """
import atexit, sys, time
from pathlib import Path

def after():
    try:
        cluster.submit(id, None)
    except RuntimeError as error:
        print(error)

atexit.register(after)
import p2premap

def late(path):
    time.sleep(0.3)
    Path(path).write_text("done")

cluster = p2premap.connect()
cluster.submit(late, sys.argv[1])
if sys.argv[2:]:
    cluster.shutdown(wait=False)
"""


@pytest.mark.parametrize("more", [[], ["no wait"]])
def test_a_program_ends_when_its_calls_have(three_nodes: PrivateCluster, tmp_path: Path, more: list[str]) -> None:
    program, written = tmp_path / "program.py", tmp_path / "written"
    program.write_text(AT_EXIT)
    ended = subprocess.run(
        [sys.executable, str(program), str(written), *more],
        env=environment(three_nodes.home) | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.stdout, ended.stderr) == ("cannot schedule new futures after shutdown\n", "")
    assert written.read_text() == "done"
