"""Suspicions: what a verdict starts, and how it ends in a refutation or in a death.

Whoever finds a member SUSPECT or STALLED tells everybody, the member itself first of all (each ping to it carries its
own record), and looks again before it says DEAD::

              refuted (higher incarnation)
      ALIVE <------------------------------+
        |                                  |
        | verdict SUSPECT / STALLED        |  still SUSPECT after 2 s (4 s with two nodes)
        +--------------------------> doubt +------------------------------------------------> DEAD
        |                                     or still STALLED after 15 s
        +-- verdict DEAD (Gone) ------------------------------------------------------------> DEAD

Evidence of a stall at the last look keeps a suspect alive as long as a stalled member. A death follows only from this
node's own trial: a rumour of a doubt starts a later timer, which matters when the accuser is itself gone by then, and
which differs from node to node so that not everybody asks at once.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from p2premap.gossip.beliefs import Beliefs
from p2premap.gossip.context import Context
from p2premap.gossip.events import MemberState
from p2premap.gossip.members import Member
from p2premap.gossip.probe import Prober
from p2premap.gossip.timers import Timer
from p2premap.gossip.verdicts import Verdict
from p2premap.ids import Boot, NodeId

HEARSAY_FACTOR: Final = 2.0
"""By how much longer than the accuser all others wait, at least; at most twice that."""
STALL_LOOKS: Final = 5
"""How often the accuser looks at a stalled member within `stalled_s`."""
PAIR: Final = 2
ROUNDING_S: Final = 1e-6


class Doubt:
    """One member that is SUSPECT or STALLED.

    Args:
        accuser: this node found it so itself.
        silent_since, stalled_since: when this node first had that evidence, without any other in between.
    """

    __slots__ = ("accuser", "look", "member", "nudge", "silent_since", "stalled_since")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.accuser = False
        self.silent_since: float | None = None
        self.stalled_since: float | None = None
        self.look: Timer | None = None
        self.nudge: Timer | None = None


class Suspicion:
    """Holds the doubts of one node and acts on verdicts."""

    def __init__(self, context: Context, beliefs: Beliefs) -> None:
        self._context = context
        self._beliefs = beliefs
        self.doubts: dict[NodeId, Doubt] = {}
        self.prober: Prober | None = None

    # --- beliefs change ------------------------------------------------------------------------------------------

    def on_change(self, member: Member) -> None:
        """The table now says this of a member."""
        node = member.entry.node
        old = self.doubts.get(node)
        if member.entry.state not in (MemberState.STALLED, MemberState.SUSPECT):
            if old is not None:
                self._dismiss(node)
        elif old is None or old.member.entry != member.entry:
            self._begin(member, old)

    def _begin(self, member: Member, old: Doubt | None) -> None:
        doubt = Doubt(member)
        if old is not None:
            self._dismiss(member.entry.node)
        self.doubts[member.entry.node] = doubt
        wait = self.limit(member.entry.state) * HEARSAY_FACTOR * (1.0 + self._context.rng.random())
        self._look_at(doubt, self._context.now + wait)
        if member.entry.node in self._context.links:
            self._tell(doubt)

    def _dismiss(self, node: NodeId) -> None:
        doubt = self.doubts.pop(node)
        for timer in (doubt.look, doubt.nudge):
            if timer is not None:
                timer.cancel()

    def limit(self, state: MemberState) -> float:
        """How long a member may stay in this state."""
        config = self._context.config
        if state == MemberState.STALLED:
            return config.stalled_s
        return config.suspect_pair_s if self._context.table.live <= PAIR else config.suspect_s

    def credit(self, lost_s: float) -> None:
        """This node did not run for so long: nobody was silent or stalled in that time."""
        for doubt in self.doubts.values():
            if doubt.silent_since is not None:
                doubt.silent_since += lost_s
            if doubt.stalled_since is not None:
                doubt.stalled_since += lost_s

    # --- verdicts ------------------------------------------------------------------------------------------------

    def judged(self, node: NodeId, boot: Boot, found: Verdict) -> None:
        """A trial of ours has ended."""
        member = self._context.table.get(node)
        if member is None or member.entry.boot != boot or not member.live:
            return
        match found:
            case Verdict.ALIVE:
                self._reprieve(node)
            case Verdict.LINK_FAULT:
                self._context.counters.link_faults += 1
                if self._context.proven(node, boot):
                    self._context.worsen()
                self._reprieve(node)
            case Verdict.DEAD:
                self._kill(node, gone=True)
            case Verdict.SUSPECT:
                self._suspect(node)
            case Verdict.STALLED:
                self._stall(node)

    def _reprieve(self, node: NodeId) -> None:
        """It answered somebody: if it is doubted, it has been told so, and its refutation is on the way."""
        doubt = self.doubts.get(node)
        if doubt is not None:
            doubt.silent_since = doubt.stalled_since = None
            self._look_at(doubt, self._context.now + self.limit(doubt.member.entry.state))

    def _suspect(self, node: NodeId) -> None:
        if self._is_over(node, MemberState.SUSPECT):
            self._kill(node)
            return
        doubt = self._accuse(node, MemberState.SUSPECT)
        doubt.stalled_since = None
        if doubt.silent_since is None:
            doubt.silent_since = self._context.now
        config, patience = self._context.config, self._context.patience
        ends = doubt.silent_since + self.limit(MemberState.SUSPECT) * patience
        self._look_at(doubt, max(self._context.now, ends - config.decide_s * patience))

    def _stall(self, node: NodeId) -> None:
        if self._is_over(node, MemberState.STALLED):
            self._kill(node)
            return
        doubt = self._accuse(node, MemberState.STALLED)
        doubt.silent_since = None
        if doubt.stalled_since is None:
            doubt.stalled_since = self._context.now
        config = self._context.config
        ends = doubt.stalled_since + config.stalled_s - config.decide_s * self._context.patience
        self._look_at(doubt, min(self._context.now + config.stalled_s / STALL_LOOKS, max(ends, self._context.now)))

    def _is_over(self, node: NodeId, state: MemberState) -> bool:
        """Whether the evidence has been the same for as long as a member may stay in this state."""
        doubt = self.doubts.get(node)
        if doubt is None:
            return False
        since = doubt.silent_since if state == MemberState.SUSPECT else doubt.stalled_since
        return since is not None and self._context.now - since >= self.limit(state) - ROUNDING_S

    def _kill(self, node: NodeId, *, gone: bool = False) -> None:
        self._context.counters.deaths += 1
        self._beliefs.declare(node, MemberState.DEAD, gone=gone)

    def _accuse(self, node: NodeId, state: MemberState) -> Doubt:
        """This node's own finding: declared where it is worse than what is believed."""
        context = self._context
        member = context.table.get(node)
        assert member is not None, "only members are judged"
        if member.entry.state < state:
            if state == MemberState.SUSPECT:
                context.counters.suspicions += 1
            else:
                context.counters.stalls += 1
            self._beliefs.declare(node, state)
            member = context.table.get(node)
            assert member is not None, "a declared member is known"
        self.on_change(member)
        doubt = self.doubts[node]
        if not doubt.accuser:
            doubt.accuser = True
            self._tell(doubt)
        return doubt

    # --- looking again -------------------------------------------------------------------------------------------

    def _look_at(self, doubt: Doubt, when: float) -> None:
        if doubt.look is not None:
            doubt.look.cancel()
        doubt.look = self._context.timers.at(when, partial(self._look, doubt))

    def _look(self, doubt: Doubt) -> None:
        entry = doubt.member.entry
        assert self.prober is not None, "the prober is made before any timer can fire"
        self._look_at(doubt, self._context.now + self.limit(entry.state) * HEARSAY_FACTOR)
        self.prober.confirm(entry.node, entry.boot)

    def _tell(self, doubt: Doubt) -> None:
        """Tell the member what is said of it, again and again while this node is its accuser."""
        entry = doubt.member.entry
        assert self.prober is not None, "the prober is made before any timer can fire"
        self._context.tell(entry.node, self.prober.ping_message(entry.node, self._context.nonce()))
        if doubt.accuser:
            often = (
                self._context.config.spread_s if entry.state == MemberState.SUSPECT else self._context.config.period_s
            )
            doubt.nudge = self._context.timers.at(self._context.now + often, partial(self._tell, doubt))
