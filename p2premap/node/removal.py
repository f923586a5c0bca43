"""A job that is over goes, with its results and its logs, wherever they are: because somebody has no use for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from p2premap.control.answers import Done
from p2premap.control.web import RemoveJob
from p2premap.ids import Digest, JobId
from p2premap.node.desk_ask import PASSED_ON, Asker, Itself, ask_all
from p2premap.node.logs import remove_logs
from p2premap.tasks.job import JobView

if TYPE_CHECKING:
    from p2premap.node.house import House

CONCLUDED_S: Final = 2.0
"""Until every replica that lives has heard that a job is concluded."""


async def remove_everywhere(asker: Asker, job: JobId) -> bool:
    """At every node that answers; on others it goes with what is old. Whether it could be: see `remove_here`."""
    answers = await ask_all(asker, RemoveJob(request=PASSED_ON, job=job), Done)
    here = await remove_here(asker.house, job)
    return here and all(done.changed for done in answers.given)


async def remove_here(house: House, job: JobId) -> bool:
    """What this node has of a job that is over goes, but for what other jobs need.

    Returns:
        False: nothing went, as it is not concluded here: it goes on, or its end is being told.
    """
    views = house.jobs()
    gone = [view for view in views if view.job == job and view.phase.over]
    if house.core.jobs.charter(job) is not None:
        return False
    kept = _blobs(view for view in views if view.job != job)
    house.bringer.remove(_blobs(gone) - kept)
    await trio.to_thread.run_sync(partial(remove_logs, house.executor.logs, job))
    house.orders.forget(job)
    house.bulletin.forget(job)
    return True


def _blobs(views: Iterable[JobView]) -> set[Digest]:
    return {Digest(part.source.blob) for view in views for part in view.parts if part.source.blob is not None}


class Remover:
    """Removes jobs of which a callback's receiver has taken everything.

    Args:
        house: the node.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._jobs: list[JobId] = []
        self._wake = trio.Event()

    def put(self, job: JobId) -> None:
        """It is about to be concluded; then it goes."""
        self._jobs.append(job)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(CONCLUDED_S)
            jobs, self._jobs = self._jobs, []
            for job in jobs:
                await remove_everywhere(Itself(self._house), job)
