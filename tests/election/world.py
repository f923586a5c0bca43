"""A few election cores that hear each other at once and whose disks never fail: for dialogues without chance."""

from __future__ import annotations

import itertools
from collections import deque
from random import Random

from p2premap.config import ElectionConfig
from p2premap.election import events
from p2premap.election.core import ElectionCore
from p2premap.ids import JOB_ID_BYTES, Boot, JobId, NodeId
from p2premap.sim.electionmodel import Disk
from p2premap.wire import Message

JOB = JobId(b"j" * JOB_ID_BYTES)


class World:
    """Nodes a, b, c...; `told` has every effect that is not for a disk or a peer."""

    def __init__(self, names: str, *, config: ElectionConfig | None = None) -> None:
        self.now = 0.0
        self.config = config or ElectionConfig()
        self.ids = {name: NodeId(name.encode() * 16) for name in names}
        self.names = {id: name for name, id in self.ids.items()}
        self.disks = {name: Disk() for name in names}
        self.lives: dict[str, tuple[Boot, ...]] = dict.fromkeys(names, ())
        """Of each node, the boots that its disk remembers, its own last; no two nodes or lives have the same."""
        self._boots = itertools.count(1)
        self.cores: dict[str, ElectionCore] = {}
        self.told: list[tuple[str, events.ElectionEffect]] = []
        self.full: set[str] = set()
        self.deaf: set[str] = set()
        self._queue: deque[tuple[str, events.ElectionEvent]] = deque()
        for name in names:
            self.start(name)

    def start(self, name: str) -> None:
        """Begin a life of this node; everybody hears of it."""
        boot, former = Boot(next(self._boots)), self.lives[name]
        self.lives[name] = (*former, boot)
        self.cores[name] = ElectionCore(
            me=self.ids[name],
            boot=boot,
            former=former,
            name=name,
            config=self.config,
            rng=Random(name),
            now=self.now,
            stored=self.disks[name].stored(),
        )
        for other in self.cores:
            if other != name:
                self.put(other, events.PeerSeen(node=self.ids[name], boot=boot))
                self.put(name, events.PeerSeen(node=self.ids[other], boot=self.lives[other][-1]))

    def crash(self, name: str, *, certain: bool = True) -> None:
        """End its life; everybody hears of it."""
        del self.cores[name]
        self._queue = deque(item for item in self._queue if item[0] != name)
        for other in list(self.cores):
            self.put(other, events.PeerUnlinked(node=self.ids[name]))
            self.put(other, events.PeerGone(node=self.ids[name], certain=certain))

    def put(self, name: str, event: events.ElectionEvent) -> None:
        """Tell a node; what follows at once follows."""
        self._queue.append((name, event))
        while self._queue:
            to, one = self._queue.popleft()
            if to in self.cores:
                effects = self.cores[to].step(self.now, one)
                self.cores[to].check_invariants()
                for effect in effects:
                    self._perform(to, effect)

    def _perform(self, name: str, effect: events.ElectionEffect) -> None:
        match effect:
            case events.ToReplica(node=node, message=message):
                if self.names[node] not in self.deaf and self.arrives(node, message):
                    self._queue.append((self.names[node], events.FromReplica(node=self.ids[name], message=message)))
            case events.Persist(token=token, records=records):
                if name in self.full:
                    self._queue.append((name, events.PersistFailed(token=token, text="The disk is full.")))
                else:
                    self.disks[name].write(records)
                    self._queue.append((name, events.Persisted(token=token)))
            case events.LoadBatches(token=token):
                self._queue.append((name, events.BatchesLoaded(token=token, batches=self.disks[name].beyond(effect))))
            case events.Bring(job=job):
                self._queue.append((name, events.Brought(job=job)))
            case _:
                self.told.append((name, effect))

    def arrives(self, to: NodeId, message: Message) -> bool:
        """Whether this message is not lost."""
        return True

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while True:
            when = min((core.deadline() for core in self.cores.values()), default=until)
            if when > until:
                self.now = until
                return
            self.now = max(self.now, when)
            for name in list(self.cores):
                if name in self.cores and self.cores[name].deadline() <= self.now:
                    self.put(name, events.Tick())

    def create(self, name: str, members: str, *, job: JobId = JOB, key: bytes = b"key", strict: bool = False) -> None:
        """A client hands a job in."""
        ids = tuple(self.ids[member] for member in members)
        self.put(
            name,
            events.CreateJob(
                request=1, job=job, members=ids, key=key, spec=b"spec", strict=strict, copies=max(1, len(members))
            ),
        )

    def heard(self, kind: type[events.ElectionEffect]) -> list[tuple[str, events.ElectionEffect]]:
        """What was told of this kind."""
        return [(name, effect) for name, effect in self.told if isinstance(effect, kind)]

    def leader(self, job: JobId = JOB) -> str:
        """Who leads; "" where nobody does, or two do."""
        leaders = [name for name, core in self.cores.items() if (state := core.job(job)) is not None and state.leads]
        return leaders[0] if len(leaders) == 1 else ""
