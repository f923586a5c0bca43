"""Very many tasks that do nothing, through the pure cores alone: what leading a job costs, without any network."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2premap.config import TasksConfig
from p2premap.election.ballot import Fence
from p2premap.errors import JobError
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.sim.sole import Sole
from p2premap.tasks import events
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.job import AttemptEnd, BlobRef, JobSpec, Leader, Outcome, Part, Phase, StageId
from p2premap.tasks.worker import WorkerCore

TASK_S = 1e-5
NOTHING = TaskInput(params=b"")


class NoopDirector:
    """One stage of tasks that read nothing and yield next to nothing.

    Args:
        tasks: how many.
        grows: they are handed in while it runs, a number of them as eight bytes each time; no more than `tasks`.
    """

    runtime = "p2premap.sim.many:none"
    planner = ""

    def __init__(self, tasks: int, *, grows: bool = False) -> None:
        self._tasks = tasks
        self._known = 0
        self._grows = self.streams = grows

    def first(self) -> StagePlan:
        """The only stage."""
        tasks = 0 if self._grows else self._tasks
        return StagePlan(name="nothing", function="nothing", tasks=tasks, open=self._grows)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """There is no other."""
        return None

    def extend(self, payload: bytes) -> Extension:
        """So many more.

        Raises:
            JobError: there are to be no more.
        """
        first, more = self._known, int.from_bytes(payload)
        if first + more > self._tasks:
            raise JobError("No more tasks.")
        self._known += more
        return Extension(tasks=more, first=first, closed=self._known == self._tasks)

    def task(self, stage: StageId, task: int) -> TaskInput:
        """Always the same."""
        return NOTHING

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        """There is no output."""
        return ()


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
        handed_in: tasks at a time, while the job runs; 0: all are there from the start.
    """

    def __init__(
        self,
        tasks: int,
        *,
        nodes: int = 1,
        slots: int = 2,
        clock: Callable[[], float],
        value: Callable[[int], bytes] = lambda _: b"",
        handed_in: int = 0,
    ) -> None:
        self._tasks = tasks
        self._handed_in = handed_in
        self._ids = [NodeId(bytes([65 + n]) * 16) for n in range(nodes)]
        self._slots = slots
        self._clock = clock
        self._value = value
        self.cost = Cost()
        self._replica = Sole()
        config = TasksConfig()
        self.leader = self._coordinator(0)
        self._workers = {
            node: WorkerCore(me=node, slots=slots, config=config, fence=Fence(10), now=0.0) for node in self._ids
        }
        self._batches: deque[tuple[NodeId, events.RunBatch]] = deque()
        self.phase = Phase.WAITING

    def successor(self) -> Coordinator:
        """Another leader of the job, who has read what this one wrote."""
        return self._coordinator(1)

    @property
    def written(self) -> int:
        """Bytes of facts."""
        return sum(map(len, self._replica.batches))

    def _coordinator(self, term: int) -> Coordinator:
        me, blob = self._ids[0], BlobRef(digest=Digest(bytes(32)), size=1)
        return Coordinator(
            job=JobId(b"many tasks: many"),
            spec=JobSpec(submission_key=b"", kind="noop", name="many", code=blob, plan=blob),
            director=NoopDirector(self._tasks, grows=bool(self._handed_in)),
            leader=Leader(me, "a", 1),
            ballot=Ballot(0, term, me),
            config=TasksConfig(),
            now=0.0,
            history=self._replica.batches if term else (),
        )

    def run(self) -> Cost:
        """To the end of the job."""
        for node in self._ids:
            self._lead(0.0, events.WorkerSeen(node=node, name=node.hex(), slots=self._slots, machine=node))
        now = 0.0
        if self._handed_in:
            for start in range(0, self._tasks, self._handed_in):
                more = min(self._handed_in, self._tasks - start)
                self._lead(0.0, events.Extend(payload=more.to_bytes(8)))
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
        while self.leader.deadline() < math.inf:
            self._lead(self.leader.deadline(), events.Tick())
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
