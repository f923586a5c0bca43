"""The output of a job that is done outlives any one machine: with whole daemons, virtually."""

from __future__ import annotations

import pytest
import trio

from p2premap.ids import JobId, NodeId
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.workloads import Shape
from p2premap.tasks.job import Phase
from p2premap.tasks.stage import StageRun
from tests.sim.stories import hand_in, leader_of

SHAPE = Shape(maps=4, reduces=12, map_s=0.1, reduce_s=0.1)
PARTS = list(range(SHAPE.reduces))


@pytest.mark.parametrize("seed", range(3))
def test_every_part_can_be_read_at_every_node_when_any_one_is_gone(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        visitor = Visitor(daemons)
        view = await visitor.see_through(await hand_in(visitor, SHAPE))
        makers = {part.source.holders[0] for part in view.parts}
        lost = next(seat for seat in daemons.world.live() if seat.node in makers and seat.index)
        daemons.world.power_off(lost)
        for seat in daemons.world.live():
            assert sorted(await Visitor(daemons, at=[seat.index]).fetch(view)) == PARTS

    simulate(story, nodes=4, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_job_does_not_end_with_a_part_that_only_a_machine_has_that_was_cut_off(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        visitor = Visitor(daemons, at=[0])
        job = await hand_in(visitor, SHAPE)
        sole = await _alone_with_a_part(daemons, job)
        cut = next(seat for seat in daemons.world.seats if seat.node == sole)
        daemons.world.network.cut([cut], [seat for seat in daemons.world.seats if seat is not cut])
        view = await visitor.see_through(job)
        assert view.phase is Phase.DONE
        assert sorted(await visitor.fetch(view)) == PARTS

    simulate(story, nodes=3, seed=seed)


async def _alone_with_a_part(daemons: DaemonWorld, job: JobId) -> NodeId:
    """Wait until nearly all parts are made, and one is with one node only, which does not lead."""
    leader = leader_of(daemons, job)
    assert leader is not None, "somebody leads"
    led = daemons.host_of(leader).house.core.jobs._led[job]
    while not led.over:
        runs: list[StageRun] = led._phase.state.runs  # type: ignore[union-attr]  # it is not over
        for task in range(runs[1].tasks) if len(runs) == 2 and runs[1].done >= SHAPE.reduces - 3 else ():
            holders = runs[1].facts.holders(task)
            if len(holders) == 1 and holders[0] != leader.node:
                return holders[0]
        await trio.sleep(0.0005)  # virtual time
    raise AssertionError("no part was with one node only")
