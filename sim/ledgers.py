"""What stands on the ledgers of all machines, and what must hold of it at every write.

The checkers know every disk, so they need not believe what a core says of itself:

`one-leader`       no two nodes lead a job under one (epoch, n)
`decided-once`     a cell that is chosen anywhere has the same value wherever it is chosen, for ever
`promise-kept`     what one identity has promised on its disk never goes down
`stream`           a batch of facts is the same wherever it is kept, and a stream has no gap
`strict`           a strict job is never forked
`copies`           a job is acknowledged with no more copies than there are disks that hold all of it: its record, code
                   and plan
`protected`        a task whose result a quorum holds is not handed out again by the newest leader (P4), unless the
                   result's bytes are gone
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from p2premap.election.records import CellRecord, ForgetBatches, ForgetJob, JobRecord, StoredBatch, StoredRecord
from p2premap.gossip.events import SendLink
from p2premap.ids import Ballot, JobId, NodeId
from p2premap.node.events import JobAccepted
from p2premap.sim.disks import Ledger
from p2premap.sim.machines import Power, Seat
from p2premap.sim.world import World
from p2premap.tasks import journal
from p2premap.tasks.events import RunBatch
from p2premap.tasks.job import StageId
from p2premap.tasks.messages import Assign
from p2premap.wire import Message

DOUBT_S: Final = 30.0
"""So long after a machine was ill, others may still have taken it for dead."""


@dataclass(slots=True)
class _Safe:
    """A result that a quorum holds.

    Args:
        since: when that became so.
        holders: who has its bytes; nobody needs to where `inline`.
    """

    since: float
    inline: bool
    holders: set[NodeId]


@dataclass(slots=True)
class _Kept:
    """A batch of facts.

    Args:
        at: who has it on disk.
        safe: a quorum had it.
    """

    content: bytes
    at: set[NodeId] = field(default_factory=set)
    safe: bool = False


class Ledgers:
    """An observer of every write to a ledger, and of every order.

    Args:
        world: observed from now on.
        unsent: what the node on a machine has said, and what waits for a link.
        whole: whether the disk of this identity has the code and the plan of a job with this spec.
    """

    kinds: tuple[type, ...] = (SendLink, RunBatch, JobAccepted)

    def __init__(
        self,
        world: World,
        unsent: Callable[[Seat], Iterable[Message]] = lambda _: (),
        whole: Callable[[NodeId, bytes], bool] = lambda *_: True,
    ) -> None:
        self.world = world
        self._unsent = unsent
        self._whole = whole
        self.counts: Counter[str] = Counter()
        """What was seen: "leader" (first terms), "takeover", "fork", "cell", "protected", "redone for lost bytes"."""
        self.finals: dict[JobId, bytes] = {}
        self.forks: dict[JobId, JobId] = {}
        self._records: dict[tuple[NodeId, JobId], JobRecord] = {}
        self._specs: dict[JobId, bytes] = {}
        self._had: dict[JobId, set[NodeId]] = {}
        """Who has ever had a job's record, or was handed it in again, and has lost no disk since."""
        self._counted: dict[JobId, set[NodeId]] = {}
        """Who had all of a job when it was acknowledged."""
        self._newest: dict[JobId, Ballot] = {}
        self._leaders: dict[tuple[JobId, int, int], NodeId] = {}
        self._cells: dict[tuple[JobId, str], bytes] = {}
        self._batches: dict[tuple[JobId, Ballot, int], _Kept] = {}
        self._ends: dict[tuple[NodeId, JobId, Ballot], int] = {}
        self._safe: dict[tuple[JobId, StageId, int], _Safe] = {}
        self._ordered: set[tuple[JobId, StageId, int, int]] = set()
        self._strict: set[JobId] = set()
        self._set_back: set[NodeId] = set()
        self._ill: dict[int, float] = {}
        self._identities = {seat.index: seat.node for seat in world.seats}
        self._all_ill = -DOUBT_S
        world.observe(self)
        world.network.cut_or_healed.append(self.doubt)

    # --- writes ---------------------------------------------------------------------------------------------------

    def written(self, seat: Seat, records: Iterable[StoredRecord]) -> None:
        """A transaction has reached the disk of this machine.

        Raises:
            InvariantBroken: see the module.
        """
        for record in records:
            match record:
                case JobRecord():
                    self._job(seat, record)
                case CellRecord(chosen=True):
                    self._cell(seat, record)
                case StoredBatch():
                    self._batch(seat, record)
                case ForgetBatches(job=job) | ForgetJob(job=job):
                    self._forgotten(seat.node, JobId(job), whole=isinstance(record, ForgetJob))
                case _:
                    pass

    def lost(self, seat: Seat, records: Iterable[StoredRecord]) -> None:
        """A crash has taken a transaction from this disk again."""
        for record in records:
            if isinstance(record, StoredBatch):
                key = (JobId(record.job), record.ballot, record.serial)
                self._batches[key].at.discard(seat.node)
                end = (seat.node, JobId(record.job), record.ballot)
                self._ends[end] = min(self._ends.get(end, -1), record.serial - 1)
                self._unprotect(JobId(record.job), record.ballot, record.serial)
            elif isinstance(record, JobRecord):
                self._records.pop((seat.node, JobId(record.job)), None)

    def restored(self, seat: Seat, ledger: Ledger) -> None:
        """This disk is an older image of itself."""
        self.gone(seat.node)
        self._set_back.add(seat.node)
        for job, record in ledger.jobs.items():
            self._records[seat.node, job] = record
            self._had[job].add(seat.node)
        for job, streams in ledger.batches.items():
            for ballot, serials in streams.items():
                self._ends[seat.node, job, ballot] = max(serials)
                for serial in serials:
                    self._batches[job, ballot, serial].at.add(seat.node)

    def gone(self, node: NodeId) -> None:
        """The disk of this identity is no more, or not what it was."""
        for key in [key for key in self._records if key[0] == node]:
            del self._records[key]
        for had in self._had.values():
            had.discard(node)
        for end in [end for end in self._ends if end[0] == node]:
            del self._ends[end]
        for (job, ballot, serial), kept in self._batches.items():
            if node in kept.at:
                kept.at.discard(node)
                self._unprotect(job, ballot, serial)

    def excused(self, job: JobId) -> bool:
        """Whether nobody can go on, since disks are lost, or older images of themselves: those of too many replicas, or
        every one that was counted as a copy in the acknowledgement, before another had got the code and the plan."""
        records = {
            node: record
            for (node, of), record in self._records.items()
            if of == job and not record.gone and not (record.amnesiac and node in self._set_back)
        }
        newest = max(records.values(), key=lambda record: record.promised, default=None)
        if newest is None:
            return True
        members = newest.members
        have = sum(member in records for member in members)
        if not (2 * have > len(members) or (2 * have == len(members) and members[0] in records)):
            return True
        counted, had = self._counted.get(job, set()), self._had[job]
        return bool(counted) and counted.isdisjoint(had) and not self._wholes(job, had)

    def _wholes(self, job: JobId, nodes: Iterable[NodeId]) -> set[NodeId]:
        """Those of them who have its code and its plan."""
        return {node for node in nodes if self._whole(node, self._specs[job])}

    def _job(self, seat: Seat, record: JobRecord) -> None:
        job = JobId(record.job)
        before = self._records.get((seat.node, job))
        if before is not None and record.promised < before.promised:
            text = f"{seat} goes back from {_shown(before.promised)} to {_shown(record.promised)} on disk"
            raise self.world.broken("promise-kept", text, seat)
        self._records[seat.node, job] = record
        self._specs[job] = record.spec
        self._had.setdefault(job, set()).add(seat.node)
        if record.strict:
            self._strict.add(job)
        if record.origin:
            self.counts["fork"] += job not in self.forks
            self.forks[job] = JobId(record.origin)
            if JobId(record.origin) in self._strict:
                raise self.world.broken("strict", f"{seat} forks the strict job {record.origin[:4].hex()}", seat)

    def _cell(self, seat: Seat, record: CellRecord) -> None:
        key = (JobId(record.job), record.cell)
        before = self._cells.setdefault(key, record.value)
        if before != record.value:
            text = f"{seat} has another value for {record.cell} of {record.job[:4].hex()} than was chosen"
            raise self.world.broken("decided-once", text, seat)
        self.counts["cell"] += 1
        if record.cell == "final":
            self.finals[JobId(record.job)] = record.value

    def _batch(self, seat: Seat, record: StoredBatch) -> None:
        job, ballot = JobId(record.job), record.ballot
        if record.serial == 0:
            self._leader(seat, job, ballot)
        end = self._ends.get((seat.node, job, ballot), -1)
        if record.serial > end + 1:
            text = f"{seat} keeps batch {record.serial} of {_shown(ballot)} after batch {end}"
            raise self.world.broken("stream", text, seat)
        self._ends[seat.node, job, ballot] = max(end, record.serial)
        kept = self._batches.setdefault((job, ballot, record.serial), _Kept(record.batch))
        if kept.content != record.batch:
            text = f"{seat} keeps another batch {record.serial} of {_shown(ballot)} than others do"
            raise self.world.broken("stream", text, seat)
        kept.at.add(seat.node)
        # what a former leader wrote and a quorum gets to hold only now, the present one may have begun without
        newest = self._newest.get(job, ballot)
        if not kept.safe and record.serial and ballot >= newest and self._is_quorum(job, ballot, kept.at):
            kept.safe = True
            self._note_unsent(job, ballot.node)
            self._protect(job, record.batch)

    def _leader(self, seat: Seat, job: JobId, ballot: Ballot) -> None:
        before = self._leaders.setdefault((job, ballot.epoch, ballot.n), ballot.node)
        if before != ballot.node:
            text = f"{before[:4].hex()} and {ballot.node[:4].hex()} both lead under {_shown(ballot)}"
            raise self.world.broken("one-leader", text, seat)
        if seat.node == ballot.node:
            self.counts["leader" if ballot.n == 0 else "takeover"] += 1
            self._newest[job] = max(ballot, self._newest.get(job, ballot))

    def _is_quorum(self, job: JobId, ballot: Ballot, at: set[NodeId]) -> bool:
        """By the leader's own configuration: more than half, or half with the first."""
        record = self._records.get((ballot.node, job))
        if record is None or record.gone or record.promised.epoch != ballot.epoch:
            return False
        have = sum(member in at for member in record.members)
        total = len(record.members)
        return 2 * have > total or (2 * have == total and record.members[0] in at)

    def _forgotten(self, node: NodeId, job: JobId, *, whole: bool) -> None:
        for key in [key for key in self._ends if key[:2] == (node, job)]:
            del self._ends[key]
        if whole:
            self._records.pop((node, job), None)

    # --- P4 -------------------------------------------------------------------------------------------------------

    def _note_unsent(self, job: JobId, leader: NodeId) -> None:
        """What is ordered already, and waits for a link, is not ordered later."""
        seat = self.world.owners.get(leader)
        if seat is not None and seat.node == leader and seat.runs:
            for message in self._unsent(seat):
                if isinstance(message, Assign) and message.job == job:
                    self._ordered.update((job, message.stage, a.task, a.attempt) for a in message.attempts)

    def _protect(self, job: JobId, batch: bytes) -> None:
        for fact in journal.decode(batch).facts:
            if isinstance(fact, journal.Results):
                columns = journal.columns(fact)
                for index, task in enumerate(columns.tasks):
                    key = (job, fact.stage, task)
                    if key not in self._safe:
                        self.counts["protected"] += 1
                        self._safe[key] = _Safe(self.world.now, not columns.blobs.get(index), {NodeId(fact.node)})
            elif isinstance(fact, journal.Held) and (safe := self._safe.get((job, fact.stage, fact.task))) is not None:
                safe.holders.add(NodeId(fact.holder))

    def _unprotect(self, job: JobId, ballot: Ballot, serial: int) -> None:
        kept = self._batches[job, ballot, serial]
        if kept.safe and not self._is_quorum(job, ballot, kept.at):
            kept.safe = False
            for fact in journal.decode(kept.content).facts:
                if isinstance(fact, journal.Results):
                    for task in journal.columns(fact).tasks:
                        self._safe.pop((job, fact.stage, task), None)

    def _order(
        self, seat: Seat, leader: NodeId, job: JobId, stage: StageId, attempts: Iterable[tuple[int, int]]
    ) -> None:
        """A leader has these attempts run. One that is deposed and has not heard of it knows nothing of the others."""
        for task, attempt in attempts:
            order = (job, stage, task, attempt)
            if order in self._ordered:
                continue
            self._ordered.add(order)
            safe = self._safe.get((job, stage, task))
            newest = self._newest.get(job)
            if safe is None or newest is None or newest.node != leader:
                continue
            if not safe.inline and not any(self._well(holder, safe.since) for holder in safe.holders):
                self.counts["redone for lost bytes"] += 1
                del self._safe[job, stage, task]  # whoever yields it now protects it anew
                continue
            what = "inline" if safe.inline else f"at {len(safe.holders)} holders"
            text = (
                f"{seat} has task {task} of stage {stage.number} run again, whose result ({what}) a quorum has held"
                f" since {safe.since:.3f} s"
            )
            raise self.world.broken("protected", text, seat)

    def _well(self, holder: NodeId, since: float) -> bool:
        seat = self.world.owners.get(holder)
        if seat is None or seat.node != holder or seat.power is not Power.RUNNING:
            return False
        ill = max(self._ill.get(seat.index, -DOUBT_S), self._all_ill)
        return ill < since - DOUBT_S

    # --- Observer -------------------------------------------------------------------------------------------------

    def effect(self, seat: Seat, effect: object) -> None:
        match effect:
            case SendLink():
                if isinstance(order := effect.message, Assign):
                    attempts = [(a.task, a.attempt) for a in order.attempts]
                    self._order(seat, order.ballot.node, JobId(order.job), order.stage, attempts)
            case RunBatch():
                # what another node has ordered was seen when it was sent
                self._order(seat, seat.node, effect.job, effect.stage, [(a.task, a.attempt) for a in effect.attempts])
            case JobAccepted():
                self._accepted(seat, effect)
            case _:
                pass

    def _accepted(self, seat: Seat, answer: JobAccepted) -> None:
        records = {node: record for (node, job), record in self._records.items() if job == answer.job}
        held = self._wholes(answer.job, records)
        if records and not any(seat.node in record.members for record in records.values()):
            # it was handed in here again: the replicas can get code and plan from here, whoever else has lost them
            held |= self._wholes(answer.job, [seat.node])
        if answer.copies > len(held):
            text = f"{seat} acknowledges {answer.copies} copies of a job that {len(held)} disks hold"
            raise self.world.broken("copies", text, seat)
        self._counted.setdefault(answer.job, set()).update(held)
        self._had[answer.job].update(held)

    def doubt(self) -> None:
        """Something is about to happen that may make anybody take anybody for dead."""
        self._all_ill = self.world.now

    def told(self, seat: Seat, event: object) -> None:
        """Not of interest."""

    def fault(self, seat: Seat, word: str) -> None:
        self._ill[seat.index] = self.world.now
        if word == "start":
            before = self._identities.get(seat.index, seat.node)
            self._identities[seat.index] = seat.node
            if before != seat.node:
                self.gone(before)


class SeatAudit:
    """Tells the checkers of ledgers what one identity's disk does."""

    def __init__(self, ledgers: Ledgers, seat: Seat) -> None:
        self._ledgers = ledgers
        self._seat = seat

    def written(self, records: tuple[StoredRecord, ...]) -> None:
        self._ledgers.written(self._seat, records)

    def lost(self, records: tuple[StoredRecord, ...]) -> None:
        self._ledgers.lost(self._seat, records)

    def restored(self, ledger: Ledger) -> None:
        self._ledgers.restored(self._seat, ledger)


def _shown(ballot: Ballot) -> str:
    return f"({ballot.epoch}, {ballot.n}, {ballot.node[:4].hex()})"
