"""One run of a daemon after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p2premap.config import NodeConfig
from p2premap.control.nodes import Status
from p2premap.node import secret
from p2premap.node.daemon import Lives
from p2premap.node.paths import Paths
from tests.cluster import short_home


@pytest.mark.trio
async def test_a_join_that_came_while_the_node_was_starting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`p2premap join` found no node that could have begun anew, and changed the secret by itself."""
    other, seen = secret.new_secret(), list[str]()

    def started(status: Status) -> None:
        seen.append(status.cluster)
        if len(seen) == 1:
            secret.replace(Paths.of_user().config, other)
        else:
            lives.stop()

    with short_home() as home:
        monkeypatch.setenv("P2PREMAP_HOME", str(Path(home)))
        lives = Lives(NodeConfig(slots=1), started)
        with trio.fail_after(30):
            await lives.run()
    assert len(seen) == 2
    assert seen[0] != seen[1] == other.tag
