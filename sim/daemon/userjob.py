"""A user's own job in a virtual cluster under faults: what would happen, and whether the answer is the same.

The job file's functions run for real, on real bytes; machines, network, disks and time are virtual. The plain run is
the same job on one virtual node to which nothing happens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import msgspec
import trio

from p2premap.client.bundle import kind_of
from p2premap.client.graphs import plan as plan_vertices
from p2premap.client.plan import plan_mapreduce
from p2premap.client.planning import Asked
from p2premap.client.submission import Submission
from p2premap.errors import ConfigError
from p2premap.sim.daemon.diary import Diary
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.slots import Pace
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.jobwishes import JobStory, JobWishes
from p2premap.sim.machines import Seat
from p2premap.sim.network import NetworkConfig
from p2premap.tasks.job import JobView, Phase
from p2premap.tasks.mapreduce import KIND as MAPREDUCE
from p2premap.vertex.plan import KIND as VERTEX

LOOK_S: Final = 0.02
END_S: Final = 3_600.0
"""A job that has not ended by then never will."""


def tell(wishes: JobWishes, progress: Callable[[str], None] = lambda _: None) -> JobStory:
    """Plan the job, run it plainly, then under faults.

    Raises:
        ConfigError: jobs of this kind are not simulated.
        JobRejected: the job file or an input is not usable.
        InvariantBroken: something that must hold did not.
    """
    progress("planning the job")
    submission = _plan(wishes)
    pace = Pace(task_s=wishes.task_s)
    progress("the plain run")
    plain = simulate(_Plain(submission).run, nodes=1, seed=wishes.seed, slots=wishes.slots, pace=pace)
    story = JobStory(wishes=wishes, plain_s=plain.seconds, tasks=submission.tasks)
    progress("the run with faults")
    simulate(
        _Faulty(submission, wishes, story, plain.parts).run,
        nodes=wishes.nodes,
        seed=wishes.seed,
        slots=wishes.slots,
        network=NetworkConfig(loss=wishes.loss / 100),
        pace=pace,
        replay=wishes.command(),
    )
    return story


def _plan(wishes: JobWishes) -> Submission:
    """The job as `p2premap run` would submit it, but for its key, which the seed decides."""
    slots = wishes.nodes * wishes.slots
    kind = kind_of(wishes.job)
    if kind not in (VERTEX, MAPREDUCE):
        raise ConfigError(
            f"{wishes.job} is a job of kind {kind}; map/reduce jobs and vertex programs can be simulated."
        )
    if kind == VERTEX:
        given = {"seed": str(wishes.seed)}
        planned = plan_vertices(Asked(file=wishes.job, inputs=wishes.inputs, slots=slots, given=given))
    else:
        planned = plan_mapreduce(wishes.job, wishes.inputs, slots=slots)
    key = Random(wishes.seed).randbytes(len(planned.spec.submission_key))
    # what it requires is installed here, or the job file could not run; virtual nodes have nothing installed
    options = msgspec.structs.replace(planned.spec.options, requires=())
    return replace(planned, spec=msgspec.structs.replace(planned.spec, submission_key=key, options=options))


@dataclass(frozen=True, slots=True)
class _Answer:
    parts: Mapping[int, bytes]
    seconds: float


class _Plain:
    """The job on one node, to which nothing happens."""

    def __init__(self, submission: Submission) -> None:
        self._submission = submission

    async def run(self, daemons: DaemonWorld) -> _Answer:
        """See the class."""
        await daemons.start_all()
        visitor = Visitor(daemons)
        began = trio.current_time()
        job = await visitor.hand_in(self._submission.spec, self._submission.blobs, self._submission.files)
        view = await visitor.see_through(job)
        return _Answer(await visitor.fetch(view), trio.current_time() - began)


class _Faulty:
    """The job among faults."""

    def __init__(self, submission: Submission, wishes: JobWishes, story: JobStory, plain: Mapping[int, bytes]) -> None:
        self._submission = submission
        self._wishes = wishes
        self._story = story
        self._plain = plain
        self._daemons: DaemonWorld
        self._diary: Diary
        self._random: Random

    async def run(self, daemons: DaemonWorld) -> None:
        """See the class."""
        self._daemons, self._random = daemons, daemons.world.random("faults")
        diary = self._diary = daemons.diary = Diary(daemons.world)
        await daemons.start_all()
        name = os.path.basename(self._wishes.job)
        diary.note(f"{self._wishes.nodes} nodes know each other")
        visitor = Visitor(daemons)
        job = await visitor.hand_in(self._submission.spec, self._submission.blobs, self._submission.files)
        diary.job = job
        host = daemons.world.seats[0]
        first = f"{self._submission.tasks} tasks to begin with, {self._submission.bytes_in} bytes"
        diary.note(f"{host.name} has taken {name}: {first}")
        with trio.move_on_after(END_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._break)
                view = await visitor.see_through(job)
                diary.note(f"the job is {view.phase.value}")
                nursery.cancel_scope.cancel()
            parts = await visitor.fetch(view) if view.phase is Phase.DONE else {}
            self._sum_up(view, parts)
            return
        raise daemons.world.broken("ends", f"the job does not end: {diary.view}")

    async def _break(self) -> None:
        """Whoever is to go goes when some part of the work is done."""
        losses = ["leader"] * self._wishes.kill_leader + ["other"] * self._wishes.kill
        self._random.shuffle(losses)
        for number, whom in enumerate(losses):
            share = (number + self._random.uniform(0.3, 0.9)) / (len(losses) + 0.5)
            await self._until_done(share)
            seat = await self._whom(whom)
            self._daemons.world.power_off(seat)
            role = "which leads the job, " if whom == "leader" else ""
            self._diary.note(f"{seat.name}, {role}loses power")
            if whom == "leader":
                await self._take_over(seat)

    async def _until_done(self, share: float) -> None:
        """Until this part of all tasks is done, and somebody leads."""
        while True:
            view = self._diary.view
            if view is not None and view.stages:
                total = max(self._story.tasks + self._reduces(view), 1)
                if sum(stage.done for stage in view.stages) >= share * total:
                    return
            await trio.sleep(LOOK_S)

    def _reduces(self, view: JobView) -> int:
        return sum(stage.tasks for stage in view.stages[1:]) or len(self._plain)

    async def _whom(self, whom: str) -> Seat:
        while True:
            live = self._daemons.world.live()
            led = self._diary.leaders[-1] if self._diary.leaders else None
            leader = led.seat if led is not None and led.ended is None else None
            found = [seat for seat in live if (seat.index == leader) == (whom == "leader")]
            if found and leader is not None:
                return self._random.choice(found)
            await trio.sleep(LOOK_S)

    async def _take_over(self, gone: Seat) -> None:
        """Measure until another one leads."""
        since, before = trio.current_time(), len(self._diary.leaders)
        while len(self._diary.leaders) == before:  # noqa: ASYNC110  (a diary has no event)
            await trio.sleep(LOOK_S)
        self._story.takeover_s.append(trio.current_time() - since)

    def _sum_up(self, view: JobView, parts: Mapping[int, bytes]) -> None:
        story, daemons, diary = self._story, self._daemons, self._diary
        names = [seat.name for seat in daemons.world.seats]
        story.deeds, story.timeline = diary.deeds, diary.text(names)
        story.svg = diary.svg(names, self._wishes.command())
        story.phase, story.error = view.phase.value, view.error
        story.takeovers = view.takeovers
        story.lost = daemons.ledgers.counts["redone for lost bytes"]
        story.repeated = sum(times - 1 for times in daemons.runs.values())
        story.tasks = len(daemons.runs)
        story.same = dict(parts) == dict(self._plain)
        story.parts, story.size = len(parts), sum(map(len, parts.values()))
        story.virtual_s = trio.current_time()
        story.trace = daemons.world.trace.digest()
