"""Anything breaks at random, then everything is repaired and must become well: many seeds, all checkers."""

from __future__ import annotations

import pytest

from p2premap.sim.checkers import check_whole
from p2premap.sim.cluster import Cluster
from p2premap.sim.faults import Faults

SAFETY_S = 40.0
LIVENESS_S = 75.0
QUIET_S = 10.0


WORSE_THAN_PROMISED = {"bad network", "slow machine"}
"""Where four datagrams in ten are lost, now and then somebody well is called dead."""


def storm(seed: int, nodes: int, *kinds: str) -> Faults:
    """A safety phase, then a liveness phase; returns what was broken."""
    replay = f"pytest 'tests/sim/test_faults.py' -k 'seed{seed}-'"
    strict = bool(kinds) and not WORSE_THAN_PROMISED.intersection(kinds)
    cluster = Cluster(nodes, seed=seed, strict=strict, replay=replay)
    cluster.form()
    faults = Faults(cluster, random=cluster.world.random("faults"), kinds=kinds)
    cluster.world.run_for(SAFETY_S)
    faults.end()
    cluster.until_whole(LIVENESS_S, "liveness")
    cluster.world.run_for(QUIET_S)
    cluster.check_quiet()
    return faults


@pytest.mark.parametrize("seed", range(8), ids="seed{}-".format)
def test_a_cluster_survives_anything(seed: int) -> None:
    faults = storm(seed, 3 + seed % 5)
    assert faults.happened >= SAFETY_S / 2, faults.counts


@pytest.mark.parametrize("seed", range(100, 104), ids="seed{}-".format)
def test_crashes_with_disks_kept_old_and_lost(seed: int) -> None:
    faults = storm(seed, 6, "crash", "crash in a step", "power", "leave", "fact")
    assert faults.counts["crash"] + faults.counts["power"] >= 3, faults.counts


@pytest.mark.parametrize("seed", range(200, 204), ids="seed{}-".format)
def test_cuts_of_every_kind(seed: int) -> None:
    faults = storm(seed, 8, "cut", "one-way cut", "partial cut", "fact")
    assert faults.counts["one-way cut"] >= 2, faults.counts


@pytest.mark.parametrize("seed", range(300, 304), ids="seed{}-".format)
def test_stalls_sleeps_and_leaps_of_the_clock(seed: int) -> None:
    faults = storm(seed, 6, "pause", "sleep", "jump")
    assert faults.counts["pause"] + faults.counts["sleep"] >= 4, faults.counts


@pytest.mark.parametrize("effects", range(0, 40, 3))
def test_a_node_may_die_after_any_effect(effects: int) -> None:
    """The newcomer crashes after its Nth effect and comes back: all are well in the end, whatever it had said."""
    cluster = Cluster(4, seed=effects, replay=f"pytest 'tests/sim/test_faults.py' -k 'any_effect and {effects}'")
    world, newcomer = cluster.world, cluster.seats[3]
    for seat in cluster.seats[:3]:
        cluster.start(seat)
    cluster.until_whole(10.0)
    cluster.start(newcomer)
    world.crash_after(newcomer, effects)
    assert world.run_until(lambda: not newcomer.runs, limit_s=60.0)
    world.run_for(3.0)
    cluster.start(newcomer)
    cluster.until_whole(10.0)
    world.run_for(QUIET_S)
    cluster.check_quiet()


def test_nodes_behind_a_translator_take_part() -> None:
    cluster = Cluster(6, seed=11, undialable=2, replay="pytest 'tests/sim/test_faults.py' -k translator")
    cluster.form(limit_s=60.0)
    hidden = cluster.seats[5]
    cluster.publish(hidden, "a")
    cluster.world.run_for(60.0)
    cluster.check_quiet()
    check_whole(cluster.world, cluster.beliefs)
