"""Directories of a user that exists for one test only, and a cluster for all tests that leave it alive."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from p2premap.node.paths import Paths
from tests.cluster import private


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """P2PREMAP_HOME, short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="p2p-", dir="/tmp"))
    monkeypatch.setenv("P2PREMAP_HOME", str(path))
    yield path
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
