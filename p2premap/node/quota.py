"""What a node keeps of jobs that are over, within the limit that its owner gave it.

What was written longest ago goes first: the results of the job that ended longest ago. What the limit does not touch:

- anything of a job that goes on: code, plans, copies of inputs, and whatever is younger than the oldest such job of the
  cluster, as nobody can tell in time which of a node's blobs a job will ask for;
- code and plans of jobs that are still listed: small, and `restart` needs them;
- what is younger than `FRESH_S`: whoever waited for a job may just be fetching its output.

So a node may hold more than its limit for a while, and `status` says so; it takes results all the same, as the jobs
would stand still else.
"""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from p2premap.ids import Digest, JobId
from p2premap.node.blobs import StoreUsage
from p2premap.node.desk import RequestError
from p2premap.node.desk_ask import Itself, oldest_running_s

if TYPE_CHECKING:
    from p2premap.node.house import House

LOOK_S: Final = 5.0
COST: Final = 100
"""Between two looks lies at least so many times what one takes."""
FRESH_S: Final = 600.0

log = logging.getLogger(__name__)


class Quota:
    """One node's.

    Args:
        house: the node.
        bytes_max: of all blobs; 0: no limit, and nobody looks.
        look_s, fresh_s: see there.

    Attributes:
        used: as of the last look.
    """

    def __init__(self, house: House, bytes_max: int, *, look_s: float = LOOK_S, fresh_s: float = FRESH_S) -> None:
        self._house = house
        self.bytes_max = bytes_max
        self._look_s, self._fresh_s = look_s, fresh_s
        self.used = StoreUsage(0, 0)

    async def run(self) -> None:
        """Look again and again, where there is a limit; first when the other members have been met."""
        if not self.bytes_max:
            return
        while True:
            await trio.sleep(self._look_s)
            began = time.monotonic()
            try:
                await self.look()
            except OSError as error:
                self._house.warnings.add(f"Old results cannot be removed: {error.strerror}.")
            await trio.sleep(COST * (time.monotonic() - began))

    async def look(self) -> None:
        """Once."""
        house = self._house
        self.used = await trio.to_thread.run_sync(partial(house.blobs.sweep, older_s=math.inf))
        if self.used.bytes <= self.bytes_max:
            return
        try:
            oldest = await oldest_running_s(Itself(house))
        except RequestError as error:  # a member is silent: a job that it leads may need anything
            log.info("nothing is removed now: %s", error)
            return
        keep = house.core.jobs.blobs_in_use() | house.bringer.blobs_in_use() | self._listed()
        older_s = max(oldest, self._fresh_s)
        shrink = partial(house.blobs.shrink, bytes_max=self.bytes_max, older_s=older_s, keep=keep)
        self.used = await trio.to_thread.run_sync(shrink)

    def _listed(self) -> set[Digest]:
        jobs = self._house.core.jobs
        charters = (jobs.submitted(JobId(view.job)) for view in self._house.jobs())
        return {blob.digest for charter in charters if charter is not None for blob in charter.spec.blobs()}
