"""The array form: a program that is called once a partition and superstep, with arrays of all its vertices.

A `p2premap.worker.vertex.part.Part` is what the program sees: the vertices here in ascending order of their keys, its
own state arrays, and ways to send. What is sent along edges goes through the plans of `exchange`, changes of the graph
through `rewiring`, everything else through `letters`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from p2premap.vertex.loading import BOTH, unpack_reading
from p2premap.vertex.plan import CREATE, ERROR, Settings
from p2premap.vertex.program import ArrayProgram, Hooks
from p2premap.worker.gang import Buffer
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.exchange import ALONG_EDGES, Exchange, unpack
from p2premap.worker.vertex.kernels import Array, Edges, Keys, places_of, reducer, simple
from p2premap.worker.vertex.letters import Letters
from p2premap.worker.vertex.owners import ranges_of
from p2premap.worker.vertex.part import Inbox, Part
from p2premap.worker.vertex.partition import Did, Globals, Sink, Turned, VertexError
from p2premap.worker.vertex.rewiring import CHANGES, moved

_EDGE: Final = {"": None, "add": np.add, "multiply": np.multiply}
_VIEWS: Final = ("directed", "both", "simple")
_STATE: Final = "state:"
_MAIL: Final = "mail:"
_GRAPH: Final = "graph:"
_LISTS: Final = ("list_starts", "list_counts", "list_values")


class ArrayPartition:
    """See `p2premap.worker.vertex.partition.Partition`.

    Args:
        graph: the blob; None: there are no vertices here.
    """

    agrees = True

    def __init__(self, program: ArrayProgram, settings: Settings, number: int, graph: memoryview | None) -> None:
        self.number = number
        self._program, self._settings = program, settings
        self._dtype = np.dtype(program.dtype)
        self._how = reducer(program.combine, self._dtype) if program.combine else None
        self._ranges = ranges_of(settings)
        found = graphfile.read(graph) if graph else _EMPTY
        self.part = Part(number, found, self._view(found), settings)
        self._inbox: Inbox = self._empty()
        self._begun = False
        self._rewired = False
        self._telling: Exchange | None = None
        self._remember()

    def _view(self, graph: graphfile.Graph) -> Edges:
        if self._program.view != "simple":
            return Edges(graph.indptr, graph.targets, None)
        forward = None if graph.meta.get("undirected") else graph.forward
        return simple(graph.keys, graph.indptr, graph.targets, forward)

    def _remember(self) -> None:
        part, settings = self.part, self._settings
        part.letters = Letters(settings.partitions, self._ranges, self._how, part.state, lambda: part.graph.names())

    def _empty(self) -> Inbox:
        if self._how is None:
            return Inbox(self.part.n, None, None)
        return Inbox(self.part.n, np.full(self.part.n, self._how.identity, self._dtype), self._how.identity)

    # Agreeing

    def begin(self) -> None:
        """See there."""
        self._begun = False

    def renew(self, *, changed: bool) -> None:
        """See there."""
        if changed:
            self._keep_mail()
        self._telling = self._exchange()

    def _keep_mail(self) -> None:
        """Where the graph has changed elsewhere, too, mail must be told without the edges that it came along."""
        if self._inbox.rows is not None:
            raise VertexError(
                f"In superstep {self.part.superstep} the graph was changed, and send_rows was called: rows are told by "
                "the edges that they came along, so change the graph in another superstep."
            )
        self._inbox.keep(None)

    def counts(self) -> tuple[int, int]:
        """See there."""
        graph = self.part.graph
        return self.part.n, len(graph.targets) if graph.forward is None else int(np.count_nonzero(graph.forward))

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
            weights = self.part.graph.weights
            weights = np.ones(len(edges.targets)) if weights is None else weights
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
        part.rewiring.begin()
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
        added, asked = part.rewiring.added, part.rewiring.asked
        return Did(active + added, part.sent, part.aggregates, part.n, asked)

    def mail(self, partition: int) -> Sequence[Buffer]:
        """See there."""
        part = self.part
        assert part.exchange is not None, "it has computed"
        assert part.letters is not None, "made with the partition"
        return [*part.exchange.mail(partition), *part.letters.mail(partition), *part.rewiring.mail(partition)]

    def deliver(self, source: int, mail: memoryview) -> None:
        """See there."""
        assert self.part.exchange is not None, "the partitions have agreed"
        assert self.part.letters is not None, "made with the partition"
        for kind, arrays in unpack(mail):
            if kind in ALONG_EDGES:
                self.part.exchange.take(source, kind, arrays)
            elif kind in CHANGES:
                self.part.rewiring.take(kind, arrays)
            else:
                self.part.letters.take(source, kind, arrays)

    def turn(self) -> Turned:
        """See there."""
        part = self.part
        assert part.exchange is not None, "the partitions have agreed"
        assert part.letters is not None, "made with the partition"
        self._inbox = self._along(part.exchange)
        changed, gone = self._rewire()
        letters = part.letters.turn(part.keys)
        if self._how is None:
            self._inbox.letters = letters
        else:
            values = self._inbox.values
            for slots, sent in letters:
                values[slots] = self._how.ufunc(values[slots], sent)
        dropped = part.exchange.lost() + part.letters.lost() + gone
        if dropped and self._settings.unknown == ERROR:
            raise VertexError(
                f"In superstep {part.superstep}, {dropped} messages went to vertices that do not exist; "
                f"--unknown drop counts them and goes on."
            )
        return Turned(0, changed=changed, dropped=dropped)

    def _along(self, exchange: Exchange) -> Inbox:
        """What came along edges."""
        if self._how is not None:
            values = exchange.reduce()
            return self._empty() if values is None else Inbox(self.part.n, values, self._how.identity)
        inbox = self._empty()
        inbox.block = exchange.pulled
        inbox.column_values, inbox.column_mask = exchange.columns()
        inbox.rows = exchange.rows()
        return inbox

    def _rewire(self) -> tuple[bool, int]:
        """Make the changes of the graph that were asked for: whether there were any, and how many values came along
        edges for vertices that are gone. One that went and came again is new, and has its mail.

        Raises:
            VertexError: the program does not say what is to become of its state.
        """
        part = self.part
        found = part.rewiring.rewired(part.graph)
        if found is None:
            return False, 0
        places = None
        if found.before is not None:
            self._refit(found.before)
            places = places_of(part.keys, found.graph.keys).astype(np.int64)
        gone = self._inbox.keep(places)
        part.rewire(found.graph, self._view(found.graph))
        self._rewired = True
        return True, gone

    def _refit(self, before: Keys) -> None:
        """Vertices have come or gone: the arrays of the state that the program names get entries for those there are
        now."""
        part, fresh, name = self.part, self._program.fresh, type(self._program).__name__
        if not fresh:
            raise VertexError(
                f"{name} adds or removes vertices: say in its attribute `fresh` what a new vertex has in each array of "
                'the state that has one entry a vertex, such as fresh = {"rank": 0.0}.'
            )
        for what, value in fresh.items():
            array = part.state.get(what)
            if array is None or array.shape[:1] != (part.n,):
                shape = "is not there" if array is None else f"has the shape {array.shape}"
                raise VertexError(
                    f"{name} names {what!r} in `fresh`: part.state[{what!r}] must have one entry for each of "
                    f"{part.n} vertices, and {shape}."
                )
            part.state[what] = moved(array, before, value)

    # Checkpoints

    def snapshot(self, sink: Sink) -> None:
        """See there."""
        arrays: dict[str, Array] = {_STATE + name: np.asarray(array) for name, array in self.part.state.items()}
        meta: dict[str, bool | str] = {"begun": self._begun}
        for name, array in arrays.items():
            if not graphfile.can_hold(array):
                raise VertexError(
                    f"part.state[{name.removeprefix(_STATE)!r}] is an array of {array.dtype}, which no checkpoint can "
                    "hold: use numbers or truth values of numpy."
                )
            if array.ndim != 1:
                meta[name] = ",".join(map(str, array.shape))
        assert self.part.letters is not None, "made with the partition"
        arrays |= {_MAIL + name: array for name, array in self.part.letters.kept().items()}
        if self._rewired:
            arrays |= {_GRAPH + name: array for name, array in self.part.graph.arrays.items()}
        inbox = self._inbox
        if self._how is not None:
            if inbox.mask.any():
                arrays["values"] = inbox.values
        else:
            for number, (slots, values) in enumerate(inbox.letters):
                arrays[f"slots:{number}"], arrays[f"letters:{number}"] = slots, values
            if inbox.kept is not None:
                arrays |= dict(zip(_LISTS, inbox.kept, strict=True))
            if inbox.column_values is not None:
                arrays["columns"] = inbox.column_values
            if inbox.column_mask is not None:
                arrays["there"] = inbox.column_mask
            if inbox.rows is not None:
                arrays["offsets"] = inbox.rows[0]
                arrays |= {f"row:{number}": array for number, array in enumerate(inbox.rows[1])}
        graphfile.write(sink.write, meta, arrays)

    def restore(self, data: memoryview) -> None:
        """See there."""
        found = graphfile.read(data)
        arrays = found.arrays
        self._begun = bool(found.meta["begun"])
        part = self.part
        graph = {name.removeprefix(_GRAPH): array for name, array in arrays.items() if name.startswith(_GRAPH)}
        self._rewired = bool(graph)
        if graph:
            rewired = graphfile.Graph(part.graph.meta, graph)
            part.rewire(rewired, self._view(rewired))
        part.state.clear()
        part.state.update(
            (name.removeprefix(_STATE), np.array(array).reshape(_shape(found.meta.get(name))))
            for name, array in arrays.items()
            if name.startswith(_STATE)
        )
        self._remember()
        assert part.letters is not None, "just made"
        part.letters.restore(
            {name.removeprefix(_MAIL): array for name, array in arrays.items() if name.startswith(_MAIL)}
        )
        # a program may write into what came, which is a view of a file here
        came = {name: np.array(array) for name, array in arrays.items() if not name.startswith((_STATE, _MAIL, _GRAPH))}
        self._inbox = inbox = self._empty()
        if self._how is not None:
            if "values" in came:
                self._inbox = Inbox(part.n, came["values"], self._how.identity)
            return
        for number in range(self._settings.partitions):
            if f"slots:{number}" in came:
                inbox.letters.append((came[f"slots:{number}"], came[f"letters:{number}"]))
        if "offsets" in came:
            count = sum(1 for name in came if name.startswith("row:"))
            inbox.rows = came["offsets"], [came[f"row:{number}"] for number in range(count)]
        inbox.column_values, inbox.column_mask = came.get("columns"), came.get("there")
        if _LISTS[0] in came:
            inbox.kept = came[_LISTS[0]], came[_LISTS[1]], came[_LISTS[2]]
        inbox.block = part.exchange.pulled if part.exchange is not None else None

    # Output

    def rows(self) -> Iterator[tuple[object, object]]:
        """See there."""
        ids = self.part.graph.ids()
        result = self._program.result(self.part)
        columns = [np.asarray(column) for column in (result if isinstance(result, tuple) else (result,))]
        for column in columns:
            if column.shape[:1] != (self.part.n,):
                raise VertexError(
                    f"result of {type(self._program).__name__} gave an array of the shape {column.shape}: it must have "
                    f"one entry for each of the {self.part.n} vertices of the partition."
                )
        if isinstance(result, tuple):
            return zip(ids, zip(*(column.tolist() for column in columns), strict=True), strict=True)
        return zip(ids, columns[0].tolist(), strict=True)


class ArrayForm:
    """See `p2premap.worker.vertex.partition.Form`.

    Raises:
        VertexError: mail to vertices that do not exist is to create them, which this form cannot; or the graph was not
            built as the program wants to see it.
    """

    def __init__(self, program: ArrayProgram, settings: Settings) -> None:
        if settings.unknown == CREATE:
            raise VertexError("Mail cannot create vertices in the array form; use --unknown drop or error.")
        _check(program, settings)
        self.program = Hooks(program)
        self._program, self._settings = program, settings

    def partition(self, number: int, graph: memoryview | None) -> ArrayPartition:
        """See there."""
        return ArrayPartition(self._program, self._settings, number, graph)


def _check(program: ArrayProgram, settings: Settings) -> None:
    """Whether the graph was built as this program wants it: what builds it knows the class by its text only."""
    name = type(program).__name__
    if program.view not in _VIEWS:
        raise VertexError(f"The view of {name} is {program.view!r}: say one of {', '.join(_VIEWS)}.")
    if program.edge not in _EDGE:
        known = ", ".join(repr(edge) for edge in _EDGE)
        raise VertexError(f"What the weight of an edge does to a value, in {name}, is {program.edge!r}: say {known}.")
    if program.edge and program.view == "simple":
        raise VertexError(f"{name} wants weights, and a simple graph has none: leave out edge, or the view.")
    if program.view != "directed" and unpack_reading(settings.reading).view != BOTH:
        raise VertexError(
            f"The graph was built without looking at edges from both ends, as the view {program.view!r} of {name} "
            f'needs: write view = "{program.view}" into the class itself.'
        )


def _shape(said: object) -> tuple[int, ...]:
    """The shape that a snapshot says; of most arrays it says nothing."""
    return (-1,) if said is None else tuple(int(size) for size in str(said).split(",") if size)


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
