"""kill -9 of one node of 8, 16 and 32 on loopback: when do all the others know?

Each survivor is asked for how long it has known (`NodeView.since_s`), so the asking itself is not in the figure.
"""

from __future__ import annotations

import os
import signal
import time
from random import Random

from bench.nodes import connect_all, cpu_s, members, until
from bench.report import Emitter
from p2premap.client.connection import Connection
from p2premap.client.private import PrivateCluster
from p2premap.ids import NodeId

SIZES = (8, 16, 32)
KILLS = 5
TARGET_S = 0.3


def run(emit: Emitter) -> None:
    """Measure each size."""
    for size in SIZES:
        names = [f"n{number:02}" for number in range(size)]
        with PrivateCluster(names, slots=1) as cluster:
            seconds: list[float] = []
            before = cpu_s(cluster.pids)
            rng = Random(size)
            left = dict(zip(names, cluster.pids, strict=True))
            for _ in range(KILLS):
                victim = rng.choice(sorted(left))
                lines = connect_all(cluster, [name for name in sorted(left) if name != victim])
                node = next(view.node for view in members(lines[0]) if view.name == victim)
                killed_at = time.monotonic()
                os.kill(left.pop(victim), signal.SIGKILL)
                known = [_known_at(line, node) for line in lines]
                seconds.append(max(known) - killed_at)
                for line in lines:
                    line.close()
            used = cpu_s(cluster.pids) - before
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
