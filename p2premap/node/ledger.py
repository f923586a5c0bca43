"""The ledger's writer: one background task, one thread, many writes in one transaction (group commit).

::

    core --Persist, Persist, Persist, LoadBatches--> waiting --> one transaction --> Persisted x 3, BatchesLoaded

While one transaction is being synced the next writes gather, and go together into the one after it: a sync costs
milliseconds, whatever it holds. Facts alone, which are not synced, wait for others for `LINGER_S` where many come: a
thread's turn costs more than they do. Effects are carried out and answered in the order in which they were asked for.
Where a write fails, those that wait behind it fail with it; the next one that is asked for is tried again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, TypeAlias

import msgspec
import trio

from p2premap.election.events import BatchesLoaded, LoadBatches, Persist, Persisted, PersistFailed
from p2premap.node.ledger_store import LedgerDamaged, LedgerStore, LedgerUnwritable

LedgerAnswer: TypeAlias = Persisted | PersistFailed | BatchesLoaded

GROUP_MAX: Final = 1_000
"""Writes in one transaction."""
WAITING_MAX: Final = 10_000
"""Writes that wait; beyond that the disk does not keep up, and all that wait fail."""
LINGER_S: Final = 0.005
MANY_S: Final = 0.02
"""Facts that come within so short a time of the last write are many."""
PROBE_S: Final = 2.0
"""After a failed write an empty one is tried this often, so that a person hears when the disk has room again."""


class LedgerStatistics(msgspec.Struct, frozen=True):
    """The ledger in numbers: transactions so far, writes and reads that they held, failed writes, and who waits."""

    transactions: int
    writes: int
    reads: int
    failed: int
    waiting: int


class Ledger:
    """Carries out the election core's `Persist` and `LoadBatches`.

    Args:
        store: opened; closed by the caller after `run` has ended.
        deliver: takes each answer; called from this task.
        damaged: told a sentence when the database cannot be read any more; the node must open it anew.
    """

    def __init__(
        self,
        *,
        store: LedgerStore,
        deliver: Callable[[LedgerAnswer], None],
        damaged: Callable[[str], None],
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._damaged = damaged
        self._waiting: deque[Persist | LoadBatches] = deque()
        self._overrun = False
        self._asked = trio.Event()
        self._urgent = trio.Event()
        self._wrote_at = -math.inf
        self._thread = trio.CapacityLimiter(1)
        self._transactions = self._writes = self._reads = self._failed = 0
        self.trouble = ""
        """Why the last write failed, as one sentence for `status`; "" where it did not."""

    def persist(self, effect: Persist) -> None:
        """Ask for a write; answered by `Persisted` or `PersistFailed`."""
        if len(self._waiting) >= WAITING_MAX:
            self._overrun = True
            effect = msgspec.structs.replace(effect, records=())  # it will fail with the others
        self._waiting.append(effect)
        self._asked.set()
        if effect.sync:
            self._urgent.set()

    def load_batches(self, effect: LoadBatches) -> None:
        """Ask for a read; answered by `BatchesLoaded`, after all writes that were asked for before."""
        self._waiting.append(effect)
        self._asked.set()
        self._urgent.set()

    def statistics(self) -> LedgerStatistics:
        """A snapshot."""
        return LedgerStatistics(self._transactions, self._writes, self._reads, self._failed, len(self._waiting))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write and read until cancelled; what is under way then is still finished."""
        task_status.started()
        while True:
            while self._waiting:
                await self._linger()
                if isinstance(self._waiting[0], LoadBatches):
                    await self._load()
                else:
                    await self._write()
            await self._wait()

    async def _wait(self) -> None:
        self._asked = trio.Event()
        if not self.trouble:
            await self._asked.wait()
            return
        with trio.move_on_after(PROBE_S):
            await self._asked.wait()
            return
        _, text = await self._in_thread([Persist(token=0, records=(), sync=True)])
        self.trouble = text

    async def _linger(self) -> None:
        """Let facts gather, unless they are few, or somebody waits for what must be synced or read."""
        self._urgent = trio.Event()
        if trio.current_time() - self._wrote_at > MANY_S:
            return
        if not any(isinstance(effect, LoadBatches) or effect.sync for effect in self._waiting):
            with trio.move_on_after(LINGER_S):
                await self._urgent.wait()

    async def _write(self) -> None:
        group: list[Persist] = []
        while self._waiting and len(group) < GROUP_MAX and isinstance(first := self._waiting[0], Persist):
            group.append(first)
            self._waiting.popleft()
        written, text = await self._in_thread(group)
        self._wrote_at = trio.current_time()
        self._transactions += 1
        self._writes += written
        for effect in group[:written]:
            self._deliver(Persisted(token=effect.token))
        if not text and self._overrun:
            text = f"The disk does not keep up: {len(self._waiting)} writes wait."
        if text:
            self._fail(group[written:], text)
        self.trouble = text

    def _fail(self, group: Sequence[Persist], text: str) -> None:
        """What could not be written, and all that waits behind it."""
        self._overrun = False
        reads: list[LoadBatches] = []
        for effect in (*group, *self._waiting):
            if isinstance(effect, Persist):
                self._failed += 1
                self._deliver(PersistFailed(token=effect.token, text=text))
            else:
                reads.append(effect)
        self._waiting = deque(reads)

    async def _in_thread(self, group: Sequence[Persist]) -> tuple[int, str]:
        try:
            return await trio.to_thread.run_sync(_write_group, self._store, group, limiter=self._thread)
        except LedgerDamaged as error:
            self._damaged(str(error))
            return 0, str(error)

    async def _load(self) -> None:
        effect = self._waiting.popleft()
        assert isinstance(effect, LoadBatches)
        try:
            found = await trio.to_thread.run_sync(self._store.batches, effect.job, effect.beyond, limiter=self._thread)
        except LedgerDamaged as error:
            self._damaged(str(error))
            return
        self._reads += 1
        self._deliver(BatchesLoaded(token=effect.token, batches=found))


def _write_group(store: LedgerStore, group: Sequence[Persist]) -> tuple[int, str]:
    """How many from the first on were written, and why the next was not. Runs in the thread.

    Raises:
        LedgerDamaged: none was written.
    """
    try:
        store.write(chain.from_iterable(effect.records for effect in group), sync=any(e.sync for e in group))
    except LedgerUnwritable as error:
        if len(group) == 1:
            return 0, str(error)
    else:
        return len(group), ""
    for written, effect in enumerate(group):  # a smaller one may still find room
        try:
            store.write(effect.records, sync=effect.sync)
        except LedgerUnwritable as error:
            return written, str(error)
    return len(group), ""
