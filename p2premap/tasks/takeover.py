"""A new leader finds out what its predecessor had given out, before it gives out anything itself.

What was finished and protected is in the history (`p2premap.tasks.replay`). What was running runs on: workers do not
stop for a leader's death. So the new leader asks every node that it sees for a census; `Holding` names the attempts
that run there, which are *adopted*: out at that node, under the numbers that the former leader gave them. Reports that
nobody had confirmed follow, and are taken as usual. Nothing is handed out before all nodes have answered, or
`gather_s` has passed. A node that is seen for the first time after that is asked too; what runs there and has been
given to another meanwhile is stopped.

A worker may speak of a stage that this leader has not planned yet: its manifest was decided, but the decision is only
being read again from the replicas. Such words are put aside until the stage is planned, and not confirmed until then.

Holders of results that nobody has seen since are taken for dead, as if they had been lost under this leader's eyes.
"""

from __future__ import annotations

import math
from array import array
from typing import Final, NamedTuple

from p2premap.ids import NodeId
from p2premap.tasks import messages
from p2premap.tasks.batches import Batch
from p2premap.tasks.job import StageId
from p2premap.tasks.roster import Roster
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker

GATHER_S_MIN: Final = 0.005
"""The nodes of the cluster are named one after the other: let this much time pass for it."""

EARLY_MAX: Final = 10_000


class _Early(NamedTuple):
    """What a worker said of a stage that is not planned here yet."""

    worker: Worker
    losses: int
    message: messages.AttemptsEnded | messages.Holding


class Takeover:
    """See the module.

    Args:
        state: of the job.
        roster: to ask.
        now: when this leader began; None where it is the first one.
    """

    def __init__(self, state: JobState, roster: Roster, now: float | None) -> None:
        self._state = state
        self._roster = roster
        self._taken_over = now is not None
        self.gathering = self._taken_over
        self._soonest = math.inf if now is None else now + GATHER_S_MIN
        self._until = math.inf if now is None else now + state.config.gather_s
        self._asked: set[NodeId] = set()
        self._early: list[_Early] = []

    def deadline(self) -> float:
        """When there may be no more to wait for."""
        if not self.gathering:
            return math.inf
        return self._until if self._asked else self._soonest

    def seen(self, now: float, worker: Worker) -> None:
        """A node is seen: what does it have of the job?"""
        if not self._taken_over or worker.touched:
            return
        worker.touched = worker.census = True
        if self.gathering:
            self._asked.add(worker.node)
        self._roster.recount(now, worker)
        worker.owes = worker.recounts

    def lost(self, node: NodeId) -> None:
        """A node is dead: it will not answer."""
        self._asked.discard(node)

    def holding(self, now: float, worker: Worker, message: messages.Holding) -> None:
        """A node says what runs there."""
        self._asked.discard(worker.node)
        if not worker.census or worker.lost:
            return
        worker.census = False
        stopped = self._adopt(now, worker, message)
        if not stopped and self._state.cancelling is None:
            worker.owes = 0

    def early(self, worker: Worker, message: messages.AttemptsEnded | messages.Holding) -> bool:
        """Put aside what is said of a stage that may still come. False: it will not."""
        stages = (s for s, _ in message.running) if isinstance(message, messages.Holding) else (message.stage,)
        if not any(self._may_come(stage) for stage in stages) or len(self._early) >= EARLY_MAX:
            return False
        self._early.append(_Early(worker, worker.losses, message))
        return True

    def check(self, now: float) -> None:
        """Go on as soon as everybody has answered, or has had the time to."""
        if self.gathering and (now >= self._until or (now >= self._soonest and not self._asked)):
            self.gathering = False
            self._asked.clear()
            self._write_off()

    def take_early(self) -> list[tuple[NodeId, messages.AttemptsEnded | messages.Holding]]:
        """What was put aside and can be taken now: a stage has been planned, or it will never be."""
        ripe: list[tuple[NodeId, messages.AttemptsEnded | messages.Holding]] = []
        kept: list[_Early] = []
        for early in self._early:
            worker, losses, message = early
            if worker.losses != losses:
                continue
            stages = [s for s, _ in message.running] if isinstance(message, messages.Holding) else [message.stage]
            if any(self._may_come(stage) for stage in stages):
                kept.append(early)
            else:
                ripe.append((worker.node, message))
        self._early = kept
        waiting = {early.worker.node for early in kept}
        for node, _ in ripe:
            worker = self._state.workers.all[node]
            if worker.early and node not in waiting:
                worker.early = False
                self._state.log.reported(worker, worker.received)
        return ripe

    def readopt(self, now: float, worker: Worker, message: messages.Holding) -> None:
        """The stage of attempts that were named early is planned."""
        self._adopt(now, worker, message)

    def _may_come(self, stage: StageId) -> bool:
        """Whether the stage may be the one after the last that is planned."""
        last = self._state.runs[-1]
        return self._taken_over and stage.number == last.id.number + 1 and last.pinned and not self._state.finished

    def _adopt(self, now: float, worker: Worker, message: messages.Holding) -> bool:
        """Take what runs there for given out, or stop it. Whether anything was stopped."""
        stopped = False
        for stage, pairs in message.running:
            run = self._state.by_id.get(stage)
            if run is None and self._may_come(stage):
                self.early(worker, message)
                continue
            wanted = [pair for pair in pairs if run is not None and self._wants(run, *pair)]
            if run is not None and wanted:
                self._take(now, worker, run, wanted)
            unwanted = tuple(pair for pair in pairs if not _is_out(run, pair[0], worker))
            if unwanted:
                self._state.stop(worker.node, stage, unwanted)
                stopped = True
        return stopped

    def _wants(self, run: StageRun, task: int, attempt: int) -> bool:
        free = run.has(task) and not run.is_settled(task) and not run.out[task] and not run.is_orphan(task, attempt)
        return free and attempt < run.started[task] and not run.abandoned and self._state.cancelling is None

    def _take(self, now: float, worker: Worker, run: StageRun, pairs: list[tuple[int, int]]) -> None:
        number = self._state.new_batch()
        adopted: list[int] = []
        for task, attempt in pairs:
            if not run.out[task]:
                run.out[task], run.adopted[task] = number, attempt
                run.drop(task)  # its input may have been looked at ahead, for another node
                adopted.append(task)
        tasks = array("I", adopted)
        worker.batches[number] = Batch(number, worker.node, run.id, tasks, len(tasks), now)
        worker.last_word = now
        self._state.workers.batches += 1
        self._state.workers.feed(worker)
        self._state.changed = True
        self._roster.watch(now)

    def _write_off(self) -> None:
        """Nodes that hold results and were not seen are dead."""
        state = self._state
        for run in state.runs:
            for node in run.facts.nodes():
                worker = state.workers.all.get(node)
                if worker is None and not state.locations.in_doubt(node):
                    state.locations.lose(node)
                    if not run.pinned or run.plan.final:
                        run.lose_results(node, state.locations)
            run.reconsider()


def _is_out(run: StageRun | None, task: int, worker: Worker) -> bool:
    """Whether the task is out at this node, as far as this leader knows."""
    return run is not None and task < run.tasks and run.out[task] in worker.batches
