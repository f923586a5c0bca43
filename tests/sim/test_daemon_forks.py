"""Two machines, and the first one's process dies: what the second does at once, and not twice; and how it ends."""

from __future__ import annotations

import pytest
import trio

from p2premap.ids import JobId
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.machines import Disk, Seat
from p2premap.tasks.events import RunBatch
from p2premap.tasks.job import JobOptions, Phase
from tests.sim.stories import hand_in, leader_of, run_job

AT_ONCE_S = 0.5
"""From the death of the leader until its successor assigns a task: half of the time that a task takes, and a little."""


class Runs:
    """What nodes run: when, where and which task."""

    kinds = (RunBatch,)

    def __init__(self) -> None:
        self.seen: list[tuple[float, Seat, tuple[object, int]]] = []

    def effect(self, seat: Seat, effect: object) -> None:
        assert isinstance(effect, RunBatch)
        now = trio.current_time()
        self.seen += [(now, seat, (effect.stage, attempt.task)) for attempt in effect.attempts]

    def told(self, seat: Seat, event: object) -> None:
        pass

    def fault(self, seat: Seat, word: str) -> None:
        pass


@pytest.mark.parametrize("seed", range(4))
def test_what_nodes_without_the_ledger_run_for_a_dead_leader_is_the_forks(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        runs = Runs()
        daemons.world.observe(runs)

        async def lose_the_first(job: JobId) -> None:
            await trio.sleep(daemons.random.uniform(0.4, 1.0))
            seat = leader_of(daemons, job)
            assert seat is not None
            daemons.world.crash(seat)
            await trio.sleep_forever()

        view, _ = await run_job(daemons, lose_the_first, options=JobOptions(copies=2))
        assert (view.phase, view.fork != "") == (Phase.DONE, True)
        for seat in daemons.world.live():
            there = [task for _, at, task in runs.seen if at is seat]
            assert len(there) == len(set(there)), "what ran there when the leader died ran twice"

    simulate(story, nodes=4, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_the_second_of_two_goes_on_at_once_with_what_it_runs(seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        runs, died = Runs(), [0.0]
        daemons.world.observe(runs)

        async def lose_the_first(job: JobId) -> None:
            await trio.sleep(daemons.random.uniform(0.4, 1.0))
            seat = leader_of(daemons, job)
            assert seat is not None
            daemons.world.crash(seat)
            died[0] = trio.current_time()
            await trio.sleep_forever()

        view, _ = await run_job(daemons, lose_the_first)
        assert view.phase is Phase.DONE
        assert view.fork
        survivor = runs.seen[-1][1]
        at_survivor = [task for _, seat, task in runs.seen if seat is survivor]
        assert len(at_survivor) == len(set(at_survivor)), "what ran there when the leader died ran twice"
        assert min(at for at, seat, _ in runs.seen if at > died[0]) < died[0] + AT_ONCE_S

    simulate(story, nodes=2, seed=seed)


def test_a_job_whose_fork_has_ended_ends_with_it_and_runs_nothing_again() -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        runs, visitor = Runs(), Visitor(daemons)
        daemons.world.observe(runs)
        job = await hand_in(visitor)
        await trio.sleep(0.8)
        first = leader_of(daemons, job)
        assert first is not None
        daemons.world.crash(first)
        provisional = await visitor.see_through(job)
        assert (provisional.phase, provisional.fork != "") == (Phase.DONE, True)
        ran, outputs = len(runs.seen), {p.number: p.source.digest for p in provisional.parts}
        daemons.world.start(first, Disk.KEPT)
        with trio.fail_after(20.0):
            while not all(_ended(daemons, seat, job) for seat in daemons.world.seats):  # noqa: ASYNC110  (virtual time)
                await trio.sleep(0.1)
        assert len(runs.seen) == ran, "what the fork had done ran again"
        for seat in daemons.world.seats:
            [view] = daemons.host_of(seat).house.jobs()
            assert (view.job, view.fork, view.phase) == (job, "", Phase.DONE), "the fork is history"
            assert {p.number: p.source.digest for p in view.parts} == outputs

    simulate(story, nodes=2, seed=3)


def _ended(daemons: DaemonWorld, seat: Seat, job: JobId) -> bool:
    """Whether this node knows that the job itself is over."""
    host = daemons.host_of(seat)
    state = host.house.core.jobs.core.job(job) if host.serves else None
    return state is not None and bool(state.record.view)
