"""What must hold whatever happens. Each checker has a name: a failure is recognised by it.

Most look at every effect; `check_whole` and `check_members` are asked at set points. A checker knows the truth (which
process runs, which path is cut) and excuses what no protocol could know: a node that is off, cut off or stalled too
long may be called dead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from p2premap.config import GossipConfig
from p2premap.gossip.events import FactChanged, MemberChanged, MemberState, SetFact
from p2premap.ids import NodeId
from p2premap.sim.beliefs import Beliefs
from p2premap.sim.gossip import GossipHost
from p2premap.sim.machines import Power, Seat
from p2premap.sim.world import World

CONNECTED_MIN: Final = 6
"""Nodes that a cluster needs for a broken path between two to be a fault of the path and of nothing else."""

GRACE_S: Final = 10.0
"""After a fault is over, so long may verdicts still come from what was true during it."""


ENDS: Final = ("crash", "off", "left", "clash")
"""Words for the end of a process."""


class Quiet:
    """An observer's half that most checkers do not need."""

    kinds: tuple[type, ...] = (MemberChanged,)

    def effect(self, seat: Seat, effect: object) -> None:
        """Not of interest."""

    def told(self, seat: Seat, event: object) -> None:
        """Not of interest."""

    def fault(self, seat: Seat, word: str) -> None:
        """Not of interest."""


class FalseDead(Quiet):
    """`false-dead`: nobody calls a node dead that is well and connected, or stalled for less than `stalled_s`.

    A node that at most one other cannot reach counts as connected: the jurors reach it. So does one that was cut off
    or asleep for less than `suspect_s`.

    Args:
        raises: False counts in `seen` instead, for networks so bad that some are allowed.
    """

    def __init__(self, world: World, config: GossipConfig, *, raises: bool = True) -> None:
        self.world = world
        self.config = config
        self.raises = raises
        self.seen: list[tuple[float, Seat, Seat]] = []
        self._away: dict[int, _Absence] = {}
        self._stalled: dict[int, _Absence] = {}
        self._judged: dict[tuple[NodeId, int, int], bool] = {}
        world.observe(self)
        world.network.cut_or_healed.append(self._look_at_cuts)

    def fault(self, seat: Seat, word: str) -> None:
        if word == "pause":
            self._begin(self._stalled, seat)
        elif word == "sleep":
            self._begin(self._away, seat)
        elif word == "resume":
            self._end(self._stalled, seat)
            if not self._is_cut_off(seat):
                self._end(self._away, seat)

    def _begin(self, absences: dict[int, _Absence], seat: Seat) -> None:
        """One that begins soon after another goes on with it."""
        before = absences.get(seat.index)
        if before is None or before.until + GRACE_S <= self.world.now:
            absences[seat.index] = _Absence(self.world.now)
        else:
            before.until = math.inf

    def _end(self, absences: dict[int, _Absence], seat: Seat) -> None:
        absence = absences.get(seat.index)
        if absence is not None and absence.until == math.inf:
            absence.until = self.world.now

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, MemberChanged) or effect.state is not MemberState.DEAD:
            return
        owner = self.world.owners.get(effect.node)
        if owner is None:
            return
        verdict = (effect.node, int(effect.boot), int(effect.incarnation))
        if verdict not in self._judged:
            # whoever says so first is the judge: one that was away itself could hear nobody; what was true when it was
            # said may be heard late
            self._judged[verdict] = self._well(owner, effect) and not self._was_away(seat)
            if self._judged[verdict]:
                self.seen.append((self.world.now, seat, owner))
        if self.raises and self._judged[verdict]:
            raise self.world.broken("false-dead", f"{seat} takes {owner} for dead", seat)

    def _look_at_cuts(self) -> None:
        """Cuts have come or gone."""
        for seat in self.world.seats:
            if self._is_cut_off(seat):
                self._begin(self._away, seat)
            elif seat.power is not Power.ASLEEP:
                self._end(self._away, seat)

    def _is_cut_off(self, seat: Seat) -> bool:
        """Whether too few reach it for their word to save it."""
        if not self.world.network.cuts:
            return False
        seats = self.world.seats
        apart = sum(1 for other in seats if other is not seat and not self.world.network.connected(seat, other))
        return apart > 1 or (apart == 1 and len(seats) < CONNECTED_MIN)

    def _well(self, owner: Seat, verdict: MemberChanged) -> bool:
        """Whether the node is as well as this verdict denies."""
        if owner.node != verdict.node or owner.boot != verdict.boot or not owner.runs or owner.leaving:
            return False
        stalled = self._stalled.get(owner.index)
        if self._was_away(owner):
            return False
        return stalled is None or not stalled.excuses(self.world.now, self.config.stalled_s)

    def _was_away(self, seat: Seat) -> bool:
        absence = self._away.get(seat.index)
        return absence is not None and absence.excuses(self.world.now, self.config.suspect_s)


@dataclass(slots=True)
class _Absence:
    """A time in which a node could not answer."""

    since: float
    until: float = math.inf

    def excuses(self, now: float, patience_s: float) -> bool:
        """Whether it was long enough to be taken for a death, and what was concluded from it may still go round."""
        return min(now, self.until) - self.since >= patience_s and now < self.until + GRACE_S


class LeftNotDead(Quiet):
    """`left-not-dead`: a node that left in good order is never reported as dead, where nothing was cut meanwhile."""

    def __init__(self, world: World, *, raises: bool = True) -> None:
        self.world = world
        self.raises = raises
        self.leaves = 0
        self.misreported: list[tuple[float, Seat, NodeId]] = []
        self._left: set[tuple[NodeId, int]] = set()
        self._healed_at = -GRACE_S
        world.observe(self)
        world.network.cut_or_healed.append(self._look_at_cuts)

    def fault(self, seat: Seat, word: str) -> None:
        if word == "left":
            self.leaves += 1
            self._left.add((seat.node, int(seat.boot)))
        elif word == "start":  # an old disk repeats a boot
            self._left.discard((seat.node, int(seat.boot)))

    def _look_at_cuts(self) -> None:
        self._healed_at = self.world.now

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, MemberChanged) or effect.state is not MemberState.DEAD:
            return
        if (effect.node, int(effect.boot)) not in self._left:
            return
        if self.world.network.cuts or self._healed_at + GRACE_S > self.world.now:
            return
        self.misreported.append((self.world.now, seat, effect.node))
        if self.raises:
            text = f"{seat} takes {effect.node[:4].hex()} for dead, which left in good order"
            raise self.world.broken("left-not-dead", text, seat)


class Monotone(Quiet):
    """`monotone`: what one process believes of a node never goes back in (boot, incarnation, state).

    Nor does anybody claim more than the owner does: only the owner raises its boot and its incarnation.
    """

    def __init__(self, world: World, beliefs: Beliefs) -> None:
        self.world = world
        self.beliefs = beliefs
        self._last: dict[tuple[int, int], dict[NodeId, tuple[int, int, int]]] = {}
        self._claimed: dict[NodeId, tuple[int, int]] = {}
        world.observe(self)

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, MemberChanged):
            return
        said = (int(effect.boot), int(effect.incarnation), int(effect.state))
        last = self._last.setdefault((seat.index, seat.life), {})
        before = last.get(effect.node)
        last[effect.node] = said
        if before is not None and said < before:
            text = f"{seat} went back from {before} to {said} about {effect.node[:4].hex()}"
            raise self.world.broken("monotone", text, seat)
        owner = self.world.owners.get(effect.node)
        if owner is None:
            raise self.world.broken("monotone", f"{seat} believes in {effect.node.hex()}, who never was", seat)
        self._claim(owner)
        most = self._claimed.get(effect.node)
        if most is not None and said[:2] > most:
            text = f"{seat} believes {said[:2]} of {owner}, who never said more than {most}"
            raise self.world.broken("owner-only", text, seat)

    def _claim(self, owner: Seat) -> None:
        """Remember the most that an identity has said of itself, in whatever life (an old disk repeats a boot)."""
        own = own_version(owner)
        if own is not None and own > self._claimed.get(owner.node, (-1, -1)):
            self._claimed[owner.node] = own

    def fault(self, seat: Seat, word: str) -> None:
        if word in ENDS:
            self._last.pop((seat.index, seat.life), None)
            self._claim(seat)


def own_version(seat: Seat) -> tuple[int, int] | None:
    """The (boot, incarnation) that a running node claims for itself."""
    if isinstance(seat.host, GossipHost):
        return int(seat.boot), int(seat.host.core.own.incarnation)
    return None


class SingleWriter(Quiet):
    """`single-writer`: every fact that anybody sees was published by its node, and nobody sees an older one later.

    Values are told apart by their bytes: a scenario publishes each value once. b"" (withdrawn, or the node started
    anew) may be seen at any time.
    """

    kinds: tuple[type, ...] = (FactChanged,)

    def __init__(self, world: World) -> None:
        self.world = world
        self.published: dict[tuple[NodeId, str], list[bytes]] = {}
        self._seen: dict[tuple[int, int, NodeId, str], int] = {}
        world.observe(self)

    def told(self, seat: Seat, event: object) -> None:
        if isinstance(event, SetFact):
            self.published.setdefault((seat.node, event.key), []).append(event.value)

    def fault(self, seat: Seat, word: str) -> None:
        if word == "start":
            for (node, _), values in self.published.items():
                if node == seat.node:
                    values.append(b"")

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, FactChanged) or not effect.value:
            return
        values = self.published.get((effect.node, effect.key), [])
        if effect.value not in values:
            text = f"{seat} sees {effect.key}={effect.value!r} of {effect.node[:4].hex()}, who never published it"
            raise self.world.broken("single-writer", text, seat)
        place = len(values) - 1 - values[::-1].index(effect.value)
        key = (seat.index, seat.life, effect.node, effect.key)
        if self._seen.get(key, -1) > place:
            text = f"{seat} sees the older {effect.key}={effect.value!r} of {effect.node[:4].hex()} again"
            raise self.world.broken("single-writer", text, seat)
        self._seen[key] = place


class ByteBudget(Quiet):
    """`byte-budget`: no node sends more than so many bytes in any whole second.

    Args:
        bytes_max: in one second; a burst after a cut or a start is part of it.
    """

    def __init__(self, world: World, bytes_max: int) -> None:
        self.world = world
        self.bytes_max = bytes_max
        self.worst = 0
        self._before = [seat.bytes_sent for seat in world.seats]
        world.clock.after(1.0, self._second)

    def _second(self) -> None:
        self._before += [0] * (len(self.world.seats) - len(self._before))
        for seat in self.world.seats:
            sent = seat.bytes_sent - self._before[seat.index]
            self._before[seat.index] = seat.bytes_sent
            self.worst = max(self.worst, sent)
            if sent > self.bytes_max:
                raise self.world.broken("byte-budget", f"{seat} sent {sent} bytes within a second", seat)
        self.world.clock.after(1.0, self._second)


def check_whole(world: World, beliefs: Beliefs, checker: str = "whole") -> None:
    """`whole` (or another name): everybody who runs believes what is so.

    Raises:
        InvariantBroken: with the first three things that are not so.
    """
    wrong = [text for seat in world.live() for text in beliefs.wrong(seat)]
    if wrong:
        raise world.broken(checker, f"{len(wrong)} wrong beliefs, such as: " + "; ".join(wrong[:3]))


def check_members(world: World, beliefs: Beliefs, seats: list[Seat] | None = None) -> None:
    """`told`: what a core's `members()` says is what its effects have said.

    Raises:
        InvariantBroken: another room would act on something else than what the status page shows.
    """
    for seat in world.live() if seats is None else seats:
        if not isinstance(seat.host, GossipHost):
            continue
        for member in seat.host.core.members():
            if member.node == seat.node:
                continue
            told = beliefs.of(seat, member.node)
            if told is None or (told.boot, told.incarnation, told.state) != (
                member.boot,
                member.incarnation,
                member.state,
            ):
                text = f"{seat} shows {member.state.name} of {member.name}, and last told {told}"
                raise world.broken("told", text, seat)


def check_facts(world: World, writer: SingleWriter) -> None:
    """`facts`: everybody who runs holds the last value of every fact of everybody who runs.

    Raises:
        InvariantBroken: a fact was lost.
    """
    for seat in world.live():
        if not isinstance(seat.host, GossipHost):
            continue
        members = {member.node: member for member in seat.host.core.members()}
        for (node, key), values in writer.published.items():
            owner = world.owners[node]
            if owner.node != node or owner.power is not Power.RUNNING:
                continue
            held = members[node].facts.get(key, b"") if node in members else None
            if held != values[-1]:
                text = f"{seat} holds {key}={held!r} of {owner}, whose last is {values[-1]!r}"
                raise world.broken("facts", text, seat)
