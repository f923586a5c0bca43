"""The form of vertex programs that call user code for each vertex: `ObjectPartition` and what makes it.

Vertices are Python objects in a list; a place in it is a *slot*, which a vertex keeps for as long as the job lives.
User code fills lists; what follows (sorting messages by target, combining, sending, bringing together) is done by
numpy, a superstep at a time.

Blobs are pickles: members trust one another, and only workers read them. The graph blob, written once, has ids and
edges; a state blob has what changes: values, votes, messages, and what became of the graph.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from p2premap.vertex.barrier import Carried, Globals, VertexError
from p2premap.vertex.plan import CREATE, ERROR, Settings
from p2premap.vertex.program import Hooks, VertexProgram, combiner_of
from p2premap.worker.failure import sentence_of
from p2premap.worker.gang import Buffer
from p2premap.worker.vertex import graphfile, inbox
from p2premap.worker.vertex.changes import Changed, Graph, route
from p2premap.worker.vertex.columns import Column, Ints, Longs
from p2premap.worker.vertex.combining import Combiner
from p2premap.worker.vertex.context import ADD_VERTEX, Context, Vertex
from p2premap.worker.vertex.engine import state_head
from p2premap.worker.vertex.inbox import NOBODY, Letter, Messages, Sorter, Tables, unpack
from p2premap.worker.vertex.naming import Naming
from p2premap.worker.vertex.outbox import ALONG, MANY, ONE, Alongs, Batch, Manies, Ones, Outbox
from p2premap.worker.vertex.owners import Keys, ranges_of
from p2premap.worker.vertex.partition import Did, Sink, Turned

Row = tuple[Hashable, Any, Sequence[Hashable] | None, Sequence[Any] | None]
"""A vertex as it is loaded: id, value, edges, edge values."""

_PROTOCOL: Final = 5


class ObjectForm:
    """Makes partitions; see `p2premap.worker.vertex.partition.Form`.

    Args:
        program: the user's.
        settings: of the job.
    """

    def __init__(self, program: VertexProgram, settings: Settings) -> None:
        self.program = Hooks(program)
        self._program = program
        self._settings = settings
        self._ranges = ranges_of(settings)
        combiner = combiner_of(program)
        self._combiner = None if combiner is None else Combiner(combiner)

    def partition(self, number: int, graph: memoryview | None) -> ObjectPartition:
        """See `p2premap.worker.vertex.partition.Form`."""
        return ObjectPartition(number, graph, self._program, self.program, self._settings, self._combiner, self._ranges)


def write_graph(rows: Iterable[Row], graph: Sink, state: Sink) -> tuple[int, int]:
    """Write the blobs of a partition as it is before superstep 0.

    Returns:
        How many vertices and edges it has.

    Raises:
        VertexError: two vertices have one id.
    """
    ids: list[Hashable] = []
    values: list[Any] = []
    edges: list[tuple[Hashable, ...]] = []
    edge_values: list[list[Any] | None] = []
    for id, value, targets, weights in rows:
        ids.append(id)
        values.append(value)
        edges.append(() if targets is None else tuple(targets))
        edge_values.append(None if weights is None else list(weights))
    if len(set(ids)) < len(ids):
        seen: set[Hashable] = set()
        twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise VertexError(f"The vertex {twice!r} is described twice: give each vertex one line.")
    graph.write(pickle.dumps((ids, edges if any(edges) else None), _PROTOCOL))
    state.write(state_head(Carried()))
    weighted = edge_values if any(weights is not None for weights in edge_values) else None
    state.write(pickle.dumps((values, weighted, None, inbox.packed(inbox.NONE), None, {}), _PROTOCOL))
    return len(ids), sum(map(len, edges))


def _read_graph(data: memoryview | None, program: VertexProgram) -> tuple[Graph, Naming | None]:
    """A graph blob of either kind: pickled by `write_graph`, or arrays, where lists of edges were loaded."""
    if data is None:
        return Graph([], None, program), None
    if bytes(data[: len(graphfile.MAGIC)]) != graphfile.MAGIC:
        ids, edges = pickle.loads(data)  # noqa: S301  (of a member, in a worker)
        return Graph(ids, edges, program), None
    arrays = graphfile.read(data)
    targets, bounds = arrays.targets.tolist(), arrays.indptr.tolist()
    graph = Graph(arrays.ids(), [tuple(targets[a:b]) for a, b in pairwise(bounds)], program)
    if arrays.weights is not None:
        weights = arrays.weights.tolist()
        for vertex, (a, b) in zip(graph.vertices, pairwise(bounds), strict=True):
            assert vertex is not None, "nothing was removed yet"
            vertex.edge_values = weights[a:b]
    return graph, Naming(graph, arrays.keys.tolist()) if "names_offsets" in arrays.arrays else None


class ObjectPartition:
    """One partition; see `p2premap.worker.vertex.partition.Partition`."""

    def __init__(
        self,
        number: int,
        graph: memoryview | None,
        program: VertexProgram,
        hooks: Hooks,
        settings: Settings,
        combiner: Combiner | None,
        ranges: Keys | None,
    ) -> None:
        self.number = number
        self._program = program
        self._settings = settings
        self._partitions = settings.partitions
        self._ranges = ranges
        self._graph, self._naming = _read_graph(graph, program)
        self.agrees = self._naming is not None
        self._active = np.ones(len(self._graph.vertices), bool)
        self._messages: Messages = inbox.NONE
        self._letters: list[Letter] = []
        self._ones, self._manies, self._alongs = Ones(), Manies(), Alongs()
        self._context = Context(program, hooks, settings.seed, self._ones, self._manies, self._alongs)
        self._outbox = Outbox(settings.partitions, ranges, combiner)
        self._tables = Tables(settings.partitions)
        self._sorter = Sorter(combiner)
        self._mails: list[list[Buffer]] = []
        self._topics: dict[Hashable, list[Hashable]] = {}

    def begin(self) -> None:
        """See `Partition`. From lists of edges: values are those that the program creates."""
        for vertex in self._graph.vertices:
            assert vertex is not None, "nothing was removed yet"
            try:
                vertex.value = self._program.create(vertex.id)
            except Exception as error:
                error.add_note(f"create was called for vertex {vertex.id!r}")
                raise

    def counts(self) -> tuple[int, int]:
        """See `Partition`."""
        return self._graph.vertex_count, self._graph.edge_count

    def renew(self, *, changed: bool) -> None:
        """See `Partition`."""
        self._outbox.renew()
        self._tables.renew()
        for channel in (self._ones, self._manies, self._alongs):
            channel.forget()

    def requests(self, partition: int) -> Sequence[Buffer]:
        """Which ids are behind edges: see `p2premap.worker.vertex.naming`."""
        return () if self._naming is None else self._naming.request(partition, self._partitions, self._ranges)

    def answers(self, source: int, request: memoryview) -> Sequence[Buffer]:
        """See `requests`."""
        return () if self._naming is None else self._naming.answer(request)

    def agreed(self, source: int, answer: memoryview) -> None:
        """See `requests`."""
        if self._naming is not None:
            self._naming.take(source, answer)

    # --- a superstep ----------------------------------------------------------------------------------------------

    def compute(self, superstep: int, globals: Globals) -> Did:
        """See `Partition`."""
        if self._naming is not None:
            self._naming.finish()
        ctx = self._context
        ctx.begin(globals)
        rows, vertices = self._due()
        messages = self._messages.of(rows, len(self._graph.vertices))
        vertex: Vertex | None = None
        compute = self._program.compute
        try:
            for vertex, mail in zip(vertices, messages, strict=True):
                ctx.vertex = vertex
                compute(ctx, vertex, mail)
            aggregates = ctx.given()
        except Exception as error:
            raise self._blamed(error, vertex, superstep) from error
        self._messages = inbox.NONE
        self._active[... if rows is None else rows] = True
        self._active[ctx.halted] = False
        sent = len(self._ones.values) + len(self._manies.targets)
        sent += sum(map(self._graph.degrees().__getitem__, self._alongs.rows)) if self._alongs.rows else 0
        try:
            self._mails = self._flush()
        except (TypeError, AttributeError, pickle.PickleError) as error:
            raise VertexError(f"Mail of superstep {superstep} cannot be sent: {error}.") from error
        active = int(np.count_nonzero(self._active))
        active += sum(change.kind == ADD_VERTEX for change in ctx.changes)  # they compute next, mail or not
        return Did(active, sent, aggregates, len(vertices), len(ctx.changes))

    def _due(self) -> tuple[Longs | None, Sequence[Vertex]]:
        """The slots that compute, ascending (None: all), and their vertices."""
        graph = self._graph
        if self._program.every:
            due = graph.alive()
        else:
            due = self._active.copy()
            mail = self._messages.rows()
            due[: len(mail)] |= mail
        rows = np.flatnonzero(due)
        if len(rows) == len(graph.vertices):
            return None, graph.vertices  # type: ignore[return-value]  # all are there
        return rows, list(map(graph.vertices.__getitem__, rows.tolist()))  # type: ignore[arg-type]

    def _blamed(self, error: Exception, vertex: Vertex | None, superstep: int) -> Exception:
        where = "" if vertex is None else f" of vertex {vertex.id!r}"
        said = str(error) if isinstance(error, VertexError) else sentence_of(error)
        return VertexError(f"compute{where} in superstep {superstep}: {said}")

    def _flush(self) -> list[list[Buffer]]:
        """The mail for each partition."""
        if self._topics:
            self._forward()
        codes, batches = self._outbox.codes, []
        if self._ones.values:
            batches.append((ONE, self._ones.take(codes)))
        if self._manies.targets:
            batches.append((MANY, self._manies.take(codes)))
        if self._alongs.rows:
            batches.append((ALONG, self._alongs.take(codes, self._graph.edges)))
        for channel in (self._ones, self._manies, self._alongs):
            channel.drop()
        filled: list[tuple[int, Batch]] = [(channel, batch) for channel, batch in batches if len(batch.codes)]
        return self._outbox.flush(filled, route(self._context.changes, self._partitions, self._ranges))

    def _forward(self) -> None:
        """Somebody has subscribed: messages go to subscribers, too, each by itself."""
        edges = self._graph.edges()
        targets: list[Hashable] = []
        values: list[Any] = []
        for to, value in self._sent(edges):
            targets.append(to)
            values.append(value)
            for subscriber in self._topics.get(to, ()):
                if subscriber != to:
                    targets.append(subscriber)
                    values.append(value)
        self._ones.targets, self._ones.values = targets, values
        self._manies.drop()
        self._alongs.drop()

    def _sent(self, edges: Sequence[Sequence[Hashable]]) -> Iterator[tuple[Hashable, Any]]:
        yield from zip(self._ones.targets, self._ones.values, strict=True)
        at = 0
        for count, value in zip(self._manies.counts, self._manies.values, strict=True):
            yield from ((to, value) for to in self._manies.targets[at : at + count])
            at += count
        for row, value in zip(self._alongs.rows, self._alongs.values, strict=True):
            yield from ((to, value) for to in edges[row])

    def mail(self, partition: int) -> Sequence[Buffer]:
        """See `Partition`."""
        pieces, self._mails[partition] = self._mails[partition], []
        return pieces

    def deliver(self, source: int, mail: memoryview) -> None:
        """See `Partition`."""
        self._letters.append(unpack(source, mail))

    def turn(self) -> Turned:
        """See `Partition`."""
        letters, self._letters = self._letters, []
        changed = self._graph.change(change for letter in letters for change in letter.changes)
        self._take_changes(changed)
        dropped = 0
        found: list[tuple[Letter, int, Ints]] = []
        for letter in letters:
            self._tables.learn(letter.source, letter.ids, self._graph.index)
        for letter in letters:
            for number, (block, targets, _) in enumerate(letter.blocks):
                slots = self._tables.slots(letter.source, block, targets)
                if self._settings.unknown == CREATE and slots.min() == NOBODY:
                    self._create(letter.source, block.channel, slots)
                    slots = self._tables.slots(letter.source, block, None)
                found.append((letter, number, slots))
        blocks: list[tuple[Ints, Column | list[Any]]] = []
        for letter, number, slots in found:
            block, _, values = letter.blocks[number]
            if slots.min() == NOBODY:
                dropped += self._refuse(letter.source, block.channel, slots)
                kept = np.flatnonzero(slots != NOBODY)
                slots = slots[kept]
                values = list(map(values.__getitem__, kept.tolist())) if isinstance(values, list) else values[kept]
            if len(slots):
                blocks.append((slots, values))
        self._messages = self._sorter.sort(blocks, len(self._graph.vertices))
        woken = int(np.count_nonzero(self._messages.rows()))
        return Turned(woken, changed=False, dropped=dropped)

    def _take_changes(self, changed: Changed) -> None:
        if changed.rewired:
            self._alongs.forget()
        if changed.removed:
            self._tables.vanish(changed.removed)
            self._active[list(changed.removed)] = False
        for id, slot in changed.added.items():
            self._appear(id, slot)
        for topic, subscriber, on in changed.subscriptions:
            known = self._topics.setdefault(topic, [])
            if on and subscriber not in known:
                known.append(subscriber)
            elif not on and subscriber in known:
                known.remove(subscriber)
            if not known:
                del self._topics[topic]

    def _appear(self, id: Hashable, slot: int) -> None:
        self._tables.appear(id, slot)
        self._alongs.forget()
        if slot >= len(self._active):
            grown = np.zeros(max(slot + 1, len(self._graph.vertices)), bool)
            grown[: len(self._active)] = self._active
            self._active = grown
        self._active[slot] = True

    def _create(self, source: int, channel: int, slots: Ints) -> None:
        """Mail has come for ids that are no vertices: they become some."""
        for id, slot in zip(self._tables.ids(source, channel), slots.tolist(), strict=True):
            if slot == NOBODY and id not in self._graph.index and id not in self._topics:
                self._appear(id, self._graph.create(id))

    def _refuse(self, source: int, channel: int, slots: Ints) -> int:
        """Mail for ids that are no vertices: how many messages of it count as lost."""
        ids = zip(self._tables.ids(source, channel), slots.tolist(), strict=True)
        lost = [id for id, slot in ids if slot == NOBODY and id not in self._topics]
        if lost and self._settings.unknown == ERROR:
            raise VertexError(
                f"In superstep {self._context.superstep} mail was sent to {lost[0]!r}, which is no vertex."
            )
        return len(lost)

    # --- blobs ----------------------------------------------------------------------------------------------------

    def snapshot(self, sink: Sink) -> None:
        """See `Partition`."""
        graph = self._graph
        votes = np.packbits(self._active).tobytes()
        values, weights = graph.values(), graph.edge_values()
        state = (values, weights, votes, inbox.packed(self._messages), graph.history(), self._topics)
        try:
            packed = pickle.dumps(state, _PROTOCOL)
        except (TypeError, AttributeError, pickle.PickleError) as error:
            raise VertexError(f"The state of {graph.culprit()} cannot be pickled: {error}.") from error
        sink.write(packed)

    def restore(self, data: memoryview) -> None:
        """See `Partition`."""
        values, weights, votes, messages, history, topics = pickle.loads(data)  # noqa: S301  (of a member)
        self._graph.restore(values, weights, history)
        count = len(self._graph.vertices)
        if votes is None:
            self._active = np.ones(count, bool)
        else:
            self._active = np.unpackbits(np.frombuffer(votes, np.uint8), count=count).astype(bool)
        self._messages = inbox.unpacked(messages)
        self._topics = topics
        self.renew(changed=False)

    def rows(self) -> Iterator[tuple[object, object]]:
        """See `Partition`."""
        for vertex in self._graph.vertices:
            if vertex is None:
                continue
            try:
                result = self._program.result(vertex)
            except Exception as error:
                error.add_note(f"result was called for vertex {vertex.id!r}")
                raise
            yield vertex.id, result
