"""A kind of job whose tasks talk to each other: each has a number, and tells it to all others, again and again.

In each exchange every task's number becomes the sum of all numbers and its own, modulo a prime: so a word that is lost,
comes twice or from elsewhere changes every number of the answer.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from p2premap.errors import JobError
from p2premap.tasks.director import TaskInput
from p2premap.tasks.job import Part, Source

MODULUS = (1 << 61) - 1
HOLD = "hold"
NUMBER = struct.Struct("<Q")


class Plan(msgspec.Struct, array_like=True):
    """The plan blob.

    Args:
        tasks: of each epoch.
        exchanges: of each epoch.
        epochs: how many.
        size: bytes that go along with each word.
        signs: a directory: each process leaves a file for the meetings that it is in, once it is in the middle, and
            goes on when there is no file `HOLD`.
    """

    tasks: int
    exchanges: int = 50
    epochs: int = 1
    size: int = 0
    signs: str = ""


def answer(plan: Plan) -> list[int]:
    """What it comes to, computed at one place."""
    numbers = list(range(1, plan.tasks + 1))
    for _ in range(plan.epochs * plan.exchanges):
        total = sum(numbers)
        numbers = [(total + number) % MODULUS for number in numbers]
    return numbers


class Director:
    """See `p2premap.tasks.director.Director`."""

    runtime = "tests.gangs.kind:Runtime"
    planner = "tests.gangs.planner:plan"
    streams = False

    def __init__(self, *, job, home, plan):
        self.plan = msgspec.msgpack.decode(plan, type=Plan)
        self.raw = plan
        self.before = {}

    def first(self):
        return self._epoch(0)

    def next(self, number, results):
        if number > self.plan.epochs - 1:
            return None
        self.before[number + 1] = tuple(results)
        if number + 1 < self.plan.epochs:
            return self._epoch(number + 1)
        return self._stage("output", final=True)

    def task(self, stage, task):
        sources = ()
        if stage.number:
            result = self.before[stage.number][task]
            (blob,) = result.blobs
            sources = (Source(digest=blob.digest, start=0, end=blob.size, holders=result.holders, blob=blob.digest),)
        return TaskInput(params=self.raw, sources=sources)

    def parts(self, task, result):
        (blob,) = result.blobs
        source = Source(digest=blob.digest, start=0, end=blob.size, holders=result.holders, blob=blob.digest)
        return (Part(number=task, source=source, records=1),)

    def extend(self, payload):
        raise JobError("Jobs of this kind take no more tasks once they run.")

    def _epoch(self, number):
        return self._stage("sums", name=f"epoch {number}", together=True, shared=True, copied=True)

    def _stage(self, function, **more):
        from p2premap.tasks.director import StagePlan

        return StagePlan(**{"name": function, "function": function, "tasks": self.plan.tasks, **more})


class Runtime:
    """See `p2premap.worker.runtime.Runtime`."""

    def __init__(self, bundle, directory):
        self.meetings = []

    def run(self, function, params, segments, context):
        """The output: the number as a line."""
        from p2premap.worker.runtime import Result

        (number,) = NUMBER.unpack(context.read(segments[0]))
        part = context.new_blob()
        part.write(f"{number}\n".encode())
        context.count(records_out=1)
        return Result(blobs=(part.finish(),))

    def run_together(self, function, orders, gang, contexts):
        """An epoch."""
        from p2premap.worker.runtime import Result

        plan = msgspec.msgpack.decode(orders[0].params, type=Plan)
        assert gang.seats[gang.seat] == tuple(order.task for order in orders)
        numbers = [
            NUMBER.unpack(context.read(order.segments[0]))[0] if order.segments else order.task + 1
            for order, context in zip(orders, contexts, strict=True)
        ]
        for turn in range(plan.exchanges):
            numbers = self._exchange(gang, plan, numbers, turn)
            if turn == plan.exchanges // 2 and plan.signs:
                sign = Path(plan.signs) / f"{gang.meeting.hex()}.{gang.seat}.{os.getpid()}"
                half = sign.with_name(sign.name.replace(".", "-"))
                half.write_text(" ".join(map(str, gang.seats[gang.seat])))
                half.rename(sign)  # whoever finds it reads all of it
                while (Path(plan.signs) / HOLD).exists():
                    time.sleep(0.005)
        results = []
        for number, context in zip(numbers, contexts, strict=True):
            blob = context.new_blob()
            blob.write(NUMBER.pack(number))
            results.append(Result(blobs=(blob.finish(),)))
        return results

    def _exchange(self, gang, plan: Plan, numbers: Sequence[int], turn: int) -> list[int]:
        word = NUMBER.pack(sum(numbers) % MODULUS)
        ballast = bytes([turn % 256]) * plan.size
        total = sum(numbers)
        for seat, came in enumerate(gang.exchange([(word, ballast)] * len(gang.seats))):
            if seat == gang.seat:
                assert not came
            else:
                assert came[NUMBER.size :] == ballast, "what goes along has come whole"
                total += NUMBER.unpack_from(came)[0]
        return [(total + number) % MODULUS for number in numbers]
