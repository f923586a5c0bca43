"""What a node says about itself: its load, in eight levels.

Slow facts (capabilities, addresses of services, ledger heads) are entries like the members' records: versioned by
their single writer, hashed, repaired (`p2premap.gossip.beliefs`, `p2premap.gossip.repair`). Load is different: it is
out of date soon, so it is never repaired, and what it may cost is bounded in bytes (`p2premap.gossip.spread`). To
keep it quiet, `LoadMeter` quantises with hysteresis, in size and in time: a value that trembles around a limit
changes nothing, and what the machine does (not the slots taken, which the scheduler lives on) counts once it has
lasted. Without that, nodes that share a machine share every twitch of its CPU, and each tells it to all.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LEVELS: Final = 8
HYSTERESIS: Final = 0.25
"""How far beyond the limit of its level a quantity must go, in levels, before the level changes."""
HELD_LOOKS: Final = 5
"""What the machine does, other than for us, counts when this many measurements in a row showed it."""


class LoadLevels(NamedTuple):
    """A node's load, each quantity from 0 (none) to 7 (all of it)."""

    busy_slots: int
    cpu: int
    memory: int
    battery_used: int
    user_active: int


_BUSY_SLOTS: Final = LoadLevels._fields.index("busy_slots")


class LoadMeter:
    """Turns measurements into the value of a `p2premap.gossip.events.SetLoad`."""

    def __init__(self) -> None:
        self._levels: LoadLevels | None = None
        self._held = [0] * len(LoadLevels._fields)

    def measure(
        self, *, busy_slots: float, cpu: float, memory: float, battery_used: float = 0.0, user_active: bool = False
    ) -> bytes:
        """Quantise a measurement.

        Args:
            busy_slots: the part of the node's slots that are taken, 0 to 1.
            cpu: the part of all CPUs in use, 0 to 1.
            memory: the part of memory that is not available, 0 to 1.
            battery_used: 0 on mains or with a full battery, 1 with an empty one.
            user_active: whether somebody is working at this machine.

        Returns:
            Five bytes, the same as before where no quantity left its level by more than the hysteresis.
        """
        parts = (busy_slots, cpu, memory, battery_used, 1.0 if user_active else 0.0)
        before = self._levels or LoadLevels(*(_level(part, None) for part in parts))
        self._levels = LoadLevels(
            *(self._calm(place, *pair) for place, pair in enumerate(zip(parts, before, strict=True)))
        )
        return bytes(self._levels)

    def _calm(self, place: int, part: float, before: int) -> int:
        """The level of one quantity: the one before, until another has lasted."""
        level = _level(part, before)
        self._held[place] = 0 if level == before else self._held[place] + 1
        if place != _BUSY_SLOTS and self._held[place] < HELD_LOOKS:
            return before
        self._held[place] = 0
        return level


def load_levels(value: bytes) -> LoadLevels:
    """What a `LoadMeter` wrote; a value of another length (a future version's) counts by its first five bytes."""
    padded = value[: len(LoadLevels._fields)].ljust(len(LoadLevels._fields), b"\0")
    return LoadLevels(*(min(level, LEVELS - 1) for level in padded))


def _level(part: float, before: int | None) -> int:
    """The level of a quantity from 0 to 1, leaning to the one before."""
    exact = min(max(part, 0.0), 1.0) * LEVELS
    if before is not None and before - HYSTERESIS <= exact < before + 1 + HYSTERESIS:
        return before
    return min(int(exact), LEVELS - 1)
