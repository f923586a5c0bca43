"""20,000 calls that do nothing, through one client, beside Ray, Dask, `multiprocessing.Pool` and ProcessPoolExecutor.

p2premap runs three nodes of two slots with three replicas; the others have two workers on the same machine. Each is
measured in a process of its own, in turns (`bench.peers`):

- one by one     `submit` (or what the system has for it) each, without waiting; then all results
- many           a million calls by `map` with default chunks; Ray and Dask in batches of 1,000 made by hand
- round trip     one call and its result, 1,000 times

CPU is that of all processes together. The job of a million tasks (`map` with chunks of one call) tells its time, the
leader's memory and the size of its ledger.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.beside import in_turns, on_nodes
from bench.nodes import Cluster
from bench.peers import noop
from bench.report import Emitter

OTHERS = ("pool", "processes", "ray", "dask")
REPEATS = 3
NODES = ("n1", "n2", "n3")
SLOTS = 2
RAY_ONE_BY_ONE = 1_639.0
RAY_MANY = 576_000.0
CPU_MS = 0.12
P50_MS = 0.9
P99_MS = 3.5
MILLION = 1_000_000
LEADER_MB = 200.0


def report(emit: Emitter, system: str, runs: list[dict[str, Any]]) -> None:
    """The figures of one system; those of p2premap have targets."""
    ours = system == "p2premap"
    for name, target in (("one_by_one", 10 * RAY_ONE_BY_ONE), ("many", RAY_MANY)):
        rates = [run[name]["calls"] / run[name]["wall_s"] for run in runs]
        cpu_ms = statistics.median(1e3 * run[name]["cpu_s"] / run[name]["calls"] for run in runs)
        label, more = f"{system}: {name.replace('_', ' ')}", {"cpu_ms_a_call": round(cpu_ms, 5)}
        emit(label, rates, "calls/s", target=target if ours else None, at_least=True, **more)
    cpu = [1e3 * run["one_by_one"]["cpu_s"] / run["one_by_one"]["calls"] for run in runs]
    emit(f"{system}: CPU a call, one by one", cpu, "ms", target=CPU_MS if ours else None)
    for share, target in ((0.5, P50_MS), (0.99, P99_MS)):
        trips = [1e3 * run["trips_s"][int(share * len(run["trips_s"]))] for run in runs]
        emit(f"{system}: round trip p{share * 100:.0f}", trips, "ms", target=target if ours else None)


def million(emit: Emitter) -> None:
    """A job of a million tasks."""
    import psutil

    import p2premap

    with Cluster(NODES, slots=SLOTS) as cluster:
        os.environ["P2PREMAP_HOME"] = cluster.home
        with p2premap.connect() as line:
            list(line.map(noop, range(100)))
            processes = [psutil.Process(pid) for pid in cluster.pids]
            before = [process.memory_full_info().pss for process in processes]
            start = time.perf_counter()
            assert sum(1 for _ in line.map(noop, range(MILLION), chunksize=1)) == MILLION
            wall = time.perf_counter() - start
            grown = [process.memory_full_info().pss - base for process, base in zip(processes, before, strict=True)]
            ledger = sum(path.stat().st_size for path in Path(cluster.home).rglob("*") if _is_ledger(path))
    emit("a million tasks", [wall], "s", tasks_per_s=round(MILLION / wall))
    emit("a million tasks: the leader's memory", [max(grown) / 1e6], "MB", target=LEADER_MB)
    emit("a million tasks: ledger, each replica", [ledger / len(NODES) / 1e6], "MB")


def _is_ledger(path: Path) -> bool:
    return path.is_file() and path.name.startswith("ledger")


def run(emit: Emitter, *, repeat: int = REPEATS) -> None:
    """Measure every system in turns."""
    runs = in_turns("tasks", partial(on_nodes, "tasks", NODES, slots=SLOTS), OTHERS, repeat=repeat)
    for system, several in runs.items():
        report(emit, system, several)
    million(emit)


if __name__ == "__main__":
    run(Emitter("tasks"), repeat=int(sys.argv[1]) if len(sys.argv) > 1 else 1)
