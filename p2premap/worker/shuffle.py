"""The map side of the shuffle: pairs grouped in memory, combined, partitioned, sorted, written as one blob.

Memory is bounded: when the estimate of what is held nears `MEMORY_BYTES`, everything is combined; what is still large
is spilled as a sorted run to scratch disk, and runs are merged at the end (MapReduce, 4.3; Hadoop's map side does the
same).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, count, islice
from sys import getsizeof
from typing import Final

from blake3 import blake3

from p2premap.tasks import mapreduce_plan as plan
from p2premap.tasks.mapreduce_plan import MapParams, pack_segments
from p2premap.worker.blocks import Columns, encode_block
from p2premap.worker.grouping import CHUNK_PAIRS, combined, grouping_for
from p2premap.worker.jobfile import JobFile
from p2premap.worker.merge import Run, merge
from p2premap.worker.pairs import Key, Pair, Value
from p2premap.worker.runtime import Context, Result, Segment
from p2premap.worker.vocabulary import Vocabulary

MEMORY_BYTES: Final = 64 << 20
"""About how much a map attempt holds before it spills; text and blocks in work come on top."""

_FIRST_PAIRS: Final = 2_000
"""So many are taken before anything is known of their size, if they could be of 32 KiB each."""
_LARGE_BYTES: Final = 32 << 10
_PAIR_BYTES: Final = 256
"""Of a small pair with a new key."""
_LOOKS_FIRST: Final = 8
_SAMPLE: Final = 10
_SHORT_LIST: Final = 64
"""Lists of up to so many values need not be counted one by one."""
_FIRST_KEYS: Final = 50
"""Of a segment's first block: how large they are is not known yet, and each run has its first block in memory."""
_FIRST_VALUES: Final = 50
_VALUES_MAX: Final = 4_096
"""Of a block with lists."""
_PROCESS_BYTES: Final = 32 << 20
"""What a worker process takes before it has anything to do."""
_LIMIT_SHARE: Final = 2
"""What is held is estimated, and there are tables, blocks and garbage beside it."""


def budget(limit_bytes: int) -> int:
    """How much a map attempt may hold where its process may take so much; 0: no limit."""
    if not limit_bytes:
        return MEMORY_BYTES
    return min(max((limit_bytes - _PROCESS_BYTES) // _LIMIT_SHARE, 2 << 20), MEMORY_BYTES)


class MapOutput:
    """Takes a map attempt's pairs and makes its result.

    Args:
        vocabulary: shared by the attempts of a job in this process.
        memory_bytes: see `MEMORY_BYTES`; 0: as much as the job's limits allow.
    """

    def __init__(
        self,
        job: JobFile,
        params: MapParams,
        context: Context,
        vocabulary: Vocabulary,
        *,
        memory_bytes: int = 0,
    ) -> None:
        self._job = job
        self._params = params
        self._context = context
        self._vocabulary = vocabulary
        self._memory_bytes = memory_bytes or budget(params.memory_bytes)
        self._grouping = grouping_for(job.combine, yields=job.combine_yields)
        self._spills: list[tuple[str, list[plan.Segment]]] = []
        self._added, self._look_at, self._adds = 0, 1, 0
        self._chunk = max(min(_FIRST_PAIRS, CHUNK_PAIRS, self._memory_bytes // _LARGE_BYTES), 1)
        self._held_before = self._looks = 0

    @property
    def bytes_held(self) -> int:
        """About how many; see `p2premap.worker.grouping.Grouping`."""
        return self._grouping.bytes_held()

    def add(self, pairs: Iterator[Pair]) -> None:
        """Take these pairs.

        Raises:
            TypeError, ValueError: see `p2premap.worker.grouping.Grouping.add`.
        """
        rest: Iterator[Pair] | None = pairs
        while rest is not None:
            rest = self._grouping.add(rest, self._chunk)
            self._take_stock()

    def add_mapping(self, mapping: Mapping[Key, Value]) -> None:
        """Take the items of a mapping.

        Raises:
            TypeError: see `p2premap.worker.grouping.Grouping.add`.
        """
        self._grouping.add_mapping(mapping)
        self._take_stock()

    def finish(self) -> Result:
        """Write the blob; the result's value tells its segments."""
        blob = self._context.new_blob()
        writer = self._writer(blob.write)
        if self._spills:
            self._spill()
            segments = [self._merged(partition, writer) for partition in range(self._params.partitions)]
        else:
            segments = self._write_groups(writer)
        self._context.count(records_out=writer.records)
        value = pack_segments(segments)
        return Result(value=value, blobs=(blob.finish(),)) if any(s.size for s in segments) else Result(value=value)

    def _take_stock(self) -> None:
        """Look, now and then, how much is held; combine or spill what is too much.

        Looking is not free, so the next look comes when half of what is left would be used at the present rate, or at
        that since the last spill where this is higher: the add before may have been one pair, the end of a piece.
        """
        self._added += 1
        if self._added < self._look_at:
            return
        held = self.bytes_held
        self._adds += self._added
        rate = max((held - self._held_before) // self._added, held // self._adds) + 1
        full = held + rate > self._memory_bytes
        if full:
            self._grouping.shrink()
            held = self._grouping.bytes_held()
        if full and held > self._memory_bytes // 2:
            self._spill()
            held = self._adds = 0
        self._added, self._held_before = 0, held
        self._looks += 1
        left = self._memory_bytes - held
        fits = max(self._chunk * left // (2 * rate), 1)
        if self._looks <= _LOOKS_FIRST:  # the first adds tell little: one has a record, another thousands
            first = max(int(_FIRST_PAIRS * left / (2 * self._memory_bytes)), _FIRST_PAIRS // 20)
            self._chunk = min(first, fits, CHUNK_PAIRS)
            return
        # Many small chunks cost time: what is left of some pairs is taken through one more iterator each time. Of
        # large pairs few fit, and that time is nothing beside theirs.
        most = min(CHUNK_PAIRS, self._memory_bytes // _PAIR_BYTES)
        chunk = min(fits if rate > _LARGE_BYTES * self._chunk // 8 else max(fits, _FIRST_PAIRS // 20), most)
        self._look_at = max(left * self._chunk // (2 * rate * chunk), 1)
        self._chunk = chunk

    def _writer(self, write: Callable[[bytes], object]) -> RunWriter:
        return RunWriter(write, compression=self._params.compression, block_bytes=self._params.block_bytes)

    def _write_groups(self, writer: RunWriter) -> list[plan.Segment]:
        segments = []
        for held in self._vocabulary.take(self._grouping.groups, self._params.partitions, self._job):
            columns = self._grouping.columns(held.keys, held.values)
            if columns.grouped:
                writer.add_lists(columns.keys, columns.values)
            else:
                writer.add(columns)
            segments.append(writer.end_segment())
        return segments

    def _spill(self) -> None:
        path = os.path.join(self._context.scratch, f"run-{len(self._spills)}")
        with self._context.spill(path) as file:
            self._spills.append((path, self._write_groups(self._writer(file.write))))
        self._grouping = grouping_for(self._job.combine, yields=self._job.combine_yields)

    def _merged(self, partition: int, writer: RunWriter) -> plan.Segment:
        """Merge a partition's segments of all spills into one."""
        runs = []
        for path, segments in self._spills:
            start = sum(s.size for s in segments[:partition])
            end = start + segments[partition].size
            runs.append(Run(Segment(path, start, end, segments[partition].digest, True, "")))
        few = narrowed(runs, self._params.runs_max, self._context, self._params.block_bytes)
        for keys, groups in merge(few):
            values = [groups[key] for key in keys]
            if self._job.combine_yields:
                assert self._job.combine is not None
                made = combined(self._job.combine, keys, values, yields=True)
                writer.add_lists(list(compress(keys, made)), list(filter(None, made)))
            elif self._job.combine is not None:
                writer.add(Columns(keys, combined(self._job.combine, keys, values), False))
            else:
                writer.add_lists(keys, values)
        return writer.end_segment()


class RunWriter:
    """Writes sorted columns as blocks, and says where each segment ends.

    Args:
        write: takes the bytes.
        compression: see `p2premap.worker.blocks`.
        block_bytes: about the size of a block before compression.
    """

    def __init__(self, write: Callable[[bytes], object], *, compression: str, block_bytes: int) -> None:
        self._write = write
        self._compression = compression
        self._block_bytes = block_bytes
        self._keys_a_block = _FIRST_KEYS
        self._values_a_block = _FIRST_VALUES
        self._hasher = blake3()
        self._size = 0
        self.records = 0

    def add(self, columns: Columns) -> None:
        """Write these keys and values, in as many blocks as they need."""
        keys, values, grouped = columns
        start = 0
        while start < len(keys):
            if start == 0:
                self._keys_a_block = min(self._keys_a_block, max(self._block_bytes // _size(columns), 1))
            end = start + self._keys_a_block
            self._block(Columns(keys[start:end], values[start:end], grouped))
            start = end

    def add_lists(self, keys: Sequence[Key], lists: Sequence[Iterable[Value]]) -> None:
        """Write these keys with the values of each; long lists are cut, so that blocks stay small."""
        sizes = {len(values) if isinstance(values, list) else _SHORT_LIST + 1 for values in lists}
        if sizes == {1}:
            self.add(Columns(keys, list(chain.from_iterable(lists)), False))
        elif sizes and max(sizes) <= _SHORT_LIST:
            self.add(Columns(keys, lists, True))
        else:
            self._add_long(keys, lists)

    def _add_long(self, keys: Sequence[Key], lists: Sequence[Iterable[Value]]) -> None:
        """As `add_lists`, counting values."""
        held_keys: list[Key] = []
        held_lists: list[list[Value]] = []
        room = self._values_a_block
        for key, values in zip(keys, lists, strict=True):
            rest = iter(values)
            while some := list(islice(rest, room)):
                held_keys.append(key)
                held_lists.append(some)
                room -= len(some)
                if not room:
                    self._block(Columns(held_keys, held_lists, True))
                    held_keys, held_lists, room = [], [], self._values_a_block
        if held_keys:
            self._block(Columns(held_keys, held_lists, True))

    def end_segment(self) -> plan.Segment:
        """What was written since the last segment ended."""
        segment = plan.Segment(self._size, self._hasher.digest())
        self._hasher, self._size = blake3(), 0
        return segment

    def _block(self, columns: Columns) -> None:
        records = sum(map(len, columns.values)) if columns.grouped else len(columns.keys)
        self.records += records
        data, size = encode_block(columns, self._compression)
        self._write(data)
        self._hasher.update(data)
        self._size += len(data)
        # Aim at the size that was asked for; by and by, since neighbours differ.
        fitting = len(columns.keys) * self._block_bytes // max(size, 1)
        self._keys_a_block = min(max(fitting, 1), 4 * self._keys_a_block)
        self._values_a_block = min(
            max(records * self._block_bytes // max(size, 1), 1), 4 * self._values_a_block, _VALUES_MAX
        )


def _size(columns: Columns) -> int:
    """About how many bytes one of the first entries takes."""
    some = columns.values[:_SAMPLE]
    values = chain.from_iterable(some) if columns.grouped else some
    return (sum(map(getsizeof, values)) + sum(map(getsizeof, columns.keys[:_SAMPLE]))) // len(some)


def narrowed(runs: Sequence[Run], most: int, context: Context, block_bytes: int) -> Sequence[Run]:
    """No more than so many runs: where there are more, neighbours are merged on scratch disk first.

    Args:
        most: 0: any number.
        context: of the attempt.
        block_bytes: of the blocks that are written.

    Raises:
        InputLost, JobCodeError: see `merge`.
    """
    old: list[str] = []
    for level in count():
        if not most or len(runs) <= most:
            break
        paths = [os.path.join(context.scratch, f"merged-{level}-{start}") for start in range(0, len(runs), most)]
        merged = [
            _merged_run(path, runs[start : start + most], context, block_bytes)
            for path, start in zip(paths, range(0, len(runs), most), strict=True)
        ]
        for path in old:
            os.unlink(path)
        runs, old = merged, paths
    return runs


def _merged_run(path: str, runs: Sequence[Run], context: Context, block_bytes: int) -> Run:
    with context.spill(path) as file:
        writer = RunWriter(file.write, compression="none", block_bytes=block_bytes)
        for keys, groups in merge(runs):
            writer.add_lists(keys, [groups[key] for key in keys])
    return Run(Segment(path, 0, os.path.getsize(path), b"", True, ""))
