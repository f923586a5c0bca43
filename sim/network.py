"""Datagrams between machines: what is lost, late, doubled or cut off, and what each byte costs.

Only encoded bytes travel. A corrupted datagram is a lost one: authenticated encryption drops it before any decoder
sees it. Delays are drawn per datagram, so that later ones overtake earlier ones by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log
from random import Random
from typing import Final

from p2premap.errors import ConfigError
from p2premap.ids import Address
from p2premap.sim.clock import Clock
from p2premap.sim.machines import Power, Seat

NAT_HOLDS_S: Final = 30.0
"""How long an address translator lets answers in after a datagram went out."""

SOCKET_DATAGRAMS_MAX: Final = 256
"""What the socket of a process that does not read holds (about 200 KB); later datagrams are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """How good the network is.

    Args:
        delay_s: the least a packet takes one way.
        jitter_s: the mean of what comes on top, exponentially distributed.
        loss, duplicate, reorder, corrupt: probabilities of one datagram's fate; 0 to 1.
        reorder_s: a reordered datagram is later by up to this.
        datagram_overhead_bytes: IPv4 and UDP headers (28), and the sealed datagram's own header and tag (62).
        frame_overhead_bytes: IPv4 and TCP headers with options (52), TLS record (22), frame head (9).
        link_timeout_s: a link whose data is not acknowledged for this long breaks (TCP_USER_TIMEOUT).
    """

    delay_s: float = 0.0003
    jitter_s: float = 0.0004
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.1
    corrupt: float = 0.0
    datagram_overhead_bytes: int = 90
    frame_overhead_bytes: int = 83
    link_timeout_s: float = 20.0

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; a probability lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class Cut:
    """Machines that cannot reach others.

    Args:
        a, b: indices of machines; nothing goes from a to b.
        both_ways: nor from b to a.
    """

    a: frozenset[int]
    b: frozenset[int]
    both_ways: bool = True

    def blocks(self, source: int, target: int) -> bool:
        """Whether a packet from one to the other is lost here."""
        return (source in self.a and target in self.b) or (self.both_ways and source in self.b and target in self.a)


@dataclass(slots=True)
class Fates:
    """How many datagrams met which fate."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    cut_off: int = 0
    unheard: int = 0
    """The machine was off, no process listened, or its socket was full."""


class Network:
    """Who can reach whom, and how long it takes.

    Args:
        clock: of the world.
        config: see there; may be replaced while the world runs.
        random: of this network alone.
        heard: called with (target, source, data) for each datagram that a running process reads.
    """

    def __init__(
        self, clock: Clock, config: NetworkConfig, random: Random, heard: Callable[[Seat, Seat, bytes], None]
    ) -> None:
        self.clock = clock
        self.random = random
        self.fates = Fates()
        self.cuts: list[Cut] = []
        self.healed: list[Callable[[], None]] = []
        self.cut_or_healed: list[Callable[[], None]] = []
        self._heard = heard
        self._seats: dict[Address, Seat] = {}
        self.config = config

    @property
    def config(self) -> NetworkConfig:
        """How good it is now."""
        return self._config

    @config.setter
    def config(self, config: NetworkConfig) -> None:
        self._config = config
        self._delay_s, self._jitter_s = config.delay_s, config.jitter_s
        self._packet_lost = config.loss + config.corrupt

    def plug(self, seat: Seat) -> None:
        """The machine is now at its address."""
        self._seats[seat.address] = seat

    def at(self, address: Address) -> Seat | None:
        """The machine at an address."""
        return self._seats.get(address)

    # --- paths ----------------------------------------------------------------------------------------------------

    def cut(self, a: Iterable[Seat], b: Iterable[Seat], *, both_ways: bool = True) -> Cut:
        """Nothing goes from `a` to `b` from now on."""
        cut = Cut(frozenset(s.index for s in a), frozenset(s.index for s in b), both_ways)
        self.cuts.append(cut)
        self._tell(self.cut_or_healed)
        return cut

    def heal(self, cut: Cut | None = None) -> None:
        """Mend one cut, or all of them."""
        self.cuts = [] if cut is None else [c for c in self.cuts if c is not cut]
        self._tell(self.cut_or_healed)
        self.changed()

    def changed(self) -> None:
        """Paths may have become whole again: whoever holds back data tries anew."""
        self._tell(self.healed)

    @staticmethod
    def _tell(listeners: list[Callable[[], None]]) -> None:
        for listener in listeners:
            listener()

    def reaches(self, source: Seat, target: Seat) -> bool:
        """Whether packets go from one machine's kernel to the other's now."""
        if not target.on or not self.cuts:
            return target.on
        return not any(cut.blocks(source.index, target.index) for cut in self.cuts)

    def connected(self, a: Seat, b: Seat) -> bool:
        """Whether packets go both ways, as far as cuts are concerned."""
        return not any(c.blocks(a.index, b.index) or c.blocks(b.index, a.index) for c in self.cuts)

    def delay_s(self, source: Seat, target: Seat) -> float:
        """How long one packet takes this time."""
        jitter = -log(1.0 - self.random.random()) * self._jitter_s  # exponentially distributed with the mean 1
        return self._delay_s + jitter + source.slow_s + target.slow_s

    def lost(self) -> bool:
        """Whether one packet is lost this time (a corrupted one is)."""
        return self._packet_lost > 0 and self.random.random() < self._packet_lost

    # --- datagrams ------------------------------------------------------------------------------------------------

    def datagram(self, source: Seat, address: Address, data: bytes) -> None:
        """Send once, unreliably, to whoever is at that address."""
        config, fates, random = self._config, self.fates, self.random
        fates.sent += 1
        source.datagrams_sent += 1
        source.bytes_sent += len(data) + config.datagram_overhead_bytes
        if not source.dialable:
            source.nat_until[address] = self.clock.now + NAT_HOLDS_S
        target = self._seats.get(address)
        if target is None or not self.reaches(source, target) or not self._translated(source, target):
            fates.cut_off += 1
            return
        if config.loss and random.random() < config.loss:
            fates.lost += 1
            return
        if config.corrupt and random.random() < config.corrupt:
            fates.corrupted += 1
            return
        late_s = self.delay_s(source, target)
        if config.reorder and random.random() < config.reorder:
            fates.reordered += 1
            late_s += random.random() * config.reorder_s
        self.clock.after(late_s, self._arrive, target, source, data)
        if config.duplicate and random.random() < config.duplicate:
            fates.duplicated += 1
            self.clock.after(late_s + random.random() * config.reorder_s, self._arrive, target, source, data)

    def _translated(self, source: Seat, target: Seat) -> bool:
        return target.dialable or target.nat_until.get(source.address, -1.0) >= self.clock.now

    def _arrive(self, target: Seat, source: Seat, data: bytes) -> None:
        if target.power is Power.RUNNING:
            self._read(target, target.life, source, data)
        elif target.power is Power.PAUSED and target.backlog_datagrams < SOCKET_DATAGRAMS_MAX:
            target.backlog_datagrams += 1
            target.backlog.append((self._read, (target, target.life, source, data)))
        else:
            self.fates.unheard += 1

    def _read(self, target: Seat, life: int, source: Seat, data: bytes) -> None:
        if target.life == life:
            self.fates.delivered += 1
            self._heard(target, source, data)
