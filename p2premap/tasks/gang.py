"""Stages whose tasks start all at once, or not at all (`StagePlan.together`): their slots are reserved first.

The leader asks every node that can work for idle slots (`Reserve`), again and again while it waits, and is told
whenever what is kept for it changes (`Reserved`), or why a node does not run such tasks (`Busy`). Once that is enough
for every task that waits, they are handed out, one to a slot. If then one comes back without a result (its node is
lost, it crashed, or an older job had taken the slot meanwhile), the others are stopped, and all of them wait again:
they need each other, and whoever holds a part of what it needs holds up everybody.

Where tasks share slots (`StagePlan.shared`) it is enough when everybody keeps all that it has; where that takes long,
when somebody keeps anything. Then they are dealt out over what is kept (`p2premap.tasks.meeting.deal`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from p2premap.ids import NodeId
from p2premap.tasks import messages
from p2premap.tasks.job import Source
from p2premap.tasks.shared import SharedRun
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker

TOLD_S: Final = 2.0
SILENT_S: Final = 2.0
"""A node that does not even say that it has no idle slot is not waited for any longer."""

Give = Callable[[float, Worker, StageRun, int], bool]
"""Gives a worker a batch of so many tasks; whether it could."""

Meet = Callable[[float, SharedRun, Mapping[NodeId, int]], bool]
"""Deals all tasks out over these slots; whether it could."""


class Gang:
    """One job's reservations.

    Args:
        state: of the job.
        give: hands out.
        meet: hands out what shares slots.
        environment: in which the tasks run; None: the nodes' own.
    """

    def __init__(self, state: JobState, give: Give, meet: Meet, environment: Source | None) -> None:
        self._state = state
        self._give = give
        self._meet = meet
        self._environment = environment
        self._kept: dict[NodeId, int] = {}
        self._asked: set[NodeId] = set()
        self._stopped: set[int] = set()
        self._again = self._since = math.inf
        self._told_by = math.inf
        """When a new leader waits no more for who has not said what it runs."""

    def deadline(self) -> float:
        """When reservations are to be renewed."""
        state = self._state
        waiting = [run for run in state.runs if run.plan.together and run.pending]
        if not waiting or not state.going_on or state.cancelling is not None:
            return math.inf
        told_by = self._told_by if self._told_by > 0 and any(run.plan.shared for run in waiting) else math.inf
        return min(self._again, told_by) if self._asked else told_by

    def reserved(self, worker: Worker, slots: int) -> None:
        """A node says how many idle slots it keeps for the job."""
        if worker.node in self._asked:
            self._kept[worker.node] = slots

    def lost(self, node: NodeId) -> None:
        """A node is dead, or does not answer."""
        self._kept.pop(node, None)
        self._asked.discard(node)

    def unlinked(self, node: NodeId) -> None:
        """What was under way to a node may be lost: it is told again to stop."""
        if (worker := self._state.workers.all.get(node)) is not None:
            self._stopped.difference_update(worker.batches)

    def hand_out(self, now: float, run: StageRun) -> bool:
        """Hand out all tasks that wait, if they can start at once. Whether any was given."""
        lacking = run.lacking()
        if not lacking or self._cannot(now, run):
            return False
        able = {w.node: w for w in self._state.workers.all.values() if w.eligible}
        kept = self._gather(now, run, able, lacking)
        if kept is None:
            return False
        given = False
        for node, slots in sorted(kept.items(), key=lambda pair: (-pair[1], pair[0])):
            for _ in range(min(slots, run.pending)):
                given = self._give(now, able[node], run, 1) or given
        self._release(run)
        return given

    def tend(self, now: float, run: SharedRun) -> bool:
        """See to a stage whose tasks share slots. Whether there may be more to do."""
        state = self._state
        run.resume(state.locations)
        if not run.complete:
            if run.holds(state.locations):
                if run.runs:
                    return False
                if run.close(state.locations):
                    state.abandon_after(run)
                return True
            if run.find_whole(state.locations):
                return True
            if self._may_be_told(now):
                return False
            run.disperse()
        if self._cannot(now, run) or run.complete:
            return False
        kept = self._gather(now, run, *self._wanted(run))
        if kept is None:
            return False
        if not self._meet(now, run, kept):
            self._put_off(now)
            return False
        self._release(run)
        return True

    def _may_be_told(self, now: float) -> bool:
        """Whether nodes have yet to say what they run: a former leader's gang is not to begin anew in the meantime."""
        silent = any(w.census and not (w.lost or w.estranged) for w in self._state.workers.all.values())
        if silent and self._told_by == math.inf:
            self._told_by = now + TOLD_S
        if not silent or now >= self._told_by:
            self._told_by = -math.inf  # from now on nobody is waited for
        return self._told_by > now

    def _wanted(self, run: SharedRun) -> tuple[dict[NodeId, Worker], int]:
        """Who may run the stage's tasks, and how many slots it could use, those of nodes in doubt included."""
        workers = self._state.workers.all.values()
        able = {w.node: w for w in workers if w.eligible}
        avoided = {node for nodes in run.avoid.values() for node in nodes}
        able = {node: worker for node, worker in able.items() if node not in avoided} or able
        doubtful = sum(w.slots for w in workers if w.doubtful and not (w.lost or w.estranged or w.node in avoided))
        limit = self._state.spec.options.parallel_max or run.tasks
        return able, min(limit, run.tasks, sum(worker.slots for worker in able.values()) + doubtful)

    def _cannot(self, now: float, run: StageRun) -> bool:
        """Whether the stage is to wait: its inputs cannot be read, or something of it runs still, and is stopped."""
        if not (run.parked or self._some_run(run)):
            return False
        self._put_off(now)
        return True

    def _put_off(self, now: float) -> None:
        if self._again <= now:
            self._again = now + self._state.config.reserve_s / 4

    def _gather(
        self, now: float, run: StageRun, able: Mapping[NodeId, Worker], wanted: int
    ) -> dict[NodeId, int] | None:
        """The slots that are kept, if they are enough; else more are asked for."""
        kept = {node: slots for node, slots in self._kept.items() if node in able and slots}
        if kept and (sum(kept.values()) >= wanted or (run.plan.shared and self._is_late(now, able))):
            return kept
        self._ask(now, run, list(able.values()), wanted)
        return None

    def _is_late(self, now: float, able: Mapping[NodeId, Worker]) -> bool:
        """Whether those who have nothing idle, are in doubt, or do not even answer have been waited for long enough."""
        answered = all(node in self._kept for node in able)
        return now >= self._since + (self._state.config.reserve_s / 4 if answered else SILENT_S)

    def _some_run(self, run: StageRun) -> bool:
        """Whether tasks of the stage still run; they are stopped."""
        found = False
        for worker in self._state.workers.all.values():
            for batch in worker.batches.values():
                if batch.stage != run.id:
                    continue
                found = True
                if batch.number not in self._stopped:
                    self._stopped.add(batch.number)
                    self._state.stop(worker.node, run.id, run.started_by(batch))
        return found

    def _release(self, run: StageRun) -> None:
        """What is still kept is not needed."""
        for node in sorted(self._asked):
            self._say(node, run, 0)
        self._asked.clear()
        self._kept.clear()
        self._stopped.clear()
        self._again = self._since = math.inf

    def _ask(self, now: float, run: StageRun, able: list[Worker], wanted: int) -> None:
        fresh = [worker for worker in able if worker.node not in self._asked]
        if now < self._again and not fresh:
            return
        for worker in able:
            self._asked.add(worker.node)
            worker.touched = True
            self._say(worker.node, run, min(wanted, worker.slots), now)
        self._again = now + self._state.config.reserve_s / 4
        self._since = min(self._since, now)

    def _say(self, node: NodeId, run: StageRun, slots: int, now: float = 0.0) -> None:
        state = self._state
        age_s = max(0.0, now - state.accepted)
        priority = state.spec.options.priority
        state.say(
            node,
            messages.Reserve(
                job=state.job,
                ballot=state.ballot,
                stage=run.id,
                slots=slots,
                priority=priority,
                age_s=age_s,
                runtime=state.director.runtime,
                function=run.plan.function,
                environment=self._environment,
                heard=state.workers.all[node].heard,
            ),
        )
