"""Whole daemons under every fault: every acknowledged job ends, and the checkers that know every disk find nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from p2premap.sim.daemon import host as hosts
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.storm import STORM_KINDS, storm
from p2premap.sim.observers import InvariantBroken


def storms(first: int, count: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for seed in range(first, first + count):
        total.update(storm(seed))
    return total


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_jobs_of_whole_daemons_end_in_a_storm() -> None:
    total = storms(0, 6)
    assert total["ended"] + total["excused"] == 12
    assert total["ended"] >= 10
    assert sum(total[kind] > 0 for kind in STORM_KINDS) >= 14
    assert total["protected"] > 150


@pytest.mark.deep
@pytest.mark.timeout(7_200)
def test_jobs_of_whole_daemons_end_in_many_storms() -> None:
    total = storms(100, 200)
    assert all(total[kind] >= 40 for kind in STORM_KINDS if "disk" not in kind)
    assert total["takeover"] >= 100


def test_a_core_that_stops_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "SAME_INSTANT_MAX", 500)

    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        host = daemons.host_of(daemons.world.seats[0])
        host.house.driver._core.deadline = lambda: 0.0  # type: ignore[method-assign]
        await daemons.until(lambda: False, 60.0, "ends", "time went on")

    with pytest.raises(InvariantBroken) as caught:
        simulate(story, nodes=2, seed=1)
    assert caught.value.checker == "time"
