"""A node starts on a machine where others run: when does everybody see everybody?

Counted from the newcomer's own line "I am up", so that the start of Python is not in the figure; and, beside it, from
the start of its process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from bench.nodes import Cluster, alive, connect_all, cpu_s, members, until
from bench.report import Emitter
from p2premap.client.connection import Connection

QUICK: Final = {"repeat": 1, "sizes": (3,)}
SIZES = (3, 8, 16)
JOINS = 17
TARGET_S = 0.3


def run(emit: Emitter, *, repeat: int = JOINS, sizes: Sequence[int] = SIZES) -> None:
    """Let nodes join clusters of each size, one after the other."""
    every: list[float] = []
    for size in sizes:
        names = [f"n{number:02}" for number in range(size)]
        with Cluster(names, slots=1) as cluster:
            lines = connect_all(cluster, names)
            after_up: list[float] = []
            after_start: list[float] = []
            before = cpu_s(cluster.pids)
            for number in range(repeat):
                started = time.monotonic()
                name = f"j{number:02}"
                cluster.add(name)
                up = time.monotonic()
                lines += connect_all(cluster, [name])
                whole = max(_whole_at(line, size + 1) for line in lines)
                after_up.append(max(0.0, whole - up))
                after_start.append(whole - started)
                lines.pop().close()
                cluster.remove_last()
                until(lambda: all(alive(line) == size for line in lines))  # noqa: B023  (called at once)
            used = cpu_s(cluster.pids) - before
            for line in lines:
                line.close()
        every += after_up
        emit(f"all see all, {size} nodes and one more", after_up, "s", target=TARGET_S, cpu_s=round(used, 2))
        emit(f"the same from the start of its process, {size}", after_start, "s")
    emit("all see all, every join", every, "s", target=TARGET_S, worst_target=3.0, worst_met=max(every) <= 3.0)


def _whole_at(line: Connection, size: int) -> float:
    """When this node came to see `size` living members."""
    found: list[float] = []

    def whole() -> bool:
        views = [view for view in members(line) if view.state == "alive"]
        if len(views) == size:
            found.append(time.monotonic() - min(view.since_s for view in views if not view.me))
        return bool(found)

    until(whole, limit_s=30.0)
    return found[0]
