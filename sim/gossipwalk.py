"""An untimed random walk over the gossip cores of a few nodes.

Whatever could happen next may happen next: any datagram in flight arrives, arrives again, or is lost, in any order; a
link delivers in order, or breaks and takes with it what was under way; a dial ends in any way that it could; a node
publishes, leaves, wakes, crashes (also in the middle of a step), and starts again with its disk kept, old or lost. Each
node has a clock of its own, and any of them may reach its next deadline while all others stand still: so everybody is
doubted and taken for dead, rightly or not, and what was said long ago arrives late.

Nothing is promised here about time; `p2premap.sim.gossipmodel` checks what holds all the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import accumulate
from random import Random
from typing import Final

from p2premap import protocol
from p2premap.config import GossipConfig
from p2premap.gossip.core import GossipCore
from p2premap.gossip.events import (
    Dial,
    GossipEvent,
    Hangup,
    Hinted,
    IdentityClash,
    Leave,
    Left,
    MemberState,
    Received,
    SendDatagram,
    SendLink,
    SetFact,
    SetLoad,
    Tick,
    WantLink,
    Woke,
)
from p2premap.gossip.members import EMPTY, Base
from p2premap.gossip.messages import MemberEntry
from p2premap.ids import BOOT_BITS, NODE_ID_BYTES, Address, Boot, Incarnation, NodeId, next_boot
from p2premap.sim.gossiplines import Lines
from p2premap.sim.gossipmodel import Model, Seat, Violated
from p2premap.sim.machines import Disk
from p2premap.wire import Message

FLYING_MAX: Final = 100
"""Datagrams under way; of more the oldest are lost."""

ENCODED_EVERY: Final = 16
"""Of the messages that are sent, every so many are encoded and decoded as on a real wire, and compared."""

FIRST_DRAWN: Final = 1
"""The random bits of every node's first start, so that walks can share what all know of it."""

DEEP_EVERY: Final = 8
"""Of a walk's steps, every so many are followed by the checks that compute everything anew."""

STEPS: Final = 60
TRIES: Final = 8
"""Draws of what comes next until one is possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How often each thing comes next, beside the others; see `Walk`."""

    deliver: float = 100.0
    hear: float = 100.0
    dialled: float = 60.0
    tick: float = 40.0
    lose: float = 0.0
    unlink: float = 0.0
    crash: float = 0.0
    start: float = 20.0
    fact: float = 10.0
    load: float = 3.0
    hint: float = 5.0
    want: float = 2.0
    woke: float = 0.0
    leave: float = 0.0


SETTINGS: Final = {
    "everything": Weights(lose=20, unlink=5, crash=5, woke=1, leave=1),
    "silence": Weights(deliver=30, hear=30, tick=150, lose=60, crash=2, start=5),
    "deaths": Weights(hear=150, dialled=150, tick=150, crash=12, start=3, unlink=2, fact=2, load=0, hint=1, want=0),
    "facts": Weights(lose=20, fact=60, load=30, crash=5, start=40),
    "comings and goings": Weights(hear=150, crash=20, start=80, leave=4, hint=20, unlink=5, fact=3, load=0),
}


class Walk:
    """A few nodes.

    Args:
        seed: of every choice.
        nodes: how many.
        weights: what happens how often.
        acquainted: they know each other from the start.
    """

    def __init__(self, seed: int, *, nodes: int = 3, weights: Weights | None = None, acquainted: bool = True) -> None:
        self.random = Random(f"gossipwalk/{seed}")
        self.counts: Counter[str] = Counter()
        self._log: list[tuple[str, str, object]] = []
        self._weights = weights or Weights()
        self._words, self._bounds = _drawn(self._weights)
        self._config = GossipConfig()
        self._base = _acquainted(nodes) if acquainted else EMPTY
        self._serial = self._sent = self._steps = 0
        self._flying: list[tuple[NodeId, Address, Address, Message]] = []
        self.seats = [Seat(number) for number in range(nodes)]
        self._at = {seat.address: seat for seat in self.seats}
        self._lines = Lines(self._at, self.random, self._step)
        self.model = Model(self.seats)
        self._acts: dict[str, Callable[[], bool]] = {
            "deliver": self._deliver,
            "hear": self._lines.hear,
            "dialled": self._lines.dialled,
            "tick": self._tick,
            "lose": self._lose,
            "unlink": self._lines.unlink,
            "crash": self._crash,
            "start": self._start,
            "fact": self._fact,
            "load": self._load,
            "hint": self._hint,
            "want": self._want,
            "woke": self._woke,
            "leave": self._leave,
        }
        for seat in self.seats:
            self._identify(seat)
            self._begin(seat, self._base)
        for seat in self.seats:
            self._hint_of(seat, self.random.choice([other for other in self.seats if other is not seat]))

    @property
    def log(self) -> list[str]:
        """What happened."""
        return [f"{who} {what} {thing}" for who, what, thing in self._log]

    def run(self, steps: int) -> None:
        """So many things happen.

        Raises:
            Violated: by the name of the check.
        """
        random, bounds, words = self.random, self._bounds, self._words
        acts = [self._acts[word] for word in words]
        places = range(len(words))
        for _ in range(steps):
            for _ in range(TRIES):
                place = random.choices(places, cum_weights=bounds)[0]
                if acts[place]():
                    self.counts[words[place]] += 1
                    break
        self.model.check_end()

    # --- processes ----------------------------------------------------------------------------------------------------

    def _up(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.core is not None]

    def _identify(self, seat: Seat) -> None:
        seat.identities += 1
        seat.node = _node_id(seat.number, seat.identities)
        seat.boot, seat.former = Boot(0), ()
        self.model.identity(seat)

    def _begin(self, seat: Seat, base: Base = EMPTY, *, old: bool = False) -> None:
        remembered = (*seat.former, seat.boot) if seat.boot else ()
        seat.former = remembered[:-2] if old else remembered
        drawn = self.random.getrandbits(BOOT_BITS) if seat.life else FIRST_DRAWN
        seat.boot = next_boot(seat.former[-1] if seat.former else Boot(0), drawn)
        seat.life += 1
        seat.now = self.random.uniform(0.0, 1e6)
        seat.core = GossipCore(
            me=seat.node,
            boot=seat.boot,
            name=f"n{seat.number}",
            addresses=(seat.address,),
            config=self._config,
            rng=Random(self.random.random()),
            now=seat.now,
            base=base,
        )
        self._note(seat, "starts, boot", seat.boot)
        self.model.started(seat, [base.members[node].entry for node in base.ids], old=old)

    def _end(self, seat: Seat, *, speaks: bool = True) -> None:
        """The process is no more; its kernel closes what it held, or nothing does."""
        seat.core = None
        seat.dials.clear()
        self._lines.ended(seat, speaks=speaks)

    def _step(self, seat: Seat, event: GossipEvent) -> None:
        core = seat.core
        assert core is not None, "the dead do nothing"
        self._note(seat, "<", event)
        before, life = core.own, seat.life
        self._steps += 1
        try:
            effects = core.step(seat.now, event)
            core.check_invariants(deep=self._steps % DEEP_EVERY == 0)
        except AssertionError as error:
            raise Violated(f"core: {seat} broke its own invariant: {error}") from error
        self.model.stepped(seat, before, event, effects)
        torn = self._weights.crash and self.random.random() < self._weights.crash / 1000
        for effect in effects[: self.random.randrange(len(effects) + 1)] if torn else effects:
            self._note(seat, ">", effect)
            self._perform(seat, effect)
            if seat.life != life or seat.core is None:
                return
        if torn:
            self.counts["crash in a step"] += 1
            self._end(seat)

    def _perform(self, seat: Seat, effect: object) -> None:
        match effect:
            case SendDatagram(address=address, message=message):
                self._flying.append((seat.node, seat.address, address, self._checked(seat, message, datagram=True)))
                if len(self._flying) > FLYING_MAX:
                    self._flying.pop(0)
            case SendLink(peer=peer, message=message):
                self._lines.send(seat, peer, self._checked(seat, message))
            case Dial():
                self._lines.dial(seat, effect)
            case Hangup(peer=peer):
                self._lines.hang_up(seat, peer)
            case Left():
                self._end(seat)
            case IdentityClash():
                self._end(seat)
                self._identify(seat)
                self._begin(seat)
            case _:
                pass

    def _checked(self, seat: Seat, message: Message, *, datagram: bool = False) -> Message:
        """What the other side reads."""
        self.model.sent(seat, message)
        self._sent += 1
        if self._sent % ENCODED_EVERY:
            return message
        data = protocol.GOSSIP.encode(message)
        if datagram and len(data) > self._config.datagram_bytes_max:
            raise Violated(f"datagrams: {seat} sends one of {len(data)} bytes")
        return protocol.GOSSIP.decode(data)

    def _note(self, seat: Seat, what: str, thing: object) -> None:
        """Remember for the story; told only when something is wrong."""
        self._log.append((str(seat), what, thing))

    # --- the network --------------------------------------------------------------------------------------------------

    def _deliver(self) -> bool:
        """Some datagram arrives, and perhaps again another time."""
        flying = self._flying
        if not flying:
            return False
        place = self.random.randrange(len(flying))
        again = self.random.random() < 0.15
        node, source, address, message = flying[place] if again else flying.pop(place)
        target = self._at.get(address)
        if target is not None and target.core is not None:
            self.counts["again"] += again
            self._step(target, Received(sender=node, address=source, message=message))
        return True

    def _lose(self) -> bool:
        """Some of what is in flight is lost."""
        if not self._flying:
            return False
        self.random.shuffle(self._flying)
        del self._flying[: self.random.randint(1, len(self._flying))]
        return True

    # --- time and wishes ----------------------------------------------------------------------------------------------

    def _tick(self) -> bool:
        """The clock of one node reaches its deadline, or a little more."""
        seat = self._any()
        if seat is None or seat.core is None or (when := seat.core.deadline()) == math.inf:
            return False
        seat.now = max(seat.now, when) + self.random.choice((0.0, 0.0, 0.01, 0.3))
        life = seat.life
        self._step(seat, Tick())
        if seat.life == life and seat.core is not None and seat.core.deadline() <= seat.now:
            raise Violated(f"time: a tick does not move the deadline of {seat}")
        return True

    def _any(self) -> Seat | None:
        up = self._up()
        return self.random.choice(up) if up else None

    def _wish(self, event: GossipEvent) -> bool:
        """Something from outside is told to any node that runs."""
        seat = self._any()
        if seat is None:
            return False
        if isinstance(event, SetFact):
            self.model.publishes(seat, event.key, event.value)
        self._step(seat, event)
        return True

    def _fact(self) -> bool:
        """A node publishes what nobody has published before; at times more than a datagram takes, or nothing more."""
        self._serial += 1
        size = self.random.choice((8, 8, 8, 8, 1_500, 0))
        return self._wish(SetFact(key=self.random.choice("ab"), value=(b"%08d" % self._serial).ljust(size)[:size]))

    def _load(self) -> bool:
        return self._wish(SetLoad(value=bytes([self.random.randrange(8)])))

    def _hint(self) -> bool:
        seat = self._any()
        if seat is not None:
            self._hint_of(seat, self.random.choice(self.seats))
        return seat is not None

    def _hint_of(self, seat: Seat, other: Seat) -> None:
        node = other.node if self.random.random() < 0.5 else None
        self._step(seat, Hinted(address=other.address, node=node))

    def _want(self) -> bool:
        return self._wish(WantLink(peer=self.random.choice(self.seats).node))

    def _woke(self) -> bool:
        """A node has stood still."""
        seat = self._any()
        if seat is None:
            return False
        lost_s = self.random.choice((0.5, 5.0, 60.0))
        seat.now += lost_s
        self._step(seat, Woke(lost_s=lost_s))
        return True

    def _leave(self) -> bool:
        return self._wish(Leave())

    # --- lives --------------------------------------------------------------------------------------------------------

    def _crash(self) -> bool:
        """A process is killed, or its machine loses power."""
        seat = self._any()
        if seat is not None:
            self._note(seat, "crashes", "")
            self._end(seat, speaks=self.random.random() < 0.7)
        return seat is not None

    def _start(self) -> bool:
        """A machine comes back, and hears of another."""
        down = [seat for seat in self.seats if seat.core is None]
        if not down:
            return False
        seat = self.random.choice(down)
        disk = self.random.choices(tuple(Disk), weights=(5, 2, 1))[0]
        if disk is Disk.LOST:
            self._identify(seat)
        self.counts[f"disk {disk.value}"] += 1
        self._begin(seat, old=disk is Disk.OLD)
        self._hint_of(seat, self.random.choice([other for other in self.seats if other is not seat]))
        return True


def _node_id(number: int, identity: int) -> NodeId:
    return NodeId(bytes([65 + number, identity]) * (NODE_ID_BYTES // 2))


@cache
def _acquainted(nodes: int) -> Base:
    """So many nodes at the beginning of their first life."""
    return Base(
        MemberEntry(
            node=_node_id(number, 1),
            boot=next_boot(Boot(0), FIRST_DRAWN),
            incarnation=Incarnation(0),
            state=MemberState.ALIVE,
            name=f"n{number}",
            addresses=(Seat(number).address,),
        )
        for number in range(nodes)
    )


@cache
def _drawn(weights: Weights) -> tuple[tuple[str, ...], Sequence[float]]:
    """What may happen, and the sums of the weights up to each."""
    words = tuple(field.name for field in fields(weights) if getattr(weights, field.name) > 0)
    return words, tuple(accumulate(getattr(weights, word) for word in words))


def walk_of(seed: int) -> Walk:
    """The walk of this number: settings take turns, and in every fourth round nobody knows anybody at first."""
    names = list(SETTINGS)
    turn = seed // len(names)
    weights = SETTINGS[names[seed % len(names)]]
    return Walk(seed, nodes=(2, 3, 3, 4, 5)[turn % 5], weights=weights, acquainted=turn % 4 != 3)
