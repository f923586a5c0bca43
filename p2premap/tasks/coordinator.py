"""The leader's core: from what is known of one job to who does what next.

Theory of operation. A director plans a stage; its tasks wait in a queue. Each node that can work has room for
`queue_batches` batches a slot; a batch is one `Assign`. `AttemptsEnded` brings results, which are facts; when every
task of a stage has one that can be read, the stage's manifest is proposed, and the next stage is planned from what
the cell decided, under an id that contains it. When the director has no further stage, ``final`` is proposed; an error
or a cancellation proposes it too, and whatever it decides ends the job (MapReduce, 3.1 to 3.3).

What may be lost, and what then:

- A node. `WorkerLost`: its attempts wait again, at no cost to their tasks. Finished tasks whose results only it held
  run again, alone, and only where something still reads them.
- A message. Each worker numbers what it reports; `Recount` asks for what was not heard, after a broken link, after a
  gap, and after `recount_s` of silence. A node that leaves it unanswered for `unanswered_s` is treated as lost for
  this job.
- A result's copy that a living node could not read (`INPUT_LOST`): the copy is written off; if it was the last one,
  exactly the tasks that made the missing blobs run again, and the reader waits parked. If such a task now yields
  something else (it is not deterministic), the stage is pinned anew under the next generation, and what was planned
  from the old manifest is abandoned: lineages never mix (SPARK-23207).

Late answers count if they help: a result of an attempt that was given up settles its task if nothing else has. Answers
to a lower ballot, of an abandoned stage, or told twice change nothing.
"""

from __future__ import annotations

import math
from typing import assert_never

from p2premap.config import TasksConfig
from p2premap.ids import Ballot, JobId
from p2premap.tasks import messages
from p2premap.tasks.director import Director
from p2premap.tasks.events import (
    CancelJob,
    CoordinatorEffect,
    CoordinatorEvent,
    FromWorker,
    JobChanged,
    Tick,
    Woke,
    WorkerDoubtful,
    WorkerLost,
    WorkerSeen,
    WorkerUnlinked,
)
from p2premap.tasks.handout import HandOut
from p2premap.tasks.job import JobSpec, JobView, Phase
from p2premap.tasks.ledger import Cells, HomeCells
from p2premap.tasks.progress import Leader
from p2premap.tasks.reports import Reports
from p2premap.tasks.roster import Roster
from p2premap.tasks.state import JobState


class Coordinator:
    """Leads one job.

    Args:
        job: its id.
        spec: what was submitted.
        director: planned from the spec's plan.
        leader: this node.
        ballot: under which it leads.
        config: intervals and limits.
        now: when the job was accepted.
        cells: where decisions are made; by default this node alone makes them.

    Raises:
        JobError: the director cannot plan a first stage; the job does not exist.
    """

    def __init__(
        self,
        *,
        job: JobId,
        spec: JobSpec,
        director: Director,
        leader: Leader,
        ballot: Ballot,
        config: TasksConfig,
        now: float,
        cells: Cells | None = None,
    ) -> None:
        self.job = job
        self._config = config
        self._state = JobState(
            job=job,
            spec=spec,
            director=director,
            leader=leader,
            ballot=ballot,
            config=config,
            now=now,
            cells=HomeCells() if cells is None else cells,
        )
        self._roster = Roster(self._state)
        self._reports = Reports(self._state, self._roster)
        self._hand_out = HandOut(self._state)
        self._view_at = now

    # --- the core's face ------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return not self._state.going_on

    @property
    def spec(self) -> JobSpec:
        """What was submitted."""
        return self._state.spec

    def deadline(self) -> float:
        """When it wants a `Tick`."""
        if self.over:
            return math.inf
        shown = self._view_at if self._state.changed else math.inf
        return min(self._roster.check_at, self._state.workers.deadline(), shown)

    def step(self, now: float, event: CoordinatorEvent) -> list[CoordinatorEffect]:
        """Take one event; say what is to be done."""
        state = self._state
        if state.going_on:
            self._take(now, event)
            if state.going_on:
                self._go_on(now)
            self._show(now)
        else:
            self._after_end(event)
        effects, state.effects = state.effects, []
        return effects

    def view(self, now: float) -> JobView:
        """The job as people see it."""
        state = self._state
        return state.progress.view(now, state.runs, state.workers, state.final, state.cancelling)

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        self._state.check_invariants()

    # --- events ---------------------------------------------------------------------------------------------------

    def _take(self, now: float, event: CoordinatorEvent) -> None:
        match event:
            case Tick():
                self._state.workers.wake_due(now)
                self._roster.check_silence(now)
            case WorkerSeen():
                self._roster.seen(now, event)
            case WorkerDoubtful(node=node):
                self._roster.doubt(node)
            case WorkerLost(node=node):
                self._roster.lose(node)
            case WorkerUnlinked(node=node):
                self._roster.unlinked(now, node)
            case Woke(lost_s=lost_s):
                self._roster.credit(now, lost_s)
            case FromWorker(node=node, message=message):
                self._reports.take(now, node, message)
            case CancelJob(reason=reason):
                self._state.cancel(reason)
            case _:
                assert_never(event)

    def _after_end(self, event: CoordinatorEvent) -> None:
        """The job is over: whoever still works for it has not heard so."""
        state = self._state
        forget = messages.ForgetJob(job=state.job, ballot=state.ballot)
        match event:
            case FromWorker(node=node, message=messages.AttemptsEnded() | messages.Busy()):
                state.say(node, forget)
            case WorkerSeen(node=node) if (worker := state.workers.all.get(node)) and worker.touched and worker.lost:
                worker.lost = False
                state.say(node, forget)
            case _:
                pass

    def _go_on(self, now: float) -> None:
        """What follows from what has changed: decisions, and work for who has room."""
        state = self._state
        if state.cancelling is not None:
            if not any(worker.engaged for worker in state.workers.all.values()):
                state.decide(Phase.CANCELLED, state.cancelling)
            return
        more = True
        while more and state.going_on:
            state.look_at_parts()
            state.pin_complete()
            more = state.going_on and self._hand_out.all(now)
        if state.workers.batches:
            self._roster.watch(now)

    def _show(self, now: float) -> None:
        """Tell watchers, not too often, and always the end; then let go of what only a running job needs."""
        state = self._state
        if state.going_on and not (state.changed and now >= self._view_at):
            return
        state.changed = False
        self._view_at = now + self._config.view_s
        state.effects.append(JobChanged(job=self.job, view=self.view(now)))
        if not state.going_on:
            state.runs.clear()
            state.by_id.clear()
