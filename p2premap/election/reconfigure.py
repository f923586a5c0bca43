"""The next replica set: members that died are replaced, and a job with fewer copies than it wants grows.

A change has these steps, all led by the leader of the present epoch e (a stop sign: Lamport, Malkhi and Zhou,
"Reconfiguring a State Machine", 2010; the state goes ahead of the vote, as in their "Vertical Paxos", 2009):

1. The members to be get the job's record, facts and decided cells. From now on a fact counts as protected only when a
   quorum of *both* sets has it.
2. No new cell is proposed; those under way are decided.
3. When a quorum of the new set has everything that is protected and every decided cell, the cell ``cfg/<e+1>`` is
   proposed in e, with the new set as its value.
4. Decided, it ends e: whoever knows it follows no ballot of e any more. The leader stands in e+1.

**Why it is safe.** Whatever was decided or protected in e is at a quorum of the new set before e+1 can begin (1, 3),
and nothing more can be: a cell would need a quorum of e to accept it under a ballot not below the one under which the
stop sign was chosen; a later candidate of e would see the stop sign accepted in its promises, and propose no value that
was accepted under a lower ballot (`candidate`). It goes through the same steps with the same new set, and leads nothing
before e+1. A cell that was accepted in e, and never decided, is never looked at again.

A member whose memory is not whole (`boots`) is treated like one that has died, only that it may itself be in the new
set: in e+1 it has promised nothing. Its boot counter in the new set's `Config` proves that it is alive *now*; another
life of it, which might have voted in e+1 and forgotten that, must have its boot confirmed first.
"""

from __future__ import annotations

import math

from p2premap.election.config import Config, config_cell
from p2premap.election.context import Context
from p2premap.election.leader import Leadership
from p2premap.election.messages import Chosen, StoreJob
from p2premap.election.quorum import is_quorum
from p2premap.election.replica import Replica
from p2premap.ids import NodeId


class Reconfiguration:
    """The change of the replica set under one leadership.

    Args:
        forced: a change that an earlier leader has begun, which must be ended.
    """

    __slots__ = ("_context", "_given", "_leadership", "_replica", "_since", "forced", "target")

    def __init__(
        self, context: Context, replica: Replica, leadership: Leadership, forced: Config | None = None
    ) -> None:
        self._context = context
        self._replica = replica
        self._leadership = leadership
        self.forced = forced
        self.target: Config | None = None
        self._given: set[NodeId] = set()
        self._since = math.inf

    def tend(self) -> None:
        """Begin, go on or give up, with every heartbeat."""
        if self.target is None:
            target = self.forced or self._plan()
            if target is not None:
                self._begin(target)
        elif self.forced is None and not self._voting and self._broken(self.target):
            self._give_up()
        if self.target is not None and not self._voting:
            self._go_on(self.target)

    @property
    def _voting(self) -> bool:
        return config_cell(self._leadership.ballot.epoch + 1) in self._leadership.proposals

    # --- whom -------------------------------------------------------------------------------------------------------

    def _plan(self) -> Config | None:
        """The next replica set, where this one is not as it should be."""
        context, leadership = self._context, self._leadership
        if not leadership.ready or leadership.protected < 0:
            return None
        members = self._replica.members
        sound = [n for n in members if n == context.me or not self._replaceable(n)]
        forgetful = [n for n in members if n in sound and leadership.follower(n).amnesiac]
        missing = self._replica.record.copies - len(sound)
        found = self._candidates(missing)
        if len(sound) < len(members) and not found and len(members) <= 2:
            return None  # nobody comes for who is gone; of two, one is not better off alone
        if len(sound) == len(members) and not found and not forgetful:
            return None
        if not is_quorum(members, [n for n in sound if n not in forgetful and context.alive(n)]):
            return None
        if not all(context.reachable(n) for n in sound):
            return None  # who may yet come back is waited for
        return self._config((context.me, *(n for n in sound if n != context.me), *found))

    def _replaceable(self, node: NodeId) -> bool:
        """Whether a member is gone for so long that another takes its place, or is about to go."""
        peer = self._context.peers.get(node)
        if peer is None:
            return self._leadership.age() >= self._context.config.replace_s
        if self._leadership.follower(node).leaving:
            return True
        return peer.gone and self._context.now - peer.since >= self._context.config.replace_s

    def _candidates(self, count: int) -> list[NodeId]:
        """Nodes that could be members, at random, so that many jobs spread over many nodes."""
        if count <= 0:
            return []
        leadership, members = self._leadership, self._replica.members
        free = [
            node
            for node, peer in self._context.peers.items()
            if peer.alive and node not in members and not leadership.follower(node).leaving
        ]
        return self._context.rng.sample(free, min(count, len(free)))

    def _config(self, members: tuple[NodeId, ...]) -> Config:
        return Config(members=members, boots=tuple(self._context.boot_of(node) for node in members))

    # --- how --------------------------------------------------------------------------------------------------------

    def _begin(self, target: Config) -> None:
        self.target = target
        self._given = set()
        self._since = self._context.now
        self._leadership.stop(target.members)

    def _broken(self, target: Config) -> bool:
        """Whether somebody who was to be a member is gone, or in another life."""
        return any(
            not self._context.reachable(n) or self._context.boot_of(n) != boot
            for n, boot in zip(target.members, target.boots, strict=False)
        )

    def _give_up(self) -> None:
        self.target = None
        self._leadership.resume()

    def _go_on(self, target: Config) -> None:
        for node in target.members:
            if node not in self._replica.members and node not in self._given and self._context.reachable(node):
                self._given.add(node)
                self._give(node)
        if not self._leadership.under_way() and self._is_given(target):
            cell = config_cell(self._leadership.ballot.epoch + 1)
            self._leadership.propose_stop(cell, target.encode())

    def _give(self, node: NodeId) -> None:
        """The job's record; all else is asked for with the heartbeat, but need not wait for it."""
        self._context.send(node, StoreJob(record=self._replica.record))
        if cells := self._replica.chosen_cells():
            self._context.send(node, Chosen(cells=cells))
        self._leadership.feed(node, {})

    def _is_given(self, target: Config) -> bool:
        leadership, replica = self._leadership, self._replica
        has = [
            node
            for node in target.members
            if node == self._context.me
            or (
                leadership.follower(node).acked >= max(leadership.protected, 0)
                and leadership.follower(node).cells >= replica.chosen
            )
        ]
        if leadership.protected < 0:
            return False
        waited = self._context.now >= self._since + 2 * self._context.config.decide_wait_s
        if not waited and any(node not in has and self._context.alive(node) for node in target.members):
            return False
        return is_quorum(target.members, has) and leadership.follower(self._context.me).acked >= leadership.protected
