"""What workers say of a job: how attempts ended, and that they are busy."""

from __future__ import annotations

import math
from typing import assert_never

from p2premap.ids import NodeId
from p2premap.tasks import journal, messages
from p2premap.tasks.copies import Copies
from p2premap.tasks.failures import Verdict
from p2premap.tasks.gang import Gang
from p2premap.tasks.job import AttemptEnd, Outcome, Phase
from p2premap.tasks.roster import Roster
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.takeover import Takeover
from p2premap.tasks.words import words_of
from p2premap.tasks.workers import Worker
from p2premap.wire import Message


class Reports:
    """Takes them in.

    Args:
        state: of the job.
        roster: to ask for what was lost on the way.
        takeover: to what a former leader had given out.
        copies: of results.
        gang: of stages that start all at once.
    """

    def __init__(self, state: JobState, roster: Roster, takeover: Takeover, copies: Copies, gang: Gang) -> None:
        self._state = state
        self._roster = roster
        self._takeover = takeover
        self._copies = copies
        self._gang = gang

    def take(self, now: float, node: NodeId, message: Message) -> None:
        """A node says something; under another ballot it changes nothing."""
        worker = self._state.workers.all.get(node)
        if worker is None:
            return
        match message:
            case messages.AttemptsEnded(ballot=self._state.ballot):
                self._on_ended(now, worker, message)
            case messages.Busy(ballot=self._state.ballot):
                self._on_busy(now, worker, message)
            case messages.Holding(ballot=self._state.ballot):
                self._heard_from(now, worker, message.free)
                self._takeover.holding(now, worker, message)
            case messages.Reserved(ballot=self._state.ballot, slots=slots):
                self._gang.reserved(worker, slots)
            case messages.Kept(ballot=self._state.ballot):
                self._copies.kept(now, worker, message)
            case _:
                pass

    def take_ends(self, now: float, worker: Worker, message: messages.AttemptsEnded) -> None:
        """The ends of a report, of a stage that is planned."""
        run = self._state.by_id.get(message.stage)
        if run is not None:
            self._on_ends(now, worker, run, message.ends)

    def _heard_from(self, now: float, worker: Worker, free: int) -> None:
        worker.last_word = now
        worker.allow = free
        if worker.estranged:
            worker.estranged = False
            self._state.workers.update(worker)
            self._roster.welcome_back(now, worker)
            self._copies.seen(now, worker.node, back=False)
        if free and worker.rest_until > now:
            self._state.workers.wake(worker)

    def _on_ended(self, now: float, worker: Worker, message: messages.AttemptsEnded) -> None:
        if message.answers == worker.recounts:
            worker.asked = math.inf
        if message.answers >= worker.owes and message.held == 0:
            worker.owes = 0
        self._heard_from(now, worker, message.free)
        gap = message.serial > worker.received + 1
        if message.serial == worker.received + 1:
            worker.received = message.serial
        if message.stage not in self._state.by_id and self._takeover.early(worker, message):
            worker.early = True
        else:
            self.take_ends(now, worker, message)
        if message.serial and not worker.early:
            self._state.log.reported(worker, worker.received)
        if not self._state.going_on:
            return
        self._rest_if_idle(now, worker)
        self._state.workers.feed(worker)
        self._state.changed = True
        if gap and worker.asked == math.inf:
            self._roster.recount(now, worker)

    def _on_ends(self, now: float, worker: Worker, run: StageRun, ends: tuple[AttemptEnd, ...]) -> None:
        state = self._state
        self._keep_words(worker, run, ends)
        settled, others, seconds = run.commit_plain(worker.node, worker.batches, ends)
        if settled:
            state.log.results(run.id, worker.node, settled)
            state.log.ended(run.id, worker.node, settled)
            state.drop_empty(worker)
        done = len(settled)
        for end in others:
            if not state.going_on:
                return
            if self._on_end(now, worker, run, end):
                done += 1
                seconds += end.seconds
        if done:
            run.sizer.learn(done, seconds)
            run.sizer.sample(ends[-1].seconds)
            run.facts.hash_ahead()
            state.settled(worker, run, done)
            worker.rests = 0
            worker.said = ""
            self._check_size(run)

    def _keep_words(self, worker: Worker, run: StageRun, ends: tuple[AttemptEnd, ...]) -> None:
        for end in ends:
            if not end.detail or not run.has(end.task) or end.attempt >= run.started[end.task]:
                continue
            words = words_of(run.id, worker.node, end)
            if words is not None and self._state.words.take(words):
                self._state.log.add(journal.Said(**words._asdict()))

    def _on_end(self, now: float, worker: Worker, run: StageRun, end: AttemptEnd) -> bool:
        """Take the end of one attempt. True if it settled its task."""
        task = end.task
        if not run.has(task) or end.attempt >= run.started[task]:
            return False  # never given out; the ledger's numbers are narrower than the wire's
        second = (backup := run.backups.get(task)) is not None and backup.attempt == end.attempt
        number = backup.batch if backup is not None and second else run.out[task]
        batch = worker.batches.get(number) if second or run.attempt_of(task) == end.attempt else None
        sent = batch.sent if batch is not None else now
        if batch is not None:
            self._state.release(worker, run, task, second=second)
        if run.abandoned:
            return False
        if end.outcome is Outcome.DONE and run.is_orphan(task, end.attempt):
            if batch is not None:
                self._state.wait_again(run, task)
            return False
        if end.outcome is Outcome.DONE:
            return self._on_done(now, worker, run, end, raced=backup is not None)
        if batch is not None:
            self._on_not_done(now, worker, run, end, sent)
        return False

    def _on_done(self, now: float, worker: Worker, run: StageRun, end: AttemptEnd, *, raced: bool) -> bool:
        state, task = self._state, end.task
        if not run.facts.knows(task, end.attempt, worker.node):
            state.log.results(run.id, worker.node, (end,))
        settled = run.commit(now, worker.node, end, state.locations)
        if not settled and run.pinned and not run.is_settled(task) and run.adopt(task, state.locations):
            state.abandon_after(run)
            settled = True
        if not settled:
            return False
        state.log.ended(run.id, worker.node, (end,))
        state.stop_others(run, task, raced=raced)
        if end.blobs:
            self._copies.want(now, run, task)
        if state.going_on and (run.parked or run is not state.runs[-1]):
            state.reconsider()
        return True

    def _check_size(self, run: StageRun) -> None:
        if run.facts.results.size > self._state.config.ledger_bytes_max:
            self._state.decide(
                Phase.FAILED,
                f"The results that stage {run.plan.name} returns by value are over "
                f"{self._state.config.ledger_bytes_max} bytes together; write them as blobs.",
            )

    def _on_not_done(self, now: float, worker: Worker, run: StageRun, end: AttemptEnd, sent: float) -> None:
        task = end.task
        if self._state.cancelling is not None or run.is_settled(task):
            return
        verdict: Verdict | None = None
        match end.outcome:
            case Outcome.RAISED:
                verdict = self._state.failures.raised(run, worker, end)
            case Outcome.CRASHED | Outcome.TIME_LIMIT | Outcome.MEMORY_LIMIT:
                verdict = self._state.failures.counted(run, worker, end)
            case Outcome.INPUT_LOST:
                verdict = self._on_input_lost(run, worker, end, sent)
            case Outcome.REFUSED:
                run.avoid.setdefault(task, {})[worker.node] = None
                worker.said = f"refuses: {end.error}"
                worker.rests += 1
                self._state.workers.rest(now, worker, self._state.config.busy_retry_s)
            case Outcome.STOPPED:
                pass
            case Outcome.DONE:
                raise AssertionError("a result is not a failure")
            case _:
                assert_never(end.outcome)
        answer = verdict is not None and self._state.skips(run) and not run.facts.chosen(task)
        if (task, end.attempt) in run.facts.failures:
            self._state.log.add(_failed(run, worker, end, answer=answer))
        if verdict is None:
            if task not in run.parked:
                self._state.wait_again(run, task)
        elif answer:
            self._state.give_up(worker, run, end, verdict.error)
        else:
            self._state.decide(Phase.FAILED, verdict.error, verdict.detail)

    def _on_input_lost(self, run: StageRun, worker: Worker, end: AttemptEnd, sent: float) -> Verdict | None:
        """Write off the copies that could not be read, unless better ones have come to be since the task was sent."""
        if end.attempt < run.first_attempt:
            return None  # a former leader told it of holders
        blobs = [
            (source.blob, source.holders)
            for source in self._state.input_of(run.id, end.task).sources
            if source.blob is not None and (source.digest in end.missing or source.blob in end.missing)
        ]
        if not blobs:
            return self._on_file_lost(run, worker, end)
        written_off = False
        for blob, first_holders in blobs:
            told = self._state.locations.known(blob, first_holders)
            certain = self._state.locations.readable(blob, told)
            if certain != told or self._state.locations.made_since(blob, sent):
                continue  # doubtful holders: gossip will know soon; newer copies: it was not told of them
            for holder in certain:
                self._state.locations.unreadable(blob, holder)
                written_off = True
        if not written_off:
            return None
        run.reconsider()
        return self._state.failures.input_lost(run, worker, end)

    def _on_file_lost(self, run: StageRun, worker: Worker, end: AttemptEnd) -> Verdict | None:
        """Counted, if the node should have given the file whose file it is; while that is away, the task waits.

        Until then every other node is asked: one may be on the same machine, or share its file system. Other holders
        have copies, and may not have finished copying when that node went.
        """
        workers = self._state.workers
        owners = {
            source.holders[0]
            for source in self._state.input_of(run.id, end.task).sources
            if source.blob is None and source.digest in end.missing and source.holders
        }
        if all(workers.is_there(owner) for owner in owners):
            return self._state.failures.counted(run, worker, end)
        avoided = run.avoid.setdefault(end.task, {})
        avoided[worker.node] = None
        if not workers.any_eligible_but(avoided):
            del run.avoid[end.task]
            run.parked[end.task] = None
        return None

    def _on_busy(self, now: float, worker: Worker, message: messages.Busy) -> None:
        self._heard_from(now, worker, message.free)
        run = self._state.by_id.get(message.stage)
        if run is not None:
            for task, attempt in message.attempts:
                if task >= run.tasks:
                    continue
                backup = run.backups.get(task)
                if backup is not None and backup.attempt == attempt and backup.batch in worker.batches:
                    self._state.release(worker, run, task, second=True)
                elif run.attempt_of(task) == attempt and run.out[task] in worker.batches:
                    self._state.release(worker, run, task)
                    self._state.wait_again(run, task)
        if message.free == 0:
            self._gang.reserved(worker, 0)
            worker.said = message.reason
            worker.rests = 0
            self._state.workers.rest(now, worker, max(message.retry_s, 0.01))
        else:
            worker.said = ""
            self._state.workers.wake(worker)
        self._state.changed = True

    def _rest_if_idle(self, now: float, worker: Worker) -> None:
        """A node that has no room and nothing of ours will not speak by itself."""
        if worker.allow == 0 and not worker.batches and worker.eligible:
            self._state.workers.rest(now, worker, self._state.config.busy_retry_s)


def _failed(run: StageRun, worker: Worker, end: AttemptEnd, *, answer: bool) -> journal.Failed:
    return journal.Failed(
        stage=run.id,
        task=end.task,
        attempt=end.attempt,
        node=worker.node,
        outcome=end.outcome,
        error=end.error,
        detail=end.detail,
        value=end.value,
        answer=answer,
    )
