"""The ledger's writer: order, group commit, failures told to all that wait, and recovery."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2premap.election.events import BatchesLoaded, LoadBatches, Persist, Persisted, PersistFailed
from p2premap.election.records import CellRecord, JobRecord, StoredBatch, StoredRecord
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.node import ledger as ledger_module
from p2premap.node.ledger import WAITING_MAX, Ledger, LedgerAnswer
from p2premap.node.ledger_store import LedgerDamaged, LedgerStore, LedgerUnwritable

A = NodeId(b"a" * 16)
JOB = JobId(b"j" * 16)
BALLOT = Ballot(0, 0, A)


def job() -> JobRecord:
    return JobRecord(job=JOB, key=b"key", spec=b"spec", members=(A,), promised=BALLOT)


def batch(serial: int, size: int = 10) -> StoredBatch:
    return StoredBatch(job=JOB, ballot=BALLOT, serial=serial, batch=bytes(size))


def persist(token: int, *records: StoredRecord, sync: bool = False) -> Persist:
    return Persist(token=token, records=records, sync=sync)


class Disk:
    """A store, a running ledger, and its answers."""

    def __init__(self, path: Path) -> None:
        self.store = LedgerStore(path, Boot(1))
        self.answers: list[LedgerAnswer] = []
        self.damage: list[str] = []
        self._more = trio.Event()
        self.ledger = Ledger(store=self.store, deliver=self._take, damaged=self.damage.append)

    def _take(self, answer: LedgerAnswer) -> None:
        self.answers.append(answer)
        self._more.set()

    async def until(self, true: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not true():
                self._more = trio.Event()
                await self._more.wait()

    async def answered(self, count: int) -> list[LedgerAnswer]:
        await self.until(lambda: len(self.answers) >= count)
        assert len(self.answers) == count
        return self.answers


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Disk]:
    disk = Disk(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(disk.ledger.run)
        yield disk
        nursery.cancel_scope.cancel()
    disk.store.close()


@pytest.mark.trio
async def test_what_gathers_during_one_write_goes_together_into_the_next_in_order(tmp_path: Path) -> None:
    async with running(tmp_path / "ledger.db") as disk:
        disk.ledger.persist(persist(1, job(), batch(0), sync=True))
        disk.ledger.load_batches(LoadBatches(token=7, job=JOB, beyond={}))
        for token in range(2, 102):
            disk.ledger.persist(persist(token, batch(token - 1)))
        disk.ledger.load_batches(LoadBatches(token=8, job=JOB, beyond={BALLOT: 97}))
        answers = await disk.answered(103)
        assert answers[0] == Persisted(token=1)
        assert answers[1] == BatchesLoaded(token=7, batches=())
        assert answers[2:102] == [Persisted(token=token) for token in range(2, 102)]
        assert answers[102] == BatchesLoaded(token=8, batches=(batch(98), batch(99), batch(100)))
        assert disk.ledger.statistics().transactions == 2


@pytest.mark.trio
async def test_a_group_with_one_promise_in_it_is_synced(tmp_path: Path) -> None:
    async with running(tmp_path / "ledger.db") as disk:
        disk.ledger.persist(persist(1, job(), batch(0)))
        await disk.answered(1)
        said: list[str] = []
        disk.store._db.set_trace_callback(said.append)
        disk.ledger.persist(persist(2, batch(1)))
        disk.ledger.persist(persist(3, CellRecord(job=JOB, cell="c", ballot=BALLOT, value=b"v"), sync=True))
        disk.ledger.persist(persist(4, batch(2)))
        await disk.answered(4)
        assert [text for text in said if "PRAGMA" in text or text == "COMMIT"] == ["PRAGMA synchronous=FULL", "COMMIT"]
        disk.store._db.set_trace_callback(None)


class Full:
    """Stands for a disk without room for large batches, or for anything."""

    def __init__(self, store: LedgerStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes_max = 0
        self._apply_batch = store._apply_batch
        self._store = store
        monkeypatch.setattr(store, "_apply_batch", self._apply)
        monkeypatch.setattr(store, "_apply_all", self._apply_all)
        self._real_apply_all = type(store)._apply_all

    def _apply_all(self, records: object, *, sync: bool) -> tuple[int, bool]:
        if self.bytes_max == 0:
            raise sqlite3.OperationalError("database or disk is full")
        return self._real_apply_all(self._store, records, sync=sync)  # type: ignore[arg-type]

    def _apply(self, record: StoredBatch) -> None:
        if len(record.batch) > self.bytes_max:
            raise sqlite3.OperationalError("database or disk is full")
        self._apply_batch(record)


@pytest.mark.trio
async def test_what_waits_behind_a_failed_write_fails_and_what_came_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "ledger.db") as disk:
        full = Full(disk.store, monkeypatch)
        full.bytes_max = 100
        disk.ledger.persist(persist(1, job(), batch(0), batch(1)))
        disk.ledger.persist(persist(2, batch(2, size=101)))
        disk.ledger.persist(persist(3, batch(3)))
        disk.ledger.load_batches(LoadBatches(token=1, job=JOB, beyond={}))
        disk.ledger.persist(persist(4, batch(4)))
        answers = await disk.answered(5)
        assert answers[0] == Persisted(token=1)
        for token, answer in zip((2, 3, 4), answers[1:4], strict=True):
            assert isinstance(answer, PersistFailed)
            assert answer.token == token
            assert "full" in answer.text
        assert answers[4] == BatchesLoaded(token=1, batches=(batch(1),))
        assert "full" in disk.ledger.trouble
        disk.ledger.persist(persist(5, batch(2)))
        assert (await disk.answered(6))[5] == Persisted(token=5)
        assert disk.ledger.trouble == ""


@pytest.mark.trio
async def test_room_is_noticed_without_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PROBE_S", 0.01)
    async with running(tmp_path / "ledger.db") as disk:
        full = Full(disk.store, monkeypatch)
        disk.ledger.persist(persist(1, job(), sync=True))
        (answer,) = await disk.answered(1)
        assert isinstance(answer, PersistFailed)
        assert disk.ledger.trouble == answer.text
        full.bytes_max = 100
        with trio.fail_after(60):
            while disk.ledger.trouble:  # noqa: ASYNC110  (nobody else waits for it)
                await trio.sleep(0.01)
        assert len(disk.answers) == 1


@pytest.mark.trio
async def test_a_disk_that_does_not_keep_up_fails_what_waits_in_order(tmp_path: Path) -> None:
    async with running(tmp_path / "ledger.db") as disk:
        for token in range(1, WAITING_MAX + 11):
            disk.ledger.persist(persist(token, CellRecord(job=JOB, cell="c", ballot=BALLOT, value=b"v")))
        answers = await disk.answered(WAITING_MAX + 10)
        assert [answer.token for answer in answers] == list(range(1, WAITING_MAX + 11))
        assert isinstance(answers[0], Persisted)
        assert isinstance(answers[-1], PersistFailed)
        assert "does not keep up" in answers[-1].text
        disk.ledger.persist(persist(WAITING_MAX + 11, job(), sync=True))
        assert (await disk.answered(WAITING_MAX + 11))[-1] == Persisted(token=WAITING_MAX + 11)


@pytest.mark.trio
async def test_damage_is_told_and_no_answer_is_made_up(tmp_path: Path) -> None:
    async with running(tmp_path / "ledger.db") as disk:
        disk.ledger.persist(persist(1, job(), batch(0), batch(1)))
        await disk.answered(1)
        disk.store._db.execute("UPDATE batches SET batch = 'x' WHERE serial = 1")
        disk.ledger.load_batches(LoadBatches(token=1, job=JOB, beyond={}))
        disk.ledger.persist(persist(2, job()))
        assert await disk.answered(2) == [Persisted(token=1), Persisted(token=2)]
        assert len(disk.damage) == 1


def test_an_input_or_output_error_has_the_log_written_back_before_anything_else(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path / "ledger.db", Boot(1))
    store.write([job(), batch(0)], sync=True)
    said: list[str] = []
    store._db.set_trace_callback(said.append)

    def fail(_: StoredBatch) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    store._apply_batch = fail  # type: ignore[method-assign]
    with pytest.raises(LedgerUnwritable, match="the disk fails"):
        store.write([batch(1)], sync=False)
    del store._apply_batch  # type: ignore[method-assign]
    store.write([batch(1)], sync=False)
    store.write([batch(2)], sync=False)
    assert [text for text in said if "checkpoint" in text] == ["PRAGMA wal_checkpoint(TRUNCATE)"]
    store.close()


def test_a_database_that_is_malformed_is_damage_and_no_full_disk(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path / "ledger.db", Boot(1))
    store.write([job()], sync=True)
    store._db.execute("UPDATE seal SET sum = 'x'")
    with pytest.raises(LedgerDamaged, match="seal"):
        store.write([job()], sync=True)
    store.close()
