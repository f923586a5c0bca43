"""A million tasks that do nothing: what the leader's and the workers' cores cost of CPU and memory for each."""

from __future__ import annotations

import gc
import resource
import time

from bench.report import Emitter
from p2premap.sim.many import ManyTasks

TASKS = 1_000_000
RUNS = 3


def run(emit: Emitter) -> None:
    """About half a minute."""
    for name, value in (("nothing", lambda _: b""), ("8 bytes, all different", lambda task: task.to_bytes(8))):
        leader, workers, longest, memory, messages = [], [], [], [], 0
        for _ in range(RUNS):
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            many = ManyTasks(TASKS, clock=time.process_time, value=value)
            cost = many.run()
            leader.append(cost.leader_s / TASKS * 1e6)
            workers.append(cost.workers_s / TASKS * 1e6)
            longest.append(cost.step_max_s * 1e3)
            memory.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / TASKS)
            messages = cost.messages
        target = 5.0 if name == "nothing" else None
        emit(f"leader's core, tasks yield {name}", leader, "us/task", target=target, messages=messages)
        emit(f"worker's core, tasks yield {name}", workers, "us/task")
        emit(f"leader's longest step, tasks yield {name}", longest, "ms")
        if name == "nothing":  # a later peak says nothing: the process keeps what it once had
            emit("peak of the process above its start, first run", memory[:1], "bytes/task")
