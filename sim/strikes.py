"""Faults as a list that is drawn beforehand, so that any part of it can be run again without the rest.

Each strike says when it comes, what it does, to which machine, and for how long: nothing in it depends on what happens
in the world. Dropping one, or halving its time, leaves the others as they are: so a failing seed shrinks
(`p2premap.sim.shrink`). What really happened is counted: a strike that finds its machine down already does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Protocol

from p2premap.sim.disks import Fault
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import Cut, NetworkConfig
from p2premap.sim.world import World

BACK_S: Final = (0.3, 12.0)
"""The bounds of how long a machine stays down or stalled, and of how long a cut or a bad network lasts."""

EFFECTS_MAX: Final = 60
"""A crash in the middle of a step comes after up to so many effects."""

NOT_YET_S: Final = 2.0
"""A node that has not performed that many effects by then is spared."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault.

    Args:
        at: virtual seconds since the faults began.
        kind: one of `KINDS`.
        seat: the index of the machine that it hits first, taken modulo their number.
        lasts_s: until it is repaired.
        extra: 0 to 1, for whatever the kind has to choose.
    """

    at: float
    kind: str
    seat: int
    lasts_s: float
    extra: float

    def __str__(self) -> str:
        return f"{self.at:.3f} s {self.kind}, machine {self.seat}, for {self.lasts_s:.2f} s"


class Target(Protocol):
    """What is struck."""

    world: World

    def start(self, seat: Seat, disk: Disk) -> None:
        """Start a node."""

    def set_disk(self, seat: Seat, fault: Fault) -> None:
        """From now on this is wrong with a machine's disk."""

    def set_slow(self, seat: Seat, slow: bool) -> None:
        """Attempts at this machine take long, or do not any more."""

    def crash_workers(self, seat: Seat, count: int) -> None:
        """The next attempts there end with their worker process."""


def draw(random: Random, *, seconds: float, every_s: float, kinds: Sequence[str] = ()) -> tuple[Strike, ...]:
    """Strikes for so long, one every `every_s` on average, each kind about as often as any other."""
    chosen = tuple(kinds or KINDS)
    strikes: list[Strike] = []
    round_: list[str] = []
    at = random.expovariate(1 / every_s)
    while at < seconds:
        if not round_:
            round_ = list(chosen)
            random.shuffle(round_)
        strikes.append(Strike(at, round_.pop(), random.randrange(1 << 16), random.uniform(*BACK_S), random.random()))
        at += random.expovariate(1 / every_s)
    return tuple(strikes)


class Striker:
    """Carries strikes out.

    Args:
        target: what is struck.
        strikes: see `draw`; their times count from now.
        down_max: so many machines at most are down, stalled or asleep at a time.
    """

    def __init__(self, target: Target, strikes: Iterable[Strike], *, down_max: int) -> None:
        self.counts: Counter[str] = Counter()
        self._target = target
        self._world = target.world
        self._down_max = down_max
        self._over = False
        self._good = self._world.network.config
        self._bad: dict[str, NetworkConfig] = {}
        for strike in strikes:
            self._world.clock.after(strike.at, self._strike, strike)

    def end(self) -> None:
        """Repair everything; nothing breaks any more."""
        self._over = True
        self._world.network.config = self._good
        self._world.network.heal()
        for seat in self._world.seats:
            seat.slow_s = 0.0
            seat.effects_left = None
            self._target.set_disk(seat, Fault.NONE)
            self._target.set_slow(seat, False)
            self._world.resume(seat)
            if not seat.runs:
                self._target.start(seat, Disk.KEPT)

    def _strike(self, strike: Strike) -> None:
        if not self._over:
            seats = self._world.seats
            _ACTS[strike.kind](self, seats[strike.seat % len(seats)], strike)

    def _may_go(self, seat: Seat) -> bool:
        seats = self._world.seats
        return seat in self._world.live() and len(seats) - len(self._world.live()) < self._down_max

    def _later(self, strike: Strike, action: Callable[..., None], *args: object) -> None:
        self._world.clock.after(strike.lasts_s, action, *args)

    # --- machines -------------------------------------------------------------------------------------------------

    def _crash(self, seat: Seat, strike: Strike) -> None:
        if self._may_go(seat):
            self.counts[strike.kind] += 1
            (self._world.power_off if strike.kind == "power" else self._world.crash)(seat)
            self._later(strike, self._back, seat, Disk.KEPT)

    def _lose_disk(self, seat: Seat, strike: Strike) -> None:
        if self._may_go(seat):
            self._world.crash(seat)
            self._later(strike, self._back, seat, Disk.OLD if strike.kind == "old disk" else Disk.LOST)

    def _back(self, seat: Seat, disk: Disk) -> None:
        if not self._over and not seat.runs:
            if disk is not Disk.KEPT:
                self.counts[f"{disk.value} disk"] += 1
            self._target.start(seat, disk)

    def _crash_in_a_step(self, seat: Seat, strike: Strike) -> None:
        if self._may_go(seat):
            self._world.crash_after(seat, int(strike.extra * EFFECTS_MAX))
            self._world.clock.after(NOT_YET_S, self._crashed_in_a_step, seat, seat.life)

    def _crashed_in_a_step(self, seat: Seat, life: int) -> None:
        if seat.life != life:
            self.counts["crash in a step"] += 1
            self._back(seat, Disk.KEPT)
        else:
            seat.effects_left = None

    def _stall(self, seat: Seat, strike: Strike) -> None:
        if self._may_go(seat):
            self.counts[strike.kind] += 1
            (self._world.sleep if strike.kind == "sleep" else self._world.pause)(seat)
            self._later(strike, self._resume, seat, seat.life)

    def _resume(self, seat: Seat, life: int) -> None:
        if seat.life == life:
            self._world.resume(seat)

    def _jump(self, seat: Seat, strike: Strike) -> None:
        if seat in self._world.live():
            self.counts["jump"] += 1
            self._world.jump(seat, 10 ** (strike.extra * 3 - 0.5))

    def _slow(self, seat: Seat, strike: Strike) -> None:
        self.counts["slow node"] += 1
        seat.slow_s = strike.extra * 0.1
        self._target.set_slow(seat, True)
        self._later(strike, self._fast, seat)

    def _fast(self, seat: Seat) -> None:
        seat.slow_s = 0.0
        self._target.set_slow(seat, False)

    def _bad_disk(self, seat: Seat, strike: Strike) -> None:
        self.counts[strike.kind] += 1
        self._target.set_disk(seat, Fault.FULL if strike.kind == "disk full" else Fault.SLOW)
        self._later(strike, self._target.set_disk, seat, Fault.NONE)

    def _crash_workers(self, seat: Seat, strike: Strike) -> None:
        self.counts["worker crash"] += 1
        self._target.crash_workers(seat, 1 + int(strike.extra * 2))

    # --- the network ----------------------------------------------------------------------------------------------

    def _cut(self, seat: Seat, strike: Strike) -> None:
        """The first side begins with this machine and has up to half of all, in a circle."""
        seats = self._world.seats
        size = 1 + int(strike.extra * (len(seats) // 2))
        a = [seats[(seat.index + n) % len(seats)] for n in range(size)]
        b = [other for other in seats if other not in a]
        if strike.kind == "partial cut":
            b = b[: max(1, len(b) // 2)]
        self.counts[strike.kind] += 1
        cut: Cut = self._world.network.cut(a, b, both_ways=strike.kind != "one-way cut")
        self._later(strike, self._world.network.heal, cut)

    def _bad_network(self, _: Seat, strike: Strike) -> None:
        self.counts[strike.kind] += 1
        good = self._good
        self._bad[strike.kind] = {
            "loss": replace(good, loss=0.05 + 0.35 * strike.extra),
            "duplication": replace(good, duplicate=0.3),
            "reordering": replace(good, reorder=0.3),
            "delay": replace(good, jitter_s=0.05 * strike.extra),
            "corruption": replace(good, corrupt=0.1),
        }[strike.kind]
        self._mix()
        self._later(strike, self._better, strike.kind)

    def _better(self, kind: str) -> None:
        self._bad.pop(kind, None)
        if not self._over:
            self._mix()

    def _mix(self) -> None:
        """All that is wrong with the network at once."""
        all_ = (self._good, *self._bad.values())
        self._world.network.config = replace(
            self._good,
            loss=max(one.loss for one in all_),
            duplicate=max(one.duplicate for one in all_),
            reorder=max(one.reorder for one in all_),
            jitter_s=max(one.jitter_s for one in all_),
            corrupt=max(one.corrupt for one in all_),
        )

    @property
    def happened(self) -> int:
        """How many faults there were in all."""
        return self.counts.total()


_ACTS: Final[dict[str, Callable[[Striker, Seat, Strike], None]]] = {
    "crash": Striker._crash,
    "crash in a step": Striker._crash_in_a_step,
    "power": Striker._crash,
    "old disk": Striker._lose_disk,
    "lost disk": Striker._lose_disk,
    "pause": Striker._stall,
    "sleep": Striker._stall,
    "jump": Striker._jump,
    "cut": Striker._cut,
    "one-way cut": Striker._cut,
    "partial cut": Striker._cut,
    "loss": Striker._bad_network,
    "duplication": Striker._bad_network,
    "reordering": Striker._bad_network,
    "delay": Striker._bad_network,
    "corruption": Striker._bad_network,
    "disk full": Striker._bad_disk,
    "slow disk": Striker._bad_disk,
    "slow node": Striker._slow,
    "worker crash": Striker._crash_workers,
}

KINDS: Final = tuple(_ACTS)
"""Every fault. "power" also takes what was not synced and tears it; "old disk" and "lost disk" come with a restart."""
