"""A job as people see it: phases, numbers, output parts, and one sentence about what a waiting job waits for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final as Constant

from p2premap.errors import JobError
from p2premap.ids import JobId, short
from p2premap.tasks import placement
from p2premap.tasks.director import Director, Tells
from p2premap.tasks.inputs import ReadsInputs, dependence, depends_on
from p2premap.tasks.job import JobSpec, JobView, Leader, Part, Phase, StageId, StageView
from p2premap.tasks.ledger import Final
from p2premap.tasks.stage import StageRun
from p2premap.tasks.workers import Worker, Workers

UNMET_SHOWN_MAX: Constant = 100
NAMES_SHOWN_MAX: Constant = 5
SKIPPED_SHOWN_MAX: Constant = 100

PARTS_MAX: Constant = 16_384
"""A view lists every part, and has to fit into a frame."""


class Progress:
    """Turns a coordinator's state into a `JobView`.

    Args:
        leader: for people.
    """

    def __init__(self, job: JobId, spec: JobSpec, leader: Leader, director: Director) -> None:
        self._job = job
        self._spec = spec
        self._leader = leader
        self._director = director
        # asked of a protocol each time, these would cost half of a view
        self._tells = director if isinstance(director, Tells) else None
        self._reads_inputs = isinstance(director, ReadsInputs)
        self._parts: dict[StageId, dict[int, Sequence[Part]]] = {}
        self._count = 0

    def commit(self, run: StageRun, task: int) -> None:
        """A task of a final stage has a (new) result.

        Raises:
            JobError: the result makes no sense to the director.
        """
        made = self._director.parts(task, run.facts.pinned(task))
        if not made:
            return
        parts = self._parts.setdefault(run.id, {})
        self._count += len(made) - len(parts.get(task, ()))
        parts[task] = made
        if self._count > PARTS_MAX:
            raise JobError(f"The output has more than {PARTS_MAX} parts; use larger splits or fewer partitions.")

    def forget(self, run: StageRun) -> None:
        """The stage was abandoned."""
        self._count -= sum(map(len, self._parts.pop(run.id, {}).values()))

    def view(
        self,
        runs: list[StageRun],
        workers: Workers,
        final: Final | None,
        cancelling: str | None,
        done: Iterable[tuple[str, int]],
    ) -> JobView:
        """The job now, as far as tasks go.

        Args:
            done: tasks done by each node.
        """
        if final is not None:
            phase = final.phase
        elif workers.batches or any(run.done for run in runs):
            phase = Phase.RUNNING
        else:
            phase = Phase.WAITING
        all_there = final is not None and final.phase is Phase.DONE
        parts = self._committed(runs, all_there)
        return JobView(
            job=self._job,
            name=self._spec.name,
            kind=self._spec.kind,
            phase=phase,
            leader=self._leader.node,
            leader_name=self._leader.name,
            leader_pid=self._leader.pid,
            age_s=0.0,
            stages=tuple(_stage_view(run, workers, all_there) for run in runs if not run.shed),
            parts=parts,
            nodes=tuple(done),
            error=final.error if final is not None else "",
            detail=final.detail if final is not None else "",
            note="" if final is not None else note(runs, workers, cancelling) or self._dependence(runs, workers),
            part_count=len(parts),
            retries=sum(_retries(run, over=final is not None) for run in runs),
            skipped=_skipped(runs),
            unmet=() if final is not None else tuple((name, *lack) for name, lack in workers.unmet()[:UNMET_SHOWN_MAX]),
            output=self._spec.options.output,
            told=self._tells.tell() if self._tells is not None else b"",
        )

    def _dependence(self, runs: list[StageRun], workers: Workers) -> str:
        """What a person should know as long as inputs are read, where the job has other machines to go on with."""
        if not self._reads_inputs or len(workers.all) < 2 or not runs or runs[0].complete:
            return ""
        home = depends_on(self._director, self._spec.options)
        if home is None:
            return ""
        known = workers.all.get(home)
        return dependence(self._director, self._spec.options, known.name if known is not None else short(home))

    def _committed(self, runs: list[StageRun], all_there: bool) -> tuple[Part, ...]:
        """The parts; of a job that is done all of them, also where a holder has died since."""
        return tuple(
            part
            for run in runs
            for task, made in sorted(self._parts.get(run.id, {}).items(), key=itemgetter(0))
            if all_there or run.is_settled(task)
            for part in made
        )


def _retries(run: StageRun, *, over: bool) -> int:
    """Attempts that followed a failed one: the last failure of a task that is not tried again has none."""
    last = {
        task
        for task, _ in run.facts.failures
        if task in run.skipped or (over and not run.is_settled(task) and not run.out[task])
    }
    return max(0, run.failed_attempts - len(last))


def _skipped(runs: list[StageRun]) -> tuple[tuple[str, int, str], ...]:
    """Tasks that failed for good and were left out, the first of them."""
    found = ((run.plan.name, task, error) for run in runs for task, error in run.skipped.items() if error)
    return tuple(itertools.islice(found, SKIPPED_SHOWN_MAX))


def _stage_view(run: StageRun, workers: Workers, all_there: bool) -> StageView:
    running = sum(b.left for w in workers.all.values() for b in w.batches.values() if b.stage == run.id)
    tasks = run.tasks - run.absent
    return StageView(
        number=run.id.number,
        name=run.plan.name,
        tasks=tasks,
        done=tasks if all_there else run.done,
        running=running,
        failed_attempts=run.failed_attempts,
        lost_attempts=run.lost_attempts,
        bytes_in=run.plan.bytes_in,
        bytes_done=run.plan.bytes_in * run.done // tasks if tasks else 0,
        records_out=run.records_out,
        seconds=run.seconds,
        skipped=sum(map(bool, run.skipped.values())),
        spilled_bytes=run.spilled_bytes,
    )


def note(runs: list[StageRun], workers: Workers, cancelling: str | None) -> str:
    """What the job waits for, in one sentence; "" where it just runs."""
    if cancelling is not None:
        engaged = [w for w in workers.all.values() if w.engaged]
        return f"Waits for these nodes to confirm that nothing of it runs: {_names(engaged)}." if engaged else ""
    waiting = sum(run.pending + len(run.parked) for run in runs)
    if not waiting:
        return _silent(workers)
    if not workers.eligible():
        return _nobody(workers)
    if runs[-1].plan.together and not runs[-1].plan.shared and runs[-1].pending > workers.slots:
        stage = runs[-1]
        return f"Stage {stage.plan.name} needs {stage.pending} worker slots at once; there are {workers.slots}."
    parked = sum(len(run.parked) for run in runs)
    if parked and not workers.batches:
        return f"{parked} tasks wait for files or results of nodes that were lost or do not answer."
    if not workers.batches and (said := [w for w in workers.resting() if w.said]):
        all_say = 1 < len(said) == sum(w.eligible for w in workers.all.values())
        return f"{waiting} tasks wait; {'no node takes them; ' if all_say else ''}{said[0].name} says: {said[0].said}"
    return ""


def _silent(workers: Workers) -> str:
    silent = [w for w in workers.all.values() if w.batches and w.doubtful]
    return f"Waits for attempts on nodes that do not answer: {_names(silent)}." if silent else ""


def _nobody(workers: Workers) -> str:
    if unmet := workers.unmet():
        return f"No node has what the job requires, so it waits for one that has: {placement.sentence(unmet)}."
    if doubtful := [w for w in workers.all.values() if w.doubtful or w.estranged]:
        return f"No node can take work now; no answer from {_names(doubtful)}."
    return "No node offers a worker slot; start one with `p2premap node`."


def _names(workers: list[Worker]) -> str:
    names = [w.name for w in workers[:NAMES_SHOWN_MAX]]
    if more := len(workers) - len(names):
        names.append(f"{more} more")
    return ", ".join(names)
