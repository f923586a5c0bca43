"""Very many tasks that do nothing, through the pure cores alone: what leading a job costs, without any network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2premap.config import TasksConfig
from p2premap.election.ballot import Fence, first
from p2premap.errors import JobError
from p2premap.ids import Digest, JobId, NodeId
from p2premap.sim.sole import Sole
from p2premap.tasks import events
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.job import AttemptEnd, BlobRef, JobSpec, Outcome, Part, Phase, StageId
from p2premap.tasks.progress import Leader
from p2premap.tasks.worker import WorkerCore

TASK_S = 1e-5
NOTHING = TaskInput(params=b"")


class NoopDirector:
    """One stage of tasks that read nothing and yield next to nothing."""

    runtime = "p2premap.sim.many:none"
    streams = False

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks

    def first(self) -> StagePlan:
        """The only stage."""
        return StagePlan(name="nothing", function="nothing", tasks=self._tasks)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """There is no other."""
        return None

    def extend(self, payload: bytes) -> Extension:
        """No stage is open.

        Raises:
            JobError: always.
        """
        raise JobError("Jobs of this kind take no more tasks once they run.")

    def task(self, stage: StageId, task: int) -> TaskInput:
        """Always the same."""
        return NOTHING

    def part(self, task: int, result: Pinned) -> Part | None:
        """There is no output."""
        return None


@dataclass(slots=True)
class Cost:
    """What it took.

    Args:
        leader_s, workers_s: by the clock that was given.
        step_max_s: the leader's longest step.
        messages: between leader and workers.
    """

    leader_s: float = 0.0
    workers_s: float = 0.0
    step_max_s: float = 0.0
    messages: int = 0


class ManyTasks:
    """A leader, its workers, and executors that are done at once.

    Args:
        tasks: how many.
        nodes, slots: of the cluster.
        clock: measures the cores.
        value: what a task yields.
    """

    def __init__(
        self,
        tasks: int,
        *,
        nodes: int = 1,
        slots: int = 2,
        clock: Callable[[], float],
        value: Callable[[int], bytes] = lambda _: b"",
    ) -> None:
        self._ids = [NodeId(bytes([65 + n]) * 16) for n in range(nodes)]
        self._slots = slots
        self._clock = clock
        self._value = value
        self.cost = Cost()
        config, me, blob = TasksConfig(), self._ids[0], BlobRef(digest=Digest(bytes(32)), size=1)
        self.leader = Coordinator(
            job=JobId(b"many tasks: many"),
            spec=JobSpec(submission_key=b"", kind="noop", name="many", code=blob, plan=blob),
            director=NoopDirector(tasks),
            leader=Leader(me, "a", 1),
            ballot=first(me),
            config=config,
            now=0.0,
        )
        self._workers = {
            node: WorkerCore(me=node, slots=slots, config=config, fence=Fence(10), now=0.0) for node in self._ids
        }
        self._replica = Sole()
        self._batches: deque[tuple[NodeId, events.RunBatch]] = deque()
        self.phase = Phase.WAITING

    def run(self) -> Cost:
        """To the end of the job."""
        for node in self._ids:
            self._lead(0.0, events.WorkerSeen(node=node, name=node.hex(), slots=self._slots, machine=node))
        now = 0.0
        while self._batches:
            node, batch = self._batches.popleft()
            now += len(batch.attempts) * TASK_S / (self._slots * len(self._ids))
            ends = tuple(
                AttemptEnd(
                    task=a.task, attempt=a.attempt, outcome=Outcome.DONE, seconds=TASK_S, value=self._value(a.task)
                )
                for a in batch.attempts
            )
            self._work(now, node, events.SlotReported(slot=batch.slot, ends=ends, batch_over=True))
        return self.cost

    def _lead(self, now: float, event: events.CoordinatorEvent) -> None:
        since = self._clock()
        effects = self._replica.step(self.leader, now, event)
        spent = self._clock() - since
        self.cost.leader_s += spent
        self.cost.step_max_s = max(self.cost.step_max_s, spent)
        for effect in effects:
            match effect:
                case events.ToWorker(node=node, message=message):
                    self.cost.messages += 1
                    self._work(now, node, events.FromLeader(node=self._ids[0], message=message))
                case events.JobChanged(view=view):
                    self.phase = view.phase
                case _:
                    pass

    def _work(self, now: float, node: NodeId, event: events.WorkerEvent) -> None:
        since = self._clock()
        effects = self._workers[node].step(now, event)
        self.cost.workers_s += self._clock() - since
        for effect in effects:
            match effect:
                case events.ToLeader(message=message):
                    self.cost.messages += 1
                    self._lead(now, events.FromWorker(node=node, message=message))
                case events.RunBatch():
                    self._batches.append((node, effect))
                case _:
                    pass
