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
from p2premap.tasks.mapreduce import BLOCK_BYTES_MIN, RUNS_MIN, MapReduce
from p2premap.tasks.mapreduce_plan import (
    BLOCK_BYTES_MAX,
    InputFile,
    KeysParams,
    MapParams,
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


# --- finish, sets, datasources ------------------------------------------------------------------------------------


def packed(**fields: object) -> MapReduce:
    given = {"files": FILES, "tasks": TASKS, "partitions": 2, "compression": "none", **fields}
    return MapReduce(job=JobId(bytes(16)), home=HOME, plan=pack_plan(**given))  # type: ignore[arg-type]


def ended(name: bytes, size: int = 9) -> Pinned:
    """The result of a task that wrote one blob."""
    blobs = (BlobRef(digest=Digest(name * 32), size=size),)
    return Pinned(value=b"", blobs=blobs, holders=(OTHER,), records_out=4)


def test_finish_reads_whatever_the_stage_before_wrote() -> None:
    d = packed(finish=True)
    assert not d.first().final
    reduce = d.next(0, [mapped(10, 5)] * 3)
    assert reduce is not None
    assert not reduce.final
    assert msgspec.msgpack.decode(d.task(REDUCE, 0).params, type=ReduceParams).onward
    failed = Pinned(value=b"why", blobs=(), holders=(), failed=True)
    stage = d.next(1, [ended(b"a"), failed, ended(b"b", 0), ended(b"c", 5)])
    assert stage is not None
    assert (stage.name, stage.tasks, stage.bytes_in, stage.final) == ("finish", 1, 14, True)
    sources = d.task(StageId(2, b"lineage."), 0).sources
    assert [(s.blob, s.start, s.end, s.digest, s.holders) for s in sources] == [
        (b"a" * 32, 0, 9, b"a" * 32, (OTHER,)),
        (b"c" * 32, 0, 5, b"c" * 32, (OTHER,)),
    ]
    assert d.next(2, [ended(b"f")]) is None


def test_finish_may_follow_map_at_once() -> None:
    d = packed(finish=True, partitions=0)
    assert msgspec.msgpack.decode(d.task(MAP, 0).params, type=MapParams).onward
    stage = d.next(0, [ended(b"a"), ended(b"b"), ended(b"c")])
    assert stage is not None
    assert (stage.name, stage.final) == ("finish", True)


def test_parts_of_sets_are_named_by_set_and_partition() -> None:
    d = packed(partitions=4, sets=("words", "lengths"), suffix=".jsonl")
    names = [part.name for task in range(4) for part in d.parts(task, ended(b"a"))]
    assert names == [f"{name}/part-0000{n}.jsonl" for name in ("words", "lengths") for n in (0, 1)]
    assert [part.name for part in packed(suffix=".pairs").parts(1, ended(b"a"))] == ["part-00001.pairs"]
    assert [part.name for part in packed().parts(1, ended(b"a"))] == [""]


def test_the_keys_of_a_datasource_are_listed_then_shared_out() -> None:
    d = packed(files=(), tasks=[], keys=8)
    first = d.first()
    assert (first.name, first.tasks, first.final) == ("keys", 1, False)
    assert msgspec.msgpack.decode(d.task(MAP, 0).params, type=KeysParams).tasks == 8
    stage = d.next(0, [mapped(10, 5, 7)])
    assert stage is not None
    assert (stage.name, stage.tasks, stage.final) == ("map", 3, False)
    given_task = d.task(StageId(1, b"lineage."), 1)
    assert [(s.blob, s.start, s.end, s.holders) for s in given_task.sources] == [(b"B" * 32, 10, 15, (OTHER,))]
    assert msgspec.msgpack.decode(given_task.params, type=MapParams).keyed
    reduce = d.next(1, [mapped(1, 1)] * 3)
    assert reduce is not None
    assert (reduce.name, reduce.tasks, reduce.final) == ("reduce", 2, True)


@pytest.mark.parametrize(
    "wrong",
    [
        Pinned(value=b"", blobs=(), holders=()),
        Pinned(value=b"x" * 40, blobs=(BlobRef(digest=Digest(b"B" * 32), size=16),), holders=()),
        Pinned(value=b"why", blobs=(), holders=(), failed=True),
    ],
)
def test_keys_that_contradict_themselves_end_the_job(wrong: Pinned) -> None:
    with pytest.raises(JobFailed, match="keys of the datasource could not be listed"):
        packed(files=(), tasks=[], keys=8).next(0, [wrong])


@pytest.mark.parametrize(
    "fields",
    [
        {"files": (), "tasks": []},
        {"files": (), "tasks": [], "keys": 1_000_000},
        {"partitions": 3, "sets": ("a", "b")},
        {"partitions": 0, "sets": ("a", "b")},
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(JobRejected, match="contradicts itself"):
        packed(**fields)


def test_a_memory_limit_makes_blocks_and_merges_smaller() -> None:
    def params(memory_bytes: int) -> MapParams:
        d = packed(tasks=[[Split(0, n, n + 1, b"1" * 32)] for n in range(100)], memory_bytes=memory_bytes)
        return msgspec.msgpack.decode(d.task(MAP, 0).params, type=MapParams)

    free, limited, least = params(0), params(100 << 20), params(1)
    assert free.runs_max == 0
    assert BLOCK_BYTES_MIN <= limited.block_bytes < free.block_bytes
    assert limited.runs_max * limited.block_bytes <= (100 << 20) // 48
    assert (least.block_bytes, least.runs_max) == (BLOCK_BYTES_MIN, RUNS_MIN)


def test_a_plan_of_the_version_before_is_read() -> None:
    old = unpack_plan(_changed(version=1))
    assert (old.finish, old.sets, old.keys) == (False, (), 0)
