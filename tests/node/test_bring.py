"""What a replica brings to its own store, so that the job outlives the machine that submitted it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from blake3 import blake3

from p2premap.election.events import Bring, Brought
from p2premap.election.records import JobRecord
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.node import bring
from p2premap.node.bring import Answer, Asked, Bringer
from p2premap.node.charter import Charter
from p2premap.node.events import BlobsKept, KeepBlobs, PlanRead, ReadPlan
from p2premap.tasks import inputs
from p2premap.tasks.inputs import dependence, name_holders, to_copy
from p2premap.tasks.job import BlobRef, JobOptions, JobSpec, Source, StageId
from p2premap.tasks.mapreduce import KIND, MapReduce
from p2premap.tasks.mapreduce_plan import InputFile, Split, pack_plan
from p2premap.tasks.messages import Keep, Kept
from tests.node.slots_house import ME
from tests.node.test_staging import HOME, OTHER, Cluster

JOB = JobId(b"j" * 16)
TEXT = b"one\ntwo\nthree\n"
CUTS = ((0, 4), (4, 8), (8, 14))


class Submitted:
    """A job over one file at HOME: its blobs are in HOME's store, its file under a path of HOME's."""

    def __init__(self, cluster: Cluster, root: Path, options: JobOptions = JobOptions()) -> None:  # noqa: B008
        self.file = root / "input"
        self.file.write_bytes(TEXT)
        files = [InputFile(path=str(self.file), name="input", mtime_ns=self.file.stat().st_mtime_ns)]
        splits = [[Split(0, a, b, blake3(TEXT[a:b]).digest())] for a, b in CUTS]
        self.plan = pack_plan(files=files, tasks=splits, partitions=0, compression="none")
        refs = [cluster.stores[HOME].put(blob) for blob in (b"code", self.plan)]
        self.spec = JobSpec(submission_key=b"k", kind=KIND, name="n", code=refs[0], plan=refs[1], options=options)
        self.charter = Charter(spec=self.spec, home=HOME).encode()
        cluster.files[HOME].allow_files(JOB, [str(self.file)])
        self.bring = Bring(job=JOB, spec=self.charter, source=HOME)

    def record(self, **changes: object) -> JobRecord:
        record = JobRecord(job=JOB, key=b"k", spec=self.charter, members=(HOME, ME), promised=Ballot(0, 0, HOME))
        return msgspec.structs.replace(record, **changes)

    def director(self) -> MapReduce:
        return MapReduce(job=JOB, home=HOME, plan=self.plan)


class Replica:
    """A running bringer, and what it answered."""

    def __init__(self, cluster: Cluster, me: NodeId) -> None:
        self.answers: list[Answer] = []
        self.shared: dict[JobId, Sequence[str]] = {}
        self._more = trio.Event()
        self.bringer = Bringer(
            me=me,
            blobs=cluster.mine,
            stager=cluster.stager,
            directors={KIND: MapReduce},
            share=self.shared.__setitem__,
            deliver=self._take,
        )

    def _take(self, answer: Answer) -> None:
        self.answers.append(answer)
        self._more.set()

    async def ask(self, asked: Asked) -> Answer:
        self.bringer.perform(asked)
        return await self.next()

    async def next(self) -> Answer:
        with trio.fail_after(60):
            while not self.answers:
                self._more = trio.Event()
                await self._more.wait()
        return self.answers.pop(0)

    async def copy(self, asked: Bring) -> Answer:
        """What it answers when inputs are there too."""
        assert await self.ask(asked) == Brought(job=asked.job, copying=True)
        return await self.next()


@asynccontextmanager
async def replica(cluster: Cluster, me: NodeId = HOME) -> AsyncIterator[Replica]:
    made = Replica(cluster, me)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.bringer.run)
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture
def cluster(tmp_path: Path, nursery: trio.Nursery) -> Cluster:
    return Cluster(tmp_path, nursery)


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Submitted:
    return Submitted(cluster, tmp_path)


@pytest.mark.trio
async def test_a_replica_needs_the_submitting_machine_no_more(cluster: Cluster, job: Submitted) -> None:
    async with replica(cluster) as mine:
        assert await mine.copy(job.bring) == Brought(job=JOB)
        cluster.down.add(HOME)
        job.file.unlink()
        assert await mine.ask(ReadPlan(job=JOB, plan=job.spec.plan)) == PlanRead(job=JOB, plan=job.plan)
        assert cluster.mine.get(Digest(job.spec.code.digest)) == b"code"
        for (a, b), source in zip(CUTS, job.director().inputs(), strict=True):
            assert cluster.mine.get(Digest(source.digest)) == TEXT[a:b]
            assert (await cluster.stager.bring(source)).path == cluster.mine.path(Digest(source.digest))
        assert mine.bringer.blobs_in_use() == {source.digest for source in job.director().inputs()}
        assert cluster.mine.sweep(older_s=3_600.0).blobs == 2 + len(CUTS)
        mine.bringer.forget(JOB)
        assert mine.bringer.blobs_in_use() == set()
        with trio.fail_after(60):
            while cluster.mine.sweep(older_s=3_600.0).blobs > 2:  # noqa: ASYNC110  (nobody tells when files are gone)
                await trio.sleep(0.01)


@pytest.mark.trio
async def test_the_lock_of_an_environment_comes_along(cluster: Cluster, tmp_path: Path) -> None:
    lock = cluster.stores[HOME].put(b"lock")
    asked = Submitted(cluster, tmp_path, JobOptions(environment=lock))
    async with replica(cluster) as mine:
        assert await mine.copy(asked.bring) == Brought(job=JOB)
    assert cluster.mine.get(Digest(lock.digest)) == b"lock"


@pytest.mark.trio
async def test_on_the_homes_machine_files_are_shared_and_not_copied(cluster: Cluster, job: Submitted) -> None:
    cluster.neighbours[HOME] = cluster.stores[HOME].directory
    async with replica(cluster) as mine:
        assert await mine.ask(job.bring) == Brought(job=JOB)
        assert mine.shared == {JOB: [str(job.file)]}
        assert cluster.mine.sweep(older_s=3_600.0).blobs == 2
        assert cluster.opened == []


@pytest.mark.trio
async def test_a_module_that_fails_is_the_jobs_trouble(
    cluster: Cluster, job: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: MapReduce, **_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MapReduce, "__init__", fail)
    async with replica(cluster) as mine:
        answer = await mine.ask(job.bring)
        assert isinstance(answer, Brought)
        assert "ZeroDivisionError" in answer.error
        await mine.bringer.resume([job.record()])


@pytest.mark.trio
async def test_another_replica_has_it_where_the_home_has_gone(cluster: Cluster, job: Submitted) -> None:
    for blob in (b"code", job.plan, *(TEXT[a:b] for a, b in CUTS)):
        cluster.stores[OTHER].put(blob)
    cluster.down.add(HOME)
    job.file.unlink()
    async with replica(cluster) as mine:
        assert await mine.copy(msgspec.structs.replace(job.bring, source=OTHER)) == Brought(job=JOB)
    assert set(cluster.opened) == {HOME, OTHER}


@pytest.mark.trio
async def test_what_cannot_be_had_is_a_sentence(cluster: Cluster, job: Submitted) -> None:
    async with replica(cluster) as mine:
        shutil.rmtree(cluster.stores[HOME].directory)
        answer = await mine.ask(job.bring)
        assert isinstance(answer, Brought)
        assert "can be read nowhere" in answer.error
        answer = await mine.ask(msgspec.structs.replace(job.bring, spec=b"nonsense"))
        assert isinstance(answer, Brought)
        assert answer.error
        unknown = ReadPlan(job=JobId(b"x" * 16), plan=BlobRef(digest=Digest(b"d" * 32), size=1))
        answer = await mine.ask(unknown)
        assert isinstance(answer, PlanRead)
        assert "no blob" in answer.error


@pytest.mark.trio
async def test_inputs_that_cannot_be_copied_now_are_copied_later(
    cluster: Cluster, job: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring, "COPY_AGAIN_S", 0.01)
    job.file.rename(away := job.file.with_name("away"))
    async with replica(cluster) as mine:
        assert await mine.ask(job.bring) == Brought(job=JOB, copying=True)
        with trio.fail_after(60):
            while cluster.stager.statistics().lost < len(CUTS):  # noqa: ASYNC110  (nobody tells of what failed)
                await trio.sleep(0.01)
        assert mine.answers == [], "it is no copy of the job yet"
        assert cluster.mine.sweep(older_s=3_600.0).blobs == 2
        away.rename(job.file)
        assert await mine.next() == Brought(job=JOB)
        assert cluster.mine.sweep(older_s=3_600.0).blobs == 2 + len(CUTS)


@pytest.mark.trio
async def test_large_inputs_stay_where_they_are(
    cluster: Cluster, job: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "COPIED_BYTES_MAX", len(TEXT) - 1)
    async with replica(cluster) as mine:
        assert await mine.ask(job.bring) == Brought(job=JOB)
        assert mine.bringer.blobs_in_use() == set()
    director = job.director()
    name_holders(director, JobOptions(), (HOME, ME))
    assert director.task(StageId(0, b""), 0).sources[0].holders == (HOME,)
    assert dependence(director, JobOptions(), "anna") == (
        "Its inputs (0 MB) are only on anna: without that machine the job waits for it."
    )


@pytest.fixture
def staged(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submitted:
    """A job of large inputs that shall be copied all the same."""
    monkeypatch.setattr(inputs, "COPIED_BYTES_MAX", len(TEXT) - 1)
    monkeypatch.setattr(bring, "COPY_AGAIN_S", 0.01)
    return Submitted(cluster, tmp_path, JobOptions(stage_inputs=True))


@pytest.mark.trio
async def test_large_inputs_are_copied_where_it_is_asked_for(cluster: Cluster, staged: Submitted) -> None:
    async with replica(cluster) as mine:
        assert await mine.copy(staged.bring) == Brought(job=JOB)
        assert [cluster.mine.get(source.digest) for source in staged.director().inputs()] == [
            TEXT[a:b] for a, b in CUTS
        ]
    director = staged.director()
    name_holders(director, staged.spec.options, (HOME, ME))
    assert director.task(StageId(0, b""), 0).sources[0].holders == (HOME, ME)
    assert dependence(director, staged.spec.options, "anna") == ""


@pytest.mark.trio
async def test_a_replica_that_started_again_goes_on_copying(cluster: Cluster, staged: Submitted) -> None:
    cluster.mine.put(staged.plan)
    cluster.mine.put(TEXT[slice(*CUTS[0])])
    async with replica(cluster, me=ME) as mine:
        await mine.bringer.resume([staged.record(members=(OTHER, ME))])
        assert await mine.next() == Brought(job=JOB, copying=True)
        assert await mine.next() == Brought(job=JOB)
        assert len(mine.bringer.blobs_in_use()) == len(CUTS)
    assert cluster.mine.sweep(older_s=3_600.0).blobs == 1 + len(CUTS)


@pytest.mark.trio
async def test_replicas_are_named_as_holders_after_the_home(cluster: Cluster, job: Submitted) -> None:
    director = job.director()
    assert dependence(director, JobOptions(), "anna") == ""
    assert len(to_copy(director, JobOptions())) == len(CUTS)
    name_holders(director, JobOptions(), (OTHER, HOME, ME))
    assert director.task(StageId(0, b""), 2).sources[0].holders == (HOME, OTHER, ME)
    name_holders(director, JobOptions(), (HOME, ME))
    assert director.task(StageId(0, b""), 0).sources[0].holders == (HOME, ME)


@pytest.mark.trio
async def test_after_a_start_the_homes_files_may_be_read_again(cluster: Cluster, job: Submitted) -> None:
    async with replica(cluster) as mine:
        cluster.mine.put(job.plan)
        cluster.mine.put(TEXT[slice(*CUTS[0])])
        over = job.record(job=JobId(b"o" * 16), view=b"view")
        broken = job.record(job=JobId(b"b" * 16), spec=b"nonsense")
        await mine.bringer.resume([broken, over, job.record()])
        assert mine.shared == {JOB: [str(job.file)]}
        assert mine.bringer.blobs_in_use() == {blake3(TEXT[slice(*CUTS[0])]).digest()}


@pytest.mark.trio
async def test_after_a_start_a_lost_plan_comes_from_another_replica(cluster: Cluster, job: Submitted) -> None:
    async with replica(cluster) as mine:
        await mine.bringer.resume([job.record(members=(ME, OTHER))])
        cluster.stores[OTHER].put(job.plan)
        assert await mine.ask(ReadPlan(job=JOB, plan=job.spec.plan)) == PlanRead(job=JOB, plan=job.plan)


@pytest.mark.trio
async def test_results_are_kept_and_the_leader_hears_of_it(cluster: Cluster) -> None:
    ref = cluster.stores[OTHER].put(b"result")
    source = Source(digest=ref.digest, start=0, end=ref.size, holders=(OTHER,), blob=ref.digest)
    order = Keep(job=JOB, ballot=Ballot(0, 0, HOME), number=3, sources=(source,))
    async with replica(cluster) as mine:
        answer = await mine.ask(KeepBlobs(node=HOME, order=order))
        assert answer == BlobsKept(node=HOME, kept=Kept(job=JOB, ballot=order.ballot, number=3))
        assert cluster.mine.get(ref.digest) == b"result"
        cluster.stores[OTHER].delete(ref.digest)
        cluster.mine.delete(ref.digest)
        answer = await mine.ask(KeepBlobs(node=HOME, order=order))
        assert isinstance(answer, BlobsKept)
        assert "can be read nowhere" in answer.kept.error
