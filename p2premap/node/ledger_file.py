"""The file behind the ledger: its tables, its seal, its mark, and how to tell that a row is what was written.

See `p2premap.node.ledger_store`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from blake3 import blake3

from p2premap.election.records import CellRecord, JobRecord, StoredStream
from p2premap.errors import P2PRemapError
from p2premap.ids import Ballot, JobId, NodeId

SCHEMA_VERSION: Final = 1
SUM_BYTES: Final = 16
NOTHING: Final = bytes(SUM_BYTES)
"""The sum of no row."""

_APPLICATION: Final = 0x70327072
"""``application_id``: what file(1) and a person can tell the file by."""
_DAMAGE: Final = (
    *(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA),
    *(sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG),
)
UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError)
"""What reading a damaged database may raise: names, texts and types in it are checked by nobody before."""
_MARK: Final = b"%020d\n"

_SCHEMA: Final = """
CREATE TABLE jobs (job BLOB NOT NULL PRIMARY KEY, record BLOB NOT NULL, sum BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE cells (
    job BLOB NOT NULL, cell TEXT NOT NULL, record BLOB NOT NULL, sum BLOB NOT NULL, PRIMARY KEY (job, cell)
) WITHOUT ROWID;
CREATE TABLE batches (
    job BLOB NOT NULL, epoch INTEGER NOT NULL, n INTEGER NOT NULL, node BLOB NOT NULL, serial INTEGER NOT NULL,
    batch BLOB NOT NULL, sum BLOB NOT NULL, PRIMARY KEY (job, epoch, n, node, serial)
);
CREATE TABLE seal (
    one INTEGER NOT NULL PRIMARY KEY, boot INTEGER NOT NULL, commits INTEGER NOT NULL, jobs BLOB NOT NULL,
    sum BLOB NOT NULL
);
"""
OF_STREAM: Final = "job = ? AND epoch = ? AND n = ? AND node = ?"
ALL_BATCHES: Final = "SELECT job, epoch, n, node, serial, batch, sum FROM batches"

BatchRow = tuple[bytes, int, int, bytes, int, bytes, bytes]
StreamEnd = tuple[bytes, int, int, bytes, int]


class LedgerLost(P2PRemapError):
    """What this node has promised cannot be known any more: it must never vote again under its identity.

    Nothing was changed on disk. Its text is one sentence.
    """


class Seal(NamedTuple):
    """Over everything that this replica has promised.

    Args:
        boot: the node's start in which it was written.
        commits: how many synced commits there were.
        jobs: the XOR of the sums of all jobs and cells.
    """

    boot: int
    commits: int
    jobs: bytes

    @property
    def sum(self) -> bytes:
        return sum_of(b"seal", b"%d %d " % (self.boot, self.commits), self.jobs)


# --- the file -------------------------------------------------------------------------------------------------------


def connect(path: Path, *, new: bool = False) -> sqlite3.Connection:
    """The database of which this process is the only user: the node's directory is locked.

    Args:
        new: it is being made: nothing is synced, the caller syncs the whole file once it is closed.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")  # no shared memory, no second reader to wait for
        db.execute(f"PRAGMA synchronous={'OFF' if new else 'FULL'}")
        if new:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA fullfsync=ON")  # on macOS a plain fsync leaves it in the drive's cache
    except BaseException:
        db.close()
        raise
    return db


def create(db: sqlite3.Connection) -> None:
    with transaction(db):
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id={_APPLICATION}")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        write_seal(db, Seal(boot=0, commits=0, jobs=NOTHING))


def vacuum(db: sqlite3.Connection, pages: int = 0) -> None:
    """Give so many free pages back to the file system; 0: all."""
    # sqlite3 takes one step of a statement without columns, and each step gives back one page; a script runs to its end
    db.executescript(f"PRAGMA incremental_vacuum({pages})")


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; after some errors SQLite has rolled back by itself already."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def read_seal(db: sqlite3.Connection) -> Seal | None:
    row = db.execute("SELECT boot, commits, jobs, sum FROM seal").fetchone()
    if row is None:
        return None
    seal = Seal(*row[:3])
    return seal if seal.sum == row[3] else None


def write_seal(db: sqlite3.Connection, seal: Seal) -> None:
    db.execute("INSERT OR REPLACE INTO seal VALUES (1, ?, ?, ?, ?)", (*seal, seal.sum))


def mark_path(path: Path) -> Path:
    """Where the mark of this database is."""
    return path.with_suffix(".mark")


def write_mark(file: int, commits: int) -> None:
    """Raises: OSError."""
    os.pwrite(file, _MARK % commits, 0)


def read_mark(path: Path) -> int | None:
    """How many synced commits the database at `path` has at least; None where it never had a mark.

    Raises:
        LedgerLost: the mark makes no sense.
    """
    try:
        return int(mark_path(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise LedgerLost(f"The mark {mark_path(path)} beside the ledger is damaged.") from None


def remove(path: Path) -> None:
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def sync(path: Path) -> None:
    """Have a closed file, or the names in a directory, on the platter.

    Never a database that is open: closing any descriptor of a file drops all locks that this process has on it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_damage(error: Exception) -> bool:
    """Whether the file is not what SQLite wrote, and not the system at fault."""
    return not isinstance(error, sqlite3.Error) or type(error) is sqlite3.DatabaseError or _code(error) in _DAMAGE


def is_io_failure(error: sqlite3.Error) -> bool:
    """Whether the disk failed to read, write or sync; it may have lost what was written before."""
    return _code(error) == sqlite3.SQLITE_IOERR


def why(error: sqlite3.Error) -> str:
    """The reason, in a person's words."""
    return {
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_READONLY: "the file system is read-only",
        sqlite3.SQLITE_IOERR: "the disk fails (input or output error)",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
        sqlite3.SQLITE_BUSY: "another program uses it",
    }.get(_code(error), str(error))


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where an error was not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


# --- rows -----------------------------------------------------------------------------------------------------------


def sum_of(*parts: bytes) -> bytes:
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest(SUM_BYTES)


def packed(table: bytes, record: JobRecord | CellRecord) -> tuple[bytes, bytes]:
    """A row's record and its sum; the key is within."""
    row = msgspec.msgpack.encode(record)
    return row, sum_of(table, row)


def batch_sum(job: bytes, epoch: int, n: int, node: bytes, serial: int, batch: bytes) -> bytes:
    return sum_of(b"batches", job, b"%d %d " % (epoch, n), node, b"%d " % serial, batch)


def xor(*sums: bytes) -> bytes:
    total = 0
    for each in sums:
        total ^= int.from_bytes(each)
    return total.to_bytes(SUM_BYTES)


def first_sum(rows: sqlite3.Cursor) -> bytes:
    """The sum of the row that is about to be replaced; zeros where there is none."""
    row = rows.fetchone()
    return row[0] if row is not None else NOTHING


def damaged_ends(rows: Iterable[BatchRow], *, first: int = 0) -> Sequence[StreamEnd]:
    """Of rows in order: from which serial on each stream is not what was written."""
    bad: dict[tuple[bytes, int, int, bytes], int] = {}
    stream: tuple[bytes, int, int, bytes] | None = None
    expected = first
    for job, epoch, n, node, serial, batch, stored in rows:
        if (job, epoch, n, node) != stream:
            stream, expected = (job, epoch, n, node), first
        if stream in bad:
            continue
        if serial != expected or not _is_written(job, epoch, n, node, serial, batch, stored):
            bad[stream] = expected
        expected += 1
    return [(*stream, serial) for stream, serial in bad.items()]


def _is_written(job: bytes, epoch: int, n: int, node: bytes, serial: int, batch: bytes, stored: bytes) -> bool:
    try:
        return batch_sum(job, epoch, n, node, serial, batch) == stored
    except TypeError:  # SQLite gives a column whatever type its bytes say
        return False


def streams(db: sqlite3.Connection) -> list[StoredStream]:
    """How far each stream goes."""
    rows = db.execute(
        "SELECT a.job, a.epoch, a.n, a.node, a.last, b.batch FROM"
        " (SELECT job, epoch, n, node, max(serial) AS last FROM batches GROUP BY job, epoch, n, node) AS a"
        " JOIN batches AS b USING (job, epoch, n, node) WHERE b.serial = 0"
    )
    return [
        StoredStream(JobId(job), Ballot(epoch, n, NodeId(node)), last, head) for job, epoch, n, node, last, head in rows
    ]


def readable(db: sqlite3.Connection) -> Iterator[BatchRow]:
    """Batches in the order in which they were written, as far as the file can be read."""
    with contextlib.suppress(*UNREADABLE):
        yield from db.execute(f"{ALL_BATCHES} NOT INDEXED ORDER BY rowid")
