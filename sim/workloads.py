"""Jobs for virtual nodes: a director, and what its attempts would yield, in a few lines each.

A `Shape` is a job of map tasks that make a blob each, and reduce tasks that read all of them. What a reduce task yields
names what it read, so that a checker sees whether lineages were mixed. A job whose tasks are not steady yields
something else in each attempt, as a task that draws random numbers does.

Between the two it may have epochs: stages whose tasks share slots, each of which reads what it yielded in the epoch
before. What it yields names the meetings that it has been in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import cbor2
from blake3 import blake3

from p2premap.errors import JobError, JobRejected
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.events import RunBatch
from p2premap.tasks.job import AttemptEnd, AttemptSpec, BlobRef, JobOptions, JobSpec, Outcome, Part, Source, StageId
from p2premap.wire import decode_cbor

KIND: Final = "shape"


class Shape(NamedTuple):
    """What a job looks like.

    Args:
        maps, reduces: tasks of the two stages; without reduces there is one stage, whose blobs are the parts.
        map_s, reduce_s: virtual seconds of one attempt.
        steady: the same task always yields the same; else no two attempts do.
        inline: map tasks yield small values instead of blobs, and reduces read nothing.
        epochs: stages of as many tasks as there are map tasks, which run together and share slots.
    """

    maps: int
    reduces: int = 0
    map_s: float = 0.05
    reduce_s: float = 0.05
    steady: bool = True
    inline: bool = False
    epochs: int = 0

    @property
    def stages(self) -> int:
        """How many there are."""
        return 1 + self.epochs + bool(self.reduces)

    def encode(self) -> bytes:
        """As the plan of a job."""
        return cbor2.dumps(tuple(self))


def digest_of(content: bytes) -> Digest:
    """A blob's name."""
    return Digest(blake3(content).digest())


def spec_of(shape: Shape, *, key: bytes, options: JobOptions | None = None) -> JobSpec:
    """The job as a client would submit it."""
    plan = shape.encode()
    return JobSpec(
        submission_key=key,
        kind=KIND,
        name="shape",
        code=BlobRef(digest=digest_of(b"code"), size=4),
        plan=BlobRef(digest=digest_of(plan), size=len(plan)),
        options=options or JobOptions(),
    )


class ShapeDirector:
    """The director of a `Shape`."""

    runtime = "p2premap.sim.workloads:Shape"
    planner = ""
    streams = False

    def __init__(self, *, job: JobId, home: NodeId, plan: bytes) -> None:
        fields = decode_cbor(plan)
        if not isinstance(fields, list):
            raise JobRejected("The plan of this job is not a shape.", job=job.hex())
        self.shape = Shape(*fields)
        self._results: dict[int, tuple[Pinned, ...]] = {}

    def first(self) -> StagePlan:
        """The map stage."""
        return StagePlan(name="map", function="map", tasks=self.shape.maps, final=self.shape.stages == 1)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """The epochs after the map stage, then the reduce stage."""
        shape, last = self.shape, number + 2 == self.shape.stages
        if number + 1 == shape.stages:
            return None
        self._results[number] = tuple(results)
        if number < shape.epochs:
            name = f"epoch{number + 1}"
            together = {"together": True, "shared": True, "copied": True}
            return StagePlan(name=name, function=name, tasks=shape.maps, final=last, **together)
        return StagePlan(name="reduce", function="reduce", tasks=shape.reduces, final=True)

    def extend(self, payload: bytes) -> Extension:
        """No stage is open.

        Raises:
            JobError: always.
        """
        raise JobError("Jobs of this kind take no more tasks once they run.")

    def task(self, stage: StageId, task: int) -> TaskInput:
        """A reduce task reads every blob, one of an epoch its own."""
        reduces = stage.number > self.shape.epochs
        seconds = self.shape.reduce_s if reduces else self.shape.map_s
        params = cbor2.dumps((task, self.shape.steady, self.shape.inline, seconds))
        if stage.number == 0 or self.shape.inline:
            return TaskInput(params=params)
        before = self._results[stage.number - 1]
        return TaskInput(
            params=params,
            sources=tuple(
                Source(digest=blob.digest, start=0, end=blob.size, holders=pinned.holders, blob=blob.digest)
                for pinned in (before if reduces else before[task : task + 1])
                for blob in pinned.blobs
            ),
        )

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        """The blob of a result."""
        if not result.blobs:
            return ()
        blob = result.blobs[0]
        source = Source(digest=blob.digest, start=0, end=blob.size, holders=result.holders, blob=blob.digest)
        return (Part(number=task, source=source, records=result.records_out),)


def seconds_of(spec: AttemptSpec) -> float:
    """How long one attempt takes, on average."""
    _, _, _, seconds = cbor2.loads(spec.params)
    return float(seconds)


def is_inline(spec: AttemptSpec) -> bool:
    """Whether it yields a small value, and no blob."""
    _, _, inline, _ = cbor2.loads(spec.params)
    return bool(inline)


def run_shape(
    batch: RunBatch,
    spec: AttemptSpec,
    read: Callable[[Source], bytes | None],
    write: Callable[[bytes], BlobRef],
    *,
    seconds: float = 0.0,
) -> AttemptEnd:
    """What one attempt of a `Shape` yields.

    Args:
        read: the bytes of a source; None where no holder has it.
        write: keeps a blob at the node that runs the attempt.
    """
    task, steady, inline, _ = cbor2.loads(spec.params)
    contents = [(source, read(source)) for source in spec.sources]
    missing = tuple(source.digest for source, content in contents if content is None)
    if missing:
        return AttemptEnd(
            task=spec.task, attempt=spec.attempt, outcome=Outcome.INPUT_LOST, missing=missing, error="no holder has it"
        )
    salt = b"" if steady else f"/{spec.attempt}".encode()
    came = blake3(b"".join(content or b"" for _, content in contents)).hexdigest() if contents else ""
    if batch.meeting is not None:
        (before,) = (content.split(b"/")[2] for _, content in contents if content is not None)
        came, salt = blake3(before + (b"" if steady else batch.meeting.id)).hexdigest(), b""
    result = f"{batch.function}/{task}/{came}".encode() + salt
    return AttemptEnd(
        task=spec.task,
        attempt=spec.attempt,
        outcome=Outcome.DONE,
        value=result if inline else b"",
        blobs=() if inline else (write(result),),
        seconds=seconds,
        records_out=1,
    )
