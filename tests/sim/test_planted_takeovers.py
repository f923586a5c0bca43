"""Bugs of ledger, election and takeover, planted in whole nodes: each is caught by the checker that it names.

The checkers know every disk of the virtual cluster (`p2premap.sim.ledgers`), so none of them needs a time-out, but for
the bug whose whole effect is that nothing happens.
"""

from __future__ import annotations

import pytest

from p2premap.ids import JobId
from p2premap.sim.disks import Fault
from p2premap.sim.jobs import JobWorld
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.workloads import Shape
from p2premap.tasks.job import JobOptions, Phase
from tests.sim.planting import Planted, all_seeds, assert_caught

SEEDS = range(2)

SHORT = Shape(40, 4, map_s=0.3, reduce_s=0.3, steady=False, inline=True)
LONG = Shape(120, 4, map_s=1.0, inline=True)
STRICT = JobOptions(strict=True)


def leader_of(jobs: JobWorld, job: JobId) -> Seat:
    leader = jobs.leader(job)
    assert leader is not None
    return leader


def others_of(jobs: JobWorld, job: JobId) -> list[Seat]:
    """The machines of the replicas that do not lead."""
    leader = leader_of(jobs, job)
    state = jobs.core(leader).jobs.core.job(job)
    assert state is not None
    return [jobs.world.owners[node] for node in state.record.members if node != leader.node]


# --- scenarios --------------------------------------------------------------------------------------------------------


def takeover(seed: int) -> None:
    """The leader is killed at any moment."""
    jobs = JobWorld(4, seed=seed)
    job = jobs.submit(SHORT)
    jobs.world.run_for(0.4 + 0.5 * seed)
    jobs.world.crash(leader_of(jobs, job))
    assert jobs.until_over(job).phase is Phase.DONE
    assert jobs.ledgers.counts["takeover"]


def blind(seed: int) -> None:
    """A job comes while a node that nobody misses yet is off."""
    jobs = JobWorld(3, seed=seed)
    jobs.world.run_for(1.0)
    jobs.world.power_off(jobs.world.seats[2])
    jobs.until_over(jobs.submit(SHORT))


def slow_disks(seed: int) -> None:
    """A sync takes longer than a message and its answer."""
    jobs = JobWorld(3, seed=seed)
    for desk in jobs.hosts.desks.values():
        desk.ledger.fault = Fault.SLOW
    jobs.until_over(jobs.submit(SHORT))


def minority(seed: int) -> None:
    """For longer than it takes to fork, a strict job has one replica only."""
    jobs = JobWorld(5, seed=seed)
    job = jobs.submit(LONG, options=STRICT)
    jobs.world.run_for(1.0)
    off = others_of(jobs, job)
    for seat in off:
        jobs.world.power_off(seat)
    jobs.world.run_for(20.0)
    for seat in off:
        jobs.start(seat, Disk.KEPT)
    assert jobs.until_over(job).phase is Phase.DONE


def replaced(seed: int) -> None:
    """One replica after the other is gone for good, each when the one before has been replaced."""
    jobs = JobWorld(6, seed=seed)
    job = jobs.submit(LONG._replace(maps=400), options=STRICT)
    jobs.world.run_for(1.0)
    for seat in others_of(jobs, job):
        jobs.world.power_off(seat)
        jobs.world.run_for(16.0)
    assert jobs.until_over(job, limit_s=60.0).phase is Phase.DONE


def isolated(seed: int) -> None:
    """The leader and a worker are cut off while the others go on; then the cut heals."""
    jobs = JobWorld(6, seed=seed)
    job = jobs.submit(SHORT)
    jobs.world.run_for(0.3 + 0.2 * seed)
    leader, replicas = leader_of(jobs, job), others_of(jobs, job)
    near = [leader, *(seat for seat in jobs.world.seats if seat is not leader and seat not in replicas)][:4]
    cut = jobs.world.network.cut(near, [seat for seat in jobs.world.seats if seat not in near])
    jobs.world.run_for(6.0)
    jobs.world.network.heal(cut)
    assert jobs.until_over(job).phase is Phase.DONE
    jobs.world.run_for(5.0)


def restarted(seed: int) -> None:
    """All nodes lose power at once, and come back."""
    jobs = JobWorld(3, seed=seed)
    job = jobs.submit(LONG)
    jobs.world.run_for(2.0 + seed)
    for seat in jobs.world.seats:
        jobs.world.power_off(seat)
    jobs.world.run_for(1.0)
    for seat in jobs.world.seats:
        jobs.start(seat, Disk.KEPT)
    assert jobs.until_over(job).phase is Phase.DONE


SCENARIOS = {
    scenario.__name__: scenario for scenario in (takeover, blind, slow_disks, minority, replaced, isolated, restarted)
}

BUGS = (
    Planted(
        what="a successor does not read which tasks are done",
        where="tasks.replay:Replay._of_stage",
        line="if fresh := run.recall(fact):",
        becomes="if fresh := 0:",
        caught_by="protected",
        scenario="takeover",
    ),
    Planted(
        what="any one member is a quorum",
        where="election.quorum:is_quorum",
        line="return double > len(members) or",
        becomes="return double > 0 or",
        caught_by="decided-once",
        scenario="isolated",
    ),
    Planted(
        what="a strict job is forked like any other",
        where="election.job:Job._fork_at",
        line=" or replica.record.strict",
        becomes="",
        caught_by="strict",
        scenario="minority",
    ),
    Planted(
        what="a job is acknowledged with the copies that it ought to have",
        where="election.submission:Creation._acknowledged",
        line="copies=self.copies",
        becomes="copies=len(self._job.replica.members)",
        caught_by="copies",
        scenario="blind",
    ),
    Planted(
        what="what is written is taken for what is on disk",
        where="election.journal:Journal.write",
        line="self._waiting.append(Entry(records, sync, then, failed))",
        becomes="self._waiting.append(Entry(records, sync, None, failed)); then and then()",
        caught_by="copies",
        scenario="slow_disks",
    ),
    Planted(
        what="a replica that is gone is never replaced",
        where="election.reconfigure:Reconfiguration._replaceable",
        line="return peer.gone and",
        becomes="return False and",
        caught_by="ends",
        scenario="replaced",
    ),
    # found by the simulator
    Planted(
        what="a node that starts does not hear what its replicas want until their time comes",
        where="node.core:NodeCore.step",
        line="self.jobs.tick(now)",
        becomes="pass",
        caught_by="core",
        scenario="restarted",
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])
def test_a_planted_bug_is_caught_by_its_checker(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(bug, monkeypatch, SCENARIOS[bug.scenario], SEEDS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_seeds_pass_without_a_bug(name: str) -> None:
    all_seeds(SCENARIOS[name], SEEDS)


def test_every_scenario_has_a_bug() -> None:
    assert {bug.scenario for bug in BUGS} == set(SCENARIOS)
