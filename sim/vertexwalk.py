"""An untimed random walk over one vertex job: real director, real runtimes, real mail; everything else is chosen here.

A gang's processes are generators (`p2premap.worker.vertex.engine`). Whatever could happen next may: a process takes the
frames that have come for it and goes on; a process dies, and with it the partitions that it kept; a leader dies, and
its successor makes a director from what was pinned, and either takes over the gang that runs, or hands the epoch out
anew while the old gang goes on as a ghost, in processes that nobody counts on; a node loses its processes between two
epochs, so that others read the checkpoint. Then nothing more goes wrong, and the job must end.

The program sends tokens that name their superstep, their sender and their target. What must hold is in
`p2premap.sim.vertexmodel`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random
from typing import BinaryIO, Literal

import msgspec
from blake3 import blake3

from p2premap.ids import Digest, JobId, NodeId
from p2premap.sim.vertexmodel import IDS, CombinedTokens, Model, TokenProgram, Violated
from p2premap.tasks.director import Pinned, StagePlan
from p2premap.tasks.job import AttemptKey, BlobRef, StageId
from p2premap.vertex.director import VertexDirector
from p2premap.vertex.loading import LINES, Reading
from p2premap.vertex.plan import (
    BUILD,
    CREATE,
    DROP,
    OBJECTS,
    SUPERSTEPS,
    BuildReport,
    EpochReport,
    Settings,
    VertexPlan,
)
from p2premap.worker.gang import PeerLost
from p2premap.worker.messages import Order
from p2premap.worker.runtime import BlobWriter, Result, Segment
from p2premap.worker.vertex.engine import Exchanging, Frames, split_state
from p2premap.worker.vertex.jobcode import JobCode
from p2premap.worker.vertex.objects import Row, write_graph
from p2premap.worker.vertex.owners import owners_of
from p2premap.worker.vertex.runtime import VertexRuntime

JOB = JobId(b"vertex-walk-vert")
NODE = NodeId(b"n" * 16)


@dataclass(frozen=True, slots=True)
class Faults:
    """How often things go wrong: the weight of each beside 100 for every ordinary step."""

    kill: float = 0.0
    leader: float = 0.0
    ghost: float = 0.0
    move: float = 0.0


FAULTS = {
    "none": Faults(),
    "kill": Faults(kill=3),
    "leaders": Faults(leader=3, ghost=3),
    "moves": Faults(move=60),
    "everything": Faults(kill=1.5, leader=2, ghost=2, move=30),
}


class _Blob(bytearray):
    """A blob being written."""

    def __init__(self, disk: dict[Digest, bytes]) -> None:
        super().__init__()
        self._disk = disk

    def write(self, data: bytes | memoryview) -> None:
        self.extend(data)

    def finish(self) -> BlobRef:
        digest = Digest(blake3(self).digest())
        self._disk[digest] = bytes(self)
        return BlobRef(digest=digest, size=len(self))


class _Context:
    """An attempt's `p2premap.worker.runtime.Context` over a dict of blobs."""

    scratch = ""

    def __init__(self, disk: dict[Digest, bytes], task: int) -> None:
        self.attempt = AttemptKey(JOB, StageId(0, b""), task, 0)
        self._disk = disk

    def new_blob(self) -> BlobWriter:
        return _Blob(self._disk)

    def read(self, segment: Segment) -> bytes:
        return self._disk[Digest(segment.digest)]

    def map(self, segment: Segment, *, own: bool = False) -> memoryview:
        return memoryview(self._disk[Digest(segment.digest)])

    def count(self, *, records_in: int = 0, records_out: int = 0) -> None:
        """Nobody looks."""

    def spill(self, path: str, mode: Literal["wb", "ab"] = "wb") -> AbstractContextManager[BinaryIO]:
        raise AssertionError("what is walked here fits into memory")


@dataclass(slots=True)
class Process:
    """A worker process: what it keeps, and what it is doing."""

    number: int
    runtime: VertexRuntime
    alive: bool = True


@dataclass(slots=True, eq=False)
class Gang:
    """Processes that run an epoch together."""

    number: int
    seats: tuple[tuple[int, ...], ...]
    processes: list[Process]
    epochs: list[Exchanging[Sequence[Result]]]
    results: dict[int, Result] = field(default_factory=dict)
    """By task."""
    waits: dict[int, Frames] = field(default_factory=dict)
    """Seats that have sent their frames and wait for those of others."""
    wires: dict[tuple[int, int], deque[bytes]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """Nobody goes on."""
        return not self.waits


class Walk:
    """One job.

    Args:
        seed: of every choice.
        faults: what may go wrong.
        every: supersteps of an epoch.
    """

    def __init__(self, seed: int, *, faults: Faults | None = None, every: int = 2) -> None:
        self.random = Random(f"vertexwalk/{seed}")
        self.faults = faults or Faults()
        self.counts: dict[str, int] = {}
        self.partitions = self.random.randint(1, 5)
        self.slots = self.random.randint(1, 4)
        self.settings = Settings(
            form=OBJECTS,
            partitions=self.partitions,
            reading=Reading(form=LINES).pack(),
            unknown=self.random.choice((DROP, CREATE)),
            checkpoint_every=every,
            seed=b"%d" % seed,
        )
        self.model = Model(creates=self.settings.unknown == CREATE)
        make = self.random.choice((TokenProgram, CombinedTokens))
        self.program = make(self.model, plain=self.random.random() < 0.5, steady=self.random.random() < 0.5)
        self._disk: dict[Digest, bytes] = {}
        self._now = 0.0
        self._made = 0
        self.pinned: list[list[Pinned]] = []
        self.director, self.stage = self._lead()
        self._pin(self._build())
        self._idle: list[Process] = []
        self.gang: Gang | None = None
        self.ghosts: list[Gang] = []

    # --- leading --------------------------------------------------------------------------------------------------

    def _lead(self) -> tuple[VertexDirector, StagePlan]:
        """A leader's director, from what was pinned."""
        plan = VertexPlan(version=1, inputs=b"", settings=self.settings).pack()
        director = VertexDirector(job=JOB, home=NODE, plan=plan)
        stage: StagePlan | None = director.first()
        for number, results in enumerate(self.pinned):
            stage = director.next(number, results)
        assert stage is not None, "the job is not over"
        return director, stage

    def _pin(self, results: list[Pinned]) -> None:
        self.pinned.append(results)
        stage = self.director.next(len(self.pinned) - 1, results)
        assert stage is not None, "output follows"
        self.stage = stage

    def _build(self) -> list[Pinned]:
        assert self.stage.name == BUILD, "the graph is made here"
        count = self.random.randint(1, IDS)
        rows: list[Row] = [
            (id, [], [self.random.randrange(IDS) for _ in range(self.random.randrange(4))], None) for id in range(count)
        ]
        self.model.loaded(range(count))
        owners = owners_of(range(count), self.partitions)
        found = []
        for number in range(self.partitions):
            graph, state = _Blob(self._disk), _Blob(self._disk)
            own = [row for row, owner in zip(rows, owners, strict=True) if owner == number]
            vertices, edges = write_graph(own, graph, state)
            report = BuildReport(graph=True, state=True, vertices=vertices, edges=edges)
            found.append(self._result(Result(msgspec.msgpack.encode(report), (graph.finish(), state.finish()))))
        return found

    @staticmethod
    def _result(result: Result) -> Pinned:
        return Pinned(value=result.value, blobs=result.blobs, holders=(NODE,))

    @property
    def superstep(self) -> int:
        """The first one behind the last checkpoint that was decided."""
        if len(self.pinned) < 2:
            return 0
        return msgspec.msgpack.decode(self.pinned[-1][0].value, type=EpochReport).superstep

    # --- the walk -------------------------------------------------------------------------------------------------

    def run(self, steps: int = 400) -> dict[object, object]:
        """A phase in which things go wrong, then one in which nothing does; what the vertices came to."""
        for _ in range(steps):
            if self.stage.name != SUPERSTEPS:
                break
            self._one(self.faults)
        calm = 0
        while self.stage.name == SUPERSTEPS:
            calm += 1
            if calm > 5_000:
                raise Violated("liveness", f"the job does not end: superstep {self.superstep}")
            self._one(Faults())
        return self._rows()

    def _one(self, faults: Faults) -> None:
        """One thing happens."""
        if self.gang is None:
            self._hand_out(faults)
            return
        gangs = [self.gang, *self.ghosts]
        ready = [(gang, seat) for gang in gangs for seat in gang.waits if self._can_go_on(gang, seat)]
        choices: list[tuple[float, str]] = [(100.0, "step")] if ready else []
        choices += [(faults.kill, "kill"), (faults.leader, "leader"), (faults.ghost, "ghost")]
        word = self.random.choices([name for _, name in choices], [weight for weight, _ in choices])[0]
        self.counts[word] = self.counts.get(word, 0) + 1
        match word:
            case "step":
                self._step(*self.random.choice(ready))
            case "kill":
                self._kill(self.gang, self.random.randrange(len(self.gang.processes)))
            case "leader":
                self.director, self.stage = self._lead()
            case "ghost":
                self.director, self.stage = self._lead()
                self.ghosts.append(self.gang)
                self.gang = None
        self._settle()

    def _settle(self) -> None:
        """What the leader makes of the gang's ends."""
        gang = self.gang
        if gang is None:
            return
        if len(gang.results) == self.partitions:
            self.model.pinned(gang.number)
            self._idle += gang.processes
            self.gang = None
            self._pin([self._result(gang.results[task]) for task in range(self.partitions)])
        elif gang.over:
            self._idle += [process for process in gang.processes if process.alive]
            self.gang = None

    def _hand_out(self, faults: Faults) -> None:
        """The epoch, to processes that are there or new ones."""
        processes = []
        for _ in range(min(self.slots, self.partitions)):
            keeps = self._idle and self.random.uniform(0, 100) >= faults.move
            processes.append(self._idle.pop(0) if keeps else self._process())
        self._idle = []
        if faults.move and self.random.uniform(0, 100) < faults.move:
            self.random.shuffle(processes)
        seats: tuple[tuple[int, ...], ...] = tuple(
            tuple(range(seat, self.partitions, len(processes))) for seat in range(len(processes))
        )
        self._made += 1
        gang = Gang(self._made, seats, processes, [])
        self.model.handed_out(gang.number, self.superstep)
        for seat, (process, tasks) in enumerate(zip(processes, seats, strict=True)):
            orders = [self._order(task) for task in tasks]
            contexts = [_Context(self._disk, task) for task in tasks]
            gang.epochs.append(process.runtime.epoch(SUPERSTEPS, orders, seat, seats, contexts))
        self.gang = gang
        for seat in range(len(processes)):
            self._resume(gang, seat, None)

    def _process(self) -> Process:
        self._made += 1
        runtime = VertexRuntime(b"", "")
        runtime.clock = lambda: self._now
        runtime._code = JobCode(self.program, self.settings)
        return Process(self._made, runtime)

    def _order(self, task: int) -> Order:
        told = self.director.task(StageId(len(self.pinned), b""), task)
        segments = tuple(Segment("", s.start, s.end, s.digest, True, "") for s in told.sources)
        return Order(task=task, attempt=0, params=told.params, segments=segments)

    # --- processes ------------------------------------------------------------------------------------------------

    def _can_go_on(self, gang: Gang, seat: int) -> bool:
        """Whether all frames are there, or one will never come."""
        others = (other for other in range(len(gang.seats)) if other != seat)
        return all(gang.wires.get((other, seat)) or other in gang.lost for other in others)

    def _step(self, gang: Gang, seat: int) -> None:
        del gang.waits[seat]
        came: list[memoryview] = []
        for other in range(len(gang.seats)):
            wire = gang.wires.get((other, seat))
            if other == seat:
                came.append(memoryview(b""))
            elif wire:
                came.append(memoryview(wire.popleft()))
            else:
                self._resume(gang, seat, PeerLost(other))
                return
        self._resume(gang, seat, came)

    def _resume(self, gang: Gang, seat: int, came: list[memoryview] | PeerLost | None) -> None:
        """Let a process go on to its next exchange, or its end."""
        epoch = gang.epochs[seat]
        self._now += 0.01
        self.model.running = gang.number
        try:
            match came:
                case PeerLost():
                    frames = epoch.throw(came)
                case None:
                    frames = next(epoch)
                case _:
                    frames = epoch.send(came)
        except StopIteration as stop:
            for task, result in zip(gang.seats[seat], stop.value, strict=True):
                gang.results[task] = result
            return
        except PeerLost:
            gang.lost.add(seat)
            return
        if self.model.violated is not None:
            raise self.model.violated
        gang.waits[seat] = frames
        for other, pieces in enumerate(frames):
            if other != seat:
                gang.wires.setdefault((seat, other), deque()).append(b"".join(pieces))

    def _kill(self, gang: Gang, seat: int) -> None:
        process = gang.processes[seat]
        if process.alive and seat in gang.waits:
            process.alive = False
            gang.epochs[seat].close()
            del gang.waits[seat]
            gang.lost.add(seat)

    # --- the end --------------------------------------------------------------------------------------------------

    def _rows(self) -> dict[object, object]:
        self.model.ended(self.superstep)
        rows: dict[object, object] = {}
        form = JobCode(self.program, self.settings).form()
        for task in range(self.partitions):
            graph, state = self.director.task(StageId(len(self.pinned), b""), task).sources
            partition = form.partition(task, memoryview(self._disk[graph.digest]))
            partition.restore(split_state(memoryview(self._disk[state.digest]))[1])
            rows.update(partition.rows())
        return rows


def compare(seed: int, faults: Faults, *, steps: int = 400) -> Walk:
    """Walk with these faults, and without any: the answers must be the same.

    Raises:
        Violated: see `p2premap.sim.vertexmodel`.
    """
    quiet = Walk(seed, every=1_000)
    expected = quiet.run()
    walk = Walk(seed, faults=faults)
    found = walk.run(steps)
    if walk.superstep != quiet.superstep:
        raise Violated("answer", f"it took {walk.superstep} supersteps, not {quiet.superstep}")
    if found != expected:
        wrong = next(id for id in {**expected, **found} if found.get(id) != expected.get(id))
        raise Violated("answer", f"vertex {wrong} came to {found.get(wrong)}, not {expected.get(wrong)}")
    return walk
