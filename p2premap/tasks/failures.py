"""Which failures cost a task what, and when they end the job.

=================================  =====================================================================
RAISED                             the task's answer: the job fails, unless `retries` are left
CRASHED, TIME_LIMIT, MEMORY_LIMIT  counted; `attempts_max` of them, on 2 nodes if 2 are eligible: poison
INPUT_LOST                         a file or an unknown blob: counted like a crash, if a node that has it lives
                                   a result that can be made again: `input_losses_max`; lost, not failed
STOPPED, REFUSED, node lost        cost the task nothing
=================================  =====================================================================
"""

from __future__ import annotations

from typing import NamedTuple

from p2premap.config import TasksConfig
from p2premap.tasks.job import AttemptEnd, JobOptions, Outcome
from p2premap.tasks.journal import Failed
from p2premap.tasks.ledger import FailureFact
from p2premap.tasks.stage import StageRun
from p2premap.tasks.workers import Worker, Workers


class Verdict(NamedTuple):
    """The task has failed for good: one sentence, and what is known beside."""

    error: str
    detail: str


_HOW = {
    Outcome.RAISED: "raised an exception",
    Outcome.CRASHED: "crashed its worker process",
    Outcome.TIME_LIMIT: "exceeded its time limit",
    Outcome.MEMORY_LIMIT: "exceeded its memory limit",
    Outcome.INPUT_LOST: "could not read its input",
}


class Failures:
    """The policy for one job.

    Args:
        options: of the job.
        workers: to know whether a task could still be tried elsewhere.
        config: limits.
    """

    def __init__(self, options: JobOptions, workers: Workers, config: TasksConfig) -> None:
        self._options = options
        self._workers = workers
        self._config = config

    def raised(self, run: StageRun, worker: Worker, end: AttemptEnd) -> Verdict | None:
        """User code raised."""
        self._note(run, worker, end)
        times = run.raised[end.task] = run.raised.get(end.task, 0) + 1
        if times <= self._options.retries:
            return None
        return Verdict(self._sentence(run, worker, end, times), end.detail)

    def counted(self, run: StageRun, worker: Worker, end: AttemptEnd) -> Verdict | None:
        """A crash, an exceeded limit, or an input that nobody can make again."""
        self._note(run, worker, end)
        avoided = run.avoid.setdefault(end.task, {})
        avoided[worker.node] = None
        times = run.alone[end.task] = run.alone.get(end.task, 0) + 1
        if times < self._options.attempts_max:
            return None
        failed_at = {f.node for f in run.facts.failures.values() if f.task == end.task}
        if len(failed_at) < 2 and end.task not in run.bound and self._workers.any_eligible_but(avoided):
            return None
        return Verdict(self._sentence(run, worker, end, times), end.detail)

    def input_lost(self, run: StageRun, worker: Worker, end: AttemptEnd) -> Verdict | None:
        """A node, which may be dying, could not deliver a result that another task can make again."""
        times = run.input_losses[end.task] = run.input_losses.get(end.task, 0) + 1
        self._note(run, worker, end, lost=times <= self._config.input_losses_max)
        if times <= self._config.input_losses_max:
            return None
        return Verdict(self._sentence(run, worker, end, times), end.detail)

    def recall(self, run: StageRun, failed: Failed) -> None:
        """A failure from the time of a former leader."""
        task = failed.task
        lost = failed.outcome is Outcome.INPUT_LOST and run.input_losses.get(task, 0) < self._config.input_losses_max
        _count(run, lost=lost)
        run.facts.fail(FailureFact(task, failed.attempt, failed.node, failed.outcome, failed.error, failed.detail))
        if failed.outcome is Outcome.RAISED:
            run.raised[task] = run.raised.get(task, 0) + 1
        elif failed.outcome is Outcome.INPUT_LOST:
            run.input_losses[task] = run.input_losses.get(task, 0) + 1
        else:
            run.alone[task] = run.alone.get(task, 0) + 1
            run.avoid.setdefault(task, {})[failed.node] = None

    def _note(self, run: StageRun, worker: Worker, end: AttemptEnd, *, lost: bool = False) -> None:
        _count(run, lost=lost)
        run.facts.fail(FailureFact(end.task, end.attempt, worker.node, end.outcome, end.error, end.detail))

    def _sentence(self, run: StageRun, worker: Worker, end: AttemptEnd, times: int) -> str:
        often = f" {times} times, at last" if times > 1 else ""
        said = f": {end.error}" if end.error else "."
        return f"Task {end.task} of stage {run.plan.name} {_HOW[end.outcome]}{often} on {worker.name}{said}"


def _count(run: StageRun, *, lost: bool) -> None:
    """An attempt failed, or was lost with what it was to read."""
    if lost:
        run.lost_attempts += 1
    else:
        run.failed_attempts += 1
