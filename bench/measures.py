"""What is asked of each system, and how it is measured: many small tasks, small items, a large array, a word count.

Run by `bench.peers`, and as that one needs nothing but the standard library and psutil.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import psutil

ROUND_TRIPS: Final = 1_000
WARM_UP: Final = 200
ITEMS: Final = 100_000
ARRAY_BYTES: Final = 100_000_000
ARRAY_TASKS: Final = 8


class System:
    """What is asked of each system, as far as it has it; `calls` and `batched` say how many calls it is given."""

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

    def items(self, count: int) -> list[int]:
        """`square` of so many items, in chunks as the system makes them unless told otherwise."""
        raise NotImplementedError

    def array(self, data: Any) -> list[float]:  # noqa: ANN401
        """`eighth` of one array, for all eight."""
        raise NotImplementedError

    def words(self, paths: Sequence[str]) -> dict[str, int]:
        """How often each word stands in these files."""
        raise NotImplementedError


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


def small_tasks(system: System, roots: list[int], part: str = "1") -> dict[str, Any]:
    """Three figures, warm.

    Args:
        roots: processes whose trees do the work.
        part: the work is divided by this, here and below.
    """
    calls, batched = system.calls // int(part), system.batched // int(part)
    system.one_by_one(WARM_UP)
    system.many(batched // 10)
    found: dict[str, Any] = {}
    for name, call, count in (("one_by_one", system.one_by_one, calls), ("many", system.many, batched)):
        _, timed = _timed(lambda call=call, count=count: call(count), roots)  # type: ignore[misc]
        found[name] = {"calls": count, **timed}
    trips = []
    for _ in range(ROUND_TRIPS // int(part)):
        start = time.perf_counter()
        system.round_trip()
        trips.append(time.perf_counter() - start)
    found["trips_s"] = sorted(trips)
    return found


def small_items(system: System, roots: list[int], part: str = "1") -> dict[str, Any]:
    """`items`, warm."""
    count = ITEMS // int(part)
    system.items(WARM_UP)
    squares, found = _timed(lambda: system.items(count), roots)
    assert squares == [n * n for n in range(count)]
    return found


def large_array(system: System, roots: list[int], part: str = "1") -> dict[str, Any]:
    """`array`, warm; the array is another one each time, as what was sent once need not be sent again."""
    import numpy

    system.array(numpy.ones(ARRAY_TASKS))
    size = ARRAY_BYTES // 8 // int(part)
    data = numpy.random.default_rng().integers(0, 1 << 31, size)  # sums are exact in whatever order
    sums, found = _timed(lambda: system.array(data), roots)
    assert sums == data[: size // ARRAY_TASKS * ARRAY_TASKS].reshape(ARRAY_TASKS, -1).sum(axis=1).tolist()
    return found


def word_count(system: System, roots: list[int], *paths: str) -> dict[str, Any]:
    """`words` of these files, warm: the modules are imported, and the workers are up."""
    system.words(paths[:2])
    counts, found = _timed(lambda: system.words(paths), roots)
    return {**found, "words": len(counts), "in_all": sum(counts.values()), "commonest": max(counts.values())}


def _timed(call: Callable[[], Any], roots: list[int]) -> tuple[Any, dict[str, float]]:
    cpu, wall = cpu_s(roots), time.perf_counter()
    result = call()
    wall = time.perf_counter() - wall
    return result, {"wall_s": wall, "cpu_s": cpu_s(roots) - cpu}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "tasks": small_tasks,
    "items": small_items,
    "array": large_array,
    "words": word_count,
}
