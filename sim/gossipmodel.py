"""What the gossip cores promise each other whatever happens, checked from events, messages and effects alone.

The model knows which process really runs, and nothing of how the cores work. Every check has a name, which begins the
text of `Violated`:

=============== ========================================================================================================
core            a core's own invariants, its sums and bounds among them, hold after each step
own             what a process says of itself only goes up
owner-only      nobody believes more of a node than it has said: only the owner raises its boot and its incarnation
monotone        what a process believes of a node only goes up: the dead come back by a higher incarnation alone
refuted         whoever hears itself accused has refuted it before the step is over
gone            whoever is said to have been seen gone is gone
versions        a version of a node is one value under one key, whoever tells it
single-writer   a fact was published by its node, and nobody sees an older one later
answers         a ping is answered in the same step, once
datagrams       what goes by datagram fits into one
dials           a process gives each dial a number of its own
time            a tick moves the deadline
bounded         a step asks for no more than so much
identity        only who starts from an old disk is told to take another identity
told            what a core shows of others is what its effects have said
=============== ========================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from p2premap.gossip.core import GossipCore
from p2premap.gossip.events import FactChanged, GossipEvent, IdentityClash, MemberChanged, MemberState, Received
from p2premap.gossip.messages import Ack, Entries, FactEntry, LoadEntry, MemberEntry, Ping, Rumours
from p2premap.ids import Address, Boot, NodeId
from p2premap.wire import Message

EFFECTS_MAX: Final = 200

Claim: TypeAlias = tuple[int, int]
"""A boot and an incarnation."""

Belief: TypeAlias = tuple[int, int, int]
"""A boot, an incarnation and a state."""


class Violated(AssertionError):
    """The cores broke a promise. The text begins with the name of the check."""


class Seat:
    """A machine of a walk, and the life of its process.

    Args:
        number: its place; its address and its identities come from it.
    """

    __slots__ = (
        "address",
        "believes",
        "boot",
        "core",
        "dials",
        "former",
        "identities",
        "life",
        "node",
        "now",
        "number",
        "sees",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = Address(f"10.0.0.{number + 1}", 7321)
        self.identities = 0
        self.node = NodeId(b"")
        self.boot = Boot(0)
        self.former: tuple[Boot, ...] = ()
        """The starts before this one that its disk remembers."""
        self.life = 0
        self.now = 0.0
        self.core: GossipCore | None = None
        self.dials: dict[int, tuple[Address, bool]] = {}
        self.believes: dict[NodeId, Belief] = {}
        """What this life has last said of others."""
        self.sees: dict[tuple[NodeId, str], int] = {}
        """The place among all that was published of the last value that this life has said of a fact."""

    def __str__(self) -> str:
        return f"n{self.number}"


class Model:
    """What must hold. See the module."""

    def __init__(self, seats: list[Seat]) -> None:
        self._owners: dict[NodeId, Seat] = {}
        self._seats = seats
        self._claims: dict[NodeId, Claim] = {}
        self._published: dict[tuple[NodeId, str], dict[bytes, int]] = {}
        self._versions: dict[tuple[NodeId, int, int], tuple[str | None, bytes]] = {}
        self._restored: set[NodeId] = set()
        self.deaths = self.gone = self.refutations = self.clashes = 0

    def identity(self, seat: Seat) -> None:
        """The machine has an identity that nobody had before."""
        self._owners[seat.node] = seat

    def started(self, seat: Seat, believes: Iterable[MemberEntry], *, old: bool) -> None:
        """A process begins, with what it was told; on an old disk it has forgotten lives of its own."""
        seat.believes = {entry.node: _belief(entry) for entry in believes}
        seat.sees = {}
        if old:
            self._restored.add(seat.node)
        self._claim(seat)

    def publishes(self, seat: Seat, key: str, value: bytes) -> None:
        """A node is about to be told to say this of itself; no value comes twice."""
        values = self._published.setdefault((seat.node, key), {})
        values[value] = len(values)

    # --- steps --------------------------------------------------------------------------------------------------------

    def stepped(self, seat: Seat, before: MemberEntry, event: GossipEvent, effects: Sequence[object]) -> None:
        """A core has taken one step."""
        core = seat.core
        assert core is not None, "the dead do nothing"
        own = core.own
        if own is not before:
            if _belief(own) < _belief(before) or own.node != before.node:
                raise Violated(f"own: {seat} goes back from {_belief(before)} to {_belief(own)} about itself")
            self._claim(seat)
        if len(effects) > EFFECTS_MAX:
            raise Violated(f"bounded: {seat} asks for {len(effects)} things in one step")
        if isinstance(event, Received) and event.sender != seat.node:
            self._heard(seat, own, event.message, effects)
        for effect in effects:
            if type(effect) is MemberChanged:
                self._believed(seat, effect)
            elif type(effect) is FactChanged:
                self._saw(seat, effect)
            elif type(effect) is IdentityClash:
                self.clashes += 1
                if seat.node not in self._restored:
                    raise Violated(f"identity: {seat} is told to take another one: {effect.reason}")

    def _claim(self, seat: Seat) -> None:
        assert seat.core is not None, "a process that speaks runs"
        own = seat.core.own
        self._claims[seat.node] = max((own.boot, own.incarnation), self._claims.get(seat.node, (-1, -1)))

    def _heard(self, seat: Seat, own: MemberEntry, message: Message, effects: Sequence[object]) -> None:
        if isinstance(message, Ping):
            answers = [m for m in map(_said, effects) if isinstance(m, Ack) and m.nonce == message.nonce]
            if len(answers) != 1:
                raise Violated(f"answers: {seat} answers a ping with {len(answers)} acks")
        if not isinstance(message, (Ping, Ack, Rumours, Entries)):
            return
        for entry in message.members:
            if entry.node != seat.node or entry.boot != own.boot:
                continue
            if entry.state > own.state and entry.incarnation >= own.incarnation:
                raise Violated(f"refuted: {seat} hears that it is {entry.state.name} and leaves it at that")
            self.refutations += entry.state not in (MemberState.ALIVE, MemberState.LEFT)

    def _believed(self, seat: Seat, effect: MemberChanged) -> None:
        said = (int(effect.boot), int(effect.incarnation), int(effect.state))
        before = seat.believes.get(effect.node)
        if before is not None and said < before:
            raise Violated(f"monotone: {seat} goes back from {before} to {said} about another")
        seat.believes[effect.node] = said
        owner = self._owners.get(effect.node)
        if owner is None or said[:2] > self._claims[effect.node]:
            raise Violated(f"owner-only: {seat} believes {said} of {owner}, who never said so")
        self.deaths += effect.state is MemberState.DEAD
        if effect.gone:
            self.gone += 1
            runs = owner.core is not None and (owner.node, owner.boot) == (effect.node, effect.boot)
            if runs:
                raise Violated(f"gone: {seat} has seen that {owner} is gone, which runs")

    def _saw(self, seat: Seat, effect: FactChanged) -> None:
        if not effect.value:
            return
        place = self._published.get((effect.node, effect.key), {}).get(effect.value)
        if place is None:
            raise Violated(f"single-writer: {seat} sees {effect.key} of a node that never published it")
        if place < seat.sees.get((effect.node, effect.key), -1) and effect.node not in self._restored:
            raise Violated(f"single-writer: {seat} sees an older {effect.key} again")
        seat.sees[effect.node, effect.key] = place

    # --- messages -----------------------------------------------------------------------------------------------------

    def sent(self, seat: Seat, message: Message) -> None:
        """A message leaves a node."""
        if isinstance(message, (Ping, Ack, Rumours, Entries)):
            for fact in message.facts:
                self._version(seat, fact, fact.key)
            for load in message.loads:
                self._version(seat, load, None)

    def _version(self, seat: Seat, entry: FactEntry | LoadEntry, key: str | None) -> None:
        said = (key, entry.value)
        known = self._versions.setdefault((entry.node, entry.boot, entry.version), said)
        if known != said:
            raise Violated(f"versions: {seat} tells another version {entry.version} than others do")

    # --- the end ------------------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        """What every process shows is what it has said."""
        for seat in self._seats:
            if seat.core is None:
                continue
            for view in seat.core.members():
                shown = (int(view.boot), int(view.incarnation), int(view.state))
                if view.node != seat.node and seat.believes.get(view.node) != shown:
                    raise Violated(f"told: {seat} shows {shown} and last said {seat.believes.get(view.node)}")


def _belief(entry: MemberEntry) -> Belief:
    return (int(entry.boot), int(entry.incarnation), int(entry.state))


def _said(effect: object) -> Message | None:
    return getattr(effect, "message", None)
