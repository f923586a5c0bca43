"""Why a job or a task is where it is, in one sentence each, from what its leader knows: for `p2premap why`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from p2premap.ids import NodeId, short
from p2premap.tasks import placement
from p2premap.tasks.job import Outcome
from p2premap.tasks.ledger import FailureFact
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker, Workers

REASONS_SHOWN_MAX: Final = 5

_ENDED: Final = {
    Outcome.RAISED: "raised an exception",
    Outcome.CRASHED: "crashed",
    Outcome.TIME_LIMIT: "exceeded its time limit",
    Outcome.MEMORY_LIMIT: "exceeded its memory limit",
    Outcome.INPUT_LOST: "could not read its input",
    Outcome.STOPPED: "was stopped",
    Outcome.REFUSED: "was refused",
}


def why_job(state: JobState, now: float, *, gathering: bool) -> str:
    """What a job that has not ended does now, and what it waits for.

    Args:
        gathering: its leader has just taken it over, and hands nothing out yet.
    """
    view = state.view(now)
    if state.cancelling is not None:
        return view.note or "It is being cancelled."
    if state.ending is not None:
        return f"It has ended ({state.ending.phase.value}); {_quorum(state)}."
    if gathering:
        return "Its leader has just taken it over and asks every node what it still has of it."
    run = state.runs[-1]
    if run.pinned and not run.absent:
        return f"Every task of stage {run.plan.name} is done; {_quorum(state)}."
    facts = [f"{run.done} of {run.tasks - run.absent} tasks of stage {run.plan.name} are done"]
    if out := sum(batch.left for worker in state.workers.all.values() for batch in worker.batches.values()):
        facts.append(
            f"{out} {'is' if out == 1 else 'are'} out at {_names(w for w in state.workers.all.values() if w.batches)}"
        )
    if run.alone:
        facts.append(f"{len(run.alone)} failed and are tried again, each alone")
    if run.parked:
        facts.append(f"{len(run.parked)} wait for files or results of nodes that were lost or do not answer")
    if run.pending:
        facts.append(f"{run.pending} wait: {why_nobody_takes(state.workers)}")
    elif run.open and run.done == run.tasks - run.absent:
        facts.append("it waits for more of them")
    sentence = "; ".join(facts) + "."
    if unmet := state.workers.unmet():
        waits = "Nothing of it can run: no node has what it requires, and it waits for one that has.\n"
        return waits + placement.table([(name, *lack) for name, lack in unmet])
    return f"{sentence} {view.note}" if state.said else sentence


def why_task(state: JobState, now: float, stage: int, task: int) -> str:
    """Where one task is.

    Args:
        stage: its number; -1: the stage that is worked on now.
    """
    run = next((run for run in state.runs if run.id.number == stage), None) if stage >= 0 else state.runs[-1]
    if run is None:
        last = state.runs[-1]
        return f"Stage {stage} is not planned yet: {last.done} of {last.tasks} tasks of {last.plan.name} are done."
    if not run.has(task):
        return f"Stage {run.id.number} ({run.plan.name}) has no task {task}; it has {run.tasks}."
    name = f"Task {run.id.number}.{task} ({run.plan.name})"
    failed = [fact for fact in run.facts.failures.values() if fact.task == task]
    if task in run.skipped:
        return f"{name} failed for good and was left out: {run.skipped[task]}"
    if run.is_settled(task):
        fact = next(run.facts.facts(task))
        return f"{name} is done, on {_name(state, fact.node)}, by attempt {fact.attempt}{_after(failed)}."
    if run.out[task]:
        return f"{name} {_out(state, run, task, now)}{_after(failed)}."
    if (other := run.follow_up.first_lacking(task, run.is_settled)) is not None:
        return f"{name} waits for the result of task {other}, which is to be its argument."
    if task in run.parked:
        return f"{name} waits until its input can be read: nodes that hold it were lost or do not answer."
    if failed:
        last_failure = failed[-1]
        how = f"attempt {last_failure.attempt} {_ENDED[last_failure.outcome]} on {_name(state, last_failure.node)}"
        left = state.spec.options.attempts_max - run.alone.get(task, 0)
        tries = f", {left} more failures allowed" if task in run.alone else ""
        return f"{name} is to be tried again: {how} ({last_failure.error}){tries}; {_elsewhere(state, run, task)}."
    return f"{name} waits to be handed out: {_elsewhere(state, run, task)}."


def why_nobody_takes(workers: Workers) -> str:
    """Why tasks that wait are with nobody, as half a sentence."""
    known = list(workers.all.values())
    if not known:
        return "no node offers a worker slot"
    rows = [f"{w.name} {reason}" for w in known if (reason := _unfit(workers, w))]
    if not rows:
        return "they are being handed out"
    more = f"; and {len(rows) - REASONS_SHOWN_MAX} more nodes" if len(rows) > REASONS_SHOWN_MAX else ""
    return "; ".join(rows[:REASONS_SHOWN_MAX]) + more


def _unfit(workers: Workers, worker: Worker) -> str:
    """Why this node is given nothing now; "" where it could be."""
    if worker.lost:
        return "is dead or has left"
    if worker.estranged or worker.doubtful:
        return "does not answer"
    if worker.lacks:
        return "lacks " + " and ".join(f"{lack.requires} (it has {lack.has})" for lack in worker.lacks)
    if not worker.slots:
        return "offers no slot"
    if worker.said and any(resting is worker for resting in workers.resting()):
        return f"says: {worker.said}"
    if worker.batches and (not workers.room(worker) or len(worker.batches) >= worker.slots):
        return "is at work"  # the next batch goes there ahead of time only where tasks are short
    return "" if workers.room(worker) else "is full of other jobs"


def _out(state: JobState, run: StageRun, task: int, now: float) -> str:
    where = []
    for worker in state.workers.all.values():
        for batch in worker.batches.values():
            backup = run.backups.get(task)
            second = backup is not None and backup.batch == batch.number
            if batch.stage != run.id or not (run.out[task] == batch.number or second):
                continue
            attempt = backup.attempt if backup is not None and second else run.attempt_of(task)
            others = f", with {batch.left - 1} others of its batch" if batch.left > 1 else ""
            silent = "; that node does not answer now" if worker.doubtful else ""
            since = f"for {max(0.0, now - batch.sent):.1f} s"
            where.append(f"is at {worker.name} as attempt {attempt} {since}{others}{silent}")
    return ", and a second time ".join(where) or "is at a node"


def _elsewhere(state: JobState, run: StageRun, task: int) -> str:
    """Who could take the task, and who not."""
    if (node := run.bound.get(task)) is not None:
        worker = state.workers.all.get(node)
        reason = _unfit(state.workers, worker) if worker is not None else "is not known here"
        return f"it is for {_name(state, node)} alone" + (f", which {reason}" if reason else "")
    avoided = [state.workers.all[node] for node in run.avoid.get(task, {}) if node in state.workers.all]
    kept = f"it keeps away from {_names(avoided)}; " if avoided else ""
    return kept + why_nobody_takes(state.workers)


def _quorum(state: JobState) -> str:
    if state.said:
        return state.said[0].lower() + state.said[1:].rstrip(".")
    if state.log.unprotected:
        return f"{state.log.unprotected} results wait until most of the job's replicas hold them"
    return "its replicas are deciding so"


def _after(failed: list[FailureFact]) -> str:
    if not failed:
        return ""
    last = failed[-1]
    often = f"{len(failed)} failures, the last of which" if len(failed) > 1 else "one that"
    return f", after {often} {_ENDED[last.outcome]}"


def _name(state: JobState, node: NodeId) -> str:
    worker = state.workers.all.get(node)
    return worker.name if worker is not None else state.names.get(node, short(node))


def _names(workers: Iterable[Worker]) -> str:
    names = [worker.name for worker in workers]
    more = len(names) - REASONS_SHOWN_MAX
    return ", ".join(names[:REASONS_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
