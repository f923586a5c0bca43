"""A virtual disk keeps what was synced, forgets from the end, never from the middle, and tells in order."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from p2premap.election.ballot import first
from p2premap.election.records import ForgetBatches, ForgetJob, JobRecord, StoredBatch, StoredRecord
from p2premap.ids import Boot, JobId, NodeId
from p2premap.sim.clock import Clock
from p2premap.sim.disks import FULL, Fault, Ledger, LedgerDisk

ME, JOB = NodeId(bytes(16)), JobId(b"j" * 16)
BALLOT = first(ME)


class Audit:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    def written(self, records: tuple[StoredRecord, ...]) -> None:
        self.said.append(("written", number(records)))

    def lost(self, records: tuple[StoredRecord, ...]) -> None:
        self.said.append(("lost", number(records)))

    def restored(self, ledger: Ledger) -> None:
        self.said.append(("restored", len(ledger.jobs)))


def number(records: tuple[StoredRecord, ...]) -> int:
    (record,) = records
    return record.serial if isinstance(record, StoredBatch) else -1


def batch(serial: int) -> tuple[StoredRecord, ...]:
    return (StoredBatch(job=JOB, ballot=BALLOT, serial=serial, batch=b"%d" % serial),)


def job(view: bytes = b"") -> tuple[StoredRecord, ...]:
    return (JobRecord(job=JOB, key=b"key", spec=b"", members=(ME,), promised=BALLOT, view=view),)


def serials(disk: LedgerDisk) -> list[int]:
    return [stored.serial for stored in disk.batches(JOB, {BALLOT: -1})]


def disk_of(seed: int = 0) -> tuple[LedgerDisk, Audit]:
    audit = Audit()
    disk = LedgerDisk(Random(seed), audit)
    disk.boot(Boot(1), old=False)
    return disk, audit


def writes(disk: LedgerDisk, clock: Clock, *those: tuple[tuple[StoredRecord, ...], bool]) -> list[tuple[int, str]]:
    answers: list[tuple[int, str]] = []

    def done(place: int) -> Callable[[str], None]:
        return lambda error: answers.append((place, error))

    for place, (records, sync) in enumerate(those):
        disk.write(records, sync, clock.after, done(place))
    clock.run_until(10.0)
    return answers


def test_writes_are_answered_in_order_and_can_be_read() -> None:
    disk, audit = disk_of()
    answers = writes(disk, Clock(), (job(), True), *((batch(n), n % 2 == 0) for n in range(6)))
    assert answers == [(place, "") for place in range(7)]
    assert serials(disk) == [0, 1, 2, 3, 4, 5]
    assert [serial for _, serial in audit.said] == [-1, 0, 1, 2, 3, 4, 5]
    assert [stored.serial for stored in disk.batches(JOB, {BALLOT: 3})] == [4, 5]
    assert [stored.serial for stored in disk.batches(JOB, {})] == [1, 2, 3, 4, 5], "the head is known already"


def test_a_killed_process_loses_nothing_that_was_answered() -> None:
    disk, _ = disk_of()
    writes(disk, Clock(), *((batch(n), False) for n in range(4)))
    disk.crash(power=False)
    assert serials(disk) == [0, 1, 2, 3]


def test_the_power_takes_what_was_not_synced_from_some_point_on() -> None:
    left = set()
    for seed in range(40):
        disk, audit = disk_of(seed)
        writes(disk, Clock(), *((batch(n), n == 2) for n in range(6)))
        disk.crash(power=True)
        kept = serials(disk)
        assert kept == list(range(len(kept)))
        assert len(kept) >= 3
        assert [serial for word, serial in audit.said if word == "lost"] == list(range(5, len(kept) - 1, -1))
        assert disk.lost_writes == 6 - len(kept)
        left.add(len(kept))
    assert left == {3, 4, 5, 6}


def test_what_was_under_way_is_there_whole_or_not_at_all_and_nobody_hears_of_it() -> None:
    outcomes = set()
    for seed in range(20):
        disk, _ = disk_of(seed)
        clock, answers = Clock(), list[str]()
        disk.write(batch(0), True, clock.after, answers.append)
        disk.write(batch(1), True, clock.after, answers.append)
        disk.crash(power=True)
        outcomes.add(tuple(serials(disk)))
        assert answers == []
    assert outcomes == {(), (0,)}


def test_a_full_disk_fails_everything_that_waits_and_then_works_again() -> None:
    disk, _ = disk_of()
    disk.fault = Fault.FULL
    clock = Clock()
    assert writes(disk, clock, (batch(0), True), (batch(1), False)) == [(0, FULL), (1, FULL)]
    disk.fault = Fault.NONE
    assert writes(disk, Clock(), (batch(0), False)) == [(0, "")]
    assert serials(disk) == [0]


def test_an_old_disk_is_what_it_was_when_that_boot_began() -> None:
    disk, audit = disk_of()
    for boot in (2, 3, 4):
        writes(disk, Clock(), (batch(boot - 2), True))
        disk.crash(power=True)
        disk.boot(Boot(boot), old=False)
    assert serials(disk) == [0, 1, 2]
    disk.boot(Boot(3), old=True)
    assert serials(disk) == [0, 1]
    assert audit.said[-1] == ("restored", 0)


@pytest.mark.parametrize(("record", "left"), [(ForgetBatches(job=JOB), 1), (ForgetJob(job=JOB), 0)])
def test_forgetting(record: StoredRecord, left: int) -> None:
    disk, _ = disk_of()
    writes(disk, Clock(), (job(), True), (batch(0), False), ((record,), True))
    assert serials(disk) == []
    found = disk.boot(Boot(2), old=False).stored()
    assert (len(found.jobs), found.streams) == (left, ())


def test_what_a_replica_finds_names_the_last_of_each_stream_and_its_head() -> None:
    disk, _ = disk_of()
    writes(disk, Clock(), (job(), True), (batch(0), False), (batch(1), False))
    found = disk.boot(Boot(2), old=False).stored()
    assert [(stream.serial, stream.head) for stream in found.streams] == [(1, b"0")]
