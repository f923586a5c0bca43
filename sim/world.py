"""A world: machines on a virtual clock and a faulty network, each running a real core. One seed, one history.

Every choice is drawn from generators seeded by (seed, node, room), every order is that of the clock's queue, and
every event and effect enters one running hash. Instants of two nodes cannot be compared: each clock has its own
origin, so that an instant which crosses the wire shows at once.

The world keeps to the driver's manners: what is already here comes before a late tick, and after a stall the core
hears `Woke` first, then what waited in the sockets, then its timers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from blake3 import blake3

from p2premap.gossip.events import (
    Dial,
    GossipEvent,
    Hangup,
    IdentityClash,
    Leave,
    Left,
    LoadChanged,
    MemberChanged,
    Received,
    SendDatagram,
    SendLink,
    Tick,
    Woke,
)
from p2premap.ids import BOOT_BITS, NODE_ID_BYTES, Address, Boot, NodeId, next_boot, starts_of
from p2premap.sim.clock import Clock
from p2premap.sim.encoding import Encoding, told
from p2premap.sim.hosts import HostMaker, Life
from p2premap.sim.machines import Disk, Power, Seat
from p2premap.sim.network import Network, NetworkConfig
from p2premap.sim.observers import InvariantBroken, Observer
from p2premap.sim.streams import Streams
from p2premap.sim.trace import Trace
from p2premap.wire import Message

STALL_S: Final = 0.25
"""A tick this late is a stall, as in the daemon's driver."""

_RECEIVED: Final = 1
_EVENT: Final = 2
_EFFECT: Final = 3
_SENT: Final = 4
_FAULT: Final = 5


class World:
    """The whole thing.

    Args:
        seed: of everything.
        hosts: makes what runs on a machine.
        network: how good the network is.
        check_every: `check_invariants` is called after every so many steps; 0: never.
        replay: the command that repeats this run, for failures.
        clock: one that something else moves, or the world's own.
    """

    def __init__(
        self,
        *,
        seed: int,
        hosts: HostMaker,
        network: NetworkConfig | None = None,
        check_every: int = 1,
        replay: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.seed = seed
        self.replay = replay or f"the world of seed {seed}"
        self.clock = clock or Clock()
        self.trace = Trace()
        self.seats: list[Seat] = []
        self.observers: list[Observer] = []
        self._watchers: dict[type, list[Callable[[Seat, object], None]]] = {}
        self.owners: dict[NodeId, Seat] = {}
        self.steps = 0
        self._hosts = hosts
        self._check_every = check_every
        network_config = network or NetworkConfig()
        self.network = Network(self.clock, network_config, self.random("network"), self._datagram_heard)
        self.streams = Streams(self.clock, self.network, deliver=self._deliver, frame=self._frame_heard)
        self._encoding = Encoding(self.broken)

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning; no node knows it."""
        return self.clock.now

    def random(self, *names: object) -> Random:
        """A generator of its own for whatever has this name."""
        return Random("/".join(map(str, (self.seed, *names))))

    def live(self) -> list[Seat]:
        """The machines whose process runs now."""
        return [seat for seat in self.seats if seat.power is Power.RUNNING]

    def observe(self, observer: Observer) -> None:
        """From now on it sees what happens."""
        self.observers.append(observer)
        for kind in observer.kinds:
            self._watchers.setdefault(kind, []).append(observer.effect)

    def broken(self, checker: str, text: str, seat: Seat | None = None) -> InvariantBroken:
        """The error to raise where something must not be."""
        tail = self.trace.tail(None if seat is None else seat.index)
        return InvariantBroken(checker, text, at=self.now, replay=self.replay, tail=tail)

    # --- machines -------------------------------------------------------------------------------------------------

    def add(self, *, dialable: bool = True) -> Seat:
        """A new machine, its process not started yet."""
        index = len(self.seats)
        host = f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"
        seat = Seat(index, Address(host, 7321), dialable=dialable)
        self.seats.append(seat)
        self.network.plug(seat)
        self._new_identity(seat)
        return seat

    def start(self, seat: Seat, disk: Disk = Disk.KEPT) -> None:
        """Switch on if need be and start the process."""
        assert seat.host is None, f"{seat} already runs"
        if disk is Disk.LOST:
            self._new_identity(seat)
        seat.life += 1
        self._next_boot(seat, old=disk is Disk.OLD)
        was_off = seat.power is Power.OFF
        seat.switch(Power.RUNNING)
        seat.since = self.now
        seat.left = seat.leaving = False
        node, start = seat.node, starts_of(seat.boot)
        origin = self.random(node.hex(), start, "clock").uniform(0, 1e6)
        seat.clock_offset_s = origin - self.now
        seat.clock_last = origin
        seat.host = self._hosts(
            Life(
                node=node,
                boot=seat.boot,
                former=seat.former,
                name=seat.name,
                addresses=(seat.address,),
                now=origin,
                random=lambda room: self.random(node.hex(), start, room),
                old=disk is Disk.OLD,
            )
        )
        self._note(seat, "start")
        if was_off:
            self.network.changed()
        self._arm(seat)

    def crash(self, seat: Seat) -> None:
        """Kill the process; the machine stays on, so its kernel closes and refuses."""
        if seat.host is None:
            return
        self.streams.process_ended(seat, kernel_speaks=seat.power is not Power.ASLEEP)
        self._end(seat, Power.STOPPED, "crash")

    def power_off(self, seat: Seat) -> None:
        """Pull the plug: nothing more is heard from this machine, not even the end of its links."""
        self.streams.process_ended(seat, kernel_speaks=False)
        self._end(seat, Power.OFF, "off")

    def pause(self, seat: Seat) -> None:
        """Stop the process as SIGSTOP does: its kernel goes on accepting and buffering."""
        if seat.power is Power.RUNNING:
            seat.switch(Power.PAUSED)
            seat.since = self.now
            self._note(seat, "pause")

    def sleep(self, seat: Seat) -> None:
        """Suspend the machine: nothing answers there."""
        if seat.power is Power.RUNNING:
            seat.switch(Power.ASLEEP)
            seat.since = self.now
            self._note(seat, "sleep")

    def resume(self, seat: Seat) -> None:
        """Let a paused process or a suspended machine run again.

        The clock of a machine stands still while it sleeps, as CLOCK_MONOTONIC does, so the driver measures the lost
        time by another clock.
        """
        if not seat.frozen:
            return
        slept_s = self.now - seat.since if seat.power is Power.ASLEEP else 0.0
        seat.clock_offset_s -= slept_s
        seat.switch(Power.RUNNING)
        seat.since = self.now
        self._note(seat, "resume")
        self.network.changed()
        assert seat.host is not None
        lag_s = max(0.0, self._local(seat) - seat.host.deadline())
        lost_s = max(lag_s, slept_s) if math.isfinite(lag_s) else slept_s
        if lost_s > STALL_S:
            self.tell(seat, Woke(lost_s=lost_s))
        backlog = tuple(seat.backlog)
        seat.backlog.clear()
        seat.backlog_datagrams = 0
        for action, arguments in backlog:
            action(*arguments)
        if seat.runs:
            self._arm(seat)

    def jump(self, seat: Seat, forward_s: float) -> None:
        """The node's clock leaps: its driver sees a tick that late and says so before anything else."""
        if seat.power is not Power.RUNNING or seat.host is None:
            return
        seat.clock_offset_s += forward_s
        self._note(seat, "jump")
        lost_s = self._local(seat) - seat.host.deadline()
        if math.isfinite(lost_s) and lost_s > STALL_S:
            self.tell(seat, Woke(lost_s=lost_s))
        else:
            self._arm(seat)

    def leave(self, seat: Seat) -> None:
        """Ask the node to leave in good order; its process ends when it has said so."""
        if seat.power is Power.RUNNING:
            seat.leaving = True
            self._note(seat, "leave")
            self.tell(seat, Leave())

    def crash_after(self, seat: Seat, effects: int) -> None:
        """Kill the process once it has performed so many more effects, be it in the middle of a step."""
        seat.effects_left = effects

    # --- events ---------------------------------------------------------------------------------------------------

    def tell(self, seat: Seat, event: object) -> None:
        """Give a running node an event that does not come from the network."""
        if seat.power is Power.RUNNING:
            for observer in self.observers:
                observer.told(seat, event)
            self._step(seat, event, told(event), _EVENT)

    def hint(self, seat: Seat, event: GossipEvent) -> None:
        """Tell the process at this machine something from outside; one that stands still hears it when it runs."""
        if seat.runs:
            self._deliver(seat, seat.life, event)

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.clock.run_until(self.now + seconds)

    def run_until(self, done: Callable[[], bool], *, limit_s: float) -> bool:
        """Let time pass until `done`; false if it was not within the limit."""
        return done() or self.clock.run_until(self.now + limit_s, done)

    # --- within ---------------------------------------------------------------------------------------------------

    def first_boot(self, seat: Seat) -> Boot:
        """The boot that the machine's first start will have, or had."""
        return next_boot(Boot(0), self._drawn(seat, life=1))

    def _drawn(self, seat: Seat, life: int) -> int:
        return self.random(seat.node.hex(), life, "boot").getrandbits(BOOT_BITS)

    def _next_boot(self, seat: Seat, *, old: bool) -> None:
        """An old disk is as it was when the start before the last one began."""
        remembered = (*seat.former, seat.boot) if seat.boot else ()
        seat.former = remembered[:-2] if old else remembered
        before = seat.former[-1] if seat.former else Boot(0)
        seat.boot = next_boot(before, self._drawn(seat, seat.life))

    def _new_identity(self, seat: Seat) -> None:
        seat.identities += 1
        name = f"{self.seed}/{seat.index}/{seat.identities}".encode()
        seat.node = NodeId(blake3(name).digest()[:NODE_ID_BYTES])
        seat.boot, seat.former = Boot(0), ()
        self.owners[seat.node] = seat

    def _end(self, seat: Seat, power: Power, word: str) -> None:
        seat.switch(power)
        seat.since = self.now
        seat.effects_left = None
        seat.tick_at = math.inf
        seat.backlog.clear()
        seat.backlog_datagrams = 0
        self._note(seat, word)
        seat.host = None
        seat.life += 1

    def _note(self, seat: Seat, word: str) -> None:
        self.trace.add(self.now, seat.index, _FAULT, word.encode(), seat.node[:4].hex(), f"** {word}")
        for observer in self.observers:
            observer.fault(seat, word)

    def _local(self, seat: Seat) -> float:
        """The node's own clock; never goes back."""
        shown = self.clock.now + seat.clock_offset_s
        if shown > seat.clock_last:
            seat.clock_last = shown
        return seat.clock_last

    def _arm(self, seat: Seat) -> None:
        """See to it that the node gets a tick at its deadline; an earlier one that is already due asks again."""
        assert seat.host is not None
        when, now = seat.host.deadline() - seat.clock_offset_s, self.clock.now
        if when < now:
            when = now
        if when < seat.tick_at:
            seat.tick_at = when
            self.clock.at(when, self._tick, seat, seat.life, when)

    def _tick(self, seat: Seat, life: int, when: float) -> None:
        if seat.life != life or seat.tick_at != when:
            return
        seat.tick_at = math.inf
        if seat.power is not Power.RUNNING or seat.host is None:
            return
        deadline = seat.host.deadline()
        if deadline - seat.clock_offset_s > self.clock.now:
            self._arm(seat)
            return
        seat.clock_last = max(self._local(seat), deadline)
        self._step(seat, Tick(), b"", _EVENT)

    def _deliver(self, seat: Seat, life: int, event: GossipEvent) -> None:
        """Tell a process what its kernel or its transport found out."""
        if seat.life != life:
            return
        if seat.frozen:
            seat.backlog.append((self._deliver, (seat, life, event)))
            return
        self._step(seat, event, told(event), _EVENT)

    def _datagram_heard(self, seat: Seat, source: Seat, data: bytes) -> None:
        message = self._encoding.read_datagram(data)
        event = Received(sender=source.node, address=source.address, message=message)
        self._step(seat, event, source.node + data, _RECEIVED)

    def _frame_heard(self, seat: Seat, source: Seat, data: bytes, message: Message) -> None:
        assert seat.host is not None
        event = seat.host.frame(source.node, self._encoding.read_frame(message))
        self._step(seat, event, source.node + data, _RECEIVED)

    def _step(self, seat: Seat, event: object, encoded: bytes, kind: int) -> None:
        host, life = seat.host, seat.life
        assert host is not None
        self.trace.add(self.clock.now, seat.index, kind, encoded, event, ">")
        try:
            effects = host.step(self._local(seat), event)
            self.steps += 1
            if self._check_every and self.steps % self._check_every == 0:
                host.check_invariants()
        except AssertionError as error:
            raise self.broken("core", f"{seat} broke its own invariant: {error!r}", seat) from error
        if effects:
            self._perform_all(seat, life, effects)
        if seat.life == life:
            self._arm(seat)

    def _perform_all(self, seat: Seat, life: int, effects: Sequence[object]) -> None:
        for effect in effects:
            if seat.effects_left is not None:
                seat.effects_left -= 1
                if seat.effects_left < 0:
                    self.crash(seat)
            if seat.life != life:
                return
            self.act(seat, effect)

    def act(self, seat: Seat, effect: object) -> None:
        """Do what a node asks for, and show it to whoever looks."""
        now = self.clock.now
        if type(effect) is SendDatagram:
            message = effect.message
            data = self._encoding.datagram(message)
            self.trace.add(now, seat.index, _SENT, effect.peer + data, message, "<")
            self.network.datagram(seat, effect.address, data)
        elif type(effect) is SendLink:
            message = effect.message
            data = self._encoding.frame(message)
            self.trace.add(now, seat.index, _SENT, effect.peer + data, message, "< link")
            self.streams.send(seat, effect.peer, data, message)
        elif type(effect) is LoadChanged:
            self.trace.add(now, seat.index, _EFFECT, effect.node + effect.value, effect, "<")
        else:
            self.trace.add(now, seat.index, _EFFECT, told(effect), effect, "<")
            self._perform_rare(seat, effect)
        for watcher in self._watchers.get(type(effect), ()):
            watcher(seat, effect)
        if type(effect) is Left or type(effect) is IdentityClash:
            self._process_over(seat, effect)

    def _perform_rare(self, seat: Seat, effect: object) -> None:
        match effect:
            case Dial():
                self.streams.dial(seat, effect)
            case Hangup(peer=peer):
                self.streams.hangup(seat, peer)
            case MemberChanged() | Left() | IdentityClash():
                pass
            case _:
                assert seat.host is not None
                seat.host.perform(effect)

    def _process_over(self, seat: Seat, effect: Left | IdentityClash) -> None:
        """The core has had its last word in this life."""
        self.streams.process_ended(seat, kernel_speaks=True)
        if isinstance(effect, Left):
            seat.left = True
            self._end(seat, Power.STOPPED, "left")
        else:
            self._end(seat, Power.STOPPED, "clash")
            self._new_identity(seat)
            self.start(seat)
