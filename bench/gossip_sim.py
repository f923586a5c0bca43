"""The gossip core in the simulator: virtual seconds and counted bytes, so the load of this machine does not matter."""

from __future__ import annotations

import time
from typing import Final

from bench.report import Emitter
from p2premap.sim import scenarios
from p2premap.sim.scenarios import quantile

QUICK: Final = {"part": 20, "nodes_max": 32}


def run(emit: Emitter, *, part: int = 1, nodes_max: int = 1_000) -> None:
    """Every figure that the design promises of the gossip; about ten minutes.

    Args:
        part: what is counted is divided by this.
        nodes_max: larger clusters are left out.
    """
    _detection(emit, part, nodes_max)
    _false_alarms(emit, part)
    _healing(emit, part, nodes_max)
    _leaving(emit, part)
    _stalling(emit, part)
    _cost(emit, part, nodes_max)


def _detection(emit: Emitter, part: int, nodes_max: int) -> None:
    for nodes, losses in ((8, 100), (100, 60), (1_000, 40)):
        if nodes > nodes_max:
            continue
        seen = scenarios.detection(nodes, seed=1, losses=losses // part)
        for name, values in (("each survivor knows", seen.each_s), ("all know", seen.all_s)):
            emit(
                f"power-off of one of {nodes}: {name}",
                values,
                "s",
                target=3.5,
                p99=quantile(values, 0.99),
                p99_target=5.0,
                p99_met=quantile(values, 0.99) <= 5.0,
                unknown=seen.unknown,
                false_dead=seen.false_dead,
            )
    for nodes in (8, 32):
        seen = scenarios.detection(nodes, seed=2, losses=50 // part, power=False)
        emit(f"kill -9 of one of {nodes}: all know", seen.all_s, "s", target=0.3, unknown=seen.unknown)


def _false_alarms(emit: Emitter, part: int) -> None:
    for loss, target in ((0.10, 0.0), (0.25, 1.0)):
        seen = scenarios.false_alarms(32, seed=3, node_minutes=10_000 // part, loss=loss)
        name = f"well nodes called dead in {seen.node_minutes:.0f} node-minutes at {loss:.0%} loss"
        emit(name, [seen.dead], "deaths", target=target, suspected=seen.suspected)


def _healing(emit: Emitter, part: int, nodes_max: int) -> None:
    for nodes, cuts in ((8, 20), (32, 20), (100, 8)):
        if nodes > nodes_max:
            continue
        times = scenarios.healing(nodes, seed=4, cuts=max(cuts // part, 1))
        emit(f"a healed cut of {nodes} is whole", times, "s", target=5.0, worst_target=10.0, worst_met=max(times) <= 10)


def _leaving(emit: Emitter, part: int) -> None:
    misreported, times = scenarios.leaving(16, seed=5, leaves=500 // part)
    emit(f"leaves reported as deaths, of {500 // part}", [misreported], "leaves", target=0.0)
    emit("a leave of one of 16: all know", times, "s")


def _stalling(emit: Emitter, part: int) -> None:
    dead = scenarios.stalling(16, seed=6, stalls=50 // part)
    emit(f"nodes stalled for 10 s called dead, of {50 // part}", [dead], "deaths", target=0.0)


def _cost(emit: Emitter, part: int, nodes_max: int) -> None:
    for nodes, load, seconds, target in (
        (32, False, 120.0, 600.0),
        (1_000, False, 20.0, 600.0),
        (1_000, True, 20.0, 4096.0),
    ):
        if nodes > nodes_max:
            continue
        seconds /= part
        began = time.perf_counter()
        seen = scenarios.cost(nodes, seed=7, seconds=seconds, load=load)
        emit(
            f"sent by a node of {nodes}, {'each with a new load a second' if load else 'idle'}",
            seen.bytes_per_s,
            "bytes/s",
            target=target,
            datagrams_per_s=round(quantile(seen.datagrams_per_s, 0.5), 2),
            times_real_time=round((seconds + 10) / (time.perf_counter() - began), 2),
        )
