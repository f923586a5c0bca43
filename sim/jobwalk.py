"""An untimed random walk over the pure cores of one job: its `Coordinator`s and the `WorkerCore`s of a few nodes.

Whatever could happen next may happen next: any message in flight is delivered (in order on each link), an attempt ends
in any way, facts become protected, cells are decided; a node dies, comes back with or without its disk, is doubted, or
taken for dead by mistake; a link breaks and takes with it what was under way. The leader dies, or is deposed and does
not know it: another node leads, with the history that a quorum would have (`p2premap.sim.quorum`), while the orders of
the old one are still in flight. Time only moves when somebody's deadline is the next thing. Then a liveness phase, in
which nothing more goes wrong: the job must end. Batches of a gang get nowhere before all of them run at once
(`p2premap.sim.gangs`).

What must hold is in `p2premap.sim.jobmodel`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec

from p2premap.config import TasksConfig
from p2premap.election.ballot import Fence
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.sim.gangs import Gangs
from p2premap.sim.jobmodel import Model, Violated
from p2premap.sim.jobsettings import SHORT, SHORT_TAKEOVERS, SMALL, Faults
from p2premap.sim.quorum import Quorum
from p2premap.sim.workloads import Shape, ShapeDirector, digest_of, run_shape, spec_of
from p2premap.tasks import coordinator, events, messages
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.director import Director
from p2premap.tasks.job import (
    AttemptEnd,
    AttemptSpec,
    BlobRef,
    JobOptions,
    JobView,
    Leader,
    Outcome,
    Source,
    StageId,
)
from p2premap.tasks.roster import DOUBT_S
from p2premap.tasks.worker import WorkerCore
from p2premap.wire import Message

JOB = JobId(b"walk-walk-walk-1")


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
    doubted_at: float = 0.0
    disk: dict[Digest, bytes] = field(default_factory=dict)
    queues: dict[int, deque[Running]] = field(default_factory=dict)
    stopping: set[int] = field(default_factory=set)
    orders: deque[tuple[NodeId, Message]] = field(default_factory=deque)
    """Under way to it, and from whom."""
    reports: deque[tuple[NodeId, Message]] = field(default_factory=deque)
    """Under way from it, and to whom."""

    def __str__(self) -> str:
        return chr(self.id[0])


class Walk:
    """One job, some nodes; node 0 leads at first.

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
        self._log: list[tuple[float, str, object]] = []
        self.disks_lost = 0
        self.quorum = Quorum(self.random)
        self.model = self._model()
        self.gangs = Gangs(self)
        self.zombies: dict[NodeId, Coordinator] = {}
        """Deposed, and not aware of it."""
        self.nodes = [Node(NodeId(bytes([65 + n]) * 16), slots, None) for n in range(nodes)]
        for node in self.nodes:
            self._boot(node)
        self.options = options
        self.kept: dict[tuple[Ballot, int], tuple[Digest, ...]] = {}
        """What nodes have copied, by order."""
        self.term = 0
        self.leader = self.nodes[0]
        self.coordinator = self._coordinator([], {})
        for node in self.nodes:
            self._see(node)

    def _model(self) -> Model:
        return Model(self)

    def _director(self) -> Director:
        return ShapeDirector(job=JOB, home=self.nodes[0].id, plan=self.shape.encode())

    def _coordinator(self, history: list[bytes], decided: dict[str, bytes]) -> Coordinator:
        node = self.leader.id
        return Coordinator(
            job=JOB,
            spec=spec_of(self.shape, key=b"walk", options=self.options),
            director=self._director(),
            leader=Leader(node, f"n{node[0] - 65}", 1),
            ballot=Ballot(0, self.term, node),
            config=self.config,
            now=self.now,
            history=history,
            decided=decided,
        )

    def _note(self, who: str, what: object) -> None:
        """Remember for the story; told only when something is wrong."""
        self._log.append((self.now, who, what))

    @property
    def log(self) -> list[str]:
        """What happened."""
        return [f"{now:.3f} {who} {what}" for now, who, what in self._log]

    # --- the two phases -------------------------------------------------------------------------------------------

    def walk(self, steps: int) -> None:
        """A safety phase of so many steps."""
        for _ in range(steps):
            if not self._one(self.faults):
                break

    def run(self, steps: int) -> JobView:
        """A safety phase of so many steps, then a liveness phase; the job's last view."""
        self.walk(steps)
        self._note("--", "nothing more goes wrong")
        for node in self.nodes:
            if node.core is None and node.told != "lost":
                self._lose(node)
            elif node.core is not None and node.told != "seen":
                self._see(node)
        if not any(node.slots for node in self.nodes):
            self._resize(self.nodes[0], 1)
        calm = 0
        while not self.coordinator.over:
            calm += 1
            if calm > 20_000:
                raise Violated(f"the job does not end: {self.coordinator.view(self.now)}")
            self._one(Faults(time=0.2))
        self.zombies.clear()
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
        if busy := self._busy():
            choices.append((100.0, "attempt", lambda: self._attempt(*self.random.choice(busy), faults)))
        if any(node.core and node.stopping for node in self.nodes):
            choices.append((50.0, "stopped", self._stopped))
        if (when := self._deadline()) < math.inf:
            choices.append((100.0 if not choices else faults.time, "tick", lambda: self._tick(when)))
        if len(self.quorum.stream) > self.quorum.protected:
            choices.append((60.0, "protect", self._protect))
        if self.quorum.open:
            choices.append((60.0, "decide", self._decide))
        others = [n for n in self.nodes if n is not self.leader]
        living = [n for n in others if n.core is not None]
        dead = [n for n in others if n.core is None]
        if living:
            choices += [
                (faults.kill, "kill", lambda: self._kill(self.random.choice(living))),
                (faults.false_death, "false death", lambda: self._false_death(self.random.choice(living))),
                (faults.doubt, "doubt", lambda: self._doubt(self.random.choice(others))),
                (faults.unlink, "unlink", lambda: self._unlink(self.random.choice(living))),
                (faults.resize, "resize", lambda: self._resize(self.random.choice(living))),
                (faults.takeover, "takeover", lambda: self._take_over(self.random.choice(living))),
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
            sender, message = node.orders.popleft()
            if isinstance(message, messages.Keep):
                self._keep(node, message)
            elif isinstance(message, messages.Shed):
                for digest in message.blobs:
                    node.disk.pop(digest, None)
            else:
                self._work(node, events.FromLeader(node=sender, message=message))
            return
        to, message = node.reports.popleft()
        if to == self.leader.id:
            if isinstance(message, messages.Kept) and not message.error and message.ballot.n == self.term:
                self.model.kept(node, self.kept[message.ballot, message.number])
            self.model.reported(node, message)
            self._lead(events.FromWorker(node=node.id, message=message))
            self.model.taken(node, message)
        elif to in self.zombies:
            self._zombie(to, events.FromWorker(node=node.id, message=message))

    def _lead(self, event: events.CoordinatorEvent) -> None:
        self._note("leader <", event)
        effects = self.coordinator.step(self.now, event)
        self.coordinator.check_invariants()
        for effect in effects:
            self._note("leader >", effect)
            match effect:
                case events.ToWorker(node=id, message=message):
                    node = self.node(id)
                    self.model.ordered(node, message)
                    if node.core is not None:
                        node.orders.append((self.leader.id, message))
                case events.JobChanged(view=view):
                    if self.view is not None and self.view.phase.over:
                        raise Violated("a job that is over changes")
                    self.view = view
                    self.model.shown(view)
                case events.AppendFacts(batch=batch):
                    self.quorum.append(batch)
                    self.model.appended(batch, len(self.quorum.stream))
                case events.ProposeCell(cell=cell, value=value):
                    if wrong := self.quorum.propose(cell, value):
                        raise Violated(wrong)
                case events.Conclude():
                    self.model.concluded()
                case events.TasksEnded() | events.Extended():
                    self._tell(effect)

    def _tell(self, effect: events.TasksEnded | events.Extended) -> None:
        """Whoever handed in the tasks hears of them; nobody does with most jobs."""

    def _protect(self) -> None:
        serial = self.quorum.protect()
        self.model.protected(serial)
        self._lead(events.FactsProtected(serial=serial))

    def _decide(self) -> None:
        cell, value = self.quorum.decide()
        self._lead(events.CellDecided(cell=cell, value=value))

    def _keep(self, node: Node, order: messages.Keep) -> None:
        """The node fetches what it is to keep."""
        contents = [self._read(source) for source in order.sources]
        error = "no holder has it" if None in contents else ""
        for content in contents:
            if content is not None:
                self._write(node, content)
        kept = messages.Kept(job=JOB, ballot=order.ballot, number=order.number, error=error)
        if not error:
            self.kept[order.ballot, order.number] = tuple(s.digest for s in order.sources)
        node.reports.append((order.ballot.node, kept))

    def _work(self, node: Node, event: events.WorkerEvent) -> None:
        assert node.core is not None, "the dead do not work"
        self._note(f"{node} <", event)
        effects = node.core.step(self.now, event)
        node.core.check_invariants()
        for effect in effects:
            self._note(f"{node} >", effect)
            match effect:
                case events.ToLeader(node=leader, message=message):
                    node.reports.append((leader, message))
                case events.RunBatch():
                    self.gangs.came(effect)
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

    def _busy(self) -> list[tuple[Node, int]]:
        """Slots at whose head something can happen."""
        queues = [(node, slot, queue) for node in self.nodes if node.core for slot, queue in node.queues.items()]
        return [(node, slot) for node, slot, queue in queues if queue and self.gangs.goes_on(queue[0].batch)]

    def _attempt(self, node: Node, slot: int, faults: Faults) -> None:
        head = node.queues[slot][0]
        if head.batch.meeting is not None:
            ends = self._gang_ends(node, head, faults)
        else:
            ends = []
            for _ in range(self.random.choice((1, 1, 2, len(head.left)))):
                if head.left:
                    ends.append(self._end(node, head, faults))
            if ends[-1].outcome is Outcome.CRASHED:
                ends += [self._stop(head) for _ in range(len(head.left))]
        self.now += 0.001 * len(ends)
        self._report(node, slot, ends)

    def _gang_ends(self, node: Node, head: Running, faults: Faults) -> list[AttemptEnd]:
        """A process of a gang ends: all its tasks alike, where one yields nothing."""
        if not self.gangs.has_met(head.batch):
            return [self._stop(head) for _ in range(len(head.left))]
        ends = [self._end(node, head, faults) for _ in range(len(head.left))]
        for end in ends:
            if end.outcome in (Outcome.CRASHED, Outcome.REFUSED):
                return [msgspec.structs.replace(end, task=other.task, attempt=other.attempt) for other in ends]
        if all(end.outcome is Outcome.DONE for end in ends):
            return ends
        return [
            msgspec.structs.replace(end, outcome=Outcome.STOPPED, value=b"", blobs=(), error="another one was stopped")
            if end.outcome is Outcome.DONE
            else end
            for end in ends
        ]

    def _end(self, node: Node, head: Running, faults: Faults) -> AttemptEnd:
        spec = head.batch.attempts[head.left.popleft()]
        draw = self.random.uniform(0, 100)
        for chance, outcome in ((faults.crash, Outcome.CRASHED), (faults.refuse, Outcome.REFUSED)):
            if draw < chance:
                return AttemptEnd(task=spec.task, attempt=spec.attempt, outcome=outcome, error="bad luck", seconds=0.01)
            draw -= chance
        return self._run(node, head, spec, unreadable=draw < faults.unreadable)

    def _run(self, node: Node, head: Running, spec: AttemptSpec, *, unreadable: bool) -> AttemptEnd:
        """What an attempt comes to that goes well."""
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
            node = self.node(holder)
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

    def _take_over(self, successor: Node) -> None:
        """The leader dies, or is deposed without knowing it; another node leads."""
        old, self.leader = self.leader, successor
        self.zombies.pop(successor.id, None)
        if dies := self.random.random() < 0.6:
            old.core = None
            old.queues.clear()
            old.stopping.clear()
            old.orders.clear()
            for node in self.nodes:
                while node.orders and node.orders[-1][0] == old.id and self.random.random() < 0.5:
                    node.orders.pop()
        else:
            self.zombies[old.id] = self.coordinator
        self.counts["dies" if dies else "deposed"] = self.counts.get("dies" if dies else "deposed", 0) + 1
        self.term += 1
        history, decided, protected, known = self.quorum.successor()
        self.model.took_over(protected, known)
        self._note(f"{successor} leads", (len(history), "batches, decided", tuple(decided)))
        self.coordinator = self._coordinator(history, decided)
        for node in self.nodes:
            if dies and node.core is not None and self.random.random() < 0.6:
                self._work(node, events.LeaderLost(node=old.id))
        for node in self.nodes:
            draw = self.random.random()
            node.told = "unknown"
            self.model.lost(node)
            if node is successor or draw < (0.2 if node.core is None else 0.8):
                self._see(node)
            elif draw < 0.9 and node.core is not None:
                self._see(node, doubtful=True)

    def _zombie(self, id: NodeId, event: events.CoordinatorEvent) -> None:
        """A deposed leader goes on, and nobody follows."""
        for effect in self.zombies[id].step(self.now, event):
            if isinstance(effect, events.ToWorker) and self.node(effect.node).core is not None:
                self.node(effect.node).orders.append((id, effect.message))

    def _back(self, node: Node, faults: Faults) -> None:
        if node.told != "lost":
            self._lose(node)
        if self.random.uniform(0, 100) < faults.disk_lost:
            node.disk.clear()
            self.disks_lost += 1
        self._boot(node)
        self._see(node)

    def _boot(self, node: Node) -> None:
        self.model.booted(node)
        self.zombies.pop(node.id, None)
        node.core = WorkerCore(me=node.id, slots=node.slots, config=self.config, fence=Fence(100), now=self.now)

    def _see(self, node: Node, *, doubtful: bool = False) -> None:
        self.model.seen(node)
        node.told, node.doubted_at = "doubtful" if doubtful else "seen", self.now
        name = f"n{node.id[0] - 65}"
        seen = events.WorkerSeen(node=node.id, name=name, slots=node.slots, machine=node.id, doubtful=doubtful)
        self._lead(seen)

    def _lose(self, node: Node) -> None:
        node.told = "lost"
        self.model.lost(node)
        self._lead(events.WorkerLost(node=node.id))

    def _doubt(self, node: Node) -> None:
        if node.told == "seen":
            node.told, node.doubted_at = "doubtful", self.now
            self._lead(events.WorkerDoubtful(node=node.id))

    def _false_death(self, node: Node) -> None:
        self._lose(node)
        if self.random.random() < 0.5:
            self._work(node, events.LeaderLost(node=self.leader.id))

    def _unlink(self, node: Node) -> None:
        node.orders.clear()
        while node.reports and self.random.random() < 0.5:
            node.reports.pop()  # what had arrived is still read; what was under way is not
        if node.core is None:
            node.reports.clear()
        self._lead(events.WorkerUnlinked(node=node.id))

    def _resize(self, node: Node, slots: int | None = None) -> None:
        node.slots = self.random.choice((0, 1, 2, 3)) if slots is None else slots
        if node.core is None:
            return
        self._work(node, events.SetSlots(slots=node.slots))
        if node.told == "seen":
            self._see(node)

    def _cancel(self) -> None:
        self._lead(events.CancelJob(reason="the user asked"))

    # --- time -----------------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        cores = [n.core.deadline() for n in self.nodes if n.core is not None]
        cores += [zombie.deadline() for zombie in self.zombies.values()]
        return min(self.coordinator.deadline(), *cores)

    def _tick(self, when: float) -> None:
        self.now = max(self.now, when)
        if self.coordinator.deadline() <= self.now:
            self._lead(events.Tick())
            if self.coordinator.deadline() <= self.now:
                raise Violated("a tick does not move the coordinator's deadline")
        for id, zombie in list(self.zombies.items()):
            if zombie.deadline() <= self.now:
                self._zombie(id, events.Tick())
        for node in self.nodes:
            if node.core is not None and node.core.deadline() <= self.now:
                self._work(node, events.Tick())
                if node.core.deadline() <= self.now:
                    raise Violated("a tick does not move the worker's deadline")

    def is_silent(self, node: Node) -> bool:
        """Whether the leader may act as if what this node holds could not be read."""
        doubted = node.told == "doubtful" and self.now >= node.doubted_at + DOUBT_S
        return doubted or node.told in ("lost", "unknown")

    def gave_up(self) -> bool:
        """Whether so much time has passed that the leader may have given a node up."""
        return self.now >= self.config.unanswered_s

    def plans(self, stage: StageId) -> bool:
        """Whether the leader has planned this stage."""
        running = self.coordinator._phase
        return isinstance(running, coordinator._Running) and stage in running.state.by_id

    def node(self, id: NodeId) -> Node:
        return self.nodes[id[0] - 65]


def short_walk(seed: int, *, takeovers: bool) -> Walk:
    """The walk of this number over a small job: shapes and faults take turns."""
    faults = SHORT_TAKEOVERS if takeovers else SHORT
    kind = faults[seed // len(SMALL) % len(faults)]
    return Walk(seed, SMALL[seed % len(SMALL)], nodes=2 + seed % 4, faults=kind)
