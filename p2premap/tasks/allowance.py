"""How many of its slots a node offers now: what its owner allows, and what its machine has to spare.

A limit that is exceeded counts once it has been so for `limit_s`; what it took away comes back once the machine has
had it to spare for `relief_s` without a break, at the level of its worst moment in that time. In between a value that
trembles around a limit changes nothing. What is taken away is not offered any more; what runs there ends in its own
time, except where the owner is at the machine or its battery is running down: then it is stopped, and runs elsewhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from p2premap.config import OwnerLimits, TasksConfig
from p2premap.tasks.events import MachineNow

IDLE_CPUS = 0.2
"""A machine of which the programs of others use less than this part is not in use, unless somebody types there."""

RELIEF = 1.25
"""Memory counts as free again when there is so many times as much as the owner wants."""


class Offer(NamedTuple):
    """What can be offered.

    Args:
        slots: how many.
        why: why not more, as half a sentence; "" where it is all.
        urgent: what runs is to be stopped too.
    """

    slots: int
    why: str = ""
    urgent: bool = False


class Allowance:
    """The slots that a node offers.

    Args:
        slots: that the owner gave the node.
        config: intervals.
    """

    def __init__(self, slots: int, config: TasksConfig) -> None:
        self.slots = slots
        self.limits = OwnerLimits()
        self.draining = False
        self._config = config
        self._held = Offer(slots)
        self._worst: Offer | None = None
        self._since = math.inf

    @property
    def offer(self) -> Offer:
        """What is offered now."""
        if self.draining:
            return Offer(0, "it is being drained")
        return self._held if self._held.slots < self.slots else Offer(self.slots)

    def resize(self, slots: int) -> None:
        """The owner gives so many."""
        whole = self._held.slots == self.slots
        self.slots = slots
        self._held = Offer(slots) if whole else self._held

    def limit(self, limits: OwnerLimits) -> None:
        """The owner sets limits, or lifts them; what the machine says next counts."""
        self.limits = limits
        self._held, self._worst, self._since = Offer(self.slots), None, math.inf

    def hear(self, now: float, machine: MachineNow) -> None:
        """The machine is so now."""
        judged = self._judge(machine)
        if judged.slots == self._held.slots:
            self._held, self._worst = judged, None
            return
        sinks = judged.slots < self._held.slots
        if self._worst is None or sinks != (self._worst.slots < self._held.slots):
            self._worst, self._since = judged, now
        else:
            # of what lasted: the least that was seen of a relief, and the mildest of an excess
            pick = max if sinks else min
            self._worst = pick(self._worst, judged, key=lambda offer: offer.slots)
        if now - self._since >= (self._config.limit_s if sinks else self._config.relief_s):
            self._held, self._worst = self._worst, None

    def _judge(self, machine: MachineNow) -> Offer:
        limits, spare = self.limits, Offer(self.slots)
        if limits.not_on_battery and machine.on_battery:
            return Offer(0, "it runs from its battery", urgent=True)
        if limits.only_when_idle and (machine.user_active or machine.others_cpus > IDLE_CPUS * machine.cpus):
            return Offer(0, "somebody uses the machine", urgent=True)
        wanted = limits.memory_free_bytes_min * (RELIEF if "memory" in self._held.why else 1.0)
        if machine.memory_free_bytes < wanted:
            return Offer(0, "less memory is free than its owner wants")
        if limits.load_max:
            slots = max(0, math.floor(machine.cpus * limits.load_max - machine.others_cpus + 0.5))
            if slots < self.slots:
                spare = Offer(slots, f"it may be loaded to {limits.load_max:.0%} only, by others too")
        return spare
