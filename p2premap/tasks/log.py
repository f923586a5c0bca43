"""What a leader writes down, and what waits until a quorum of the job's replicas has it.

Each step's facts are one batch (`p2premap.tasks.journal`), numbered 1, 2, 3... by this leader. Three things wait for
a batch to be protected, since they would be lies if the leader died before:

- a worker is told that its report was heard: until then it keeps the report for a successor;
- whoever hands in an extension is told that it was taken;
- a stage's manifest is proposed.

Whoever waits for single tasks is told at once how they ended: what somebody has in hand a leader's death cannot take
back, and who has it listens to no second answer.

Where somebody waits for single tasks, steps come by the thousand: facts are then written down every
`facts_linger_s` at most, many together.

Results that are not protected yet are the only finished work that the leader's death can cost.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from p2premap.ids import JobId, NodeId
from p2premap.tasks import journal
from p2premap.tasks.events import AppendFacts, CoordinatorEffect, Extended, TasksEnded
from p2premap.tasks.job import AttemptEnd, Outcome, StageId
from p2premap.tasks.workers import Worker

BATCH_BYTES: Final = 1 << 20
"""What has come to this size is put off no longer: a batch has to fit into a frame."""


class Report(NamedTuple):
    """A worker's report: its number, and how often the worker had been lost when it came."""

    worker: Worker
    losses: int
    serial: int


class Unprotected(msgspec.Struct):
    """What waits for one batch.

    Args:
        since: when it was written.
        results: how many it has, second holders of such counted as well.
        told: said as soon as it is protected.
        reports: of which it is made.
    """

    serial: int = 0
    since: float = 0.0
    results: int = 0
    told: list[CoordinatorEffect] = msgspec.field(default_factory=list)
    reports: list[Report] = msgspec.field(default_factory=list)


class Log:
    """One leader's facts.

    Args:
        job: whose.
        streams: ends of tasks are told to whoever waits for them.
        linger_s: facts are written down this often at most.
    """

    def __init__(self, job: JobId, *, streams: bool, linger_s: float = 0.0) -> None:
        self._job = job
        self._streams = streams
        self._linger_s = linger_s if streams else 0.0
        self._facts: list[journal.Fact] = []
        self._now = Unprotected()
        self._ended: list[CoordinatorEffect] = []
        self._waiting: deque[Unprotected] = deque()
        self._size = self._written = 0
        self._due = -math.inf
        self.protected = 0
        """The last batch that a quorum has."""
        self.unprotected = 0
        """Results, and second holders of results, that no quorum knows of."""

    @property
    def next(self) -> int:
        """The number of the batch that is being written."""
        return self._written + 1

    def oldest(self) -> float | None:
        """When the oldest results that no quorum has were written, or became known."""
        return next((waiting.since for waiting in (*self._waiting, self._now) if waiting.results), None)

    def deadline(self) -> float:
        """When what was put off must be written."""
        return self._due if self._facts else math.inf

    # --- what is written ------------------------------------------------------------------------------------------

    def add(self, fact: journal.Fact) -> None:
        """Write a fact down."""
        self._facts.append(fact)

    def results(self, stage: StageId, node: NodeId, ends: Sequence[AttemptEnd]) -> None:
        """Write down that these attempts yielded results, as yet unknown."""
        results = journal.results(stage, node, ends)
        self._facts.append(results)
        self._size += len(results.value) + len(results.blobs)
        self._count(len(ends))

    def held(self, fact: journal.Held) -> None:
        """Write down that a result has another holder: until a quorum knows, a successor would count on the first."""
        self._facts.append(fact)
        self._count(1)

    def _count(self, results: int) -> None:
        self._now.results += results
        self.unprotected += results

    def ended(self, stage: StageId, node: NodeId, ends: Sequence[AttemptEnd]) -> None:
        """These ends are their tasks' answers. What was printed on the way is the ledger's (`p2premap.tasks.words`)."""
        if self._streams:
            told = tuple([_without_words(end) if end.detail else end for end in ends])
            self._ended.append(TasksEnded(job=self._job, stage=stage, node=node, ends=told))

    def extended(self, payload: bytes, answer: Extended | None) -> None:
        """Write down an extension; None: nobody waits for an answer."""
        self._facts.append(journal.Extended(payload=payload))
        self._size += len(payload)
        if answer is not None:
            self._now.told.append(answer)

    def reported(self, worker: Worker, serial: int) -> None:
        """This step takes in a worker's report."""
        self._now.reports.append(Report(worker, worker.losses, serial))

    def clear(self) -> None:
        """Nothing of what was taken in so far need be written down: it was read."""
        self._facts, self._now, self._ended, self._size = [], Unprotected(), [], 0

    # --- how it goes out ------------------------------------------------------------------------------------------

    def flush(self, now: float, age_s: float) -> list[CoordinatorEffect]:
        """End the step: the batch to replicate, if there is one and it is time, and what need not wait."""
        ended, self._ended = self._ended, []
        if self._facts and now < self._due and self._size < BATCH_BYTES:
            self._now.since = self._now.since or now
            return ended
        step, self._now = self._now, Unprotected()
        if not self._facts:
            if not self._waiting:
                return [*ended, *self._release(step)]
            self._waiting[-1].told += step.told
            self._waiting[-1].reports += step.reports
            return ended
        batch = journal.encode(max(0.0, age_s), self._facts)
        self._facts, self._size = [], 0
        self._written += 1
        step.serial, step.since = self._written, step.since or now
        self._due = now + self._linger_s
        self._waiting.append(step)
        return [*ended, AppendFacts(job=self._job, batch=batch)]

    def protect(self, serial: int) -> list[CoordinatorEffect]:
        """A quorum has everything up to this batch; what may be told now."""
        self.protected = max(self.protected, min(serial, self._written))
        effects: list[CoordinatorEffect] = []
        while self._waiting and self._waiting[0].serial <= self.protected:
            step = self._waiting.popleft()
            self.unprotected -= step.results
            effects += self._release(step)
        return effects

    def _release(self, step: Unprotected) -> list[CoordinatorEffect]:
        for worker, losses, serial in step.reports:
            if worker.losses == losses:
                worker.heard = max(worker.heard, serial)
        return step.told


def _without_words(end: AttemptEnd) -> AttemptEnd:
    return msgspec.structs.replace(end, detail="") if end.outcome is Outcome.DONE else end
