"""The plan of a map/reduce job, what its tasks are told, and what a map task tells of its blob: all of it packed.

The plan is made once by the client (`p2premap.client.plan`) and read by every leader. A split is a byte range of a
file, cut at line ends, with the BLAKE3 digest of its bytes; splits live in packed arrays, so that a million of them
are four byte strings and not a million objects. What a map task tells of its blob is packed too: see `Segment`.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from p2premap.errors import JobRejected
from p2premap.ids import DIGEST_BYTES, Digest
from p2premap.tasks.director import Pinned
from p2premap.wire import COUNT_MAX, Count, FilePath, Record, Short

PLAN_VERSION: Final = 3
"""Version 1 knew one output and no `finish`, version 2 no URLs and no open map stage."""

PARTITIONS_MAX: Final = 1_024
"""A map task tells 40 bytes a partition in its inline value, which is at most 64 KiB."""

BLOCK_BYTES_MAX: Final = 256 << 10
KEYS: Final = "keys"
MAP: Final = "map"
REDUCE: Final = "reduce"
FINISH: Final = "finish"

EACH_NODE: Final = "node"
EACH_KEY: Final = "key"
ENDLESS: Final = "endless"
OPEN: Final = ("", EACH_NODE, EACH_KEY, ENDLESS)
"""What map tasks may be that nobody has counted beforehand (`p2premap.tasks.mapreduce_open`); "": they are counted."""
ENDED: Final = b"ended"
"""The value of a map task's result that found the datasource at its end."""

READERS: Final = ("lines", "blocks", "task", "file", "csv", "jsonl", "xml", "html", "parts", "parquet", "arrow")
"""What a job file's `reader` may be, if it is no function."""
WRITERS: Final = ("text", "jsonl", "pairs", "parquet")
"""What a job file's `writer` may be, if it is no function."""
PAIRS_SUFFIX: Final = ".pairs"
SUFFIXES: Final = {"text": "", "jsonl": ".jsonl", "pairs": PAIRS_SUFFIX, "parquet": ".parquet"}
"""What the names of output parts end in, by writer."""
_PACKINGS: Final = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}

_SPLIT: Final = struct.Struct("<IQQ")
_FIRST: Final = struct.Struct("<I")
_SEGMENT: Final = struct.Struct(f"<Q{DIGEST_BYTES}s")


def packing_of(name: str) -> str:
    """How the file of this name is packed: "gzip", "bzip2", "xz", "zstd"; "": not at all."""
    plain = _plain(name).lower()
    return next((packing for suffix, packing in _PACKINGS.items() if plain.endswith(suffix)), "")


def unpacked_name(name: str) -> str:
    """The name without what tells how the file is packed."""
    plain = _plain(name)
    return plain.rpartition(".")[0] if packing_of(name) else plain


def _plain(name: str) -> str:
    """Without what a URL asks of its server."""
    return name.partition("?")[0] if "://" in name else name


class Split(NamedTuple):
    """A range of a file that one map task reads, cut at line ends.

    Args:
        file: index into the plan's files.
        start, end: in bytes.
        digest: BLAKE3 of these bytes.
    """

    file: int
    start: int
    end: int
    digest: bytes


class InputFile(Record, frozen=True, kw_only=True):
    """A file of the submitting machine, or one at a URL, which whoever reads it fetches.

    Args:
        path: absolute; "" at a URL.
        name: as the user gave it, or the URL; map functions see this one.
        mtime_ns: when the job was submitted; 0 at a URL.
        head: its first row, where that names the fields of all others and the file is cut.
        size, identity, ranges: at a URL, see `p2premap.worker.places.Found`.
    """

    path: FilePath
    name: str
    mtime_ns: int
    head: bytes = b""
    size: Count | None = None
    identity: str = ""
    ranges: bool = False


class AtUrl(Record, frozen=True, kw_only=True):
    """What a map attempt fetches: a range of a file at a URL.

    Args:
        end: None: all from `start` on, however much.
        size, identity, ranges: see `InputFile`.
    """

    start: Count
    end: Count | None
    size: Count | None
    identity: str
    ranges: bool


class MapReducePlan(Record, frozen=True, kw_only=True):
    """The plan blob of a map/reduce job; made by `pack_plan`.

    Args:
        files: the inputs, in order.
        splits: packed (file, start, end), in order.
        digests: of the splits, 32 bytes each.
        firsts: packed index of the first split of each map task, and the number of splits at the end.
        partitions: how many reduce tasks, of all sets together; 0: there is no reduce stage.
        compression: of map output: "none", "zlib", or "zstd" where every worker has it.
        finish: there is a last stage that reads everything.
        sets: names of the outputs, each with as many partitions; empty: there is one output, without a name.
        suffix: of the names of output parts.
        memory_bytes: of an attempt, at most; 0: no limit.
        keys: there are no files but a datasource, whose keys are shared out to so many map tasks at most; else 0. Where
            `open` is "endless", so many tasks wait or run at a time.
        open: one of `OPEN`.
        lasts_s: of an open map stage: it ends then, or before.
    """

    version: int
    files: tuple[InputFile, ...]
    splits: bytes
    digests: bytes
    firsts: bytes
    partitions: Count
    compression: Short
    finish: bool = False
    sets: tuple[Short, ...] = ()
    suffix: Short = ""
    memory_bytes: Count = 0
    keys: Count = 0
    open: Short = ""
    lasts_s: float = math.inf

    @property
    def input_bytes(self) -> int:
        """Of all splits."""
        return sum(end - start for _, start, end in _SPLIT.iter_unpack(self.splits))

    @property
    def local_bytes(self) -> int:
        """Of the splits of files of the submitting machine."""
        return sum(end - start for file, start, end in _SPLIT.iter_unpack(self.splits) if self.files[file].path)

    @property
    def tasks(self) -> int:
        """How many map tasks."""
        return len(self.firsts) // _FIRST.size - 1

    def bounds_of(self, task: int) -> tuple[int, int]:
        """The numbers of the first split that one map task reads, and of the first that it does not."""
        first, end = (_FIRST.unpack_from(self.firsts, (task + i) * _FIRST.size)[0] for i in (0, 1))
        return first, end

    def splits_of(self, task: int) -> list[Split]:
        """What one map task reads, in order."""
        first, end = self.bounds_of(task)
        ranges = _SPLIT.iter_unpack(memoryview(self.splits)[first * _SPLIT.size : end * _SPLIT.size])
        at = DIGEST_BYTES
        return [
            Split(file, start, end, self.digests[i * at : (i + 1) * at])
            for i, (file, start, end) in enumerate(ranges, first)
        ]


class MapParams(Record, frozen=True, kw_only=True):
    """Told to a map attempt beside its sources.

    Args:
        names: of its sources' files, in order of source, and of what it fetches, in order of input.
        partitions: 0: there is no reduce stage.
        block_bytes: about the size of one block of map output before compression.
        heads: `InputFile.head` of each, or nothing.
        memory_bytes: see `MapReducePlan`.
        onward: without a reduce stage: what is written goes on to `finish`.
        runs_max: sorted runs that are merged at a time; 0: any number.
        keyed: the source holds keys of the datasource.
        urls: of each name, where that is a URL; empty: none is.
        first, count: where there are no sources: keys of the datasource by number; or, if not `keyed`, the one record
            is the name.
    """

    names: tuple[str, ...]
    partitions: Count
    compression: Short
    block_bytes: Count
    heads: tuple[bytes, ...] = ()
    memory_bytes: Count = 0
    onward: bool = False
    runs_max: Count = 0
    keyed: bool = False
    urls: tuple[AtUrl | None, ...] = ()
    first: Count = 0
    count: Count = 0


class KeysParams(Record, frozen=True, kw_only=True):
    """Told to the task that lists the keys. `tasks`: map tasks, at most."""

    tasks: Count


class ReduceParams(Record, frozen=True, kw_only=True):
    """Told to a reduce attempt beside its sources.

    Args:
        onward: what is written goes on to `finish`.
        block_bytes, runs_max: see `MapParams`.
    """

    partition: Count
    onward: bool = False
    block_bytes: Count = BLOCK_BYTES_MAX
    runs_max: Count = 0


class Segment(NamedTuple):
    """One partition's share of a map task's blob. `size` in bytes; 0: nothing, and no digest."""

    size: int
    digest: bytes


def pack_segments(segments: Iterable[Segment]) -> bytes:
    """The value of a map task's result: where each partition's segment of its blob ends, and its digest."""
    end, packed = 0, bytearray()
    for segment in segments:
        end += segment.size
        packed += _SEGMENT.pack(end, segment.digest)
    return bytes(packed)


def pack_plan(
    *,
    files: Sequence[InputFile],
    tasks: Iterable[Sequence[Split]],
    partitions: int,
    compression: str,
    finish: bool = False,
    sets: Sequence[str] = (),
    suffix: str = "",
    memory_bytes: int = 0,
    keys: int = 0,
    open: str = "",
    lasts_s: float = math.inf,
) -> bytes:
    """The plan blob.

    Args:
        tasks: the splits of each map task.
        partitions, ...: see `MapReducePlan`.
    """
    splits, digests, firsts, count = bytearray(), bytearray(), bytearray(), 0
    for task in tasks:
        firsts += _FIRST.pack(count)
        count += len(task)
        for split in task:
            splits += _SPLIT.pack(split.file, split.start, split.end)
            digests += split.digest
    new = open or any(not file.path for file in files)
    plan = MapReducePlan(
        version=PLAN_VERSION if new else PLAN_VERSION - 1,  # who can read it, may
        files=tuple(files),
        splits=bytes(splits),
        digests=bytes(digests),
        firsts=bytes(firsts + _FIRST.pack(count)),
        partitions=partitions,
        compression=compression,
        finish=finish,
        sets=tuple(sets),
        suffix=suffix,
        memory_bytes=memory_bytes,
        keys=keys,
        open=open,
        lasts_s=lasts_s,
    )
    return msgspec.msgpack.encode(plan)


def unpack_plan(data: bytes) -> MapReducePlan:
    """The plan in a plan blob, checked.

    Raises:
        JobRejected: it makes no sense.
    """
    try:
        plan = msgspec.msgpack.decode(data, type=MapReducePlan)
    except msgspec.DecodeError as error:
        raise JobRejected(f"The plan of the map/reduce job cannot be read: {error}.") from None
    if not 1 <= plan.version <= PLAN_VERSION:
        raise JobRejected(
            f"The plan has version {plan.version}, this node reads {PLAN_VERSION}: upgrade the older side."
        )
    firsts = [first for (first,) in _FIRST.iter_unpack(plan.firsts)] if len(plan.firsts) % _FIRST.size == 0 else []
    count = len(plan.digests) // DIGEST_BYTES
    sound = (
        (len(firsts) >= 2 or (len(firsts) == 1 and 0 < plan.keys <= PARTITIONS_MAX))
        and firsts[0] == 0
        and firsts[-1] == count
        and all(a < b for a, b in itertools.pairwise(firsts))
        and len(plan.digests) == count * DIGEST_BYTES
        and len(plan.splits) == count * _SPLIT.size
        and plan.partitions <= PARTITIONS_MAX
        and plan.open in OPEN
        and (not plan.open or plan.keys > 0)
        and (plan.open != ENDLESS or not (plan.partitions or plan.finish))
        and (not plan.sets or (plan.partitions > 0 and plan.partitions % len(plan.sets) == 0))
        and all(f < len(plan.files) and start < end <= COUNT_MAX for f, start, end in _SPLIT.iter_unpack(plan.splits))
    )
    if not sound:
        raise JobRejected("The plan of the map/reduce job contradicts itself.")
    return plan


def segment_range(value: bytes, partition: int) -> tuple[int, int, Digest]:
    """Where a partition's segment of a map task's blob begins and ends, and its digest."""
    end, digest = _SEGMENT.unpack_from(value, partition * _SEGMENT.size)
    start = _SEGMENT.unpack_from(value, (partition - 1) * _SEGMENT.size)[0] if partition else 0
    return start, end, digest


def segments_bytes(partitions: int) -> int:
    """How many bytes `pack_segments` makes of so many segments."""
    return partitions * _SEGMENT.size


def is_sound(result: Pinned, partitions: int) -> bool:
    """Whether the segments of a map task's result lie one after the other and fill its blob."""
    if len(result.value) != partitions * _SEGMENT.size or len(result.blobs) > 1:
        return False
    ends = [0, *(end for end, _ in _SEGMENT.iter_unpack(result.value))]
    return ends[-1] == sum(b.size for b in result.blobs) and all(a <= b for a, b in itertools.pairwise(ends))


def segments_in(value: bytes) -> int:
    """How many segments the value of a task's result names."""
    return len(value) // _SEGMENT.size
