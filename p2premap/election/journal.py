"""Persist before you speak: what is written, and what waits for it to be on disk.

One write is under way at a time; what comes meanwhile is gathered into the next one. So the disk's own slowness sets
how many records share a write and how many answers share a message, and nothing needs a timer: a thousand batches a
second on a slow disk are as cheap as ten.

A record is in force in memory at once, and on disk later. That is safe because whatever could tell others of it waits:
an answer that depends on a record is given as its `then`, which is called, in order, when the disk has it. A crash
loses both together. Where a write fails, such as on a full disk, its records and all behind them are tried again in
the same order; their answers stay unsaid until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from p2premap.election.events import Persist
from p2premap.election.records import StoredRecord


class Entry:
    """Records that belong together.

    Args:
        then: called when they are on disk.
        failed: called with a sentence when they cannot be written: then they are given up. None: tried for ever.
    """

    __slots__ = ("failed", "records", "sync", "then")

    def __init__(
        self,
        records: tuple[StoredRecord, ...],
        sync: bool,
        then: Callable[[], None] | None,
        failed: Callable[[str], None] | None,
    ) -> None:
        self.records = records
        self.sync = sync
        self.then = then
        self.failed = failed


class Journal:
    """The writes of one core.

    Args:
        again_s: after a failure, how long to wait before the next try.
    """

    __slots__ = ("_again_at", "_again_s", "_token", "_waiting", "_writing", "trouble")

    def __init__(self, again_s: float) -> None:
        self._again_s = again_s
        self._again_at = -math.inf
        self._token = 0
        self._waiting: list[Entry] = []
        self._writing: list[Entry] = []
        self.trouble = ""
        """Why the last write failed; "" while the disk takes what it is given."""

    def write(
        self,
        *records: StoredRecord,
        sync: bool,
        then: Callable[[], None] | None = None,
        failed: Callable[[str], None] | None = None,
    ) -> None:
        """Have these written; see `Entry`."""
        self._waiting.append(Entry(records, sync, then, failed))

    def flush(self, now: float) -> Persist | None:
        """The next write, if there is one to be started now."""
        if self._writing or not self._waiting or now < self._again_at:
            return None
        self._writing, self._waiting = self._waiting, []
        self._token += 1
        records = tuple(record for entry in self._writing for record in entry.records)
        return Persist(token=self._token, records=records, sync=any(entry.sync for entry in self._writing))

    def persisted(self, token: int) -> None:
        """The write of this token is on disk."""
        if token != self._token:
            return
        self.trouble = ""
        self._again_at = -math.inf
        done, self._writing = self._writing, []
        for entry in done:
            if entry.then is not None:
                entry.then()

    def failed(self, now: float, token: int, text: str) -> None:
        """It is not."""
        if token != self._token:
            return
        self.trouble = text
        self._again_at = now + self._again_s
        broken, self._writing = self._writing, []
        self._waiting[:0] = [entry for entry in broken if entry.failed is None]
        for entry in broken:
            if entry.failed is not None:
                entry.failed(text)

    def deadline(self) -> float:
        """When a write that failed is tried again."""
        return self._again_at if self._waiting and not self._writing and self._again_at > -math.inf else math.inf
