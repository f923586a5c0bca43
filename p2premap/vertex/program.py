"""What a user writes of a vertex job: a class derived from `VertexProgram` or `ArrayProgram`, in a job file.

`VertexProgram` thinks like a vertex: `compute` is called for each vertex that is active or has mail. `ArrayProgram`
thinks like a partition: `compute` is called once for all its vertices, on arrays. What else they have (aggregators,
`master`, options) is the same.

An instance is made in every process that works for the job, and holds options only: what is to outlive a superstep
stands in vertices and aggregators. Everything must depend on nothing but what it is given: after a loss some supersteps
are computed again. Random numbers are `ctx.rng`.

Source: Malewicz et al., Pregel (SIGMOD 2010), 3.
"""

from __future__ import annotations

import enum
import functools
import inspect
import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, Protocol, cast

from p2premap.vertex.barrier import Globals, VertexError

Reduce = Callable[[Any, Any], Any]


class Verdict(enum.Enum):
    """What a master hook may say beside names and values."""

    STOP = "stop"
    """The job ends here."""


STOP: Final = Verdict.STOP

REDUCTIONS: Final[Mapping[str, Reduce]] = {
    "sum": operator.add,
    "min": min,
    "max": max,
    "any": operator.or_,
    "all": operator.and_,
}
"""What aggregators and combiners can be said by."""


class Aggregator(NamedTuple):
    """Something that vertices give values for; all of them see the sum (or whatever it is) a superstep later.

    Args:
        reduce: a name of `REDUCTIONS`, or a function of two values; it must not matter in which order they come.
        persistent: it goes on from superstep to superstep, instead of beginning anew.
    """

    reduce: str | Reduce
    persistent: bool = False


class Program:
    """What both forms have.

    Attributes:
        aggregators: by name: a name of `REDUCTIONS`, a function of two values, or an `Aggregator`.
    """

    aggregators: ClassVar[Mapping[str, str | Reduce | Aggregator]] = {}

    def master(self, now: Globals) -> Mapping[str, object] | Verdict | None:
        """Called before each superstep but the first, in every process alike; it must depend on `now` alone.

        Returns:
            None: go on. `Verdict.STOP`: the job ends here. Names and values: they stand among the aggregates until the
            next superstep.
        """
        return None


class Send(Protocol):
    """What sends mail: `ctx.send`."""

    def __call__(self, to: Hashable, value: object) -> None:
        """Send a value to a vertex, or to each of a list (or tuple) of them. It arrives in the next superstep."""

    def all(self, value: object) -> None:
        """Send a value along all edges of the vertex."""


class Vertex(Protocol):
    """A vertex, as `VertexProgram.compute` is given it.

    Attributes:
        id: a string or an integer.
        value: its state: anything that can be pickled. What is put here stays.
        edges: ids of the vertices that its edges lead to. They change through the context only, between supersteps.
        edge_values: one for each of `edges`, or None where edges have none; they may be changed in place.
    """

    id: Hashable
    value: Any
    edge_values: list[Any] | None

    @property
    def edges(self) -> tuple[Hashable, ...]:
        """See above."""


class VertexContext(Protocol):
    """What a vertex may do while it computes.

    Attributes:
        superstep: from 0.
        vertices, edges: how many the graph has.
        aggregates: by name, of the superstep before; nothing stands there for what nobody gave.
        send: sends mail.
    """

    superstep: int
    vertices: int
    edges: int
    aggregates: Mapping[str, Any]
    send: Send

    def halt(self) -> None:
        """Vote to halt: not called again until mail comes. The job ends when all have, and no mail is under way."""

    def aggregate(self, name: str, value: object) -> None:
        """Give a value to an aggregator."""

    def subscribe(self, id: Hashable) -> None:
        """From the next superstep on, what is sent to this id comes here as well, be it a vertex or only a name."""

    def unsubscribe(self, id: Hashable) -> None:
        """No more, from the next superstep on."""

    def add_vertex(
        self, id: Hashable, value: object = None, edges: Iterable[Hashable] = (), edge_values: Iterable[object] = ()
    ) -> None:
        """From the next superstep on there is one more vertex, active; one that is there already stays as it is."""

    def remove_vertex(self, id: Hashable) -> None:
        """It and its edges are gone with the next superstep; mail to it, and edges that lead to it, lead nowhere."""

    def add_edge(self, source: Hashable, target: Hashable, value: object = None) -> None:
        """One more edge from the next superstep on."""

    def remove_edge(self, source: Hashable, target: Hashable) -> None:
        """The first edge from `source` to `target` is gone with the next superstep."""

    @property
    def rng(self) -> Any:  # noqa: ANN401  (a random.Random, which is no part of this room)
        """A `random.Random` of this vertex in this superstep: the same whenever it is computed again."""


class VertexProgram(Program):
    """A program that is called for each vertex.

    Attributes:
        combiner: messages to one vertex become one before they travel: "sum", "min", "max", or a function of two of
            them; None: a vertex gets all, in an order that is the same whenever it is computed again.
        every: `compute` is called for every vertex in every superstep, whether it has voted to halt or not.
        weighted: edges of lists of edges have values in any case; where the input has none they are 1.
    """

    combiner: ClassVar[str | Reduce | None] = None
    every: ClassVar[bool] = False
    weighted: bool = False

    def prepare(self, line: str) -> Sequence[Any] | None:
        """A line of an input: (id, value), (id, value, edges) or (id, value, edges, edge values); None: no vertex.

        Programs that have none get their vertices from lists of edges, with the value that `create` gives.
        """
        raise NotImplementedError

    def create(self, id: Hashable) -> Any:  # noqa: ANN401  (any state)
        """The value of a vertex that no line described: from a list of edges, or because mail was sent to it."""
        return None

    def compute(self, ctx: Any, vertex: Any, messages: Sequence[Any]) -> None:  # noqa: ANN401  (see above)
        """One superstep of one vertex.

        Args:
            ctx: a `VertexContext`.
            vertex: a `Vertex`.
            messages: the mail; with a combiner one message, or none.
        """
        raise NotImplementedError

    def result(self, vertex: Any) -> Any:  # noqa: ANN401  (any value)
        """What the output says of a vertex."""
        return vertex.value


class ArrayProgram(Program):
    """A program that is called for each partition.

    Attributes:
        combine: values for one vertex become one: "sum", "min" or "max"; "": the inbox has lists of all.
        dtype: of values in mail, as numpy calls it.
        edge: what the weight of an edge does to a value that goes along it: "add", "multiply", or "": nothing.
        view: "directed": edges as they are; "both": each can be gone along from both of its ends; "simple": the same,
            but each neighbour once, and no loops.
        weighted: it needs weights; where the input has none they are 1.
        fresh: of a program that adds or removes vertices: the names of those arrays of its state that have one entry a
            vertex, and what a new vertex has there.
    """

    combine: str = "sum"
    dtype: str = "float64"
    edge: str = ""
    view: str = "directed"
    weighted: bool = False
    fresh: ClassVar[Mapping[str, Any]] = {}

    def start(self, part: Any) -> None:  # noqa: ANN401  (a p2premap.worker.vertex.part.Part, of another room)
        """Before superstep 0: give `part.state` its arrays, one entry a vertex."""
        raise NotImplementedError

    def compute(self, part: Any, inbox: Any) -> Any:  # noqa: ANN401  (arrays)
        """One superstep of all vertices of a partition.

        Returns:
            None or True: all vote to halt (mail wakes them). False: none does. An array of booleans: these do.
        """
        raise NotImplementedError

    def result(self, part: Any) -> Any:  # noqa: ANN401  (arrays)
        """What the output says of the vertices: an array with one entry a vertex, or several of them."""
        raise NotImplementedError


REQUIRED: Final[Mapping[str, Mapping[str, str]]] = {
    "VertexProgram": {"compute": "compute(self, ctx, vertex, messages)"},
    "ArrayProgram": {
        "start": "start(self, part)",
        "compute": "compute(self, part, inbox)",
        "result": "result(self, part)",
    },
}
"""What a program must have, by what it derives from."""


class Hooks:
    """A program's hooks as `p2premap.vertex.barrier.Program` wants them.

    Args:
        program: whose.
    """

    def __init__(self, program: Program) -> None:
        self._master = program.master
        declared = {name: _aggregator(name, said) for name, said in program.aggregators.items()}
        self._reductions = {name: reduction(said.reduce, f"aggregator {name!r}") for name, said in declared.items()}
        self._persistent = tuple(name for name, said in declared.items() if said.persistent)

    def reduce(self, name: str) -> Reduce:
        """What makes one value of two.

        Raises:
            VertexError: nobody declared this aggregator.
        """
        try:
            return self._reductions[name]
        except KeyError:
            known = ", ".join(self._reductions) or "none"
            raise VertexError(f"There is no aggregator {name!r}; the program declares {known}.") from None

    def merge(self, name: str, values: Sequence[object]) -> object:
        """See `p2premap.vertex.barrier.Program.merge`."""
        return functools.reduce(self.reduce(name), values)

    def persistent(self) -> Sequence[str]:
        """See `p2premap.vertex.barrier.Program.persistent`."""
        return self._persistent

    def master(self, now: Globals) -> Mapping[str, object] | None:
        """See `p2premap.vertex.barrier.Program.master`.

        Raises:
            VertexError: the hook said something else than it may.
            Exception: what it raises.
        """
        said = self._master(now)
        if said is None:
            return {}
        if said is Verdict.STOP:
            return None
        if not isinstance(said, Mapping) or not all(isinstance(name, str) for name in said):
            raise VertexError(
                f"master returned {said!r:.100}: it must be None, Verdict.STOP, or a dict of names and values."
            )
        return said


def _aggregator(name: str, said: str | Reduce | Aggregator) -> Aggregator:
    return said if isinstance(said, Aggregator) else Aggregator(said)


def combiner_of(program: VertexProgram) -> str | Reduce | None:
    """The program's combiner. A function of two arguments that stands in the class is meant as it is, without self."""
    said = inspect.getattr_static(program, "combiner")
    if inspect.isfunction(said) and said.__code__.co_argcount == 2:
        return said
    return cast("str | Reduce | None", program.combiner)


def reduction(said: str | Reduce, whose: str) -> Reduce:
    """The function that a name, or a function, stands for.

    Raises:
        VertexError: there is none of this name.
    """
    if callable(said):
        return said
    if (known := REDUCTIONS.get(said)) is None:
        raise VertexError(f"The {whose} is {said!r}: say {', '.join(REDUCTIONS)}, or a function of two values.")
    return known


def set_options(program: Program, options: Mapping[str, object], *, integers: bool = False) -> None:
    """Give a program its options: each is an attribute that it has, of the same type.

    One that is None usually is the id of a vertex.

    Args:
        integers: ids are integers.

    Raises:
        VertexError: it has no such option, or one of another type.
    """
    for name, value in options.items():
        usual: object = getattr(program, name, None)
        if name.startswith("_") or callable(usual) or not hasattr(program, name):
            raise VertexError(f"{type(program).__name__} has no option {name!r}.")
        if usual is None and integers and isinstance(value, str):
            value = _integer(value)
        setattr(program, name, _converted(type(program).__name__, name, usual, value))


def _integer(text: str) -> int | str:
    """The integer that a text is, else the text."""
    try:
        return int(text)
    except ValueError:
        return text


def _converted(program: str, name: str, usual: object, value: object) -> object:
    if usual is None or isinstance(value, type(usual)):
        return value
    try:
        if isinstance(usual, bool):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[str(value).lower()]
        if isinstance(usual, int):
            return int(str(value))
        if isinstance(usual, float):
            return float(str(value))
    except (KeyError, TypeError, ValueError):
        pass
    kind = type(usual).__name__
    raise VertexError(f"The option {name} of {program} is {value!r}: it must be of type {kind}.")
