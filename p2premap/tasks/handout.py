"""Who is given which tasks: batches for nodes with room, with inputs that can be read now."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import partial
from typing import Final

from p2premap.errors import JobError
from p2premap.ids import NodeId
from p2premap.tasks import messages
from p2premap.tasks.batches import Batch, assign_bytes
from p2premap.tasks.director import TaskInput
from p2premap.tasks.gang import Gang
from p2premap.tasks.job import AttemptSpec, BlobRef, Phase, Source
from p2premap.tasks.meeting import Meeting, deal, name_of
from p2premap.tasks.shared import SharedRun
from p2premap.tasks.stage import Backup, StageRun
from p2premap.tasks.state import JobState
from p2premap.tasks.workers import Worker

TASK_BYTES_MAX: Final = 3 << 20
"""What one task may need of an `Assign`, which has to fit into a frame."""


class HandOut:
    """Hands out one job's tasks.

    Args:
        state: of the job.
    """

    def __init__(self, state: JobState) -> None:
        self._state = state
        self._repairing = False
        spec, leader = state.spec, state.leader.node
        self._code = _held_by(leader, spec.code)
        environment = spec.options.environment
        self._environment = None if environment is None else _held_by(leader, environment)
        self.gang = Gang(state, self._give, self._meet, self._environment)
        self._sat: dict[int, NodeId] = {}
        """Where the tasks of the last stage that shared slots were."""

    def all(self, now: float) -> bool:
        """Give batches to who has room: idle slots first, then the next batch of busy ones.

        An earlier stage has tasks only where a later one found results missing, and those come first.

        Returns:
            Whether there may be more to do: something was given, or results turned out to be lost.
        """
        given = self._repairing = False
        for run in list(self._state.runs):
            if run.numbered_here and not self._state.log.protected:
                continue  # what it began with may be lost yet, and other tasks have these numbers
            if not self._state.going_on or run.abandoned:
                continue
            if isinstance(run, SharedRun):
                if run.runs or not run.complete:
                    given = self.gang.tend(now, run) or given
            elif run.pending:
                given = self._of_stage(now, run) or given
        return given or self._repairing

    def _of_stage(self, now: float, run: StageRun) -> bool:
        """One batch for each node with room. Whether any was given, and there is more to give."""
        if run.plan.together:
            return self.gang.hand_out(now, run)
        given = False
        for worker in self._state.workers.hungry(self._state.leader.node):
            if self._at_limit():
                return False
            if len(worker.batches) >= worker.slots and not run.sizer.ahead(run.pending, self._state.workers.slots):
                continue
            size = run.sizer.size(run.pending, self._state.workers.slots)
            given = self._give(now, worker, run, size) or given
            if not run.pending or run.abandoned or not self._state.going_on:
                break
        return given and (bool(run.pending) or run.abandoned)

    def _at_limit(self) -> bool:
        limit = self._state.spec.options.parallel_max
        return bool(limit) and self._state.workers.batches >= limit

    def _give(self, now: float, worker: Worker, run: StageRun, size: int) -> bool:
        look = partial(self._look, run)
        taken = run.take(worker, size, self._state.config.assign_bytes_max, self._state.workers, look)
        if not taken or run.abandoned or not self._state.going_on:
            return False
        number = self._state.new_batch()
        specs = []
        for task, input in taken:
            attempt = run.started[task]
            run.started[task] = attempt + 1
            run.out[task] = number
            specs.append(AttemptSpec(task=task, attempt=attempt, params=input.params, sources=input.sources))
        self._send(now, worker, run, number, specs)
        return True

    def _meet(self, now: float, run: SharedRun, slots: Mapping[NodeId, int]) -> bool:
        """Deal out all tasks of the stage over these slots, to talk to each other. Whether that was possible."""
        state = self._state
        looked = [self._look(run, task) for task in range(run.tasks)]
        inputs = [input for input in looked if input is not None]
        if len(inputs) < run.tasks or run.complete or run.abandoned or not state.going_on:
            return False
        seats = deal(inputs, slots, state.workers.machine_of, self._sat)
        attempt = run.convene()
        name = name_of(state.job, run.id, state.ballot, attempt)
        for seat, (node, tasks) in enumerate(seats):
            number = state.new_batch()
            specs = []
            for task in tasks:
                run.out[task] = number
                self._sat[task] = node
                input = inputs[task]
                specs.append(AttemptSpec(task=task, attempt=attempt, params=input.params, sources=input.sources))
            meeting = Meeting(id=name, seats=seats, seat=seat)
            self._send(now, state.workers.all[node], run, number, specs, meeting)
        return True

    def second(self, now: float, worker: Worker, run: StageRun, task: int) -> bool:
        """Have a task that is out run here too. Whether that was possible."""
        input = None if self._at_limit() else self._look(run, task)
        run.parked.pop(task, None)
        if input is None or run.abandoned or not self._state.going_on:
            return False
        if task not in run.adopted:
            run.adopted[task] = run.started[task] - 1
        attempt = run.started[task]
        run.started[task] = attempt + 1
        number = self._state.new_batch()
        run.backups[task] = Backup(number, attempt)
        spec = AttemptSpec(task=task, attempt=attempt, params=input.params, sources=input.sources)
        self._send(now, worker, run, number, [spec])
        return True

    def _send(
        self,
        now: float,
        worker: Worker,
        run: StageRun,
        number: int,
        specs: list[AttemptSpec],
        meeting: Meeting | None = None,
    ) -> None:
        if not worker.batches:
            worker.last_word = now
        tasks = array("I", [spec.task for spec in specs])
        worker.batches[number] = Batch(number, worker.node, run.id, tasks, len(specs), now)
        worker.allow -= 1
        worker.touched = True
        self._state.workers.batches += 1
        self._state.workers.feed(worker)
        self._state.changed = True
        self._state.say(
            worker.node,
            messages.Assign(
                job=self._state.job,
                ballot=self._state.ballot,
                stage=run.id,
                runtime=self._state.director.runtime,
                function=run.plan.function,
                code=self._code,
                attempts=tuple(specs),
                limits=self._state.spec.options.limits,
                priority=self._state.spec.options.priority,
                heard=worker.heard,
                environment=self._environment,
                meeting=meeting,
            ),
        )

    def _look(self, run: StageRun, task: int) -> TaskInput | None:
        """A task's input with the holders as they are now; None: it waits until these can be read, or is settled."""
        state = self._state
        if not state.going_on or run.must_wait(task):
            return None
        if run.pinned and run.adopt(task, state.locations):
            state.abandon_after(run)  # meanwhile another result of it has come back
            return None
        try:
            input = state.input_of(run.id, task)
        except JobError as error:
            state.decide(Phase.FAILED, str(error))
            return None
        if not input.sources and len(input.params) < TASK_BYTES_MAX:
            return input
        if (size := assign_bytes(input)) > TASK_BYTES_MAX:
            self._state.decide(
                Phase.FAILED,
                f"Task {task} of stage {run.plan.name} needs {len(input.sources)} sources, {size} bytes to name them: "
                "more than one message carries. Use larger splits or fewer partitions.",
            )
            return None
        if state.locations.clear:
            return input
        sources = []
        parked = False
        for source in input.sources:
            if source.blob is not None:
                holders = tuple(self._state.locations.readable(source.blob, source.holders))
                if not holders:
                    parked = self._repair(run, source) or parked
                elif holders != source.holders:
                    source = Source(
                        digest=source.digest, start=source.start, end=source.end, holders=holders, blob=source.blob
                    )
            sources.append(source)
        if not parked:
            return TaskInput(params=input.params, sources=tuple(sources))
        run.parked[task] = None
        return None

    def _repair(self, reader: StageRun, source: Source) -> bool:
        """Have a blob that cannot be read made again. False: nobody here makes it; whoever needs it may try.

        Args:
            reader: the stage that needs it, whose own tasks may have made it where it grows.
        """
        assert source.blob is not None, "files are not made by tasks"
        if self._state.locations.known(source.blob, source.holders):
            return True  # a doubtful holder: gossip will know soon
        for run in self._state.runs:
            if (run.pinned or run is reader) and (task := run.producer(source.blob)) is not None:
                if run.pinned and run.adopt(task, self._state.locations):
                    self._state.abandon_after(run)
                elif run.is_settled(task):
                    run.unsettle(task)
                    self._repairing = True
                return True
        return False


def _held_by(node: NodeId, blob: BlobRef) -> Source:
    return Source(digest=blob.digest, start=0, end=blob.size, holders=(node,), blob=blob.digest)
