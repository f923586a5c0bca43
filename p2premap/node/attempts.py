"""What has run on this node's slots lately, and when: for whoever follows it (`p2premap.node.desk_follow`).

A worker process tells how long an attempt took, together with the attempts before it: when each of them began is
worked out backwards from the report. It costs a tuple an attempt, or one a report where attempts are very short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from p2premap.ids import JobId
from p2premap.tasks.events import RunBatch, SlotReported
from p2premap.tasks.job import AttemptEnd, Outcome

KEPT_MAX: Final = 2_000
ONE_BY_ONE_MAX: Final = 16
"""Of one report; more results are told as one."""


class Ended(NamedTuple):
    """An attempt that has ended, or several short ones of a batch. Instants are by the node's clock."""

    slot: int
    job: JobId
    stage: int
    task: int
    attempt: int
    began: float
    ended: float
    outcome: Outcome
    error: str
    fetch_s: float
    tasks: int
    spill_s: float


class _Batch(NamedTuple):
    job: JobId
    stage: int
    given: float


class Attempts:
    """One node's.

    Args:
        clock: as of `Ended`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._batches: dict[int, _Batch] = {}
        self._rested: dict[int, float] = {}
        """When each slot last had nothing under way."""
        self._ended: deque[Ended] = deque(maxlen=KEPT_MAX)
        self._count = 0

    def hear(self, event: RunBatch | SlotReported) -> None:
        """A slot was given a batch, or tells how attempts of it ended."""
        if isinstance(event, RunBatch):
            self._batches[event.batch] = _Batch(event.job, event.stage.number, self._clock())
        elif (batch := self._batches.get(event.batch)) is not None:
            if event.ends:
                self._take(event, batch)
            if event.batch_over:
                del self._batches[event.batch]

    def since(self, number: int) -> tuple[list[Ended], int]:
        """What ended since this many had; and how many of it are forgotten already."""
        new = self._count - number
        kept = min(new, len(self._ended))
        return [self._ended[index] for index in range(len(self._ended) - kept, len(self._ended))], new - kept

    @property
    def count(self) -> int:
        """How many have ended so far."""
        return self._count

    def _take(self, event: SlotReported, batch: _Batch) -> None:
        now = self._clock()
        rested = self._rested.get(event.slot, 0.0)
        began = max(now - sum(end.seconds for end in event.ends), rested)
        waited = max(0.0, began - max(batch.given, rested))
        if len(event.ends) > ONE_BY_ONE_MAX:
            done = [end for end in event.ends if end.outcome is Outcome.DONE]
            if done:
                self._add(event.slot, batch, done[0], began, now, waited, done)
            rest = [end for end in event.ends if end.outcome is not Outcome.DONE][-ONE_BY_ONE_MAX:]
        else:
            rest = list(event.ends)
        at = now
        for end in reversed(rest):
            start = max(began, at - end.seconds)
            self._add(event.slot, batch, end, start, at, waited if end is rest[0] else 0.0, (end,))
            at = start
        self._rested[event.slot] = now

    def _add(
        self,
        slot: int,
        batch: _Batch,
        end: AttemptEnd,
        began: float,
        ended: float,
        fetch_s: float,
        told: Sequence[AttemptEnd],
    ) -> None:
        """One of these stands for all of them."""
        self._count += 1
        self._ended.append(
            Ended(
                slot=slot,
                job=batch.job,
                stage=batch.stage,
                task=end.task,
                attempt=end.attempt,
                began=began,
                ended=ended,
                outcome=end.outcome,
                error=end.error[:255],
                fetch_s=fetch_s,
                tasks=len(told),
                spill_s=sum(one.spill.seconds for one in told if one.spill is not None),
            )
        )
