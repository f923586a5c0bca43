"""Schedules of faults from a seed: a phase in which anything breaks, then one in which all must become well.

In the safety phase machines crash (at any moment, and in the middle of a step), lose power, come back with their
disk kept, old or lost, stall, sleep and jump in time, and paths are cut in every way. Then `end` repairs everything
and the liveness phase begins: what is not whole within its bound never will be (the two phases of TigerBeetle's VOPR).

Every fault is counted when it has really happened, so that a run that tested nothing can be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from p2premap.sim.cluster import Cluster
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import Cut

BACK_AFTER_S: Final = (0.3, 12.0)
"""The bounds of how long a machine stays down, stalled or asleep, and of how long a cut lasts."""


class Faults:
    """One fault after another, at random instants.

    Args:
        cluster: what is broken.
        random: decides everything.
        every_s: the mean time between two faults.
        kinds: names of faults (see `KINDS`); all by default.
    """

    def __init__(self, cluster: Cluster, *, random: Random, every_s: float = 1.0, kinds: tuple[str, ...] = ()) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.counts: Counter[str] = Counter()
        self._random = random
        self._every_s = every_s
        self._over = False
        self._good = self.world.network.config
        self._kinds: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "crash in a step": self._crash_in_a_step,
            "power": self._power,
            "pause": self._pause,
            "sleep": self._sleep,
            "jump": self._jump,
            "leave": self._leave,
            "cut": self._cut,
            "one-way cut": self._one_way_cut,
            "partial cut": self._partial_cut,
            "bad network": self._bad_network,
            "slow machine": self._slow,
            "fact": self._fact,
        }
        self._chosen = kinds or tuple(self._kinds)
        self._round: list[str] = []
        self._next()

    def end(self) -> None:
        """Repair everything; nothing breaks any more."""
        self._over = True
        self.world.network.config = self._good
        self.world.network.heal()
        for seat in self.cluster.seats:
            seat.slow_s = 0.0
            seat.effects_left = None
            self.world.resume(seat)
            if not seat.runs:
                self.cluster.start(seat)

    def _next(self) -> None:
        if not self._over:
            self.world.clock.after(self._random.expovariate(1 / self._every_s), self._strike)

    def _strike(self) -> None:
        if self._over:
            return
        if not self._round:
            self._round = list(self._chosen)
            self._random.shuffle(self._round)
        self._kinds[self._round.pop()]()
        self._next()

    def _victim(self) -> Seat | None:
        """A running machine, as long as more than half of all run."""
        live = self.world.live()
        return self._random.choice(live) if len(live) * 2 > len(self.cluster.seats) else None

    def _later(self, action: Callable[..., None], *args: object) -> None:
        self.world.clock.after(self._random.uniform(*BACK_AFTER_S), action, *args)

    # --- machines -------------------------------------------------------------------------------------------------

    def _back(self, seat: Seat) -> None:
        if self._over or seat.runs:
            return
        disk = self._random.choices(tuple(Disk), weights=(6, 1, 1))[0]
        self.counts[f"start with its disk {disk.value}"] += 1
        self.cluster.start(seat, disk)

    def _crash(self) -> None:
        if seat := self._victim():
            self.counts["crash"] += 1
            self.world.crash(seat)
            self._later(self._back, seat)

    def _crash_in_a_step(self) -> None:
        if seat := self._victim():
            self.world.crash_after(seat, self._random.randrange(20))
            self.world.clock.after(2.0, self._crashed_in_a_step, seat, seat.life)

    def _crashed_in_a_step(self, seat: Seat, life: int) -> None:
        if seat.life != life:
            self.counts["crash in a step"] += 1
            self._back(seat)

    def _power(self) -> None:
        if seat := self._victim():
            self.counts["power"] += 1
            self.world.power_off(seat)
            self._later(self._back, seat)

    def _pause(self) -> None:
        if seat := self._victim():
            self.counts["pause"] += 1
            self.world.pause(seat)
            self._later(self._resume, seat, seat.life)

    def _sleep(self) -> None:
        if seat := self._victim():
            self.counts["sleep"] += 1
            self.world.sleep(seat)
            self._later(self._resume, seat, seat.life)

    def _resume(self, seat: Seat, life: int) -> None:
        if seat.life == life:
            self.world.resume(seat)

    def _jump(self) -> None:
        if seat := self._victim():
            self.counts["jump"] += 1
            self.world.jump(seat, self._random.choice((0.3, 3.0, 300.0)))

    def _leave(self) -> None:
        if seat := self._victim():
            self.counts["leave"] += 1
            self.world.leave(seat)
            self._later(self._back, seat)

    def _slow(self) -> None:
        if seat := self._victim():
            self.counts["slow machine"] += 1
            seat.slow_s = self._random.choice((0.0, 0.02, 0.2))

    def _fact(self) -> None:
        if seat := self._victim():
            self.counts["fact"] += 1
            self.cluster.publish(seat, self._random.choice("abc"))

    # --- the network ----------------------------------------------------------------------------------------------

    def _split(self) -> tuple[list[Seat], list[Seat]]:
        seats = self.cluster.seats[:]
        self._random.shuffle(seats)
        middle = self._random.randrange(1, len(seats))
        return seats[:middle], seats[middle:]

    def _until_later(self, cut: Cut, name: str) -> None:
        self.counts[name] += 1
        self._later(self.world.network.heal, cut)

    def _cut(self) -> None:
        a, b = self._split()
        self._until_later(self.world.network.cut(a, b), "cut")

    def _one_way_cut(self) -> None:
        a, b = self._split()
        self._until_later(self.world.network.cut(a, b, both_ways=False), "one-way cut")

    def _partial_cut(self) -> None:
        """Some pairs cannot reach each other, and everybody reaches both by others."""
        a, b = self._split()
        self._until_later(self.world.network.cut(a[:2], b[:2]), "partial cut")

    def _bad_network(self) -> None:
        self.counts["bad network"] += 1
        self.world.network.config = replace(
            self._good,
            loss=self._random.choice((0.0, 0.1, 0.4)),
            duplicate=self._random.choice((0.0, 0.2)),
            reorder=self._random.choice((0.0, 0.3)),
            corrupt=self._random.choice((0.0, 0.05)),
            jitter_s=self._random.choice((0.0004, 0.02)),
        )

    @property
    def happened(self) -> int:
        """How many faults there were in all."""
        return self.counts.total()
