"""kill -9 of one node of 8, 16 and 32 on loopback: when do all the others know?

Each survivor is asked for how long it has known (`NodeView.since_s`), so the asking itself is not in the figure.
Between two kills a new node takes the place of the dead one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from bench.nodes import Cluster, alive, connect_all, cpu_s, members, until
from bench.report import Emitter
from p2premap.client.connection import Connection
from p2premap.ids import NodeId

QUICK: Final = {"repeat": 1, "sizes": (4,)}
SIZES = (8, 16, 32)
KILLS = 5
TARGET_S = 0.3


def run(emit: Emitter, *, repeat: int = KILLS, sizes: Sequence[int] = SIZES) -> None:
    """Measure each size."""
    for size in sizes:
        names = [f"n{number:02}" for number in range(size)]
        with Cluster(names, slots=1) as cluster:
            seconds: list[float] = []
            used = 0.0
            rng = Random(size)
            left = dict(zip(names, cluster.pids, strict=True))
            for number in range(repeat):
                victim = rng.choice(sorted(left))
                lines = connect_all(cluster, [name for name in sorted(left) if name != victim])
                node = next(view.node for view in members(lines[0]) if view.name == victim)
                killed = left.pop(victim)
                before, killed_at = cpu_s(left.values()), time.monotonic()
                os.kill(killed, signal.SIGKILL)
                known = [_known_at(line, node) for line in lines]
                seconds.append(max(known) - killed_at)
                used += cpu_s(left.values()) - before
                if number + 1 < repeat:
                    cluster.add(f"k{number:02}")
                    left[f"k{number:02}"] = cluster.pids[-1]
                    until(lambda: all(alive(line) == size for line in lines))  # noqa: B023  (called at once)
                for line in lines:
                    line.close()
        emit(f"all know, {size} nodes", seconds, "s", target=TARGET_S, cpu_s=round(used, 2))


def _known_at(line: Connection, node: NodeId) -> float:
    """When this survivor came to know that the node is dead, on the monotonic clock."""
    found: list[float] = []

    def dead() -> bool:
        for view in members(line):
            if view.node == node and view.state == "dead":
                found.append(time.monotonic() - view.since_s)
        return bool(found)

    until(dead, limit_s=30.0)
    return found[0]
