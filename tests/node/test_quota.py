"""What a node keeps within the limit that its owner gave it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2premap.ids import Digest
from p2premap.node import quota as quotas
from p2premap.node.blobs import BlobStore, StoreUsage
from p2premap.node.desk import RequestError, Trouble
from p2premap.node.quota import Quota

HOUR_S = 3600.0


def stored(blobs: BlobStore, data: bytes, age_s: float) -> Digest:
    """A blob that was written so long ago."""
    digest = blobs.put(data).digest
    os.utime(blobs.path(digest), (time.time() - age_s,) * 2)
    return digest


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def test_the_oldest_go_first_and_no_more_than_need_be(blobs: BlobStore) -> None:
    oldest, middle, young = (stored(blobs, bytes([n]) * 1000, n * HOUR_S) for n in (3, 2, 1))
    assert blobs.shrink(bytes_max=2_500, older_s=0.0) == StoreUsage(2, 2_000)
    assert [blobs.has(blob) for blob in (oldest, middle, young)] == [False, True, True]
    assert blobs.shrink(bytes_max=0, older_s=1.5 * HOUR_S) == StoreUsage(1, 1_000)
    assert blobs.has(young), "younger than what may go"
    assert blobs.shrink(bytes_max=0, older_s=0.0, keep={young}) == StoreUsage(1, 1_000)


class House:
    """What a quota asks of its node. `running_s`: age of the oldest job that goes on, anywhere."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.in_use: set[Digest] = set()
        self.core = SimpleNamespace(jobs=SimpleNamespace(blobs_in_use=lambda: self.in_use, submitted=lambda job: None))
        self.bringer = SimpleNamespace(blobs_in_use=set)
        self.jobs = list


@pytest.mark.trio
async def test_what_a_job_may_need_stays_and_nothing_else(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    running_s = 2.5 * HOUR_S

    async def oldest_running_s(asker: object) -> float:
        return running_s

    monkeypatch.setattr(quotas, "oldest_running_s", oldest_running_s)
    house = House(blobs)
    needed, done, running, fresh = (stored(blobs, bytes([n]) * 1000, n * HOUR_S) for n in (5, 4, 2, 0))
    house.in_use = {needed}
    quota = Quota(house, 1_500)  # type: ignore[arg-type]
    await quota.look()
    assert [blobs.has(blob) for blob in (needed, done, running, fresh)] == [True, False, True, True]
    assert quota.used == StoreUsage(3, 3_000), "more than the limit, and it says so"
    running_s = 0.0
    await quota.look()
    assert [blobs.has(blob) for blob in (needed, running, fresh)] == [True, False, True]
    house.in_use = set()
    await quota.look()
    assert quota.used == StoreUsage(1, 1_000)


@pytest.mark.trio
async def test_while_a_member_is_silent_nothing_goes(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def oldest_running_s(asker: object) -> float:
        raise RequestError(Trouble.UNREACHABLE, "No answer from bob.")

    monkeypatch.setattr(quotas, "oldest_running_s", oldest_running_s)
    stored(blobs, bytes(1000), HOUR_S)
    quota = Quota(House(blobs), 10)  # type: ignore[arg-type]
    await quota.look()
    assert quota.used == StoreUsage(1, 1_000)
