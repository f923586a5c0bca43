"""The nodes that work for a job come, go, fall silent, and come back.

A node in doubt keeps what it runs (`p2premap.tasks.backups`). What it holds is waited for for `DOUBT_S`, about the time
after which a silent node is dead; a stalled one may be in doubt for far longer. Then results that can be read nowhere
else are made again. If it comes back, its results count as before.
"""

from __future__ import annotations

import math
from typing import Final

from p2premap.ids import NodeId
from p2premap.tasks import journal, messages
from p2premap.tasks.events import WorkerSeen
from p2premap.tasks.job import StageId
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker

RECOUNT_ATTEMPTS_MAX: Final = 50_000
"""Attempts that one `Recount` names, so that it fits into a frame."""
DOUBT_S: Final = 2.0


class Roster:
    """Keeps one job's workers.

    Args:
        state: of the job.
    """

    def __init__(self, state: JobState) -> None:
        self._state = state
        self.check_at = math.inf
        """When silence is to be looked at."""
        self._written_off_at: dict[NodeId, float] = {}
        """Nodes in doubt whose results are waited for, and until when."""

    def deadline(self) -> float:
        """When to look at silence and at doubts."""
        return min(self.check_at, *self._written_off_at.values()) if self._written_off_at else self.check_at

    def seen(self, now: float, event: WorkerSeen) -> None:
        """It can take work (again), and what it holds can be read."""
        known = self._state.workers.all.get(event.node)
        returns = known is not None and known.touched and (known.lost or known.estranged)
        worker = self._state.workers.see(event.node, event.name, event.slots, event.machine, event.facts)
        self._state.locations.trust(event.node)
        self._written_off_at.pop(event.node, None)
        if returns:
            self.welcome_back(now, worker)
        for run in self._state.runs:
            run.recover_results(event.node, self._state.locations)
            if not self._state.locations.clear or run.avoid or run.parked:
                run.reconsider()
        if event.doubtful:
            self.doubt(now, event.node)
        self._state.changed = True

    def welcome_back(self, now: float, worker: Worker) -> None:
        """What it finished meanwhile is welcome; what it still runs has been given to others."""
        self.recount(now, worker)
        worker.owes = worker.recounts
        if self._state.cancelling is None:
            self._state.say(worker.node, self._state.stop_all())

    def doubt(self, now: float, node: NodeId) -> None:
        """It is stalled or suspected: nothing new for it, and what it has stays with it for now."""
        state = self._state
        worker = state.workers.all.get(node)
        state.locations.doubt(node)
        if worker is None or worker.lost:
            return
        if not worker.doubtful:
            self._written_off_at[node] = now + DOUBT_S
        worker.doubtful = True
        state.workers.update(worker)
        for run in state.runs:
            run.reconsider()
        state.changed = True

    def lose(self, node: NodeId) -> None:
        """It is dead or has left: its attempts run elsewhere, and so do finished tasks whose results only it held."""
        state = self._state
        worker = state.workers.all.get(node)
        if worker is None or worker.lost:
            return
        worker.lost = True
        worker.losses += 1
        worker.received = worker.heard
        worker.early = False
        self._give_up(worker)
        self._write_off(node)

    def _write_off(self, node: NodeId) -> None:
        """Nothing can be read from there."""
        state = self._state
        self._written_off_at.pop(node, None)
        state.locations.lose(node)
        for run in state.runs:
            if not run.pinned or run.plan.final:
                run.lose_results(node, state.locations)
            run.reconsider()
        state.changed = True

    def unlinked(self, now: float, node: NodeId) -> None:
        """What was under way between it and this node may be lost."""
        worker = self._state.workers.all.get(node)
        if worker is not None and worker.engaged:
            self.recount(now, worker)

    def credit(self, now: float, lost_s: float) -> None:
        """This node did not run for so long: nobody was silent in that time (its clock may have stood still too)."""
        for worker in self._state.workers.all.values():
            worker.asked = min(now, worker.asked + lost_s)
            worker.last_word = min(now, worker.last_word + lost_s)

    def _give_up(self, worker: Worker) -> None:
        """Its attempts run elsewhere, and cost their tasks nothing."""
        for batch in list(worker.batches.values()):
            run = self._state.by_id[batch.stage]
            lost = run.lost_attempts
            for task in batch.tasks:
                second = run.backups.get(task)
                if second is not None and second.batch == batch.number:
                    self._state.release(worker, run, task, second=True)
                elif run.out[task] == batch.number:
                    run.lost_attempts += 1
                    self._state.release(worker, run, task)
                    if not run.out[task]:
                        self._state.wait_again(run, task)
            if run.lost_attempts > lost:
                self._state.log.add(journal.Lost(stage=run.id, attempts=run.lost_attempts - lost))
        worker.asked = math.inf
        worker.owes = 0
        self._state.workers.wake(worker)
        self._state.workers.update(worker)
        self._state.changed = True

    def recount(self, now: float, worker: Worker) -> None:
        """Ask what may have been lost on the way."""
        worker.recounts += 1
        out: dict[StageId, list[tuple[int, int]]] = {}
        for batch in worker.batches.values():
            out.setdefault(batch.stage, []).extend(self._state.by_id[batch.stage].started_by(batch))
        for stage, pairs in (out or {self._state.runs[-1].id: []}).items():
            for start in range(0, max(1, len(pairs)), RECOUNT_ATTEMPTS_MAX):
                self._state.say(
                    worker.node,
                    messages.Recount(
                        job=self._state.job,
                        ballot=self._state.ballot,
                        stage=stage,
                        attempts=tuple(pairs[start : start + RECOUNT_ATTEMPTS_MAX]),
                        heard=worker.heard,
                        number=worker.recounts,
                        census=worker.census,
                        origin=(self._state.origin or b"") if worker.census else b"",
                    ),
                )
        if self._state.cancelling is not None:
            self._state.say(worker.node, self._state.stop_all())
        worker.asked = min(worker.asked, now)
        self.check_at = min(self.check_at, now + self._state.config.recount_s / 4)

    def watch(self, now: float) -> None:
        """Somebody works: see to it that silence is noticed."""
        self.check_at = min(self.check_at, now + self._state.config.recount_s)

    def check_silence(self, now: float) -> list[NodeId]:
        """Ask those who have said nothing for long; give up those who do not answer, and what those in doubt hold.

        Returns:
            Nodes whose results count as lost from now on.
        """
        given_up = [node for node, at in self._written_off_at.items() if at <= now]
        for node in given_up:
            self._write_off(node)
        if now >= self.check_at:
            self._ask_the_silent(now)
        return given_up

    def _ask_the_silent(self, now: float) -> None:
        self.check_at = math.inf
        for worker in self._state.workers.all.values():
            if not worker.engaged:
                continue
            if now - worker.asked >= self._state.config.unanswered_s:
                worker.estranged = True
                self._give_up(worker)
                continue
            if worker.asked == math.inf and now - worker.last_word >= self._state.config.recount_s:
                self.recount(now, worker)
            self.check_at = now + self._state.config.recount_s / 4
