"""A stage whose tasks share slots and talk to each other (`StagePlan.shared`): what it yields is of one meeting.

All tasks are handed out at once, under one attempt number, and that is their *meeting* (`p2premap.tasks.meeting`).
Results of two meetings do not belong together: what a task yields depends on what the others have told it, and when.
So a task is settled only by a result of the present meeting, and all start anew where one ends without a result, or
where one's result is lost before all have theirs::

    handed out --every task DONE--> whole: the results are those of this meeting --> pinned
        ^            |
        +------------+  one is STOPPED, REFUSED, lost, ...; or its result can be read nowhere any more

After it has been pinned, what was pinned settles a task as in any stage. But if one of the results can be read nowhere,
all tasks run again, and if they yield anything else than before, the stage is pinned anew with all of it.

A late result may make a former meeting whole, which is as good. A new leader knows from the attempt numbers which
meeting it is that runs, and takes it over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from p2premap.ids import NodeId
from p2premap.tasks.batches import Batch
from p2premap.tasks.job import AttemptEnd
from p2premap.tasks.ledger import ResultFact
from p2premap.tasks.locations import Locations
from p2premap.tasks.stage import StageRun
from p2premap.tasks.waiting import SETTLED, WAITS

NOBODY_MEETS: Final = -1


class SharedRun(StageRun):
    """See the module; the arguments are those of `StageRun`.

    Args:
        meeting: the attempt number of the present meeting.
    """

    meeting = NOBODY_MEETS

    # --- what waits -----------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many tasks could be handed out."""
        return 0 if self.complete else len(self.waiting()) - len(self.parked)

    def waiting(self) -> set[int]:
        """All that neither run nor have a result."""
        return {task for task in range(self.tasks) if not self.out[task] and self._settled[task] != SETTLED}

    def push(self, task: int) -> None:
        """Who waits is seen by what it lacks."""

    def reconsider(self) -> None:
        """Something about nodes or holders changed."""
        self.parked.clear()

    def restore(self) -> None:
        """All that was known has been taken in."""
        if not self.pinned:
            numbers = {fact.attempt for fact in self.facts.facts(0)}
            self.meeting = next((n for n in numbers if all(self._is_chosen(t, n) for t in self._all())), NOBODY_MEETS)
            if self.meeting == NOBODY_MEETS:
                self._unsettle_all()

    # --- the meeting ----------------------------------------------------------------------------------------------

    def resume(self, locations: Locations) -> None:
        """Take over the meeting that a former leader had handed out, if one runs."""
        running = {self.attempt_of(task) for task in self._all() if self.out[task]}
        if self.meeting != NOBODY_MEETS or not running:
            return
        self.meeting = max(running)
        if not self.pinned:
            for task in self._all():
                if not self.out[task] and (fact := self._readable_of(task, self.meeting, locations)) is not None:
                    self._settle_by(task, fact)

    @property
    def runs(self) -> bool:
        """Whether any task is out."""
        return self.out.count(0) < self.tasks

    def holds(self, locations: Locations) -> bool:
        """Whether every task runs in the present meeting, or has ended there with a result that can be read."""
        return self.meeting != NOBODY_MEETS and all(self._stands(task, locations) for task in self._all())

    def close(self, locations: Locations) -> bool:
        """Everybody has ended in the present meeting. Whether that replaces what was pinned."""
        if not self.pinned:
            self._take_whole(self.meeting, locations)
            return False
        for task in sorted(self.waiting()):
            if self._is_readable(task, self.facts.chosen(task), locations):
                self._settle(task)
            elif self.adopt(task, locations):
                return True
        return False

    def find_whole(self, locations: Locations) -> bool:
        """Settle all tasks by what a former meeting has yielded, if all of that can be read."""
        numbers = dict.fromkeys(fact.attempt for fact in self.facts.facts(0))
        return not self.pinned and any(self._take_whole(number, locations) for number in numbers)

    def disperse(self) -> None:
        """The meeting has come to nothing: what it has yielded so far belongs to nothing."""
        self.meeting = NOBODY_MEETS
        if not self.pinned:
            self._unsettle_all()

    def convene(self) -> int:
        """The attempt number of the next meeting, of every task."""
        self.meeting = max(self.started)
        for task in self._all():
            self.started[task] = self.meeting + 1
        return self.meeting

    def _stands(self, task: int, locations: Locations) -> bool:
        if self.out[task]:
            return self.attempt_of(task) == self.meeting
        return self._readable_of(task, self.meeting, locations) is not None

    # --- results --------------------------------------------------------------------------------------------------

    def commit(self, now: float, node: NodeId, end: AttemptEnd, locations: Locations) -> bool:
        """Take a result. True if it settles its task, or makes a former meeting whole."""
        task = end.task
        first = not self.facts.chosen(task)
        ref = self.facts.add(task, end.attempt, node, end.value, end.blobs, end.records_out)
        if first:
            self._add_up(end)
        else:
            for blob in end.blobs:
                locations.made(now, blob.digest, node)
            if self.plan.final:
                self.fresh_holders.append(task)
        fact = ResultFact(end.attempt, node, ref)
        if self.complete or not self._can_be_read(fact, locations):
            return False
        if not self.pinned and end.attempt != self.meeting:
            return self._take_whole(end.attempt, locations)
        if self._settled[task] or (self.pinned and ref != self.facts.chosen(task)):
            return False
        self._settle_by(task, fact)
        return True

    def commit_plain(
        self, node: NodeId, batches: Mapping[int, Batch], ends: Sequence[AttemptEnd]
    ) -> tuple[list[AttemptEnd], list[AttemptEnd], float]:
        """None of these is usual."""
        return [], list(ends), 0.0

    def adopt(self, task: int, locations: Locations) -> bool:
        """Replace what is pinned by what another meeting has yielded, all of it."""
        assert self.pinned, "only what was pinned is replaced"
        if self._is_readable(task, self.facts.chosen(task), locations):
            return False
        numbers = dict.fromkeys(fact.attempt for fact in self.facts.facts(task))
        whole = next((n for n in numbers if self._is_whole(n, locations)), None)
        if whole is None:
            return False
        self.reopen()
        return self._take_whole(whole, locations)

    def _take_whole(self, attempt: int, locations: Locations) -> bool:
        if not self._is_whole(attempt, locations):
            return False
        self.meeting = attempt
        for task in self._all():
            fact = self._readable_of(task, attempt, locations)
            assert fact is not None, "all of it can be read"
            self._settle_by(task, fact)
        return True

    def _settle_by(self, task: int, fact: ResultFact) -> None:
        if fact.result != self.facts.chosen(task) or not self._is_chosen(task, fact.attempt):
            self._choose(task, fact.attempt, fact.node)
        if self._settled[task] != SETTLED:
            self._settle(task)

    def _unsettle_all(self) -> None:
        self._settled[:] = bytes([WAITS]) * self.tasks
        self.done = 0

    def _is_chosen(self, task: int, attempt: int) -> bool:
        """Whether what is chosen was yielded in this meeting."""
        chosen = self.facts.chosen(task)
        return any(fact.attempt == attempt and fact.result == chosen for fact in self.facts.facts(task))

    def _is_whole(self, attempt: int, locations: Locations) -> bool:
        return all(self._readable_of(task, attempt, locations) is not None for task in self._all())

    def _readable_of(self, task: int, attempt: int, locations: Locations) -> ResultFact | None:
        """What the task has yielded in this meeting, as far as it can be read."""
        fact = next((f for f in self.facts.facts(task) if f.attempt == attempt), None)
        return fact if fact is not None and self._is_readable(task, fact.result, locations) else None

    def _find_readable(self, task: int, locations: Locations) -> bool:
        if not self.pinned and not self._is_chosen(task, self.meeting):
            return False
        return self._is_readable(task, self.facts.chosen(task), locations)

    def _all(self) -> range:
        return range(self.tasks)
