"""Where each task of a job is, as rows: for people who look at a job task by task.

A stage may have a million tasks and the node has other things to do: one answer looks at `LOOKED_AT_MAX` of them, and
says where the next one begins. Of a job that is over nothing is kept but its failures, and what attempts printed last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from p2premap.ids import NodeId, short
from p2premap.tasks.job import Failure, Outcome
from p2premap.tasks.ledger import FailureFact
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.words import KEPT_BYTES_MAX, WORDS_BYTES_MAX

LOOKED_AT_MAX: Final = 20_000
FAILURES_KEPT_MAX: Final = 20
FAILURES_TOLD_MAX: Final = 200
"""Attempts, of a job that is over and of one that goes on."""
ERROR_CHARACTERS_MAX: Final = 1_000
DETAIL_CHARACTERS_MAX: Final = 4_000

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


class Try(NamedTuple):
    """One attempt. `outcome`: an `Outcome` by its name, or "running"."""

    attempt: int
    node: NodeId
    node_name: str
    outcome: str
    error: str = ""
    detail: str = ""


class Row(NamedTuple):
    """One task.

    Args:
        state: WAITING, RUNNING, DONE or FAILED.
        node_name: where it runs or ran; "" where it does neither.
        tries: those that run, those that failed, and the one whose result counts.
    """

    stage: int
    stage_name: str
    task: int
    state: str
    node_name: str
    error: str
    tries: tuple[Try, ...]


class Rows(NamedTuple):
    """A page of them. `next`: stage and task from which on others may follow; None: none do."""

    rows: list[Row]
    next: tuple[int, int] | None


def list_tasks(state: JobState, start: tuple[int, int], count: int, stage: int, states: tuple[str, ...]) -> Rows:
    """Tasks of a job that goes on, in order.

    Args:
        start: stage and task of the first that is wanted.
        count: at most so many.
        stage: only of this one; -1: of all.
        states: only in one of these; () means any.
    """
    rows: list[Row] = []
    looked = 0
    for run in state.runs:
        number = run.id.number
        if number < start[0] or stage not in (-1, number):
            continue
        lister = _Lister(state, run)
        for task in range(start[1] if number == start[0] else 0, run.tasks):
            if looked == LOOKED_AT_MAX or len(rows) == count:
                return Rows(rows, (number, task))
            looked += 1
            if run.has(task) and (not states or lister.state(task) in states):
                rows.append(lister.row(task))
    return Rows(rows, None)


def remembered(state: JobState) -> tuple[Failure, ...]:
    """Attempts that failed, the last of them, and what others printed last; of a job that is over not as much."""
    over = state.final is not None
    names = {run.id: run.plan.name for run in state.runs}
    said = (
        Failure(
            stage=words.stage.number,
            stage_name=names.get(words.stage, ""),
            task=words.task,
            attempt=words.attempt,
            node=words.node,
            node_name=_name(state, words.node),
            outcome=Outcome.DONE.name.lower(),
            detail=words.text,
            good=True,
        )
        for words in state.words.last(KEPT_BYTES_MAX if over else WORDS_BYTES_MAX)
    )
    return (*_failures(state, FAILURES_KEPT_MAX if over else FAILURES_TOLD_MAX), *said)


def _failures(state: JobState, most: int) -> tuple[Failure, ...]:
    found = [
        Failure(
            stage=run.id.number,
            stage_name=run.plan.name,
            task=fact.task,
            attempt=fact.attempt,
            node=fact.node,
            node_name=_name(state, fact.node),
            outcome=fact.outcome.name.lower(),
            error=fact.error[:ERROR_CHARACTERS_MAX],
            detail=fact.detail[-DETAIL_CHARACTERS_MAX:],
            good=run.is_settled(fact.task) and fact.task not in run.skipped,
        )
        for run in state.runs
        for fact in run.facts.failures.values()
    ]
    found.reverse()
    return tuple(sorted(found, key=lambda failure: failure.good)[:most])


def list_failures(
    kept: tuple[Failure, ...], start: tuple[int, int], count: int, stage: int, states: tuple[str, ...]
) -> Rows:
    """The tasks of a job that is over of which an attempt failed, or printed something; see `list_tasks`."""
    tasks: dict[tuple[int, int], list[Failure]] = {}
    for failure in kept:
        if stage in (-1, failure.stage) and (failure.stage, failure.task) >= start:
            tasks.setdefault((failure.stage, failure.task), []).append(failure)
    rows = []
    for key in sorted(tasks):
        tries = [
            Try(one.attempt, NodeId(one.node), one.node_name, one.outcome, one.error, one.detail)
            for one in sorted(tasks[key], key=lambda one: one.attempt)
        ]
        one = tasks[key][0]
        state, error = (DONE, "") if one.good else (FAILED, tries[-1].error)
        if not states or state in states:
            rows.append(Row(one.stage, one.stage_name, one.task, state, tries[-1].node_name, error, tuple(tries)))
    return Rows(rows[:count], None)


def _name(state: JobState, node: NodeId) -> str:
    worker = state.workers.all.get(node)
    return worker.name if worker is not None else state.names.get(node, short(node))


class _Lister:
    """Makes rows of one stage."""

    def __init__(self, state: JobState, run: StageRun) -> None:
        self._job = state
        self._run = run
        self._batches = {
            batch.number: worker
            for worker in state.workers.all.values()
            for batch in worker.batches.values()
            if batch.stage == run.id
        }
        self._failures: dict[int, list[FailureFact]] = {}
        for fact in run.facts.failures.values():
            self._failures.setdefault(fact.task, []).append(fact)

    def state(self, task: int) -> str:
        """Of one task."""
        if task in self._run.skipped:
            return FAILED
        if self._run.is_settled(task):
            return DONE
        return RUNNING if self._run.out[task] else WAITING

    def row(self, task: int) -> Row:
        """One task."""
        run, state = self._run, self.state(task)
        tries = [
            self._try(fact.attempt, fact.node, fact.outcome, fact.error, fact.detail)
            for fact in self._failures.get(task, ())
        ]
        if state == DONE:
            chosen = next(iter(run.facts.facts(task)))
            said = self._job.words.of(run.id, task, chosen.attempt, chosen.node)
            tries.append(self._try(chosen.attempt, chosen.node, Outcome.DONE, detail=said))
        tries += self._running(task)
        error = run.skipped.get(task) or (tries[-1].error if tries and state != DONE else "")
        where = tries[-1].node_name if tries and state != WAITING else ""
        return Row(run.id.number, run.plan.name, task, state, where, error, tuple(tries))

    def _running(self, task: int) -> Iterator[Try]:
        run = self._run
        out = [(run.out[task], run.attempt_of(task))] if run.out[task] else []
        if (backup := run.backups.get(task)) is not None:
            out.append((backup.batch, backup.attempt))
        for number, attempt in out:
            if (worker := self._batches.get(number)) is not None:
                yield Try(attempt, worker.node, worker.name, RUNNING)

    def _try(self, attempt: int, node: NodeId, outcome: Outcome, error: str = "", detail: str = "") -> Try:
        return Try(attempt, node, _name(self._job, node), outcome.name.lower(), error, detail)
