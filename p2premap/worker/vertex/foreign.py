"""Graphs of networkx and scipy, and edges in lists, as files of arrays: the load stage reads these without parsing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from p2premap.errors import JobRejected
from p2premap.worker.blocks import shorten
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.graphfile import Array
from p2premap.worker.vertex.owners import Keys, key_of
from p2premap.worker.vertex.text import Edges, Weights

SUFFIX: Final = ".p2pa"
_AT_ONCE: Final = 1 << 18


class Foreign(NamedTuple):
    """A graph.

    Args:
        vertices: the keys of all of them, also of those without edges.
        names: of the vertices, in their order, where ids are text.
    """

    sources: Keys
    targets: Keys
    weights: Weights | None
    vertices: Keys
    names: Sequence[bytes] = ()


def of_networkx(graph: Any, weight: str | None) -> Foreign:  # noqa: ANN401  (networkx need not be installed)
    """A graph of networkx, whose nodes are integers or text.

    Args:
        weight: the attribute of edges that is their weight; one that lacks it has 1. None: they have none.

    Raises:
        JobRejected: nodes are of other types, or a weight is no number.
    """
    edges = graph.edges(data=weight, default=1.0) if weight is not None else graph.edges()
    advice = "relabel them as integers or as text (networkx.convert_node_labels_to_integers)"
    return _graph(list(graph.nodes), list(edges), weight, advice)


def of_edges(edges: Any, *, weighted: bool) -> Foreign:  # noqa: ANN401  (checked here)
    """Edges as (source, target), or (source, target, weight): a list of them, or an array with a row for each, where
    ids may be floats beside weights.

    Raises:
        JobRejected: one is something else, ids are of other types than integers or text, or a weight is no number.
    """
    if weighted and isinstance(edges, np.ndarray) and edges.dtype.kind == "f" and edges.shape[1:] == (3,):
        return _of_floats(edges)
    rows = edges.tolist() if isinstance(edges, np.ndarray) else list(edges)
    form = "(source, target, weight)" if weighted else "(source, target)"
    for row in rows:
        if not isinstance(row, (tuple, list)) or len(row) != len(form.split()):
            more = "" if weighted else "; with weights=True, (source, target, weight)"
            raise JobRejected(f"{shorten(row)} is no edge: give {form}{more}.")
    ids = dict.fromkeys(end for row in rows for end in row[:2])
    return _graph(list(ids), rows, "weight" if weighted else None, "make them integers or text")


def _of_floats(edges: Array) -> Foreign:
    """An array has one type for all of its columns: ids are floats where weights are."""
    ends, bits = edges[:, :2], np.finfo(edges.dtype).nmant + 1
    wrong = ends[~((np.abs(ends) < 2.0**bits) & (ends == np.floor(ends)))]
    if len(wrong):
        raise JobRejected(
            f"{wrong[0]} is the id of a vertex in an array of {edges.dtype}, and no whole number below 2^{bits}: make "
            "ids integers or text, in a list of (source, target, weight) if need be."
        )
    sources, targets = ends.astype(np.int64).T
    return Foreign(sources, targets, edges[:, 2].astype(np.float64), np.unique(ends).astype(np.int64))


def _graph(nodes: Sequence[Any], rows: Sequence[Sequence[Any]], weight: str | None, advice: str) -> Foreign:
    """A graph of these nodes and edges.

    Args:
        weight: what the last of each row is called; None: they have no weights.
        advice: what to do about ids that cannot be.
    """
    kinds = set(map(type, nodes))
    integers = kinds <= {int} and all(-(1 << 63) <= node < 1 << 63 for node in nodes)
    if not integers and not kinds <= {str}:
        shown = ", ".join(sorted(kind.__name__ for kind in kinds))
        large = " and do not all fit into 64 bits" if kinds == {int} else ""
        raise JobRejected(f"Nodes of this graph are of the types {shown}{large}: {advice}.")
    keys = dict(zip(nodes, map(key_of, nodes), strict=True))
    try:
        weights = np.array([row[-1] for row in rows], np.float64) if weight is not None else None
    except (TypeError, ValueError) as error:
        raise JobRejected(f"The attribute {weight!r} of an edge is no number: {error}.") from None
    return Foreign(
        np.fromiter((keys[row[0]] for row in rows), np.int64, len(rows)),
        np.fromiter((keys[row[1]] for row in rows), np.int64, len(rows)),
        weights,
        np.fromiter(keys.values(), np.int64, len(keys)),
        () if integers else [str(node).encode("utf-8", "surrogatepass") for node in nodes],
    )


def of_scipy(matrix: Any, *, weighted: bool) -> Foreign:  # noqa: ANN401  (scipy need not be installed)
    """A square sparse matrix: an entry in row i and column j is an edge from i to j, and perhaps its weight.

    Raises:
        JobRejected: it is not square.
    """
    if matrix.shape[0] != matrix.shape[1]:
        rows, columns = matrix.shape
        raise JobRejected(f"A matrix of {rows} rows and {columns} columns is no graph: give a square one.")
    entries = matrix.tocoo()
    return Foreign(
        entries.row.astype(np.int64),
        entries.col.astype(np.int64),
        entries.data.astype(np.float64) if weighted else None,
        np.arange(matrix.shape[0], dtype=np.int64),
    )


def write(path: Path, graph: Foreign) -> None:
    """As a file that `read` reads.

    Raises:
        JobRejected: a weight is not finite.
    """
    arrays: dict[str, Array] = {"sources": graph.sources, "targets": graph.targets, "vertices": graph.vertices}
    if graph.weights is not None:
        if not np.isfinite(graph.weights).all():
            raise JobRejected("A weight of this graph is no finite number.")
        arrays["weights"] = graph.weights
    if graph.names:
        lengths = np.fromiter(map(len, graph.names), np.int64, len(graph.names))
        arrays["names_ends"] = np.cumsum(lengths)
        arrays["names_bytes"] = np.frombuffer(b"".join(graph.names), np.uint8)
    with path.open("wb") as file:
        graphfile.write(file.write, {}, arrays)


def read(data: memoryview) -> tuple[list[bytes], Iterator[Edges]]:
    """The names of vertices, if they have any, and the graph piece by piece.

    Raises:
        JobError: it is no such file.
    """
    arrays = graphfile.read(data).arrays
    names: list[bytes] = []
    if "names_ends" in arrays:
        text, ends = arrays["names_bytes"].tobytes(), arrays["names_ends"].tolist()
        names = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return names, _pieces(arrays["sources"], arrays["targets"], arrays.get("weights"), arrays["vertices"])


def _pieces(sources: Keys, targets: Keys, weights: Weights | None, vertices: Keys) -> Iterator[Edges]:
    none = np.empty(0, np.int64)
    for start in range(0, len(vertices), _AT_ONCE):
        no_weights = None if weights is None else np.empty(0)
        yield Edges(none, none, no_weights, vertices[start : start + _AT_ONCE])
    for start in range(0, len(sources), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        yield Edges(sources[part], targets[part], None if weights is None else weights[part])
