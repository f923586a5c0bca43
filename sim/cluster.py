"""A world of gossip nodes with every checker in place, ready for a scenario."""

from __future__ import annotations

from random import Random

from p2premap.config import GossipConfig
from p2premap.gossip.events import Hinted, SetFact, SetLoad
from p2premap.gossip.members import EMPTY, Base
from p2premap.sim.beliefs import Beliefs, Watch, is_dead
from p2premap.sim.checkers import (
    FalseDead,
    LeftNotDead,
    Monotone,
    Quiet,
    SingleWriter,
    check_facts,
    check_members,
    check_whole,
)
from p2premap.sim.gossip import GossipHosts, first_entry
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import NetworkConfig
from p2premap.sim.world import World

HINTS = 3
"""Addresses that a node hears of at its start, from mDNS or its own disk; and as many nodes hear of it."""

CHECKED_EACH_STEP_MAX = 40
"""Clusters up to this size have each core's invariants checked after every step; larger ones at times."""


class Cluster(Quiet):
    """Nodes 0 to n-1, not started yet.

    Args:
        nodes: how many.
        seed: of everything.
        network: how good the network is.
        config: of every gossip core.
        undialable: so many of them (the last ones) sit behind an address translator.
        strict: a false DEAD or a misreported leave fails at once; otherwise it is counted.
        replay: the command that repeats this run.
    """

    kinds: tuple[type, ...] = ()

    def __init__(
        self,
        nodes: int,
        *,
        seed: int,
        network: NetworkConfig | None = None,
        config: GossipConfig | None = None,
        undialable: int = 0,
        strict: bool = True,
        replay: str = "",
    ) -> None:
        self.config = config or GossipConfig()
        self._hosts = GossipHosts(self.config)
        self.world = World(
            seed=seed,
            hosts=self._hosts,
            network=network,
            check_every=1 if nodes <= CHECKED_EACH_STEP_MAX else 997,
            replay=replay,
        )
        self.beliefs = Beliefs(self.world)
        self.false_dead = FalseDead(self.world, self.config, raises=strict)
        self.left = LeftNotDead(self.world, raises=strict)
        self.monotone = Monotone(self.world, self.beliefs)
        self.facts = SingleWriter(self.world)
        self.random: Random = self.world.random("scenario")
        self._preloading = False
        self.world.observe(self)
        for index in range(nodes):
            self.world.add(dialable=index < nodes - undialable)

    @property
    def seats(self) -> list[Seat]:
        """The machines."""
        return self.world.seats

    def start(self, seat: Seat, disk: Disk = Disk.KEPT) -> None:
        """Start a node."""
        self.world.start(seat, disk)

    def fault(self, seat: Seat, word: str) -> None:
        """Whoever starts hears of some others soon, and they of it, as by mDNS; also under a new identity."""
        if word != "start" or self._preloading:
            return
        others = [other for other in self.world.live() if other is not seat]
        for other in self.random.sample(others, min(HINTS, len(others))):
            later_s = self.random.uniform(0.005, 0.05)
            self.world.clock.after(later_s, self.world.hint, seat, Hinted(address=other.address, node=None))
            self.world.clock.after(later_s, self.world.hint, other, Hinted(address=seat.address, node=None))

    def form(self, *, within_s: float = 0.5, limit_s: float = 30.0) -> float:
        """Start all, one after the other within `within_s`; return how long it took until all knew all.

        Raises:
            InvariantBroken: `forms`: not within the limit.
        """
        since = self.world.now
        for place, seat in enumerate(self.seats):
            self.world.clock.after(within_s * place / len(self.seats), self.start, seat)
        self.world.run_for(within_s)
        self.until_whole(limit_s, "forms")
        return self.world.now - since

    def preload(self) -> None:
        """All run already, and everyone has known everyone for a while."""
        entries = [first_entry(seat, self.world.first_boot(seat)) for seat in self.seats]
        self._hosts.base, self._preloading = Base(entries), True
        for seat in self.seats:
            self.world.start(seat)
        self._hosts.base, self._preloading = EMPTY, False
        self.beliefs.take_base(entries)

    def until_whole(self, limit_s: float, checker: str = "whole") -> float:
        """Let time pass until everybody believes what is so; return how long it took.

        Raises:
            InvariantBroken: by the checker's name, when the limit is reached.
        """
        since = self.world.now
        while not self.beliefs.whole():
            if self.world.now - since >= limit_s:
                check_whole(self.world, self.beliefs, checker)
            self.world.run_for(0.05)
        return self.world.now - since

    def known_gone(self, seat: Seat) -> Watch:
        """Watch until everybody else takes this node for dead or left."""
        others = [other for other in self.world.live() if other is not seat]
        return self.beliefs.watch(seat.node, is_dead, others)

    def publish(self, seat: Seat, key: str, size: int = 8) -> None:
        """A new value of a slow fact, at least 8 bytes, unlike all before and in no order with them."""
        value = self.random.randbytes(max(8, size))
        self.world.tell(seat, SetFact(key=key, value=value))

    def load(self, seat: Seat) -> None:
        """A new load level."""
        self.world.tell(seat, SetLoad(value=bytes([self.random.randrange(8), self.random.randrange(8)])))

    def check_quiet(self) -> None:
        """What must hold when everything has been well for a while.

        Raises:
            InvariantBroken: `whole`, `told` or `facts`.
        """
        check_whole(self.world, self.beliefs)
        check_members(self.world, self.beliefs)
        check_facts(self.world, self.facts)
