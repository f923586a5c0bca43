"""What the parts of one election core share: the clock, the effects of this step, the peers, the disk."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from random import Random
from typing import TypeAlias

from p2premap.config import ElectionConfig
from p2premap.election.events import ElectionEffect, LoadBatches, ToReplica
from p2premap.election.journal import Journal
from p2premap.election.messages import Ack, Heard
from p2premap.election.records import StoredBatch
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.wire import Message

LoadDone: TypeAlias = Callable[[tuple[StoredBatch, ...]], None]


class Peer:
    """Another node, as gossip tells of it.

    Args:
        alive: neither doubtful nor gone.
        gone: dead or left.
        certain: gone, and its process is so for certain.
        since: when that changed last.
    """

    __slots__ = ("alive", "boot", "certain", "gone", "since")

    def __init__(self, boot: Boot, now: float) -> None:
        self.boot = boot
        self.alive = True
        self.gone = False
        self.certain = False
        self.since = now


class Agenda:
    """When each job wants to be looked at: a heap in which what was put off is found stale when it comes up."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[JobId, float] = {}
        self._heap: list[tuple[float, JobId]] = []

    def put(self, job: JobId, when: float) -> None:
        """It wants to be looked at then. Later than before costs nothing now: it is looked at too early, once."""
        if when < self._due.get(job, math.inf):
            self._due[job] = when
            heapq.heappush(self._heap, (when, job))

    def deadline(self) -> float:
        """When the first one does."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def pop_due(self, now: float) -> JobId | None:
        """One whose time has come; it must be put again."""
        if self.deadline() > now:
            return None
        job = heapq.heappop(self._heap)[1]
        del self._due[job]
        return job


class Context:
    """One core's surroundings. The core sets `now` and empties `out` at each step; the parts add effects to it."""

    __slots__ = (
        "_acks",
        "_load",
        "_loads",
        "agenda",
        "boot",
        "config",
        "former",
        "inbox",
        "journal",
        "leaving",
        "me",
        "now",
        "out",
        "peers",
        "rng",
        "touched",
    )

    def __init__(
        self, *, me: NodeId, boot: Boot, former: tuple[Boot, ...], config: ElectionConfig, rng: Random, now: float
    ) -> None:
        self.me = me
        self.boot = boot
        self.former = former
        self.config = config
        self.rng = rng
        self.now = now
        self.journal = Journal(config.resend_s)
        self.agenda = Agenda()
        self.peers: dict[NodeId, Peer] = {}
        self.out: list[ElectionEffect] = []
        self._acks: dict[NodeId, dict[JobId, Ack]] = {}
        self._loads: dict[int, LoadDone] = {}
        self._load = 0
        self.inbox: list[Message] = []
        """What this node tells itself."""
        self.leaving = False
        """This node is about to go."""
        self.touched: dict[JobId, None] = {}
        """The jobs to which something happened in this step."""

    def touch(self, job: JobId) -> None:
        """Something happened to this job."""
        self.touched[job] = None

    def flush(self) -> None:
        """The end of a step: answers that were gathered are given, records that were gathered are written."""
        for node, acks in self._acks.items():
            self.send(node, Heard(acks=tuple(acks.values()), leaving=self.leaving))
        self._acks.clear()
        if (persist := self.journal.flush(self.now)) is not None:
            self.out.append(persist)

    # --- others -----------------------------------------------------------------------------------------------------

    def alive(self, node: NodeId) -> bool:
        """Whether gossip holds it for alive and well; oneself always is."""
        return node == self.me or ((peer := self.peers.get(node)) is not None and peer.alive)

    def reachable(self, node: NodeId) -> bool:
        """Whether it is worth sending to: alive, or only doubtful."""
        return node == self.me or ((peer := self.peers.get(node)) is not None and not peer.gone)

    def certainly_gone(self, node: NodeId) -> bool:
        """Whether its process is known to have ended."""
        peer = self.peers.get(node)
        return peer is not None and peer.gone and peer.certain

    def boot_of(self, node: NodeId) -> Boot:
        """The boot in which it was seen last; 0 where it never was."""
        if node == self.me:
            return self.boot
        peer = self.peers.get(node)
        return peer.boot if peer is not None else Boot(0)

    def send(self, node: NodeId, message: Message) -> None:
        """Over the link."""
        self.out.append(ToReplica(node=node, message=message))

    def tell(self, node: NodeId, message: Message) -> None:
        """Over the link, or to this node itself, in the same step."""
        if node == self.me:
            self.inbox.append(message)
        else:
            self.send(node, message)

    def ack(self, node: NodeId, ack: Ack) -> None:
        """Tell it at the end of this step, together with others."""
        self._acks.setdefault(node, {})[ack.job] = ack

    # --- the disk ---------------------------------------------------------------------------------------------------

    def load(self, job: JobId, beyond: Mapping[Ballot, int], done: LoadDone) -> None:
        """Read batches back; `done` gets them in order of (ballot, serial)."""
        self._load += 1
        self._loads[self._load] = done
        self.out.append(LoadBatches(token=self._load, job=job, beyond=dict(beyond)))

    def loaded(self, token: int, batches: tuple[StoredBatch, ...]) -> None:
        """They have been read."""
        done = self._loads.pop(token, None)
        if done is not None:
            done(batches)
