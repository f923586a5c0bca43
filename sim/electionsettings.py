"""Kinds of walks over election cores: what goes wrong how often, and intervals with which a short walk shows it."""

from __future__ import annotations

from dataclasses import dataclass

from p2premap.config import ElectionConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often things go wrong: the weight of each beside 100 for every ordinary step."""

    crash: float = 0.0
    back: float = 20.0
    unlink: float = 0.0
    cut: float = 0.0
    heal: float = 20.0
    false_death: float = 0.0
    doubt: float = 0.0
    disk_full: float = 0.0
    time: float = 5.0
    woke: float = 0.0
    create: float = 10.0
    append: float = 30.0
    propose: float = 10.0
    conclude: float = 0.0
    hand_over: float = 0.0
    torn: float = 0.0
    old_disk: float = 0.0
    change_crash: float = 0.0
    """The chance in a hundred that who has just told of another replica set crashes."""


HASTY = ElectionConfig(replace_s=0.5, fork_s=1.0, create_wait_s=0.4, decide_wait_s=0.5)
"""Intervals with which a short walk sees everything."""

CALM = Faults(create=0.0, append=0.0, propose=0.0, time=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A kind of walk.

    Args:
        nodes, copies, first: one of each is drawn.
    """

    faults: Faults
    nodes: tuple[int, ...] = (3, 4, 5)
    copies: tuple[int, ...] = (3,)
    first: tuple[int, ...] = (9,)
    config: ElectionConfig = HASTY


SETTINGS = {
    "elections": Setting(
        faults=Faults(crash=6, back=60, unlink=10, false_death=20, propose=40, time=10, cut=3, heal=15),
        nodes=(3,),
        config=ElectionConfig(replace_s=1000.0, decide_wait_s=0.1, create_wait_s=0.4, fork_s=1.0),
    ),
    "everything": Setting(
        faults=Faults(
            crash=6, back=60, unlink=10, false_death=20, propose=40, time=10, cut=3, heal=15,
            doubt=1, disk_full=2, woke=0.3, conclude=0.5, hand_over=1,
        ),
    ),
    "crashes": Setting(
        faults=Faults(crash=15, back=60, unlink=2, false_death=5, propose=25, append=15, time=15), nodes=(2, 3)
    ),
    "changes": Setting(
        faults=Faults(
            crash=4, back=8, unlink=5, false_death=10, propose=40, append=25, time=40, cut=3, heal=10, hand_over=2
        ),
        copies=(2, 3),
        config=ElectionConfig(replace_s=0.1, decide_wait_s=0.1, create_wait_s=0.4, fork_s=1.0),
    ),
}  # fmt: skip

GROWTH = Setting(
    faults=Faults(crash=2, back=8, unlink=4, propose=25, append=15, torn=15, time=100, hand_over=1, change_crash=60),
    nodes=(3, 4),
    first=(1, 2),
    config=ElectionConfig(replace_s=0.1, decide_wait_s=2.0, resend_s=2.0, create_wait_s=0.4, fork_s=1000.0),
)
"""A replica set that is too small when its job begins: of its change nobody may notice anything."""

OLD_DISKS = Setting(
    faults=Faults(crash=8, back=60, old_disk=30, unlink=5, false_death=20, propose=40, append=20, time=20),
    nodes=(3,),
    config=ElectionConfig(replace_s=1000.0, decide_wait_s=0.1, create_wait_s=0.4, fork_s=1000.0),
)
"""Machines that are restored from copies of themselves."""
