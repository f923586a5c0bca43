"""A node that takes a job is killed after its n-th effect, for every n: nothing is lost, nothing is redone."""

from __future__ import annotations

import pytest

from p2premap.node.events import JobAccepted
from p2premap.sim.jobs import JobWorld
from p2premap.sim.machines import Disk
from p2premap.sim.workloads import Shape, spec_of
from p2premap.tasks.job import Phase

SHAPE = Shape(8, 2, map_s=0.1, reduce_s=0.1, steady=False, inline=True)
EFFECTS = 110
"""More than the home has until the job is over."""


def killed_after(effects: int, *, power: bool, seed: int = 1) -> tuple[bool, bool]:
    """Whether the node died while the job was not over, and whether the client had its answer by then."""
    jobs = JobWorld(3, seed=seed)
    home, other, _ = jobs.world.seats
    request = jobs.request(home, spec_of(SHAPE, key=b"key"), SHAPE)
    jobs.world.crash_after(home, effects)
    jobs.world.run_until(lambda: jobs.answer(home, request) is not None or not home.runs, limit_s=10.0)
    answer = jobs.answer(home, request)
    if isinstance(answer, JobAccepted):
        jobs.know(answer.job, SHAPE)
        job = answer.job
    else:
        job = jobs.submit(SHAPE, at=other.index, key=b"key")
    jobs.world.run_until(lambda: not home.runs or jobs.over(job), limit_s=30.0)
    died = not home.runs and not jobs.over(job)
    if power and not home.runs:
        jobs.start(home, Disk.KEPT)
        jobs.world.power_off(home)
    assert jobs.until_over(job).phase is Phase.DONE
    if not home.runs:
        jobs.start(home, Disk.KEPT)
    jobs.world.run_for(3.0)
    assert jobs.idle()
    return died, answer is not None


@pytest.mark.parametrize("power", [False, True])
def test_a_home_killed_after_some_effects(power: bool) -> None:
    outcomes = [killed_after(effects, power=power) for effects in range(0, EFFECTS, 6)]
    assert sum(died for died, _ in outcomes) >= 8, outcomes
    assert {answered for _, answered in outcomes} == {True, False}


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.timeout(3_600)
def test_a_home_killed_after_every_effect(seed: int) -> None:
    outcomes = [killed_after(effects, power=bool(effects % 2), seed=seed) for effects in range(EFFECTS)]
    assert sum(died for died, _ in outcomes) >= 60
