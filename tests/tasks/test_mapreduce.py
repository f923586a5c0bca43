"""The director of map/reduce: plans packed and unpacked, stages, sources, parts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import JobFailed, JobRejected
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks.director import Pinned, TaskInput
from p2premap.tasks.job import BlobRef, StageId
from p2premap.tasks.mapreduce import (
    BLOCK_BYTES_MAX,
    BLOCK_BYTES_MIN,
    InputFile,
    MapParams,
    MapReduce,
    MapReducePlan,
    ReduceParams,
    Segment,
    Split,
    pack_plan,
    pack_segments,
    unpack_plan,
)

HOME = NodeId(b"h" * 16)
OTHER = NodeId(b"o" * 16)
FILES = (
    InputFile(path="/data/a.txt", name="a.txt", mtime_ns=7),
    InputFile(path="/data/b.txt", name="b.txt", mtime_ns=8),
)
TASKS = [
    [Split(0, 0, 100, b"1" * 32)],
    [Split(0, 100, 130, b"2" * 32), Split(1, 0, 70, b"3" * 32)],
    [Split(1, 70, 90, b"4" * 32)],
]
MAP = StageId(0, b"")
REDUCE = StageId(1, b"lineage.")


def plan(partitions: int = 2) -> bytes:
    return pack_plan(files=FILES, tasks=TASKS, partitions=partitions, compression="zlib")


def director(partitions: int = 2) -> MapReduce:
    return MapReduce(job=JobId(bytes(16)), home=HOME, plan=plan(partitions))


def mapped(*sizes: int, blob: bytes = b"B" * 32) -> Pinned:
    """The result of a map task whose segments have these sizes."""
    value = pack_segments(Segment(size, bytes([size]) * 32) for size in sizes)
    blobs = (BlobRef(digest=Digest(blob), size=sum(sizes)),) if sum(sizes) else ()
    return Pinned(value=value, blobs=blobs, holders=(OTHER,))


def test_a_map_task_reads_its_splits_of_the_submitting_machines_files() -> None:
    d = director()
    stage = d.first()
    assert (stage.name, stage.function, stage.tasks, stage.bytes_in, stage.final) == ("map", "map", 3, 220, False)
    given_task: TaskInput = d.task(MAP, 1)
    assert [(s.path, s.start, s.end, s.digest[:1], s.mtime_ns, s.holders, s.blob) for s in given_task.sources] == [
        ("/data/a.txt", 100, 130, b"2", 7, (HOME,), None),
        ("/data/b.txt", 0, 70, b"3", 8, (HOME,), None),
    ]
    params = msgspec.msgpack.decode(given_task.params, type=MapParams)
    assert (params.names, params.partitions, params.compression) == (("a.txt", "b.txt"), 2, "zlib")


def test_a_reduce_task_reads_its_partitions_segment_of_every_map_blob() -> None:
    d = director()
    results = [mapped(10, 5), mapped(0, 7, blob=b"C" * 32), mapped(0, 0)]
    stage = d.next(0, results)
    assert stage is not None
    assert (stage.name, stage.tasks, stage.bytes_in, stage.final) == ("reduce", 2, 22, True)
    first, second = d.task(REDUCE, 0), d.task(REDUCE, 1)
    assert [(s.blob, s.start, s.end, s.digest, s.holders) for s in first.sources] == [
        (b"B" * 32, 0, 10, bytes([10]) * 32, (OTHER,))
    ]
    assert [(s.blob, s.start, s.end, s.digest) for s in second.sources] == [
        (b"B" * 32, 10, 15, bytes([5]) * 32),
        (b"C" * 32, 0, 7, bytes([7]) * 32),
    ]
    assert msgspec.msgpack.decode(second.params, type=ReduceParams).partition == 1
    assert d.next(1, [Pinned(value=b"", blobs=(), holders=())] * 2) is None


def test_a_job_without_reduce_has_one_stage_and_its_blobs_are_the_parts() -> None:
    d = director(partitions=0)
    assert d.first().final
    result = Pinned(value=b"", blobs=(BlobRef(digest=Digest(b"P" * 32), size=9),), holders=(OTHER,), records_out=4)
    (part,) = d.parts(1, result)
    assert (part.number, part.records, part.source.blob, part.source.end) == (1, 4, b"P" * 32, 9)
    assert d.next(0, [result] * 3) is None


def test_every_leader_comes_to_the_same_conclusions() -> None:
    results = [mapped(10, 5), mapped(0, 7, blob=b"C" * 32), mapped(3, 0)]
    one, other = director(), director()
    assert one.next(0, results) == other.next(0, results)
    assert [one.task(REDUCE, t) for t in (0, 1)] == [other.task(REDUCE, t) for t in (0, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        Pinned(value=b"", blobs=(), holders=()),
        Pinned(value=b"x" * 41, blobs=(), holders=()),
        Pinned(value=mapped(10, 5).value, blobs=(), holders=()),
        Pinned(value=mapped(10, 5).value, blobs=(BlobRef(digest=Digest(b"B" * 32), size=16),), holders=()),
        mapped(1, 2, 3),
    ],
)
def test_a_map_result_that_contradicts_itself_ends_the_job(wrong: Pinned) -> None:
    with pytest.raises(JobFailed, match="Map task 1 told nonsense"):
        director().next(0, [mapped(1, 1), wrong, mapped(1, 1)])


def _changed(**fields: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(unpack_plan(plan()), **fields))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 40,
        plan()[:-1],
        _changed(version=99),
        _changed(digests=b"short"),
        _changed(firsts=b"\0" * 4),
        _changed(firsts=b"\0" * 5),
        _changed(files=()),
        _changed(partitions=1_000_000),
    ],
)
def test_a_senseless_plan_is_refused(data: bytes) -> None:
    with pytest.raises(JobRejected):
        MapReduce(job=JobId(bytes(16)), home=HOME, plan=data)


@given(st.binary(max_size=200))
def test_a_plan_of_random_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(JobRejected):
        unpack_plan(data)


splits = st.builds(
    lambda file, start, size, digest: Split(file, start, start + size, digest),
    st.integers(0, 1),
    st.integers(0, 2**40),
    st.integers(1, 2**30),
    st.binary(min_size=32, max_size=32),
)


@given(st.lists(st.lists(splits, min_size=1, max_size=4), min_size=1, max_size=6))
def test_splits_come_out_of_a_plan_as_they_went_in(tasks: list[list[Split]]) -> None:
    packed = unpack_plan(pack_plan(files=FILES, tasks=tasks, partitions=1, compression="none"))
    assert packed.tasks == len(tasks)
    assert [packed.splits_of(task) for task in range(packed.tasks)] == tasks


def test_a_million_splits_are_a_few_byte_strings() -> None:
    count = 1_000_000
    data = msgspec.msgpack.encode(
        MapReducePlan(
            version=1,
            files=FILES,
            splits=b"".join(i.to_bytes(1, "little") + bytes(11) + b"\1" + bytes(7) for i in (0, 1)) * (count // 2),
            digests=bytes(32) * count,
            firsts=b"".join(i.to_bytes(4, "little") for i in range(count + 1)),
            partitions=8,
            compression="zlib",
        )
    )
    d = MapReduce(job=JobId(bytes(16)), home=HOME, plan=data)
    assert d.first().tasks == count
    assert [s.path for s in d.task(MAP, count - 1).sources] == ["/data/b.txt"]


def test_blocks_get_smaller_when_many_are_merged_at_once() -> None:
    def block_bytes(tasks: int) -> int:
        many = pack_plan(files=FILES, tasks=TASKS[:1] * tasks, partitions=1, compression="none")
        d = MapReduce(job=JobId(bytes(16)), home=HOME, plan=many)
        return msgspec.msgpack.decode(d.task(MAP, 0).params, type=MapParams).block_bytes

    assert block_bytes(8) == BLOCK_BYTES_MAX
    assert BLOCK_BYTES_MIN < block_bytes(1_000) < BLOCK_BYTES_MAX
    assert block_bytes(100_000) == BLOCK_BYTES_MIN


def test_a_path_that_no_system_has_is_refused() -> None:
    files = (InputFile(path="/data/a\0.txt", name="a.txt", mtime_ns=7), FILES[1])
    bad = pack_plan(files=files, tasks=TASKS, partitions=2, compression="zlib")
    with pytest.raises(JobRejected, match="cannot be read"):
        unpack_plan(bad)


def test_a_path_may_hold_anything_else() -> None:
    files = (InputFile(path="/data/a\n\N{SNOWMAN} \t.txt\n", name="a.txt", mtime_ns=7), FILES[1])
    assert unpack_plan(pack_plan(files=files, tasks=TASKS, partitions=2, compression="zlib")).files == files


def test_a_split_beyond_what_a_source_can_tell_is_refused() -> None:
    bad = pack_plan(files=FILES, tasks=[[Split(0, 0, 2**53 + 1, b"1" * 32)]], partitions=2, compression="zlib")
    with pytest.raises(JobRejected, match="contradicts itself"):
        unpack_plan(bad)
