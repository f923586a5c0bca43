"""The director: rounds of samples, each as large as all before it, until the standard error is small enough.

Pure: whoever leads the job makes one of these from the same plan and the same results, and comes to the same rounds.
"""

import math

import msgspec

from p2premap.errors import JobError, JobRejected
from p2premap.tasks.director import StagePlan, TaskInput
from p2premap.tasks.job import Part, Source

ROUNDS_MAX = 40


class Plan(msgspec.Struct, array_like=True):
    """The plan blob: what `planner.py` says.

    Args:
        error: the standard error to reach.
        tasks: of each round.
        samples: of each task of the first round.
        seed: of all random numbers.
    """

    error: float
    tasks: int
    samples: int
    seed: int


class Sums(msgspec.Struct, array_like=True):
    """A task's result: of its samples, how many, their sum, and the sum of their squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, other):
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self):
        return self.total / self.count

    @property
    def error(self):
        return math.sqrt(max(self.squares / self.count - self.mean**2, 0.0) / self.count)


class Draw(msgspec.Struct, array_like=True):
    """What a task is told: to draw so many samples from this seed."""

    seed: str
    samples: int


class MonteCarlo:
    """See `p2premap.tasks.director.Director`."""

    runtime = "p2premap_montecarlo.worker:Runtime"
    planner = "p2premap_montecarlo.planner:plan"
    streams = False

    def __init__(self, *, job, home, plan):
        try:
            self.plan = msgspec.msgpack.decode(plan, type=Plan)
        except msgspec.DecodeError as error:
            raise JobRejected(f"The plan of the Monte Carlo job cannot be read: {error}.") from None
        self.sums = {-1: Sums()}  # after each round

    def first(self):
        return self._round(0)

    def next(self, number, results):
        if number not in self.sums and (self.sums.get(number - 1) is None or self._good(number - 1)):
            return None  # that was the last stage
        sums = self.sums[number - 1]
        for result in results:
            sums = sums.plus(Sums() if result.failed else msgspec.msgpack.decode(result.value, type=Sums))
        self.sums[number] = sums
        if self._good(number):
            return StagePlan(name="report", function="report", tasks=1, final=True)
        if number >= ROUNDS_MAX:
            raise JobError(f"The error is still {sums.error:g} after {sums.count} samples; ask for a larger one.")
        return self._round(number + 1)

    def task(self, stage, task):
        if stage.number and self._good(stage.number - 1):
            return TaskInput(params=msgspec.msgpack.encode(self.sums[stage.number - 1]))
        draw = Draw(f"{self.plan.seed}/{stage.number}/{task}", self.plan.samples << max(stage.number - 1, 0))
        return TaskInput(params=msgspec.msgpack.encode(draw))

    def parts(self, task, result):
        (blob,) = result.blobs
        source = Source(digest=blob.digest, start=0, end=blob.size, holders=result.holders, blob=blob.digest)
        return (Part(number=0, source=source, records=1),)

    def extend(self, payload):
        raise JobError("Jobs of this kind take no more tasks once they run.")

    def _round(self, number):
        return StagePlan(name=f"round {number + 1}", function="draw", tasks=self.plan.tasks)

    def _good(self, number):
        sums = self.sums[number]
        return sums.count > 1 and sums.error <= self.plan.error
