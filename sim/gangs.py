"""Which meetings take place, in a walk over the cores of a job.

The processes of a gang get nowhere before all of them run at once. That is when they meet; each then says all that it
has to say, and ends by itself. One that has come, and is gone before they have met, is missed by all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2premap.tasks.events import RunBatch
from p2premap.tasks.meeting import Meeting

if TYPE_CHECKING:
    from p2premap.sim.jobwalk import Walk


class Gangs:
    """All gangs of a walk."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._came: dict[bytes, set[int]] = {}
        self._met: set[bytes] = set()

    def came(self, batch: RunBatch) -> None:
        """A batch is in a slot."""
        if batch.meeting is not None:
            self._came.setdefault(batch.meeting.id, set()).add(batch.meeting.seat)

    def goes_on(self, batch: RunBatch) -> bool:
        """Whether anything can become of the batch at the head of a slot."""
        if batch.meeting is None or self.has_met(batch):
            return True
        return not self._came[batch.meeting.id] <= self._there(batch.meeting, heads=False)

    def has_met(self, batch: RunBatch) -> bool:
        """Whether the process of this batch has met all the others."""
        meeting = batch.meeting
        assert meeting is not None, "it is one of a gang"
        if len(self._there(meeting, heads=True)) == len(meeting.seats):
            self._met.add(meeting.id)
        return meeting.id in self._met

    def _there(self, meeting: Meeting, *, heads: bool) -> set[int]:
        """Seats whose batch is at a living node, at the head of its slot or anywhere."""
        found = set()
        for node in self._walk.nodes:
            for queue in node.queues.values() if node.core is not None else ():
                for running in list(queue)[:1] if heads else queue:
                    other = running.batch.meeting
                    if other is not None and other.id == meeting.id:
                        found.add(other.seat)
        return found
