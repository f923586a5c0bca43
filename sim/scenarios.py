"""What the gossip is measured by: how soon a loss is known, how often a well node is called dead, what it all costs.

Each function makes its own world from a seed, runs it and returns plain figures. The benchmarks run them at full
size, the tests at a size that fits into a test run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2premap.config import GossipConfig
from p2premap.gossip.events import MemberChanged, MemberState
from p2premap.sim.beliefs import Watch
from p2premap.sim.checkers import Quiet
from p2premap.sim.cluster import Cluster
from p2premap.sim.machines import Seat
from p2premap.sim.network import NetworkConfig

SETTLE_S = 5.0
"""Let a preloaded cluster come to its rhythm (links, probe phases) before anything is measured."""


def quantile(values: list[float], q: float) -> float:
    """The nearest-rank quantile of sorted or unsorted values; 0 <= q <= 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How a loss became known.

    Args:
        each_s: one figure for each loss and each survivor: when that survivor knew.
        all_s: one figure for each loss: when the last survivor knew.
        unknown: losses that somebody still did not know of at the end.
        false_dead: other nodes called dead meanwhile.
    """

    each_s: list[float]
    all_s: list[float]
    unknown: int
    false_dead: int


def detection(
    nodes: int, *, seed: int, losses: int, power: bool = True, network: NetworkConfig | None = None
) -> Detection:
    """Take nodes away, some at a time, and wait until all survivors know.

    Args:
        nodes: in the cluster.
        seed: of everything.
        losses: how many, in rounds of at most 2 % of the nodes (but at least one) at random instants within a second.
        power: pull the plug; otherwise kill the process.
    """
    cluster = Cluster(nodes, seed=seed, network=network, strict=False)
    world = cluster.world
    cluster.preload()
    world.run_for(SETTLE_S)
    watches: list[Watch] = []
    while len(watches) < losses:
        victims = cluster.random.sample(cluster.seats, min(max(1, nodes // 50), losses - len(watches)))
        for victim in victims:
            world.run_for(cluster.random.uniform(0, 1.0 / len(victims)))
            (world.power_off if power else world.crash)(victim)
            watches.append(cluster.known_gone(victim))
        recent = watches[-len(victims) :]
        world.run_until(_all_know(recent), limit_s=30.0)
        if len(watches) < losses:
            for victim in victims:
                cluster.start(victim)
            world.run_for(SETTLE_S)
    done = [watch for watch in watches if watch.done]
    return Detection(
        each_s=sorted(delay for watch in watches for delay in watch.delays_s()),
        all_s=sorted(watch.delays_s()[-1] for watch in done),
        unknown=len(watches) - len(done),
        false_dead=len(cluster.false_dead.seen),
    )


def _all_know(watches: list[Watch]) -> Callable[[], bool]:
    return lambda: all(watch.done for watch in watches)


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """Verdicts about nodes that were well.

    Args:
        node_minutes: how long all nodes ran, added up.
        dead: times that a well node was called dead.
        suspected: times that one was suspected, by one observer each.
    """

    node_minutes: float
    dead: int
    suspected: int


class _Suspicions(Quiet):
    """Counts SUSPECT verdicts."""

    def __init__(self) -> None:
        self.count = 0

    def effect(self, seat: Seat, effect: object) -> None:
        self.count += isinstance(effect, MemberChanged) and effect.state is MemberState.SUSPECT


def false_alarms(nodes: int, *, seed: int, node_minutes: float, loss: float) -> FalseAlarms:
    """Let a healthy cluster run on a lossy network, and count who is called dead."""
    cluster = Cluster(nodes, seed=seed, network=NetworkConfig(loss=loss), strict=False)
    suspicions = _Suspicions()
    cluster.world.observe(suspicions)
    cluster.preload()
    cluster.world.run_for(node_minutes * 60 / nodes)
    return FalseAlarms(node_minutes=node_minutes, dead=len(cluster.false_dead.seen), suspected=suspicions.count)


def healing(nodes: int, *, seed: int, cuts: int, cut_s: float = 20.0, limit_s: float = 60.0) -> list[float]:
    """Cut a cluster into two random parts again and again; how long after each healing it is whole, in seconds."""
    cluster = Cluster(nodes, seed=seed, strict=False)
    world = cluster.world
    cluster.preload()
    world.run_for(SETTLE_S)
    times: list[float] = []
    for _ in range(cuts):
        seats = cluster.seats[:]
        cluster.random.shuffle(seats)
        middle = cluster.random.randrange(1, nodes)
        cut = world.network.cut(seats[:middle], seats[middle:])
        world.run_for(cut_s)
        world.network.heal(cut)
        times.append(cluster.until_whole(limit_s, "heals"))
        world.run_for(SETTLE_S + 10.0)
    return times


def leaving(nodes: int, *, seed: int, leaves: int) -> tuple[int, list[float]]:
    """Let nodes leave in good order and come back.

    Returns:
        How many leaves anybody reported as a death, and how long each took until all knew, in seconds.
    """
    cluster = Cluster(nodes, seed=seed, strict=False)
    world = cluster.world
    cluster.preload()
    world.run_for(SETTLE_S)
    times: list[float] = []
    for _ in range(leaves):
        seat = cluster.random.choice(world.live())
        watch = cluster.known_gone(seat)
        world.leave(seat)
        gone = _all_know_and_it_stopped(watch, seat)
        world.run_until(gone, limit_s=30.0)
        times.append(watch.delays_s()[-1])
        cluster.beliefs.forget(watch)
        cluster.start(seat)
        world.run_for(1.0)
    return len({(node, when) for when, _, node in cluster.left.misreported}), times


def _all_know_and_it_stopped(watch: Watch, seat: Seat) -> Callable[[], bool]:
    return lambda: watch.done and not seat.runs


def stalling(nodes: int, *, seed: int, stalls: int, stall_s: float = 10.0) -> int:
    """Stall one node after another for so long; how many of them anybody called dead."""
    cluster = Cluster(nodes, seed=seed, strict=False)
    world = cluster.world
    cluster.preload()
    world.run_for(SETTLE_S)
    for _ in range(stalls):
        seat = cluster.random.choice(cluster.seats)
        world.pause(seat)
        world.run_for(stall_s)
        world.resume(seat)
        world.run_for(2.0)
    return len(cluster.false_dead.seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the gossip costs in rest.

    Args:
        bytes_per_s: sent by each node, everything on the wire included; one figure a node.
        datagrams_per_s: as above.
    """

    bytes_per_s: list[float]
    datagrams_per_s: list[float]


def cost(nodes: int, *, seed: int, seconds: float, load: bool = False, config: GossipConfig | None = None) -> Cost:
    """Let a cluster be for a while, with or without every node's load changing every second.

    The load of each node changes once a second, which is as often as it may be told.
    """
    cluster = Cluster(nodes, seed=seed, config=config)
    world = cluster.world
    cluster.preload()
    if load:
        for seat in cluster.seats:
            world.clock.after(cluster.random.random(), _load_for_ever, cluster, seat.index)
    world.run_for(SETTLE_S + 5.0)
    before = [(seat.bytes_sent, seat.datagrams_sent) for seat in cluster.seats]
    world.run_for(seconds)
    sent = [
        ((seat.bytes_sent - bytes_) / seconds, (seat.datagrams_sent - datagrams) / seconds)
        for seat, (bytes_, datagrams) in zip(cluster.seats, before, strict=True)
    ]
    return Cost(bytes_per_s=sorted(b for b, _ in sent), datagrams_per_s=sorted(d for _, d in sent))


def _load_for_ever(cluster: Cluster, index: int) -> None:
    cluster.load(cluster.seats[index])
    cluster.world.clock.after(1.0, _load_for_ever, cluster, index)
