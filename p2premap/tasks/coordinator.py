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
from typing import NamedTuple, assert_never

import msgspec

from p2premap.config import TasksConfig
from p2premap.ids import Ballot, JobId, NodeId
from p2premap.tasks import messages
from p2premap.tasks.director import Director
from p2premap.tasks.events import (
    CancelJob,
    CellDecided,
    CoordinatorEffect,
    CoordinatorEvent,
    Extend,
    FactsProtected,
    FromWorker,
    JobChanged,
    ReplicasKnown,
    Tick,
    ToWorker,
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


class _Running(NamedTuple):
    """What only a job that goes on needs."""

    state: JobState
    roster: Roster
    reports: Reports
    hand_out: HandOut


class _Ended(NamedTuple):
    """What is kept of a job that is over; a daemon keeps many.

    Args:
        view: the last one.
        untold: nodes that worked for it and were dead at the end.
    """

    view: JobView
    untold: set[NodeId]


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
        self.spec = spec
        self._ballot = ballot
        self._config = config
        self._accepted = self._view_at = now
        state = JobState(
            job=job,
            spec=spec,
            director=director,
            leader=leader,
            ballot=ballot,
            config=config,
            now=now,
            cells=HomeCells() if cells is None else cells,
        )
        roster = Roster(state)
        self._phase: _Running | _Ended = _Running(state, roster, Reports(state, roster), HandOut(state))

    # --- the core's face ------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return isinstance(self._phase, _Ended)

    def deadline(self) -> float:
        """When it wants a `Tick`."""
        if isinstance(self._phase, _Ended):
            return math.inf
        state = self._phase.state
        shown = self._view_at if state.changed else math.inf
        return min(self._phase.roster.check_at, state.workers.deadline(), shown)

    def step(self, now: float, event: CoordinatorEvent) -> list[CoordinatorEffect]:
        """Take one event; say what is to be done."""
        if isinstance(self._phase, _Ended):
            return self._after_end(self._phase, event)
        state = self._phase.state
        self._take(self._phase, now, event)
        if state.going_on:
            self._go_on(self._phase, now)
        self._show(state, now)
        effects, state.effects = state.effects, []
        return effects

    def view(self, now: float) -> JobView:
        """The job as people see it; once it is over, only its age changes."""
        if isinstance(self._phase, _Ended):
            return msgspec.structs.replace(self._phase.view, age_s=max(0.0, now - self._accepted))
        state = self._phase.state
        return state.progress.view(now, state.runs, state.workers, state.final, state.cancelling)

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        if isinstance(self._phase, _Running):
            self._phase.state.check_invariants()

    # --- events ---------------------------------------------------------------------------------------------------

    def _take(self, running: _Running, now: float, event: CoordinatorEvent) -> None:
        state, roster = running.state, running.roster
        match event:
            case Tick():
                state.workers.wake_due(now)
                roster.check_silence(now)
            case WorkerSeen():
                roster.seen(now, event)
            case WorkerDoubtful(node=node):
                roster.doubt(node)
            case WorkerLost(node=node):
                roster.lose(node)
            case WorkerUnlinked(node=node):
                roster.unlinked(now, node)
            case Woke(lost_s=lost_s):
                roster.credit(now, lost_s)
            case FromWorker(node=node, message=message):
                running.reports.take(now, node, message)
            case CancelJob(reason=reason):
                state.cancel(reason)
            case CellDecided() | FactsProtected() | Extend() | ReplicasKnown():
                pass
            case _:
                assert_never(event)

    def _after_end(self, ended: _Ended, event: CoordinatorEvent) -> list[CoordinatorEffect]:
        """The job is over: whoever still works for it has not heard so."""
        forget = messages.ForgetJob(job=self.job, ballot=self._ballot)
        match event:
            case FromWorker(node=node, message=messages.AttemptsEnded() | messages.Busy()):
                return [ToWorker(node=node, message=forget)]
            case WorkerSeen(node=node) if node in ended.untold:
                ended.untold.discard(node)
                return [ToWorker(node=node, message=forget)]
            case _:
                return []

    def _go_on(self, running: _Running, now: float) -> None:
        """What follows from what has changed: decisions, and work for who has room."""
        state = running.state
        if state.cancelling is not None:
            if not any(worker.engaged for worker in state.workers.all.values()):
                state.decide(Phase.CANCELLED, state.cancelling)
            return
        more = True
        while more and state.going_on:
            state.look_at_parts()
            state.pin_complete()
            more = state.going_on and running.hand_out.all(now)
        if state.workers.batches:
            running.roster.watch(now)

    def _show(self, state: JobState, now: float) -> None:
        """Tell watchers, not too often, and always the end; then let go of what only a running job needs."""
        if state.going_on and not (state.changed and now >= self._view_at):
            return
        state.changed = False
        self._view_at = now + self._config.view_s
        view = self.view(now)
        state.effects.append(JobChanged(job=self.job, view=view))
        if not state.going_on:
            untold = {worker.node for worker in state.workers.all.values() if worker.touched and worker.lost}
            self._phase = _Ended(view, untold)
