"""The map side of the shuffle: pairs grouped in memory, combined, partitioned, sorted, written as one blob.

Pairs are poured into a dict of lists, the cheapest thing that Python offers for it, and `combine` is called for whole
lists, not pair by pair. Memory is bounded: when the estimate of what is held passes `MEMORY_BYTES`, everything is
combined; what is still large is spilled as a sorted run to scratch disk, and runs are merged at the end (MapReduce,
4.3; Hadoop's map side does the same).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from p2premap.tasks import mapreduce as plan
from p2premap.tasks.mapreduce import MapParams, pack_segments
from p2premap.worker.blocks import Columns, encode_block, shorten
from p2premap.worker.jobfile import JobFile, Key, Pair
from p2premap.worker.merge import Run, incomparable, merge
from p2premap.worker.partition import partitions_of
from p2premap.worker.runtime import Context, Result, Segment

MEMORY_BYTES: Final = 64 << 20
"""About how much a map attempt holds before it spills; text and blocks in work come on top."""

_CHUNK_PAIRS: Final = 250_000
_KEY_BYTES: Final = 200
"""A dict entry and a list, beside key and values."""
_SAMPLE: Final = 50
_LIST_VALUES_MAX: Final = 4_096
"""Longer lists are cut, so that a block stays small."""
_FIRST_KEYS: Final = 500

_END: Final = object()


class MapOutput:
    """Takes a map attempt's pairs and makes its result.

    Args:
        memory_bytes: see `MEMORY_BYTES`.
    """

    def __init__(self, job: JobFile, params: MapParams, context: Context, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._job = job
        self._params = params
        self._context = context
        self._memory_bytes = memory_bytes
        self._groups: defaultdict[Key, list[Any]] = defaultdict(list)
        self._spills: list[tuple[Path, list[plan.Segment]]] = []
        self._unchecked = 0
        self._check_after = 0

    def add(self, pairs: Iterator[Pair]) -> None:
        """Take these pairs.

        Raises:
            TypeError, ValueError: something that is not a pair, or a key that is not hashable (raised here, in this
                frame; what the iterator raises comes from deeper).
        """
        groups = self._groups
        while True:
            for key, value in islice(pairs, _CHUNK_PAIRS):
                groups[key].append(value)
            self._unchecked += _CHUNK_PAIRS
            if self._unchecked >= self._check_after:
                self._check()
                groups = self._groups
            following = next(pairs, _END)
            if following is _END:
                return
            pairs = chain((following,), pairs)  # type: ignore[arg-type]

    def finish(self) -> Result:
        """Write the blob; the result's value tells its segments."""
        blob = self._context.new_blob()
        writer = RunWriter(blob.write, self._params)
        if self._spills:
            self._spill()
            segments = [self._merged(partition, writer) for partition in range(self._params.partitions)]
        else:
            segments = self._write_groups(writer)
        self._context.count(records_out=writer.records)
        value = pack_segments(segments)
        return Result(value=value, blobs=(blob.finish(),)) if any(s.size for s in segments) else Result(value=value)

    def _check(self) -> None:
        """Estimate what is held; combine or spill what is too much; say when to look again."""
        pairs, used = self._estimate()
        if used > self._memory_bytes:
            if self._job.combine is not None and pairs > 2 * len(self._groups):
                self._combine(self._groups)
                pairs, used = self._estimate()
            if used > self._memory_bytes // 2:
                self._spill()
                pairs, used = 0, 0
        a_pair = used // pairs + 1 if pairs else _KEY_BYTES
        self._check_after = (self._memory_bytes - used) // (2 * a_pair)
        self._unchecked = 0

    def _estimate(self) -> tuple[int, int]:
        """How many pairs, and about how many bytes."""
        groups = self._groups
        if not groups:
            return 0, 0
        pairs = sum(map(len, groups.values()))
        keys = list(islice(groups, _SAMPLE))
        values = [value for key in keys for value in groups[key][-1:]]
        distinct = {id(value): value for value in values}  # small integers and constants are shared
        key_bytes = _KEY_BYTES + sum(map(sys.getsizeof, keys)) // len(keys)
        value_bytes = 8 + (sum(map(sys.getsizeof, distinct.values())) if len(distinct) > 1 else 0) // len(values)
        return pairs, pairs * value_bytes + len(groups) * key_bytes

    def _combine(self, groups: defaultdict[Key, list[Any]] | dict[Key, list[Any]]) -> None:
        combine = self._job.combine
        assert combine is not None
        key: Key = None
        try:
            for key, values in groups.items():
                if len(values) > 1:
                    groups[key] = [combine(key, iter(values))]
        except Exception as error:
            error.add_note(f"combine was given the key {shorten(key)}.")
            raise

    def _write_groups(self, writer: RunWriter) -> list[plan.Segment]:
        groups = self._groups
        if self._job.combine is not None:
            self._combine(groups)
        try:
            keys = sorted(groups)
        except TypeError:
            raise incomparable(groups) from None
        buckets: list[list[Key]] = [[] for _ in range(self._params.partitions)]
        for key, partition in zip(keys, self._partitions_of(keys), strict=True):
            buckets[partition].append(key)
        segments = []
        for bucket in buckets:
            writer.add(bucket, groups)
            segments.append(writer.end_segment())
        self._groups = defaultdict(list)
        return segments

    def _partitions_of(self, keys: Sequence[Key]) -> list[int]:
        return partitions_of(keys, self._params.partitions, self._job.partition)

    def _spill(self) -> None:
        path = Path(self._context.scratch) / f"run-{len(self._spills)}"
        with path.open("wb") as file:
            self._spills.append((path, self._write_groups(RunWriter(file.write, self._params))))

    def _merged(self, partition: int, writer: RunWriter) -> plan.Segment:
        runs = []
        for path, segments in self._spills:
            start = sum(s.size for s in segments[:partition])
            end = start + segments[partition].size
            runs.append(Run(Segment(str(path), start, end, segments[partition].digest, True, "")))
        for window in merge(runs):
            groups: Mapping[Key, Iterable[Any]] = window.groups
            if self._job.combine is not None:
                combined = {key: list(values) for key, values in groups.items()}
                self._combine(combined)
                groups = combined
            writer.add(window.keys, groups)
        return writer.end_segment()


class RunWriter:
    """Writes sorted groups as blocks, and says where each segment ends.

    Args:
        write: takes the bytes.
    """

    def __init__(self, write: Callable[[bytes], object], params: MapParams) -> None:
        self._write = write
        self._compression = params.compression
        self._block_bytes = params.block_bytes
        self._keys_a_block = _FIRST_KEYS
        self._hasher = blake3()
        self._size = 0
        self.records = 0

    def add(self, keys: Sequence[Key], groups: Mapping[Key, Iterable[Any]]) -> None:
        """Write these keys, in this order, with their values."""
        start = 0
        while start < len(keys):
            some = keys[start : start + self._keys_a_block]
            start += len(some)
            values = [groups[key] for key in some]
            for columns in _columns(some, values):
                self._block(columns)

    def end_segment(self) -> plan.Segment:
        """What was written since the last segment ended."""
        segment = plan.Segment(self._size, self._hasher.digest())
        self._hasher, self._size = blake3(), 0
        return segment

    def _block(self, columns: Columns) -> None:
        self.records += sum(map(len, columns.values)) if columns.grouped else len(columns.keys)
        data, size = encode_block(columns, self._compression)
        self._write(data)
        self._hasher.update(data)
        self._size += len(data)
        # Aim at the size that was asked for; by and by, since neighbours differ.
        fitting = len(columns.keys) * self._block_bytes // max(size, 1)
        self._keys_a_block = min(max(fitting, 1), 4 * self._keys_a_block)


def _columns(keys: Sequence[Key], values: list[Iterable[Any]]) -> Iterator[Columns]:
    """Blocks of these keys: one value each, or lists of bounded length."""
    if all(isinstance(v, list) and len(v) == 1 for v in values):
        yield Columns(keys, list(chain.from_iterable(values)), False)
    elif all(isinstance(v, list) and len(v) <= _LIST_VALUES_MAX for v in values):
        yield Columns(keys, values, True)
    else:
        for key, several in zip(keys, values, strict=True):
            rest = iter(several)
            while some := list(islice(rest, _LIST_VALUES_MAX)):
                yield Columns((key,), [some], True)
