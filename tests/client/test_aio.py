"""The API in trio, against a scripted daemon that makes the calls for real."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import pytest
import trio

from p2premap import aio
from p2premap.node.paths import Paths
from tests.client.callhouse import CallHouse


def half(x: float) -> float:
    if x < 0:
        raise ValueError(x)
    return x / 2


@pytest.fixture
def house(paths: Paths, tmp_path: Path) -> Iterator[CallHouse]:
    house = CallHouse(tmp_path)
    with house.daemon(paths):
        yield house


@pytest.mark.trio
async def test_calls_are_awaited(house: CallHouse) -> None:
    async with aio.connect() as cluster:
        one = await cluster.submit(half, 3)
        two = await cluster.submit(half, one)
        assert await aio.gather([one, two]) == [1.5, 0.75]
        assert await one.result() == 1.5, "again"
        assert {await f.result() async for f in aio.as_completed([one, two, one])} == {1.5, 0.75}
        with pytest.raises(ValueError, match="-1"):
            await (await cluster.submit(half, -1)).result()
        table = await cluster.put([1, 2, 3])
        assert await (await cluster.submit(sum, table)).result() == 6
        assert bytes.fromhex(cluster.job_id)
        assert cluster.slots == 2
    assert house.closed == 1


@pytest.mark.trio
async def test_map(house: CallHouse) -> None:
    async with aio.connect() as cluster:
        assert [x async for x in cluster.map(half, range(2_000))] == [x / 2 for x in range(2_000)]
        endless = cluster.map(half, itertools.count(), ordered=False)
        some = [await endless.__anext__() for _ in range(100)]
        assert len(set(some)) == 100
        await endless.aclose()  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="-2"):
            assert [x async for x in cluster.map(half, [1, -2])]


@pytest.mark.trio
async def test_who_waits_can_be_cancelled(house: CallHouse) -> None:
    async with aio.connect() as cluster:
        house.deaf = True
        future = await cluster.submit(half, 3)
        began = time.monotonic()
        with trio.move_on_after(0.05):
            await future.result()
        with trio.move_on_after(0.05):
            await cluster.map(half, range(3)).__anext__()
        assert time.monotonic() - began < 60, "the house is deaf: it would take forever"
        assert not future.done()
        assert future.cancel()
        with pytest.raises(futures.CancelledError):
            await future.result()
        house.deaf = False
        assert await (await cluster.submit(half, 8)).result() == 4
