"""Whole nodes in virtual time: the node's core, an executor that runs attempts, and storage that forgets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from p2premap.config import ElectionConfig, GossipConfig, TasksConfig
from p2premap.election import events as election
from p2premap.election.core import ElectionCore
from p2premap.gossip import events as gossip
from p2premap.gossip.core import GossipCore
from p2premap.gossip.messages import MESSAGES as GOSSIP_MESSAGES
from p2premap.ids import Digest, NodeId, starts_of
from p2premap.node.capabilities import Capabilities
from p2premap.node.charter import Charter
from p2premap.node.core import NodeCore
from p2premap.node.events import JobAccepted, JobRefused, KeepBlobs, ReadPlan, ShedBlobs, Tick
from p2premap.ports import FrameReceived
from p2premap.sim.checkers import ENDS, Quiet
from p2premap.sim.disks import FULL, LedgerDisk
from p2premap.sim.hosts import Host, Life
from p2premap.sim.ledgers import Ledgers, SeatAudit
from p2premap.sim.machines import Seat
from p2premap.sim.storage import FETCH_S, Desk, Storage
from p2premap.sim.workloads import KIND, ShapeDirector, is_inline, run_shape, seconds_of
from p2premap.sim.world import World
from p2premap.tasks import events as tasks
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Outcome
from p2premap.wire import Frame, Message

LEAVE_S: Final = 0.003
"""From the end of a batch's last attempt until its slot goes on to the next: a process may have to end first."""

QUEUE_MAX: Final = 2

_TICK: Final = Tick()
_GOSSIP: Final = frozenset(GOSSIP_MESSAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """How well attempts run.

    Args:
        crash: the chance of an attempt to crash its worker process.
        jitter: durations vary by this part of themselves.
        slow: so many times slower at the nodes that are slow.
    """

    crash: float = 0.0
    jitter: float = 0.2
    slow: float = 10.0


@dataclass(slots=True, eq=False)
class Queued:
    """A batch at a virtual executor: which of its attempts have not ended, and whether it is to be stopped."""

    batch: tasks.RunBatch
    left: deque[int]
    unwanted: bool = False


class VirtualExecutor:
    """Runs batches as `p2premap.node.executor` promises: in order, each attempt answered once, whatever happens.

    Args:
        world: for time.
        seat: the machine.
        storage: its blobs.
    """

    def __init__(self, world: World, seat: Seat, storage: Storage, config: Executors, random: Random) -> None:
        self._world = world
        self._seat = seat
        self._storage = storage
        self._desk = storage.desk
        self._config = config
        self._random = random
        self._slots: dict[int, deque[Queued]] = {}
        self._turn: dict[int, int] = {}

    def run(self, batch: tasks.RunBatch) -> None:
        """Take a batch into its slot."""
        queue = self._slots.setdefault(batch.slot, deque())
        queue.append(Queued(batch, deque(range(len(batch.attempts)))))
        assert sum(bool(queued.left) for queued in queue) <= QUEUE_MAX, "a slot is over-committed"
        if len(queue) == 1:
            self._begin(batch.slot)

    def stop(self, order: tasks.StopSlot) -> None:
        """Stop a batch, wherever it stands; if it runs, half-way through the grace time."""
        queue = self._slots[order.slot]
        meant = [queued for queued in queue if queued.batch.batch == order.batch and queued.left]
        for queued in meant:
            queued.unwanted = True
        if queue[0] in meant:
            turn = self._turn[order.slot] = self._turn[order.slot] + 1
            self._storage.later(order.grace_s / 2, lambda: self._stopped(order.slot, turn))

    def _begin(self, slot: int) -> None:
        """Start the next attempt of the slot."""
        head = self._slots[slot][0]
        batch = head.batch
        if head.unwanted:
            self._report(slot, self._rest(slot))
            return
        spec = batch.attempts[head.left[0]]
        turn = self._turn[slot] = self._turn.get(slot, 0) + 1
        fetched = sum(1 for s in spec.sources if s.blob is not None and s.blob not in self._desk.blobs)
        seconds = self._duration(spec) + fetched * FETCH_S
        self._storage.later(seconds, lambda: self._ended(slot, turn, seconds))

    def _duration(self, spec: AttemptSpec) -> float:
        pace = self._config.slow if self._desk.slow else 1.0
        return seconds_of(spec) * pace * (1 + self._random.uniform(-1, 1) * self._config.jitter)

    def _ended(self, slot: int, turn: int, seconds: float) -> None:
        if self._turn[slot] != turn:
            return
        head = self._slots[slot][0]
        batch = head.batch
        spec = batch.attempts[head.left.popleft()]
        self._desk.attempts += 1
        if self._desk.crashes or self._random.random() < self._config.crash:
            self._desk.crashes = max(0, self._desk.crashes - 1)
            crashed = AttemptEnd(task=spec.task, attempt=spec.attempt, outcome=Outcome.CRASHED, error="signal 11")
            self._report(slot, [crashed, *self._rest(slot)])
            return
        if self._storage.full and not is_inline(spec):
            refused = AttemptEnd(task=spec.task, attempt=spec.attempt, outcome=Outcome.REFUSED, error=FULL)
            self._report(slot, [refused])
            return
        self._report(slot, [run_shape(batch, spec, self._storage.read, self._storage.write, seconds=seconds)])

    def _stopped(self, slot: int, turn: int) -> None:
        if self._turn[slot] == turn:
            self._report(slot, self._rest(slot))

    def _rest(self, slot: int) -> list[AttemptEnd]:
        head = self._slots[slot][0]
        specs = [head.batch.attempts[n] for n in head.left]
        head.left.clear()
        return [AttemptEnd(task=s.task, attempt=s.attempt, outcome=Outcome.STOPPED, error="stopped") for s in specs]

    def _report(self, slot: int, ends: Sequence[AttemptEnd]) -> None:
        """The core hears of the end of a batch while the slot has not left it yet."""
        over = not self._slots[slot][0].left
        if over:
            self._storage.later(LEAVE_S, lambda: self._leave(slot))
        else:
            self._begin(slot)
        self._world.tell(self._seat, tasks.SlotReported(slot=slot, ends=tuple(ends), batch_over=over))

    def _leave(self, slot: int) -> None:
        queue = self._slots[slot]
        queue.popleft()
        if queue:
            self._begin(slot)


class NodeHost:
    """A whole node's core, with its virtual executor."""

    def __init__(self, core: NodeCore, gossip_core: GossipCore, executor: VirtualExecutor, storage: Storage) -> None:
        self.core = core
        self.gossip = gossip_core
        self.deadline = core.deadline
        self._executor = executor
        self._storage = storage
        self._desk = storage.desk

    def step(self, now: float, event: object) -> Sequence[object]:
        return self.core.step(now, _TICK if type(event) is gossip.Tick else event)  # type: ignore[arg-type]

    def perform(self, effect: object) -> None:
        match effect:
            case tasks.RunBatch():
                self._executor.run(effect)
            case tasks.StopSlot():
                self._executor.stop(effect)
            case tasks.JobChanged(job=job, view=view):
                self._desk.views[job] = view
            case JobAccepted() | JobRefused():
                self._desk.answers.append(effect)
            case election.Persist() | election.LoadBatches() | election.Bring() | ReadPlan() | KeepBlobs():
                self._storage.perform(effect)
            case ShedBlobs(blobs=blobs):
                for digest in blobs:
                    self._desk.blobs.pop(digest, None)
            case _:
                pass

    def frame(self, sender: NodeId, message: Message) -> object:
        if type(message) in _GOSSIP:
            return gossip.Received(sender=sender, address=None, message=message)
        return FrameReceived(peer=sender, frame=Frame(message, b""))

    def check_invariants(self) -> None:
        self.gossip.check_invariants()
        self.core.check_invariants()


class NodeHosts(Quiet):
    """Makes whole nodes.

    Args:
        slots: of each.
    """

    kinds: tuple[type, ...] = ()

    def __init__(
        self, *, slots: int = 2, executors: Executors | None = None, tasks_config: TasksConfig | None = None
    ) -> None:
        self.desks: dict[NodeId, Desk] = {}
        self.lost_blobs = 0
        """Blobs that a loss of power has taken."""
        self._identities: dict[int, NodeId] = {}
        self._needs: dict[bytes, set[Digest]] = {}
        self._world: World | None = None
        self._ledgers: Ledgers | None = None
        self._slots = slots
        self._executors = executors or Executors()
        self._tasks = tasks_config or TasksConfig()

    def settle(self, world: World, ledgers: Ledgers) -> None:
        """The world that its nodes will live in; once, before any starts."""
        self._world, self._ledgers = world, ledgers
        world.observe(self)

    def fault(self, seat: Seat, word: str) -> None:
        if word == "start" and self._identities.setdefault(seat.index, seat.node) != seat.node:
            gone = self.desks[self._identities[seat.index]]
            gone.lost.update(gone.blobs)
            gone.blobs.clear()
            self._identities[seat.index] = seat.node
        if word not in ENDS:
            return
        desk = self.desks[seat.node]
        desk.ledger.crash(power=word == "off")
        if word == "off":
            assert self._world is not None
            self.lost_blobs += desk.lose_power(self._world.random("power", seat.index, seat.life))

    def content(self, digest: Digest, holders: Iterable[NodeId]) -> bytes | None:
        """A blob that one of these has."""
        found = (self.desks[holder].blobs.get(digest) for holder in holders if holder in self.desks)
        return next((content for content in found if content is not None), None)

    def has_all(self, node: NodeId, charter: bytes) -> bool:
        """Whether the disk of this identity has what the job with this charter needs: its code and its plan."""
        if charter not in self._needs:
            spec = Charter.decode(charter).spec
            self._needs[charter] = {Digest(spec.code.digest), Digest(spec.plan.digest)}
        return self._needs[charter] <= self.desks[node].blobs.keys()

    def was_lost(self, digest: Digest) -> bool:
        """Whether a disk has lost it."""
        return any(digest in desk.lost for desk in self.desks.values())

    def _desk(self, world: World, seat: Seat) -> Desk:
        if seat.node not in self.desks:
            assert self._ledgers is not None
            random = world.random(seat.node.hex(), "disk")
            self.desks[seat.node] = Desk(LedgerDisk(random, SeatAudit(self._ledgers, seat)))
        return self.desks[seat.node]

    def __call__(self, life: Life) -> Host:
        world = self._world
        assert world is not None, "tell the hosts their world first"
        seat = world.owners[life.node]
        desk = self._desk(world, seat)
        stored = desk.ledger.boot(starts_of(life.boot), old=life.old).stored()
        storage = Storage(world, seat, self.desks)
        gossip_core = GossipCore(
            me=life.node,
            boot=life.boot,
            name=life.name,
            addresses=life.addresses,
            config=GossipConfig(),
            rng=life.random("gossip"),
            now=life.now,
        )
        core = NodeCore(
            me=life.node,
            name=life.name,
            gossip=gossip_core,
            capabilities=Capabilities(machine=life.node, slots=self._slots, pid=seat.index),
            directors={KIND: ShapeDirector},
            elections=ElectionCore(
                me=life.node,
                boot=life.boot,
                former=life.former,
                name=life.name,
                config=ElectionConfig(),
                rng=life.random("election"),
                now=life.now,
                stored=stored,
            ),
            config=self._tasks,
            now=life.now,
        )
        executor = VirtualExecutor(world, seat, storage, self._executors, life.random("executor"))
        return NodeHost(core, gossip_core, executor, storage)
