"""One run of a daemon after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p2premap.client.connection import RequestRefused, local
from p2premap.config import NodeConfig
from p2premap.control.nodes import GetStatus, ListNodes, Nodes, Status
from p2premap.node import desk_node, secret
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
        with trio.fail_after(100):
            await lives.run()
    assert len(seen) == 2
    assert seen[0] != seen[1] == other.tag


@pytest.mark.trio
async def test_a_request_that_goes_wrong_in_an_unforeseen_way_ends_that_one_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    def ask() -> Status:
        with local() as line, pytest.raises(RequestRefused, match="ZeroDivisionError: oh"):
            line.ask(lambda n: ListNodes(request=n), Nodes)
        with local() as line:
            return line.ask(lambda n: GetStatus(request=n), Status)

    monkeypatch.setitem(desk_node.HANDLERS, ListNodes, broken)
    up = trio.Event()
    with short_home() as home:
        monkeypatch.setenv("P2PREMAP_HOME", str(Path(home)))
        lives = Lives(NodeConfig(slots=1), lambda _: up.set())
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lives.run)
                await up.wait()
                assert (await trio.to_thread.run_sync(ask)).me.slots == 1
                lives.stop()
    assert "the request ListNodes could not be answered" in caplog.text
