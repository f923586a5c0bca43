"""A replica's memory on disk: jobs, cells and fact batches in one SQLite database in WAL mode, with a version.

What a replica has promised it may never forget (Paxos Made Simple, 2.5), so what SQLite leaves open is closed here:

- *Is it on the platter?* In WAL mode ``synchronous=NORMAL`` syncs nothing at a commit. A write that holds promises or
  cells is committed under ``FULL``, and with it all that was committed before; fact batches alone under ``NORMAL``.
- *Is it what was written?* SQLite checks no page. Each row carries a BLAKE3 sum of its record, and one row, the
  *seal*, the XOR of the sums of all jobs and cells: a page that fell back to an older state is noticed, too.
- *Is it the newest?* A damaged or lost WAL silently ends the history at an earlier commit, and an older copy of the
  file looks sound. The seal counts the synced commits, and so does a *mark*, a small file beside the database: a
  database that counts fewer than its mark has been rolled back.

Damaged batches are dropped from the first bad one of a stream on, so that what is left is a contiguous prefix; the
other replicas have the rest. Damaged or rolled-back promises cannot be healed: `LedgerLost`, and the node must take a
new identity, under which it has promised nothing. Nothing is deleted: what was damaged is kept aside.

Sources: sqlite.org/wal.html, sqlite.org/pragma.html (synchronous), sqlite.org/howtocorrupt.html.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from p2premap.election.records import (
    CellRecord,
    ForgetBatches,
    ForgetJob,
    JobRecord,
    Stored,
    StoredBatch,
    StoredRecord,
)
from p2premap.errors import ConfigError, P2PRemapError
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.node.ledger_file import (
    ALL_BATCHES,
    NOTHING,
    OF_STREAM,
    UNREADABLE,
    LedgerLost,
    batch_sum,
    damaged_ends,
    first_sum,
    is_damage,
    is_io_failure,
    mark_path,
    packed,
    read_seal,
    streams,
    transaction,
    vacuum,
    why,
    write_mark,
    write_seal,
    xor,
)
from p2premap.node.ledger_file import sync as sync_path
from p2premap.node.ledger_open import open_checked

_FREE_PAGES_MAX: Final = 4_096
"""Pages of 4 KiB that are kept for reuse; beyond that they go back to the file system."""


class LedgerUnwritable(P2PRemapError):
    """The disk is full, read-only or failing. Nothing of the write was stored; it may be tried again."""


class LedgerDamaged(P2PRemapError):
    """The database cannot be read any more, in whole or in part. Opening it again heals it, or finds it lost."""


class LedgerStore:
    """The ledger of one node. Its methods block; call them in a thread, one at a time.

    Args:
        path: the file; made if need be. The mark is beside it, under the suffix ``.mark``.
        boot: the node's present start.

    Raises:
        LedgerLost: see there.
        ConfigError: the directory cannot be written, the disk is full, or a later release made the file.
    """

    def __init__(self, path: Path, boot: Boot) -> None:
        self._path = path
        self.warning: str
        """What was damaged and has been healed, as one sentence; "" where nothing was."""
        self._unsynced = False
        self._syncs = True
        try:
            self._db, self.warning = open_checked(path, boot)
            try:
                self._begin_boot(boot)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ConfigError(
                f"Cannot use the ledger {path}: {why(error)}. Free some space or make it writable."
            ) from None
        except OSError as error:
            raise ConfigError(
                f"Cannot use the ledger {path}: {error.strerror}. Free some space or make it writable."
            ) from None

    def _begin_boot(self, boot: Boot) -> None:
        """From here on an older copy of this database is known as such."""
        vacuum(self._db)
        seal = read_seal(self._db)
        assert seal is not None, "the seal was read a moment ago"
        with transaction(self._db):
            write_seal(self._db, seal._replace(boot=boot, commits=seal.commits + 1))
        first = not mark_path(self._path).exists()
        self._mark_file = os.open(mark_path(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            write_mark(self._mark_file, seal.commits + 1)
            os.fsync(self._mark_file)
            if first:
                sync_path(self._path.parent)
        except OSError:
            os.close(self._mark_file)
            raise

    # --- reading --------------------------------------------------------------------------------------------------

    def load(self) -> Stored:
        """Everything but the batches: call it once, after opening, which has checked it."""
        jobs = [msgspec.msgpack.decode(r, type=JobRecord) for (r,) in self._db.execute("SELECT record FROM jobs")]
        cells = [msgspec.msgpack.decode(r, type=CellRecord) for (r,) in self._db.execute("SELECT record FROM cells")]
        return Stored(jobs=tuple(jobs), cells=tuple(cells), streams=tuple(streams(self._db)))

    def batches(self, job: JobId, beyond: Mapping[Ballot, int]) -> tuple[StoredBatch, ...]:
        """The batches of the job's streams with a serial above `beyond[ballot]` (0 where it is not named), in order.

        Raises:
            LedgerDamaged: some cannot be read.
        """
        found: list[StoredBatch] = []
        try:
            ballots = self._db.execute(
                "SELECT DISTINCT epoch, n, node FROM batches WHERE job = ? ORDER BY epoch, n, node", (job,)
            ).fetchall()
            for epoch, n, node in ballots:
                ballot = Ballot(epoch, n, NodeId(node))
                first = beyond.get(ballot, 0) + 1
                rows = self._db.execute(
                    f"{ALL_BATCHES} WHERE {OF_STREAM} AND serial >= ? ORDER BY serial", (job, *ballot, first)
                ).fetchall()
                if damaged_ends(rows, first=first):
                    raise sqlite3.DatabaseError("a batch is not what was written")
                found += (StoredBatch(job=job, ballot=ballot, serial=row[4], batch=row[5]) for row in rows)
        except UNREADABLE as error:
            raise LedgerDamaged(f"Facts in the ledger {self._path} cannot be read: {error}.") from None
        return tuple(found)

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, records: Iterable[StoredRecord], *, sync: bool) -> None:
        """Write these in their order, all or nothing.

        Args:
            sync: return only when they, and all that was written before, would survive a power cut.

        Raises:
            LedgerUnwritable, LedgerDamaged: none of them was written.
        """
        try:
            if self._unsynced:
                self._write_back()
            if sync != self._syncs:
                self._db.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
                self._syncs = sync
            with transaction(self._db):
                commits, forgot = self._apply_all(records, sync=sync)
        except sqlite3.Error as error:
            self._unsynced = is_io_failure(error)
            text = f"Cannot write the ledger {self._path}: {why(error)}."
            raise (LedgerDamaged if is_damage(error) else LedgerUnwritable)(text) from None
        if sync:
            with contextlib.suppress(OSError):  # behind is safe: it only has to be no further than the database
                write_mark(self._mark_file, commits)
        if forgot:
            self._give_back()

    def close(self) -> None:
        """Write back and close."""
        with contextlib.suppress(sqlite3.Error):  # what was committed is in the WAL
            self._db.close()
        os.close(self._mark_file)

    def _apply_all(self, records: Iterable[StoredRecord], *, sync: bool) -> tuple[int, bool]:
        """How many synced commits there are with this one, and whether it forgets a job."""
        changed, commits, forgot = NOTHING, 0, False
        for record in records:
            if isinstance(record, StoredBatch):
                self._apply_batch(record)
            else:
                changed = xor(changed, self._apply(record))
                forgot |= isinstance(record, ForgetBatches | ForgetJob)
        if sync or changed != NOTHING:
            seal = read_seal(self._db)
            if seal is None:
                raise sqlite3.DatabaseError("its seal is damaged")
            commits = seal.commits + sync
            write_seal(self._db, seal._replace(jobs=xor(seal.jobs, changed), commits=commits))
        return commits, forgot

    def _apply(self, record: JobRecord | CellRecord | ForgetBatches | ForgetJob) -> bytes:
        """Write one record; return by what it changes the seal's sum of jobs and cells."""
        db = self._db
        match record:
            case JobRecord(job=job):
                row, summed = packed(b"jobs", record)
                was = first_sum(db.execute("SELECT sum FROM jobs WHERE job = ?", (job,)))
                db.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)", (job, row, summed))
                return xor(summed, was)
            case CellRecord(job=job, cell=cell):
                row, summed = packed(b"cells", record)
                was = first_sum(db.execute("SELECT sum FROM cells WHERE job = ? AND cell = ?", (job, cell)))
                db.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)", (job, cell, row, summed))
                return xor(summed, was)
            case ForgetBatches(job=job) | ForgetJob(job=job):
                gone = [row for (row,) in db.execute("SELECT sum FROM cells WHERE job = ?", (job,))]
                db.execute("DELETE FROM cells WHERE job = ?", (job,))
                db.execute("DELETE FROM batches WHERE job = ?", (job,))
                if isinstance(record, ForgetJob):
                    gone += [row for (row,) in db.execute("SELECT sum FROM jobs WHERE job = ?", (job,))]
                    db.execute("DELETE FROM jobs WHERE job = ?", (job,))
                return xor(NOTHING, *gone)

    def _apply_batch(self, record: StoredBatch) -> None:
        """Raises: sqlite3.IntegrityError: it would leave a gap in its stream."""
        stream = (record.job, *record.ballot)
        (last,) = self._db.execute(f"SELECT max(serial) FROM batches WHERE {OF_STREAM}", stream).fetchone()  # noqa: S608
        if record.serial > (-1 if last is None else last) + 1:
            raise sqlite3.IntegrityError(f"batch {record.serial} does not follow batch {last}")
        values = (*stream, record.serial, record.batch, batch_sum(*stream, record.serial, record.batch))
        self._db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def _write_back(self) -> None:
        """After a sync that failed: what the system may have thrown away of the WAL is written once more.

        A page that could not be synced counts as clean afterwards, and would be missing after a power cut, and with it
        all that follows in the WAL. A checkpoint copies the WAL into the database, syncs that, and begins it anew.
        """
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("its log cannot be written back")
        self._unsynced = False

    def _give_back(self) -> None:
        """What forgotten jobs took, beyond what is soon used again."""
        with contextlib.suppress(sqlite3.Error):  # it is tried again after the next
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            if free > _FREE_PAGES_MAX:
                vacuum(self._db, free - _FREE_PAGES_MAX)


__all__ = ["LedgerDamaged", "LedgerLost", "LedgerStore", "LedgerUnwritable"]
