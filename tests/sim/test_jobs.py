"""Jobs on whole nodes in the simulator: the real NodeCore with real gossip, virtual executors and a virtual network."""

from __future__ import annotations

import pytest

from p2premap.ids import JobId
from p2premap.sim.jobs import JobWorld
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import NetworkConfig
from p2premap.sim.ports import Executors
from p2premap.sim.workloads import Shape
from p2premap.tasks.job import JobOptions, Phase

SHAPE = Shape(24, 4)


def test_a_job_uses_every_node_and_no_attempt_twice() -> None:
    jobs = JobWorld(4, seed=1)
    view = jobs.until_over(jobs.submit(SHAPE))
    assert view.phase is Phase.DONE
    assert len(view.nodes) == 4
    assert jobs.attempts() == 28
    jobs.world.run_for(5.0)
    assert jobs.idle()


def test_two_jobs_share_the_slots() -> None:
    jobs = JobWorld(3, seed=2)
    one = jobs.submit(Shape(60, 2), key=b"one", at=0)
    two = jobs.submit(Shape(60, 2), key=b"two", at=1)
    jobs.world.run_until(lambda: jobs.over(one) or jobs.over(two), limit_s=60.0)
    started = [sum(s.done + s.running for s in jobs.view(job).stages) for job in (one, two)]
    assert min(started) > 30, started
    jobs.until_over(one, two)
    assert jobs.attempts() == 124


def test_the_same_submission_is_the_same_job() -> None:
    jobs = JobWorld(2, seed=3)
    assert jobs.submit(SHAPE) == jobs.submit(SHAPE)
    jobs.until_over(jobs.submit(SHAPE))
    assert jobs.submit(SHAPE) == jobs.submit(SHAPE)
    assert jobs.attempts() == 28


def test_a_job_runs_on_when_a_worker_is_killed_wherever_it_stands() -> None:
    lost = reruns = 0
    for effects in range(1, 121, 2):
        jobs = JobWorld(3, seed=4)
        job = jobs.submit(SHAPE)
        jobs.world.crash_after(jobs.world.seats[2], effects)
        view = jobs.until_over(job)
        assert view.phase is Phase.DONE, view.error
        assert sum(stage.failed_attempts for stage in view.stages) == 0, "a lost node costs its attempts nothing"
        lost += sum(stage.lost_attempts for stage in view.stages)
        reruns += jobs.attempts() - 28 > 0
    assert lost > 20
    assert reruns > 5


@pytest.mark.parametrize("seed", range(4))
def test_a_job_survives_a_power_cut_of_two_of_five(seed: int) -> None:
    jobs = JobWorld(5, seed=seed)
    job = jobs.submit(Shape(60, 6))
    jobs.world.run_for(0.2)
    jobs.world.power_off(jobs.world.seats[3])
    jobs.world.run_for(0.15)
    jobs.world.power_off(jobs.world.seats[4])
    assert jobs.until_over(job).phase is Phase.DONE
    assert jobs.world.now < 60


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_restarts_works_again(seed: int) -> None:
    jobs = JobWorld(3, seed=seed)
    job = jobs.submit(Shape(300, 6))
    jobs.world.run_for(0.3)
    jobs.world.crash(jobs.world.seats[1])
    jobs.world.run_for(0.2)
    jobs.start(jobs.world.seats[1], Disk.KEPT)
    assert jobs.until_over(job).phase is Phase.DONE
    assert jobs.hosts.desks[jobs.world.seats[1].node].attempts > 30


@pytest.mark.parametrize("seed", range(3))
def test_a_frozen_node_costs_time_and_nothing_else(seed: int) -> None:
    jobs = JobWorld(3, seed=seed)
    job = jobs.submit(Shape(60, 4))
    jobs.world.run_for(0.2)
    frozen = jobs.world.seats[2]
    jobs.world.pause(frozen)
    jobs.world.run_for(8.0)
    jobs.world.resume(frozen)
    view = jobs.until_over(job)
    assert view.phase is Phase.DONE
    assert view.stages[0].failed_attempts == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_that_heals(seed: int) -> None:
    jobs = JobWorld(4, seed=seed)
    job = jobs.submit(Shape(80, 4, steady=False))
    jobs.world.run_for(0.2)
    seats = jobs.world.seats
    cut = jobs.world.network.cut(seats[2:], seats[:2])
    jobs.world.run_for(6.0)
    jobs.world.network.heal(cut)
    assert jobs.until_over(job).phase is Phase.DONE
    jobs.world.run_for(20.0)
    assert jobs.idle(), "what the other side ran for the job was not stopped"


def test_loss_and_reordering_change_nothing() -> None:
    jobs = JobWorld(4, seed=9, network=NetworkConfig(loss=0.1, duplicate=0.05))
    assert jobs.until_over(jobs.submit(SHAPE)).phase is Phase.DONE


def test_a_slow_node_gets_less() -> None:
    jobs = JobWorld(3, seed=10)
    slow = jobs.hosts.desks[jobs.world.seats[2].node]
    slow.slow = True
    jobs.until_over(jobs.submit(Shape(200, 2)))
    assert slow.attempts < 40


def test_crashing_attempts_are_tried_elsewhere() -> None:
    jobs = JobWorld(3, seed=11, executors=Executors(crash=0.05))
    view = jobs.until_over(jobs.submit(Shape(100, 4)))
    assert view.phase is Phase.DONE
    assert view.stages[0].failed_attempts > 0


def test_poison_ends_the_job_and_names_the_task() -> None:
    jobs = JobWorld(3, seed=12, executors=Executors(crash=1.0))
    view = jobs.until_over(jobs.submit(Shape(5)))
    assert view.phase is Phase.FAILED
    assert view.error.startswith("Task ")
    assert "3 times" in view.error
    jobs.world.run_for(5.0)
    assert jobs.idle()


def test_cancelled_means_that_nothing_runs() -> None:
    jobs = JobWorld(3, seed=13)
    job = jobs.submit(Shape(500, 4))
    jobs.world.run_for(0.5)
    jobs.cancel(job)
    assert not jobs.over(job)
    assert jobs.until_over(job).phase is Phase.CANCELLED
    assert jobs.idle()


def test_at_most_so_many_side_by_side() -> None:
    jobs = JobWorld(3, seed=14)
    job = jobs.submit(Shape(30), options=JobOptions(parallel_max=2))
    while not jobs.over(job):
        jobs.world.run_for(0.02)
        assert sum(jobs.core(seat).worker.busy for seat in jobs.world.seats) <= 2


def test_the_same_seed_is_the_same_history() -> None:
    def run() -> str:
        jobs = JobWorld(3, seed=15)
        job = jobs.submit(SHAPE)
        jobs.world.run_for(0.2)
        jobs.world.crash(jobs.world.seats[2])
        jobs.until_over(job)
        return jobs.world.trace.digest()

    assert run() == run()


@pytest.mark.parametrize("healed", [False, True])
def test_a_job_whose_plan_only_its_home_had_ends_if_the_others_could_get_it_before_its_disk_was_lost(
    healed: bool,
) -> None:
    """The others hear of it, and cannot answer or fetch anything: it is accepted as one copy."""
    jobs = JobWorld(3, seed=5)
    world = jobs.world
    home, *others = world.seats
    cut = world.network.cut(others, [home], both_ways=False)
    job = jobs.submit(Shape(60, 2, map_s=1.0))
    assert [answer.copies for answer in jobs.hosts.desks[home.node].answers] == [1]
    if healed:
        world.network.heal(cut)
        world.run_for(5.0)
    world.crash(home)
    world.network.heal()
    assert not jobs.ledgers.excused(job), "its disk may come back"
    jobs.start(home, Disk.LOST)
    assert jobs.ledgers.excused(job) is not healed
    if healed:
        assert jobs.until_over(job).phase is Phase.DONE
    else:
        world.run_for(10.0)
        assert {seat.index for seat in others if "No holder has it." in _note(jobs, seat, job)} == {1, 2}


def test_a_job_whose_plan_is_lost_ends_when_it_is_handed_in_again_anywhere() -> None:
    jobs = JobWorld(5, seed=5)
    world, shape = jobs.world, Shape(60, 2, map_s=1.0)
    home, *others = world.seats
    world.network.cut(others, [home], both_ways=False)
    job = jobs.submit(shape)
    world.crash(home)
    world.network.heal()
    jobs.start(home, Disk.LOST)
    world.run_for(10.0)
    stranger = next(seat for seat in world.live() if jobs.core(seat).jobs.core.job(job) is None)
    assert jobs.submit(shape, at=stranger.index, again=True) == job
    assert not jobs.ledgers.excused(job)
    assert jobs.until_over(job).phase is Phase.DONE


def _note(jobs: JobWorld, seat: Seat, job: JobId) -> str:
    """What the job waits for, by this node's word."""
    state = jobs.core(seat).jobs.core.job(job)
    return "" if state is None else state.note
