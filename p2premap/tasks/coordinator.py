"""The leader's core: from what is known of one job to who does what next.

Theory of operation. A director plans a stage; its tasks wait in a queue. Each node that can work has room for
`queue_batches` batches a slot; a batch is one `Assign`. `AttemptsEnded` brings results, which are facts; when every
task of a stage has one that can be read, the stage's manifest is proposed, and the next stage is planned from what
the cell decided, under an id that contains it. When the director has no further stage, ``final`` is proposed; an error
or a cancellation proposes it too, and whatever it decides ends the job (MapReduce, 3.1 to 3.3).

Facts go out in batches (`AppendFacts`) and come back as protected when a quorum of the job's replicas has them; cells
are decided by vote (`ProposeCell`, `CellDecided`). Only what is protected is confirmed to workers, or pinned. So a
successor starts where this leader was, but for what was not protected yet.

What may be lost, and what then:

- The leader. A successor reads the history, takes over what runs, and goes on (`p2premap.tasks.replay`,
  `p2premap.tasks.takeover`). The orders of the deposed one are refused by the workers' fences.
- A node. `WorkerLost`: its attempts wait again, at no cost to their tasks. Finished tasks whose results only it held
  run again, alone, and only where something still reads them; most have a second holder (`p2premap.tasks.copies`).
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
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, assert_never

import msgspec

from p2premap.config import TasksConfig
from p2premap.errors import JobFailed, RemoteProtocolError
from p2premap.ids import Ballot, JobId, NodeId
from p2premap.tasks import journal, messages
from p2premap.tasks.backups import Backups
from p2premap.tasks.copies import Copies
from p2premap.tasks.director import Director
from p2premap.tasks.events import (
    CalledBack,
    CancelJob,
    CellDecided,
    Conclude,
    CoordinatorEffect,
    CoordinatorEvent,
    Extend,
    FactsProtected,
    FromWorker,
    JobChanged,
    RemoveJob,
    ReplicasKnown,
    Retell,
    Tick,
    ToWorker,
    Woke,
    WorkerDoubtful,
    WorkerLost,
    WorkerSeen,
    WorkerUnlinked,
)
from p2premap.tasks.growth import Growth
from p2premap.tasks.handout import HandOut
from p2premap.tasks.job import Failure, JobSpec, JobView, Leader, Phase
from p2premap.tasks.ledger import FINAL_CELL
from p2premap.tasks.replay import Replay
from p2premap.tasks.reports import Reports
from p2premap.tasks.roster import Roster
from p2premap.tasks.state import JobState
from p2premap.tasks.takeover import Takeover

if TYPE_CHECKING:
    from p2premap.tasks.callback import Callback
    from p2premap.tasks.listing import Rows  # loaded when somebody looks at tasks, or some have failed


class _Running:
    """What only a job that goes on needs.

    Args:
        state: of the job.
        taken_over: when this leader began; None where it is the first one.
    """

    def __init__(self, state: JobState, taken_over: float | None) -> None:
        self.state = state
        self.roster = Roster(state)
        self.takeover = Takeover(state, self.roster, taken_over)
        if taken_over is not None:
            state.runs[-1].follow_up.unheard = True
        self.copies = Copies(state)
        self.hand_out = HandOut(state)
        self.reports = Reports(state, self.roster, self.takeover, self.copies, self.hand_out.gang)
        self.backups = Backups(state, self.hand_out)
        self.growth = Growth(state)

    def may_pin(self, now: float) -> bool:
        """Whether the last stage has all its results, and they are where they are to be."""
        run = self.state.runs[-1]
        return run.complete and not run.pinned and (not run.plan.copied or self.copies.are_made(now, run))


class _Ended(NamedTuple):
    """What is kept of a job that is over; a daemon keeps many.

    Args:
        view: the last one.
        accepted: when the job was.
        untold: nodes that worked for it and were dead at the end.
        told: nodes that know; None where no other can have worked for it.
        callback: somebody outside is to be told before the job is concluded.
    """

    view: JobView
    accepted: float
    untold: set[NodeId]
    told: set[NodeId] | None
    callback: Callback | None = None


class Coordinator:
    """Leads one job.

    Args:
        job: its id.
        spec: what was submitted.
        director: planned from the spec's plan.
        leader: this node.
        ballot: under which it leads.
        config: intervals and limits.
        now: when it begins.
        known: when this node first heard of it: the job is that old at least, although its last fact may be older.
        history: the batches of facts of all leaders so far, in the order in which they applied them.
        decided: the cells that are decided so far.
        origin: of a fork, the job that it was forked from.

    Raises:
        JobError: the director cannot plan a stage, or a newer version wrote the history; it cannot be led here.
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
        known: float = math.inf,
        history: Iterable[bytes] = (),
        decided: Mapping[str, bytes] | None = None,
        origin: JobId | None = None,
    ) -> None:
        self.job = job
        self.spec = spec
        self._ballot = ballot
        self._config = config
        self._view_at = now
        self._started = False
        self._unchecked = True
        state = JobState(
            job=job,
            spec=spec,
            director=director,
            leader=leader,
            ballot=ballot,
            config=config,
            now=now,
            decided=decided or {},
            origin=origin,
        )
        history = tuple(history)
        self._taken_over = bool(history or decided or ballot.n or ballot.epoch)
        try:
            Replay(state).take(now, history)
        except RemoteProtocolError as error:
            raise JobFailed(f"What the job's former leaders wrote cannot be read here: {error}.") from None
        state.accepted = min(state.accepted, known)
        self._phase: _Running | _Ended = _Running(state, now if self._taken_over else None)
        if self._taken_over:
            state.begin_term(now - state.accepted, leader.node)
            state.log.add(journal.Term(leader=leader.node))

    # --- the core's face ------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the job has ended, and is or can be concluded."""
        return isinstance(self._phase, _Ended) and self._phase.callback is None

    def deadline(self) -> float:
        """When it wants a `Tick`."""
        if isinstance(self._phase, _Ended):
            return math.inf if self._phase.callback is None else self._phase.callback.deadline()
        if self._taken_over and not self._started:
            return self._view_at  # as it was when this leader began: what the history says of the end is not told yet
        running = self._phase
        state = running.state
        shown = self._view_at if state.changed else math.inf
        return min(
            running.roster.deadline(),
            state.workers.deadline(),
            state.log.deadline(),
            running.takeover.deadline() if state.going_on else math.inf,
            running.hand_out.gang.deadline(),
            running.backups.deadline() if state.going_on and state.cancelling is None else math.inf,
            running.growth.deadline() if state.going_on and not running.takeover.gathering else math.inf,
            running.copies.deadline() if self._may_end(running) else math.inf,
            shown,
        )

    def _may_end(self, running: _Running) -> bool:
        """Whether the job ends by itself once its work is done."""
        return running.state.going_on and running.state.cancelling is None and not running.takeover.gathering

    def step(self, now: float, event: CoordinatorEvent) -> list[CoordinatorEffect]:
        """Take one event; say what is to be done."""
        if isinstance(self._phase, _Ended):
            told = self._tell_outside(self._phase, now, event) if self._phase.callback is not None else []
            return [*told, *self._after_end(self._phase, event)]
        state, self._unchecked = self._phase.state, True
        if not self._started:
            self._start(state)
        self._take(self._phase, now, event)
        if state.going_on:
            self._go_on(self._phase, now)
        state.effects += state.log.flush(now, now - state.accepted)
        self._show(state, now)
        effects, state.effects = state.effects, []
        return effects

    def view(self, now: float) -> JobView:
        """The job as people see it; once it is over, only its age changes."""
        if isinstance(self._phase, _Ended):
            return msgspec.structs.replace(self._phase.view, age_s=max(0.0, now - self._phase.accepted))
        return self._view(self._phase, now)

    def _view(self, running: _Running, now: float) -> JobView:
        state, copies = running.state, running.copies
        view, oldest = state.view(now), copies.oldest()
        if state.final is not None:
            done = state.final.phase is Phase.DONE
            return msgspec.structs.replace(view, note=copies.shortage()) if done else view
        return msgspec.structs.replace(
            view,
            note=state.said or copies.note() or view.note,
            unprotected=view.unprotected + copies.waiting,
            unprotected_s=view.unprotected_s if oldest is None else max(view.unprotected_s, now - oldest),
        )

    def why(self, now: float, *, stage: int = -1, task: int = -1) -> str:
        """Why the job is where it is, or one of its tasks; one sentence. "" once the job is over.

        Args:
            stage: the task's; -1: the one that is worked on now.
            task: -1: the job as a whole.
        """
        from p2premap.tasks import why  # only this question needs it

        if isinstance(self._phase, _Ended):
            return ""
        state, gathering = self._phase.state, self._phase.takeover.gathering
        if task >= 0:
            return why.why_task(state, now, stage, task)
        return (self._phase.copies.note() if state.going_on else "") or why.why_job(state, now, gathering=gathering)

    def tasks(self, start: tuple[int, int], count: int, *, stage: int = -1, states: tuple[str, ...] = ()) -> Rows:
        """Where its tasks are; see `p2premap.tasks.listing.list_tasks`. Once the job is over: where some failed."""
        from p2premap.tasks import listing

        if isinstance(self._phase, _Running):
            return listing.list_tasks(self._phase.state, start, count, stage, states)
        return listing.list_failures(self._phase.view.failures, start, count, stage, states)

    def remembered(self) -> tuple[Failure, ...]:
        """What its ledger knows of attempts that failed, and what others printed last."""
        from p2premap.tasks import listing

        return listing.remembered(self._phase.state) if isinstance(self._phase, _Running) else self._phase.view.failures

    def sole_results(self, node: NodeId) -> int:
        """Results that only this node holds, and another is to keep too."""
        return 0 if isinstance(self._phase, _Ended) else self._phase.copies.sole(node)

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        if self._unchecked and isinstance(self._phase, _Running):
            self._unchecked = False
            self._phase.state.check_invariants()

    # --- events ---------------------------------------------------------------------------------------------------

    def _start(self, state: JobState) -> None:
        """The first step: what the history says of the end."""
        self._started = True
        state.plan_decided()
        if (value := state.decided.get(FINAL_CELL)) is not None:
            state.hear(FINAL_CELL, value)
        elif state.ending is not None:
            state.propose(FINAL_CELL, state.ending.encode())

    def _take(self, running: _Running, now: float, event: CoordinatorEvent) -> None:
        state, roster = running.state, running.roster
        match event:
            case Tick() | CalledBack():  # the answer to a question of a former life of this leader
                state.workers.wake_due(now)
                for node in roster.check_silence(now):
                    running.copies.lost(now, node)
            case WorkerSeen() | WorkerDoubtful() | WorkerLost() | WorkerUnlinked():
                self._on_node(running, now, event)
            case Woke(lost_s=lost_s):
                roster.credit(now, lost_s)
            case FromWorker(node=node, message=message):
                running.reports.take(now, node, message)
            case CancelJob(reason=reason):
                state.cancel(reason)
            case CellDecided(cell=cell, value=value):
                state.hear(cell, value)
            case FactsProtected(serial=serial):
                state.effects += state.log.protect(serial)
                running.growth.protected(serial)
            case Extend():
                running.growth.extend(event)
            case Retell(first=first):
                state.effects += running.growth.retell(first)
            case ReplicasKnown(copies=copies, note=note, fork=fork):
                state.copies, state.said, state.fork = copies, note, fork
                state.changed = True
            case _:
                assert_never(event)

    def _on_node(
        self, running: _Running, now: float, event: WorkerSeen | WorkerDoubtful | WorkerLost | WorkerUnlinked
    ) -> None:
        """A node comes, goes, or falls silent."""
        match event:
            case WorkerSeen(node=node):
                back = running.state.locations.is_gone(node)
                running.roster.seen(now, event)
                running.takeover.seen(now, running.state.workers.all[node])
                running.copies.seen(now, node, back=back)
            case WorkerDoubtful(node=node):
                running.roster.doubt(now, node)
                running.copies.doubt(node)
            case WorkerLost(node=node):
                running.roster.lose(node)
                running.takeover.lost(node)
                running.copies.lost(now, node)
                running.hand_out.gang.lost(node)
            case WorkerUnlinked(node=node):
                running.roster.unlinked(now, node)
                running.copies.unlinked(node)
                running.hand_out.gang.unlinked(node)

    def _after_end(self, ended: _Ended, event: CoordinatorEvent) -> list[CoordinatorEffect]:
        """The job is over: whoever still works for it has not heard so."""
        forget = messages.ForgetJob(job=self.job, ballot=self._ballot)
        match event:
            case FromWorker(node=node, message=messages.AttemptsEnded() | messages.Busy() | messages.Holding()):
                return [ToWorker(node=node, message=forget)]
            case WorkerSeen(node=node) if node in ended.untold or (ended.told is not None and node not in ended.told):
                ended.untold.discard(node)
                if ended.told is not None:
                    ended.told.add(node)
                return [ToWorker(node=node, message=forget)]
            case _:
                return []

    def _tell_outside(self, ended: _Ended, now: float, event: CoordinatorEvent) -> list[CoordinatorEffect]:
        """Somebody outside is still to be told that the job is over."""
        from p2premap.tasks.callback import Told

        assert ended.callback is not None
        told = Told.NOT_YET
        if isinstance(event, CalledBack):
            told = ended.callback.heard(now, event.status, event.error)
        if told is not Told.NOT_YET:
            self._phase = ended._replace(callback=None)
            remove: list[CoordinatorEffect] = [RemoveJob(job=self.job)] if told is Told.REMOVE else []
            return [Conclude(job=self.job, view=ended.view), *remove]
        ask = ended.callback.due(now)
        return [] if ask is None else [ask]

    def _go_on(self, running: _Running, now: float) -> None:
        """What follows from what has changed: decisions, and work for who has room."""
        state, takeover = running.state, running.takeover
        gathering = takeover.gathering
        takeover.check(now)
        if takeover.gathering:
            return
        if gathering:
            running.copies.want_all(now)
        if state.cancelling is not None:
            if not any(worker.engaged for worker in state.workers.all.values()):
                state.decide(Phase.CANCELLED, state.cancelling)
            return
        more = True
        while more and state.going_on:
            state.look_at_results()
            running.growth.unfold()
            running.growth.tend(now)
            running.copies.go()
            state.pin_complete(may_pin=running.may_pin(now))
            self._take_early(running, now)
            more = state.going_on and (running.hand_out.all(now) or running.may_pin(now))
        if state.going_on:
            running.backups.look(now)
            running.copies.go()
            if state.all_there and running.copies.output_is_safe(now):
                state.decide(Phase.DONE)
        if state.workers.batches:
            running.roster.watch(now)

    def _take_early(self, running: _Running, now: float) -> None:
        """What workers said of a stage before it was planned here."""
        for node, message in running.takeover.take_early():
            worker = running.state.workers.all[node]
            if isinstance(message, messages.Holding):
                running.takeover.readopt(now, worker, message)
            else:
                running.reports.take_ends(now, worker, message)

    def _show(self, state: JobState, now: float) -> None:
        """Tell watchers, not too often, and always the end; then let go of what only a running job needs."""
        over = state.final is not None
        if over:
            state.look_at_results()
        if not over and not (state.changed and now >= self._view_at):
            return
        state.changed = False
        self._view_at = now + self._config.view_s
        view = self.view(now)
        if over:
            view = msgspec.structs.replace(view, lasted_s=view.age_s)
        if over and (state.words or any(run.facts.failures for run in state.runs)):
            from p2premap.tasks import listing

            view = msgspec.structs.replace(view, failures=listing.remembered(state))
        state.effects.append(JobChanged(job=self.job, view=view))
        if over:
            callback = self._callback(state, view, now)
            if callback is None:
                state.effects.append(Conclude(job=self.job, view=view))
            workers = state.workers.all.values()
            untold = {worker.node for worker in workers if worker.touched and worker.lost}
            told = {worker.node for worker in workers if worker.touched} if self._taken_over else None
            self._phase = _Ended(view, state.accepted, untold, told, callback)

    def _callback(self, state: JobState, view: JobView, now: float) -> Callback | None:
        if not self.spec.options.callback or state.final is None:
            return None
        from p2premap.tasks.callback import Callback

        return Callback(self.job, self.spec.options, state.final, view, now)
