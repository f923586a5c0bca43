"""Directories of a user that exists for one test only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2premap.node.paths import Paths


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
