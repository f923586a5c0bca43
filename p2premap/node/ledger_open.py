"""Opening a ledger: are its promises whole and the newest, and what of its batches can be kept?

See `p2premap.node.ledger_store`. Of a ledger that is lost nothing is mended or removed (SQLite may write its log back
when it closes it), so that whoever looks again comes to the same verdict.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from p2premap.election.records import StoredStream
from p2premap.election.streams import decode_head
from p2premap.errors import ConfigError, RemoteProtocolError
from p2premap.ids import Ballot, Boot, JobId, starts_of
from p2premap.node.ledger_file import (
    ALL_BATCHES,
    NOTHING,
    OF_STREAM,
    SCHEMA_VERSION,
    UNREADABLE,
    LedgerLost,
    connect,
    create,
    damaged_ends,
    is_damage,
    read_mark,
    read_seal,
    readable,
    remove,
    streams,
    sum_of,
    sync,
    transaction,
    xor,
)


def open_checked(path: Path, boot: Boot) -> tuple[sqlite3.Connection, str]:
    """The database, read through, and what was healed as one sentence ("" where nothing was).

    Raises:
        LedgerLost: its promises are not whole, or not the newest.
        ConfigError: a later release made it.
        sqlite3.OperationalError: the disk is full, read-only or failing.
    """
    marked = read_mark(path)
    if marked is not None and not path.exists():
        raise LedgerLost(f"The ledger {path} is gone.")
    db: sqlite3.Connection | None = None
    try:
        if not path.exists():
            _make(path)
        db = connect(path)
        _check_version(db, path)
        _check_promises(db, path, boot, marked)
        return _heal(db, path)
    except BaseException as error:
        if db is not None:
            db.close()
        if isinstance(error, UNREADABLE) and is_damage(error):
            raise LedgerLost(f"The ledger {path} is damaged ({error}).") from None
        raise


def _make(path: Path) -> None:
    """A new database, there whole or not at all; its name is synced with the first promise."""
    new = _beside(path)
    db = connect(new, new=True)
    create(db)
    db.close()
    sync(new)
    new.replace(path)


def _beside(path: Path) -> Path:
    """Where a database is made; what an earlier attempt left there is removed."""
    new = path.with_name(f"{path.name}.new")
    remove(new)
    return new


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ConfigError(f"{path} was written by a later release of p2premap; upgrade this one.")
    if version == 0:
        raise LedgerLost(f"The ledger {path} is empty.")


def _check_promises(db: sqlite3.Connection, path: Path, boot: Boot, marked: int | None) -> None:
    """Raises: LedgerLost: jobs and cells are not exactly those that were written last."""
    seal = read_seal(db)
    if seal is None:
        raise LedgerLost(f"The ledger {path} is damaged (its seal).")
    if marked is None and seal.commits > 1:
        raise LedgerLost(f"The mark beside the ledger {path} is gone: it may be an older copy.")
    if marked is not None and seal.commits < marked:
        raise LedgerLost(f"The ledger {path} is an older copy: it has {seal.commits} of {marked} synced writes.")
    if seal.boot >= boot:
        written, now = starts_of(Boot(seal.boot)), starts_of(boot)
        raise LedgerLost(f"The ledger {path} is of start {written} of this node, and this is start {now}.")
    jobs = NOTHING
    for table in ("jobs", "cells"):
        for record, stored in db.execute(f"SELECT record, sum FROM {table}"):  # noqa: S608
            if sum_of(table.encode(), record) != stored:
                raise LedgerLost(f"The ledger {path} is damaged (a row of {table}).")
            jobs = xor(jobs, stored)
    if jobs != seal.jobs:
        raise LedgerLost(f"The ledger {path} is damaged (rows that do not fit its seal).")


def _heal(db: sqlite3.Connection, path: Path) -> tuple[sqlite3.Connection, str]:
    """Streams without their damaged ends: the promises are known to be whole."""
    try:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(str(found).split()))
        dropped = _drop_damaged(db)
    except UNREADABLE as error:
        if not is_damage(error):
            raise
        return _rebuild(db, path, error)
    return db, f"Damaged facts in the ledger {path} were dropped; they come back from other replicas." * dropped


def _drop_damaged(db: sqlite3.Connection) -> bool:
    """Keep of each stream what is a contiguous prefix and has its base; whether anything had to go."""
    bad = damaged_ends(db.execute(f"{ALL_BATCHES} ORDER BY job, epoch, n, node, serial"))
    if bad:
        with transaction(db):
            db.executemany(f"DELETE FROM batches WHERE {OF_STREAM} AND serial >= ?", bad)  # noqa: S608
    unfounded = [(stream.job, *stream.ballot) for stream in _unfounded(streams(db))]
    if unfounded:
        with transaction(db):
            db.executemany(f"DELETE FROM batches WHERE {OF_STREAM}", unfounded)  # noqa: S608
    return bool(bad or unfounded)


def _unfounded(found: Iterable[StoredStream]) -> Iterator[StoredStream]:
    """Streams whose leader had, when it began, what is not here any more: see `p2premap.election.streams`."""
    held: dict[tuple[JobId, Ballot], int] = {}
    for stream in sorted(found):  # a base names lower ballots only
        try:
            base = decode_head(stream.head)
        except RemoteProtocolError:
            yield stream
            continue
        if all(held.get((stream.job, ballot), -1) >= serial for ballot, serial in base.items()):
            held[stream.job, stream.ballot] = stream.serial
        else:
            yield stream


def _rebuild(db: sqlite3.Connection, path: Path, damage: Exception) -> tuple[sqlite3.Connection, str]:
    """A new database of the promises and of those batches that can be read; the damaged one is kept aside."""
    new = _beside(path)
    healed = connect(new, new=True)
    create(healed)
    with transaction(healed):
        for table, places in (("seal", "?, ?, ?, ?, ?"), ("jobs", "?, ?, ?"), ("cells", "?, ?, ?, ?")):
            rows = db.execute(f"SELECT * FROM {table}")  # noqa: S608
            healed.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({places})", rows)  # noqa: S608
        healed.executemany("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", readable(db))
    _drop_damaged(healed)
    healed.close()
    sync(new)
    name = f"{path.name}.damaged-{int(time.time())}"
    aside = next(p for n in itertools.count() if not (p := path.with_name(f"{name}-{n}" if n else name)).exists())
    with contextlib.suppress(sqlite3.Error):
        db.close()
    os.link(path, aside)
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{path}-wal", f"{aside}-wal")  # it would be applied to the new database
    new.replace(path)
    sync(path.parent)
    return connect(path), (
        f"The ledger was damaged ({damage}): its promises are whole, facts come back from other replicas. "
        f"The damaged file is kept as {aside}."
    )
