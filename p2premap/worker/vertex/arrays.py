"""The array form: a program that is called once a partition and superstep, with arrays of all its vertices.

A `Part` is what the program sees: the vertices here in ascending order of their keys, its own state arrays, and ways to
send. What is sent along edges goes through the plans of `exchange`, everything else through `letters`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from p2premap.vertex.plan import CREATE, ERROR, Settings
from p2premap.vertex.program import ArrayProgram, Hooks
from p2premap.worker.gang import Buffer
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.exchange import ALONG_EDGES, Exchange, unpack
from p2premap.worker.vertex.kernels import Array, Block, Edges, Keys, Mask, Slots, matrices, reducer, simple
from p2premap.worker.vertex.letters import Letters
from p2premap.worker.vertex.owners import key_of, ranges_of
from p2premap.worker.vertex.partition import Did, Globals, Sink, Turned, VertexError

_EDGE: Final = {"": None, "add": np.add, "multiply": np.multiply}
_STATE: Final = "state:"
_MAIL: Final = "mail:"


class Inbox:
    """What came for the vertices of a partition.

    Attributes:
        values: with a combiner, one value a vertex, reduced; its identity (0, or the largest or smallest number) where
            nothing came, or what adds up to the same.
        letters: without a combiner, what `Part.send` sent: places of vertices, and values, by source partition.
        block: without a combiner, the edges along which mail comes: its columns are vertices that have an edge to here.
        column_values, column_mask: the value of each column, and which have one; None: no values, and all.
        rows: of each column what `Part.send_rows` sent: where each begins, and the arrays; None: nobody did.
    """

    def __init__(self, n: int, values: Array | None, identity: object) -> None:
        self._n, self._values, self._identity = n, values, identity
        self.letters: list[tuple[Slots, Array]] = []
        self.block: Block | None = None
        self.column_values: Array | None = None
        self.column_mask: Mask | None = None
        self.rows: tuple[Keys, list[Array]] | None = None

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
        block = self.block
        if block is None or self.column_values is None:
            return np.zeros(self._n, np.int64), np.zeros(self._n, np.int64), np.empty(0, np.int64)
        starts, counts = block.spans()
        if self.column_mask is None:
            return starts, counts, self.column_values[block.columns]
        along = self.column_mask[block.columns]
        passed = np.zeros(block.edges + 1, np.int64)
        np.cumsum(along, out=passed[1:])
        first = passed[starts]
        return first, passed[starts + counts] - first, self.column_values[block.columns[along]]


class Part:
    """A partition, as a program sees it.

    Attributes:
        number: of the partition.
        n: how many vertices are here.
        keys: of the vertices, ascending: their ids, where these are numbers.
        graph: the blob.
        edges: in the view that the program has asked for.
        state: arrays by name, one value a vertex, or of any other length: what a checkpoint keeps. Nothing else is
            remembered from one superstep to the next.
        text: ids are text, and keys stand for them.
        globals: of the whole graph, and what was aggregated in the superstep before.
    """

    def __init__(self, number: int, graph: graphfile.Graph, edges: Edges, settings: Settings) -> None:
        self.number = number
        self.graph = graph
        self.edges = edges
        self.keys: Keys = graph.keys
        self.n = len(self.keys)
        self.state: dict[str, Array] = {}
        self.globals = Globals(0, 0, 0, 0, 0, {})
        self.exchange: Exchange | None = None
        self.letters: Letters | None = None
        self.sent = 0
        self.aggregates: dict[str, object] = {}
        self.text = settings.ids == "str"
        self._made: dict[str, Array] = {}

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
        """What follows from the graph alone: made when it is first asked for in a process."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def name(self, place: int) -> int | str:
        """The id of the vertex at a place."""
        return self.graph.ids()[place]

    def find(self, vertex: object) -> int:
        """The place of a vertex, given by its id; -1: it is not here."""
        if not self.text and isinstance(vertex, str):
            try:
                vertex = int(vertex)
            except ValueError:
                return -1
        key = key_of(str(vertex) if self.text else vertex)
        place = int(np.searchsorted(self.keys, key))
        return place if place < self.n and self.keys[place] == key else -1

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


class ArrayPartition:
    """See `p2premap.worker.vertex.partition.Partition`.

    Args:
        graph: the blob; None: there are no vertices here.
    """

    agrees = True

    def __init__(self, program: ArrayProgram, settings: Settings, number: int, graph: memoryview | None) -> None:
        self.number = number
        self._program, self._settings = program, settings
        self._graph = graphfile.read(graph) if graph else _EMPTY
        self._dtype = np.dtype(program.dtype)
        self._how = reducer(program.combine, self._dtype) if program.combine else None
        self._ranges = ranges_of(settings)
        self.part = Part(number, self._graph, self._view(), settings)
        self._inbox: Inbox = self._empty()
        self._begun = False
        self._telling: Exchange | None = None
        self._dropped = 0
        self._remember()

    def _view(self) -> Edges:
        graph = self._graph
        if self._program.view != "simple":
            return Edges(graph.indptr, graph.targets, None)
        forward = None if graph.meta.get("undirected") else graph.forward
        return simple(graph.keys, graph.indptr, graph.targets, forward)

    def _remember(self) -> None:
        part, settings = self.part, self._settings
        part.letters = Letters(part.keys, settings.partitions, self._ranges, self._how, part.state, part.graph.names)

    def _empty(self) -> Inbox:
        if self._how is None:
            return Inbox(self.part.n, None, None)
        return Inbox(self.part.n, np.full(self.part.n, self._how.identity, self._dtype), self._how.identity)

    # Agreeing

    def begin(self) -> None:
        """See there."""
        self._begun = False

    def renew(self) -> None:
        """See there."""
        self._telling = self._exchange()
        matrices()  # takes a fifth of a second to import

    def counts(self) -> tuple[int, int]:
        """See there."""
        forward = self._graph.forward
        return self.part.n, len(self._graph.targets) if forward is None else int(np.count_nonzero(forward))

    def requests(self, partition: int) -> Sequence[Buffer]:
        """See there."""
        assert self._telling is not None, "told to renew"
        return self._telling.request(partition)

    def answers(self, source: int, request: memoryview) -> Sequence[Buffer]:
        """See there."""
        assert self._telling is not None, "told to renew"
        return self._telling.agree(source, request)

    def agreed(self, source: int, answer: memoryview) -> None:
        """See there."""
        assert self._telling is not None, "told to renew"
        if answer:
            self._telling.miss(answer)

    def _settle(self) -> Exchange:
        """The plans that are valid now."""
        if self._telling is not None:
            self._telling.settle()
            self.part.exchange, self._telling = self._telling, None
            if self._how is None:
                self._inbox.block = self.part.exchange.pulled
        assert self.part.exchange is not None, "the partitions have agreed"
        return self.part.exchange

    def _exchange(self) -> Exchange:
        program, edges, weights = self._program, self.part.edges, None
        if program.edge:
            weights = self._graph.weights if self._graph.weights is not None else np.ones(len(edges.targets))
        return Exchange(
            self.part.keys,
            edges.indptr,
            edges.targets,
            weights,
            partitions=self._settings.partitions,
            bounds=self._ranges,
            dtype=self._dtype,
            how=self._how,
            edge=_EDGE[program.edge],
        )

    # Supersteps

    def compute(self, superstep: int, globals: Globals) -> Did:
        """See there."""
        part = self.part
        assert part.letters is not None, "made with the partition"
        part.globals = globals
        part.aggregates = {}
        part.sent = part.letters.begin()
        self._settle().still()
        try:
            if not self._begun:
                self._begun = True
                self._program.start(part)
            halted = self._program.compute(part, self._inbox)
            active = _active(part.n, halted)
        except Exception as error:
            error.add_note(f"in superstep {superstep}, partition {self.number} of the graph")
            raise
        return Did(active, part.sent, part.aggregates, part.n)

    def mail(self, partition: int) -> Sequence[Buffer]:
        """See there."""
        assert self.part.exchange is not None, "it has computed"
        assert self.part.letters is not None, "made with the partition"
        return [*self.part.exchange.mail(partition), *self.part.letters.mail(partition)]

    def deliver(self, source: int, mail: memoryview) -> None:
        """See there."""
        assert self.part.exchange is not None, "the partitions have agreed"
        assert self.part.letters is not None, "made with the partition"
        for kind, arrays in unpack(mail):
            if kind in ALONG_EDGES:
                self.part.exchange.take(source, kind, arrays)
            else:
                self.part.letters.take(source, kind, arrays)

    def turn(self) -> Turned:
        """See there."""
        part = self.part
        assert part.exchange is not None, "the partitions have agreed"
        assert part.letters is not None, "made with the partition"
        letters = part.letters.turn()
        self._inbox = inbox = self._empty() if self._how is None else self._reduced(part.exchange.reduce(), letters)
        if self._how is None:
            inbox.letters = letters
            inbox.block = part.exchange.pulled
            inbox.column_values, inbox.column_mask = part.exchange.columns()
            inbox.rows = part.exchange.rows()
        dropped = part.exchange.lost() + part.letters.lost()
        if dropped and self._settings.unknown == ERROR:
            raise VertexError(
                f"In superstep {part.superstep}, {dropped} messages went to vertices that do not exist; "
                f"--unknown drop counts them and goes on."
            )
        return Turned(0, dropped=dropped)

    def _reduced(self, values: Array | None, letters: list[tuple[Slots, Array]]) -> Inbox:
        how = self._how
        assert how is not None, "with a combiner"
        if values is None:
            values = np.full(self.part.n, how.identity, self._dtype)
        for slots, sent in letters:
            values[slots] = how.ufunc(values[slots], sent)
        return Inbox(self.part.n, values, how.identity)

    # Checkpoints

    def snapshot(self, sink: Sink) -> None:
        """See there."""
        arrays: dict[str, Array] = {_STATE + name: np.asarray(array) for name, array in self.part.state.items()}
        assert self.part.letters is not None, "made with the partition"
        arrays |= {_MAIL + name: array for name, array in self.part.letters.kept().items()}
        inbox = self._inbox
        if self._how is not None:
            if inbox.mask.any():
                arrays["values"] = inbox.values
        else:
            for number, (slots, values) in enumerate(inbox.letters):
                arrays[f"slots:{number}"], arrays[f"letters:{number}"] = slots, values
            if inbox.column_values is not None:
                arrays["columns"] = inbox.column_values
            if inbox.column_mask is not None:
                arrays["there"] = inbox.column_mask
            if inbox.rows is not None:
                arrays["offsets"] = inbox.rows[0]
                arrays |= {f"row:{number}": array for number, array in enumerate(inbox.rows[1])}
        graphfile.write(sink.write, {"begun": self._begun}, arrays)

    def restore(self, data: memoryview) -> None:
        """See there."""
        found = graphfile.read(data)
        arrays = found.arrays
        self._begun = bool(found.meta["begun"])
        part = self.part
        part.state.clear()
        part.state.update(
            (name.removeprefix(_STATE), np.array(array)) for name, array in arrays.items() if name.startswith(_STATE)
        )
        self._remember()
        assert part.letters is not None, "just made"
        part.letters.restore(
            {name.removeprefix(_MAIL): array for name, array in arrays.items() if name.startswith(_MAIL)}
        )
        self._inbox = inbox = self._empty()
        if self._how is not None:
            if "values" in arrays:
                self._inbox = Inbox(part.n, np.array(arrays["values"]), self._how.identity)
            return
        for number in range(self._settings.partitions):
            if f"slots:{number}" in arrays:
                inbox.letters.append((arrays[f"slots:{number}"], arrays[f"letters:{number}"]))
        if "offsets" in arrays:
            count = sum(1 for name in arrays if name.startswith("row:"))
            inbox.rows = arrays["offsets"], [arrays[f"row:{number}"] for number in range(count)]
        inbox.column_values, inbox.column_mask = arrays.get("columns"), arrays.get("there")
        inbox.block = part.exchange.pulled if part.exchange is not None else None

    # Output

    def rows(self) -> Iterator[tuple[object, object]]:
        """See there."""
        ids = self._graph.ids()
        result = self._program.result(self.part)
        if isinstance(result, tuple):
            return zip(ids, zip(*(np.asarray(column).tolist() for column in result), strict=True), strict=True)
        return zip(ids, np.asarray(result).tolist(), strict=True)


class ArrayForm:
    """See `p2premap.worker.vertex.partition.Form`.

    Raises:
        VertexError: mail to vertices that do not exist is to create them, which this form cannot.
    """

    def __init__(self, program: ArrayProgram, settings: Settings) -> None:
        if settings.unknown == CREATE:
            raise VertexError("Mail cannot create vertices in the array form; use --unknown drop or error.")
        self.program = Hooks(program)
        self._program, self._settings = program, settings

    def partition(self, number: int, graph: memoryview | None) -> ArrayPartition:
        """See there."""
        return ArrayPartition(self._program, self._settings, number, graph)


def _active(n: int, halted: object) -> int:
    """How many go on, given what a program's `compute` returned.

    Raises:
        ValueError: it is neither a truth value nor a mask.
    """
    if halted is None or isinstance(halted, (bool, np.bool_)):
        return 0 if halted is None or halted else n
    mask = np.asarray(halted)
    if mask.shape != (n,) or mask.dtype != np.bool_:
        raise ValueError(f"compute returns True, False, None, or a mask of {n} booleans: those that halt.")
    return n - int(np.count_nonzero(mask))


_EMPTY: Final = graphfile.Graph(
    {}, {"keys": np.empty(0, np.int64), "indptr": np.zeros(1, np.int64), "targets": np.empty(0, np.int64)}
)
