"""A vertex, and what it may do: what `p2premap.vertex.program` promises to `VertexProgram.compute`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from random import Random
from typing import Any, Final, NamedTuple, cast

from p2premap.vertex.barrier import Globals, VertexError
from p2premap.vertex.program import Hooks, Program, Send
from p2premap.worker.vertex.outbox import Alongs, Manies, Ones

NO_EDGES: Final[tuple[Hashable, ...]] = ()


class Vertex:
    """See `p2premap.vertex.program.Vertex`. `slot` is its place in the partition."""

    __slots__ = ("_edges", "edge_values", "id", "slot", "value")

    def __init__(
        self,
        id: Hashable,
        value: Any,  # noqa: ANN401  (any state)
        edges: tuple[Hashable, ...],
        edge_values: list[Any] | None,
        slot: int,
    ) -> None:
        self.id = id
        self.value = value
        self._edges = edges
        self.edge_values = edge_values
        self.slot = slot

    @property
    def edges(self) -> tuple[Hashable, ...]:
        """Where its edges lead to."""
        return self._edges

    def rewire(self, edges: tuple[Hashable, ...], edge_values: list[Any] | None) -> None:
        """Other edges than before; the partition's business."""
        self._edges, self.edge_values = edges, edge_values


class Change(NamedTuple):
    """A change of the graph, or of subscriptions, that was asked for.

    Args:
        kind: one of those below, in the order in which they are made (Pregel 3.4).
        id: of the vertex; of an edge, its source; of a subscription, what is subscribed to.
        other: the target; who subscribes.
        value: of a vertex, or an edge.
        edges, edge_values: of a new vertex.
    """

    kind: int
    id: Hashable
    other: Hashable = None
    value: Any = None
    edges: tuple[Hashable, ...] = NO_EDGES
    edge_values: list[Any] | None = None


REMOVE_EDGE, REMOVE_VERTEX, ADD_VERTEX, ADD_EDGE, SUBSCRIBE, UNSUBSCRIBE = range(6)


class Context:
    """See `p2premap.vertex.program.VertexContext`.

    Args:
        program: whose.
        hooks: of the program.
        seed: of the job.
        ones, manies, alongs: what is sent goes there.
    """

    __slots__ = (
        "_given",
        "_hooks",
        "_random",
        "_seed",
        "_seeded",
        "aggregate",
        "aggregates",
        "changes",
        "edges",
        "halt",
        "halted",
        "send",
        "superstep",
        "vertex",
        "vertices",
    )

    def __init__(self, program: Program, hooks: Hooks, seed: bytes, ones: Ones, manies: Manies, alongs: Alongs) -> None:
        self._hooks = hooks
        self._seed = seed.hex()
        self._random = Random(0)
        self._seeded: object = None
        self._given: dict[str, list[Any]] = {name: [] for name in program.aggregators}
        self.superstep = self.vertices = self.edges = 0
        self.aggregates: Mapping[str, Any] = {}
        self.changes: list[Change] = []
        self.halted: list[int] = []
        self.vertex: Any = None
        self.send: Send = _sender(self, ones, manies, alongs)
        self.halt: Callable[[], None] = _halter(self)
        self.aggregate: Callable[[str, object], None] = _aggregator(self._given, hooks)

    def begin(self, globals: Globals) -> None:
        """A superstep begins."""
        self.superstep, self.vertices, self.edges = globals.superstep, globals.vertices, globals.edges
        self.aggregates = globals.aggregates
        self.changes, self.halted = [], []
        self._seeded = None
        for values in self._given.values():
            values.clear()

    def given(self) -> dict[str, object]:
        """What this partition gives to each aggregator."""
        return {name: self._hooks.merge(name, values) for name, values in self._given.items() if values}

    def subscribe(self, id: Hashable) -> None:
        """See `VertexContext`."""
        self.changes.append(Change(SUBSCRIBE, id, self.vertex.id))

    def unsubscribe(self, id: Hashable) -> None:
        """See `VertexContext`."""
        self.changes.append(Change(UNSUBSCRIBE, id, self.vertex.id))

    def add_vertex(
        self,
        id: Hashable,
        value: Any = None,  # noqa: ANN401  (any state)
        edges: Iterable[Hashable] = (),
        edge_values: Iterable[object] = (),
    ) -> None:
        """See `VertexContext`.

        Raises:
            VertexError: there is not one edge value for each edge.
        """
        targets, values = tuple(edges), list(edge_values)
        if values and len(values) != len(targets):
            raise VertexError(f"add_vertex({id!r}) was given {len(targets)} edges and {len(values)} edge values.")
        self.changes.append(Change(ADD_VERTEX, id, None, value, targets, values or None))

    def remove_vertex(self, id: Hashable) -> None:
        """See `VertexContext`."""
        self.changes.append(Change(REMOVE_VERTEX, id))

    def add_edge(self, source: Hashable, target: Hashable, value: Any = None) -> None:  # noqa: ANN401  (any value)
        """See `VertexContext`."""
        self.changes.append(Change(ADD_EDGE, source, target, value))

    def remove_edge(self, source: Hashable, target: Hashable) -> None:
        """See `VertexContext`."""
        self.changes.append(Change(REMOVE_EDGE, source, target))

    @property
    def rng(self) -> Random:
        """See `VertexContext`."""
        if self._seeded is not self.vertex:
            self._seeded = self.vertex
            self._random.seed(f"{self._seed}/{self.superstep}/{self.vertex.id!r}", version=2)
        return self._random


def _sender(ctx: Context, ones: Ones, manies: Manies, alongs: Alongs) -> Send:
    """A function with an attribute `all`: calling an object's method takes half as long again."""

    def send(to: Any, value: object) -> None:  # noqa: ANN401  (an id, or many)
        if to.__class__ is list or to.__class__ is tuple:
            manies.targets.extend(to)
            manies.counts.append(len(to))
            manies.values.append(value)
        else:
            ones.targets.append(to)
            ones.values.append(value)

    def along(value: object) -> None:
        alongs.rows.append(ctx.vertex.slot)
        alongs.values.append(value)

    send.all = along  # type: ignore[attr-defined]
    return cast("Send", send)


def _halter(ctx: Context) -> Callable[[], None]:
    def halt() -> None:
        ctx.halted.append(ctx.vertex.slot)

    return halt


def _aggregator(given: dict[str, list[Any]], hooks: Hooks) -> Callable[[str, object], None]:
    def aggregate(name: str, value: object) -> None:
        try:
            given[name].append(value)
        except KeyError:
            hooks.reduce(name)  # says so
            raise

    return aggregate
