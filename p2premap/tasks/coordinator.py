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
from array import array
from collections.abc import Iterable
from typing import assert_never

from p2premap.config import TasksConfig
from p2premap.errors import JobError
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.tasks import messages
from p2premap.tasks.batches import Batch
from p2premap.tasks.director import Director, StagePlan, TaskInput
from p2premap.tasks.events import (
    CancelJob,
    CoordinatorEffect,
    CoordinatorEvent,
    FromWorker,
    JobChanged,
    Tick,
    ToWorker,
    Woke,
    WorkerDoubtful,
    WorkerLost,
    WorkerSeen,
    WorkerUnlinked,
)
from p2premap.tasks.failures import Failures, Verdict
from p2premap.tasks.job import (
    AttemptEnd,
    AttemptSpec,
    JobSpec,
    JobView,
    Outcome,
    Phase,
    Source,
    StageId,
)
from p2premap.tasks.ledger import (
    FINAL_CELL,
    LINEAGE_BYTES,
    Cells,
    Decided,
    Final,
    HomeCells,
    PinnedResults,
    manifest_cell,
)
from p2premap.tasks.locations import Locations
from p2premap.tasks.progress import Leader, Progress
from p2premap.tasks.stage import StageRun
from p2premap.tasks.workers import Worker, Workers
from p2premap.wire import Message


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
        self.ballot = ballot
        self._director = director
        self._config = config
        self._cells = HomeCells() if cells is None else cells
        self._code = Source(
            digest=spec.code.digest, start=0, end=spec.code.size, holders=(leader.node,), blob=spec.code.digest
        )
        self._workers = Workers(config)
        self._locations = Locations()
        self._failures = Failures(spec.options, self._workers, config)
        self._progress = Progress(job, spec, leader, director, now)
        self._runs: list[StageRun] = []
        self._by_id: dict[StageId, StageRun] = {}
        self._final: Final | None = None
        self._cancelling: str | None = None
        self._last_batch = 0
        self._check_at = math.inf
        self._view_at = now
        self._changed = True
        self._effects: list[CoordinatorEffect] = []
        self._begin(StageId(0, b""), director.first())

    # --- the core's face ------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self._final is not None

    def deadline(self) -> float:
        """When it wants a `Tick`."""
        if self._final is not None:
            return math.inf
        return min(self._check_at, self._workers.deadline(), self._view_at if self._changed else math.inf)

    def step(self, now: float, event: CoordinatorEvent) -> list[CoordinatorEffect]:
        """Take one event; say what is to be done."""
        if self._final is not None:
            self._after_end(event)
        else:
            self._take(now, event)
            if self._final is None:
                self._go_on(now)
            self._show(now)
        effects, self._effects = self._effects, []
        return effects

    def view(self, now: float) -> JobView:
        """The job as people see it."""
        return self._progress.view(now, self._runs, self._workers, self._final, self._cancelling)

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step of a job that is not over."""
        if self._final is not None:
            return
        batches = {b.number: b for w in self._workers.all.values() for b in w.batches.values()}
        assert len(batches) == self._workers.batches, "batches are miscounted"
        for worker in self._workers.all.values():
            assert not (worker.lost and worker.batches), "a lost node has work"
        for run in self._by_id.values():
            run.check_invariants({n: b for n, b in batches.items() if b.stage == run.id}, self._cancelling is None)

    def _take(self, now: float, event: CoordinatorEvent) -> None:
        match event:
            case Tick():
                self._workers.wake_due(now)
                self._check_silence(now)
            case WorkerSeen():
                self._on_seen(now, event)
            case WorkerDoubtful(node=node):
                self._on_doubtful(node)
            case WorkerLost(node=node):
                if (worker := self._workers.all.get(node)) is not None and not worker.lost:
                    worker.lost = True
                    self._give_up(worker)
                    self._lose_results(node)
            case WorkerUnlinked(node=node):
                if (worker := self._workers.all.get(node)) is not None and worker.engaged:
                    self._recount(now, worker)
            case Woke(lost_s=lost_s):
                for worker in self._workers.all.values():
                    worker.asked += lost_s
                    worker.last_word += lost_s
            case FromWorker(node=node, message=message):
                if (worker := self._workers.all.get(node)) is not None:
                    self._on_message(now, worker, message)
            case CancelJob(reason=reason):
                self._on_cancel(now, reason)
            case _:
                assert_never(event)

    def _after_end(self, event: CoordinatorEvent) -> None:
        """The job is over: whoever still works for it has not heard so."""
        match event:
            case FromWorker(node=node, message=messages.AttemptsEnded() | messages.Busy()):
                self._say(node, messages.ForgetJob(job=self.job, ballot=self.ballot))
            case WorkerSeen(node=node) if (worker := self._workers.all.get(node)) and worker.touched and worker.lost:
                worker.lost = False
                self._say(node, messages.ForgetJob(job=self.job, ballot=self.ballot))
            case _:
                pass

    # --- nodes come and go ----------------------------------------------------------------------------------------

    def _on_seen(self, now: float, event: WorkerSeen) -> None:
        known = self._workers.all.get(event.node)
        returns = known is not None and known.touched and (known.lost or known.estranged)
        worker = self._workers.see(event.node, event.name, event.slots, event.machine)
        self._locations.trust(event.node)
        if returns:
            self._welcome_back(now, worker)
        for run in self._runs:
            run.recover_results(event.node, self._locations)
            if not self._locations.clear or run.avoid:
                run.reconsider()
        self._changed = True

    def _welcome_back(self, now: float, worker: Worker) -> None:
        """What it finished meanwhile is welcome; what it still runs has been given to others."""
        self._recount(now, worker)
        worker.owes = worker.recounts
        if self._cancelling is None:
            self._say(worker.node, self._stop_all())

    def _on_doubtful(self, node: NodeId) -> None:
        worker = self._workers.all.get(node)
        if worker is None or worker.lost:
            return
        worker.doubtful = True
        self._workers.update(worker)
        self._locations.doubt(node)
        for run in self._runs:
            run.reconsider()
        self._changed = True

    def _give_up(self, worker: Worker) -> None:
        """Its attempts run elsewhere, and cost their tasks nothing."""
        for batch in list(worker.batches.values()):
            run = self._by_id[batch.stage]
            for task in batch.tasks:
                if run.out[task] == batch.number:
                    run.lost_attempts += 1
                    self._release(worker, run, task)
                    self._wait_again(run, task)
        worker.asked = math.inf
        worker.owes = 0
        self._workers.wake(worker)
        self._workers.update(worker)
        self._changed = True

    def _lose_results(self, node: NodeId) -> None:
        self._locations.lose(node)
        for run in self._runs:
            if not run.pinned:
                run.lose_results(node, self._locations)
            run.reconsider()

    # --- what workers say -----------------------------------------------------------------------------------------

    def _on_message(self, now: float, worker: Worker, message: Message) -> None:
        match message:
            case messages.AttemptsEnded():
                if message.ballot == self.ballot:
                    self._on_ended(now, worker, message)
            case messages.Busy():
                if message.ballot == self.ballot:
                    self._on_busy(now, worker, message)
            case _:
                pass  # not said by workers

    def _heard_from(self, now: float, worker: Worker, free: int) -> None:
        worker.last_word = now
        worker.allow = free
        if worker.estranged:
            worker.estranged = False
            self._workers.update(worker)
            self._welcome_back(now, worker)
        if free and worker.rest_until > now:
            self._workers.wake(worker)

    def _on_ended(self, now: float, worker: Worker, message: messages.AttemptsEnded) -> None:
        if message.answers == worker.recounts:
            worker.asked = math.inf
        if message.answers >= worker.owes and message.held == 0:
            worker.owes = 0
        self._heard_from(now, worker, message.free)
        gap = message.serial > worker.heard + 1
        if message.serial == worker.heard + 1:
            worker.heard = message.serial
        run = self._by_id.get(message.stage)
        if run is not None:
            done, seconds = 0, 0.0
            for end in message.ends:
                if self._on_end(now, worker, run, end):
                    done += 1
                    seconds += end.seconds
                if self._final is not None:
                    return
            if done:
                run.sizer.learn(done, seconds)
                worker.done += done
                worker.rests = 0
                worker.said = ""
        self._rest_if_idle(now, worker)
        self._workers.feed(worker)
        self._changed = True
        if gap and worker.asked == math.inf:
            self._recount(now, worker)

    def _on_end(self, now: float, worker: Worker, run: StageRun, end: AttemptEnd) -> bool:
        """Take the end of one attempt. True if it settled its task."""
        task = end.task
        if task >= run.plan.tasks:
            return False
        number = run.out[task]
        batch = worker.batches.get(number) if number and run.started[task] == end.attempt + 1 else None
        sent = batch.sent if batch is not None else now
        if batch is not None:
            self._release(worker, run, task)
        if run.abandoned:
            return False
        if end.outcome is Outcome.DONE:
            return self._on_done(now, worker, run, end)
        if batch is not None:
            self._on_not_done(now, worker, run, end, sent)
        return False

    def _on_done(self, now: float, worker: Worker, run: StageRun, end: AttemptEnd) -> bool:
        task = end.task
        if worker.lost and end.blobs:
            return False
        settled = run.commit(now, worker.node, end, self._locations)
        if not settled and run.pinned and not run.is_settled(task) and run.adopt(task, self._locations):
            self._abandon_after(run)
            settled = True
        if not settled:
            return False
        if run.plan.final:
            try:
                self._progress.commit(run, task)
            except JobError as error:
                self._decide(Phase.FAILED, str(error))
        if run is not self._runs[-1]:
            self._runs[-1].reconsider()
        if run.facts.results.size > self._config.ledger_bytes_max:
            self._decide(
                Phase.FAILED,
                f"The results that stage {run.plan.name} returns by value are over "
                f"{self._config.ledger_bytes_max} bytes together; write them as blobs.",
            )
        return True

    def _on_not_done(self, now: float, worker: Worker, run: StageRun, end: AttemptEnd, sent: float) -> None:
        task = end.task
        if self._cancelling is not None or run.is_settled(task):
            return
        verdict: Verdict = None
        match end.outcome:
            case Outcome.RAISED:
                verdict = self._failures.raised(run, worker, end)
            case Outcome.CRASHED | Outcome.TIME_LIMIT | Outcome.MEMORY_LIMIT:
                verdict = self._failures.counted(run, worker, end)
            case Outcome.INPUT_LOST:
                verdict = self._on_input_lost(run, worker, end, sent)
            case Outcome.REFUSED:
                run.avoid.setdefault(task, {})[worker.node] = None
                worker.said = f"refuses: {end.error}"
                worker.rests += 1
                self._workers.rest(now, worker, self._config.busy_retry_s)
            case Outcome.STOPPED:
                pass
            case Outcome.DONE:
                raise AssertionError("a result is not a failure")
            case _:
                assert_never(end.outcome)
        if verdict is None:
            self._wait_again(run, task)
        else:
            self._decide(Phase.FAILED, *verdict)

    def _on_input_lost(self, run: StageRun, worker: Worker, end: AttemptEnd, sent: float) -> Verdict:
        """Write off the copies that could not be read, unless better ones have come to be since the task was sent."""
        blobs = [
            (source.blob, source.holders)
            for source in self._director.task(run.id, end.task).sources
            if source.blob is not None and (source.digest in end.missing or source.blob in end.missing)
        ]
        if not blobs:
            return self._failures.counted(run, worker, end)
        written_off = False
        for blob, first_holders in blobs:
            told = self._locations.known(blob, first_holders)
            certain = self._locations.readable(blob, told)
            if certain != told or self._locations.made_since(blob, sent):
                continue  # doubtful holders: gossip will know soon; newer copies: it was not told of them
            for holder in certain:
                self._locations.unreadable(blob, holder)
                written_off = True
        if not written_off:
            return None
        run.reconsider()
        return self._failures.input_lost(run, worker, end)

    def _on_busy(self, now: float, worker: Worker, message: messages.Busy) -> None:
        self._heard_from(now, worker, message.free)
        run = self._by_id.get(message.stage)
        if run is not None:
            for task, attempt in message.attempts:
                if task < run.plan.tasks and run.started[task] == attempt + 1 and run.out[task] in worker.batches:
                    self._release(worker, run, task)
                    self._wait_again(run, task)
        if message.free == 0:
            worker.said = message.reason
            worker.rests = 0
            self._workers.rest(now, worker, max(message.retry_s, 0.01))
        else:
            worker.said = ""
            self._workers.wake(worker)
        self._changed = True

    def _rest_if_idle(self, now: float, worker: Worker) -> None:
        """A node that has no room and nothing of ours will not speak by itself."""
        if worker.allow == 0 and not worker.batches and worker.eligible:
            self._workers.rest(now, worker, self._config.busy_retry_s)

    def _release(self, worker: Worker, run: StageRun, task: int) -> None:
        """The attempt that was out is not any more."""
        batch = worker.batches[run.out[task]]
        run.out[task] = 0
        batch.left -= 1
        if batch.left == 0:
            del worker.batches[batch.number]
            self._workers.batches -= 1

    def _wait_again(self, run: StageRun, task: int) -> None:
        if not run.abandoned and not run.is_settled(task):
            run.queue.push(task)

    # --- silence --------------------------------------------------------------------------------------------------

    def _recount(self, now: float, worker: Worker) -> None:
        """Ask what may have been lost on the way."""
        worker.recounts += 1
        out: dict[StageId, list[tuple[int, int]]] = {}
        for batch in worker.batches.values():
            run = self._by_id[batch.stage]
            pairs = out.setdefault(batch.stage, [])
            pairs.extend((t, run.started[t] - 1) for t in batch.tasks if run.out[t] == batch.number)
        for stage, pairs in (out or {self._runs[-1].id: []}).items():
            self._say(
                worker.node,
                messages.Recount(
                    job=self.job,
                    ballot=self.ballot,
                    stage=stage,
                    attempts=tuple(pairs),
                    heard=worker.heard,
                    number=worker.recounts,
                ),
            )
        if self._cancelling is not None:
            self._say(worker.node, self._stop_all())
        worker.asked = min(worker.asked, now)
        self._check_at = min(self._check_at, now + self._config.recount_s / 4)

    def _check_silence(self, now: float) -> None:
        if now < self._check_at:
            return
        self._check_at = math.inf
        for worker in self._workers.all.values():
            if not worker.engaged:
                continue
            if now - worker.asked >= self._config.unanswered_s:
                worker.estranged = True
                self._give_up(worker)
                continue
            if worker.asked == math.inf and now - worker.last_word >= self._config.recount_s:
                self._recount(now, worker)
            self._check_at = now + self._config.recount_s / 4

    # --- stages ---------------------------------------------------------------------------------------------------

    def _begin(self, id: StageId, plan: StagePlan) -> None:
        run = StageRun(id, plan, self._config)
        self._runs.append(run)
        self._by_id[id] = run
        self._changed = True

    def _go_on(self, now: float) -> None:
        if self._cancelling is not None:
            if not any(w.engaged for w in self._workers.all.values()):
                self._decide(Phase.CANCELLED, self._cancelling)
            return
        given = True
        while given and self._final is None:
            self._pin_complete()
            given = self._final is None and self._hand_out(now)

    def _pin_complete(self) -> None:
        """As long as the last stage has all its results, have them decided and plan the next."""
        while self._final is None and self._runs[-1].complete and not self._runs[-1].pinned:
            run = self._runs[-1]
            cell = manifest_cell(run.id.number, run.generation)
            self._hear(self._cells.propose(cell, run.facts.manifest(run.generation)))

    def _hear(self, decided: Iterable[Decided]) -> None:
        """Go on from what cells decided."""
        for cell, value in decided:
            if cell == FINAL_CELL:
                self._end(Final.decode(value))
            else:
                run = self._runs[-1]
                assert cell == manifest_cell(run.id.number, run.generation), "only the last stage's manifest is open"
                assert value == run.facts.manifest(run.generation), "with one replica the decision is what it proposed"
                run.pinned = True
                self._plan_next(run, Digest(value))

    def _plan_next(self, run: StageRun, manifest: Digest) -> None:
        try:
            plan = self._director.next(run.id.number, PinnedResults(run.facts))
        except JobError as error:
            self._decide(Phase.FAILED, str(error))
            return
        if plan is None:
            self._decide(Phase.DONE)
        else:
            self._begin(StageId(run.id.number + 1, manifest[:LINEAGE_BYTES]), plan)

    def _abandon_after(self, run: StageRun) -> None:
        """What was planned from this stage's old manifest counts no more."""
        position = self._runs.index(run)
        for later in self._runs[position + 1 :]:
            later.abandoned = True
            self._progress.forget(later)
        del self._runs[position + 1 :]
        for worker in self._workers.all.values():
            for batch in worker.batches.values():
                if (old := self._by_id[batch.stage]).abandoned:
                    pairs = tuple((t, old.started[t] - 1) for t in batch.tasks if old.out[t] == batch.number)
                    self._say(
                        worker.node,
                        messages.StopAttempts(job=self.job, ballot=self.ballot, stage=batch.stage, attempts=pairs),
                    )

    # --- handing out ----------------------------------------------------------------------------------------------

    def _hand_out(self, now: float) -> bool:
        """Give batches to who has room: idle slots first, then the next batch of busy ones.

        An earlier stage has tasks only where a later one found results missing, and those come first.

        Returns:
            Whether there may be more to do: something was given, or a stage turned out to be planned from lost results.
        """
        given = False
        for run in list(self._runs):
            if run.pending and self._final is None and not run.abandoned:
                given = self._hand_out_of(now, run) or given
        return given or (not self._runs[-1].pinned and self._runs[-1].complete)

    def _hand_out_of(self, now: float, run: StageRun) -> bool:
        """One batch for each node with room. Whether any was given."""
        given = False
        for worker in self._workers.hungry():
            if self._at_limit():
                return False
            if len(worker.batches) >= worker.slots and not run.sizer.ahead(run.pending, self._workers.slots):
                continue
            given = self._give(now, worker, run) or given
            if not run.pending or run.abandoned or self._final is not None:
                break
        return given

    def _at_limit(self) -> bool:
        limit = self.spec.options.parallel_max
        return bool(limit) and self._workers.batches >= limit

    def _give(self, now: float, worker: Worker, run: StageRun) -> bool:
        size = run.sizer.size(run.pending, self._workers.slots)
        taken = run.take(worker, size, self._config.assign_bytes_max, self._workers, self._look)
        if not taken or run.abandoned or self._final is not None:
            return False
        self._last_batch += 1
        specs = []
        for task, input in taken:
            attempt = run.started[task]
            run.started[task] = attempt + 1
            run.out[task] = self._last_batch
            specs.append(AttemptSpec(task=task, attempt=attempt, params=input.params, sources=input.sources))
        if not worker.batches:
            worker.last_word = now
        worker.batches[self._last_batch] = Batch(
            self._last_batch, worker.node, run.id, array("I", [t for t, _ in taken]), len(taken), now
        )
        worker.allow -= 1
        worker.touched = True
        self._workers.batches += 1
        self._workers.feed(worker)
        self._check_at = min(self._check_at, now + self._config.recount_s)
        self._changed = True
        self._say(
            worker.node,
            messages.Assign(
                job=self.job,
                ballot=self.ballot,
                stage=run.id,
                runtime=self._director.runtime,
                function=run.plan.function,
                code=self._code,
                attempts=tuple(specs),
                limits=self.spec.options.limits,
                priority=self.spec.options.priority,
                heard=worker.heard,
            ),
        )
        return True

    def _look(self, run: StageRun, task: int) -> TaskInput | None:
        """A task's input with the holders as they are now; None: it is parked until its sources can be read."""
        if self._final is not None:
            return None
        if run.pinned and run.adopt(task, self._locations):
            self._abandon_after(run)  # meanwhile another result of it has come back
            return None
        try:
            input = self._director.task(run.id, task)
        except JobError as error:
            self._decide(Phase.FAILED, str(error))
            return None
        if self._locations.clear or not input.sources:
            return input
        sources = []
        parked = False
        for source in input.sources:
            if source.blob is not None:
                holders = tuple(self._locations.readable(source.blob, source.holders))
                if not holders:
                    parked = self._repair(source) or parked
                elif holders != source.holders:
                    source = Source(
                        digest=source.digest, start=source.start, end=source.end, holders=holders, blob=source.blob
                    )
            sources.append(source)
        if not parked:
            return TaskInput(params=input.params, sources=tuple(sources))
        run.parked[task] = None
        return None

    def _repair(self, source: Source) -> bool:
        """Have a blob that cannot be read made again. False: nobody here makes it; whoever needs it may try."""
        assert source.blob is not None, "files are not made by tasks"
        if self._locations.known(source.blob, source.holders):
            return True  # a doubtful holder: gossip will know soon
        for run in self._runs:
            if run.pinned and (task := run.producer(source.blob)) is not None:
                if run.adopt(task, self._locations):
                    self._abandon_after(run)
                else:
                    run.unsettle(task)
                return True
        return False

    # --- the end --------------------------------------------------------------------------------------------------

    def _on_cancel(self, now: float, reason: str) -> None:
        if self._cancelling is not None:
            return
        self._cancelling = reason
        for worker in self._workers.all.values():
            if worker.engaged:
                self._say(worker.node, self._stop_all())
        self._changed = True

    def _decide(self, phase: Phase, error: str = "", detail: str = "") -> None:
        self._hear(self._cells.propose(FINAL_CELL, Final(phase=phase, error=error, detail=detail).encode()))

    def _end(self, final: Final) -> None:
        if self._final is not None:
            return
        self._final = final
        for run in self._runs:
            run.queue.clear()
        for worker in self._workers.all.values():
            if worker.touched and not worker.lost:
                self._say(worker.node, messages.ForgetJob(job=self.job, ballot=self.ballot))

    def _show(self, now: float) -> None:
        """Tell watchers, not too often, and always the end; then let go of what only a running job needs."""
        if self._final is None and not (self._changed and now >= self._view_at):
            return
        self._changed = False
        self._view_at = now + self._config.view_s
        self._effects.append(JobChanged(job=self.job, view=self.view(now)))
        if self._final is not None:
            self._runs.clear()
            self._by_id.clear()

    def _stop_all(self) -> messages.StopAttempts:
        return messages.StopAttempts(job=self.job, ballot=self.ballot, stage=self._runs[-1].id)

    def _say(self, node: NodeId, message: Message) -> None:
        self._effects.append(ToWorker(node=node, message=message))
