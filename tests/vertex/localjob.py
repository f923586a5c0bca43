"""Vertex jobs of the per-vertex form without nodes: epochs in threads, every state through its blob."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from p2premap.vertex.barrier import Carried, End
from p2premap.vertex.loading import Reading
from p2premap.vertex.plan import OBJECTS, Settings
from p2premap.vertex.program import VertexProgram
from p2premap.worker.vertex.engine import Epoch, drive, split_state, state_head
from p2premap.worker.vertex.local import LocalGang, run_seats
from p2premap.worker.vertex.objects import ObjectForm, Row, write_graph
from p2premap.worker.vertex.owners import owners_of
from p2premap.worker.vertex.partition import Partition


class Blob(bytearray):
    """What is written stands here."""

    def write(self, data: bytes | memoryview) -> None:
        self.extend(data)


def settings(partitions: int, **more: Any) -> Settings:
    return Settings(form=OBJECTS, partitions=partitions, reading=Reading().pack(), seed=b"seed", **more)


class LocalJob:
    """One job; `run` runs it to its end, an epoch after the other.

    Args:
        program: the user's.
        rows: the vertices.
        told: settings; their `checkpoint_every` says how long an epoch is.
        seats: which process has which partitions, epoch after epoch; the last goes on.
        keeps: processes keep their partitions, where they have them in the next epoch too.
    """

    def __init__(
        self,
        program: VertexProgram,
        rows: Iterable[Row],
        told: Settings,
        seats: Sequence[Sequence[Sequence[int]]],
        *,
        keeps: bool = True,
    ) -> None:
        self.settings = told
        self._form = ObjectForm(program, told)
        self._seats = seats
        self._keeps = keeps
        self.graphs, self.states = [Blob() for _ in range(told.partitions)], [Blob() for _ in range(told.partitions)]
        found = list(rows)
        owners = owners_of([row[0] for row in found], told.partitions)
        for number in range(told.partitions):
            own = [row for row, owner in zip(found, owners, strict=True) if owner == number]
            write_graph(own, self.graphs[number], self.states[number])
        self._kept: dict[tuple[int, int], tuple[Partition, bytes]] = {}
        self.ends: list[End] = []

    def epoch(self, seats: Sequence[Sequence[int]]) -> End:
        """Run one epoch."""
        ends = run_seats(seats, self._work)
        assert all(end[:3] == ends[0][:3] for end in ends)
        self.ends.append(ends[0])
        return ends[0]

    def _work(self, gang: LocalGang) -> End:
        clock = count()
        partitions: dict[int, Partition] = {}
        fresh, carried, superstep = False, Carried(), 0
        before = {number: bytes(self.states[number]) for number in gang.seats[gang.seat]}
        for number, state in before.items():
            carried, rest = split_state(memoryview(state))
            superstep = 0 if carried.globals is None else carried.globals.superstep
            partition, same = self._kept.pop((gang.seat, number), (None, b""))
            if partition is None or same != state or not self._keeps:
                fresh = True
                partition = self._form.partition(number, memoryview(self.graphs[number]))
                partition.restore(rest)
            partitions[number] = partition
        epoch = Epoch(
            seat=gang.seat,
            seats=gang.seats,
            settings=self.settings,
            program=self._form.program,
            partitions=partitions,
            fresh=fresh,
            superstep=superstep,
            carried=carried,
            change_s=0.0,
            clock=lambda: float(next(clock)),
        )
        end = drive(epoch.run(), gang)
        for number, partition in partitions.items():
            blob = Blob(state_head(end.carried))
            partition.snapshot(blob)
            self.states[number] = blob
            self._kept[gang.seat, number] = partition, bytes(blob)
        return end

    def run(self) -> dict[Hashable, Any]:
        """What the vertices come to."""
        for seats in self._seats:
            if self.epoch(seats).over:
                return self.rows()
        while not self.epoch(self._seats[-1]).over:
            pass
        return self.rows()

    def rows(self) -> dict[Hashable, Any]:
        """(id, value) of all vertices, from their blobs."""
        found: dict[Hashable, Any] = {}
        for number, state in enumerate(self.states):
            partition = self._form.partition(number, memoryview(self.graphs[number]))
            partition.restore(split_state(memoryview(bytes(state)))[1])
            found.update(partition.rows())
        return found


def run(
    program: VertexProgram,
    rows: Iterable[Row],
    *,
    partitions: int = 3,
    seats: Sequence[Sequence[int]] | None = None,
    **more: Any,
) -> dict[Hashable, Any]:
    """What a job comes to."""
    layout = seats if seats is not None else [range(0, partitions, 2), range(1, partitions, 2)]
    return LocalJob(program, rows, settings(partitions, **more), [[part for part in layout if part]]).run()


def graph(edges: Iterable[tuple[Hashable, Hashable]], value: Callable[[Hashable], Any] = lambda _: None) -> list[Row]:
    """Vertices of these edges."""
    found: dict[Hashable, list[Hashable]] = {}
    for source, target in edges:
        found.setdefault(source, []).append(target)
        found.setdefault(target, [])
    return [(id, value(id), targets, None) for id, targets in found.items()]


def pregel(
    vertices: Mapping[Hashable, Any],
    compute: Callable[[int, Hashable, Any, list[Any], Callable[[Hashable, Any], None]], tuple[Any, bool]],
) -> dict[Hashable, Any]:
    """The plain loop that everything is compared with: one process, one dict."""
    values, active, inbox, superstep = dict(vertices), set(vertices), dict[Hashable, list[Any]](), 0
    while active or inbox:
        outbox: dict[Hashable, list[Any]] = {}

        def send(to: Hashable, value: Any, outbox: dict[Hashable, list[Any]] = outbox) -> None:
            outbox.setdefault(to, []).append(value)

        for id in values:
            if id in active or id in inbox:
                values[id], halt = compute(superstep, id, values[id], inbox.get(id, []), send)
                (active.discard if halt else active.add)(id)
        inbox, superstep = {to: mail for to, mail in outbox.items() if to in values}, superstep + 1
    return values
