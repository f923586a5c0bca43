"""A stage that grows while it runs: payloads come in, the director says which tasks they add.

A payload is a fact, and is answered when it is protected. Its tasks are handed out at once where whoever sent it has
numbered them, since then a number means the same task at every leader. Else the leader numbers them, and they wait for
the payload's protection: a successor that had not heard of it would number others so, and take their results for
these.

Payloads come from a client (`Growth.extend`), or from the results of the stage itself, where the director says so
(`p2premap.tasks.director.Unfolds`): a successor asks it again about every result that it has read. And a stage may be
for each node, or end after a time (`p2premap.tasks.director.Lasting`): the leader tells the director who is there, and
when it is over, and what the director makes of that is a payload, too.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple

from p2premap.errors import JobError
from p2premap.ids import NodeId
from p2premap.tasks.director import Lasting, Unfolds
from p2premap.tasks.events import Extend, Extended, TasksEnded
from p2premap.tasks.job import AttemptEnd, Outcome, Phase
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import Grown, JobState

RETOLD_AT_ONCE: Final = 1_000

PAYLOAD_BYTES_MAX: Final = 2 << 20
"""Of one payload: a batch of facts has to fit into a frame."""


class _New(NamedTuple):
    serial: int
    run: StageRun
    tasks: list[int]


class Growth:
    """One job's extensions.

    Args:
        state: of the job.
    """

    def __init__(self, state: JobState) -> None:
        self._state = state
        # asked once: to ask whether something is of a protocol takes as long as a step
        self._unfolds = state.director if isinstance(state.director, Unfolds) else None
        self._lasting = state.director if isinstance(state.director, Lasting) else None
        self._waiting: deque[_New] = deque()
        self._met: set[NodeId] = set()
        self._looked_at = -math.inf

    def deadline(self) -> float:
        """When an open stage may be over."""
        until = self._until() if self._state.cancelling is None else math.inf
        return until if until > self._looked_at else math.inf

    def extend(self, event: Extend) -> None:
        """Take a payload."""
        state = self._state
        run = state.runs[-1]
        if len(event.payload) > PAYLOAD_BYTES_MAX:
            error = f"An extension has {len(event.payload)} bytes; a batch of facts carries {PAYLOAD_BYTES_MAX}."
            state.effects.append(self._answer(event, run, error=error))
            return
        try:
            grown = state.extend(event.payload)
        except JobError as error:
            state.effects.append(self._answer(event, run, error=str(error)))
            return
        self._take(run, grown, event.payload, self._answer(event, run, first=grown.first, tasks=len(grown.new)))
        if grown.withdrawn is not None:
            run.hand_in(run.follow_up.heard(grown.withdrawn))

    def unfold(self) -> None:
        """Take what the results that have come since give rise to."""
        state = self._state
        fresh, state.to_unfold = state.to_unfold, []
        if not fresh or self._unfolds is None:
            return
        run = state.runs[-1]
        for task in fresh:
            if not run.open or not run.is_settled(task):  # what was lost again is asked about when it has come again
                continue
            try:
                payload = self._unfolds.unfold(task, run.facts.pinned(task))
                if payload is not None:
                    self._take(run, state.extend(payload), payload)
            except JobError as error:
                state.decide(Phase.FAILED, str(error))
                return

    def tend(self, now: float) -> None:
        """Give nodes that have come their own tasks, and close the stage when it is over."""
        state, director = self._state, self._lasting
        run = state.runs[-1]
        if director is None or not run.open:
            return
        try:
            if run.plan.each_node:
                self._meet(run, director)
            self._looked_at = now
            if now >= self._until() and (without := self._not_waited_for(run)) is not None:
                payload = director.close(without)
                self._take(run, state.extend(payload), payload)
        except JobError as error:
            state.decide(Phase.FAILED, str(error))

    def _until(self) -> float:
        run = self._state.runs[-1]
        return self._state.accepted + run.plan.lasts_s if run.open else math.inf

    def _meet(self, run: StageRun, director: Lasting) -> None:
        for worker in self._state.workers.all.values():
            if worker.eligible and worker.node not in self._met:
                self._met.add(worker.node)
                payload = director.meet(worker.node, worker.name)
                if payload is not None:
                    self._take(run, self._state.extend(payload), payload)

    def _not_waited_for(self, run: StageRun) -> tuple[int, ...] | None:
        """The tasks without a result that a stage whose time is over does without; None: others are to end first."""
        rest = [task for task in range(run.tasks) if run.has(task) and not run.is_settled(task)]
        if not run.plan.each_node:
            return tuple(task for task in rest if not run.out[task])
        if not run.done or any(self._is_there(run.bound[task]) for task in rest):
            return None
        return tuple(rest)

    def _is_there(self, node: NodeId) -> bool:
        worker = self._state.workers.all.get(node)
        return worker is not None and worker.slots > 0 and not (worker.lost or worker.estranged)

    def _take(self, run: StageRun, grown: Grown, payload: bytes, answer: Extended | None = None) -> None:
        state = self._state
        state.log.extended(payload, answer)
        if grown.numbered:
            run.hand_in(grown.new)
        elif grown.new:
            run.kept_back.update(grown.new)
            self._waiting.append(_New(state.log.next, run, grown.new))

    def protected(self, serial: int) -> None:
        """A quorum has the payloads up to this batch."""
        while self._waiting and self._waiting[0].serial <= serial:
            _, run, tasks = self._waiting.popleft()
            run.hand_in(tasks)

    def retell(self, first: int) -> list[TasksEnded]:
        """The ends of tasks from this number on, once more."""
        run = self._state.runs[0]
        told: list[TasksEnded] = []
        ends: list[AttemptEnd] = []
        of: NodeId | None = None
        for task in range(first, run.tasks):
            if not run.is_settled(task):
                continue
            node, end = _end_of(run, task)
            if ends and of is not None and (node != of or len(ends) >= RETOLD_AT_ONCE):
                told.append(TasksEnded(job=self._state.job, stage=run.id, node=of, ends=tuple(ends)))
                ends = []
            of = node
            ends.append(end)
        if ends and of is not None:
            told.append(TasksEnded(job=self._state.job, stage=run.id, node=of, ends=tuple(ends)))
        return told

    def _answer(self, event: Extend, run: StageRun, *, first: int = 0, tasks: int = 0, error: str = "") -> Extended:
        job, request = self._state.job, event.request
        return Extended(job=job, request=request, stage=run.id, first=first, tasks=tasks, error=error)


def _end_of(run: StageRun, task: int) -> tuple[NodeId, AttemptEnd]:
    """How a settled task ended, and where the blobs of its result are."""
    fact = next(run.facts.facts(task))
    value, blobs, records_out = run.facts.results.get(fact.result)
    if not run.facts.results.failed(fact.result):
        outcome, error, detail = Outcome.DONE, "", ""
    elif (failure := run.facts.failures.get((task, fact.attempt))) is not None:
        outcome, error, detail = failure.outcome, failure.error, failure.detail
    else:
        outcome, error, detail = Outcome.STOPPED, run.skipped.get(task, ""), ""
    end = AttemptEnd(
        task=task,
        attempt=fact.attempt,
        outcome=outcome,
        value=value,
        blobs=blobs,
        error=error,
        detail=detail,
        records_out=records_out,
    )
    return fact.node, end
