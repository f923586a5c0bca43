"""What a virtual node keeps: its blobs, its ledger, and what it tells the outside; and how it brings blobs here.

A blob that was written with a sync survives; one that was not may be gone, or torn, when the machine loses its power.
A torn blob is found out as in the daemon, by whoever reads it: the digest does not fit, and it counts as not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias

from p2premap.election import events as election
from p2premap.ids import Digest, NodeId
from p2premap.node.charter import Charter
from p2premap.node.events import BlobsKept, JobAccepted, JobRefused, KeepBlobs, PlanRead, ReadPlan
from p2premap.sim.disks import FULL, Fault, LedgerDisk
from p2premap.sim.machines import Power, Seat
from p2premap.sim.workloads import digest_of
from p2premap.sim.world import World
from p2premap.tasks.job import BlobRef, JobView, Source
from p2premap.tasks.messages import Kept

FETCH_S: Final = 0.002
"""How long it takes to bring one blob from another machine."""

Asked: TypeAlias = election.Persist | election.LoadBatches | election.Bring | ReadPlan | KeepBlobs


@dataclass(slots=True)
class Desk:
    """What a machine keeps under one identity, and what its node told the outside, over all its lives.

    Args:
        lost: blobs that were here once, and that a loss of power, or of the disk, has taken.
        slow: its attempts take long.
    """

    ledger: LedgerDisk
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    lost: set[Digest] = field(default_factory=set)
    unsynced: set[Digest] = field(default_factory=set)
    views: dict[bytes, JobView] = field(default_factory=dict)
    answers: list[JobAccepted | JobRefused] = field(default_factory=list)
    attempts: int = 0
    crashes: int = 0
    slow: bool = False

    def lose_power(self, random: Random) -> int:
        """Blobs that were not synced may be gone, or torn, which is as good; how many."""
        gone = [digest for digest in sorted(self.unsynced) if random.random() < 0.5]
        for digest in gone:
            self.blobs.pop(digest, None)
        self.lost.update(gone)
        self.unsynced.clear()
        return len(gone)


class Storage:
    """One life's way to its own desk and to those of others.

    Args:
        world: for time.
        seat: the machine.
        desks: every machine's, by node id.
    """

    def __init__(self, world: World, seat: Seat, desks: dict[NodeId, Desk]) -> None:
        self._world = world
        self._seat = seat
        self._life = seat.life
        self._desks = desks
        self.desk = desks[seat.node]

    # --- what the core asks ---------------------------------------------------------------------------------------

    def perform(self, asked: Asked) -> None:
        """Begin; the answer comes as an event."""
        match asked:
            case election.Persist(token=token, records=records, sync=sync):
                self.desk.ledger.write(records, sync, self.later, lambda error: self._persisted(token, error))
            case election.LoadBatches(token=token, job=job, beyond=beyond):
                loaded = self.desk.ledger.batches(job, beyond)
                self.later(FETCH_S, lambda: self._tell(election.BatchesLoaded(token=token, batches=loaded)))
            case election.Bring():
                self.later(FETCH_S, lambda: self._bring(asked))
            case ReadPlan(job=job, plan=plan):
                content = self.desk.blobs.get(Digest(plan.digest))
                answer = PlanRead(job=job, plan=content or b"", error="" if content is not None else "It is not here.")
                self.later(FETCH_S, lambda: self._tell(answer))
            case KeepBlobs(node=node, order=order):
                self.later(FETCH_S * len(order.sources), lambda: self._tell(self._keep(node, asked)))

    def _persisted(self, token: int, error: str) -> None:
        if error:
            self._tell(election.PersistFailed(token=token, text=error))
        else:
            self._tell(election.Persisted(token=token))

    def _bring(self, asked: election.Bring) -> None:
        spec = Charter.decode(asked.spec).spec
        wanted = (spec.code, spec.plan)
        error = self._copy(
            Source(digest=ref.digest, start=0, end=ref.size, holders=(asked.source,), blob=ref.digest) for ref in wanted
        )
        self._tell(election.Brought(job=asked.job, error=error))

    def _keep(self, node: NodeId, asked: KeepBlobs) -> BlobsKept:
        order = asked.order
        error = self._copy(order.sources)
        kept = Kept(job=order.job, ballot=order.ballot, number=order.number, error=error)
        return BlobsKept(node=node, kept=kept)

    def _copy(self, sources: Iterable[Source]) -> str:
        """Have them here, synced; "" or what is missing."""
        for source in sources:
            content = self.read(source)
            if content is None:
                return "No holder has it."
            if self.full:
                return FULL
            self.desk.blobs[Digest(source.digest)] = content
            self.desk.unsynced.discard(Digest(source.digest))
        return ""

    # --- for attempts ---------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether nothing can be written."""
        return self.desk.ledger.fault is Fault.FULL

    def read(self, source: Source) -> bytes | None:
        """The bytes of a source, from here or from a holder that can be reached; None where nobody has it."""
        for holder in (self._seat.node, *source.holders):
            owner = self._world.owners.get(holder)
            reachable = owner is self._seat or (
                owner is not None
                and owner.power is Power.RUNNING
                and owner.node == holder
                and self._world.network.connected(self._seat, owner)
            )
            if reachable and (content := self._desks[holder].blobs.get(Digest(source.digest))) is not None:
                return content
        return None

    def write(self, content: bytes) -> BlobRef:
        """A new blob, not synced."""
        digest = digest_of(content)
        if digest not in self.desk.blobs:
            self.desk.blobs[digest] = content
            self.desk.unsynced.add(digest)
        return BlobRef(digest=digest, size=len(content))

    # --- time -----------------------------------------------------------------------------------------------------

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do it, if this process still lives then; one that stands still gets to it when it runs again."""
        self._world.clock.after(seconds, self._act, action)

    def _act(self, act: Callable[[], None]) -> None:
        if self._seat.life != self._life:
            return
        if self._seat.frozen:
            self._seat.backlog.append((self._act, (act,)))
        else:
            act()

    def _tell(self, event: object) -> None:
        self._world.tell(self._seat, event)
