"""Vertex jobs in whole daemons, virtually: whatever is lost, the answer is the same to the last digit.

The algorithm runs for real, on real mail; nodes, network and worker processes are virtual. The plain run is the same
job on one node to which nothing happens.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio

from p2premap.client.graphs import plan_algorithm
from p2premap.client.graphwish import Wish
from p2premap.client.planning import Asked
from p2premap.client.submission import Submission
from p2premap.ids import JobId
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.slots import Pace
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.machines import Disk, Seat
from p2premap.tasks.events import RunBatch
from p2premap.tasks.job import JobView, Phase
from p2premap.vertex.plan import EpochParams
from p2premap.vertex.told import unpack_told
from tests.sim.stories import leader_of

ITERATIONS = 40
Meanwhile = Callable[[DaemonWorld, JobId], Awaitable[None]]


class Epochs:
    """Which epochs machines were told to run: never one that a later one has followed, which is decided then."""

    kinds = (RunBatch,)

    def __init__(self, daemons: DaemonWorld) -> None:
        self.meetings: dict[int, set[bytes]] = {}
        """By stage: one for each time that it was handed out."""
        self.machines: set[int] = set()
        self._daemons = daemons
        self._last = 0

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, RunBatch) or effect.meeting is None:
            return
        number, told = effect.stage.number, msgspec.msgpack.decode(effect.attempts[0].params, type=EpochParams)
        if number < self._last:
            raise self._daemons.world.broken("redone", f"epoch {told.epoch} begins after its end was decided", seat)
        self._last = number
        self.meetings.setdefault(number, set()).add(effect.meeting.id)
        self.machines.add(seat.index)

    def told(self, seat: Seat, event: object) -> None:
        pass

    def fault(self, seat: Seat, word: str) -> None:
        pass

    @property
    def begun_anew(self) -> int:
        """How often an epoch was handed out again."""
        return sum(len(meetings) - 1 for meetings in self.meetings.values())


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    path = tmp_path_factory.mktemp("graph") / "edges.txt"
    random = Random(7)
    path.write_text("".join(f"{random.randrange(60)} {random.randrange(60)}\n" for _ in range(400)))
    os.utime(path, (1_000, 1_000))
    return planned(path)


def planned(path: Path) -> Submission:
    wish = Wish(seed="seed")
    asked = Asked(file="", inputs=[str(path)], slots=6, partitions=5)
    made = plan_algorithm("pagerank", wish, {"iterations": ITERATIONS}, asked)
    # what is installed is known here, and nobody looks for it in a virtual node
    options = msgspec.structs.replace(made.spec.options, requires=())
    spec = msgspec.structs.replace(made.spec, submission_key=b"vertices", options=options)
    return replace(made, spec=spec)


class Ran:
    """What came of a run."""

    def __init__(self, view: JobView, parts: Mapping[int, bytes], epochs: Epochs, counts: Mapping[str, int]) -> None:
        self.view, self.parts, self.epochs, self.counts = view, parts, epochs, dict(counts)


def run(
    submission: Submission,
    meanwhile: Meanwhile | None = None,
    *,
    nodes: int = 4,
    seed: int = 1,
    superstep_s: float = 0.1,
) -> Ran:
    """The job from its submission to the bytes of its parts, while something happens."""

    async def story(daemons: DaemonWorld) -> Ran:
        epochs = Epochs(daemons)
        daemons.world.observe(epochs)
        await daemons.start_all()
        visitor = Visitor(daemons)
        with trio.fail_after(600.0):
            job = await visitor.hand_in(submission.spec, submission.blobs, submission.files)
            async with trio.open_nursery() as nursery:
                if meanwhile is not None:
                    nursery.start_soon(meanwhile, daemons, job)
                view = await visitor.see_through(job)
                nursery.cancel_scope.cancel()
            parts = await visitor.fetch(view)
        return Ran(view, parts, epochs, daemons.counts)

    return simulate(story, nodes=nodes, seed=seed, slots=1, pace=Pace(superstep_s=superstep_s))


@pytest.fixture(scope="module")
def plain(submission: Submission) -> Ran:
    return run(submission, nodes=1)


def supersteps(daemons: DaemonWorld, job: JobId) -> int:
    """How many are done, as far as the leader tells."""
    leader = leader_of(daemons, job)
    if leader is None:
        return 0
    views = [view for view in daemons.host_of(leader).house.jobs() if view.job == job]
    told = unpack_told(views[0].told) if views else None
    return 0 if told is None else told.supersteps


async def after(daemons: DaemonWorld, job: JobId, count: int) -> None:
    """Wait for so many supersteps, and a little of the next epoch."""
    while supersteps(daemons, job) < count:  # noqa: ASYNC110
        await trio.sleep(0.05)
    await trio.sleep(0.5)


def others(daemons: DaemonWorld, job: JobId) -> list[Seat]:
    leader = leader_of(daemons, job)
    return [seat for seat in daemons.world.live() if seat is not leader and seat.index]


def test_a_vertex_job_runs_in_epochs_and_comes_to_the_same_on_any_number_of_nodes(
    submission: Submission, plain: Ran
) -> None:
    assert plain.view.phase is Phase.DONE
    told = unpack_told(plain.view.told)
    assert told is not None
    assert told.supersteps >= ITERATIONS
    assert len(plain.epochs.meetings) == told.checkpoints >= 2
    assert plain.epochs.begun_anew == 0
    found = run(submission)
    assert found.parts == plain.parts
    assert len(found.epochs.machines) == 4


async def lose_the_leader(daemons: DaemonWorld, job: JobId) -> None:
    await after(daemons, job, 4)
    leader = leader_of(daemons, job)
    assert leader is not None
    daemons.world.crash(leader)


async def lose_another(daemons: DaemonWorld, job: JobId) -> None:
    await after(daemons, job, 4)
    daemons.world.power_off(others(daemons, job)[0])


async def lose_one_after_the_other(daemons: DaemonWorld, job: JobId) -> None:
    for count in (3, 10, 16):
        await after(daemons, job, count)
        seat = daemons.world.live()[-1]
        daemons.world.crash(seat)
        await trio.sleep(4.0)
        daemons.start(seat, Disk.KEPT)


async def crash_processes(daemons: DaemonWorld, job: JobId) -> None:
    await after(daemons, job, 3)
    daemons.crash_workers(others(daemons, job)[0], 1)


async def cut_one_off(daemons: DaemonWorld, job: JobId) -> None:
    await after(daemons, job, 3)
    seat = others(daemons, job)[0]
    cut = daemons.world.network.cut([seat], [other for other in daemons.world.seats if other is not seat])
    await trio.sleep(15.0)
    daemons.world.network.heal(cut)


@pytest.mark.parametrize(
    ("meanwhile", "again"),
    [
        (lose_the_leader, True),
        (lose_another, True),
        pytest.param(lose_one_after_the_other, True, marks=pytest.mark.deep),
        (crash_processes, True),
        pytest.param(cut_one_off, True, marks=pytest.mark.deep),
    ],
)
def test_whatever_is_lost_the_answer_is_the_same_and_what_is_decided_is_not_done_again(
    submission: Submission, plain: Ran, meanwhile: Meanwhile, again: bool
) -> None:
    found = run(submission, meanwhile)
    assert found.view.phase is Phase.DONE
    assert found.parts == plain.parts
    assert (found.epochs.begun_anew > 0) == again, "nothing was begun anew, or something was for no reason"


async def one_comes_later(daemons: DaemonWorld, job: JobId) -> None:
    await after(daemons, job, 1)
    daemons.start(daemons.world.add(), Disk.KEPT)


def test_who_comes_later_is_given_partitions_by_the_next_epoch(submission: Submission, plain: Ran) -> None:
    found = run(submission, one_comes_later, nodes=2, superstep_s=0.5)
    assert found.parts == plain.parts
    assert found.epochs.machines == {0, 1, 2}
    assert found.epochs.begun_anew == 0


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(40))
def test_many_losses_at_random(submission: Submission, plain: Ran, seed: int) -> None:
    async def break_things(daemons: DaemonWorld, job: JobId) -> None:
        random = daemons.world.random("breaking")
        while True:
            await trio.sleep(random.uniform(0.0, 8.0))
            seat = random.choice(daemons.world.live()[1:])
            random.choice((daemons.world.crash, daemons.world.power_off))(seat)
            await trio.sleep(random.uniform(0.5, 12.0))
            daemons.start(seat, Disk.KEPT)

    found = run(submission, break_things, seed=seed)
    assert found.view.phase is Phase.DONE
    assert found.parts == plain.parts
