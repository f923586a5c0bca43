"""The nodes that may work for one job, as its leader knows them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import Final

import msgspec

from p2premap.config import TasksConfig
from p2premap.ids import NodeId
from p2premap.tasks import placement
from p2premap.tasks.batches import Batch
from p2premap.tasks.placement import NOTHING, Facts, Lack, Requirements

REST_DOUBLINGS_MAX: Final = 4


class Worker(msgspec.Struct):
    """One node.

    Args:
        slots: worker processes that it offers, as far as the job may use them; 0 where it lacks what the job requires.
        lacks: what that is.
        capped: no more than `slots` batches may be there, since each needs its share of what the node has.
        allow: how many further `Assign`s it would take, as far as it told.
        rest_until: it is asked nothing before.
        received: every `AttemptsEnded` up to this number has come.
        heard: what was made of them is protected up to this one; the worker is told so.
        early: reports of a stage that is not planned here yet were put aside, and are not to be confirmed.
        losses: how often it was lost; its reports are numbered anew then.
        last_word: when it last said something, or was first given something.
        asked: when a `Recount` was sent that has not been answered; `recounts` is the number of the last one.
        owes: it may still run what was given up, until it has answered this `Recount` and holds nothing; 0: no.
        census: it has been asked what it runs for the job since the time of a former leader, and has not said.
        estranged: it did not answer; nothing is expected of it until it speaks.
    """

    node: NodeId
    name: str
    slots: int
    machine: bytes
    allow: int
    lost: bool = False
    doubtful: bool = False
    estranged: bool = False
    rest_until: float = 0.0
    rests: int = 0
    received: int = 0
    heard: int = 0
    early: bool = False
    losses: int = 0
    last_word: float = 0.0
    asked: float = math.inf
    recounts: int = 0
    owes: int = 0
    touched: bool = False
    census: bool = False
    lacks: tuple[Lack, ...] = ()
    capped: bool = False
    said: str = ""
    batches: dict[int, Batch] = msgspec.field(default_factory=dict)

    @property
    def eligible(self) -> bool:
        """Whether it may be given work at all."""
        return self.slots > 0 and not (self.lost or self.doubtful or self.estranged)

    @property
    def engaged(self) -> bool:
        """Whether something of the job may run there, as far as the leader must care."""
        return not (self.lost or self.estranged) and bool(self.batches or self.owes)


class Workers:
    """All of them, and which have room.

    Args:
        requirements: what a node must have.
    """

    def __init__(self, config: TasksConfig, requirements: Requirements = NOTHING) -> None:
        self._config = config
        self._requirements = requirements
        self.all: dict[NodeId, Worker] = {}
        self.machine_of: dict[NodeId, bytes] = {}
        self.slots = 0
        """Of all eligible nodes."""
        self.batches = 0
        """Out at all nodes."""
        self._hungry: dict[NodeId, Worker] = {}
        self._resting: dict[NodeId, Worker] = {}

    def see(self, node: NodeId, name: str, slots: int, machine: bytes, facts: Facts) -> Worker:
        """The node can work: new, back, or of another size."""
        worker = self.all.get(node)
        offered, slots = slots, placement.places(self._requirements, facts, slots)
        places = slots * self._config.queue_batches
        if worker is None:
            worker = self.all[node] = Worker(node, name, slots, machine, places)
        else:
            worker.allow = max(0, worker.allow + places - worker.slots * self._config.queue_batches)
            worker.name, worker.slots, worker.machine = name, slots, machine
            if worker.lost or worker.estranged:
                worker.allow = places
        worker.lost = worker.doubtful = worker.estranged = False
        worker.lacks, worker.capped = placement.lacks(self._requirements, facts), slots < offered
        self.machine_of[node] = machine
        self.update(worker)
        return worker

    def update(self, worker: Worker) -> None:
        """Something about this worker changed."""
        self.slots = sum(w.slots for w in self.all.values() if w.eligible)
        self.feed(worker)

    def feed(self, worker: Worker) -> None:
        """Note whether it has room for more."""
        if self.room(worker) > 0:
            self._hungry[worker.node] = worker
        else:
            self._hungry.pop(worker.node, None)

    def room(self, worker: Worker) -> int:
        """How many batches could be sent to it now."""
        if not worker.eligible or worker.node in self._resting:
            return 0
        most = worker.slots if worker.capped else worker.slots * self._config.queue_batches
        return min(worker.allow, most - len(worker.batches))

    def hungry(self, near: NodeId) -> list[Worker]:
        """Those with room, the least loaded first; of equals the node `near` comes first: no network lies between."""
        if len(self._hungry) <= 1:
            return list(self._hungry.values())
        return sorted(self._hungry.values(), key=lambda w: (len(w.batches) / w.slots, w.node != near, w.node))

    def rest(self, now: float, worker: Worker, seconds: float) -> None:
        """Ask it nothing for a while; longer each time in a row."""
        worker.rest_until = now + seconds * 2 ** min(worker.rests, REST_DOUBLINGS_MAX)
        self._resting[worker.node] = worker
        self.feed(worker)

    def wake(self, worker: Worker) -> None:
        """It may be asked again."""
        self._resting.pop(worker.node, None)
        self.feed(worker)

    def wake_due(self, now: float) -> None:
        """Those that have rested long enough may be asked again, for one batch at least."""
        for worker in [w for w in self._resting.values() if w.rest_until <= now]:
            worker.allow = max(worker.allow, 1)
            self.wake(worker)

    def deadline(self) -> float:
        """When the next one has rested."""
        return min((w.rest_until for w in self._resting.values()), default=math.inf)

    def resting(self) -> Iterator[Worker]:
        """Those that are asked nothing for now."""
        return iter(self._resting.values())

    def any_eligible_but(self, avoided: Container[NodeId]) -> bool:
        """Whether another node could do it."""
        return any(w.eligible and w.node not in avoided for w in self.all.values())

    def is_there(self, node: NodeId) -> bool:
        """Whether it lives and answers, as far as is known."""
        worker = self.all.get(node)
        return worker is not None and not (worker.lost or worker.doubtful or worker.estranged)

    def eligible(self) -> int:
        """How many could be given work."""
        return sum(w.eligible for w in self.all.values())

    def unmet(self) -> list[tuple[str, Lack]]:
        """Who lacks what, where that is why nobody can be given work."""
        here = [w for w in self.all.values() if not (w.lost or w.estranged)]
        if not all(w.lacks for w in here):
            return []
        return [(w.name, lack) for w in sorted(here, key=lambda w: w.name) for lack in w.lacks]
