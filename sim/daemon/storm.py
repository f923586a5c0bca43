"""Whole daemons under every fault that one clock allows: jobs come, anything breaks, all is repaired, all must end."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

import trio

from p2premap.ids import JobId
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.strikes import KINDS, Striker, draw
from p2premap.sim.workloads import Shape, digest_of, spec_of
from p2premap.tasks.job import JobOptions, JobView, Phase

SAFETY_S: Final = 20.0
LIVENESS_S: Final = 150.0
EVERY_S: Final = 2.0
DOWN_MAX: Final = 2

STORM_KINDS: Final = tuple(kind for kind in KINDS if kind not in ("sleep", "jump", "slow disk"))
"""All nodes share one clock here, and a thread's turn takes the same time on every disk."""


def storm(seed: int, *, nodes: int = 5, jobs: int = 2) -> Counter[str]:
    """One seed; what happened, by name.

    Raises:
        InvariantBroken: by the checker's name.
    """
    story = _Storm(seed, jobs)
    simulate(story.run, nodes=nodes, seed=seed, replay=f"p2premap.sim.daemon.storm.storm({seed}, nodes={nodes})")
    return story.counts


class _Storm:
    """See `storm`."""

    def __init__(self, seed: int, jobs: int) -> None:
        self.counts: Counter[str] = Counter()
        self._strikes = draw(Random(f"{seed}/storm"), seconds=SAFETY_S, every_s=EVERY_S, kinds=STORM_KINDS)
        self._jobs = jobs
        self._daemons: DaemonWorld
        self._accepted: list[JobId] = []

    async def run(self, daemons: DaemonWorld) -> None:
        """Both phases."""
        self._daemons = daemons
        await daemons.start_all()
        striker = Striker(daemons, self._strikes, down_max=DOWN_MAX)
        limit = trio.CancelScope(deadline=trio.current_time() + SAFETY_S + LIVENESS_S)
        with limit:
            async with trio.open_nursery() as nursery:
                for number in range(self._jobs):
                    nursery.start_soon(self._customer, number)
                await trio.sleep(SAFETY_S)
                striker.end()
        if limit.cancelled_caught:
            views = [daemons.shown.last.get(job) for job in self._accepted]
            raise daemons.world.broken("ends", f"{len(self._accepted)} jobs were taken, and not all ended: {views}")
        self.counts.update(striker.counts)
        self.counts.update(daemons.ledgers.counts)

    async def _customer(self, number: int) -> None:
        daemons = self._daemons
        random = daemons.world.random("customer", number)
        await trio.sleep(random.uniform(0.0, SAFETY_S / 2))
        shape = Shape(
            maps=random.randint(5, 40),
            reduces=random.choice((0, 1, 4)),
            map_s=random.choice((0.1, 0.5, 1.0)),
            reduce_s=0.3,
            steady=random.random() < 0.5,
            inline=random.random() < 0.4,
        )
        options = JobOptions(strict=random.random() < 0.5, attempts_max=10_000)
        places = list(range(len(daemons.world.seats)))
        random.shuffle(places)
        visitor = Visitor(daemons, at=places)
        plan = shape.encode()
        blobs = [(digest_of(b"code"), b"code"), (digest_of(plan), plan)]
        job = await visitor.hand_in(spec_of(shape, key=b"job %d" % number, options=options), blobs)
        self._accepted.append(job)
        view = await self._see_through(visitor, job)
        if view is None:
            self.counts["excused"] += 1
            return
        self._check(shape, view)
        self.counts["ended"] += 1
        self.counts["moved"] += visitor.moves

    async def _see_through(self, visitor: Visitor, job: JobId) -> JobView | None:
        """Its last view; None where the disks of a quorum of its replicas are lost."""
        seen: list[JobView] = []

        async def watch() -> None:
            seen.append(await visitor.see_through(job))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            while not self._daemons.ledgers.excused(job):  # noqa: ASYNC110  (disks have no events)
                await trio.sleep(1.0)
            nursery.cancel_scope.cancel()
        return seen[0] if seen else None

    def _check(self, shape: Shape, view: JobView) -> None:
        if view.phase is not Phase.DONE:
            raise self._daemons.world.broken("ends well", f"a job ended as {view.phase.value}: {view.error}")
        numbers = [part.number for part in view.parts]
        if not shape.inline and numbers != list(range(shape.reduces or shape.maps)):
            raise self._daemons.world.broken("parts", f"the parts are {numbers}")
