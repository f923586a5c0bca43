"""The state of one job at its leader: what is computed from facts and decided cells, and who works on it.

The parts of the coordinator share it: `p2premap.tasks.roster` (nodes come and go), `p2premap.tasks.reports` (what
they say), `p2premap.tasks.handout` (what they are given). Here are the decisions: stages are pinned and planned, and
the job ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final as Constant
from typing import NamedTuple

import msgspec

from p2premap.config import TasksConfig
from p2premap.errors import JobError
from p2premap.ids import Ballot, JobId, NodeId, short
from p2premap.tasks import journal, messages
from p2premap.tasks.delivery import Delivery
from p2premap.tasks.director import Director, Follows, Pinned, StagePlan, TaskInput
from p2premap.tasks.events import CoordinatorEffect, ProposeCell, ToWorker
from p2premap.tasks.failures import Failures
from p2premap.tasks.following import ATTEMPTS_A_TERM
from p2premap.tasks.job import AttemptEnd, JobSpec, JobView, Leader, Outcome, Phase, StageId
from p2premap.tasks.ledger import FINAL_CELL, LINEAGE_BYTES, Final, PinnedResults, manifest_cell
from p2premap.tasks.locations import Locations
from p2premap.tasks.log import Log
from p2premap.tasks.placement import NOTHING, Requirements
from p2premap.tasks.progress import Progress
from p2premap.tasks.shared import SharedRun
from p2premap.tasks.shedding import shed
from p2premap.tasks.stage import StageRun
from p2premap.tasks.words import LastWords
from p2premap.tasks.workers import Worker, Workers
from p2premap.wire import Message

ERROR_CHARACTERS_MAX = 4_000
DETAIL_CHARACTERS_MAX = 60_000
TERMS_SHOWN_MAX = 50

TASKS_MAX: Constant = 1 << 28
"""Of a stage that grows: their numbers come from outside."""


class Grown(NamedTuple):
    """What came of a payload.

    Args:
        new: tasks that had not been there.
        numbered: by who sent it.
        withdrawn: what the program has from the time of another leader; None: it says nothing about that.
    """

    first: int
    new: list[int]
    numbered: bool
    withdrawn: tuple[int, ...] | None


class JobState:
    """One job. See `p2premap.tasks.coordinator.Coordinator` for the arguments.

    Raises:
        JobError: the director cannot plan a first stage.
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
        decided: Mapping[str, bytes],
        origin: JobId | None = None,
    ) -> None:
        self.job = job
        self.origin = origin
        self.spec = spec
        self.ballot = ballot
        self.leader = leader
        self.director = director
        # asked once: to ask whether something is of a protocol takes as long as a step
        self._follows = director if isinstance(director, Follows) else None
        self.config = config
        self.accepted = now
        """When the job was accepted, by this leader's clock."""
        self.decided = dict(decided)
        self.log = Log(job, streams=director.streams, linger_s=config.facts_linger_s)
        self.workers = Workers(config, _requirements(spec))
        self.locations = Locations()
        self.failures = Failures(spec.options, self.workers, config)
        self.words = LastWords()
        self.progress = Progress(job, spec, leader, director)
        self.runs: list[StageRun] = []
        """The stages planned so far, in one lineage."""
        self.by_id: dict[StageId, StageRun] = {}
        """These, and those that were abandoned."""
        self.final: Final | None = None
        self.ending: Final | None = None
        """What was proposed as the end."""
        self.finished = False
        """The last stage's manifest is decided, and no other follows."""
        self.cancelling: str | None = None
        self.to_unfold: list[int] = []
        """Tasks with a result that the director has not been asked about (`p2premap.tasks.director.Unfolds`)."""
        self._deliveries: dict[StageId, Delivery] = {}
        self.tally: dict[NodeId, int] = {}
        """Tasks done by each node."""
        self.names: dict[NodeId, str] = {}
        self.terms: list[tuple[float, NodeId]] = []
        """Leaders that took the job over, and how old it was then: the last of them."""
        self.takeovers = self.backups = self.copies = 0
        self.fork = self.said = ""
        self.changed = True
        self._last_batch = 0
        self.effects: list[CoordinatorEffect] = []
        self.begin(StageId(0, b""), director.first())

    @property
    def going_on(self) -> bool:
        """Whether the job has not ended, and its end is not being decided."""
        return self.final is None and self.ending is None

    @property
    def all_there(self) -> bool:
        """Whether no stage follows, and the output has a result of every task."""
        return self.finished and all(run.complete for run in self.runs if run.plan.final)

    def skips(self, run: StageRun) -> bool:
        """Whether a task of this stage may fail for good without failing the job."""
        return (
            run.id not in self._deliveries
            and not run.plan.shared
            and (self.spec.options.skip_failed or self.director.streams)
        )

    def begin_term(self, age_s: float, leader: NodeId) -> None:
        """Another node leads the job from now on."""
        self.takeovers += 1
        self.terms = [*self.terms[1 - TERMS_SHOWN_MAX :], (age_s, leader)]

    # --- attempts -------------------------------------------------------------------------------------------------

    def release(self, worker: Worker, run: StageRun, task: int, *, second: bool = False) -> None:
        """The attempt that was out, or the second one, is not any more."""
        backup = run.backups.get(task)
        if second:
            assert backup is not None, "a backup is out"
            number = backup.batch
            del run.backups[task]
        else:
            number = run.out[task]
            run.adopted.pop(task, None)
            run.out[task] = 0
            if backup is not None:  # from now on it is the only one
                del run.backups[task]
                run.out[task], run.adopted[task] = backup
        batch = worker.batches[number]
        batch.left -= 1
        if batch.left == 0:
            del worker.batches[number]
            self.workers.batches -= 1

    def new_batch(self) -> int:
        """A number for a batch, never given before."""
        self._last_batch += 1
        return self._last_batch

    def drop_empty(self, worker: Worker) -> None:
        """Forget the batches of which every attempt has been reported."""
        for batch in [b for b in worker.batches.values() if not b.left]:
            del worker.batches[batch.number]
            self.workers.batches -= 1

    def wait_again(self, run: StageRun, task: int) -> None:
        """The task must be tried again, if nothing else has settled it."""
        if not run.abandoned and not run.is_settled(task):
            run.push(task)

    def reconsider(self) -> None:
        """A result is there that was missing: look again at what waits for such, in whatever stage."""
        for run in self.runs:
            if run.parked or run is self.runs[-1]:
                run.reconsider()

    def stop_others(self, run: StageRun, task: int, *, raced: bool = False) -> None:
        """The task is settled: whoever still runs it may stop.

        Args:
            raced: a backup was out. Else what shares a batch with other tasks is not worth stopping those, too.
        """
        backup = run.backups.get(task)
        if not run.out[task] and backup is None:
            return
        attempts = {run.out[task]: run.attempt_of(task)} if run.out[task] else {}
        if backup is not None:
            attempts[backup.batch] = backup.attempt
        for worker in self.workers.all.values():
            for number, attempt in attempts.items():
                batch = worker.batches.get(number)
                if batch is not None and (raced or batch.left == 1):
                    self.stop(worker.node, run.id, ((task, attempt),))

    def give_up(self, worker: Worker, run: StageRun, end: AttemptEnd, error: str) -> None:
        """The task has failed for good, and the job goes on."""
        run.give_up(end.task, end.attempt, worker.node, error, end.value)
        self.log.ended(run.id, worker.node, (end,))
        self.stop_others(run, end.task)

    # --- decisions ------------------------------------------------------------------------------------------------

    def begin(self, id: StageId, plan: StagePlan) -> StageRun:
        """Run a stage."""
        make = SharedRun if plan.shared else StageRun
        run = make(id, plan, self.config, self.log, first_attempt=self.ballot.n * ATTEMPTS_A_TERM)
        self.runs.append(run)
        self.by_id[id] = run
        self.changed = True
        shed(self)
        return run

    def extend(self, payload: bytes) -> Grown:
        """The open stage is given more.

        Raises:
            JobError: the payload makes no sense; nothing has changed.
        """
        run = self.runs[-1]
        if not run.open:
            raise JobError("The job takes no more tasks.")
        extension = self.director.extend(payload)
        first = run.tasks if extension.first is None else extension.first
        if first + extension.tasks > TASKS_MAX:
            raise JobError(f"A stage has at most {TASKS_MAX} tasks.")
        new = run.grow(first, extension.tasks)
        run.bound.update((first + index, node) for index, node in extension.nodes)
        run.follow_up.after.update((first + index, tasks) for index, tasks in extension.after)
        run.numbered_here = run.numbered_here or extension.first is None
        run.open = not extension.closed
        whys = extension.whys or ("cancelled",) * len(extension.cancelled)
        for task, why in zip(extension.cancelled, whys, strict=True):
            if run.has(task) and not run.is_settled(task):
                self.withdraw(run, task, why)
        self.changed = True
        withdrawn = extension.cancelled if extension.again else None
        return Grown(first, new, extension.first is not None, withdrawn)

    def withdraw(self, run: StageRun, task: int, why: str) -> None:
        """Nobody wants the task's result any more."""
        end = AttemptEnd(task=task, attempt=0, outcome=Outcome.STOPPED, error=why)
        run.give_up(task, 0, self.leader.node, end.error, b"")
        self.log.ended(run.id, self.leader.node, (end,))
        self.stop_others(run, task)

    def look_at_results(self) -> None:
        """What has been settled since: output parts, and tasks that may give rise to others."""
        for run in self.runs:
            fresh, run.fresh_results = run.fresh_results, []
            holders, run.fresh_holders = run.fresh_holders, []
            if run.plan.grows:
                self.to_unfold += fresh
            for task in dict.fromkeys((*fresh, *holders)) if run.plan.final else ():
                try:
                    self.progress.commit(run, task)
                except JobError as error:
                    self.decide(Phase.FAILED, str(error))
                    return

    def pin_complete(self, *, may_pin: bool) -> None:
        """Have the results of the last stage decided, if there is nothing more to wait for, once they are protected."""
        run = self.runs[-1]
        if may_pin:
            self.log.add(journal.Pin(stage=run.id, generation=run.generation))
            run.pin(self.log.next)
        self._take_decided(run)
        run = self.runs[-1]
        if run.pinned and not run.proposed and self.log.protected >= run.pinned_in:
            run.proposed = True
            self.propose(manifest_cell(run.id, run.generation), run.manifest())

    def propose(self, cell: str, value: bytes) -> None:
        """Have a cell decided."""
        self.effects.append(ProposeCell(job=self.job, cell=cell, value=value))

    def hear(self, cell: str, value: bytes) -> None:
        """Go on from what a cell decided."""
        self.decided[cell] = value
        if cell == FINAL_CELL:
            self._end(Final.decode(value))
            return
        self._take_decided(self.runs[-1])

    def plan_decided(self) -> None:
        """Plan every stage whose predecessor is known to be decided."""
        while (known := len(self.runs)) and self.final is None:
            self._take_decided(self.runs[-1])
            if len(self.runs) == known:
                break

    def _take_decided(self, run: StageRun) -> None:
        """Go on from the manifest of the last stage, if it is decided."""
        if not run.pinned or self.finished or self.cancelling is not None or not self.going_on:
            return
        value = self.decided.get(manifest_cell(run.id, run.generation))
        if value == run.manifest():
            self.plan_next(run)
        elif value is not None:
            run.disown()  # decided by a lineage whose facts are not known here

    def plan_next(self, run: StageRun) -> None:
        """The stage's manifest is decided: what follows?"""
        if run.id in self._deliveries:
            self.finished = True
            return
        id = StageId(run.id.number + 1, run.manifest()[:LINEAGE_BYTES])
        try:
            plan = self.director.next(run.id.number, PinnedResults(run.facts)) or self._deliver(id)
        except JobError as error:
            self.decide(Phase.FAILED, str(error))
            return
        if plan is None:
            self.finished = True
        else:
            self.begin(id, plan)

    def _deliver(self, id: StageId) -> StagePlan | None:
        """The stage behind the last, of a job whose output goes to a URL.

        Raises:
            JobError: a result makes no sense to the director.
        """
        finals = (run for run in self.runs if run.plan.final) if self.spec.options.output else ()
        results = ((task, run.facts.pinned(task)) for run in finals for task in range(run.tasks))
        parts = [part for task, result in results for part in self.director.parts(task, result)]
        if not parts:
            return None
        self._deliveries[id] = Delivery(self.spec.options, parts)
        return self._deliveries[id].stage()

    def input_of(self, id: StageId, task: int) -> TaskInput:
        """What a task of a planned stage needs.

        Raises:
            JobError: a result that it is made from makes no sense to the director.
        """
        if self._follows is not None and (before := self.by_id[id].follow_up.after.get(task)) is not None:
            return self._follows.task_after(task, [self._followed(self.by_id[id], other) for other in before])
        delivery = self._deliveries.get(id)
        return self.director.task(id, task) if delivery is None else delivery.task(task)

    def _followed(self, run: StageRun, task: int) -> Pinned:
        if task in run.follow_up.withdrawn or not run.facts.chosen(task):
            return Pinned(value=b"", blobs=(), holders=(), failed=True)
        return run.facts.pinned(task)

    def abandon_after(self, run: StageRun) -> None:
        """What was planned from this stage's old manifest counts no more."""
        self.finished = False
        position = self.runs.index(run)
        for later in self.runs[position + 1 :]:
            later.abandoned = True
            self.progress.forget(later)
        del self.runs[position + 1 :]
        out = {batch.stage for worker in self.workers.all.values() for batch in worker.batches.values()}
        self.by_id = {id: known for id, known in self.by_id.items() if not known.abandoned or id in out}
        for worker in self.workers.all.values():
            for batch in worker.batches.values():
                if (old := self.by_id[batch.stage]).abandoned:
                    self.stop(worker.node, batch.stage, old.started_by(batch))

    def decide(self, phase: Phase, error: str = "", detail: str = "") -> None:
        """Have the end of the job decided; whatever the cell says ends it."""
        if not self.going_on:
            return
        self.ending = Final(phase, error[:ERROR_CHARACTERS_MAX], detail[:DETAIL_CHARACTERS_MAX])
        if phase is Phase.FAILED:
            self.log.add(journal.Ending(error=self.ending.error, detail=self.ending.detail))
        self.propose(FINAL_CELL, self.ending.encode())

    def cancel(self, reason: str) -> None:
        """Stop everything; the end is decided when every node has confirmed."""
        if self.cancelling is not None or not self.going_on:
            return
        self.cancelling = reason[:ERROR_CHARACTERS_MAX]
        self.log.add(journal.Cancelled(reason=self.cancelling))
        self.changed = True
        for worker in self.workers.all.values():
            if worker.engaged:
                self.say(worker.node, self.stop_all())

    def _end(self, final: Final) -> None:
        if self.final is not None:
            return
        self.final = final
        for run in self.runs:
            run.clear()
        for worker in self.workers.all.values():
            if worker.touched and not worker.lost:
                self.say(worker.node, messages.ForgetJob(job=self.job, ballot=self.ballot))

    def settled(self, worker: Worker, run: StageRun, tasks: int) -> None:
        """The node has done so many tasks."""
        self.tally[worker.node] = self.tally.get(worker.node, 0) + tasks
        if self.names.get(worker.node) != worker.name:
            self.names[worker.node] = worker.name
            self.log.add(journal.Named(node=worker.node, name=worker.name))

    def view(self, now: float) -> JobView:
        """The job as people see it."""
        done = ((self.names.get(node, short(node)), count) for node, count in self.tally.items())
        view = self.progress.view(self.runs, self.workers, self.final, self.cancelling, done)
        oldest = self.log.oldest()
        return msgspec.structs.replace(
            view,
            age_s=max(0.0, now - self.accepted),
            copies=self.copies or view.copies,
            note="" if self.final is not None else self.said or view.note,
            unprotected=self.log.unprotected,
            unprotected_s=0.0 if oldest is None else max(0.0, now - oldest),
            takeovers=self.takeovers,
            history=tuple((node, self.names.get(node, short(node)), age_s) for age_s, node in self.terms),
            backups=self.backups,
            fork=self.fork,
        )

    # --- words ----------------------------------------------------------------------------------------------------

    def stop_all(self) -> messages.StopAttempts:
        """The order to stop whatever runs for this job."""
        return messages.StopAttempts(job=self.job, ballot=self.ballot, stage=self.runs[-1].id)

    def stop(self, node: NodeId, stage: StageId, attempts: tuple[tuple[int, int], ...]) -> None:
        """Stop these attempts."""
        if attempts:
            order = messages.StopAttempts(job=self.job, ballot=self.ballot, stage=stage, attempts=attempts)
            self.say(node, order)

    def say(self, node: NodeId, message: Message) -> None:
        """Send to a worker node."""
        self.effects.append(ToWorker(node=node, message=message))

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step of a job that is not over."""
        if self.final is not None:
            return
        batches = {b.number: b for w in self.workers.all.values() for b in w.batches.values()}
        assert len(batches) == self.workers.batches, "batches are miscounted"
        for worker in self.workers.all.values():
            assert worker.heard <= worker.received, "a report is confirmed that has not come"
            assert not (worker.lost and worker.batches), "a lost node has work"
        for run in self.by_id.values():
            going_on = self.going_on and self.cancelling is None
            run.check_invariants({n: b for n, b in batches.items() if b.stage == run.id}, going_on)


def _requirements(spec: JobSpec) -> Requirements:
    if not spec.options.requires:
        return NOTHING
    from p2premap.tasks import requirements  # few jobs require anything

    return requirements.read(spec.options.requires)
