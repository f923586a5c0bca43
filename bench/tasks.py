"""20,000 calls that do nothing, through one client, beside Ray, Dask, `multiprocessing.Pool` and ProcessPoolExecutor.

p2premap runs three nodes of two slots with three replicas; the others have two workers on the same machine. Each is
measured in a process of its own, in turns (`bench.peers`):

- one by one     `submit` (or what the system has for it) each, without waiting; then all results
- many           a million calls by `map` with default chunks; Ray and Dask in batches of 1,000 made by hand
- round trip     one call and its result, 1,000 times

CPU is that of all processes together. What is to be reached is said in times of what Ray does in the same turn, and is
left out without Ray. The job of a million tasks (`map` with chunks of one call) tells its time, the leader's memory and
the size of its ledger.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

from bench.beside import OURS, Figures, in_turns, on_nodes
from bench.nodes import Cluster, cpu_s
from bench.peers import noop
from bench.report import Emitter

QUICK: Final = {"repeat": 1, "part": 100}
OTHERS = ("pool", "processes", "ray", "dask")
REPEATS = 3
NODES = ("n1", "n2", "n3")
SLOTS = 2
CPU_MS = 0.12
MILLION = 1_000_000
LEADER_MB = 200.0


def rate(name: str) -> Callable[[Figures], float]:
    """Calls a second."""
    return lambda run: float(run[name]["calls"] / run[name]["wall_s"])


def cpu_ms(name: str) -> Callable[[Figures], float]:
    """CPU of a call."""
    return lambda run: float(1e3 * run[name]["cpu_s"] / run[name]["calls"])


def trip_ms(share: float) -> Callable[[Figures], float]:
    """What so many of the round trips take at most."""
    return lambda run: float(1e3 * run["trips_s"][int(share * len(run["trips_s"]))])


def report(emit: Emitter, system: str, runs: Sequence[Figures]) -> None:
    """The figures of one system."""
    for name, text in (("one_by_one", "one by one"), ("many", "many")):
        emit(f"{system}: {text}", list(map(rate(name), runs)), "calls/s")
        target = CPU_MS if system == OURS and name == "one_by_one" else None
        emit(f"{system}: CPU a call, {text}", list(map(cpu_ms(name), runs)), "ms", target=target)
    for share in (0.5, 0.99):
        emit(f"{system}: round trip p{share * 100:.0f}", list(map(trip_ms(share), runs)), "ms")


def compare(emit: Emitter, ours: Sequence[Figures], rays: Sequence[Figures]) -> None:
    """What there is to reach."""
    p50, p99 = trip_ms(0.5), trip_ms(0.99)
    for text, mine, other, target, at_least in (
        ("one by one: times as fast as Ray", rate("one_by_one"), rate("one_by_one"), 10.0, True),
        ("many: times as fast as Ray's batches made by hand", rate("many"), rate("many"), 1.0, True),
        ("round trip p50 over Ray's", p50, p50, 0.25, False),
        ("round trip p99 over Ray's p50", p99, p50, 1.0, False),
    ):
        ratios = [mine(one) / other(two) for one, two in zip(ours, rays, strict=True)]
        emit(f"{OURS}: {text}", ratios, "times", target=target, at_least=at_least)


def million(emit: Emitter, tasks: int) -> None:
    """A job of so many tasks."""
    import psutil

    import p2premap

    with (
        Cluster(NODES, slots=SLOTS) as cluster,
        patch.dict(os.environ, {"P2PREMAP_HOME": cluster.home}),
        p2premap.connect() as line,
    ):
        list(line.map(noop, range(100)))
        processes = [psutil.Process(pid) for pid in cluster.pids]
        used, before = cpu_s(cluster.pids), [process.memory_full_info().pss for process in processes]
        start = time.perf_counter()
        assert sum(1 for _ in line.map(noop, range(tasks), chunksize=1)) == tasks
        wall, used = time.perf_counter() - start, cpu_s(cluster.pids) - used
        grown = [process.memory_full_info().pss - base for process, base in zip(processes, before, strict=True)]
        ledger = sum(path.stat().st_size for path in Path(cluster.home).rglob("*") if _is_ledger(path))
    name = "a million tasks" if tasks == MILLION else f"{tasks} tasks"
    emit(name, [wall], "s", tasks_per_s=round(tasks / wall), nodes_cpu_s=round(used, 2))
    emit(f"{name}: the leader's memory", [max(grown) / 1e6], "MB", target=LEADER_MB)
    emit(f"{name}: ledger, each replica", [ledger / len(NODES) / 1e6], "MB")


def _is_ledger(path: Path) -> bool:
    return path.is_file() and path.name.startswith("ledger")


def run(emit: Emitter, *, repeat: int = REPEATS, part: int = 1) -> None:
    """Measure every system in turns.

    Args:
        part: what is worked on is divided by this.
    """
    inputs = (str(part),)
    ours = partial(on_nodes, "tasks", NODES, slots=SLOTS, inputs=inputs)
    runs = in_turns("tasks", ours, OTHERS, repeat=repeat, inputs=inputs)
    for system, several in runs.items():
        report(emit, system, several)
    if "ray" in runs:
        compare(emit, runs[OURS], runs["ray"])
    million(emit, MILLION // part)
