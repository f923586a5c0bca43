"""The director of map/reduce jobs: which tasks there are, what each reads, and which results are output parts.

::

    first "keys"       one task, of a job with `datasource`; writes one blob: map task 0's keys | map task 1's | ...
                       (none where nobody can count the map tasks: `p2premap.tasks.mapreduce_open`)
    stage 0 "map"      one task a group of splits; writes one blob: partition 0's segment | partition 1's | ...
    stage 1 "reduce"   one task a partition; reads that partition's segment of every map task's blob
    then "finish"      one task, of a job with `finish`; reads the blobs of all tasks of the stage before
    parts              the last stage's blobs; a job that brings nothing together by key has no reduce stage

Source: Dean and Ghemawat, MapReduce (OSDI 2004), 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from p2premap.errors import JobError, JobFailed
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.job import BlobRef, Part, Source, StageId
from p2premap.tasks.mapreduce_open import OpenMap
from p2premap.tasks.mapreduce_plan import (
    BLOCK_BYTES_MAX,
    FINISH,
    KEYS,
    MAP,
    REDUCE,
    AtUrl,
    KeysParams,
    MapParams,
    ReduceParams,
    Split,
    is_sound,
    segment_range,
    segments_in,
    unpack_plan,
)

KIND: Final = "mapreduce"

BLOCK_BYTES_MIN: Final = 4 << 10
MERGE_BYTES: Final = 32 << 20
"""A reducer holds about one block a map task: more map tasks make smaller blocks."""
_PROCESS_BYTES: Final = 32 << 20
_BLOCK_OBJECTS: Final = 48
"""A block of small pairs takes so many times its bytes as Python objects, two blocks a run and the groups included."""
RUNS_MIN: Final = 8


class MapReduce:
    """Directs one map/reduce job; see `p2premap.tasks.director.Director`."""

    runtime = "p2premap.worker.mapreduce:MapReduceRuntime"
    planner = "p2premap.client.plan:plan"
    streams = False

    def __init__(self, *, job: JobId, home: NodeId, plan: bytes) -> None:
        self.home = home
        self._holders: tuple[NodeId, ...] = (home,)
        self._plan = unpack_plan(plan)
        self.input_bytes = self._plan.local_bytes
        limit = self._plan.memory_bytes
        merge_bytes = min(max(limit - _PROCESS_BYTES, 0) // _BLOCK_OBJECTS, MERGE_BYTES) if limit else MERGE_BYTES
        tasks = self._plan.tasks or self._plan.keys
        self._block_bytes = min(max(merge_bytes // tasks, BLOCK_BYTES_MIN), BLOCK_BYTES_MAX)
        self._runs_max = max(merge_bytes // self._block_bytes, RUNS_MIN) if limit else 0
        self._open = OpenMap(self._plan) if self._plan.open else None
        start = (KEYS, MAP) if self._plan.keys and self._open is None else (MAP,)
        self._stages = (
            *start,
            *((REDUCE,) if self._plan.partitions else ()),
            *((FINISH,) if self._plan.finish else ()),
        )
        self._map_params = MapParams(
            names=(),
            partitions=self._plan.partitions,
            compression=self._plan.compression,
            block_bytes=self._block_bytes,
            memory_bytes=limit,
            onward=self._plan.finish,
            runs_max=self._runs_max,
        )
        self._heads = any(file.head for file in self._plan.files)
        self._keys: Pinned | None = None
        self._maps: Sequence[Pinned] = ()
        self._ends: Sequence[Pinned] = ()

    def first(self) -> StagePlan:
        """The map stage, or the one that lists keys."""
        if (maps := self._open) is not None:
            return replace(
                self._map_stage(maps.tasks),
                open=True,
                grows=not maps.each_node,
                each_node=maps.each_node,
                lasts_s=maps.lasts_s,
            )
        if self._plan.keys:
            return StagePlan(name=KEYS, function=KEYS, tasks=1)
        return self._map_stage(self._plan.tasks)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """The map stage, once the keys are listed; the reduce stage of a job that has one; the one that finishes.

        Raises:
            JobFailed: a task told nonsense of its blob, or there are no keys.
        """
        if number + 1 == len(self._stages):
            return None
        if self._stages[number + 1] == MAP:
            self._keys = results[0]
            tasks = segments_in(results[0].value)
            if results[0].failed or not tasks or not is_sound(results[0], tasks):
                raise JobFailed("The keys of the datasource could not be listed.")
            return self._map_stage(tasks)
        if self._stages[number + 1] == FINISH:
            self._ends = results
            size = sum(blob.size for result in results for blob in result.blobs)
            return StagePlan(name=FINISH, function=FINISH, tasks=1, bytes_in=size, final=True)
        partitions, size = self._plan.partitions, 0
        for task, result in enumerate(results):
            if result.failed:
                continue
            if not is_sound(result, partitions):
                raise JobFailed(f"Map task {task} told nonsense about its output: {len(result.value)} bytes of value.")
            size += sum(b.size for b in result.blobs)
        self._maps = results
        final = self._stages[-1] == REDUCE
        return StagePlan(name=REDUCE, function=REDUCE, tasks=partitions, bytes_in=size, final=final)

    def extend(self, payload: bytes) -> Extension:
        """Take what `meet`, `close` and `unfold` gave.

        Raises:
            JobError: it is something else, or no stage is open.
        """
        if self._open is None:
            raise JobError("This map/reduce job takes no more tasks once it runs.")
        return self._open.extend(payload)

    def meet(self, node: NodeId, name: str) -> bytes | None:
        """See `p2premap.tasks.director.Lasting`."""
        return None if self._open is None else self._open.meet(node, name)

    def close(self, without: tuple[int, ...]) -> bytes:
        """See `p2premap.tasks.director.Lasting`."""
        assert self._open is not None, "only an open stage is closed"
        return self._open.close(without)

    def unfold(self, task: int, result: Pinned) -> bytes | None:
        """See `p2premap.tasks.director.Unfolds`."""
        return None if self._open is None else self._open.unfold(task, result)

    def task(self, stage: StageId, task: int) -> TaskInput:
        """The splits of a map task, a partition's segments of all map tasks' blobs, or all blobs."""
        match self._stages[stage.number]:
            case "keys":
                return TaskInput(params=msgspec.msgpack.encode(KeysParams(tasks=self._plan.keys)))
            case "map":
                if self._open is not None:
                    return self._open_input(self._open, task)
                return self._map_input(task) if self._keys is None else self._keyed_input(self._keys, task)
            case "reduce":
                return self._reduce_input(task)
            case _:
                return self._finish_input()

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        """The one blob of a final task's result."""
        if len(result.blobs) != 1:
            return ()
        blob = result.blobs[0]
        source = Source(digest=blob.digest, start=0, end=blob.size, holders=result.holders, blob=blob.digest)
        return (Part(number=task, source=source, records=result.records_out, name=self._name(task)),)

    def _name(self, task: int) -> str:
        plan = self._plan
        if not plan.sets:
            return f"part-{task:05d}{plan.suffix}" if plan.suffix else ""
        number, partition = divmod(task, plan.partitions // len(plan.sets))
        return f"{plan.sets[number]}/part-{partition:05d}{plan.suffix}"

    def input_files(self) -> Iterable[str]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        return dict.fromkeys(file.path for file in self._plan.files if file.path)

    def inputs(self) -> Iterator[Source]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        plan = self._plan
        splits = (split for task in range(plan.tasks) for split in plan.splits_of(task))
        return (self._source(split) for split in splits if plan.files[split.file].path)

    def spread(self, holders: Sequence[NodeId]) -> None:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        self._holders = (self.home, *(node for node in holders if node != self.home))

    def _map_input(self, task: int) -> TaskInput:
        plan = self._plan
        splits = plan.splits_of(task)
        params = replace(
            self._map_params,
            names=tuple(plan.files[s.file].name for s in splits),
            heads=tuple(plan.files[s.file].head for s in splits) if self._heads else (),
            urls=tuple(map(self._at_url, splits)) if any(not plan.files[s.file].path for s in splits) else (),
        )
        sources = tuple(self._source(s) for s in splits if plan.files[s.file].path)
        return TaskInput(params=msgspec.msgpack.encode(params), sources=sources)

    def _map_stage(self, tasks: int) -> StagePlan:
        final = self._stages[-1] == MAP
        return StagePlan(name=MAP, function=MAP, tasks=tasks, bytes_in=self._plan.input_bytes, final=final)

    def _open_input(self, maps: OpenMap, task: int) -> TaskInput:
        node, first, count = maps.keys(task)
        params = replace(self._map_params, names=(node,), first=first, count=count, keyed=maps.keyed)
        return TaskInput(params=msgspec.msgpack.encode(params))

    def _keyed_input(self, keys: Pinned, task: int) -> TaskInput:
        params = replace(self._map_params, keyed=True)
        start, end, digest = segment_range(keys.value, task)
        blob = keys.blobs[0].digest
        source = Source(digest=digest, start=start, end=end, holders=keys.holders, blob=blob)
        return TaskInput(params=msgspec.msgpack.encode(params), sources=(source,))

    def _at_url(self, split: Split) -> AtUrl | None:
        file = self._plan.files[split.file]
        if file.path:
            return None
        end = None if file.size is None else split.end
        return AtUrl(start=split.start, end=end, size=file.size, identity=file.identity, ranges=file.ranges)

    def _source(self, split: Split) -> Source:
        file = self._plan.files[split.file]
        return Source(
            digest=Digest(split.digest),
            start=split.start,
            end=split.end,
            holders=self._holders,
            path=file.path,
            mtime_ns=file.mtime_ns,
        )

    def _reduce_input(self, partition: int) -> TaskInput:
        sources: list[Source] = []
        for result in self._maps:
            if result.failed:
                continue
            start, end, digest = segment_range(result.value, partition)
            if start == end:
                continue
            blob: BlobRef = result.blobs[0]
            sources.append(Source(digest=digest, start=start, end=end, holders=result.holders, blob=blob.digest))
        params = ReduceParams(
            partition=partition, onward=self._plan.finish, block_bytes=self._block_bytes, runs_max=self._runs_max
        )
        return TaskInput(params=msgspec.msgpack.encode(params), sources=tuple(sources))

    def _finish_input(self) -> TaskInput:
        sources = (
            Source(digest=blob.digest, start=0, end=blob.size, holders=result.holders, blob=blob.digest)
            for result in self._ends
            for blob in result.blobs
            if blob.size
        )
        return TaskInput(params=b"", sources=tuple(sources))
