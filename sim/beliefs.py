"""What every node was last told of every other (`MemberChanged`), beside what is true.

Beliefs are kept from effects alone, so that they show what the other rooms of a node would believe; `members()` of
the cores is compared with them at set points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2premap.gossip.events import MemberChanged, MemberState
from p2premap.gossip.messages import MemberEntry, address_of
from p2premap.ids import NodeId
from p2premap.sim.machines import Seat
from p2premap.sim.world import World

GONE = (MemberState.DEAD, MemberState.LEFT)


@dataclass(slots=True, eq=False)
class Watch:
    """Waits until every node that runs holds a belief of this kind about one node.

    Args:
        node: about whom.
        holds: whether a belief counts.
        since: when the watch began.
        missing: who does not hold it yet, by life.
        heard: when each came to hold it, after `since`.
    """

    node: NodeId
    holds: Callable[[MemberChanged], bool]
    since: float
    missing: dict[int, Seat]
    heard: dict[int, float]

    @property
    def done(self) -> bool:
        """Whether nobody is missing."""
        return not self.missing

    def delays_s(self) -> list[float]:
        """How long each took, shortest first."""
        return sorted(when - self.since for when in self.heard.values())


class Beliefs:
    """An observer that keeps the last `MemberChanged` of every pair.

    Args:
        world: observed from now on.
    """

    kinds: tuple[type, ...] = (MemberChanged,)

    def __init__(self, world: World) -> None:
        self.world = world
        self.held: dict[int, dict[NodeId, MemberChanged]] = {}
        self._base: dict[NodeId, MemberChanged] = {}
        self._based: dict[int, int] = {}
        self._watches: list[Watch] = []
        world.observe(self)

    def of(self, seat: Seat, node: NodeId) -> MemberChanged | None:
        """What the process at this machine believes of a node; None where it was never told of it."""
        held = self.held.get(seat.index, {}).get(node)
        if held is None and self._based.get(seat.index) == seat.life:
            return self._base.get(node)
        return held

    def take_base(self, entries: Iterable[MemberEntry]) -> None:
        """Everybody who runs now has been told of these before."""
        self._based = {seat.index: seat.life for seat in self.world.live()}
        for entry in entries:
            self._base[entry.node] = MemberChanged(
                node=entry.node,
                boot=entry.boot,
                incarnation=entry.incarnation,
                state=entry.state,
                name=entry.name,
                addresses=tuple(map(address_of, entry.addresses)),
            )

    # --- Observer -------------------------------------------------------------------------------------------------

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, MemberChanged):
            return
        self.held.setdefault(seat.index, {})[effect.node] = effect
        for watch in self._watches:
            if watch.node == effect.node and seat.index in watch.missing and watch.holds(effect):
                del watch.missing[seat.index]
                watch.heard[seat.index] = self.world.now

    def told(self, seat: Seat, event: object) -> None:
        """Nothing is believed because of it."""

    def fault(self, seat: Seat, word: str) -> None:
        if word in ("start", "crash", "off", "left", "clash"):
            self.held.pop(seat.index, None)
            for watch in self._watches:
                watch.missing.pop(seat.index, None)

    # --- questions ------------------------------------------------------------------------------------------------

    def watch(self, node: NodeId, holds: Callable[[MemberChanged], bool], by: Iterable[Seat]) -> Watch:
        """Wait for this belief at these machines."""
        watch = Watch(node, holds, self.world.now, {}, {})
        for seat in by:
            belief = self.of(seat, node)
            if seat.runs and seat.node != node and (belief is None or not holds(belief)):
                watch.missing[seat.index] = seat
        self._watches.append(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        """The watch is over."""
        self._watches.remove(watch)

    def wrong(self, seat: Seat) -> list[str]:
        """What this process believes that is not so, one sentence each.

        Whoever runs must be believed alive in its present boot; of an identity that does not run, this process must
        believe that it is dead or has left, or never have heard.
        """
        found: list[str] = []
        for node, owner in self.world.owners.items():
            if node == seat.node:
                continue
            belief = self.of(seat, node)
            runs = owner.runs and owner.node == node
            if runs and (belief is None or belief.state is not MemberState.ALIVE or belief.boot != owner.boot):
                found.append(f"{seat} takes {owner} for {_shown(belief)}")
            elif not runs and belief is not None and belief.state not in GONE:
                found.append(f"{seat} takes {node[:4].hex()}, which does not run, for {_shown(belief)}")
        return found

    def whole(self, seats: Iterable[Seat] | None = None) -> bool:
        """Whether everybody who runs (or these) believes what is so."""
        return not any(self.wrong(seat) for seat in (self.world.live() if seats is None else seats))


def _shown(belief: MemberChanged | None) -> str:
    if belief is None:
        return "unknown"
    return f"{belief.state.name} in boot {belief.boot}, incarnation {belief.incarnation}"


def is_dead(belief: MemberChanged) -> bool:
    """Believed to be gone, for whatever reason."""
    return belief.state in GONE
