"""What a node remembers on disk: one SQLite database in WAL mode, with a version.

Only what may be lost without harm lives here so far: peers last seen. A database that cannot be read is put aside
with a sentence and a new one begun, so that a torn file never keeps a node from starting.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from p2premap.errors import ConfigError
from p2premap.ids import Address, NodeId

SCHEMA_VERSION: Final = 1
PEERS_MAX: Final = 1_000
"""Remembered peers; beyond that the ones seen longest ago are forgotten."""

_SCHEMA: Final = """
CREATE TABLE peers (
    node BLOB NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    seen REAL NOT NULL,
    PRIMARY KEY (node, host, port)
) WITHOUT ROWID;
"""


class Store:
    """The database of one node. Its methods block; the daemon calls them in a thread, one at a time.

    Args:
        path: the file; made if need be.

    Raises:
        ConfigError: the directory cannot be written, the disk is full, or a later release made the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.warning = ""
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise ConfigError(
                    f"Cannot write the node's database {path}: {error}. Free some space or make it writable."
                ) from None
            aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
            path.replace(aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).unlink()
            self.warning = f"The node's database was damaged ({error}); it is kept as {aside} and a new one was begun."
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        new = not self._path.exists()
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            if new:  # there is nothing in it yet that a power cut could take
                db.execute("PRAGMA synchronous=OFF")
            db.execute("PRAGMA journal_mode=WAL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise ConfigError(f"{self._path} was written by a later release of p2premap; upgrade this one.")
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            db.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            db.close()
            raise
        return db

    def peers(self) -> Sequence[tuple[NodeId, Address]]:
        """Who was seen where, the most recently seen first."""
        rows = self._db.execute("SELECT node, host, port FROM peers ORDER BY seen DESC, node, host, port")
        return [(NodeId(node), Address(host, port)) for node, host, port in rows]

    def remember(self, peers: Iterable[tuple[NodeId, Sequence[Address]]]) -> None:
        """Replace what is known of these peers by their present addresses.

        Raises:
            OSError: the disk is full or failing; what was stored before is still there.
        """
        now = time.time()
        try:
            self._db.execute("BEGIN")
            with self._db:  # commits, or rolls back
                for node, addresses in peers:
                    self._db.execute("DELETE FROM peers WHERE node = ?", (node,))
                    self._db.executemany(
                        "INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?)",
                        [(node, address.host, address.port, now) for address in addresses],
                    )
                self._db.execute(
                    "DELETE FROM peers WHERE seen < (SELECT seen FROM peers ORDER BY seen DESC LIMIT 1 OFFSET ?)",
                    (PEERS_MAX,),
                )
        except sqlite3.Error as error:
            raise OSError(f"Cannot write the node's database {self._path}: {error}") from error

    def forget(self, node: NodeId) -> None:
        """Forget one peer: it has left for good."""
        self._db.execute("DELETE FROM peers WHERE node = ?", (node,))

    def close(self) -> None:
        """Write back and close."""
        self._db.close()
