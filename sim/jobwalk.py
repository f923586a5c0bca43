"""An untimed random walk over the pure cores of one job: a `Coordinator` and the `WorkerCore`s of a few nodes.

Whatever could happen next may happen next: any message in flight is delivered (in order on each link), an attempt ends
in any way, a node dies, comes back with or without its disk, is doubted, or taken for dead by mistake; a link
breaks and takes with it what was under way. Time only moves when somebody's deadline is the next thing. Then a
liveness phase, in which nothing more goes wrong: the job must end.

The model beside it knows nothing of how the cores work; it checks what they promise:

- an attempt is given out once, to a node that is not lost or doubted, within the node's places;
- a task that is known to be finished is not given out again, unless nobody can read its result (P4);
- one result a task: what reducers read agrees, and the parts are those of one lineage;
- a job is CANCELLED only when none of its attempts runs on a node that its leader counts on;
- nothing is given out after the end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from p2premap.config import TasksConfig
from p2premap.election.ballot import Fence, first
from p2premap.ids import Digest, JobId, NodeId
from p2premap.sim.workloads import Shape, ShapeDirector, digest_of, run_shape, spec_of
from p2premap.tasks import events, messages
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.job import AttemptEnd, BlobRef, JobOptions, JobView, Outcome, Phase, Source, StageId
from p2premap.tasks.progress import Leader
from p2premap.tasks.worker import WorkerCore
from p2premap.wire import Message

JOB = JobId(b"walk-walk-walk-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often things go wrong: the weight of each beside 100 for every ordinary step."""

    kill: float = 0.0
    back: float = 20.0
    disk_lost: float = 0.0
    false_death: float = 0.0
    doubt: float = 0.0
    unlink: float = 0.0
    crash: float = 0.0
    refuse: float = 0.0
    unreadable: float = 0.0
    cancel: float = 0.0
    time: float = 2.0
    resize: float = 0.0


@dataclass(slots=True)
class Running:
    """A batch at a virtual executor."""

    batch: events.RunBatch
    left: deque[int]


@dataclass(slots=True)
class Node:
    """A worker node."""

    id: NodeId
    slots: int
    core: WorkerCore | None
    told: str = "seen"
    disk: dict[Digest, bytes] = field(default_factory=dict)
    queues: dict[int, deque[Running]] = field(default_factory=dict)
    stopping: set[int] = field(default_factory=set)
    orders: deque[Message] = field(default_factory=deque)
    reports: deque[Message] = field(default_factory=deque)


class Violated(AssertionError):
    """The cores broke a promise."""


class Walk:
    """One job, some nodes; node 0 leads and never dies.

    Args:
        seed: of every choice.
        shape: the job.
        nodes, slots: of the cluster.
        faults: what may go wrong.
        options: of the job.
    """

    def __init__(
        self,
        seed: int,
        shape: Shape,
        *,
        nodes: int = 3,
        slots: int = 2,
        faults: Faults | None = None,
        options: JobOptions | None = None,
        config: TasksConfig | None = None,
    ) -> None:
        self.random = Random(f"walk/{seed}")
        self.now = 0.0
        self.shape = shape
        self.config = config or TasksConfig()
        self.faults = faults or Faults()
        self.counts: dict[str, int] = {}
        self.view: JobView | None = None
        self.log: list[str] = []
        self.disks_lost = 0
        self.model = Model(self)
        self.nodes = [Node(NodeId(bytes([65 + n]) * 16), slots, None) for n in range(nodes)]
        for node in self.nodes:
            self._boot(node)
        leader = Leader(self.nodes[0].id, "n0", 1)
        self.coordinator = Coordinator(
            job=JOB,
            spec=spec_of(shape, key=b"walk", options=options),
            director=ShapeDirector(job=JOB, home=leader.node, plan=shape.encode()),
            leader=leader,
            ballot=first(leader.node),
            config=self.config,
            now=0.0,
        )
        for node in self.nodes:
            self._see(node)

    # --- the two phases -------------------------------------------------------------------------------------------

    def run(self, steps: int) -> JobView:
        """A safety phase of so many steps, then a liveness phase; the job's last view."""
        for _ in range(steps):
            if not self._one(self.faults):
                break
        self.log.append("-- nothing more goes wrong --")
        for node in self.nodes:
            if node.core is None and node.told != "lost":
                self._lose(node)
            elif node.core is not None and node.told != "seen":
                self._see(node)
        calm = 0
        while not self.coordinator.over:
            calm += 1
            if calm > 20_000:
                raise Violated(f"the job does not end: {self.coordinator.view(self.now)}")
            self._one(Faults(time=0.2))
        while self._deliverable():
            self._deliver()
        self.model.check_end()
        assert self.view is not None, "the end is always shown"
        return self.view

    def _one(self, faults: Faults) -> bool:
        """One thing happens. False: nothing could."""
        choices: list[tuple[float, str, Callable[[], None]]] = []
        if self._deliverable():
            choices.append((100.0, "deliver", self._deliver))
        if any(node.core and any(node.queues.values()) for node in self.nodes):
            choices.append((100.0, "attempt", lambda: self._attempt(faults)))
        if any(node.core and node.stopping for node in self.nodes):
            choices.append((50.0, "stopped", self._stopped))
        if (when := self._deadline()) < math.inf:
            choices.append((100.0 if not choices else faults.time, "tick", lambda: self._tick(when)))
        others = self.nodes[1:]
        living = [n for n in others if n.core is not None]
        dead = [n for n in others if n.core is None]
        if living:
            choices += [
                (faults.kill, "kill", lambda: self._kill(self.random.choice(living))),
                (faults.false_death, "false death", lambda: self._false_death(self.random.choice(living))),
                (faults.doubt, "doubt", lambda: self._doubt(self.random.choice(others))),
                (faults.unlink, "unlink", lambda: self._unlink(self.random.choice(living))),
                (faults.resize, "resize", lambda: self._resize(self.random.choice(living))),
            ]
        if dead:
            choices.append((faults.back, "back", lambda: self._back(self.random.choice(dead), faults)))
            choices.append((faults.back, "verdict", lambda: self._lose(self.random.choice(dead))))
        wrong = [n for n in living if n.told != "seen"]
        if wrong:
            choices.append((20.0, "trust", lambda: self._see(self.random.choice(wrong))))
        choices.append((faults.cancel, "cancel", self._cancel))
        choices = [c for c in choices if c[0] > 0]
        if not choices:
            return False
        _, word, act = self.random.choices(choices, [c[0] for c in choices])[0]
        self.counts[word] = self.counts.get(word, 0) + 1
        act()
        return not self.coordinator.over

    # --- messages -------------------------------------------------------------------------------------------------

    def _deliverable(self) -> list[tuple[Node, bool]]:
        return [(n, True) for n in self.nodes if n.orders and n.core] + [(n, False) for n in self.nodes if n.reports]

    def _deliver(self) -> None:
        node, down = self.random.choice(self._deliverable())
        if down:
            self._work(node, events.FromLeader(node=self.nodes[0].id, message=node.orders.popleft()))
        else:
            message = node.reports.popleft()
            self.model.reported(node, message)
            self._lead(events.FromWorker(node=node.id, message=message))

    def _lead(self, event: events.CoordinatorEvent) -> None:
        self.log.append(f"{self.now:.3f} leader < {event}")
        effects = self.coordinator.step(self.now, event)
        self.coordinator.check_invariants()
        for effect in effects:
            self.log.append(f"{self.now:.3f} leader > {effect}")
            match effect:
                case events.ToWorker(node=id, message=message):
                    node = self._node(id)
                    self.model.ordered(node, message)
                    if node.core is not None:
                        node.orders.append(message)
                case events.JobChanged(view=view):
                    if self.view is not None and self.view.phase.over:
                        raise Violated("a job that is over changes")
                    self.view = view
                    self.model.shown(view)

    def _work(self, node: Node, event: events.WorkerEvent) -> None:
        assert node.core is not None, "the dead do not work"
        self.log.append(f"{self.now:.3f} {node.id[:1]!r} < {event}")
        effects = node.core.step(self.now, event)
        node.core.check_invariants()
        for effect in effects:
            self.log.append(f"{self.now:.3f} {node.id[:1]!r} > {effect}")
            match effect:
                case events.ToLeader(message=message):
                    node.reports.append(message)
                case events.RunBatch():
                    queue = node.queues.setdefault(effect.slot, deque())
                    queue.append(Running(effect, deque(range(len(effect.attempts)))))
                    if len(queue) > self.config.queue_batches:
                        raise Violated("a slot has more batches than places")
                case events.StopSlot(slot=slot, batch=batch):
                    if [running.batch.batch for running in node.queues.get(slot, ())][:1] != [batch]:
                        raise Violated("another batch than the one at the head is stopped")
                    node.stopping.add(slot)
                case events.EndJob():
                    pass

    # --- executors ------------------------------------------------------------------------------------------------

    def _attempt(self, faults: Faults) -> None:
        busy = [(n, s) for n in self.nodes if n.core for s, queue in n.queues.items() if queue]
        node, slot = self.random.choice(busy)
        head = node.queues[slot][0]
        ends = []
        for _ in range(self.random.choice((1, 1, 2, len(head.left)))):
            if head.left:
                ends.append(self._end(node, head, faults))
        if ends[-1].outcome is Outcome.CRASHED:
            ends += [self._stop(head) for _ in range(len(head.left))]
        self.now += 0.001 * len(ends)
        self._report(node, slot, ends)

    def _end(self, node: Node, head: Running, faults: Faults) -> AttemptEnd:
        spec = head.batch.attempts[head.left.popleft()]
        draw = self.random.uniform(0, 100)
        for chance, outcome in ((faults.crash, Outcome.CRASHED), (faults.refuse, Outcome.REFUSED)):
            if draw < chance:
                return AttemptEnd(task=spec.task, attempt=spec.attempt, outcome=outcome, error="bad luck", seconds=0.01)
            draw -= chance
        unreadable = draw < faults.unreadable
        return run_shape(
            head.batch,
            spec,
            lambda source: None if unreadable else self._read(source),
            lambda content: self._write(node, content),
            seconds=self.shape.map_s if head.batch.function == "map" else self.shape.reduce_s,
        )

    def _stop(self, head: Running) -> AttemptEnd:
        spec = head.batch.attempts[head.left.popleft()]
        return AttemptEnd(task=spec.task, attempt=spec.attempt, outcome=Outcome.STOPPED, error="stopped")

    def _stopped(self) -> None:
        node, slot = self.random.choice([(n, s) for n in self.nodes if n.core for s in sorted(n.stopping)])
        head = node.queues[slot][0]
        self._report(node, slot, [self._stop(head) for _ in range(len(head.left))])

    def _report(self, node: Node, slot: int, ends: list[AttemptEnd]) -> None:
        queue = node.queues[slot]
        over = not queue[0].left
        if over:
            queue.popleft()
            node.stopping.discard(slot)
        self._work(node, events.SlotReported(slot=slot, ends=tuple(ends), batch_over=over))

    def _read(self, source: Source) -> bytes | None:
        for holder in source.holders:
            node = self._node(holder)
            if node.core is not None and source.digest in node.disk:
                return node.disk[source.digest]
        return None

    def _write(self, node: Node, content: bytes) -> BlobRef:
        node.disk[digest_of(content)] = content
        return BlobRef(digest=digest_of(content), size=len(content))

    # --- what goes wrong ------------------------------------------------------------------------------------------

    def _kill(self, node: Node) -> None:
        node.core = None
        node.queues.clear()
        node.stopping.clear()
        self._unlink(node)

    def _back(self, node: Node, faults: Faults) -> None:
        if node.told != "lost":
            self._lose(node)
        if self.random.uniform(0, 100) < faults.disk_lost:
            node.disk.clear()
            self.disks_lost += 1
        self._boot(node)
        self._see(node)

    def _boot(self, node: Node) -> None:
        node.core = WorkerCore(me=node.id, slots=node.slots, config=self.config, fence=Fence(100), now=self.now)

    def _see(self, node: Node) -> None:
        node.told = "seen"
        self._lead(events.WorkerSeen(node=node.id, name=f"n{node.id[0] - 65}", slots=node.slots, machine=node.id))

    def _lose(self, node: Node) -> None:
        node.told = "lost"
        self._lead(events.WorkerLost(node=node.id))

    def _doubt(self, node: Node) -> None:
        if node.told == "seen":
            node.told = "doubtful"
            self._lead(events.WorkerDoubtful(node=node.id))

    def _false_death(self, node: Node) -> None:
        self._lose(node)
        if self.random.random() < 0.5:
            self._work(node, events.LeaderLost(node=self.nodes[0].id))

    def _unlink(self, node: Node) -> None:
        node.orders.clear()
        while node.reports and self.random.random() < 0.5:
            node.reports.pop()  # what had arrived is still read; what was under way is not
        if node.core is None:
            node.reports.clear()
        self._lead(events.WorkerUnlinked(node=node.id))

    def _resize(self, node: Node) -> None:
        node.slots = self.random.choice((0, 1, 2, 3))
        self._work(node, events.SetSlots(slots=node.slots))
        if node.told == "seen":
            self._see(node)

    def _cancel(self) -> None:
        self._lead(events.CancelJob(reason="the user asked"))

    # --- time -----------------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        cores = [n.core.deadline() for n in self.nodes if n.core is not None]
        return min(self.coordinator.deadline(), *cores)

    def _tick(self, when: float) -> None:
        self.now = max(self.now, when)
        if self.coordinator.deadline() <= self.now:
            self._lead(events.Tick())
            if self.coordinator.deadline() <= self.now:
                raise Violated("a tick does not move the coordinator's deadline")
        for node in self.nodes:
            if node.core is not None and node.core.deadline() <= self.now:
                self._work(node, events.Tick())
                if node.core.deadline() <= self.now:
                    raise Violated("a tick does not move the worker's deadline")

    def gave_up(self, node: Node) -> bool:
        """Whether so much time has passed that the leader may have given the node up."""
        return self.now >= self.config.unanswered_s

    def _node(self, id: NodeId) -> Node:
        return self.nodes[id[0] - 65]


class Model:
    """What must hold, from messages and events alone."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._given: dict[tuple[StageId, int, int], NodeId] = {}
        self._finished: dict[tuple[StageId, int], list[tuple[NodeId, tuple[Digest, ...]]]] = {}
        self._missed: set[tuple[Digest, NodeId]] = set()
        self.reruns = 0

    def ordered(self, node: Node, message: Message) -> None:
        """The leader sends an order."""
        if not isinstance(message, messages.Assign):
            return
        if self._walk.coordinator.over:
            raise Violated("work is given out after the end")
        if node.told != "seen":
            raise Violated(f"work is given to a node that is {node.told}")
        for spec in message.attempts:
            key = (message.stage, spec.task, spec.attempt)
            if key in self._given:
                raise Violated(f"attempt {key} is given out twice")
            self._given[key] = node.id
            self._check_needed(message.stage, spec.task)

    def _check_needed(self, stage: StageId, task: int) -> None:
        for holder, digests in self._finished.get((stage, task), ()):
            lost = self._walk._node(holder).told == "lost"
            if not digests or not (lost or any((d, holder) in self._missed for d in digests)):
                raise Violated(f"the finished task {task} of {stage} runs again; {holder[:1]!r} holds its result")
        self.reruns += (stage, task) in self._finished

    def reported(self, node: Node, message: Message) -> None:
        """A report reaches the leader."""
        if not isinstance(message, messages.AttemptsEnded):
            return
        for end in message.ends:
            if end.outcome is Outcome.DONE:
                blobs = tuple(b.digest for b in end.blobs)
                self._missed -= {(digest, node.id) for digest in blobs}
                self._finished.setdefault((message.stage, end.task), []).append((node.id, blobs))
            self._missed.update((digest, other.id) for digest in end.missing for other in self._walk.nodes)

    def shown(self, view: JobView) -> None:
        """The leader shows the job."""
        for stage in view.stages:
            if not 0 <= stage.done <= stage.tasks or stage.done + stage.running > stage.tasks + stage.running:
                raise Violated(f"impossible numbers: {stage}")
        if view.phase is Phase.DONE:
            self._check_parts(view)
        if view.phase is Phase.CANCELLED:
            for node in self._walk.nodes:
                running = [q for q in node.queues.values() if q]
                if node.core is not None and node.told != "lost" and running and not self._walk.gave_up(node):
                    raise Violated("CANCELLED while attempts run")

    def check_end(self) -> None:
        """The job is over."""
        view = self._walk.view
        if view is None or not view.phase.over:
            raise Violated("the end was not shown")
        if view.phase is Phase.FAILED and "Task " not in view.error:
            raise Violated(f"the error names no task: {view.error}")

    def _check_parts(self, view: JobView) -> None:
        shape = self._walk.shape
        if any(stage.done != stage.tasks for stage in view.stages):
            raise Violated(f"a job is done with tasks left: {view.stages}")
        if shape.inline:
            return
        numbers = [part.number for part in view.parts]
        if numbers != list(range(shape.reduces or shape.maps)):
            raise Violated(f"parts {numbers}")
        came = set()
        for part in view.parts:
            holders = [n for n in self._walk.nodes if n.told != "lost" and part.source.digest in n.disk]
            contents = {n.disk[part.source.digest] for n in holders}
            if not contents and self._walk.disks_lost:
                continue  # nobody has read it since, so nobody can know
            if len(contents) != 1:
                raise Violated(f"part {part.number} is nowhere")
            came.add(contents.pop().split(b"/")[2])
        if len(came) > 1:
            raise Violated(f"lineages are mixed: {sorted(came)}")
