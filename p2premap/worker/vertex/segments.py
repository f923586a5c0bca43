"""What load tasks write and build tasks read: a blob with a segment for each partition, made of chunks.

::

    kind (1) | bytes of a key (1) | flags (1) | reserved (1) | count (4) | length (8) | arrays, padded to 8 bytes

    edges      sources, targets, weights if flagged; flagged as turned round where they are
    vertices   keys of vertices that exist, whether they have edges or not
    names      keys, ends of the names (4 bytes each), UTF-8; flagged where a vertex exists by being named

Keys are 4 bytes wide where all of a chunk fit, else 8: an edge between ids below 2^32 takes 8 bytes. What is held in
memory is bounded: the rest waits on scratch disk until the blob is written.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from p2premap.tasks.mapreduce_plan import Segment, pack_segments
from p2premap.worker.runtime import BlobWriter, Context, Result
from p2premap.worker.vertex.owners import Keys, owner
from p2premap.worker.vertex.text import Edges, Names, Weights

EDGES: Final = 1
VERTICES: Final = 2
NAMES: Final = 3
WEIGHTED: Final = 1
TURNED: Final = 2
DECLARING: Final = 4

HELD_BYTES_MAX: Final = 64 << 20
"""Of segments in memory; beyond it they are spilled."""
SORTED_EDGES: Final = 1 << 19
"""So many edges are shared out at a time."""

_HEAD: Final = struct.Struct("<BBBxIQ")
_ALIGN: Final = 8
_NARROW: Final = 1 << 32
_BYTE: Final = 256
_TABLE_MIN: Final = 1 << 16
_TABLE_MAX: Final = 1 << 25
"""Vertices with smaller ids are remembered."""
_NAMES_MAX: Final = 1 << 20
"""An attempt remembers so many, which takes some 200 MB."""
_COPY_BYTES: Final = 1 << 20

_Array: TypeAlias = npt.NDArray[Any]


class Chunk(NamedTuple):
    """A piece of a segment, as views of it.

    Args:
        keys: sources of edges, or vertices.
        targets, weights: of edges.
        names: of the keys.
    """

    kind: int
    flags: int
    keys: _Array
    targets: _Array | None = None
    weights: Weights | None = None
    names: Sequence[bytes] = ()


class SegmentBuffer:
    """Collects bytes for each partition and writes them as one blob.

    Args:
        partitions: how many there are.
        context: of the attempt.
    """

    def __init__(self, partitions: int, context: Context) -> None:
        self._context = context
        self._held: list[list[bytes]] = [[] for _ in range(partitions)]
        self._size = 0
        self._path = os.path.join(context.scratch, "segments")
        self._spilled: list[list[tuple[int, int]]] = [[] for _ in range(partitions)]

    def add(self, partition: int, data: bytes) -> None:
        """Append to a partition's segment."""
        self._held[partition].append(data)
        self._size += len(data)
        if self._size > HELD_BYTES_MAX:
            self._spill()

    def finish(self, told: bytes) -> Result:
        """Write the blob.

        Args:
            told: stands behind the table of segments in the result's value.
        """
        blob = self._context.new_blob()
        segments = [self._segment(partition, blob) for partition in range(len(self._held))]
        value = pack_segments(segments) + told
        return Result(value=value, blobs=(blob.finish(),)) if any(s.size for s in segments) else Result(value=value)

    def _segment(self, partition: int, blob: BlobWriter) -> Segment:
        hasher, size = blake3(), 0
        for data in self._pieces(partition):
            hasher.update(data)
            blob.write(data)
            size += len(data)
        return Segment(size, hasher.digest())

    def _pieces(self, partition: int) -> Iterator[bytes]:
        if self._spilled[partition]:
            with open(self._path, "rb", buffering=0) as file:
                for offset, size in self._spilled[partition]:
                    file.seek(offset)
                    while size and (data := file.read(min(size, _COPY_BYTES))):
                        yield data
                        size -= len(data)
        yield from self._held[partition]

    def _spill(self) -> None:
        with self._context.spill(self._path, "ab") as file:
            for partition, pieces in enumerate(self._held):
                offset = file.tell()
                file.writelines(pieces)
                if pieces:
                    self._spilled[partition].append((offset, file.tell() - offset))
                    pieces.clear()
        self._size = 0


class EdgeSorter:
    """Shares edges out to the partitions of the vertices that they leave from, and says which vertices exist.

    Args:
        buffer: takes them.
        partitions, ranges: see `p2premap.worker.vertex.owners.owner`.
        names: of the vertices; None: ids are integers.
        turned: each edge goes to its target, too, turned round.
        creates: a target exists by being one.
    """

    def __init__(
        self,
        buffer: SegmentBuffer,
        partitions: int,
        ranges: Keys | None,
        names: Names | None,
        *,
        turned: bool,
        creates: bool,
    ) -> None:
        self._buffer, self._partitions, self._ranges, self._names = buffer, partitions, ranges, names
        self._turned, self._creates = turned, creates
        self._waiting: list[Edges] = []
        self._count = 0
        self._met = _Ends() if creates and not turned and names is None else None
        self.edges = 0

    def add(self, edges: Edges) -> None:
        """Take these."""
        self._waiting.append(edges)
        self._count += len(edges.sources) + (0 if edges.own is None else len(edges.own))
        if self._count >= SORTED_EDGES:
            self._flush()

    def finish(self) -> None:
        """Put everything into the buffer."""
        self._flush()
        if self._met is not None:
            self._share_vertices(self._met.only_targets())

    def _flush(self) -> None:
        some, self._waiting, self._count = self._waiting, [], 0
        if not some:
            return
        sources, targets = (
            np.concatenate(columns) for columns in ([e.sources for e in some], [e.targets for e in some])
        )
        held = [e.weights for e in some if e.weights is not None]
        weights = np.concatenate(held) if held else None
        own = [e.own for e in some if e.own is not None]
        self.edges += len(sources)
        self._share_edges(sources, targets, weights, 0)
        if self._turned:
            other = sources != targets
            if other.all():
                self._share_edges(targets, sources, weights, TURNED)
            else:
                self._share_edges(targets[other], sources[other], None if weights is None else weights[other], TURNED)
        if own:
            self._share_vertices(np.concatenate(own))
        if self._names is not None:
            self._share_names(self._names)
        elif self._met is not None:
            self._share_vertices(self._met.add(sources, targets))

    def _share_edges(self, sources: Keys, targets: Keys, weights: Weights | None, flags: int) -> None:
        if not len(sources):
            return
        narrow = _narrow(sources, targets)
        columns: list[_Array] = [column.astype(np.uint32) if narrow else column for column in (sources, targets)]
        if weights is not None:
            columns.append(weights)
            flags |= WEIGHTED
        for partition, some in self._shares(sources, columns):
            self._put(partition, EDGES, flags, len(some[0]), some)

    def _share_vertices(self, keys: Keys, flags: int = 0) -> None:
        if not len(keys):
            return
        column: _Array = keys.astype(np.uint32) if _narrow(keys) else keys
        for partition, some in self._shares(keys, [column]):
            self._put(partition, VERTICES, flags, len(some[0]), some)

    def _share_names(self, known: Names) -> None:
        new, known.new = known.new, []
        keys = known.keys_of(new)
        if len(known) > _NAMES_MAX:
            known.clear()  # what comes again is told again
        flags = DECLARING if self._creates else 0
        for partition, (own, numbers) in self._shares(keys, [keys, np.arange(len(keys))]):
            names = [new[number] for number in numbers.tolist()]
            ends = np.cumsum(list(map(len, names))).astype(np.uint32)
            self._put(partition, NAMES, flags, len(own), [own, ends], b"".join(names))

    def _shares(self, keys: Keys, columns: Sequence[_Array]) -> Iterator[tuple[int, list[_Array]]]:
        """The columns of each partition that has any, in the order in which they were."""
        if self._partitions == 1:
            if len(keys):
                yield 0, list(columns)
            return
        owners = owner(keys, self._partitions, self._ranges)
        order = np.argsort(owners.astype(np.uint8) if self._partitions <= _BYTE else owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=self._partitions))
        columns = [column[order] for column in columns]
        start = 0
        for partition, end in enumerate(ends.tolist()):
            if end > start:
                yield partition, [column[start:end] for column in columns]
            start = end

    def _put(
        self, partition: int, kind: int, flags: int, count: int, columns: Sequence[_Array], tail: bytes = b""
    ) -> None:
        body = b"".join([*(column.tobytes() for column in columns), tail])
        head = _HEAD.pack(kind, columns[0].itemsize, flags, count, len(body))
        self._buffer.add(partition, head + body + bytes(-len(body) % _ALIGN))


class _Ends:
    """Which vertices are met as targets and not as sources: nobody else says that they exist.

    Small ids are remembered in two tables; of large ones, all targets are told again and again.
    """

    def __init__(self) -> None:
        self._sources, self._targets = np.zeros(_TABLE_MIN, np.bool_), np.zeros(_TABLE_MIN, np.bool_)

    def add(self, sources: Keys, targets: Keys) -> Keys:
        """Take the ends of edges; returns targets that will not be remembered."""
        if not len(sources):
            return targets
        least = min(int(sources.min()), int(targets.min()))
        top = max(int(sources.max()), int(targets.max()))
        if least < 0 or top >= _TABLE_MAX:
            return distinct(targets)
        if top >= len(self._sources):
            size = min(2 * top, _TABLE_MAX)
            self._sources, self._targets = (_grown(table, size) for table in (self._sources, self._targets))
        self._sources[sources] = True
        self._targets[targets] = True
        return targets[:0]

    def only_targets(self) -> Keys:
        """What is remembered."""
        return np.flatnonzero(self._targets & ~self._sources)


def _grown(table: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    grown = np.zeros(max(size, len(table)), np.bool_)
    grown[: len(table)] = table
    return grown


def distinct(keys: Keys) -> Keys:
    """As `numpy.unique`, which is ten times as slow since it hashes."""
    ordered = np.sort(keys)
    first: npt.NDArray[np.bool_] = np.append(True, ordered[1:] != ordered[:-1])
    found: Keys = ordered[first]
    return found


def _narrow(*columns: Keys) -> bool:
    return all(int(column.min()) >= 0 and int(column.max()) < _NARROW for column in columns)


def chunks_of(segment: memoryview) -> Iterator[Chunk]:
    """The chunks of a segment whose digest has been checked."""
    at = 0
    while at < len(segment):
        kind, width, flags, count, length = _HEAD.unpack_from(segment, at)
        at += _HEAD.size
        body = segment[at : at + length]
        at += length + -length % _ALIGN
        key = "<u4" if width == 4 else "<i8"
        keys = np.frombuffer(body, key, count)
        if kind == EDGES:
            targets = np.frombuffer(body, key, count, width * count)
            weights = np.frombuffer(body, np.float64, count, 2 * width * count) if flags & WEIGHTED else None
            yield Chunk(kind, flags, keys, targets, weights)
        elif kind == NAMES:
            ends = np.frombuffer(body, np.uint32, count, width * count).tolist()
            text = bytes(body[width * count + 4 * count :])
            names = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            yield Chunk(kind, flags, keys, names=names)
        else:
            yield Chunk(kind, flags, keys)
