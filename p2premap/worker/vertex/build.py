"""The build stage: a partition's segments of all load blobs become its graph.

A stable sort by source makes rows of the edges; ids in a narrow range are looked up in a table and sorted 16 bits at a
time (numpy sorts numbers of 16 bits by radix), others are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from p2premap.vertex.loading import BOTH, STRINGS, Reading, unpack_reading
from p2premap.vertex.plan import BuildParams, BuildReport
from p2premap.worker.blocks import shorten
from p2premap.worker.runtime import Context, Result, Segment
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.graphfile import Array, Meta
from p2premap.worker.vertex.names import add_names, packed_names
from p2premap.worker.vertex.owners import Keys
from p2premap.worker.vertex.partition import VertexError
from p2premap.worker.vertex.segments import DECLARING, EDGES, NAMES, TURNED, VERTICES, Chunk, chunks_of, distinct
from p2premap.worker.writers import read_pairs

_TABLE_A_KEY: Final = 8
"""A table of ids may have so many places for each edge and vertex."""
_DIGIT: Final = 16


def build(params: bytes, segments: Sequence[Segment], context: Context) -> Result:
    """Run one attempt of the build stage: its blob is the partition's graph (`p2premap.worker.vertex.graphfile`).

    Raises:
        VertexError: two ids have the same hash.
        InputLost: a load blob is not what it was announced to be.
    """
    told = msgspec.msgpack.decode(params, type=BuildParams)
    reading = unpack_reading(told.settings.reading)
    chunks = [chunk for s in segments if s.end > s.start for chunk in chunks_of(context.map(s))]
    arrays = _arrays(chunks, reading)
    vertices, edges = len(arrays["keys"]), len(arrays["targets"])
    meta: Meta = {
        "partition": told.partition,
        "partitions": told.settings.partitions,
        "ids": reading.ids,
        "view": reading.view,
        "undirected": reading.undirected,
        "vertices": vertices,
        "edges": edges,
    }
    blob = context.new_blob()
    graphfile.write(blob.write, meta, arrays)
    context.count(records_in=edges, records_out=vertices)
    report = BuildReport(graph=True, state=False, vertices=vertices, edges=edges)
    return Result(value=msgspec.msgpack.encode(report), blobs=(blob.finish(),))


def vertices(segments: Sequence[Segment]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """What `prepare` made of the lines of this partition's vertices: id, value, edges or None, edge values or None.

    Raises:
        VertexError: an id comes twice.
        InputLost: a load blob is not what it was announced to be.
    """
    met = set()
    for segment in segments:
        for ids, values in read_pairs(segment):
            for vertex, made in zip(ids, values, strict=True):
                if vertex in met:
                    raise VertexError(f"Two lines are of the vertex {shorten(vertex)}: each vertex has one.")
                met.add(vertex)
                yield vertex, *made


def _arrays(chunks: Sequence[Chunk], reading: Reading) -> dict[str, Array]:
    edges = [chunk for chunk in chunks if chunk.kind == EDGES]
    sources, targets = _joined([c.keys for c in edges]), _joined([c.targets for c in edges if c.targets is not None])
    declared = [c.keys for c in chunks if c.kind == VERTICES or (c.kind == NAMES and c.flags & DECLARING)]
    weighted = any(c.weights is not None for c in edges)
    weights = np.concatenate([c.weights for c in edges if c.weights is not None]) if weighted else None
    turned = [np.full(len(c.keys), not c.flags & TURNED, np.uint8) for c in edges]
    forward = np.concatenate(turned) if turned and reading.view == BOTH and not reading.undirected else None
    if not reading.creates and reading.view == BOTH:
        known = np.isin(sources, _joined(declared))
        sources, targets = sources[known], targets[known]
        weights = None if weights is None else weights[known]
        forward = None if forward is None else forward[known]
    keys, indptr, order = _rows(sources, _joined(declared))
    arrays: dict[str, Array] = {"keys": keys, "indptr": indptr, "targets": targets[order]}
    if weights is not None:
        arrays["weights"] = weights[order]
    elif reading.weighted:
        arrays["weights"] = np.ones(len(sources))
    if forward is not None:
        arrays["forward"] = forward[order]
    if reading.ids == STRINGS:
        offsets, names = _names(keys, chunks)
        arrays["names_offsets"], arrays["names_bytes"] = offsets, names
    return arrays


def _joined(columns: Sequence[npt.NDArray[Any]]) -> Keys:
    return np.concatenate(columns, dtype=np.int64) if columns else np.empty(0, np.int64)


def _rows(sources: Keys, declared: Keys) -> tuple[Keys, Keys, npt.NDArray[np.intp]]:
    """The keys of all vertices, where the edges of each begin, and the order in which edges stand there."""
    everything = len(sources) + len(declared)
    if not everything:
        return np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.intp)
    least = min(int(column.min()) for column in (sources, declared) if len(column))
    span = max(int(column.max()) for column in (sources, declared) if len(column)) - least + 1
    if span <= max(_TABLE_A_KEY * everything, 1 << _DIGIT):
        there = np.zeros(span, np.bool_)
        there[sources - least] = True
        there[declared - least] = True
        found = np.flatnonzero(there)
        table = np.zeros(span, np.uint32)
        table[found] = np.arange(len(found), dtype=np.uint32)
        rows, keys = table[sources - least], (found + least).astype(np.int64)
        order = _order(rows, len(keys))
    else:
        keys = distinct(np.concatenate([sources, declared]))
        rows = np.searchsorted(keys, sources).astype(np.uint32)
        order = _order(rows, len(keys))
    indptr = np.zeros(len(keys) + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=len(keys)), out=indptr[1:])
    return keys, indptr, order


def _order(rows: npt.NDArray[np.uint32], count: int) -> npt.NDArray[np.intp]:
    """As a stable argsort: by the lower 16 bits, then by the upper ones."""
    order = np.argsort(rows.astype(np.uint16), kind="stable")
    if count > 1 << _DIGIT:
        upper = (rows >> np.uint32(_DIGIT)).astype(np.uint16)
        order = order[np.argsort(upper[order], kind="stable")]
    return order


def _names(keys: Keys, chunks: Sequence[Chunk]) -> tuple[Keys, npt.NDArray[np.uint8]]:
    named: dict[int, bytes] = {}
    for chunk in chunks:
        if chunk.kind == NAMES:
            add_names(named, chunk.keys.tolist(), chunk.names)
    return packed_names(named, keys)
