"""What tests of the client share: scripted daemons that make calls for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import p2premap
from p2premap.client.cluster import Cluster
from p2premap.node.paths import Paths
from tests.client.callhouse import CallHouse
from tests.fakedaemon import FakeDaemon


@pytest.fixture
def house(paths: Paths, tmp_path: Path) -> Iterator[CallHouse]:
    """What the daemons share; closed at the end."""
    house = CallHouse(tmp_path)
    yield house
    house.close()


@pytest.fixture
def daemon(house: CallHouse, paths: Paths) -> Iterator[FakeDaemon]:
    """One of them."""
    with house.daemon(paths) as daemon:
        yield daemon


@pytest.fixture
def cluster(daemon: FakeDaemon) -> Iterator[Cluster]:
    """A program that is connected to it."""
    with p2premap.connect() as cluster:
        yield cluster
