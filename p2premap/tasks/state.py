"""The state of one job at its leader: what is computed from facts and decided cells, and who works on it.

The parts of the coordinator share it: `p2premap.tasks.roster` (nodes come and go), `p2premap.tasks.reports` (what
they say), `p2premap.tasks.handout` (what they are given). Here are the decisions: stages are pinned and planned, and
the job ends.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2premap.config import TasksConfig
from p2premap.errors import JobError
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.tasks import messages
from p2premap.tasks.director import Director, StagePlan
from p2premap.tasks.events import CoordinatorEffect, ToWorker
from p2premap.tasks.failures import Failures
from p2premap.tasks.job import JobSpec, Phase, StageId
from p2premap.tasks.ledger import FINAL_CELL, LINEAGE_BYTES, Cells, Decided, Final, PinnedResults, manifest_cell
from p2premap.tasks.locations import Locations
from p2premap.tasks.progress import Leader, Progress
from p2premap.tasks.stage import StageRun
from p2premap.tasks.workers import Worker, Workers
from p2premap.wire import Message

ERROR_CHARACTERS_MAX = 4_000
DETAIL_CHARACTERS_MAX = 60_000


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
        cells: Cells,
    ) -> None:
        self.job = job
        self.spec = spec
        self.ballot = ballot
        self.leader = leader
        self.director = director
        self.config = config
        self.cells = cells
        self.workers = Workers(config)
        self.locations = Locations()
        self.failures = Failures(spec.options, self.workers, config)
        self.progress = Progress(job, spec, leader, director, now)
        self.runs: list[StageRun] = []
        """The stages planned so far, in one lineage."""
        self.by_id: dict[StageId, StageRun] = {}
        """These, and those that were abandoned."""
        self.final: Final | None = None
        self.cancelling: str | None = None
        self.changed = True
        self.effects: list[CoordinatorEffect] = []
        self.begin(StageId(0, b""), director.first())

    @property
    def going_on(self) -> bool:
        """Whether the job has not ended."""
        return self.final is None

    # --- attempts -------------------------------------------------------------------------------------------------

    def release(self, worker: Worker, run: StageRun, task: int) -> None:
        """The attempt that was out is not any more."""
        batch = worker.batches[run.out[task]]
        run.out[task] = 0
        batch.left -= 1
        if batch.left == 0:
            del worker.batches[batch.number]
            self.workers.batches -= 1

    def drop_empty(self, worker: Worker) -> None:
        """Forget the batches of which every attempt has been reported."""
        for batch in [b for b in worker.batches.values() if not b.left]:
            del worker.batches[batch.number]
            self.workers.batches -= 1

    def wait_again(self, run: StageRun, task: int) -> None:
        """The task must be tried again, if nothing else has settled it."""
        if not run.abandoned and not run.is_settled(task):
            run.queue.push(task)

    # --- decisions ------------------------------------------------------------------------------------------------

    def begin(self, id: StageId, plan: StagePlan) -> None:
        """Run a stage."""
        run = StageRun(id, plan, self.config)
        self.runs.append(run)
        self.by_id[id] = run
        self.changed = True

    def look_at_parts(self) -> None:
        """Output parts of what has been settled since."""
        for run in self.runs:
            fresh, run.fresh_results = run.fresh_results, []
            for task in fresh:
                try:
                    self.progress.commit(run, task)
                except JobError as error:
                    self.decide(Phase.FAILED, str(error))
                    return

    def pin_complete(self) -> None:
        """As long as the last stage has all its results, have them decided and plan the next."""
        while self.final is None and self.runs[-1].complete and not self.runs[-1].pinned:
            run = self.runs[-1]
            cell = manifest_cell(run.id.number, run.generation)
            self._hear(self.cells.propose(cell, run.facts.manifest(run.generation)))

    def _hear(self, decided: Iterable[Decided]) -> None:
        """Go on from what cells decided."""
        for cell, value in decided:
            if cell == FINAL_CELL:
                self._end(Final.decode(value))
            else:
                run = self.runs[-1]
                assert cell == manifest_cell(run.id.number, run.generation), "only the last stage's manifest is open"
                assert value == run.facts.manifest(run.generation), "with one replica the decision is what it proposed"
                run.pinned = True
                self._plan_next(run, Digest(value))

    def _plan_next(self, run: StageRun, manifest: Digest) -> None:
        try:
            plan = self.director.next(run.id.number, PinnedResults(run.facts))
        except JobError as error:
            self.decide(Phase.FAILED, str(error))
            return
        if plan is None:
            self.decide(Phase.DONE)
        else:
            self.begin(StageId(run.id.number + 1, manifest[:LINEAGE_BYTES]), plan)

    def abandon_after(self, run: StageRun) -> None:
        """What was planned from this stage's old manifest counts no more."""
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
                    pairs = tuple((t, old.started[t] - 1) for t in batch.tasks if old.out[t] == batch.number)
                    self.say(
                        worker.node,
                        messages.StopAttempts(job=self.job, ballot=self.ballot, stage=batch.stage, attempts=pairs),
                    )

    def decide(self, phase: Phase, error: str = "", detail: str = "") -> None:
        """Have the end of the job decided."""
        final = Final(phase, error[:ERROR_CHARACTERS_MAX], detail[:DETAIL_CHARACTERS_MAX])
        self._hear(self.cells.propose(FINAL_CELL, final.encode()))

    def cancel(self, reason: str) -> None:
        """Stop everything; the end is decided when every node has confirmed."""
        if self.cancelling is not None:
            return
        self.cancelling = reason
        self.changed = True
        for worker in self.workers.all.values():
            if worker.engaged:
                self.say(worker.node, self.stop_all())

    def _end(self, final: Final) -> None:
        if self.final is not None:
            return
        self.final = final
        for run in self.runs:
            run.queue.clear()
        for worker in self.workers.all.values():
            if worker.touched and not worker.lost:
                self.say(worker.node, messages.ForgetJob(job=self.job, ballot=self.ballot))

    # --- words ----------------------------------------------------------------------------------------------------

    def stop_all(self) -> messages.StopAttempts:
        """The order to stop whatever runs for this job."""
        return messages.StopAttempts(job=self.job, ballot=self.ballot, stage=self.runs[-1].id)

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
            assert not (worker.lost and worker.batches), "a lost node has work"
        for run in self.by_id.values():
            run.check_invariants({n: b for n, b in batches.items() if b.stage == run.id}, self.cancelling is None)
