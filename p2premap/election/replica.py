"""What one replica of a job keeps: its promise, its cells, its facts. The acceptor of Paxos.

**Cells.** Each cell is a single-decree Paxos instance (Lamport, "Paxos Made Simple", 2001); all cells of a job share
one promise, so that one round of `Prepare` makes a leader of all of them, also of those that nobody has named yet
(as multi-Paxos does for a log; here there is no log, as in CASPaxos, Rystsov 2018). The two rules of an acceptor:

- it promises (epoch, n) only if that is higher than what it has promised. A stricter rule than Paxos needs, which
  compares whole ballots: so that of each (epoch, n) there is at most one leader, and whatever is numbered by n, such as
  attempts, is never numbered twice. The very same ballot may be promised again: an answer may be lost.
- it accepts, and stores facts for their leader, only under the ballot that it promised, or a higher one, which it
  thereby promises.

**Facts.** Storing a batch is like accepting: facts are taken from the leader of the promised ballot only, and from
others only by whoever stands under it itself. So a batch that a quorum holds, whether its leader knows that or not,
was, at one replica at least of any later candidate's quorum, stored before that replica's promise, or told by the
candidate; and a promise brings all facts with it. Were facts taken from a former leader after a promise, a quorum
could come to hold what the next leader begins without, and has done again.

Everything here changes memory at once and the disk through the journal; see there for why that is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from p2premap.election.context import Context
from p2premap.election.quorum import is_quorum
from p2premap.election.records import CellRecord, ForgetBatches, JobRecord, StoredBatch, StoredRecord, StoredStream
from p2premap.election.streams import Streams, Vector, encode_head
from p2premap.ids import Ballot, JobId, NodeId

Then = Callable[[], None]


class Replica:
    """One job at this node.

    Args:
        record: as it was stored.
        cells, streams: as they were found on disk.
    """

    __slots__ = ("_context", "cells", "chosen", "chosen_durable", "durable", "job", "record", "streams")

    def __init__(
        self,
        context: Context,
        record: JobRecord,
        cells: Iterable[CellRecord] = (),
        streams: Iterable[StoredStream] = (),
    ) -> None:
        self._context = context
        self.job: JobId = record.job
        self.record = record
        self.cells: dict[str, CellRecord] = {cell.cell: cell for cell in cells}
        self.chosen = sum(1 for cell in self.cells.values() if cell.chosen)
        self.chosen_durable = self.chosen
        self.streams = Streams()
        for stream in streams:
            self.streams.restore(stream.ballot, stream.serial, stream.head)
        self.durable: Vector = dict(self.streams.serials)
        """As far as it is on disk."""

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def promised(self) -> Ballot:
        """No lower ballot is followed."""
        return self.record.promised

    @property
    def members(self) -> tuple[NodeId, ...]:
        """The replica set of the promised ballot's epoch."""
        return self.record.members

    @property
    def active(self) -> bool:
        """Neither over nor moved away."""
        return not self.record.view and not self.record.gone

    def has_quorum(self, votes: Iterable[NodeId]) -> bool:
        """Whether these members decide for all."""
        return is_quorum(self.members, list(votes))

    def admits(self, ballot: Ballot) -> bool:
        """Whether this ballot may be followed, or promised."""
        promised = self.promised
        return ballot == promised or (ballot.epoch == promised.epoch and ballot.n > promised.n)

    def write(self, *records: StoredRecord, sync: bool, then: Then | None = None) -> None:
        """Have records of this job written; `then` may change when the job wants to be looked at."""

        def on_disk() -> None:
            self._context.touch(self.job)
            if then is not None:
                then()

        self._context.journal.write(*records, sync=sync, then=on_disk)

    # --- what it stores ---------------------------------------------------------------------------------------------

    def promise(self, ballot: Ballot, then: Then | None = None) -> None:
        """Follow no lower ballot from now on. Only for one that it admits."""
        assert self.admits(ballot), f"{ballot} is promised after {self.promised}"
        self.update(msgspec.structs.replace(self.record, promised=ballot), then)

    def update(self, record: JobRecord, then: Then | None = None) -> None:
        """Keep this record in place of the present one."""
        assert record.promised >= self.promised, "a promise is taken back"
        self.record = record
        self.write(record, sync=True, then=then)

    def accept(self, cell: CellRecord, then: Then | None = None) -> None:
        """Accept a value for a cell that is not chosen."""
        assert cell.ballot == self.promised, "a value is accepted under another ballot than the promised one"
        self._put(cell, then)

    def choose(self, cell: CellRecord) -> bool:
        """Remember that a cell is decided; False where that is known already."""
        known = self.cells.get(cell.cell)
        if known is not None and known.chosen:
            return False
        self.chosen += 1
        self._put(msgspec.structs.replace(cell, job=self.job, chosen=True), self._chosen_on_disk)
        return True

    def _chosen_on_disk(self) -> None:
        if self.active:
            self.chosen_durable += 1

    def _put(self, record: CellRecord, then: Then | None) -> None:
        self.cells[record.cell] = record
        self.write(record, sync=True, then=then)

    def store(self, batches: Iterable[StoredBatch], then: Then | None = None) -> bool:
        """Store those batches that fit. False, and `then` is not called, where none does."""
        taken = [b for b in batches if b.job == self.job and self.streams.take(b.ballot, b.serial, b.batch)]
        if not taken:
            return False

        durable = self.durable  # of this stay as a replica, should it leave and come back

        def on_disk() -> None:
            for batch in taken:
                durable[batch.ballot] = batch.serial
            if then is not None:
                then()

        self.write(*taken, sync=False, then=on_disk)
        return True

    def boot_of(self, node: NodeId) -> int:
        """The last boot that was heard of this member; 0 where none was."""
        known = dict(zip(self.record.members, self.record.boots, strict=False))
        return known.get(node, 0)

    def rejoins(self, record: JobRecord, me: NodeId) -> bool:
        """Whether this node, which has left, is asked to be a replica in a set of which it has not been one."""
        if not self.record.gone:
            return False
        epoch = record.promised.epoch
        return epoch > self.promised.epoch or (epoch == self.promised.epoch and me not in record.members)

    def note_boot(self, node: NodeId, boot: int) -> None:
        """Remember it."""
        if boot > self.boot_of(node) and node in self.record.members:
            boots = tuple(boot if member == node else self.boot_of(member) for member in self.record.members)
            self.update(msgspec.structs.replace(self.record, boots=boots))

    def conclude(self, view: bytes, then: Then) -> None:
        """Keep the last view in place of all facts and cells; a fork's may still be needed (`forks`)."""
        self.record = msgspec.structs.replace(self.record, view=view)
        if self.record.origin:
            self.write(self.record, sync=True, then=then)
        else:
            self._forget_all(then)

    @property
    def awaits_home(self) -> bool:
        """Whether it is a fork that has ended, with all that the job needs to know of it."""
        return bool(self.record.origin and self.record.view and self.streams.serials)

    def strip(self) -> None:
        """Of a fork that has ended nothing is needed any more but the last view."""
        self._forget_all(lambda: None)

    def leave(self, promised: Ballot, members: tuple[NodeId, ...], then: Then) -> None:
        """Be no replica any more; remember only who is."""
        self.record = msgspec.structs.replace(
            self.record, spec=b"", promised=promised, members=members, gone=True, boots=()
        )
        self._forget_all(then)

    def _forget_all(self, then: Then) -> None:
        self.cells.clear()
        self.chosen = self.chosen_durable = 0
        self.streams = Streams()
        self.durable = {}
        self.write(self.record, ForgetBatches(job=self.job), sync=True, then=then)

    # --- what it tells ----------------------------------------------------------------------------------------------

    def chosen_cells(self) -> tuple[CellRecord, ...]:
        """The decided cells."""
        return tuple(cell for cell in self.cells.values() if cell.chosen)

    def promised_cells(self) -> tuple[CellRecord, ...]:
        """What a candidate must know: decided cells, and those accepted in this epoch.

        What was accepted in an earlier epoch and is not decided never will be: the epoch was stopped.
        """
        epoch = self.promised.epoch
        return tuple(cell for cell in self.cells.values() if cell.chosen or cell.ballot.epoch == epoch)

    def load_beyond(self, vector: Vector, done: Callable[[tuple[StoredBatch, ...]], None]) -> None:
        """Everything held now beyond this vector, heads too, in order of (ballot, serial)."""
        held = dict(self.streams.serials)
        heads = [
            StoredBatch(job=self.job, ballot=ballot, serial=0, batch=encode_head(self.streams.base(ballot)))
            for ballot in held
            if ballot not in vector
        ]

        def loaded(batches: tuple[StoredBatch, ...]) -> None:
            wanted = [b for b in batches if vector.get(b.ballot, 0) < b.serial <= held.get(b.ballot, -1)]
            self._context.touch(self.job)
            done(tuple(sorted(heads + wanted, key=lambda batch: (batch.ballot, batch.serial))))

        self._context.load(self.job, vector, loaded)
