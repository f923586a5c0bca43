"""Kinds of walks over a job's cores: the shape of the job, and what goes wrong how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from p2premap.sim.workloads import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often things go wrong: the weight of each beside 100 for every ordinary step."""

    kill: float = 0.0
    back: float = 20.0
    disk_lost: float = 0.0
    false_death: float = 0.0
    doubt: float = 0.0
    unlink: float = 0.0
    crash: float = 0.0
    refuse: float = 0.0
    unreadable: float = 0.0
    cancel: float = 0.0
    takeover: float = 0.0
    time: float = 2.0
    resize: float = 0.0


FAULTS: Final = {
    "none": Faults(),
    "kill": Faults(kill=3),
    "kill and lose the disk": Faults(kill=3, disk_lost=50),
    "links": Faults(unlink=5),
    "verdicts": Faults(false_death=4, doubt=5),
    "executors": Faults(crash=0.3, refuse=3, unreadable=1),
    "everything": Faults(
        kill=2, false_death=2, doubt=3, unlink=3, crash=0.2, refuse=2, unreadable=2, resize=1, disk_lost=20
    ),
    "cancel": Faults(kill=2, cancel=2, unlink=3, false_death=1),
}
"""One node leads to the end."""

TAKEOVERS: Final = {
    "takeovers": Faults(takeover=2),
    "everything": Faults(
        takeover=2, kill=2, false_death=2, doubt=3, unlink=3, crash=0.2, refuse=2, unreadable=2, resize=1, disk_lost=10
    ),
    "cancel": Faults(takeover=2, kill=1, cancel=2, unlink=2),
}
"""Leaders die, or are deposed."""

HARSH: Final = Faults(takeover=6, kill=4, disk_lost=50, false_death=3)

SHAPES: Final = (
    Shape(12, 3),
    Shape(30),
    Shape(8, 4, steady=False),
    Shape(150, inline=True, map_s=0.001),
    Shape(6, 6, map_s=0.3, steady=False),
)

SMALL: Final = (
    Shape(4, 2),
    Shape(6),
    Shape(3, 2, steady=False),
    Shape(20, inline=True, map_s=0.001),
    Shape(2, 3, map_s=0.3, steady=False),
)

GANGS: Final = (
    Shape(4, 2, epochs=2, steady=False),
    Shape(6, epochs=3, steady=False),
    Shape(5, 3, epochs=1),
    Shape(3, epochs=4, steady=False),
)
"""With stages whose tasks share slots and talk to each other."""

SHORT_STEPS: Final = 60
"""Enough for most small jobs to end."""


def often(faults: Faults) -> Faults:
    """Three times as many of them."""
    words = ("kill", "false_death", "doubt", "unlink", "crash", "refuse", "unreadable", "cancel", "takeover", "resize")
    return replace(faults, **{word: 3 * getattr(faults, word) for word in words})


SHORT: Final = tuple(map(often, FAULTS.values()))
SHORT_TAKEOVERS: Final = (*map(often, TAKEOVERS.values()), HARSH)
"""What goes wrong in short walks over small jobs."""
