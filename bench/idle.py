"""What a node costs when nothing is to be done: memory (PSS of all its processes), CPU, bytes a second sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from bench.nodes import connect_all, cpu_s, pss_bytes
from bench.report import Emitter
from p2premap.client.connection import Connection
from p2premap.client.private import PrivateCluster
from p2premap.control.nodes import GetStatus, Status

QUICK: Final = {"sizes": (3,), "settle_s": 2.0, "watch_s": 2.0}
SIZES = (3, 32)
SETTLE_S = 20.0
WATCH_S = 30.0
MEMORY_TARGET_MB = 45.0
CPU_TARGET = 0.005
BYTES_TARGET = 600.0


def run(
    emit: Emitter,
    *,
    repeat: int = 1,
    sizes: Sequence[int] = SIZES,
    settle_s: float = SETTLE_S,
    watch_s: float = WATCH_S,
) -> None:
    """Start nodes, leave them alone, and look at them from outside; a value is one node's."""
    for size in sizes:
        names = [f"n{number:02}" for number in range(size)]
        memory, cpu, rate = list[float](), list[float](), list[float]()
        for _ in range(repeat):
            with PrivateCluster(names, slots=2) as cluster:
                time.sleep(settle_s)
                lines = connect_all(cluster, names)
                sent = [_sent(line) for line in lines]
                before = [cpu_s([pid]) for pid in cluster.pids]
                start = time.monotonic()
                time.sleep(watch_s)
                passed = time.monotonic() - start
                cpu += [(cpu_s([pid]) - b) / passed for pid, b in zip(cluster.pids, before, strict=True)]
                rate += [(_sent(line) - b) / passed for line, b in zip(lines, sent, strict=True)]
                memory += [pss_bytes([pid]) / 1e6 for pid in cluster.pids]
                for line in lines:
                    line.close()
        emit(f"memory of one of {size} nodes", memory, "MB PSS", target=MEMORY_TARGET_MB)
        emit(f"CPU of one of {size} nodes", cpu, "of one core", target=CPU_TARGET)
        emit(f"datagram bytes sent by one of {size} nodes", rate, "B/s", target=BYTES_TARGET)


def _sent(line: Connection) -> int:
    return line.ask(lambda n: GetStatus(request=n), Status).counters["transport.counts.sent_bytes"]
