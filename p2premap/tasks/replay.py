"""From a job's history to the state that its last leader was in.

The batches are taken in the order in which every leader takes them, so the results that are chosen, the generations
and the stages come out as they were; see `p2premap.tasks.journal` for what is written. The history may end with what a
deposed leader had appended and nobody else took into account: a record that no longer makes sense (of a stage that is
not in this lineage, of a generation that is past, of a task that does not exist) is passed over, by every later leader
alike.

A stage is planned here as soon as a record of it shows up: its leader had planned it, so the manifest before it was
decided, and the results that it pinned are those at the mark `Pin`. Whether a node still holds what it yielded is not
known yet; all are trusted until the takeover has looked (`p2premap.tasks.takeover`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from p2premap.errors import JobError
from p2premap.ids import NodeId
from p2premap.tasks import journal
from p2premap.tasks.job import BlobRef, Phase, StageId
from p2premap.tasks.ledger import LINEAGE_BYTES, Final, ResultFact
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.words import Words


class Replay:
    """Takes in a history.

    Args:
        state: of a job whose first stage is planned, and nothing else.
    """

    def __init__(self, state: JobState) -> None:
        self._state = state
        self._now = self._age_s = 0.0

    def take(self, now: float, history: Iterable[bytes]) -> None:
        """All of it.

        Raises:
            RemoteProtocolError: it was not written by this version.
            JobError: the director cannot go on from it.
        """
        state = self._state
        self._now = now
        for data in history:
            batch = journal.decode(data)
            state.accepted = min(state.accepted, now - batch.age_s)
            self._age_s = batch.age_s
            for fact in batch.facts:
                self._take(fact)
        for run in state.runs:
            run.restore()
            if run.done:
                run.sizer.learn(run.done, run.seconds)
        state.log.clear()

    def _take(self, fact: journal.Fact) -> None:
        state = self._state
        match fact:
            case journal.Extended(payload=payload):
                with contextlib.suppress(JobError):  # said when it came: of a stage that has been closed since
                    state.extend(payload)
            case journal.Cancelled(reason=reason):
                state.cancelling = state.cancelling or reason
            case journal.Ending(error=error, detail=detail):
                state.ending = state.ending or Final(Phase.FAILED, error, detail)
            case journal.Term(leader=leader):
                state.begin_term(self._age_s, leader)
            case journal.Named(node=node, name=name):
                state.names[node] = name
            case journal.Said(stage=stage, task=task, attempt=attempt, node=node, text=text):
                state.words.take(Words(stage, task, attempt, node, text))
            case _:
                run = self._run(fact.stage)
                if run is not None:
                    self._of_stage(run, fact)

    def _of_stage(
        self,
        run: StageRun,
        fact: journal.Results | journal.Failed | journal.Chosen | journal.Held | journal.Pin | journal.Lost,
    ) -> None:
        match fact:
            case journal.Results(node=node):
                if fresh := run.recall(fact):
                    self._state.tally[node] = self._state.tally.get(node, 0) + fresh
                if run.pinned:
                    self._made(node, journal.blobs_of(fact))
            case journal.Failed(task=task):
                if run.has(task):
                    self._failed(run, fact)
            case journal.Chosen():
                self._chosen(run, fact)
            case journal.Held(task=task, attempt=attempt, node=node, holder=holder):
                if run.has(task) and run.facts.hold(task, attempt, node, holder) and run.pinned:
                    held = _find(run, task, attempt, holder)
                    self._made(holder, run.facts.results.blobs(held.result) if held is not None else ())
            case journal.Lost(attempts=attempts):
                run.lost_attempts += attempts
            case journal.Pin(generation=generation):
                if run is self._state.runs[-1] and generation == run.generation and run.complete and not run.pinned:
                    run.pin(self._state.log.next)

    def _made(self, node: NodeId, blobs: Iterable[BlobRef]) -> None:
        """A holder that the director was not told of when it planned what reads these."""
        for blob in blobs:
            self._state.locations.made(self._now, blob.digest, node)

    def _run(self, id: StageId) -> StageRun | None:
        """The stage, which is planned now if it follows from what is pinned; None: it is not in this lineage."""
        state = self._state
        run = state.by_id.get(id)
        if run is not None:
            return None if run.abandoned else run
        last = state.runs[-1]
        if not last.pinned or id.number != last.id.number + 1 or id.lineage != last.manifest()[:LINEAGE_BYTES]:
            return None
        state.plan_next(last)
        return state.by_id.get(id)

    def _failed(self, run: StageRun, fact: journal.Failed) -> None:
        self._state.failures.recall(run, fact)
        if fact.answer and not run.facts.chosen(fact.task):
            run.give_up(fact.task, fact.attempt, fact.node, fact.error, fact.value)

    def _chosen(self, run: StageRun, fact: journal.Chosen) -> None:
        """Another result than the first is taken, in this generation or as the beginning of the next."""
        if not run.has(fact.task) or (found := _find(run, fact.task, fact.attempt, fact.node)) is None:
            return
        if fact.generation == run.generation and not run.pinned:
            run.prefer(fact.task, found)
        elif fact.generation == run.generation + 1 and run.pinned:
            run.reopen()
            run.prefer(fact.task, found)
            self._state.abandon_after(run)


def _find(run: StageRun, task: int, attempt: int, node: NodeId) -> ResultFact | None:
    return next((f for f in run.facts.facts(task) if f.attempt == attempt and f.node == node), None)
