"""Many small tasks on one system, in a process of its own: `python -m bench.peers SYSTEM` prints one JSON object.

The standard library and psutil are all that it needs beside the system that it measures, so that another interpreter
can run it: one that has Ray or Dask.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

WORKERS = 2
ROUND_TRIPS = 1_000
WARM_UP = 200


def noop(x: int = 0) -> int:
    """The task."""
    return x


def noops(xs: list[int]) -> list[int]:
    """A batch made by hand."""
    return [noop(x) for x in xs]


class System:
    """What is asked of each system; `calls` and `batched` say how many calls it is given."""

    calls = 20_000
    batched = 1_000_000
    batch = 1_000

    def one_by_one(self, count: int) -> None:
        """Hand in so many calls without waiting, then wait for all results."""
        raise NotImplementedError

    def many(self, count: int) -> None:
        """So many calls in the fastest way that the system has."""
        raise NotImplementedError

    def round_trip(self) -> None:
        """One call and its result."""
        raise NotImplementedError


class P2PRemap(System):
    """Futures; `many` is `map` with default chunking."""

    def __init__(self, cluster: Any) -> None:  # noqa: ANN401  (its class need not be importable here)
        self._cluster = cluster

    def one_by_one(self, count: int) -> None:
        for future in [self._cluster.submit(noop, n) for n in range(count)]:
            future.result()

    def many(self, count: int) -> None:
        assert sum(1 for _ in self._cluster.map(noop, range(count))) == count

    def round_trip(self) -> None:
        self._cluster.submit(noop, 1).result()


class Ray(System):
    """Remote functions; `many` in batches made by hand."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._noop, self._noops = ray.remote(noop), ray.remote(noops)

    def one_by_one(self, count: int) -> None:
        self._ray.get([self._noop.remote(n) for n in range(count)])

    def many(self, count: int) -> None:
        starts = range(0, count, self.batch)
        self._ray.get([self._noops.remote(list(range(n, n + self.batch))) for n in starts])

    def round_trip(self) -> None:
        self._ray.get(self._noop.remote(1))


class Dask(System):
    """`Client.submit`; `many` in batches made by hand."""

    calls = 5_000
    batched = 200_000

    def __init__(self, client: Any) -> None:  # noqa: ANN401
        self._client = client

    def one_by_one(self, count: int) -> None:
        self._client.gather([self._client.submit(noop, n, pure=False) for n in range(count)])

    def many(self, count: int) -> None:
        starts = range(0, count, self.batch)
        self._client.gather([self._client.submit(noops, list(range(n, n + self.batch)), pure=False) for n in starts])

    def round_trip(self) -> None:
        self._client.submit(noop, 1, pure=False).result()


class Pool(System):
    """`apply_async`; `many` is `map` with its default chunks."""

    def __init__(self, pool: Any) -> None:  # noqa: ANN401
        self._pool = pool

    def one_by_one(self, count: int) -> None:
        for result in [self._pool.apply_async(noop, (n,)) for n in range(count)]:
            result.get()

    def many(self, count: int) -> None:
        self._pool.map(noop, range(count))

    def round_trip(self) -> None:
        self._pool.apply(noop, (1,))


class Processes(System):
    """`submit`; `many` is `map` with chunks of 1,000, as its default is 1."""

    def __init__(self, executor: concurrent.futures.Executor) -> None:
        self._executor = executor

    def one_by_one(self, count: int) -> None:
        for future in [self._executor.submit(noop, n) for n in range(count)]:
            future.result()

    def many(self, count: int) -> None:
        assert sum(1 for _ in self._executor.map(noop, range(count), chunksize=self.batch)) == count

    def round_trip(self) -> None:
        self._executor.submit(noop, 1).result()


@contextmanager
def p2premap() -> Iterator[System]:
    """Whatever node answers under P2PREMAP_HOME."""
    import p2premap

    with p2premap.connect() as cluster:
        yield P2PRemap(cluster)


@contextmanager
def ray() -> Iterator[System]:
    """A cluster of one machine."""
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, configure_logging=False, log_to_driver=False)
    try:
        yield Ray()
    finally:
        ray.shutdown()


@contextmanager
def dask() -> Iterator[System]:
    """A cluster of one machine."""
    from distributed import Client

    with Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as client:
        yield Dask(client)


@contextmanager
def pool() -> Iterator[System]:
    """`multiprocessing.Pool`."""
    with multiprocessing.Pool(WORKERS) as workers:
        yield Pool(workers)


@contextmanager
def processes() -> Iterator[System]:
    """`ProcessPoolExecutor`."""
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as executor:
        yield Processes(executor)


SYSTEMS: dict[str, Callable[[], Any]] = {
    "p2premap": p2premap,
    "ray": ray,
    "dask": dask,
    "pool": pool,
    "processes": processes,
}


def cpu_s(roots: list[int]) -> float:
    """CPU seconds of these processes and all that descend from them so far."""
    total = 0.0
    for root in roots:
        process = psutil.Process(root)
        for one in (process, *process.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


def measure(system: System, roots: list[int]) -> dict[str, Any]:
    """The three figures, warm.

    Args:
        roots: processes whose trees do the work.
    """
    system.one_by_one(WARM_UP)
    system.many(system.batched // 10)
    found: dict[str, Any] = {}
    for name, call, count in (
        ("one_by_one", system.one_by_one, system.calls),
        ("many", system.many, system.batched),
    ):
        cpu, wall = cpu_s(roots), time.perf_counter()
        call(count)
        wall = time.perf_counter() - wall
        found[name] = {"calls": count, "wall_s": wall, "cpu_s": cpu_s(roots) - cpu}
    trips = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        system.round_trip()
        trips.append(time.perf_counter() - start)
    found["trips_s"] = sorted(trips)
    return found


def main() -> None:
    """The command: SYSTEM, then process ids whose trees work for it too."""
    name, *pids = sys.argv[1:]
    with SYSTEMS[name]() as system:
        print(json.dumps(measure(system, [os.getpid(), *map(int, pids)])), flush=True)


if __name__ == "__main__":
    main()
