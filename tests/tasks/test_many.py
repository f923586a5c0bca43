"""A job of very many tasks costs neither a message nor an object each."""

from __future__ import annotations

import time
import tracemalloc

from p2premap.sim.many import ManyTasks
from p2premap.tasks.job import Phase

TASKS = 50_000


def test_many_tasks_take_few_messages_and_little_memory() -> None:
    tracemalloc.start()
    try:
        many = ManyTasks(TASKS, nodes=3, clock=time.process_time)
        cost = many.run()
        kept, _ = tracemalloc.get_traced_memory()
        many.leader = None  # type: ignore[assignment]
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert many.phase is Phase.DONE
    assert cost.messages < 300
    assert kept - left < 30 * TASKS


def test_a_leader_of_many_tasks_holds_a_few_bytes_for_each() -> None:
    tracemalloc.start()
    try:
        many = ManyTasks(TASKS, clock=time.process_time)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert many.phase is Phase.WAITING
    assert held < 30 * TASKS


def test_a_task_costs_the_leader_microseconds_however_many_there_are() -> None:
    few, many = (ManyTasks(tasks, clock=time.process_time).run() for tasks in (TASKS // 10, TASKS))
    # a tenth of this on a quiet machine; the test finds what is quadratic, not what is slow
    assert many.leader_s / TASKS < 100e-6
    assert many.leader_s < 40 * few.leader_s
    assert many.step_max_s < 4.0
