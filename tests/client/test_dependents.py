"""Calls that wait for others are handed in before these have results: what the client sends, keeps and takes back."""

from __future__ import annotations

import gc
import itertools
import random
import time
import weakref
from concurrent import futures
from pathlib import Path

import pytest

import p2premap
from p2premap.client.cluster import Cluster
from p2premap.client.dependents import EARLY_MAX
from p2premap.ids import NodeId
from p2premap.node.paths import Paths
from tests.client.callhouse import CallHouse
from tests.cluster import eventually, private

OTHER = NodeId(bytes(reversed(range(16))))


def add(x: int, y: int = 1) -> int:
    return x + y


def longer(x: float, data: bytes) -> float:
    return x + len(data)


def fail(x: int) -> int:
    raise ValueError("no", x)


def test_a_chain_is_handed_in_before_its_first_link_has_a_result(cluster: Cluster, house: CallHouse) -> None:
    house.deaf = True
    chain = cluster.submit(add, 1)
    links = [chain := cluster.submit(add, chain) for _ in range(20)]
    (job,) = house.jobs.values()
    eventually(lambda: job.tasks == 21)
    assert not links[0].done()
    house.deaf = False
    assert cluster.submit(add, 0).result(60) == 1
    assert [link.result(60) for link in links] == list(range(3, 23))


def test_those_that_wait_are_bounded_and_hold_up_nobody(cluster: Cluster, house: CallHouse) -> None:
    house.deaf = True
    first = cluster.submit(add, 1)
    fan = [cluster.submit(add, first, n) for n in range(2 * EARLY_MAX)]
    (job,) = house.jobs.values()
    eventually(lambda: job.tasks == 1 + EARLY_MAX)
    house.deaf = False
    assert cluster.submit(max, 3, 4).result(60) == 4, "what waits for nobody goes at once"
    assert [one.result(60) for one in fan] == [2 + n for n in range(2 * EARLY_MAX)]


def test_a_call_of_many_others(cluster: Cluster) -> None:
    numbers = [cluster.submit(add, n) for n in range(3_000)]
    assert cluster.submit(sum, numbers).result(60) == sum(range(1, 3_001))


def test_what_it_waits_for_fails_or_is_cancelled(cluster: Cluster, house: CallHouse) -> None:
    house.deaf = True
    failed, cancelled = cluster.submit(fail, 7), cluster.submit(add, 7)
    after = [cluster.submit(add, failed, 1), cluster.submit(add, cancelled, 1)]
    beyond = [cluster.submit(add, one) for one in after]
    (job,) = house.jobs.values()
    eventually(lambda: job.tasks == 6)
    assert cancelled.cancel()
    house.deaf = False
    cluster.submit(add, 0).result(60)
    for one in (after[0], beyond[0]):
        with pytest.raises(ValueError, match="7"):
            one.result(60)
    for one in (after[1], beyond[1]):
        with pytest.raises(futures.CancelledError):
            one.result(60)


def test_one_that_waits_can_be_cancelled(cluster: Cluster, house: CallHouse) -> None:
    house.deaf = True
    first = cluster.submit(add, 1)
    second = cluster.submit(add, first)
    third = cluster.submit(add, second)
    (job,) = house.jobs.values()
    eventually(lambda: job.tasks == 3)
    assert second.cancel()
    eventually(lambda: house.cancelled == {1})
    house.deaf = False
    cluster.submit(add, 0).result(60)
    assert first.result(60) == 2
    with pytest.raises(futures.CancelledError):
        third.result(60)


def test_another_leader_is_given_what_the_program_has(house: CallHouse, paths: Paths, tmp_path: Path) -> None:
    """It knows nothing of the job: the first call has its result here, and is not to be made again for the second."""
    first_daemon = house.daemon(paths)
    cluster = p2premap.connect()
    house.only = {0}
    house.deaf = True
    one = cluster.submit(random.random)
    two = cluster.submit(longer, one, bytes(100_000))
    slow = cluster.submit(random.random)
    three = cluster.submit(add, slow)
    (job,) = house.jobs.values()
    eventually(lambda: job.tasks == 4)
    house.deaf = False
    cluster.submit(add, 0)
    value = one.result(60)
    assert not two.done()
    successor = CallHouse(tmp_path / "other")
    first_daemon.close()
    with successor.daemon(paths, node=OTHER, name="pi2"):
        assert two.result(60) == value + 100_000
        assert three.result(60) == slow.result(60) + 1
        cluster.shutdown()
    assert successor.cancelled == {0}, "it is not to make the first one again"
    successor.close()


@pytest.mark.slow
def test_each_link_is_made_of_what_the_program_has_though_the_leader_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    with private(slots=2) as nodes:
        monkeypatch.setenv("P2PREMAP_HOME", nodes.home)
        with p2premap.connect() as cluster:
            chains = [[cluster.submit(_drawn, None)] for _ in range(4)]
            for chain in chains:
                for _ in range(25):
                    chain.append(cluster.submit(_drawn, chain[-1]))
            eventually(lambda: sum(link.done() for chain in chains for link in chain) >= 20)
            nodes.kill("n1")
            for chain in chains:
                for before, link in itertools.pairwise(chain):
                    assert link.result(60)[0] == before.result(60)[1], "it was made of something else"


def _drawn(before: tuple[float | None, float] | None) -> tuple[float | None, float]:
    """What came before, and something that no two calls yield."""
    time.sleep(0.01)
    return (before[1] if before is not None else None, random.random())


@pytest.mark.parametrize("kept", [0, -1], ids=["the first", "the last"])
def test_a_chain_keeps_no_link_that_has_its_answer(cluster: Cluster, kept: int) -> None:
    first = cluster.submit(add, 1)
    links = [last := first]
    for _ in range(20):
        links.append(last := cluster.submit(add, last))
    assert last.result(60) == 22
    fallen = cluster.submit(add, cluster.submit(fail, 1))
    with pytest.raises(ValueError, match="1"):
        fallen.result(60)
    one = links.pop(kept)
    known = [weakref.ref(link) for link in links]
    del links, first, last
    eventually(lambda: gc.collect() >= 0 and not [link for link in known if link() is not None])
    assert one.result() in (2, 22)
