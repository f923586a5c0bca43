"""The promises of the gossip, in figures: each is a smaller run of what `python -m bench gossip_sim` measures."""

from __future__ import annotations

import pytest

from p2premap.sim import scenarios
from p2premap.sim.cluster import Cluster
from p2premap.sim.network import NetworkConfig
from p2premap.sim.scenarios import quantile


@pytest.mark.parametrize(("nodes", "losses"), [(3, 10), (8, 15), (100, 10)])
def test_a_power_off_is_known_in_time(nodes: int, losses: int) -> None:
    seen = scenarios.detection(nodes, seed=21, losses=losses)
    assert seen.unknown == seen.false_dead == 0
    assert quantile(seen.all_s, 0.5) <= 3.5
    assert seen.all_s[-1] <= 5.0


@pytest.mark.slow
def test_a_power_off_among_hundreds_is_known_in_time() -> None:
    # so few say nothing of the median, which ten losses above and `bench gossip_sim` look at
    seen = scenarios.detection(400, seed=22, losses=2)
    assert seen.unknown == seen.false_dead == 0
    assert seen.all_s[-1] <= 5.0


@pytest.mark.parametrize("nodes", [3, 32])
def test_a_killed_process_is_known_at_once(nodes: int) -> None:
    seen = scenarios.detection(nodes, seed=23, losses=10, power=False)
    assert seen.unknown == seen.false_dead == 0
    assert quantile(seen.all_s, 0.5) <= 0.3


def test_nobody_well_is_called_dead_at_a_tenth_of_loss() -> None:
    seen = scenarios.false_alarms(16, seed=24, node_minutes=200, loss=0.10)
    assert seen.dead == 0


def test_a_quarter_of_loss_kills_hardly_anybody() -> None:
    seen = scenarios.false_alarms(16, seed=25, node_minutes=100, loss=0.25)
    assert seen.dead <= 1


@pytest.mark.parametrize("nodes", [2, 3, 20])
def test_a_healed_cut_is_whole_in_time(nodes: int) -> None:
    times = scenarios.healing(nodes, seed=26, cuts=3)
    assert max(times) <= 10.0


def test_leaves_are_never_reported_as_deaths() -> None:
    misreported, times = scenarios.leaving(8, seed=27, leaves=40)
    assert misreported == 0
    assert quantile(times, 0.5) <= 1.0


@pytest.mark.parametrize("nodes", [2, 3, 16])
def test_a_node_stalled_for_ten_seconds_is_never_called_dead(nodes: int) -> None:
    assert scenarios.stalling(nodes, seed=28, stalls=5) == 0


@pytest.mark.parametrize("nodes", [2, 6])
def test_a_laptop_that_slept_for_minutes_takes_part_again_at_once(nodes: int) -> None:
    """Its clock stood still meanwhile, so none of its timers may be put off by the lost time."""
    cluster = Cluster(nodes, seed=34)
    cluster.form()
    world, sleeper = cluster.world, cluster.seats[0]
    world.run_for(5.0)
    world.sleep(sleeper)
    world.run_for(300.0)
    world.resume(sleeper)
    assert cluster.until_whole(10.0) <= 10.0
    world.power_off(cluster.seats[1])
    watch = cluster.known_gone(cluster.seats[1])
    assert world.run_until(lambda: watch.done, limit_s=8.0)


def test_an_idle_node_of_32_costs_little() -> None:
    seen = scenarios.cost(32, seed=29, seconds=30.0)
    assert 20 < quantile(seen.bytes_per_s, 0.5) <= 600


@pytest.mark.slow
def test_a_node_of_hundreds_with_load_costs_little() -> None:
    seen = scenarios.cost(200, seed=30, seconds=3.0, load=True)
    assert 20 < quantile(seen.bytes_per_s, 0.5) <= 4096


@pytest.mark.parametrize("nodes", [1, 2, 5, 50])
def test_nodes_that_start_together_find_each_other(nodes: int) -> None:
    cluster = Cluster(nodes, seed=31)
    assert cluster.form() <= 3.5
    cluster.world.run_for(10.0)
    cluster.check_quiet()


def test_facts_reach_everybody_over_a_bad_network() -> None:
    bad = NetworkConfig(loss=0.2, duplicate=0.1, reorder=0.2, corrupt=0.02, jitter_s=0.01)
    cluster = Cluster(12, seed=32, network=bad, strict=False)
    cluster.form(limit_s=60.0)
    for seat in cluster.seats:
        for key in ("cpu", "packages"):
            cluster.publish(seat, key, size=8 if key == "cpu" else 4_000)
    cluster.world.run_for(5.0)
    for seat in cluster.seats[::2]:
        cluster.publish(seat, "cpu")
    cluster.world.run_for(30.0)
    cluster.check_quiet()


def test_a_burst_of_facts_stays_within_what_a_node_may_send() -> None:
    """Everybody publishes at once: queues drop and repair goes on in pieces, instead of flooding the network."""
    from p2premap.sim.checkers import ByteBudget

    cluster = Cluster(30, seed=33)
    cluster.preload()
    budget = ByteBudget(cluster.world, bytes_max=400_000)
    cluster.world.run_for(5.0)
    for seat in cluster.seats:
        cluster.publish(seat, "packages", size=500)
    cluster.world.run_for(30.0)
    cluster.check_quiet()
    assert budget.worst > 1_000


def test_a_cluster_that_has_run_for_long_has_no_news_at_its_start() -> None:
    """Else each node would tell each other of itself: no cluster of ten thousand could be simulated."""
    cluster = Cluster(60, seed=34)
    cluster.preload()
    cluster.world.run_for(2.0)
    assert cluster.world.steps < 60 * 30
    cluster.check_quiet()
