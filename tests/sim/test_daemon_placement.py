"""Requirements in the simulator: who lacks something runs nothing of the job, whoever leads it and whoever dies."""

from __future__ import annotations

import pytest
import trio

from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.machines import Disk, Seat
from p2premap.tasks.events import RunBatch
from p2premap.tasks.job import JobOptions, Phase
from tests.sim.stories import hand_in, leader_of

REQUIRES = JobOptions(requires=("tag fast | gpu", "cpus 2"))


class Ran:
    """Which machines were given attempts, and how many at once."""

    kinds = (RunBatch,)

    def __init__(self) -> None:
        self.seats: set[int] = set()

    def effect(self, seat: Seat, effect: object) -> None:
        self.seats.add(seat.index)

    def told(self, seat: Seat, event: object) -> None:
        pass

    def fault(self, seat: Seat, word: str) -> None:
        pass


@pytest.mark.parametrize("seed", range(3))
def test_only_nodes_that_meet_it_run_a_job_also_after_its_leader_died(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        daemons.tags = {1: ("fast",), 3: ("slow", "fast")}
        ran, visitor = Ran(), Visitor(daemons)
        daemons.world.observe(ran)
        await daemons.start_all()
        job = await hand_in(visitor, options=REQUIRES)
        await trio.sleep(daemons.random.uniform(0.2, 1.5))
        first = leader_of(daemons, job)
        assert first is not None
        daemons.world.crash(first)
        view = await visitor.see_through(job)
        assert view.phase is Phase.DONE
        assert ran.seats == {1, 3}

    simulate(story, nodes=5, seed=seed)


def test_a_job_that_fits_nowhere_waits_until_a_node_comes_that_fits() -> None:
    async def story(daemons: DaemonWorld) -> None:
        daemons.tags = {2: ("fast",)}
        visitor = Visitor(daemons)
        await daemons.start_all()
        daemons.world.crash(daemons.world.seats[2])
        job = await hand_in(visitor, options=REQUIRES)
        await trio.sleep(8.0)
        seat = leader_of(daemons, job)
        assert seat is not None
        (view,) = daemons.host_of(seat).house.jobs()
        assert view.phase is Phase.WAITING
        assert {(node, lacks) for node, lacks, _ in view.unmet} == {("n0", "tag fast | gpu"), ("n1", "tag fast | gpu")}
        daemons.world.start(daemons.world.seats[2], Disk.KEPT)
        assert (await visitor.see_through(job)).phase is Phase.DONE

    simulate(story, nodes=3, seed=1)
