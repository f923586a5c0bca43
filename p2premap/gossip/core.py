"""Gossip: who is here, how they are, and what they say about themselves. Pure: events in, effects out.

**What it promises.** Any two nodes that can exchange messages, directly or through others, come to the same beliefs;
a member whose process died is known to be dead by all within a fraction of a second, a powered-off one within five
seconds, a stalled one only after `stalled_s`; nobody is declared dead on the word of a single node, nor on lost
datagrams alone. Its verdicts are advice: nothing that must not go wrong rests on them.

**Theory of operation.** The table (`members`) holds one record a member under one merge rule; everything heard goes
through `beliefs`, which keeps the table, reports changes as effects and hands news to `spread`. `probe` looks after
members, one a period, and conducts trials; `verdicts` turns evidence into a verdict; `suspicion` turns verdicts into
doubts and deaths; `repair` levels what rumours missed; `links` and `hints` decide whom to dial. They share one
`Context` and never wait for one another: a step runs to its end, and what it wants to be done stands in its effects.

=================== ==============================================================================================
event               what happens
=================== ==============================================================================================
Tick                every timer that is due fires: probes, stages of trials, ticks of rumours, looks at doubts, ...
Received            a message of the table in `messages`; each brings rumours, pings and acks also a root hash
LinkUp              the dialler pings over the link with its own record: the newcomer is known in one message, and
                    the difference of the root hashes begins a repair that teaches it everything, without any timer
LinkDown            a trial at once: has its process ended?
DialEnded           goes to whoever asked for the dial (a trial, a hint, a link)
Hinted              an address to try
Woke                lost time is credited to every running timer, and the incarnation raised: whatever was said of
                    us while we could not answer is refuted before we hear it
=================== ==============================================================================================

**What may be lost**: any message. A rumour that reaches nobody is repaired by the next ping; a lost ping is sent again;
a lost testimony is one voice less; a dial always ends. What arrives twice or late changes nothing (`members`).

**Restarts** need no special case: the boot counter is the high part of the order, and a record of a new boot replaces
that of an old one with all its facts. Names and addresses are attributes; two members of one name are two members.

**Time** is an argument, never crosses the wire, and may stand still between steps, but not go back.

Sources: SWIM (Das, Gupta, Motivala 2002) for probing, incarnations and piggybacking; Lifeguard (Dadgar, Phillips,
Currey 2017) for local health and for telling the suspect first; Demers and others (1987) for rumours and
anti-entropy. What differs from SWIM: the ring successor as every other target, evidence from the kernel of the
target's machine (refused, silent, or accepting without a hello), jurors that testify rather than only relay, and idle
links whose closing says that a process has ended.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import assert_never

from p2premap.config import GossipConfig
from p2premap.gossip.beliefs import Beliefs
from p2premap.gossip.context import Context
from p2premap.gossip.events import (
    DialEnded,
    GossipEffect,
    GossipEvent,
    Hinted,
    Leave,
    Left,
    LinkDown,
    LinkUp,
    MemberState,
    MemberView,
    Received,
    SetAddresses,
    SetFact,
    SetLoad,
    Tick,
    WantLink,
    Woke,
)
from p2premap.gossip.hints import Hints
from p2premap.gossip.invariants import check_beliefs, check_bounds, check_sums
from p2premap.gossip.links import Links
from p2premap.gossip.members import EMPTY, Base, Member, MemberTable
from p2premap.gossip.messages import (
    Ack,
    Buckets,
    CallBack,
    Digests,
    Entries,
    Inquire,
    MemberEntry,
    Ping,
    Rumours,
    Witness,
)
from p2premap.gossip.probe import Prober
from p2premap.gossip.repair import Repair
from p2premap.gossip.spread import Spread, size_of
from p2premap.gossip.suspicion import Suspicion
from p2premap.gossip.timers import Timer
from p2premap.gossip.views import GossipStatistics, view
from p2premap.ids import Address, Boot, NodeId

LEAVE_ROUNDS = 2
"""How often a leave is told again before the node may stop."""


class GossipCore:
    """One node's gossip.

    Args:
        me: this node's id, proved by its channels.
        boot: how many times it has started, stored durably by the caller.
        name: for people.
        addresses: where it listens.
        config: intervals and limits.
        rng: for every choice of the protocol; never for secrets.
        now: the first instant, in the caller's clock.
        base: members known from the start, shared with other cores of the process (the simulator's).
    """

    def __init__(
        self,
        *,
        me: NodeId,
        boot: Boot,
        name: str,
        addresses: tuple[Address, ...],
        config: GossipConfig,
        rng: Random,
        now: float,
        base: Base = EMPTY,
    ) -> None:
        context = Context(me=me, config=config, rng=rng, now=now, table=MemberTable(base))
        self._context = context
        self._spread = Spread(context)
        self._beliefs = Beliefs(context, self._spread, boot=boot, name=name, addresses=addresses)
        self._suspicion = Suspicion(context, self._beliefs)
        self._prober = Prober(context, self._spread, self._suspicion.judged)
        self._suspicion.prober = self._prober
        self._links = Links(context, self._beliefs.dead, lambda: self._beliefs.own.addresses, self._beliefs.tend_dead)
        self._repair = Repair(context, self._beliefs, self._links.reach)
        self._hints = Hints(context)
        self._load_timer: Timer | None = None
        self._load_at = now - config.load_s
        self._load: bytes | None = None
        self._ring_known = False
        self._unchecked = True

    # --- the contract --------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When the core wants a Tick; infinity for never."""
        return self._context.timers.deadline()

    def step(self, now: float, event: GossipEvent) -> list[GossipEffect]:
        """Take one event; return what is to be done, in order.

        Args:
            now: the caller's clock; never less than before.

        Raises:
            LocalProtocolError: a fact of ours is larger than a node may publish.
        """
        context = self._context
        assert now >= context.now, "the clock went back"
        context.now = now
        context.out = []
        self._unchecked = True
        self._dispatch(event)
        self._settle()
        return context.out

    def _dispatch(self, event: GossipEvent) -> None:
        match event:
            case Received():
                self._on_received(event)
            case Tick():
                self._on_tick()
            case LinkUp():
                self._on_link_up(event)
            case LinkDown():
                self._on_link_down(event)
            case DialEnded():
                self._on_dial_ended(event)
            case _:
                self._on_wish(event)

    def _on_wish(self, event: Hinted | Woke | SetFact | SetLoad | SetAddresses | WantLink | Leave) -> None:
        match event:
            case Hinted(address=address, node=node):
                if address not in self._beliefs.own.addresses:
                    self._hints.hinted(address, node)
            case Woke(lost_s=lost_s):
                self._on_woke(lost_s)
            case SetFact(key=key, value=value):
                self._beliefs.set_fact(key, value)
            case SetLoad(value=value):
                self._on_load(value)
            case SetAddresses(addresses=addresses):
                if addresses != self._beliefs.own.addresses:
                    self._beliefs.renew(addresses=addresses)
            case WantLink(peer=peer):
                self._links.want(peer)
            case Leave():
                self._on_leave()
            case _:
                assert_never(event)

    def _settle(self) -> None:
        """What follows from what this step changed."""
        changes = self._beliefs.changes
        if changes or not self._ring_known:
            self._beliefs.changes = []
            for old, new in changes:
                self._on_change(old, new)
            if not self._ring_known or any(old is None or old.live != new.live for old, new in changes):
                self._links.keep_ring()
                self._ring_known = True
        self._spread.flush()

    def _on_change(self, old: Member | None, new: Member) -> None:
        self._suspicion.on_change(new)
        node = new.entry.node
        if not new.live or (old is not None and old.entry.boot != new.entry.boot):
            self._prober.drop(node)
        if new.entry.state == MemberState.DEAD and node in self._context.links:
            # it may be alive all the same: what comes over an open link it can refute at once
            self._context.tell(node, self._prober.ping_message(node, self._context.nonce()))

    # --- events --------------------------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        timers, now = self._context.timers, self._context.now
        while (timer := timers.pop_due(now)) is not None:
            timer.fire()

    def _on_received(self, event: Received) -> None:
        sender, address, message = event.sender, event.address, event.message
        if sender == self._context.me:
            return
        if address is not None:
            self._context.heard_from(sender, address)
        match message:
            case Ack():
                self._prober.acked(sender, message.nonce)
                self._beliefs.hear(message.members, message.facts, message.loads, sender)
                self._repair.compare(sender, message.root, address)
            case Ping():
                self._beliefs.hear(message.members, message.facts, message.loads, sender)
                self._context.reply(sender, address, self._ack(sender, message))
            case Rumours():
                self._beliefs.hear(message.members, message.facts, message.loads, sender)
            case Inquire():
                self._prober.inquire(sender, address, message)
            case Witness():
                self._prober.testified(sender, message)
            case Buckets():
                self._repair.on_buckets(sender, address, message)
            case Digests():
                self._repair.on_digests(sender, address, message)
            case Entries():
                self._repair.on_entries(sender, address, message)
            case CallBack():
                self._links.called(message)
            case _:
                raise AssertionError(f"{type(message).__name__} is not gossip's")

    def _ack(self, sender: NodeId, ping: Ping) -> Ack:
        """Where the roots differ, our own record, and what we believe of the sender if it might object."""
        about: tuple[MemberEntry, ...] = ()
        room = self._spread.budget_bytes
        if ping.root != self._context.table.root:
            about = (self._beliefs.own, *self._belief_about(sender))
            room -= sum(map(size_of, about))
        members, facts, loads = self._spread.fill(max(0, room))
        return Ack(
            nonce=ping.nonce, root=self._context.table.root, members=(*about, *members), facts=facts, loads=loads
        )

    def _belief_about(self, peer: NodeId) -> tuple[MemberEntry, ...]:
        member = self._context.table.get(peer)
        if member is None:
            return ()
        contact = self._context.contacts.get(peer)
        if member.entry.state == MemberState.ALIVE and (contact is None or member.entry.boot <= contact.boot):
            return ()
        return (self._beliefs.aged(member.entry),)

    def _on_link_up(self, event: LinkUp) -> None:
        context = self._context
        if event.peer == context.me:
            return
        context.links[event.peer] = event.boot
        context.prove(event.peer, event.boot, event.address)
        self._prober.met(event.peer, event.boot)
        self._links.up(event.peer, event.address)
        if event.address is not None:
            about = (self._beliefs.own, *self._belief_about(event.peer))
            context.tell(event.peer, Ping(nonce=context.nonce(), root=context.table.root, members=about))

    def _on_link_down(self, event: LinkDown) -> None:
        context = self._context
        if context.links.get(event.peer) != event.boot:
            return
        del context.links[event.peer]
        if self._links.down(event.peer) or self._is_leaving:
            return
        member = context.table.get(event.peer)
        if member is not None and member.live and member.entry.boot == event.boot:
            self._prober.link_lost(event.peer, event.boot)

    def _on_dial_ended(self, event: DialEnded) -> None:
        if event.peer is not None and event.boot is not None and event.peer != self._context.me:
            self._context.prove(event.peer, event.boot, event.address)
        self._context.dial_ended(event)

    def _on_woke(self, lost_s: float) -> None:
        # where the clock stood still as well (a suspended machine) no timer is late, and none must be put off
        late_s = max(0.0, self._context.now - self._context.timers.deadline())
        credit_s = min(lost_s, late_s)
        self._context.timers.shift(credit_s)
        self._suspicion.credit(credit_s)
        self._context.worsen()
        self._beliefs.renew()

    def _on_load(self, value: bytes) -> None:
        """At most one a second; the last one counts."""
        self._load = value
        context = self._context
        if self._load_timer is not None and self._load_timer.running:
            return
        due = self._load_at + context.config.load_s
        if due <= context.now:
            self._publish_load()
        else:
            self._load_timer = context.timers.at(due, self._publish_load)

    def _publish_load(self) -> None:
        known = self._beliefs.loads.get(self._context.me)
        if self._load is not None and (known is None or known.value != self._load):
            self._load_at = self._context.now
            self._beliefs.set_load(self._load)

    # --- leaving -------------------------------------------------------------------------------------------------

    @property
    def _is_leaving(self) -> bool:
        return self._beliefs.own.state == MemberState.LEFT

    def _on_leave(self) -> None:
        if not self._is_leaving:
            self._beliefs.renew(state=MemberState.LEFT)
            self._tell_leave(LEAVE_ROUNDS)

    def _tell_leave(self, rounds: int) -> None:
        """To all links and a few more, a few times: nobody asks us again afterwards."""
        context = self._context
        others = [n for n in self._spread.first_peers() if n not in context.links]
        message = Rumours(members=(self._beliefs.own,))
        for peer in (*context.links, *others):
            context.tell(peer, message)
        if rounds and (others or context.links):
            context.timers.at(context.now + context.config.leave_s, partial(self._tell_leave, rounds - 1))
        else:
            context.out.append(Left())

    # --- views ---------------------------------------------------------------------------------------------------

    @property
    def root_hash(self) -> int:
        """63 bits that are equal where two nodes hold the same records and slow facts."""
        return self._context.table.root

    @property
    def own(self) -> MemberEntry:
        """This node's own record."""
        return self._beliefs.own

    def member(self, node: NodeId) -> MemberView | None:
        """One member as this node sees it; None where it is unknown."""
        member = self._context.table.get(node)
        return None if member is None else view(member, self._context, self._beliefs)

    def members(self) -> list[MemberView]:
        """All members as this node sees them, itself included, in the order of their ids."""
        return [view(member, self._context, self._beliefs) for member in self._context.table]

    def statistics(self) -> GossipStatistics:
        """A snapshot of sizes and counters."""
        context = self._context
        return GossipStatistics(
            members=len(context.table),
            live=context.table.live,
            links=len(context.links),
            rumours=len(self._spread.rumours),
            loads=len(self._spread.loads),
            dropped=self._spread.rumours.dropped + self._spread.loads.dropped,
            trials=len(self._prober.trials),
            doubts=len(self._suspicion.doubts),
            dead=len(self._beliefs.dead),
            hints=len(self._hints.hints),
            dials=context.dials_running,
            timers=len(context.timers),
            health=context.health,
            incarnation=self._beliefs.own.incarnation,
            counters=context.counters.copied(),
        )

    def check_invariants(self, *, deep: bool = False) -> None:
        """What must hold after every step; `deep` also recomputes what is kept up incrementally, in O(n).

        Raises:
            AssertionError: one does not hold.
        """
        if not (deep or self._unchecked):
            return
        self._unchecked = False
        check_beliefs(self._context, self._beliefs, self._suspicion)
        check_bounds(self._context, self._beliefs, self._spread, self._prober, len(self._hints.hints))
        if deep:
            check_sums(self._context.table, self._beliefs)
