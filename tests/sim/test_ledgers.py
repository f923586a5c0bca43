"""The checkers of ledgers find what must not be on them, each by its name."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from p2premap.config import GossipConfig
from p2premap.election.records import CellRecord, JobRecord, StoredBatch, StoredRecord
from p2premap.ids import Ballot, Digest, JobId
from p2premap.node.events import JobAccepted
from p2premap.sim.disks import Ledger
from p2premap.sim.gossip import GossipHosts
from p2premap.sim.ledgers import Ledgers
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.observers import InvariantBroken
from p2premap.sim.world import World
from p2premap.tasks import journal
from p2premap.tasks.events import RunBatch
from p2premap.tasks.job import AttemptEnd, AttemptSpec, BlobRef, Limits, Outcome, Source, StageId

JOB, FORK = JobId(b"j" * 16), JobId(b"f" * 16)
STAGE = StageId(number=0, lineage=b"")
CODE = Source(digest=Digest(b"c" * 32), start=0, end=1, holders=(), blob=Digest(b"c" * 32))


@pytest.fixture
def world() -> World:
    made = World(seed=1, hosts=GossipHosts(GossipConfig()))
    for _ in range(3):
        made.start(made.add())
    return made


@pytest.fixture
def ledgers(world: World) -> Ledgers:
    return Ledgers(world)


def ballot(seat: Seat, n: int = 0) -> Ballot:
    return Ballot(0, n, seat.node)


def job(world: World, promised: Ballot, *, strict: bool = False, of: JobId = JOB, origin: bytes = b"") -> JobRecord:
    members = tuple(seat.node for seat in world.seats)
    return JobRecord(job=of, key=b"", spec=b"", members=members, promised=promised, strict=strict, origin=origin)


def batch(leader: Ballot, serial: int, facts: Sequence[journal.Fact] = ()) -> StoredBatch:
    return StoredBatch(job=JOB, ballot=leader, serial=serial, batch=journal.encode(0.0, facts) if serial else b"")


def result(seat: Seat, task: int, *, attempt: int = 0, blob: bool = False) -> journal.Fact:
    blobs = (BlobRef(digest=Digest(b"b" * 32), size=1),) if blob else ()
    end = AttemptEnd(task=task, attempt=attempt, outcome=Outcome.DONE, blobs=blobs)
    return journal.results(STAGE, seat.node, [end])


def run(task: int, attempt: int) -> RunBatch:
    spec = AttemptSpec(task=task, attempt=attempt)
    return RunBatch(
        slot=0, batch=1, job=JOB, stage=STAGE, runtime="r", function="f", code=CODE, limits=Limits(), attempts=(spec,)
    )


def held(world: World, ledgers: Ledgers, *, by: int, blob: bool = False) -> Ballot:
    """A result of task 7 that so many disks hold."""
    a, *_ = world.seats
    leader = ballot(a)
    for seat in world.seats[:by]:
        records: tuple[StoredRecord, ...] = (
            job(world, leader),
            batch(leader, 0),
            batch(leader, 1, [result(world.seats[1], 7, blob=blob)]),
        )
        ledgers.written(seat, records)
    return leader


def test_a_leader_that_has_gone_from_the_replica_set_has_no_quorum(world: World, ledgers: Ledgers) -> None:
    a, b, _ = world.seats
    leader = held(world, ledgers, by=2)
    gone = msgspec.structs.replace(job(world, leader), gone=True, members=())
    ledgers.written(a, (gone,))
    ledgers.lost(b, (batch(leader, 1, [result(b, 7)]),))
    ledgers.effect(b, run(7, 1))


def test_two_leaders_of_one_term(world: World, ledgers: Ledgers) -> None:
    a, b, _ = world.seats
    ledgers.written(a, (batch(ballot(a, 1), 0),))
    with pytest.raises(InvariantBroken, match="one-leader"):
        ledgers.written(b, (batch(ballot(b, 1), 0),))


def test_a_cell_with_two_values(world: World, ledgers: Ledgers) -> None:
    a, b, _ = world.seats
    ledgers.written(a, (CellRecord(job=JOB, cell="final", ballot=ballot(a), value=b"1", chosen=True),))
    ledgers.written(b, (CellRecord(job=JOB, cell="final", ballot=ballot(b), value=b"2"),))
    with pytest.raises(InvariantBroken, match="decided-once"):
        ledgers.written(b, (CellRecord(job=JOB, cell="final", ballot=ballot(b), value=b"2", chosen=True),))


def test_a_promise_that_goes_down(world: World, ledgers: Ledgers) -> None:
    a, *_ = world.seats
    ledgers.written(a, (job(world, ballot(a, 2)),))
    with pytest.raises(InvariantBroken, match="promise-kept"):
        ledgers.written(a, (job(world, ballot(a, 1)),))


def test_another_batch_under_the_same_number_and_a_gap(world: World, ledgers: Ledgers) -> None:
    a, b, c = world.seats
    leader = ballot(a)
    ledgers.written(a, (batch(leader, 0), batch(leader, 1, [journal.Pin(stage=STAGE, generation=0)])))
    with pytest.raises(InvariantBroken, match=r"stream: .*another batch 1"):
        ledgers.written(b, (batch(leader, 0), batch(leader, 1, [journal.Pin(stage=STAGE, generation=1)])))
    with pytest.raises(InvariantBroken, match=r"stream: .*batch 2 .* after batch 0"):
        ledgers.written(c, (batch(leader, 0), batch(leader, 2)))


def test_a_strict_job_that_is_forked(world: World, ledgers: Ledgers) -> None:
    a, b, _ = world.seats
    ledgers.written(a, (job(world, ballot(a), strict=True),))
    with pytest.raises(InvariantBroken, match="strict"):
        ledgers.written(b, (job(world, ballot(b), of=FORK, origin=JOB),))


def test_more_copies_than_there_are(world: World, ledgers: Ledgers) -> None:
    a, *_ = world.seats
    ledgers.written(a, (job(world, ballot(a)),))
    ledgers.effect(a, JobAccepted(request=1, job=JOB, copies=1))
    with pytest.raises(InvariantBroken, match="copies"):
        ledgers.effect(a, JobAccepted(request=2, job=JOB, copies=2))


def test_a_protected_task_that_is_given_out_again(world: World, ledgers: Ledgers) -> None:
    held(world, ledgers, by=2)
    assert ledgers.counts["protected"] == 1
    with pytest.raises(InvariantBroken, match=r"protected: .*task 7 .*inline"):
        ledgers.effect(world.seats[0], run(7, 1))


def test_one_that_only_its_leader_knows_may_run_again(world: World, ledgers: Ledgers) -> None:
    held(world, ledgers, by=1)
    ledgers.effect(world.seats[0], run(7, 1))


def test_one_that_was_given_out_before_or_by_a_deposed_leader_may_run(world: World, ledgers: Ledgers) -> None:
    a, b, _ = world.seats
    ledgers.effect(a, run(7, 3))
    held(world, ledgers, by=3)
    ledgers.effect(a, run(7, 3))
    ledgers.written(b, (job(world, ballot(b, 1)), batch(ballot(b, 1), 0)))
    ledgers.effect(a, run(7, 4))
    with pytest.raises(InvariantBroken, match="protected"):
        ledgers.effect(b, run(7, 1000))


def test_one_whose_bytes_may_be_gone_may_run_again(world: World, ledgers: Ledgers) -> None:
    world.run_for(100.0)
    held(world, ledgers, by=3, blob=True)
    world.power_off(world.seats[1])
    ledgers.effect(world.seats[0], run(7, 1))
    assert ledgers.counts["redone for lost bytes"] == 1


def test_one_whose_bytes_are_there_may_not(world: World, ledgers: Ledgers) -> None:
    world.run_for(100.0)
    held(world, ledgers, by=3, blob=True)
    with pytest.raises(InvariantBroken, match=r"protected: .*at 1 holders"):
        ledgers.effect(world.seats[0], run(7, 1))


def test_a_disk_that_loses_a_batch_protects_nothing(world: World, ledgers: Ledgers) -> None:
    a, b, _ = world.seats
    leader = held(world, ledgers, by=2)
    ledgers.lost(b, (batch(leader, 1, [result(world.seats[1], 7)]),))
    ledgers.effect(a, run(7, 1))


def test_whose_disks_are_lost_is_excused(world: World, ledgers: Ledgers) -> None:
    a, b, c = world.seats
    for seat in world.seats:
        ledgers.written(seat, (job(world, ballot(a)),))
    world.crash(b)
    world.start(b, Disk.LOST)
    assert not ledgers.excused(JOB)
    world.crash(c)
    world.start(c, Disk.LOST)
    assert ledgers.excused(JOB)


def test_more_copies_than_have_code_and_plan(world: World) -> None:
    a, b, _ = world.seats
    whole = {a.node}
    ledgers = Ledgers(world, whole=lambda node, _: node in whole)
    for seat in world.seats:
        ledgers.written(seat, (job(world, ballot(a)),))
    ledgers.effect(a, JobAccepted(request=1, job=JOB, copies=1))
    whole.add(b.node)
    ledgers.effect(a, JobAccepted(request=2, job=JOB, copies=2))
    with pytest.raises(InvariantBroken, match=r"copies: .*3 copies of a job that 2 disks hold"):
        ledgers.effect(a, JobAccepted(request=3, job=JOB, copies=3))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_whose_every_counted_copy_is_lost_is_excused_unless_another_is_whole(world: World, elsewhere: bool) -> None:
    a, b, c = world.seats
    whole = {a.node, b.node}
    ledgers = Ledgers(world, whole=lambda node, _: node in whole)
    for seat in world.seats[:2]:
        ledgers.written(seat, (job(world, ballot(a)),))
    ledgers.effect(a, JobAccepted(request=1, job=JOB, copies=2))
    ledgers.written(c, (job(world, ballot(a)),))
    if elsewhere:
        whole.add(c.node)
    for seat in (a, b):
        assert not ledgers.excused(JOB)
        world.crash(seat)
        world.start(seat, Disk.LOST)
        # the replica set grows again, by machines that have nobody to get the plan from but c
        ledgers.written(seat, (job(world, ballot(c, 1)),))
    ledgers.written(c, (job(world, ballot(c, 1)),))
    assert ledgers.excused(JOB) is not elsewhere


def test_who_throws_away_code_or_plan_without_losing_a_disk_is_not_excused(world: World) -> None:
    a, *_ = world.seats
    whole = {a.node}
    ledgers = Ledgers(world, whole=lambda node, _: node in whole)
    for seat in world.seats:
        ledgers.written(seat, (job(world, ballot(a)),))
    ledgers.effect(a, JobAccepted(request=1, job=JOB, copies=1))
    whole.clear()
    assert not ledgers.excused(JOB)


def test_an_older_disk_may_have_promised_less(world: World, ledgers: Ledgers) -> None:
    a, *_ = world.seats
    ledgers.written(a, (job(world, ballot(a, 5)),))
    ledgers.restored(a, Ledger())
    ledgers.written(a, (job(world, ballot(a, 1)),))
