"""The ledger on disk: what was written is there, in order; what is damaged is never taken for what was written."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from p2premap.election.streams import encode_head
from p2premap.errors import ConfigError
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.node.ledger_file import SCHEMA_VERSION
from p2premap.node.ledger_store import LedgerDamaged, LedgerLost, LedgerStore, LedgerUnwritable

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
JOB, OTHER = JobId(b"j" * 16), JobId(b"o" * 16)
NORMAL, FULL = 1, 2
ROOM_BYTES = 256 << 20
"""In memory, for these tests and those that run beside them; a container has 64 MiB there by default."""
HEAD = encode_head({})
FIRST, SECOND = Ballot(0, 0, A), Ballot(0, 1, B)


def job(job: JobId = JOB, promised: Ballot = FIRST, view: bytes = b"") -> JobRecord:
    return JobRecord(job=job, key=b"key", spec=b"spec", members=(A, B), promised=promised, boots=(1, 2), view=view)


def cell(name: str, value: bytes = b"value", ballot: Ballot = FIRST, of: JobId = JOB) -> CellRecord:
    return CellRecord(job=of, cell=name, ballot=ballot, value=value)


def batch(serial: int, content: bytes = b"", ballot: Ballot = FIRST, of: JobId = JOB) -> StoredBatch:
    return StoredBatch(
        job=of, ballot=ballot, serial=serial, batch=content or (b"batch %d" % serial if serial else HEAD)
    )


def stream(count: int, ballot: Ballot = FIRST, of: JobId = JOB) -> Iterator[StoredBatch]:
    return (batch(serial, ballot=ballot, of=of) for serial in range(count + 1))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a place: these tests sync a thousand times."""
    with quick_directory() as directory:
        yield directory


@contextlib.contextmanager
def quick_directory() -> Iterator[Path]:
    memory = "/dev/shm"
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_BYTES
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as directory:
        yield Path(directory)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def filled(path: Path, *, batches: int = 20, size: int = 400) -> Stored:
    """A ledger of two jobs, closed; what it holds."""
    store = LedgerStore(path, Boot(1))
    store.write([job(), cell("manifest/0"), cell("final"), job(OTHER), cell("final", of=OTHER)], sync=True)
    store.write([batch(0)], sync=True)
    for serial in range(1, batches + 1):
        store.write([batch(serial, b"%d" % serial * size)], sync=False)
    stored = store.load()
    store.close()
    return stored


# --- what was written -----------------------------------------------------------------------------------------------


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(), *stream(3)], sync=True)
    store.write([cell("final", b"one"), *stream(1, SECOND)], sync=True)
    store.write([job(promised=SECOND), cell("final", b"two", SECOND), batch(2, ballot=SECOND)], sync=False)
    store.close()
    again = LedgerStore(path, Boot(2))
    assert again.warning == ""
    assert again.load() == Stored(
        jobs=(job(promised=SECOND),),
        cells=(cell("final", b"two", SECOND),),
        streams=(StoredStream(JOB, FIRST, 3, HEAD), StoredStream(JOB, SECOND, 2, HEAD)),
    )
    assert again.batches(JOB, {FIRST: 2, SECOND: 1}) == (batch(3), batch(2, ballot=SECOND))
    assert again.batches(JOB, {FIRST: 9}) == (batch(1, ballot=SECOND), batch(2, ballot=SECOND))
    assert again.batches(OTHER, {}) == ()
    again.close()


def test_forgetting_batches_keeps_the_job_and_forgetting_the_job_keeps_nothing(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(), cell("final"), *stream(3), job(OTHER), cell("final", of=OTHER)], sync=True)
    store.write([ForgetBatches(job=JOB), cell("last"), job(view=b"view")], sync=True)
    store.write([ForgetJob(job=OTHER)], sync=True)
    store.close()
    again = LedgerStore(path, Boot(2))
    assert again.load() == Stored(jobs=(job(view=b"view"),), cells=(cell("last"),))
    again.close()


def test_a_batch_that_would_leave_a_gap_is_refused_with_all_that_came_with_it(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(), *stream(1)], sync=True)
    with pytest.raises(LedgerUnwritable, match="batch 3 does not follow batch 1"):
        store.write([cell("final"), batch(3)], sync=True)
    store.write([batch(2)], sync=False)
    assert store.load().cells == ()
    assert store.load().streams == (StoredStream(JOB, FIRST, 2, HEAD),)
    store.close()


def test_a_write_of_promises_is_synced_and_one_of_facts_is_not(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    for records, sync, level in (
        ([job()], True, FULL),
        (list(stream(1)), False, NORMAL),
        ([batch(2)], False, NORMAL),
        ([cell("final")], True, FULL),
        ([batch(3)], False, NORMAL),
    ):
        store.write(records, sync=sync)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (level,)
    store.close()


def test_what_forgotten_jobs_took_goes_back_to_the_file_system(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(), batch(0), *(batch(n, bytes(1 << 20)) for n in range(1, 33))], sync=True)
    store.write([ForgetJob(job=JOB)], sync=True)
    store.close()
    LedgerStore(path, Boot(2)).close()
    assert path.stat().st_size < 1 << 20


record = st.one_of(
    st.builds(job, st.sampled_from([JOB, OTHER]), st.sampled_from([FIRST, SECOND])),
    st.builds(cell, st.sampled_from(["a", "b"]), st.binary(max_size=9), of=st.sampled_from([JOB, OTHER])),
    st.builds(batch, st.integers(1, 3), st.binary(max_size=9), st.sampled_from([FIRST, SECOND])),
    st.builds(batch, st.just(0), ballot=st.sampled_from([FIRST, SECOND])),
    st.sampled_from([ForgetBatches(job=JOB), ForgetJob(job=JOB), ForgetJob(job=OTHER)]),
)


@settings(max_examples=30)
@given(writes=st.lists(st.tuples(st.lists(record, max_size=5), st.booleans()), max_size=8))
def test_any_history_reads_back_as_a_model_says(writes: list[tuple[list[StoredRecord], bool]]) -> None:
    with quick_directory() as directory:
        _check_history(directory / "ledger.db", writes)


def _check_history(path: Path, writes: list[tuple[list[StoredRecord], bool]]) -> None:
    jobs: dict[bytes, JobRecord] = {}
    cells: dict[tuple[bytes, str], CellRecord] = {}
    batches: dict[tuple[bytes, Ballot], list[StoredBatch]] = {}
    store = LedgerStore(path, Boot(1))
    for records, sync in writes:
        kept = dict(jobs), dict(cells), {key: list(value) for key, value in batches.items()}
        gap = False
        for each in records:
            match each:
                case JobRecord():
                    jobs[each.job] = each
                case CellRecord():
                    cells[each.job, each.cell] = each
                case StoredBatch():
                    serials = batches.setdefault((each.job, each.ballot), [])
                    gap |= each.serial > len(serials)
                    serials[each.serial : each.serial + 1] = [each]
                case ForgetBatches() | ForgetJob():
                    cells = {key: value for key, value in cells.items() if key[0] != each.job}
                    batches = {key: value for key, value in batches.items() if key[0] != each.job}
                    if isinstance(each, ForgetJob):
                        jobs.pop(each.job, None)
        if gap:
            jobs, cells, batches = kept
            with pytest.raises(LedgerUnwritable):
                store.write(records, sync=sync)
        else:
            store.write(records, sync=sync)
    store.close()
    again = LedgerStore(path, Boot(2))
    stored = again.load()
    assert again.warning == ""
    assert {each.job: each for each in stored.jobs} == jobs
    assert {(each.job, each.cell): each for each in stored.cells} == cells
    ends = {(s.job, s.ballot): (s.serial, s.head) for s in stored.streams}
    assert ends == {key: (len(value) - 1, value[0].batch) for key, value in batches.items() if value}
    for of in (JOB, OTHER):
        expected = [b for key in sorted(batches) if key[0] == of for b in batches[key][1:]]
        assert list(again.batches(of, {})) == expected
    again.close()


# --- damage ---------------------------------------------------------------------------------------------------------


def opened(path: Path, boot: int = 9) -> tuple[Stored, str] | None:
    """What a node that starts finds; None where it must take a new identity."""
    try:
        store = LedgerStore(path, Boot(boot))
    except LedgerLost:
        return None
    try:
        stored = store.load()
        for end in stored.streams:
            of_stream = [b.serial for b in store.batches(end.job, {}) if b.ballot == end.ballot]
            assert of_stream == list(range(1, end.serial + 1))
        return stored, store.warning
    finally:
        store.close()


def kept(found: tuple[Stored, str] | None) -> tuple[Stored, str]:
    assert found is not None, "it is not lost"
    return found


def never_wrong(found: tuple[Stored, str] | None, written: Stored) -> str:
    """Whatever was damaged: the promises are all there or known to be lost, streams are prefixes of what they were."""
    if found is None:
        return "lost"
    stored, warning = found
    assert sorted(stored.jobs, key=lambda j: j.job) == sorted(written.jobs, key=lambda j: j.job)
    assert set(stored.cells) == set(written.cells)
    whole = {(s.job, s.ballot): s for s in written.streams}
    for end in stored.streams:
        assert end.serial <= whole[end.job, end.ballot].serial
        assert end.head == whole[end.job, end.ballot].head
    if stored.streams != written.streams:
        assert "ledger" in warning
        return "healed"
    return "healed" if warning else "whole"


def test_no_damaged_byte_is_ever_taken_for_what_was_written(path: Path, tmp_path: Path) -> None:
    written = filled(path)
    data, mark = path.read_bytes(), path.with_suffix(".mark").read_bytes()
    seen = set[str]()
    for number, offset in enumerate(range(18, len(data), 397)):
        directory = tmp_path / str(number)
        directory.mkdir()
        damaged = directory / "ledger.db"
        damaged.write_bytes(data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :])
        damaged.with_suffix(".mark").write_bytes(mark)
        if offset < 100:  # the header: a later schema, or a format that SQLite does not read, is left alone
            with contextlib.suppress(ConfigError):
                seen.add(never_wrong(opened(damaged), written))
        else:
            seen.add(never_wrong(opened(damaged), written))
        shutil.rmtree(directory)
    assert seen == {"lost", "healed", "whole"}


def test_a_page_that_was_never_written_is_noticed(path: Path) -> None:
    written = filled(path)
    data, mark = path.read_bytes(), path.with_suffix(".mark").read_bytes()
    for page in range(0, len(data), 4096):
        path.write_bytes(data[:page] + bytes(4096) + data[page + 4096 :])
        path.with_suffix(".mark").write_bytes(mark)
        assert never_wrong(opened(path), written) in ("lost", "healed")


def test_promises_on_a_page_of_an_older_time_are_lost(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(promised=FIRST)], sync=True)
    store.close()
    old = path.read_bytes()
    store = LedgerStore(path, Boot(2))
    store.write([job(promised=SECOND)], sync=True)
    store.close()
    new = path.read_bytes()
    jobs = next(n for n in range(0, len(old), 4096) if b"spec" in old[n : n + 4096])
    assert old[jobs : jobs + 4096] != new[jobs : jobs + 4096]
    path.write_bytes(new[:jobs] + old[jobs : jobs + 4096] + new[jobs + 4096 :])
    with pytest.raises(LedgerLost, match="seal"):
        LedgerStore(path, Boot(3))


@pytest.mark.parametrize("table", ["jobs", "cells"])
def test_a_damaged_promise_is_a_lost_ledger(path: Path, table: str) -> None:
    filled(path)
    db = sqlite3.connect(path)
    (record,) = db.execute(f"SELECT record FROM {table}").fetchone()
    db.execute(f"UPDATE {table} SET record = ? WHERE record = ?", (record[:-1] + b"\x7f", record))
    db.commit()
    db.close()
    with pytest.raises(LedgerLost, match=f"a row of {table}"):
        LedgerStore(path, Boot(2))


def test_a_damaged_batch_costs_its_stream_only_what_follows(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(), cell("final"), *stream(9), *stream(3, SECOND)], sync=True)
    store.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE batches SET batch = 'x' WHERE serial = 5 AND n = 0")
    db.commit()
    db.close()
    stored, warning = kept(opened(path))
    assert "dropped" in warning
    assert [(s.ballot, s.serial) for s in stored.streams] == [(FIRST, 4), (SECOND, 3)]
    assert opened(path, 10) == (stored, "")


def test_a_stream_goes_with_what_its_leader_had_when_it_began(path: Path) -> None:
    third = Ballot(0, 2, A)
    store = LedgerStore(path, Boot(1))
    store.write([job(), *stream(9)], sync=True)
    store.write([batch(0, encode_head({FIRST: 6}), SECOND), batch(1, ballot=SECOND)], sync=True)
    store.write([batch(0, encode_head({FIRST: 3}), third), batch(1, ballot=third)], sync=True)
    store.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE batches SET batch = 'x' WHERE serial = 5 AND n = 0")
    db.commit()
    db.close()
    stored, _ = kept(opened(path))
    assert [(s.ballot, s.serial) for s in stored.streams] == [(FIRST, 4), (third, 1)]


def test_a_stream_without_its_head_is_no_stream(path: Path) -> None:
    filled(path)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM batches WHERE serial = 0")
    db.commit()
    db.close()
    stored, _ = kept(opened(path))
    assert stored.streams == ()


def test_a_batch_that_goes_bad_while_the_node_runs_is_not_handed_out(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(), *stream(9)], sync=True)
    store._db.execute("UPDATE batches SET batch = 'x' WHERE serial = 5")
    assert [b.serial for b in store.batches(JOB, {FIRST: 5})] == [6, 7, 8, 9]
    with pytest.raises(LedgerDamaged, match="cannot be read"):
        store.batches(JOB, {})
    store.close()


def test_a_lost_tail_of_the_log_is_noticed(path: Path, tmp_path: Path) -> None:
    """SQLite itself ends the history silently at the last whole commit of the WAL."""
    store = LedgerStore(path, Boot(1))
    store.write([job()], sync=True)
    for number in range(20):
        store.write([cell(f"cell {number}")], sync=True)
    log, mark = Path(f"{path}-wal"), path.with_suffix(".mark")
    image = {p.name: p.read_bytes() for p in (path, log, mark)}
    written = store.load()
    store.close()

    def restored(name: str, wal: bytes) -> Path:
        (tmp_path / name).mkdir()
        for file, content in (image | {log.name: wal}).items():
            (tmp_path / name / file).write_bytes(content)
        return tmp_path / name / path.name

    whole = image[log.name]
    assert never_wrong(opened(restored("whole", whole)), written) == "whole"
    assert opened(restored("gone", b"")) is None
    for cut in range(40, len(whole), len(whole) // 9):
        assert opened(restored(f"cut {cut}", whole[:cut])) is None
        assert opened(restored(f"bad {cut}", whole[:cut] + b"\xff\xfe" + whole[cut + 2 :])) is None


# --- older copies ---------------------------------------------------------------------------------------------------


def test_an_older_copy_is_known_as_such(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(promised=FIRST)], sync=True)
    store.close()
    shutil.copy(path, old := path.with_name("copy"))
    store = LedgerStore(path, Boot(2))
    store.write([job(promised=SECOND)], sync=True)
    store.close()
    shutil.copy(old, path)
    for boot in (3, 4):
        with pytest.raises(LedgerLost, match="older copy"):
            LedgerStore(path, Boot(boot))


def test_a_copy_of_the_same_start_is_known_too(path: Path) -> None:
    filled(path)
    shutil.copy(path, old := path.with_name("copy"))
    store = LedgerStore(path, Boot(2))
    store.close()
    shutil.copy(old, path)
    with pytest.raises(LedgerLost, match="older copy"):
        LedgerStore(path, Boot(3))


@pytest.mark.parametrize("damage", ["database gone", "database empty", "mark gone", "mark damaged", "start repeated"])
def test_what_cannot_be_known_to_be_the_newest_is_lost(path: Path, damage: str) -> None:
    filled(path)
    match damage:
        case "database gone":
            path.unlink()
        case "database empty":
            path.write_bytes(b"")
        case "mark gone":
            path.with_suffix(".mark").unlink()
        case "mark damaged":
            path.with_suffix(".mark").write_bytes(b"\x00")
    for again in range(2):  # whoever looks again comes to the same verdict
        with pytest.raises(LedgerLost):
            LedgerStore(path, Boot(1 if damage == "start repeated" else 2 + again))


def test_a_first_start_that_was_cut_short_is_no_loss(path: Path) -> None:
    LedgerStore(path, Boot(1)).close()
    path.with_suffix(".mark").unlink()
    LedgerStore(path, Boot(2)).close()


def test_a_ledger_of_a_later_release_is_left_alone(path: Path) -> None:
    filled(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(ConfigError, match="later release"):
        LedgerStore(path, Boot(2))


# --- the system -----------------------------------------------------------------------------------------------------


def test_a_directory_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot use the ledger"):
        LedgerStore(tmp_path / "nowhere" / "ledger.db", Boot(1))


WRITER = """
import sys
import tempfile
from pathlib import Path
from p2premap.ids import Boot
from p2premap.node.ledger_store import LedgerStore
from p2premap.election.records import *
from p2premap.election.streams import encode_head
from p2premap.ids import *
A, JOB = NodeId(b"a" * 16), JobId(b"j" * 16)
store = LedgerStore(Path(sys.argv[1]), Boot(int(sys.argv[2])))
first = max([s.serial for s in store.load().streams], default=-1) + 1
for n in range(first, 10**9):
    ballot = Ballot(0, n, A)
    content = bytes(n % 5000) if n else encode_head({})
    store.write([StoredBatch(job=JOB, ballot=Ballot(0, 0, A), serial=n, batch=content)], sync=False)
    store.write([JobRecord(job=JOB, key=b"", spec=b"", members=(A,), promised=ballot)], sync=True)
    print(n, flush=True)
"""


def test_nothing_that_was_answered_is_missing_after_a_kill(path: Path) -> None:
    for boot in range(1, 4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(boot)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(50 * boot)][-1]
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        said = max([said, *map(int, rest)])
    store = LedgerStore(path, Boot(5))
    stored = store.load()
    assert stored.jobs[0].promised.n >= said
    assert stored.streams[0].serial >= said
    store.close()


def test_where_no_page_is_left_nothing_is_written_and_later_all_is(path: Path) -> None:
    store = LedgerStore(path, Boot(1))
    store.write([job(), *stream(1)], sync=True)
    store._db.execute("PRAGMA max_page_count=1")  # SQLite makes it as many as there are
    for _ in range(3):
        with pytest.raises(LedgerUnwritable, match="the disk is full"):
            store.write([job(promised=SECOND), cell("final"), batch(2, bytes(100_000))], sync=True)
    assert store.load().jobs == (job(),)
    assert store.load().cells == ()
    store.write([job(promised=SECOND)], sync=True)  # what finds room is written
    store._db.execute("PRAGMA max_page_count=10000")
    store.write([cell("final"), batch(2, bytes(100_000))], sync=True)
    store.close()
    stored, warning = kept(opened(path))
    assert warning == ""
    assert (stored.jobs, stored.cells) == ((job(promised=SECOND),), (cell("final"),))
    assert stored.streams == (StoredStream(JOB, FIRST, 2, HEAD),)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    directory = tmp_path / "disk"
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(directory)], check=False).returncode:
        pytest.skip("this system does not let us mount")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_refuses_keeps_what_it_has_and_takes_more_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "ledger.db"
    store = LedgerStore(path, Boot(1))
    store.write([job(), cell("before"), *stream(3)], sync=True)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(LedgerUnwritable, match="the disk is full"):
        store.write([cell("during", bytes(200_000))], sync=True)
    assert [b.serial for b in store.batches(JOB, {})] == [1, 2, 3]
    assert [c.cell for c in store.load().cells] == ["before"]
    ballast.unlink()
    store.write([cell("after", bytes(200_000)), batch(4)], sync=True)
    store.close()
    stored, warning = kept(opened(path))
    assert warning == ""
    assert {c.cell for c in stored.cells} == {"before", "after"}
