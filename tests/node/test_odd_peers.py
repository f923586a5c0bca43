"""What nobody foresaw goes wrong with one peer: it ends what was under way with that one, not the node."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from p2premap.config import TransportConfig
from p2premap.errors import PeerUnreachable
from p2premap.gossip.events import DialEnded, DialOutcome, LinkUp
from p2premap.gossip.messages import Rumours
from p2premap.ids import Address, JobId, NodeId
from p2premap.node.secret import new_secret
from p2premap.tasks.job import AttemptSpec, BlobRef, Source, StageId
from p2premap.tasks.messages import Assign
from p2premap.wire import HEADER_BYTES_MAX
from tests.node.nodes import PATIENCE_S, node
from tests.tasks.dialogue import BALLOT

SECRET = new_secret(lambda size: b"s" * size)


def _raising(*_: object, **__: object) -> None:
    raise ValueError("nobody foresaw this")


@pytest.mark.trio
@pytest.mark.parametrize("where", ["_attempt", "_make_link"])
async def test_a_dial_that_goes_wrong_in_an_unforeseen_way_ends_too(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
            broken.setattr(a.transport._dialler, where, _raising)
            assert await a.dial(b.address) == DialEnded(dial=1, address=b.address, outcome=DialOutcome.SILENT)
        assert "nobody foresaw this" in caplog.text
        assert (await a.dial(b.address)).outcome is DialOutcome.CONNECTED


@pytest.mark.trio
async def test_a_look_at_a_stranger_that_goes_wrong_ends_that_one_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = new_secret(lambda size: b"o" * size)
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", other) as b, node(tmp_path / "c", SECRET) as c:
        monkeypatch.setattr(a.transport._dialler, "_look", _raising)
        assert (await a.dial(b.address)).outcome is DialOutcome.FOREIGN
        assert (await a.dial(c.address)).outcome is DialOutcome.CONNECTED


@pytest.mark.trio
async def test_a_call_back_that_goes_wrong_ends_that_one_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where: Callable[[NodeId], tuple[Address, ...]] = lambda _: (asks.address,)  # noqa: E731
    brief = TransportConfig(port_first=0, hello_s=PATIENCE_S, dial_s=0.3)
    async with (
        node(tmp_path / "a", SECRET, config=brief) as asks,
        node(tmp_path / "b", SECRET, addresses_of=where) as hidden,
    ):
        await hidden.dial(asks.address)
        await asks.until(lambda: asks.all(LinkUp))
        monkeypatch.setattr(hidden.transport._dialler, "_connect", _raising)
        with pytest.raises(PeerUnreachable):
            await asks.transport.open_control(hidden.id)
        with trio.fail_after(PATIENCE_S):
            while hidden.transport._calls or not hidden.transport.statistics().counts.get("returns_failed"):
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert hidden.transport.send_link(asks.id, Rumours())


@pytest.mark.trio
async def test_a_frame_that_no_link_carries_is_dropped_and_counted(tmp_path: Path) -> None:
    source = Source(digest=bytes(32), start=0, end=1, holders=())
    large = Assign(
        job=JobId(bytes(16)),
        ballot=BALLOT,
        stage=StageId(0, b""),
        runtime="r",
        function="map",
        code=source,
        attempts=(AttemptSpec(task=0, attempt=0, params=bytes(HEADER_BYTES_MAX)),),
    )
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        await a.dial(b.address)
        assert not a.transport.send_link(b.id, large)
        assert not a.transport.send_link(b.id, BlobRef(digest=bytes(32), size=1))
        assert a.transport.statistics().counts["unsendable"] == 2
        assert a.transport.send_link(b.id, Rumours())
