"""What a worker has reported, and keeps until the job's leader has heard it: the memory that outlives a leader.

A leader says that it has heard a report once the facts made of it are held by a quorum of the job's replicas. Until
then the report stays here, for the leader itself (a link may have lost it) and for its successor. A new leader knows
nothing of the former one's numbers, so the reports are numbered anew for it. A fork of the job takes them over in the
same way, under its own name.

What it may cost is bounded for the node as a whole (`unheard_bytes_max`). Beyond that a job with anything unheard
gets no new batch here, which stops the growth by all but what the slots still have: a leader that works confirms
within a round trip, so this is about jobs that nobody leads. Beyond twice as much the oldest results lose their
values: such an attempt is told as REFUSED, and its task runs again. Results that are blobs stay: they are on disk, and
only their digests are kept here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Set

from msgspec.structs import replace

from p2premap.ids import Ballot, JobId
from p2premap.tasks import messages
from p2premap.tasks.job import AttemptEnd, Outcome, StageId

END_BYTES = 256
"""What an end costs here at least, in bytes: the object itself."""


class Unheard:
    """The reports of one job.

    Args:
        serial: the number of the last report so far.
    """

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.size = 0
        """What it costs, in bytes."""
        self._reports: deque[messages.AttemptsEnded] = deque()
        self._ended: dict[StageId, set[tuple[int, int]]] = {}
        """What `ended` has been asked about since something was heard."""
        self._let_go = 0

    def __bool__(self) -> bool:
        return bool(self._reports)

    def __iter__(self) -> Iterator[messages.AttemptsEnded]:
        return iter(self._reports)

    def keep(self, report: messages.AttemptsEnded) -> None:
        """Keep the report of this `serial`."""
        self._reports.append(report)
        if (ended := self._ended.get(report.stage)) is not None:
            ended.update((end.task, end.attempt) for end in report.ends)
        self.size += _cost(report.ends)

    def heard(self, serial: int) -> None:
        """The leader has every report up to this number."""
        while self._reports and self._reports[0].serial <= serial:
            self.size -= _cost(self._reports.popleft().ends)
            self._let_go = max(0, self._let_go - 1)
            self._ended.clear()

    def renumber(self, job: JobId, ballot: Ballot, heard: int) -> None:
        """The job, or the fork that it is now, has a new leader: one which has heard reports up to this number."""
        self.serial = heard
        self._reports = deque(replace(r, job=job, ballot=ballot, serial=self._next(), answers=0) for r in self._reports)

    def clear(self) -> None:
        """Nobody wants them any more."""
        self._reports.clear()
        self._ended.clear()
        self.size = self._let_go = 0

    def pairs(self) -> Iterator[tuple[StageId, int, int]]:
        """(stage, task, attempt) of each end."""
        return ((report.stage, end.task, end.attempt) for report in self._reports for end in report.ends)

    def ended(self, stage: StageId) -> Set[tuple[int, int]]:
        """(task, attempt) of each end of the stage. Asked for each order, while reports may be many."""
        ended = self._ended.get(stage)
        if ended is None:
            ended = self._ended[stage] = {(task, attempt) for of, task, attempt in self.pairs() if of == stage}
        return ended

    def let_go_values(self, spare: int) -> None:
        """Let values go, the oldest first, until so many bytes are saved or none is left."""
        while spare > 0 and self._let_go < len(self._reports):
            report = self._reports[self._let_go]
            lean = replace(report, ends=tuple(_without_value(end) for end in report.ends))
            saved = _cost(report.ends) - _cost(lean.ends)
            self._reports[self._let_go] = lean
            self._let_go += 1
            self.size -= saved
            spare -= saved

    def _next(self) -> int:
        self.serial += 1
        return self.serial


def _cost(ends: Iterable[AttemptEnd]) -> int:
    return sum(
        END_BYTES + len(e.value) + len(e.error) + len(e.detail) + 128 * len(e.blobs) + 64 * len(e.missing) for e in ends
    )


def _without_value(end: AttemptEnd) -> AttemptEnd:
    if end.outcome is Outcome.DONE and len(end.value) > END_BYTES:
        text = "its result was let go, since nobody who leads the job has asked for it"
        return AttemptEnd(task=end.task, attempt=end.attempt, outcome=Outcome.REFUSED, error=text)
    return replace(end, detail="") if end.detail else end
