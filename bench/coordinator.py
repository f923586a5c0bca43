"""A million tasks that do nothing: what the leader's and the workers' cores cost of CPU and memory for each."""

from __future__ import annotations

import gc
import resource
import time
from typing import Final

from bench.report import Emitter
from p2premap.sim.many import ManyTasks

QUICK: Final = {"repeat": 1, "tasks": 10_000}
TASKS = 1_000_000
RUNS = 3
HANDED_IN = 100
"""Tasks that come at a time, where they come while the job runs."""


def run(emit: Emitter, *, repeat: int = RUNS, tasks: int = TASKS) -> None:
    """About a minute."""
    for name, value in (("nothing", lambda _: b""), ("8 bytes, all different", lambda task: task.to_bytes(8))):
        leader, workers, longest, memory, replay, messages, written = [], [], [], [], [], 0, 0
        for _ in range(repeat):
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            many = ManyTasks(tasks, clock=time.process_time, value=value)
            cost = many.run()
            leader.append(cost.leader_s / tasks * 1e6)
            workers.append(cost.workers_s / tasks * 1e6)
            longest.append(cost.step_max_s * 1e3)
            memory.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / tasks)
            messages, written = cost.messages, many.written
            replay.append(_successor_s(many))
        target = 5.0 if name == "nothing" else None
        emit(f"leader's core, tasks yield {name}", leader, "us/task", target=target, messages=messages)
        emit(f"worker's core, tasks yield {name}", workers, "us/task")
        emit(f"leader's longest step, tasks yield {name}", longest, "ms")
        emit(f"a successor reads the history, tasks yield {name}", replay, "s", target=5.0, written_bytes=written)
        if name == "nothing":  # a later peak says nothing: the process keeps what it once had
            emit("peak of the process above its start, first run", memory[:1], "bytes/task")
    growing = [ManyTasks(tasks, clock=time.process_time, handed_in=HANDED_IN).run().leader_s for _ in range(repeat)]
    costs = [seconds / tasks * 1e6 for seconds in growing]
    emit(f"leader's core, tasks come {HANDED_IN} at a time", costs, "us/task", target=10.0)


def _successor_s(many: ManyTasks) -> float:
    since = time.process_time()
    many.successor()
    return time.process_time() - since
