"""One system beside others, in a process of its own: `python -m bench.peers WHAT SYSTEM` prints one JSON object.

WHAT is one of `bench.measures.MEASURES` (many small tasks, small items, a large array, a word count), or `start`.
Behind the process ids come inputs: the files whose words are counted, or by what the usual amount of work is divided.

The standard library and psutil are all that it needs beside the system that it measures, so that another interpreter
can run it: one that has Ray or Dask.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.children import command
from bench.measures import ARRAY_TASKS, MEASURES, System

WORKERS = 2
HERE = "127.0.0.1"
DISPY_PORT = 9701
"""Where its nodes listen unless told otherwise."""
START_S = 30.0
PACKAGES = {"ray": "ray", "dask": "distributed", "joblib": "joblib", "dispy": "dispy"}
"""What a system needs that is not in the standard library."""


def noop(x: int = 0) -> int:
    """The task."""
    return x


def noops(xs: list[int]) -> list[int]:
    """A batch made by hand."""
    return [noop(x) for x in xs]


def square(x: int) -> int:
    """What is done to each of many small items."""
    return x * x


def eighth(data: Any, number: int) -> float:  # noqa: ANN401  (an array; numpy has no part in the other figures)
    """What each of several tasks does with the array that all of them are given."""
    size = len(data) // ARRAY_TASKS
    return float(data[number * size : (number + 1) * size].sum())


def words_of(path: str) -> Counter[str]:
    """A Counter over a whole file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return Counter(file.read().split())


def words_of_all(paths: Iterable[str]) -> Counter[str]:
    """A Counter over some files."""
    return merged(map(words_of, paths))


def merged(several: Iterable[Counter[str]]) -> Counter[str]:
    """One of several: `update` takes half the time of `+`."""
    total: Counter[str] = Counter()
    for counts in several:
        total.update(counts)
    return total


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

    def items(self, count: int) -> list[int]:
        return list(self._cluster.map(square, range(count)))

    def array(self, data: Any) -> list[float]:  # noqa: ANN401
        return self._eighths(self._cluster.put(data))

    def _eighths(self, given: Any) -> list[float]:  # noqa: ANN401
        return [future.result() for future in [self._cluster.submit(eighth, given, n) for n in range(ARRAY_TASKS)]]


class Arguments(P2PRemap):
    """The array as an argument of each call, without a word that it is the same."""

    def array(self, data: Any) -> list[float]:  # noqa: ANN401
        return self._eighths(data)


class Ray(System):
    """Remote functions; `many` in batches made by hand."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._noop, self._noops = ray.remote(noop), ray.remote(noops)
        self._eighth, self._words_of = ray.remote(eighth), ray.remote(words_of)

    def one_by_one(self, count: int) -> None:
        self._ray.get([self._noop.remote(n) for n in range(count)])

    def many(self, count: int) -> None:
        starts = range(0, count, self.batch)
        self._ray.get([self._noops.remote(list(range(n, n + self.batch))) for n in starts])

    def round_trip(self) -> None:
        self._ray.get(self._noop.remote(1))

    def array(self, data: Any) -> list[float]:  # noqa: ANN401
        kept = self._ray.put(data)
        found: list[float] = self._ray.get([self._eighth.remote(kept, n) for n in range(ARRAY_TASKS)])
        return found

    def words(self, paths: Sequence[str]) -> dict[str, int]:
        def as_they_come() -> Iterator[Counter[str]]:
            left = [self._words_of.remote(path) for path in paths]
            while left:
                done, left = self._ray.wait(left)
                yield from self._ray.get(done)

        return merged(as_they_come())


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

    def array(self, data: Any) -> list[float]:  # noqa: ANN401
        kept = self._client.scatter(data)
        futures = [self._client.submit(eighth, kept, n, pure=False) for n in range(ARRAY_TASKS)]
        found: list[float] = self._client.gather(futures)
        return found

    def words(self, paths: Sequence[str]) -> dict[str, int]:
        from dask import bag

        # one file a partition, counted on the spot; then eight at a time become one
        names = bag.from_sequence(paths, npartitions=len(paths))
        total: Counter[str] = names.reduction(words_of_all, merged).compute()
        return total


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

    def items(self, count: int) -> list[int]:
        found: list[int] = self._pool.map(square, range(count))
        return found


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

    def items(self, count: int) -> list[int]:
        return list(self._executor.map(square, range(count)))


class Joblib(System):
    """`Parallel` with its own backend, loky, and batches that it sizes itself."""

    def __init__(self, parallel: Any, delayed: Any) -> None:  # noqa: ANN401
        self._parallel, self._delayed = parallel, delayed

    def items(self, count: int) -> list[int]:
        found: list[int] = self._parallel(self._delayed(square)(n) for n in range(count))
        return found


class Dispy(System):
    """`JobCluster.submit`; it has no other way."""

    def __init__(self, cluster: Any) -> None:  # noqa: ANN401
        self._cluster = cluster

    def round_trip(self) -> None:
        assert self._cluster.submit(1)() == 1


@contextmanager
def p2premap(of: Callable[[Any], System] = P2PRemap) -> Iterator[System]:
    """Whatever node answers under P2PREMAP_HOME."""
    import p2premap

    with p2premap.connect() as cluster:
        yield of(cluster)


@contextmanager
def ray() -> Iterator[System]:
    """A cluster of one machine."""
    import ray

    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        _temp_dir=tempfile.gettempdir(),
    )
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


@contextmanager
def joblib() -> Iterator[System]:
    """Processes that joblib keeps."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=WORKERS) as parallel:
        yield Joblib(parallel, delayed)


@contextmanager
def dispy() -> Iterator[System]:
    """A node of this machine."""
    import dispy

    directory = tempfile.gettempdir()
    options = ("--cpus", str(WORKERS), "--host", HERE, "--dest_path_prefix", directory, "--daemon")
    node = subprocess.Popen([sys.executable, "-m", "dispy.dispynode", *options], stdout=subprocess.DEVNULL)
    try:
        _await_port(DISPY_PORT)  # a client that comes before the node finds it two seconds later
        cluster = dispy.JobCluster(noop, nodes=[HERE], host=HERE, recover_file=f"{directory}/recover")
        try:
            yield Dispy(cluster)
        finally:
            cluster.shutdown()
    finally:
        node.terminate()
        node.wait()


def _await_port(port: int) -> None:
    """Return when somebody listens there."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection((HERE, port)).close()
            return
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens at {HERE}:{port}")


SYSTEMS: dict[str, Callable[[], Any]] = {
    "p2premap": p2premap,
    "arguments": partial(p2premap, Arguments),
    "ray": ray,
    "dask": dask,
    "pool": pool,
    "processes": processes,
    "joblib": joblib,
    "dispy": dispy,
}


def started(name: str) -> dict[str, float]:
    """From nothing but an imported client to the result of a call."""
    importlib.import_module(PACKAGES[name])
    start = time.perf_counter()
    with SYSTEMS[name]() as system:
        system.round_trip()
        return {"wall_s": time.perf_counter() - start}


def main() -> None:
    """The command: WHAT, SYSTEM, process ids whose trees work for it too, separated by commas, and inputs."""
    what, name, *rest = sys.argv[1:]
    with _own_temporary_files():
        if what == "start":
            print(json.dumps(started(name)), flush=True)
            return
        pids, inputs = (rest[0] if rest else ""), rest[1:]
        roots = [os.getpid(), *map(int, filter(None, pids.split(",")))]
        with SYSTEMS[name]() as system:
            print(json.dumps(MEASURES[what](system, roots, *inputs)), flush=True)


@contextmanager
def _own_temporary_files() -> Iterator[None]:
    """What a system leaves among temporary files is gone in the end; Unix sockets there have short names."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        os.environ["TMPDIR"] = tempfile.tempdir = directory
        yield


if __name__ == "__main__":
    command(main)
