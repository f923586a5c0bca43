"""A machine of a world: its disk, its power, its clock, and the process that may run on it."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2premap.ids import Address, Boot, NodeId, starts_of
from p2premap.sim.hosts import Host

if TYPE_CHECKING:
    from p2premap.sim.streams import Link


class Power(enum.Enum):
    """What a machine and its process are doing; each answers a dial in its own way."""

    RUNNING = "running"
    PAUSED = "paused"
    """The process does not run, its kernel does: sockets accept and fill."""
    ASLEEP = "asleep"
    """The whole machine is suspended: nothing answers, nothing is lost but time."""
    STOPPED = "stopped"
    """The machine is on and no process runs: its kernel refuses."""
    OFF = "off"


class Disk(enum.Enum):
    """What a machine finds on its disk when its process starts again."""

    KEPT = "kept"
    OLD = "old"
    """An earlier image: it does not remember the last starts."""
    LOST = "lost"
    """Empty: a new key, hence a new node id."""


class Seat:
    """One machine. The world changes it; everybody else reads.

    Args:
        index: its place in the world, from 0.
        address: where its process listens, for ever.
        dialable: False behind an address translator: it can dial, nobody can dial it.
    """

    def __init__(self, index: int, address: Address, *, dialable: bool) -> None:
        self.index = index
        self.name = f"n{index}"
        self.address = address
        self.dialable = dialable
        self.switch(Power.STOPPED)
        self.node = NodeId(b"")
        self.identities = 0
        self.boot = Boot(0)
        self.former: tuple[Boot, ...] = ()
        """The starts before this one that its disk remembers."""
        self.life = 0
        self.host: Host | None = None
        self.clock_offset_s = 0.0
        self.clock_last = 0.0
        self.tick_at = float("inf")
        self.since = 0.0
        self.leaving = False
        self.left = False
        self.slow_s = 0.0
        self.effects_left: int | None = None
        self.backlog: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.backlog_datagrams = 0
        self.links: dict[NodeId, Link] = {}
        self.bytes_sent = 0
        self.datagrams_sent = 0
        self.frames_sent = 0
        self.nat_until: dict[Address, float] = {}

    @property
    def runs(self) -> bool:
        """Whether a process exists (it may be paused or asleep)."""
        return self.host is not None

    def switch(self, power: Power) -> None:
        """From now on the machine and its process are so.

        What follows from it is asked for each packet, so it is kept beside it: `frozen`, whether a process exists that
        does not get to run; `on`, whether the machine's kernel answers the network.
        """
        self.power = power
        self.frozen = power in (Power.PAUSED, Power.ASLEEP)
        self.on = power in (Power.RUNNING, Power.PAUSED, Power.STOPPED)

    def __repr__(self) -> str:
        return f"{self.name}({self.node[:4].hex()}, start {starts_of(self.boot)}, {self.power.value})"
