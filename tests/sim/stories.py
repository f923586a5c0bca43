"""Stories for whole daemons in a virtual world, and what tests ask of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from p2premap.ids import JobId
from p2premap.sim.daemon.houses import DaemonWorld
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.machines import Seat
from p2premap.sim.workloads import Shape, digest_of, spec_of
from p2premap.tasks.job import JobOptions, JobView

SHAPE = Shape(maps=24, reduces=4, map_s=0.3, reduce_s=0.3)


async def hand_in(
    visitor: Visitor, shape: Shape = SHAPE, *, key: bytes = b"job", options: JobOptions | None = None
) -> JobId:
    """Submit a shape."""
    plan = shape.encode()
    blobs = [(digest_of(b"code"), b"code"), (digest_of(plan), plan)]
    return await visitor.hand_in(spec_of(shape, key=key, options=options), blobs)


async def run_job(
    daemons: DaemonWorld,
    meanwhile: Callable[[JobId], Awaitable[None]] | None = None,
    *,
    shape: Shape = SHAPE,
    options: JobOptions | None = None,
) -> tuple[JobView, Visitor]:
    """A job from its submission to the bytes of its parts, while something happens."""
    visitor = Visitor(daemons)
    with trio.fail_after(300.0):
        job = await hand_in(visitor, shape, options=options)
        async with trio.open_nursery() as nursery:
            if meanwhile is not None:
                nursery.start_soon(meanwhile, job)
            view = await visitor.see_through(job)
            nursery.cancel_scope.cancel()
        parts = {} if shape.inline else await visitor.fetch(view)
    if not shape.inline:
        assert sorted(parts) == list(range(shape.reduces or shape.maps))
    return view, visitor


def leader_of(daemons: DaemonWorld, job: JobId) -> Seat | None:
    """Who leads it, as it believes itself."""
    live = [seat for seat in daemons.world.live() if daemons.host_of(seat).serves]
    return next((seat for seat in live if daemons.host_of(seat).house.core.jobs.leads(job)), None)
