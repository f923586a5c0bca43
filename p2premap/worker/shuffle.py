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
from itertools import chain, compress, islice
from operator import length_hint
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

VOCABULARY_MAX: Final = 100_000
"""Keys that a worker remembers from one attempt of a job to the next."""

_CHUNK_PAIRS: Final = 250_000
_KEY_BYTES: Final = 200
"""A dict entry and a list, beside key and values."""
_SAMPLE: Final = 50
_LIST_VALUES_MAX: Final = 4_096
"""Longer lists are cut, so that a block stays small."""
_FIRST_KEYS: Final = 500

_END: Final = object()


class Vocabulary:
    """The keys that earlier attempts of the same job met in this process, partitioned and sorted.

    The map tasks of a job tend to meet the same keys again and again. An attempt's dict starts out with them, in
    order, each with an empty list: hashing them to partitions and sorting them, which is half of what an attempt costs
    after its last record, then need not be done anew. Strings only: of other keys two may be equal and yet differ
    (1 and 1.0), and an attempt's result must not depend on what ran before it.

    Args:
        buckets: for each partition its keys, in order.
    """

    def __init__(self) -> None:
        self.buckets: list[list[Key]] = []

    def seed(self) -> defaultdict[Key, list[Any]]:
        """An attempt's empty groups."""
        groups: defaultdict[Key, list[Any]] = defaultdict(list)
        for key in chain.from_iterable(self.buckets):
            groups[key] = []
        return groups

    def place(self, groups: Mapping[Key, object], partitions: int, job: JobFile) -> list[list[Key]]:
        """All keys of groups that began with `seed`, partitioned and sorted.

        Raises:
            TypeError: they do not compare with each other.
            JobCodeError: see `partitions_of`.
        """
        known = self.buckets or [[] for _ in range(partitions)]
        new = list(islice(groups, sum(map(len, known)), None))
        buckets = [list(bucket) for bucket in known]
        for key, partition in zip(new, partitions_of(new, partitions, job.partition), strict=True):
            buckets[partition].append(key)
        for bucket in buckets:
            bucket.sort()
        if len(groups) > VOCABULARY_MAX or not all(type(key) is str for key in new):
            self.buckets = []
        else:
            self.buckets = buckets
        return buckets


class MapOutput:
    """Takes a map attempt's pairs and makes its result.

    Args:
        vocabulary: shared by the attempts of a job in this process.
        memory_bytes: see `MEMORY_BYTES`.
    """

    def __init__(
        self,
        job: JobFile,
        params: MapParams,
        context: Context,
        vocabulary: Vocabulary,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._job = job
        self._params = params
        self._context = context
        self._vocabulary = vocabulary
        self._memory_bytes = memory_bytes
        self._groups = vocabulary.seed()
        self._spills: list[tuple[Path, list[plan.Segment]]] = []
        self._chunks, self._check_at = 0, 1
        self._used_before = 0

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
            self._chunks += 1
            if self._chunks >= self._check_at:
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
        """Estimate what is held; combine or spill what is too much; say when to look again.

        Looking costs as much as mapping a quarter of a chunk, so the next look comes when half of what is left would
        be used at the present rate.
        """
        pairs, used = self._estimate()
        rate = max(used - self._used_before, 1) // self._chunks + 1
        full = used + rate > self._memory_bytes
        if full and self._job.combine is not None and pairs > 2 * len(self._groups):
            self._combine_groups()
            used = self._estimate()[1]
        if full and used > self._memory_bytes // 2:
            self._spill()
            used = 0
        self._chunks, self._used_before = 0, used
        self._check_at = max((self._memory_bytes - used) // (2 * rate), 1)

    def _estimate(self) -> tuple[int, int]:
        """How many pairs, and about how many bytes."""
        groups = self._groups
        pairs = sum(map(len, groups.values()))
        keys = list(islice(groups, _SAMPLE))
        values = [value for key in keys for value in groups[key][-1:]]
        if not values:
            return pairs, pairs * 8 + len(groups) * _KEY_BYTES
        distinct = {id(value): value for value in values}  # small integers and constants are shared
        key_bytes = _KEY_BYTES + sum(map(sys.getsizeof, keys)) // len(keys)
        value_bytes = 8 + (sum(map(sys.getsizeof, distinct.values())) if len(distinct) > 1 else 0) // len(values)
        return pairs, pairs * value_bytes + len(groups) * key_bytes

    def _combine_groups(self) -> None:
        groups = self._groups
        keys = [key for key, values in groups.items() if values]
        combined = self._combined(keys, list(map(groups.__getitem__, keys)))
        for key, value in zip(keys, combined, strict=True):
            groups[key] = [value]

    def _combined(self, keys: Sequence[Key], lists: Iterable[Iterable[Any]]) -> list[Any]:
        """One value a key."""
        combine = self._job.combine
        assert combine is not None
        names = iter(keys)
        try:
            return [
                values[0] if type(values) is list and len(values) == 1 else combine(key, iter(values))
                for key, values in zip(names, lists, strict=True)
            ]
        except Exception as error:
            error.add_note(f"combine was given the key {shorten(keys[len(keys) - length_hint(names) - 1])}.")
            raise

    def _write_groups(self, writer: RunWriter) -> list[plan.Segment]:
        groups = self._groups
        try:
            buckets = self._vocabulary.place(groups, self._params.partitions, self._job)
        except TypeError:
            raise incomparable(groups) from None
        segments = []
        for bucket in buckets:
            lists = list(map(groups.__getitem__, bucket))
            keys: Sequence[Key] = list(compress(bucket, lists))
            lists = list(filter(None, lists))
            if self._job.combine is not None:
                writer.add(Columns(keys, self._combined(keys, lists), False))
            else:
                writer.add_lists(keys, lists)
            segments.append(writer.end_segment())
        return segments

    def _spill(self) -> None:
        path = Path(self._context.scratch) / f"run-{len(self._spills)}"
        with path.open("wb") as file:
            self._spills.append((path, self._write_groups(RunWriter(file.write, self._params))))
        self._groups = self._vocabulary.seed()

    def _merged(self, partition: int, writer: RunWriter) -> plan.Segment:
        """Merge a partition's segments of all spills into one."""
        runs = []
        for path, segments in self._spills:
            start = sum(s.size for s in segments[:partition])
            end = start + segments[partition].size
            runs.append(Run(Segment(str(path), start, end, segments[partition].digest, True, "")))
        for keys, groups in merge(runs):
            values = [groups[key] for key in keys]
            if self._job.combine is not None:
                writer.add(Columns(keys, self._combined(keys, values), False))
            else:
                writer.add_lists(keys, values)
        return writer.end_segment()


class RunWriter:
    """Writes sorted columns as blocks, and says where each segment ends.

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

    def add(self, columns: Columns) -> None:
        """Write these keys and values, in as many blocks as they need."""
        keys, values, grouped = columns
        start = 0
        while start < len(keys):
            end = start + self._keys_a_block
            self._block(Columns(keys[start:end], values[start:end], grouped))
            start = end

    def add_lists(self, keys: Sequence[Key], lists: Sequence[Iterable[Any]]) -> None:
        """Write these keys with the values of each; no block gets more than some thousand values of one key."""
        sizes = {len(values) if isinstance(values, list) else _LIST_VALUES_MAX + 1 for values in lists}
        if sizes == {1}:
            self.add(Columns(keys, list(chain.from_iterable(lists)), False))
        elif sizes and max(sizes) <= _LIST_VALUES_MAX:
            self.add(Columns(keys, lists, True))
        else:
            for key, values in zip(keys, lists, strict=True):
                rest = iter(values)
                while some := list(islice(rest, _LIST_VALUES_MAX)):
                    self._block(Columns((key,), [some], True))

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
