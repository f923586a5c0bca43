"""The director of vertex jobs: epoch after epoch, each from what the one before left."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2premap.errors import JobError, JobFailed, JobRejected
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks.director import Pinned, StagePlan
from p2premap.tasks.job import BlobRef, StageId
from p2premap.tasks.mapreduce_plan import InputFile, Split, pack_plan, pack_segments
from p2premap.tasks.mapreduce_plan import Segment as Share
from p2premap.vertex.director import VertexDirector
from p2premap.vertex.loading import Loaded, Reading
from p2premap.vertex.plan import (
    BuildReport,
    EpochParams,
    EpochReport,
    OutputParams,
    Settings,
    StepRow,
    VertexPlan,
)
from p2premap.vertex.told import unpack_told

HOME, OTHER = NodeId(b"h" * 16), NodeId(b"o" * 16)


def blob(name: str, size: int = 10) -> BlobRef:
    return BlobRef(digest=Digest(name.encode().ljust(32, b".")), size=size)


def plan(*, inputs: bool = True, **more: Any) -> bytes:
    splits = [Split(0, 0, 10, b"d" * 32)]
    file = InputFile(path="/x/graph.txt", name="graph.txt", mtime_ns=1)
    packed = pack_plan(files=[file], tasks=[splits], partitions=2, compression="none")
    told = Settings(form="objects", partitions=2, reading=Reading().pack(), **more)
    return VertexPlan(version=1, inputs=packed if inputs else b"", settings=told).pack()


def director(**more: Any) -> VertexDirector:
    return VertexDirector(job=JobId(b"j" * 16), home=HOME, plan=plan(**more))


def pinned(value: Any, *blobs: BlobRef) -> Pinned:
    packed = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    return Pinned(value=packed, blobs=blobs, holders=(OTHER,))


def loaded() -> Pinned:
    segments = pack_segments([Share(4, b"s" * 32), Share(6, b"t" * 32)])
    return pinned(segments + msgspec.msgpack.encode(Loaded(lines=3)), blob("loaded"))


def built(*, state: bool = True) -> list[Pinned]:
    reports = [BuildReport(graph=True, state=state, vertices=2, edges=3) for _ in range(2)]
    return [
        pinned(report, *([blob(f"graph{n}"), blob(f"first{n}")] if state else [blob(f"graph{n}")]))
        for n, report in enumerate(reports)
    ]


def epoch(superstep: int, *, over: bool = False) -> list[Pinned]:
    row = StepRow(superstep=superstep - 1, active=0, computed=0, sent=0, dropped=0, seconds=0.0)
    report = EpochReport(superstep=superstep, over=over, why="So.", vertices=4, edges=6, rows=(row,))
    return [pinned(report, blob(f"state{superstep}/{n}")) for n in range(2)]


def test_stages_follow_one_another_and_each_epoch_reads_what_the_last_one_left() -> None:
    made = director()
    assert made.first().name == "load"
    build = made.next(0, [loaded()])
    assert build is not None
    assert (build.name, build.tasks) == ("build", 2)
    assert [source.size for source in made.task(StageId(1, b""), 1).sources] == [6]
    gang = StagePlan(
        name="supersteps", function="supersteps", tasks=2, together=True, shared=True, copied=True, passing=True
    )
    assert made.next(1, built()) == gang
    told = made.task(StageId(2, b""), 1)
    params = msgspec.msgpack.decode(told.params, type=EpochParams)
    assert (params.partition, params.epoch, params.superstep, params.graph, params.state) == (1, 0, 0, True, True)
    assert [source.digest for source in told.sources] == [blob("graph1").digest, blob("first1").digest]
    assert made.next(2, epoch(9)) == gang
    told = made.task(StageId(3, b""), 0)
    params = msgspec.msgpack.decode(told.params, type=EpochParams)
    assert (params.epoch, params.superstep) == (1, 9)
    assert [source.digest for source in told.sources] == [blob("graph0").digest, blob("state9/0").digest]
    assert told.sources[1].holders == (OTHER,)
    output = made.next(3, epoch(12, over=True))
    assert output is not None
    assert (output.name, output.final) == ("output", True)
    told = made.task(StageId(4, b""), 0)
    assert msgspec.msgpack.decode(told.params, type=OutputParams).superstep == 12
    assert [source.digest for source in told.sources] == [blob("graph0").digest, blob("state12/0").digest]
    assert made.next(4, []) is None
    (part,) = made.parts(0, pinned(b"", blob("part")))
    assert (part.number, part.file_name) == (0, "part-00000")
    view = unpack_told(made.tell())
    assert view is not None
    assert (view.loaded.lines, view.supersteps, view.checkpoints, view.why) == (3, 12, 2, "So.")
    assert [row.superstep for row in view.rows] == [8, 11]


def test_another_leader_comes_to_the_same() -> None:
    results = [[loaded()], built(state=False), epoch(9), epoch(12, over=True)]
    first, second = director(), director()
    for made in (first, second):
        made.first()
        for number, found in enumerate(results):
            made.next(number, found)
    for number in range(1, 5):
        assert first.task(StageId(number, b""), 1) == second.task(StageId(number, b""), 1)
    assert first.tell() == second.tell()


def test_the_array_form_begins_without_a_state() -> None:
    made = director()
    made.first()
    made.next(0, [loaded()])
    made.next(1, built(state=False))
    told = made.task(StageId(2, b""), 0)
    assert [source.digest for source in told.sources] == [blob("graph0").digest]
    assert not msgspec.msgpack.decode(told.params, type=EpochParams).state


def test_without_inputs_the_graph_is_empty() -> None:
    made = director(inputs=False)
    assert made.first().name == "build"
    assert made.task(StageId(0, b""), 1).sources == ()
    assert list(made.inputs()) == []


def test_what_makes_no_sense_fails_the_job_with_a_sentence() -> None:
    made = director()
    made.first()
    made.next(0, [loaded()])
    with pytest.raises(JobFailed, match="told nonsense about its partition"):
        made.next(1, [pinned(b"x"), pinned(b"x")])
    made.next(1, built())
    with pytest.raises(JobFailed, match="have not ended together"):
        made.next(2, [epoch(3)[0], epoch(4)[1]])
    with pytest.raises(JobFailed, match="needs all its partitions"):
        made.next(2, [epoch(3)[0], Pinned(value=b"", blobs=(), holders=(), failed=True)])
    with pytest.raises(JobError, match="takes no more tasks"):
        made.extend(b"")


@pytest.mark.parametrize(
    "wrong", [{"form": "other"}, {"unknown": "perhaps"}, {"supersteps_max": 0}, {"partitions": 3}, {"partitions": 0}]
)
def test_a_plan_that_contradicts_itself_is_refused(wrong: Any) -> None:
    packed = msgspec.msgpack.decode(plan(), type=VertexPlan)
    bad = msgspec.structs.replace(packed, settings=msgspec.structs.replace(packed.settings, **wrong))
    with pytest.raises(JobRejected, match="contradicts itself"):
        VertexDirector(job=JobId(b"j" * 16), home=HOME, plan=bad.pack())


def test_a_plan_that_is_none_or_of_a_later_version_is_refused() -> None:
    later = msgspec.structs.replace(msgspec.msgpack.decode(plan(), type=VertexPlan), version=99).pack()
    for packed, sentence in ((b"x", "cannot be read"), (later, "version 99")):
        with pytest.raises(JobRejected, match=sentence):
            VertexDirector(job=JobId(b"j" * 16), home=HOME, plan=packed)
