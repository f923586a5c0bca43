"""A node is lost in the shuffle or in the reduce, its disk fills up, limits and priorities end what it runs: virtually.

Each test asserts that what it is about has happened: that the node held shuffle parts, that the reduce had begun.
"""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from p2premap.ids import JobId
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.disks import Fault
from p2premap.sim.machines import Seat
from p2premap.sim.workloads import Shape
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.events import RunBatch, StopSlot
from p2premap.tasks.job import JobOptions, JobView, Limits, Phase
from p2premap.tasks.state import JobState
from tests.sim.stories import hand_in, leader_of

ALONE = JobOptions(copies=1)
"""No result has a second holder: what a node takes along is gone."""
SHAPE = Shape(maps=24, reduces=24, map_s=0.3, reduce_s=0.4)


class Given:
    """Which machines were given attempts of which stage, and what was stopped."""

    kinds = (RunBatch, StopSlot)

    def __init__(self) -> None:
        self.tasks: dict[tuple[int, int], set[int]] = {}
        """(machine, stage) -> tasks."""
        self.stops: Counter[str] = Counter()

    def effect(self, seat: Seat, effect: object) -> None:
        if isinstance(effect, RunBatch):
            tasks = self.tasks.setdefault((seat.index, effect.stage.number), set())
            tasks.update(attempt.task for attempt in effect.attempts)
        elif isinstance(effect, StopSlot):
            self.stops[effect.reason] += 1

    def told(self, seat: Seat, event: object) -> None:
        pass

    def fault(self, seat: Seat, word: str) -> None:
        pass


def state_of(daemons: DaemonWorld, job: JobId) -> JobState:
    """What its leader knows."""
    seat = leader_of(daemons, job)
    assert seat is not None, "somebody leads"
    led: Coordinator = daemons.host_of(seat).house.core.jobs._led[job]
    assert not led.over
    return led._phase.state  # type: ignore[union-attr]  # it is not over


def other_than_leader(daemons: DaemonWorld, job: JobId) -> list[Seat]:
    leader = leader_of(daemons, job)
    return [seat for seat in daemons.world.live() if seat is not leader]


async def to_the_reduce(daemons: DaemonWorld, job: JobId) -> JobState:
    """Wait until reduce tasks have been handed out."""
    while len((state := state_of(daemons, job)).runs) < 2 or not any(state.runs[1].out):  # noqa: ASYNC110
        await trio.sleep(0.01)
    return state


async def ends(daemons: DaemonWorld, visitor: Visitor, job: JobId, parts: int) -> JobView:
    """It is done, with every part."""
    view = await visitor.see_through(job)
    assert view.phase is Phase.DONE
    assert sorted(await visitor.fetch(view)) == list(range(parts))
    return view


@pytest.mark.parametrize("seed", range(3))
def test_a_node_lost_in_the_shuffle_costs_its_own_parts_and_no_others(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        visitor = Visitor(daemons)
        job = await hand_in(visitor, SHAPE, options=ALONE)
        state = await to_the_reduce(daemons, job)
        maps = state.runs[0]
        lost = max(other_than_leader(daemons, job), key=lambda seat: len(list(maps.facts.held_by(seat.node))))
        held = set(maps.facts.held_by(lost.node))
        assert held, "it holds shuffle parts"
        assert state.runs[1].done < SHAPE.reduces, "reduce tasks still need them"
        daemons.world.power_off(lost)
        view = await ends(daemons, visitor, job, SHAPE.reduces)
        again = {task for (of, stage, task), times in daemons.runs.items() if stage == 0 and times > 1 and of == job}
        assert again, "shuffle parts were made again"
        assert again <= held
        assert sum(stage.failed_attempts for stage in view.stages) == 0

    simulate(story, nodes=4, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_node_lost_in_the_reduce_costs_the_attempts_that_it_ran(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        given, visitor = Given(), Visitor(daemons)
        daemons.world.observe(given)
        await daemons.start_all()
        job = await hand_in(visitor, SHAPE)
        state = await to_the_reduce(daemons, job)
        while not (busy := [s for s in other_than_leader(daemons, job) if given.tasks.get((s.index, 1))]):  # noqa: ASYNC110
            await trio.sleep(0.01)
        (lost, *_) = busy
        out = {t for b in state.workers.all[lost.node].batches.values() if b.stage.number == 1 for t in b.tasks}
        assert out, "it runs reduce tasks"
        assert not list(state.runs[1].facts.held_by(lost.node)), "it has ended none"
        daemons.world.power_off(lost)
        view = await ends(daemons, visitor, job, SHAPE.reduces)
        elsewhere = {t for (seat, stage), tasks in given.tasks.items() if stage and seat != lost.index for t in tasks}
        assert out <= elsewhere
        assert view.stages[1].lost_attempts + view.backups >= 1
        assert sum(stage.failed_attempts for stage in view.stages) == 0

    simulate(story, nodes=4, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_disk_that_fills_up_in_the_shuffle_sends_its_tasks_elsewhere(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        given, visitor = Given(), Visitor(daemons)
        daemons.world.observe(given)
        await daemons.start_all()
        job = await hand_in(visitor, SHAPE)
        full = other_than_leader(daemons, job)[-1]
        while not given.tasks.get((full.index, 0)):  # noqa: ASYNC110  (virtual time)
            await trio.sleep(0.01)
        daemons.set_disk(full, Fault.FULL)
        state = state_of(daemons, job)
        while "refuses" not in state.workers.all[full.node].said:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert "the disk is full" in state.workers.all[full.node].said
        view = await ends(daemons, visitor, job, SHAPE.reduces)
        assert view.stages[0].failed_attempts == 0, "a full disk is not the task's fault"
        assert daemons.host_of(full).serves

    simulate(story, nodes=4, seed=seed)


def test_an_attempt_over_its_time_limit_is_ended_and_after_three_the_job_fails() -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        visitor = Visitor(daemons)
        options = JobOptions(limits=Limits(time_s=0.2))
        job = await hand_in(visitor, Shape(maps=4, map_s=5.0), options=options)
        view = await visitor.see_through(job)
        assert view.phase is Phase.FAILED
        assert "exceeded its time limit 3 times" in view.error
        assert trio.current_time() < 10.0

    simulate(story, nodes=3, seed=1)


def test_a_job_of_higher_priority_takes_slots_back_at_no_cost_to_the_other() -> None:
    async def story(daemons: DaemonWorld) -> None:
        given, visitor = Given(), Visitor(daemons)
        daemons.world.observe(given)
        await daemons.start_all()
        long = Shape(maps=12, map_s=60.0)
        low = await hand_in(visitor, long, key=b"low")
        while sum(map(len, given.tasks.values())) < 6:  # noqa: ASYNC110  (virtual time)
            await trio.sleep(0.01)
        began = trio.current_time()
        high = await hand_in(visitor, Shape(maps=6, map_s=0.2), key=b"high", options=JobOptions(priority=5))
        assert (await visitor.see_through(high)).phase is Phase.DONE
        assert trio.current_time() - began < 30.0, "it did not wait for the other"
        assert any("priority" in reason for reason in given.stops), given.stops
        view = await visitor.see_through(low)
        assert view.phase is Phase.DONE
        assert sum(stage.failed_attempts for stage in view.stages) == 0

    simulate(story, nodes=3, seed=2)
