"""One stage while it runs: which tasks wait, which are out at which batch, which have a result that can be read.

The state of a task, from its leader's side::

    waiting --take--> out --DONE--> settled --its only holders died--> waiting
       ^               |
       +---------------+  STOPPED, REFUSED, Busy, node lost: at no cost
                       +  CRASHED, limits: counted (`p2premap.tasks.coordinator`)

Which of the waiting ones a node is given is in `p2premap.tasks.waiting`. A straggler's task may be out twice
(`p2premap.tasks.backups`). A stage that grows has numbers that nobody has given yet: absent tasks.

When every task has a result the stage is pinned: from then on its results are those of this generation. If one of them
cannot be read anywhere any more and its task yields something else, the next generation is pinned.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from p2premap.config import TasksConfig
from p2premap.ids import Digest, NodeId
from p2premap.tasks.batches import Batch, Sizer
from p2premap.tasks.director import StagePlan
from p2premap.tasks.following import FollowUp
from p2premap.tasks.job import AttemptEnd, Outcome, StageId
from p2premap.tasks.journal import Chosen, Results, columns
from p2premap.tasks.ledger import ResultFact, ResultRef, StageFacts
from p2premap.tasks.locations import Locations
from p2premap.tasks.log import Log
from p2premap.tasks.waiting import ABSENT, SETTLED, WAITS, Waiting


class Backup(NamedTuple):
    """A second attempt of a task that is out: its batch and number."""

    batch: int
    attempt: int


class StageRun(Waiting):
    """A stage in one lineage.

    Args:
        id: names it on the wire.
        plan: the director's.
        config: for batches.
        log: takes the choices among results.
        first_attempt: the lowest number that this leader gives an attempt.
    """

    def __init__(self, id: StageId, plan: StagePlan, config: TasksConfig, log: Log, *, first_attempt: int = 0) -> None:
        super().__init__(plan.tasks)
        self.id = id
        self.plan = plan
        self.tasks = plan.tasks
        self.open = plan.open
        self.numbered_here = False
        """Its leaders number its tasks, in the order in which payloads came."""
        self.facts = StageFacts(plan.tasks)
        self.sizer = Sizer(config)
        self.started = array("I", [first_attempt]) * plan.tasks
        self.adopted: dict[int, int] = {}
        """Tasks that are out under an attempt number of a former leader."""
        self.backups: dict[int, Backup] = {}
        self.done = self.absent = 0
        self.pinned = False
        self.pinned_in = 0
        """The batch of facts that says so."""
        self.proposed = False
        self.generation = 0
        self.abandoned = False
        self.shed = False
        """Its blobs have gone: see `p2premap.tasks.shedding`."""
        """Planned from results that had to be replaced: nothing of it counts any more."""
        self.raised: dict[int, int] = {}
        self.input_losses: dict[int, int] = {}
        self.failed_attempts = self.lost_attempts = self.records_out = self.spilled_bytes = 0
        self.seconds = 0.0
        self.skipped: dict[int, str] = {}
        """Tasks that failed for good, and how."""
        self._tells = plan.final or plan.grows
        self.fresh_results: list[int] = []
        """Of a final stage, or one that grows by itself: tasks whose (new) result has not been looked at."""
        self.fresh_holders: list[int] = []
        """Of a final stage: tasks whose result has one more holder."""
        self._log = log
        self.first_attempt = first_attempt
        self._manifest: Digest | None = None
        self._producers: dict[Digest, int] | None = None
        self.follow_up = FollowUp()

    @property
    def complete(self) -> bool:
        """Whether every task has a result that can be read."""
        return self.done + self.absent == self.tasks and not self.open

    def has(self, task: int) -> bool:
        """Whether there is such a task."""
        return task < self.tasks and self._settled[task] != ABSENT

    def is_settled(self, task: int) -> bool:
        """Whether the task has a result that can be read."""
        return self._settled[task] == SETTLED

    def lacking(self) -> int:
        """How many tasks neither run nor have a result; some that wait may run since a former leader's time."""
        return sum(not (out or settled) for out, settled in zip(self.out, self._settled, strict=True))

    def attempt_of(self, task: int) -> int:
        """The number of the attempt that is out, of a task without a backup or the first of two."""
        if (adopted := self.adopted.get(task)) is not None:
            return adopted
        return self.started[task] - 1

    def started_by(self, batch: Batch) -> tuple[tuple[int, int], ...]:
        """(task, attempt) of what is still out of a batch."""
        number = batch.number
        pairs = [(t, self.attempt_of(t)) for t in batch.tasks if self.out[t] == number]
        if self.backups:
            seconds = ((t, self.backups.get(t)) for t in batch.tasks)
            pairs += [(t, second.attempt) for t, second in seconds if second is not None and second.batch == number]
        return tuple(pairs)

    def check_invariants(self, batches: Mapping[int, Batch], going_on: bool) -> None:
        """For tests: every task waits, is parked, is out, or is settled; and the counts are true.

        Args:
            batches: those of this stage that are out.
            going_on: the job is not being cancelled.
        """
        assert self.done == self._settled.count(SETTLED), "settled tasks are miscounted"
        assert self.absent == self._settled.count(ABSENT), "absent tasks are miscounted"
        out = Counter(self.out)
        if self.backups:
            out.update(second.batch for second in self.backups.values())
        del out[0]
        assert out == {number: batch.left for number, batch in batches.items()}, "attempts that are out are miscounted"
        if going_on and not self.abandoned:
            waiting = self.waiting()
            for task, settled in enumerate(self._settled):
                assert settled or self.out[task] or task in waiting, f"task {task} is forgotten"

    # --- results --------------------------------------------------------------------------------------------------

    def commit(self, now: float, node: NodeId, end: AttemptEnd, locations: Locations) -> bool:
        """Take a result. True if the task was not settled and now is, by this one or by an equal one.

        In a pinned stage only what was pinned settles a task; another result is kept as a fact and changes nothing.
        """
        task = end.task
        first = not self.facts.chosen(task)
        ref = self.facts.add(task, end.attempt, node, end.value, end.blobs, end.records_out)
        if not first:
            for blob in end.blobs:
                locations.made(now, blob.digest, node)
            if self.plan.final:
                self.fresh_holders.append(task)
        elif self._producers is not None:
            self._producers |= {blob.digest: task for blob in end.blobs}
        if self._settled[task] or (self.pinned and ref != self.facts.chosen(task)):
            return False
        if not all(locations.known(blob.digest, (node,)) for blob in end.blobs):
            return False  # a fact, but its only holder is taken for dead
        if ref != self.facts.chosen(task):
            self._choose(task, end.attempt, node)
        self._settle(task)
        if first:
            self._add_up(end)
        return True

    def _add_up(self, end: AttemptEnd) -> None:
        self.records_out += end.records_out
        self.seconds += end.seconds
        self.spilled_bytes += 0 if end.spill is None else end.spill.bytes

    def hold(self, task: int, attempt: int, node: NodeId, holder: NodeId) -> bool:
        """Take that `holder` has a copy of what this attempt at `node` yielded. False: it changes nothing."""
        fresh = self.facts.hold(task, attempt, node, holder)
        if fresh and self.plan.final:
            self.fresh_holders.append(task)
        return fresh

    def commit_plain(
        self, node: NodeId, batches: Mapping[int, Batch], ends: Sequence[AttemptEnd]
    ) -> tuple[list[AttemptEnd], list[AttemptEnd], float]:
        """Take the usual ends, many at a time: a first result without blobs, of an attempt that is out at this node.

        Args:
            batches: of the node.

        Returns:
            The ends that settle their tasks, those that are anything else, and the seconds of the former.
        """
        settled: list[AttemptEnd] = []
        others: list[AttemptEnd] = []
        seconds, records = 0.0, 0
        tasks, out, started, is_settled = self.tasks, self.out, self.started, self._settled
        chosen, done = self.facts.choices, Outcome.DONE
        if self.pinned or self.abandoned:
            return [], list(ends), 0.0
        for end in ends:
            task = end.task
            if (
                end.outcome is done
                and not end.blobs
                and task < tasks
                and (batch := batches.get(out[task])) is not None
                and started[task] == end.attempt + 1
                and not chosen[task]
            ):
                out[task] = 0
                batch.left -= 1
                is_settled[task] = SETTLED
                settled.append(end)
                seconds += end.seconds
                records += end.records_out
                if end.spill is not None:
                    self.spilled_bytes += end.spill.bytes
            else:
                others.append(end)
        self.facts.add_firsts(node, settled)
        self.done += len(settled)
        self.seconds += seconds
        self.records_out += records
        if self._tells:
            self.fresh_results += [end.task for end in settled]
        if self.follow_up.after:
            for end in settled:
                self.hand_in(self.follow_up.ready(end.task))
        return settled, others, seconds

    def adopt(self, task: int, locations: Locations) -> bool:
        """Replace a pinned result, which can be read nowhere, by another that can: the stage is to be pinned anew.

        False: the task has no other.
        """
        assert self.pinned, "only what was pinned is replaced"
        chosen = self.facts.chosen(task)
        if self._is_readable(task, chosen, locations):
            return False
        for fact in list(self.facts.facts(task)):
            if fact.result != chosen and self._can_be_read(fact, locations):
                self.reopen()
                self._choose(task, fact.attempt, fact.node)
                if not self.is_settled(task):
                    self._settle(task)
                return True
        return False

    def disown(self) -> None:
        """What the manifest's cell decided is not what is known here: pin the same results anew."""
        self.reopen()
        task = next(t for t in range(self.tasks) if self.facts.chosen(t))
        fact = next(self.facts.facts(task))
        self._choose(task, fact.attempt, fact.node)

    def reopen(self) -> None:
        """The next generation is to be pinned."""
        self.pinned = self.proposed = False
        self.generation += 1
        self._manifest = None

    def unsettle(self, task: int) -> None:
        """The task's result can be read nowhere: it must run again."""
        if self.is_settled(task):
            self._settled[task] = WAITS
            self.done -= 1
        if not self.out[task]:
            self.push(task)

    def lose_results(self, node: NodeId, locations: Locations) -> None:
        """Send back the tasks whose results only this node held."""
        for task in list(self.facts.held_by(node)):
            if self.is_settled(task) and not self._find_readable(task, locations):
                self.unsettle(task)

    def recover_results(self, node: NodeId, locations: Locations) -> bool:
        """The node is back: what only it holds need not run again. Whether that settled anything."""
        before = self.done
        for task in list(self.facts.held_by(node)):
            self.recover(task, locations)
        return self.done > before

    def recover(self, task: int, locations: Locations) -> None:
        """The task has a result in one more place: if it can be read now, the task need not run again."""
        if not self.is_settled(task) and self._find_readable(task, locations):
            self._settle(task)

    def producer(self, blob: Digest) -> int | None:
        """The task whose chosen result contains this blob."""
        if not self.facts.any_blobs:
            return None
        if self._producers is None:
            chosen = ((t, self.facts.chosen(t)) for t in range(self.tasks))
            self._producers = {b.digest: t for t, ref in chosen if ref for b in self.facts.results.blobs(ref)}
        return self._producers.get(blob)

    def give_up(self, task: int, attempt: int, node: NodeId, error: str, value: bytes) -> None:
        """The task has failed for good, and the job goes on without its result."""
        self.facts.give_up(task, attempt, node, value)
        self.skipped[task] = error
        self._settle(task)

    # --- pinning --------------------------------------------------------------------------------------------------

    def pin(self, serial: int) -> None:
        """Every task has its result.

        Args:
            serial: of the batch of facts that says so.
        """
        if self.absent:
            for task in range(self.tasks):
                if self._settled[task] == ABSENT:
                    self.facts.give_up(task, 0, NodeId(b""), b"")
        self.pinned, self.pinned_in = True, serial

    def manifest(self) -> Digest:
        """What this generation pins."""
        assert self.pinned, "results can still change"
        if self._manifest is None:
            self._manifest = self.facts.manifest(self.generation)
        return self._manifest

    def recall(self, fact: Results) -> int:
        """Take results from the time of a former leader; how many tasks have their first one now."""
        tasks, attempts, values, records, blobs = columns(fact)
        node, facts, settled, end = fact.node, self.facts, self._settled, self.tasks
        fresh: list[int] = []
        for index, task in enumerate(tasks):
            if task >= end or settled[task] == ABSENT or self.is_orphan(task, attempts[index]):
                continue
            if not facts.chosen(task):
                fresh.append(task)
                self.records_out += records[index]
                settled[task] = SETTLED
                if not blobs:
                    facts.add_first(task, attempts[index], node, values[index], records[index])
                    continue
            facts.add(task, attempts[index], node, values[index], blobs.get(index, ()), records[index])
        self.done += len(fresh)
        if fresh:
            self.seconds += fact.seconds
            self.spilled_bytes += fact.spilled
        if self._tells:
            self.fresh_results += fresh
        return len(fresh)

    def prefer(self, task: int, fact: ResultFact) -> None:
        """Take another result of the task than so far."""
        self.facts.choose(task, fact)
        self._producers = None

    def _settle(self, task: int) -> None:
        self._settled[task] = SETTLED
        self.done += 1
        self.drop(task)
        if self._tells:
            self.fresh_results.append(task)
        if self.follow_up.after:
            self.kept_back.discard(task)
            self.hand_in(self.follow_up.ready(task))

    def _choose(self, task: int, attempt: int, node: NodeId) -> None:
        fact = next(f for f in self.facts.facts(task) if f.attempt == attempt and f.node == node)
        self.prefer(task, fact)
        self._log.add(Chosen(stage=self.id, generation=self.generation, task=task, attempt=attempt, node=node))
        if self._tells:
            self.fresh_results.append(task)

    def _find_readable(self, task: int, locations: Locations) -> bool:
        """Whether the chosen result can be read, or, before the stage is pinned, another that is then chosen."""
        chosen = self.facts.chosen(task)
        for fact in list(self.facts.facts(task)):
            if self.pinned and fact.result != chosen:
                continue
            if self._can_be_read(fact, locations):
                if fact.result != chosen:
                    self._choose(task, fact.attempt, fact.node)
                return True
        return False

    def is_certain(self, locations: Locations) -> bool:
        """Whether all that was yielded can be read from nodes beyond doubt: others may be dead and nobody knows yet."""
        return locations.clear or all(
            locations.readable(blob.digest, self.facts.holders(task))
            for task in range(self.tasks)
            for blob in self.facts.results.blobs(self.facts.chosen(task))
        )

    def _is_readable(self, task: int, ref: ResultRef, locations: Locations) -> bool:
        return any(f.result == ref and self._can_be_read(f, locations) for f in self.facts.facts(task))

    def _can_be_read(self, fact: ResultFact, locations: Locations) -> bool:
        return all(locations.known(blob.digest, (fact.node,)) for blob in self.facts.results.blobs(fact.result))

    # --- growing --------------------------------------------------------------------------------------------------

    def grow(self, first: int, tasks: int) -> list[int]:
        """There are these tasks, too; those that are new, which are not handed out before `hand_in`."""
        if (missing := first + tasks - self.tasks) > 0:
            self.facts.grow(missing)
            self.queue.grow(missing)
            self.out.frombytes(bytes(4 * missing))
            self.started.extend([self.first_attempt] * missing)
            self._settled += bytes([ABSENT]) * missing
            self.tasks += missing
            self.absent += missing
        settled = self._settled
        new = [task for task in range(first, first + tasks) if settled[task] == ABSENT]
        for task in new:
            settled[task] = WAITS
        self.absent -= len(new)
        return new

    def must_wait(self, task: int) -> bool:
        """Whether results that it needs are not there yet; it is looked at again when they are."""
        if not self.follow_up.after or not self.follow_up.must_wait(task, self.is_settled):
            return False
        self.kept_back.add(task)
        return True

    def is_orphan(self, task: int, attempt: int) -> bool:
        """Whether another leader gave this attempt results that are not known here."""
        return bool(self.follow_up.after) and self.follow_up.is_orphan(task, attempt, self.facts.chosen_attempt)

    def hand_in(self, tasks: Iterable[int]) -> None:
        """These may be handed out, where they have no result yet."""
        for task in tasks:
            self.kept_back.discard(task)
            if self._settled[task] == WAITS and not self.out[task]:
                self.push(task)

    def restore(self) -> None:
        """All that was known has been taken in: what has no result waits."""
        self.queue.restore(self._settled, WAITS)
        if self.bound:
            for task in (*iter(self.queue.pop, None),):
                self.push(task)
