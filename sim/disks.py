"""A machine's disk for the ledger, over all lives of its node: what is synced stays, what is not may go in a crash.

It keeps to what SQLite in WAL mode promises with `synchronous=NORMAL` and a checkpoint at each synced write: a
transaction is there whole or not at all, those that were not synced are lost from some point on and never from the
middle, and a damaged database is noticed. Writes are answered in order, each after its own time.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from p2premap.election.records import (
    CellRecord,
    ForgetBatches,
    ForgetJob,
    JobRecord,
    Stored,
    StoredBatch,
    StoredRecord,
    StoredStream,
)
from p2premap.ids import Ballot, JobId

SYNC_S: Final = 0.002
"""A write that is synced takes about so long; a shared disk up to ten times that."""

WRITE_S: Final = 0.0002
IMAGES_MAX: Final = 4
FULL: Final = "The disk is full."


class Fault(enum.Enum):
    """What is wrong with a disk."""

    NONE = "none"
    FULL = "full"
    SLOW = "slow"


class Wait(Protocol):
    """Calls back after so many virtual seconds, if the process still lives then."""

    def __call__(self, seconds: float, action: Callable[[], None]) -> None:
        """See the class."""


@dataclass(slots=True)
class Ledger:
    """What stands in the database.

    Args:
        batches: by job and ballot, then by serial.
    """

    jobs: dict[JobId, JobRecord] = field(default_factory=dict)
    cells: dict[tuple[JobId, str], CellRecord] = field(default_factory=dict)
    batches: dict[JobId, dict[Ballot, dict[int, StoredBatch]]] = field(default_factory=dict)

    def copy(self) -> Ledger:
        """An image of it."""
        streams = {job: {b: dict(serials) for b, serials in of.items()} for job, of in self.batches.items()}
        return Ledger(dict(self.jobs), dict(self.cells), streams)

    def apply(self, records: Iterable[StoredRecord]) -> None:
        """One transaction."""
        for record in records:
            job = JobId(record.job)
            match record:
                case JobRecord():
                    self.jobs[job] = record
                case CellRecord():
                    self.cells[job, record.cell] = record
                case StoredBatch():
                    self.batches.setdefault(job, {}).setdefault(record.ballot, {})[record.serial] = record
                case ForgetBatches() | ForgetJob():
                    self.batches.pop(job, None)
                    for key in [key for key in self.cells if key[0] == job]:
                        del self.cells[key]
                    if isinstance(record, ForgetJob):
                        self.jobs.pop(job, None)

    def stored(self) -> Stored:
        """As a replica finds it when it starts."""
        return Stored(
            jobs=tuple(self.jobs.values()),
            cells=tuple(self.cells.values()),
            streams=tuple(
                StoredStream(job, ballot, max(serials), serials[0].batch)
                for job, of in self.batches.items()
                for ballot, serials in of.items()
            ),
        )

    def beyond(self, job: JobId, known: Mapping[Ballot, int]) -> tuple[StoredBatch, ...]:
        """The batches of a job above these serials, by ballot and serial."""
        return tuple(
            batch
            for ballot, serials in sorted(self.batches.get(job, {}).items())
            for serial, batch in sorted(serials.items())
            if serial > known.get(ballot, 0)
        )


class Audit(Protocol):
    """Is told of what reaches this disk, and of what a crash takes from it."""

    def written(self, records: tuple[StoredRecord, ...]) -> None:
        """A transaction is on disk."""

    def lost(self, records: tuple[StoredRecord, ...]) -> None:
        """It is not any more."""

    def restored(self, ledger: Ledger) -> None:
        """The disk is an older image of itself."""


@dataclass(slots=True, eq=False)
class _Write:
    """A transaction under way. `done` is told "" or what went wrong."""

    records: tuple[StoredRecord, ...]
    sync: bool
    done: Callable[[str], None]


class LedgerDisk:
    """One machine's.

    Args:
        random: decides what a crash takes.
        audit: a checker.
    """

    def __init__(self, random: Random, audit: Audit) -> None:
        self.fault = Fault.NONE
        self.lost_writes = 0
        """Transactions that a crash has taken, over all lives."""
        self._random = random
        self._audit = audit
        self._synced = Ledger()
        self._now = Ledger()
        self._unsynced: list[tuple[StoredRecord, ...]] = []
        self._queue: deque[_Write] = deque()
        self._images: dict[int, Ledger] = {}

    def boot(self, start: int, *, old: bool) -> Ledger:
        """The process starts for the n-th time; `old`: from the image of when it did so first."""
        if old:
            self._synced = self._images.get(start, Ledger()).copy()
            self._now = self._synced.copy()
            self._audit.restored(self._now)
        self._images[start] = self._synced.copy()
        while len(self._images) > IMAGES_MAX:
            del self._images[min(self._images)]
        return self._now

    def crash(self, *, power: bool) -> None:
        """The process is gone, with what was under way; with the power also some of what was not synced."""
        if self._queue and self.fault is not Fault.FULL and self._random.random() < 0.5:
            write = self._queue[0]
            self.commit(write.records, sync=write.sync)  # it was on disk already, and nobody has heard
        self._queue.clear()
        kept = self._random.randint(0, len(self._unsynced)) if power else len(self._unsynced)
        self.lost_writes += len(self._unsynced) - kept
        for records in self._unsynced[:kept]:
            self._synced.apply(records)
        for records in reversed(self._unsynced[kept:]):
            self._audit.lost(records)
        self._unsynced.clear()
        self._now = self._synced.copy()

    def write(self, records: tuple[StoredRecord, ...], sync: bool, wait: Wait, done: Callable[[str], None]) -> None:
        """Write all or nothing; `done` is told in the order of the calls."""
        self._queue.append(_Write(records, sync, done))
        if len(self._queue) == 1:
            self._begin(wait)

    def batches(self, job: JobId, beyond: Mapping[Ballot, int]) -> tuple[StoredBatch, ...]:
        """What has been written of the job's streams above these serials."""
        return self._now.beyond(job, beyond)

    def _begin(self, wait: Wait) -> None:
        base = SYNC_S if self._queue[0].sync else WRITE_S
        pace = 10.0 if self.fault is Fault.SLOW else 1.0
        wait(base * pace * (0.5 + self._random.random()), lambda: self._end(wait))

    def _end(self, wait: Wait) -> None:
        if self.fault is Fault.FULL:
            failed, self._queue = self._queue, deque()
            for write in failed:
                write.done(FULL)
            return
        write = self._queue.popleft()
        self.commit(write.records, sync=write.sync)
        if self._queue:
            self._begin(wait)
        write.done("")

    def commit(self, records: tuple[StoredRecord, ...], *, sync: bool) -> None:
        """A transaction is on disk now."""
        self._now.apply(records)
        self._unsynced.append(records)
        if sync:
            for each in self._unsynced:
                self._synced.apply(each)
            self._unsynced.clear()
        self._audit.written(records)
