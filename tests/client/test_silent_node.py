"""A node that is there and says nothing is waited for: it is no reason to begin a cluster of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import p2premap
from p2premap.client import connecting, reach
from p2premap.client import connection as lines
from p2premap.client.connection import Connection, NodeSilent
from p2premap.errors import NodeUnavailable
from p2premap.ids import NodeId
from p2premap.node import sockets
from p2premap.node.paths import Paths
from tests.cluster import short_home
from tests.fakedaemon import FakeDaemon


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    with short_home() as home:
        monkeypatch.setenv("P2PREMAP_HOME", home)
        yield Paths(Path(home) / "config", Path(home) / "state", Path(home) / "run")


def test_a_program_does_not_go_its_own_way_because_its_node_is_silent(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "BEGIN_S", 0.0)
    with sockets.publish(paths.sockets("c0ffee"), NodeId(bytes(16))), pytest.raises(NodeSilent, match="overloaded"):
        p2premap.connect(told=lambda text: pytest.fail(text))


def test_where_no_other_will_do_a_silent_node_is_waited_for(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, silences = lines._connect_once, [lines._Silent("it is busy"), lines._Silent("it is busy")]

    def connect_once(path: Path) -> Connection:
        if silences:
            raise silences.pop()
        return connect(path)

    monkeypatch.setattr(lines, "_connect_once", connect_once)
    with FakeDaemon(paths, lambda message, payload: ()), reach.anywhere(insist=False, paths=paths) as line:
        assert line.welcome.name == "pi1"


def test_where_no_node_is_nobody_waits(paths: Paths) -> None:
    with pytest.raises(NodeUnavailable) as raised:
        reach.anywhere(patience_s=60.0, tick=lambda: pytest.fail("It is waited for."))
    assert not isinstance(raised.value, NodeSilent)
