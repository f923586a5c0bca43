"""Stages whose tasks start all at once: several such jobs and ordinary ones share nodes, and none waits for ever.

A task of such a stage ends only while all of them run: as tasks would that wait for each other's messages.
"""

from __future__ import annotations

import math
from collections import deque
from random import Random

import pytest

from p2premap.config import TasksConfig
from p2premap.election.ballot import Fence, first
from p2premap.ids import JobId, NodeId
from p2premap.sim.sole import Sole
from p2premap.sim.workloads import Shape, ShapeDirector, spec_of
from p2premap.tasks import events
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.director import StagePlan
from p2premap.tasks.job import AttemptEnd, JobOptions, Leader, Outcome, Phase
from p2premap.tasks.worker import WorkerCore
from tests.tasks.working import job_of, node

CONFIG = TasksConfig()
LATENCY_S = 0.01


class Together(ShapeDirector):
    """One stage, all at once."""

    def first(self) -> StagePlan:
        return StagePlan(name="all", function="all", tasks=self.shape.maps, final=True, together=True)


class World:
    """Nodes of two slots each; jobs led by any of them; messages take a moment; nothing is lost.

    Args:
        lacking: nodes that do not run jobs of this kind.
    """

    def __init__(self, nodes: str, seed: int, *, lacking: str = "") -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.names = nodes
        self.workers = {
            node(n): WorkerCore(
                me=node(n),
                slots=2,
                config=CONFIG,
                fence=Fence(100),
                now=0.0,
                unfit=lambda runtime, function, n=n: "it lacks a package" if n in lacking else "",  # type: ignore[misc]
            )
            for n in nodes
        }
        self.queues: dict[tuple[NodeId, int], deque[events.RunBatch]] = {}
        self.jobs: dict[JobId, tuple[Coordinator, Sole]] = {}
        self.together: dict[JobId, int] = {}
        self.mail: deque[tuple[float, NodeId, JobId, object]] = deque()
        self.dead: set[NodeId] = set()

    def submit(self, letter: str, leader: str, tasks: int, *, together: bool = True, priority: int = 0) -> JobId:
        """Hand in a job."""
        job, home, shape = job_of(letter), node(leader), Shape(tasks)
        make = Together if together else ShapeDirector
        core = Coordinator(
            job=job,
            spec=spec_of(shape, key=letter.encode(), options=JobOptions(priority=priority)),
            director=make(job=job, home=home, plan=shape.encode()),
            leader=Leader(home, leader, 1),
            ballot=first(home),
            config=CONFIG,
            now=self.now,
        )
        self.jobs[job] = core, Sole()
        if together:
            self.together[job] = tasks
        for n in self.names:
            if node(n) not in self.dead:
                self.lead(job, events.WorkerSeen(node=node(n), name=n.lower(), slots=2, machine=node(n)))
        return job

    def lead(self, job: JobId, event: events.CoordinatorEvent) -> None:
        core, sole = self.jobs[job]
        for effect in sole.step(core, self.now, event):
            if isinstance(effect, events.ToWorker):
                self.mail.append((self.now + LATENCY_S, effect.node, job, effect.message))

    def work(self, at: NodeId, event: events.WorkerEvent) -> None:
        for effect in self.workers[at].step(self.now, event):
            match effect:
                case events.RunBatch(slot=slot):
                    self.queues.setdefault((at, slot), deque()).append(effect)
                case events.StopSlot(slot=slot, batch=batch):
                    queue = self.queues[at, slot]
                    if queue and queue[0].batch == batch:
                        self.end(at, slot, Outcome.STOPPED)
                case events.ToLeader(message=message):
                    self.mail.append((self.now + LATENCY_S, at, message.job, message))  # type: ignore[attr-defined]
                case _:
                    pass
        self.workers[at].check_invariants()

    def end(self, at: NodeId, slot: int, outcome: Outcome = Outcome.DONE) -> None:
        """What the slot runs ends."""
        batch = self.queues[at, slot].popleft()
        ends = tuple(AttemptEnd(task=a.task, attempt=a.attempt, outcome=outcome) for a in batch.attempts)
        self.work(at, events.SlotReported(slot=slot, ends=ends, batch_over=True))

    def kill(self, letter: str) -> None:
        """A node is gone."""
        gone = node(letter)
        self.dead.add(gone)
        for place in [place for place in self.queues if place[0] == gone]:
            del self.queues[place]
        for job in self.jobs:
            self.lead(job, events.WorkerLost(node=gone))

    def heads(self) -> dict[tuple[NodeId, int], events.RunBatch]:
        """What runs."""
        return {place: queue[0] for place, queue in self.queues.items() if queue}

    def run(self, limit_s: float) -> None:
        """Until every job is over."""
        until = self.now + limit_s
        while any(not core.over for core, _ in self.jobs.values()):
            assert self.now < until, {job[:1]: core.why(self.now) for job, (core, _) in self.jobs.items()}
            self.step()

    def step(self) -> None:
        """Time passes until the next thing happens."""
        mail = self.mail[0][0] if self.mail else math.inf
        ticks = min(
            min((core.deadline() for core, _ in self.jobs.values()), default=math.inf),
            min(worker.deadline() for at, worker in self.workers.items() if at not in self.dead),
        )
        self.now = max(self.now, min(mail, ticks, self.now + 0.05))
        while self.mail and self.mail[0][0] <= self.now:
            _, peer, job, message = self.mail.popleft()
            if peer in self.dead:
                continue
            core, _ = self.jobs[job]
            if isinstance(message, tuple(ORDERS)):
                self.work(peer, events.FromLeader(node=core._ballot.node, message=message))  # type: ignore[arg-type]
            else:
                self.lead(job, events.FromWorker(node=peer, message=message))  # type: ignore[arg-type]
        for job, (core, _) in self.jobs.items():
            if core.deadline() <= self.now:
                self.lead(job, events.Tick())
        for at, worker in self.workers.items():
            if at not in self.dead and worker.deadline() <= self.now:
                self.work(at, events.Tick())
        self._progress()

    def _progress(self) -> None:
        """Ordinary tasks end after a while; those of a stage that starts all at once, when all of them run."""
        running = self.heads()
        for job, tasks in self.together.items():
            mine = [place for place, batch in running.items() if batch.job == job]
            if len(mine) == tasks - self.jobs[job][0].view(self.now).stages[0].done:
                for place in mine:
                    self.end(*place)
        for place, batch in self.heads().items():
            if batch.job not in self.together and self.random.random() < 0.2:
                self.end(*place)


def _orders() -> list[type]:
    from p2premap.tasks.worker import JOB_ORDERS

    return list(JOB_ORDERS)


ORDERS = _orders()


def test_all_tasks_of_a_stage_start_at_once() -> None:
    world = World("AB", seed=1)
    job = world.submit("j", "A", tasks=4)
    world.run(limit_s=5.0)
    assert world.jobs[job][0].view(world.now).phase is Phase.DONE


def test_a_stage_that_is_larger_than_the_cluster_says_what_it_needs() -> None:
    world = World("AB", seed=1)
    job = world.submit("j", "A", tasks=5)
    for _ in range(200):
        world.step()
    core = world.jobs[job][0]
    assert not world.heads()
    assert core.view(world.now).note == "Stage all needs 5 worker slots at once; there are 4."
    assert core.deadline() > world.now


@pytest.mark.parametrize("seed", range(40))
def test_several_such_jobs_that_cannot_run_side_by_side_all_end(seed: int) -> None:
    world = World("ABC", seed=seed)
    for letter, leader in zip("jklm", "ABCA", strict=True):
        world.submit(letter, leader, tasks=world.random.randint(3, 6))
        for _ in range(world.random.randint(0, 5)):
            world.step()
    world.run(limit_s=60.0)


@pytest.mark.parametrize("seed", range(40))
def test_they_get_along_with_ordinary_jobs_and_the_loss_of_a_node(seed: int) -> None:
    world = World("ABCD", seed=seed)
    world.submit("o", "A", tasks=60, together=False)
    for _ in range(10):
        world.step()
    world.submit("j", "A", tasks=4)
    world.submit("k", "B", tasks=6, priority=seed % 3 - 1)
    for _ in range(world.random.randint(0, 60)):
        world.step()
    world.kill("D")
    world.run(limit_s=120.0)


def test_a_task_that_comes_back_stops_the_others_and_all_start_anew() -> None:
    world = World("AB", seed=1)
    job = world.submit("j", "A", tasks=3)
    world.together[job] = 99  # nothing ends by itself
    while len(world.heads()) < 3:
        world.step()
    world.end(*next(iter(world.heads())), Outcome.CRASHED)
    for _ in range(100):
        world.step()
    again = [(batch.job, batch.attempts[0].attempt) for batch in world.heads().values()]
    assert again == [(job, 1)] * 3
    world.together[job] = 3
    world.run(limit_s=10.0)
    stage = world.jobs[job][0].view(world.now).stages[0]
    assert (stage.done, stage.failed_attempts) == (3, 1)


def test_a_node_that_lacks_the_kind_of_the_job_keeps_nothing_for_it_and_is_given_nothing() -> None:
    world = World("ABC", seed=1, lacking="B")
    job = world.submit("j", "A", tasks=4)
    world.run(limit_s=5.0)
    stage = world.jobs[job][0].view(world.now).stages[0]
    assert (stage.done, stage.lost_attempts) == (4, 0)
    assert world.now < 1.0, "nobody waited for what was refused"


def test_what_lacks_for_it_to_start_at_once_is_told() -> None:
    world = World("AB", seed=1, lacking="B")
    job = world.submit("j", "A", tasks=4)
    for _ in range(100):
        world.step()
    core = world.jobs[job][0]
    assert not world.heads()
    assert core.view(world.now).note == "4 tasks wait; b says: it lacks a package"
    assert "b says: it lacks a package" in core.why(world.now)
