"""Directories of a user for one test only, a cluster for all tests that leave it alive, and what a run says at its end.

Tests that simulate tell how much by `record_property("simulated", counts)`; the run's summary has the sums in one line.
"""

from __future__ import annotations

import gc
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from p2premap.client.private import PrivateCluster
from p2premap.node.paths import Paths
from tests.cluster import private

COLLECTED_EVERY = 20_000
"""New objects between two runs of the garbage collector; Python's own is 700."""

# how long an example takes is the machine's affair, and it may be busy: pytest-timeout ends what hangs
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# a shell starts what it runs in the background with SIGINT ignored, and whatever we start would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that the processes of a run end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What thousands of tests are made of lives to the end: the garbage collector need not walk it time and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_EVERY)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was simulated, and what happened in it."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    total: Counter[str] = Counter()
    for report in reports:
        if getattr(report, "when", "") == "call":
            for name, counts in report.user_properties:
                if name == "simulated":
                    total.update(counts)
    if total:
        told = ", ".join(f"{count:,} {what}" for what, count in sorted(total.items(), key=lambda item: -item[1]))
        terminalreporter.write_line(f"simulated: {told}")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """P2PREMAP_HOME, short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="p2p-", dir="/tmp"))
    monkeypatch.setenv("P2PREMAP_HOME", str(path))
    before = set(threading.enumerate())
    yield path
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("p2premap-"):  # it would find the next test's daemon, and go on with that
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} outlives its test"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def paths(home: Path) -> Paths:
    """The directories under it."""
    return Paths.of_user()


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[PrivateCluster]:
    """Three real nodes n1, n2, n3 with one slot each; not to be hurt."""
    with private() as cluster:
        yield cluster
