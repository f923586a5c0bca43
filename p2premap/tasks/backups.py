"""Stragglers: near the end of a stage, a task that takes far longer than the others runs a second time elsewhere.

Whichever attempt commits first counts, the other is stopped (MapReduce, 3.6: "backup tasks"). A task is a straggler
when nothing of its stage waits any more, three quarters of the stage are done, and its attempt has been out for more
than twice what nine of ten attempts took, and for `backup_s` at least. There are never more than `backups_max` at once,
so that a stage whose tasks are all slow is not run twice.

A node in doubt (stalled or suspected; `p2premap.gossip.verdicts`) may be so for long before it is dead or back, and
what it runs is not given up: it may be nearly done. So each of its tasks runs a second time at whoever has an idle slot
once nothing else of the stage waits, however many they are. (What only it holds: `p2premap.tasks.roster`.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Final

from p2premap.tasks.batches import Batch
from p2premap.tasks.handout import HandOut
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker

FACTOR: Final = 2.0
DONE_MIN: Final = 3
LOOK_S: Final = 0.25
_TRIED_MAX: Final = 64
"""Tasks of nodes in doubt that are looked at in one step: their inputs may be many."""


class Backups:
    """One job's backup attempts.

    Args:
        state: of the job.
        hand_out: gives them.
    """

    def __init__(self, state: JobState, hand_out: HandOut) -> None:
        self._state = state
        self._hand_out = hand_out
        self._look_at = math.inf

    def deadline(self) -> float:
        """When to look again."""
        return self._look_at

    def look(self, now: float) -> None:
        """Start backups of what nodes in doubt run, and of what has been out for too long."""
        if not self._state.locations.clear:
            self._look_at_doubted(now)
        run = self._state.runs[-1]
        if not self._near_end(run):
            self._look_at = math.inf
            return
        if self._look_at == math.inf:
            self._look_at = now + LOOK_S
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for task, batch in self._stragglers(now, run):
            if len(run.backups) >= self._state.config.backups_max:
                return
            worker = self._idle(run, task, batch)
            if worker is not None and self._hand_out.second(now, worker, run, task):
                self._state.backups += 1

    def _look_at_doubted(self, now: float) -> None:
        doubted = [worker for worker in self._state.workers.all.values() if worker.doubtful and not worker.lost]
        for task, batch in islice(self._out_at(doubted), _TRIED_MAX):
            run = self._state.by_id[batch.stage]
            worker = self._idle(run, task, batch)
            if worker is not None and self._hand_out.second(now, worker, run, task):
                self._state.backups += 1
            if not self._state.going_on:
                return

    def _out_at(self, doubted: list[Worker]) -> Iterator[tuple[int, Batch]]:
        """Tasks that run nowhere else, of stages of which nothing waits."""
        for worker in doubted:
            for batch in list(worker.batches.values()):
                run = self._state.by_id[batch.stage]
                if not (run.pending or run.abandoned or run.plan.together):
                    yield from ((task, b) for task, b in self._alone(run, batch) if task not in run.parked)

    def _alone(self, run: StageRun, batch: Batch) -> Iterator[tuple[int, Batch]]:
        for task in batch.tasks:
            elsewhere = task not in run.backups and task not in run.bound
            if run.out[task] == batch.number and elsewhere and not run.is_settled(task):
                yield task, batch

    def _near_end(self, run: StageRun) -> bool:
        total = run.tasks - run.absent
        if run.pending or run.parked or run.pinned or run.done == total or run.plan.together:
            return False
        return run.done >= DONE_MIN and 4 * run.done >= 3 * total

    def _stragglers(self, now: float, run: StageRun) -> Iterator[tuple[int, Batch]]:
        usual = run.sizer.usual_s()
        for worker in list(self._state.workers.all.values()):
            for batch in list(worker.batches.values()):
                patience = FACTOR * (usual + len(batch.tasks) * run.sizer.mean_s)
                if batch.stage == run.id and now - batch.sent > max(patience, self._state.config.backup_s):
                    yield from self._alone(run, batch)

    def _idle(self, run: StageRun, task: int, batch: Batch) -> Worker | None:
        """Another node with an idle slot."""
        avoided = run.avoid.get(task, {})
        for worker in self._state.workers.hungry(self._state.leader.node):
            if worker.node != batch.node and worker.node not in avoided and len(worker.batches) < worker.slots:
                return worker
        return None
