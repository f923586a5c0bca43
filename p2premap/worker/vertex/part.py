"""What a program of the array form is given: its partition of the graph, and what came for the vertices there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from p2premap.vertex.barrier import Globals
from p2premap.vertex.loading import unpack_reading
from p2premap.vertex.plan import Settings
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.exchange import Exchange
from p2premap.worker.vertex.kernels import Array, Block, Edges, Keys, Mask, Slots
from p2premap.worker.vertex.letters import Letters
from p2premap.worker.vertex.owners import key_of, ranges_of
from p2premap.worker.vertex.rewiring import ADD_EDGES, REMOVE_EDGES, Rewiring, moved

_NO_KEYS: Final = np.empty(0, np.int64)


class Inbox:
    """What came for the vertices of a partition.

    Attributes:
        values: with a combiner, one value a vertex, reduced; its identity (0, or the largest or smallest number) where
            nothing came, or what adds up to the same.
        letters: without a combiner, what `Part.send` sent: places of vertices, and values, by source partition.
        block: without a combiner, the edges along which mail comes: its columns are vertices that have an edge to here.
        column_values, column_mask: the value of each column, and which have one; None: no values, and all.
        rows: of each column what `Part.send_rows` sent: where each begins, and the arrays; None: nobody did.
        kept: what `lists` says of mail that came along edges as they were before the graph changed; else None.
    """

    def __init__(self, n: int, values: Array | None, identity: object) -> None:
        self._n, self._values, self._identity = n, values, identity
        self.letters: list[tuple[Slots, Array]] = []
        self.block: Block | None = None
        self.column_values: Array | None = None
        self.column_mask: Mask | None = None
        self.rows: tuple[Keys, list[Array]] | None = None
        self.kept: tuple[Keys, Keys, Array] | None = None

    @property
    def values(self) -> Array:
        """See above."""
        assert self._values is not None, "a program without a combiner looks at `lists`"
        return self._values

    @property
    def mask(self) -> Mask:
        """Which vertices got mail."""
        return np.asarray(self.values != self._identity)

    def lists(self) -> tuple[Keys, Keys, Array]:
        """Without a combiner: where each vertex's values begin, how many it has, and the values."""
        if self.kept is not None:
            return self.kept
        block = self.block
        if block is None or self.column_values is None:
            return np.zeros(self._n, np.int64), np.zeros(self._n, np.int64), _NO_KEYS
        starts, counts = block.spans()
        if self.column_mask is None:
            return starts, counts, self.column_values[block.columns]
        along = self.column_mask[block.columns]
        passed = np.zeros(block.edges + 1, np.int64)
        np.cumsum(along, out=passed[1:])
        first = passed[starts]
        return first, passed[starts + counts] - first, self.column_values[block.columns[along]]

    def keep(self, places: Keys | None) -> int:
        """The graph has changed since this mail was sent, here or where it came from: remember it without the edges
        that it came along.

        Args:
            places: where each vertex that there is now was then, -1: nowhere; None: the vertices are the same.

        Returns:
            How many values came for vertices that are gone; those that were combined count as one.
        """
        if self._values is None:
            self.kept = self.lists()
            self.column_values = self.column_mask = None
        if places is None:
            return 0
        gone = np.ones(self._n, np.bool_)
        gone[places[places >= 0]] = False
        lost, self._n = 0, len(places)
        if self._values is not None:
            lost = int(np.count_nonzero(self.mask & gone))
            self._values = moved(self._values, places, self._identity)
        if self.kept is not None:
            starts, counts, values = self.kept
            lost = int(counts[gone].sum())
            self.kept = moved(starts, places, 0), moved(counts, places, 0), values
        return lost


class Part:
    """A partition, as a program sees it.

    Attributes:
        number: of the partition.
        n: how many vertices are here.
        keys: of the vertices, ascending: their ids, where these are numbers.
        graph: the blob, or what has become of it.
        edges: in the view that the program has asked for.
        state: arrays by name, one value a vertex, or of any other length: what a checkpoint keeps. Nothing else is
            remembered from one superstep to the next.
        text: ids are text, and keys stand for them.
        globals: of the whole graph, and what was aggregated in the superstep before.
    """

    def __init__(self, number: int, graph: graphfile.Graph, edges: Edges, settings: Settings) -> None:
        self.number = number
        self.state: dict[str, Array] = {}
        self.globals = Globals(0, 0, 0, 0, 0, {})
        self.exchange: Exchange | None = None
        self.letters: Letters | None = None
        self.rewiring = Rewiring(settings.partitions, ranges_of(settings), unpack_reading(settings.reading))
        self.sent = 0
        self.aggregates: dict[str, object] = {}
        self.text = settings.ids == "str"
        self.rewire(graph, edges)

    def rewire(self, graph: graphfile.Graph, edges: Edges) -> None:
        """From now on the graph is this."""
        self.graph, self.edges = graph, edges
        self.keys: Keys = graph.keys
        self.n = len(self.keys)
        self._made: dict[str, Array] = {}
        self.__dict__.pop("degrees", None)

    @property
    def superstep(self) -> int:
        """From 0."""
        return self.globals.superstep

    @functools.cached_property
    def degrees(self) -> Keys:
        """Edges of each vertex, in the view that the program has asked for."""
        return np.diff(self.edges.indptr)

    @property
    def answers(self) -> Array | None:
        """To what was asked two supersteps ago, in the order of that; None: nothing was."""
        return self._letters.answers

    @property
    def _plans(self) -> Exchange:
        assert self.exchange is not None, "the partitions have agreed"
        return self.exchange

    @property
    def _letters(self) -> Letters:
        assert self.letters is not None, "made with the partition"
        return self.letters

    def once(self, name: str, make: Callable[[], Array]) -> Array:
        """What follows from the graph alone: made when it is first asked for in a process, or since the graph has
        changed."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def name(self, place: int) -> int | str:
        """The id of the vertex at a place."""
        return self.graph.ids()[place]

    def key(self, vertex: object) -> int:
        """The key of a vertex, given by its id, whether there is such a vertex or not."""
        return key_of(str(vertex) if self.text else vertex)

    def find(self, vertex: object) -> int:
        """The place of a vertex, given by its id; -1: it is not here."""
        if not self.text and isinstance(vertex, str):
            try:
                vertex = int(vertex)
            except ValueError:
                return -1
        key = self.key(vertex)
        place = int(np.searchsorted(self.keys, key))
        return place if place < self.n and self.keys[place] == key else -1

    # --- mail -----------------------------------------------------------------------------------------------------

    def send_all(self, values: Array, mask: Mask | None = None) -> None:
        """Send each vertex's value along all its edges, or only from those in `mask`. Once a superstep.

        Raises:
            ValueError: these are not values for the vertices here.
        """
        plans = self._plans
        values = np.ascontiguousarray(values, plans.dtype)
        if values.shape != (self.n,) or (mask is not None and (mask.shape != (self.n,) or mask.dtype != np.bool_)):
            raise ValueError(f"send_all wants {self.n} values, and a mask of as many booleans, if any.")
        self.sent += plans.put(values, mask)

    def send_rows(self, offsets: Keys, *arrays: Array) -> None:
        """Without a combiner: send each vertex's part of some arrays along all its edges. See `Inbox.rows`.

        Args:
            offsets: where each vertex's part begins; one more than there are vertices.
        """
        self.sent += self._plans.put_rows(offsets, arrays)

    def send(self, keys: Keys, values: Array) -> None:
        """Send values to vertices by their keys.

        Raises:
            ValueError: these are not as many values as keys.
        """
        keys, values = np.ascontiguousarray(keys, np.int64), np.ascontiguousarray(values, self._plans.dtype)
        if keys.shape != values.shape or keys.ndim != 1:
            raise ValueError("send wants as many values as keys.")
        if len(keys):
            self.sent += self._letters.send(keys, values)

    def ask(self, name: str, keys: Keys) -> None:
        """Ask what the state array `name` holds for these vertices after the next superstep: see `answers`. `NAMES`
        asks for ids that are text, as UTF-8."""
        self.sent += self._letters.ask(name, np.ascontiguousarray(keys, np.int64))

    def aggregate(self, name: str, value: object) -> None:
        """This partition's share of an aggregate."""
        self.aggregates[name] = value

    # --- changes of the graph, from the next superstep on -----------------------------------------------------------

    def add_vertices(self, ids: Iterable[int | str] | Keys) -> None:
        """There are these vertices as well, without edges; what is there already stays as it is.

        Args:
            ids: integers, or texts where ids are text.
        """
        if self.text:
            self.rewiring.add_names([str(id).encode("utf-8", "surrogatepass") for id in ids])
        else:
            self.rewiring.add_vertices(np.array(list(ids) if not isinstance(ids, np.ndarray) else ids, np.int64))

    def remove_vertices(self, keys: Keys) -> None:
        """These vertices and their edges are gone; mail to them, and edges that others have to them, lead nowhere."""
        self.rewiring.remove_vertices(np.array(keys, np.int64))

    def add_edges(self, sources: Keys, targets: Keys, weights: Array | None = None) -> None:
        """There are these edges as well, by the keys of their ends; of vertices that do not exist nothing comes.

        Args:
            weights: None: 1 each, where edges have weights.

        Raises:
            ValueError: these are not as many sources as targets, or as weights.
        """
        self._edges(ADD_EDGES, sources, targets, weights)

    def remove_edges(self, sources: Keys, targets: Keys) -> None:
        """Of each of these, the first such edge is gone.

        In a directed graph that is seen from both ends these are edges as they lead, which `edges` does not tell: who
        wants to part two vertices names them both ways round. Edges that are not there change nothing.

        Raises:
            ValueError: these are not as many sources as targets.
        """
        self._edges(REMOVE_EDGES, sources, targets, None)

    def _edges(self, kind: int, sources: Keys, targets: Keys, weights: Array | None) -> None:
        sources, targets = np.array(sources, np.int64), np.array(targets, np.int64)
        columns: list[Array] = [sources, targets]
        if weights is not None:
            columns.append(weights := np.array(weights, np.float64))
        if any(column.shape != (len(sources),) for column in columns):
            raise ValueError("Edges have as many sources as targets, and as weights, if any.")
        self.rewiring.change_edges(kind, sources, targets, weights)
