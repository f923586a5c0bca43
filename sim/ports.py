"""Virtual ports of a whole node: a disk that keeps blobs, and an executor that runs attempts in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, cast

from p2premap.config import GossipConfig, TasksConfig
from p2premap.errors import LocalProtocolError
from p2premap.gossip import events as gossip
from p2premap.gossip.core import GossipCore
from p2premap.gossip.messages import MESSAGES as GOSSIP_MESSAGES
from p2premap.ids import Digest, NodeId
from p2premap.node.capabilities import Capabilities
from p2premap.node.core import NodeCore
from p2premap.node.events import JobAccepted, JobRefused, NodeEvent, Tick
from p2premap.ports import FrameReceived
from p2premap.sim.hosts import Host, Life
from p2premap.sim.machines import Power, Seat
from p2premap.sim.workloads import KIND, ShapeDirector, digest_of, run_shape
from p2premap.sim.world import World
from p2premap.tasks import events as tasks
from p2premap.tasks.job import AttemptEnd, BlobRef, JobView, Outcome, Source
from p2premap.wire import Frame, Message

FETCH_S: Final = 0.002
"""How long it takes to bring one blob from another machine."""

LEAVE_S: Final = 0.003
"""From the end of a batch's last attempt until its slot goes on to the next: a process may have to end first."""

QUEUE_MAX: Final = 2


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


@dataclass(slots=True)
class Desk:
    """What a machine's disk keeps, and what its node told the outside, over all its lives."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    views: dict[bytes, JobView] = field(default_factory=dict)
    answers: list[JobAccepted | JobRefused] = field(default_factory=list)
    attempts: int = 0
    slow: bool = False


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
        desks: every machine's, by node id, to read blobs from.
    """

    def __init__(self, world: World, seat: Seat, desks: dict[NodeId, Desk], config: Executors, random: Random) -> None:
        self._world = world
        self._seat = seat
        self._life = seat.life
        self._desks = desks
        self._desk = desks[seat.node]
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
            self._later(order.grace_s / 2, lambda: self._stopped(order.slot, turn))

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._world.clock.at(self._world.now + seconds, self._act, act)

    def _act(self, act: Callable[[], None]) -> None:
        if self._seat.life != self._life:
            return
        if self._seat.power is Power.RUNNING:
            act()
        else:
            self._later(0.05, lambda: act())  # a frozen process hears of it when it runs again

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
        seconds = self._duration(batch, spec.params) + fetched * FETCH_S
        self._later(seconds, lambda: self._ended(slot, turn, seconds))

    def _duration(self, batch: tasks.RunBatch, params: bytes) -> float:
        base = 0.05 if batch.function == "map" else 0.08
        pace = self._config.slow if self._desk.slow else 1.0
        return base * pace * (1 + self._random.uniform(-1, 1) * self._config.jitter) + len(params) * 1e-6

    def _ended(self, slot: int, turn: int, seconds: float) -> None:
        if self._turn[slot] != turn:
            return
        head = self._slots[slot][0]
        batch = head.batch
        spec = batch.attempts[head.left.popleft()]
        self._desk.attempts += 1
        if self._random.random() < self._config.crash:
            crashed = AttemptEnd(task=spec.task, attempt=spec.attempt, outcome=Outcome.CRASHED, error="signal 11")
            self._report(slot, [crashed, *self._rest(slot)])
            return
        self._report(slot, [run_shape(batch, spec, self._read, self._write, seconds=seconds)])

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
            self._later(LEAVE_S, lambda: self._leave(slot))
        else:
            self._begin(slot)
        self._world.tell(self._seat, tasks.SlotReported(slot=slot, ends=tuple(ends), batch_over=over))

    def _leave(self, slot: int) -> None:
        queue = self._slots[slot]
        queue.popleft()
        if queue:
            self._begin(slot)

    def _read(self, source: Source) -> bytes | None:
        for holder in (self._seat.node, *source.holders):
            owner = self._world.owners.get(holder)
            reachable = owner is self._seat or (
                owner is not None
                and owner.power is Power.RUNNING
                and owner.node == holder
                and self._world.network.connected(self._seat, owner)
            )
            if reachable and (content := self._desks[holder].blobs.get(source.digest)) is not None:
                return content
        return None

    def _write(self, content: bytes) -> BlobRef:
        digest = digest_of(content)
        self._desk.blobs[digest] = content
        return BlobRef(digest=digest, size=len(content))


class NodeHost:
    """A whole node's core, with its virtual executor."""

    def __init__(self, core: NodeCore, gossip_core: GossipCore, executor: VirtualExecutor, desk: Desk) -> None:
        self.core = core
        self.gossip = gossip_core
        self.deadline = core.deadline
        self._executor = executor
        self._desk = desk

    def step(self, now: float, event: object) -> Sequence[object]:
        return self.core.step(now, Tick() if isinstance(event, gossip.Tick) else cast(NodeEvent, event))

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
            case _:
                pass

    def frame(self, sender: NodeId, message: Message, payload: bytes) -> object:
        if isinstance(message, GOSSIP_MESSAGES):
            if payload:
                raise LocalProtocolError("gossip has no payloads")
            return gossip.Received(sender=sender, address=None, message=message)
        return FrameReceived(peer=sender, frame=Frame(message, payload))

    def check_invariants(self) -> None:
        self.gossip.check_invariants()
        self.core.check_invariants()


class NodeHosts:
    """Makes whole nodes.

    Args:
        slots: of each.
    """

    def __init__(
        self, *, slots: int = 2, executors: Executors | None = None, tasks_config: TasksConfig | None = None
    ) -> None:
        self.desks: dict[NodeId, Desk] = {}
        self.world: World | None = None
        self._slots = slots
        self._executors = executors or Executors()
        self._tasks = tasks_config or TasksConfig()

    def __call__(self, life: Life) -> Host:
        assert self.world is not None, "tell the hosts their world first"
        seat = self.world.owners[life.node]
        desk = self.desks.setdefault(life.node, Desk())
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
            config=self._tasks,
            now=life.now,
        )
        executor = VirtualExecutor(self.world, seat, self.desks, self._executors, life.random("executor"))
        return NodeHost(core, gossip_core, executor, desk)
