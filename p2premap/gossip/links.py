"""Links: which are kept up, which are asked for, and how a cut heals.

* **Idle links** to the `ring_links` successors on the ring, so that a dead process is seen at once: its kernel closes
  them. The successors and the predecessors of a node together watch it. Where the successor dialled us, it is dialled
  back for the hello alone: only at an address where one has succeeded does a refusal prove anything (`verdicts`).
* **Wanted links**, when another room has something to say. A member that cannot be dialled is asked through those who
  hold a link to it (its successors, which it dialled) to dial us.
* **Healing**: every `redial_dead_s` a random dead member is dialled; one contact merges both sides, because the link
  brings a ping and a repair.
* Links that this node dialled and that nobody needs any more are closed after `surplus_link_s`, unless nobody has ever
  dialled this node: then the links that it opened are the only way to it.

The addresses of one member are dialled one after another, a little staggered; the first hello wins (RFC 8305).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from p2premap.gossip.context import Context
from p2premap.gossip.events import DialEnded, DialOutcome, Hangup, MemberState, SendLink
from p2premap.gossip.messages import ADDRESSES_MAX, Addresses, CallBack, address_of
from p2premap.gossip.timers import Timer
from p2premap.ids import Address, NodeId

WANTED_TRIES: Final = 5
"""After so many failures in a row a wanted link is given up; who wants it asks again."""
CALM_S: Final = 0.2
"""Where the ring has changed, its new links wait for at least so long, and at most twice as long: hellos cost
milliseconds of computing, and while a node joins there is better use for them."""
PROOF_S: Final = 0.5
"""A successor that dialled us is dialled back this much later, once, after the bustle of joining."""
PROOFS_MAX: Final = 3
"""Attempts at that, the further ones with the tending of links."""
ASKED_TO_CALL: Final = 3
"""How many of a member's successors are asked to pass a call-back on."""


class Reach:
    """An effort to bring a link to one member up."""

    __slots__ = ("failures", "left", "retry", "running", "wanted")

    def __init__(self) -> None:
        self.failures = 0
        self.left: list[Address] = []
        self.running = 0
        self.wanted = False
        self.retry: Timer | None = None

    @property
    def busy(self) -> bool:
        """A dial of it has not ended, or one is about to begin."""
        return self.running > 0 or bool(self.left)


class Links:
    """Decides whom to dial and whom to hang up on.

    Args:
        dead: the members that are DEAD or have LEFT.
        own_addresses: where this node can be dialled, for call-backs.
    """

    def __init__(
        self,
        context: Context,
        dead: dict[NodeId, float],
        own_addresses: Callable[[], Addresses],
        tend: Callable[[], None],
    ) -> None:
        self._context = context
        self._dead = dead
        self._own_addresses = own_addresses
        self._tend_dead = tend
        self._reaches: dict[NodeId, Reach] = {}
        self._opened: dict[NodeId, float] = {}
        self._wanted: dict[NodeId, None] = {}
        self._closing: dict[NodeId, bool] = {}
        self._proofs: dict[NodeId, int] = {}
        self._calm: Timer | None = None
        self._dialled_in = False
        self.ring: tuple[NodeId, ...] = ()
        context.timers.at(context.now + context.config.redial_dead_s * context.rng.random(), self._tend)

    # --- the ring ------------------------------------------------------------------------------------------------

    def keep_ring(self) -> None:
        """Who is alive has changed: see to the links to new successors. Cheap where the ring is the same."""
        context = self._context
        self.ring = tuple(context.table.neighbours(context.me, context.config.ring_links))
        self._proofs = {node: tries for node, tries in self._proofs.items() if node in self.ring}
        if self._calm is None or not self._calm.running:
            missing = [node for node in self.ring if node not in context.links and node not in self._reaches]
            if missing:
                wait = CALM_S * (1.0 + context.rng.random())
                self._calm = context.timers.at(context.now + wait, self._dial_ring)

    def _dial_ring(self) -> None:
        for node in self.ring:
            if node not in self._context.links and node not in self._reaches:
                self.reach(node)

    def _prove_ring(self) -> None:
        """Dial those successors back that this node never dialled."""
        context = self._context
        for node in self.ring:
            boot = context.links.get(node)
            tries = self._proofs.get(node, 0)
            if boot is not None and tries < PROOFS_MAX and not context.proven(node, boot):
                self._proofs[node] = tries + 1
                for address in context.addresses(node)[:2]:
                    context.dial(address, keep=False, timeout_s=context.config.dial_s, done=_nothing)

    # --- reaching a member ---------------------------------------------------------------------------------------

    def want(self, node: NodeId) -> None:
        """Another room wants a link."""
        if node == self._context.me:
            return
        self._wanted[node] = None
        if node not in self._context.links:
            self.reach(node).wanted = True

    def reach(self, node: NodeId) -> Reach:
        """Begin to dial a member, unless that is going on."""
        reach = self._reaches.get(node)
        if reach is None:
            reach = self._reaches[node] = Reach()
        if not reach.busy:
            self._start(node, reach)
        return reach

    def _start(self, node: NodeId, reach: Reach) -> None:
        if reach.retry is not None:
            reach.retry.cancel()
            reach.retry = None
        if self._reaches.get(node) is not reach:
            return
        reach.left = self._context.addresses(node)[:ADDRESSES_MAX]
        if reach.left:
            self._dial_next(node, reach)
        else:
            self._failed(node, reach)

    def _dial_next(self, node: NodeId, reach: Reach) -> None:
        """The next address; if it does not end soon, the one after it as well."""
        if self._reaches.get(node) is not reach or not reach.left:
            return
        config = self._context.config
        reach.running += 1
        self._context.dial(
            reach.left.pop(0), keep=True, timeout_s=config.dial_s, done=partial(self._on_dialled, node, reach)
        )
        if reach.left:
            self._context.timers.at(self._context.now + config.dial_stagger_s, partial(self._dial_next, node, reach))

    def _on_dialled(self, node: NodeId, reach: Reach, ended: DialEnded) -> None:
        reach.running -= 1
        if self._reaches.get(node) is not reach:
            return
        if ended.outcome == DialOutcome.CONNECTED and ended.peer == node:
            del self._reaches[node]
        elif reach.left:
            self._dial_next(node, reach)
        elif reach.running == 0:
            self._failed(node, reach)

    def _failed(self, node: NodeId, reach: Reach) -> None:
        """None of its addresses answered."""
        reach.failures += 1
        member = self._context.table.get(node)
        given_up = reach.wanted and reach.failures > WANTED_TRIES
        if member is None or not member.live or (node not in self.ring and (not reach.wanted or given_up)):
            del self._reaches[node]
            self._wanted.pop(node, None)
            return
        if reach.wanted:
            self._ask_to_call(node)
        config = self._context.config
        wait = min(config.backoff_max_s, config.backoff_s * 2.0 ** min(16, reach.failures - 1))
        again = self._context.now + wait * (0.75 + 0.5 * self._context.rng.random())
        reach.retry = self._context.timers.at(again, partial(self._start, node, reach))

    # --- members that cannot be dialled --------------------------------------------------------------------------

    def _ask_to_call(self, node: NodeId) -> None:
        """Ask those to whom it probably holds links; the answer is its dial."""
        context = self._context
        message = CallBack(caller=context.me, callee=node, addresses=self._own_addresses())
        for neighbour in context.table.neighbours(node, ASKED_TO_CALL + 1):
            if neighbour != context.me:
                context.tell(neighbour, message)

    def called(self, message: CallBack) -> None:
        """Somebody asks for a call: us, or a peer of ours."""
        context = self._context
        if message.callee == context.me:
            if message.caller not in context.links and message.caller != context.me:
                for address in message.addresses[:ADDRESSES_MAX]:
                    context.dial(address_of(address), keep=True, timeout_s=context.config.dial_s, done=_nothing)
        elif message.callee in context.links:
            context.out.append(SendLink(peer=message.callee, message=message))

    # --- links come and go ---------------------------------------------------------------------------------------

    def up(self, node: NodeId, address: Address | None) -> None:
        """A link is up."""
        self._closing.pop(node, None)
        reach = self._reaches.pop(node, None)
        if reach is not None and reach.retry is not None:
            reach.retry.cancel()
        if address is None:
            self._dialled_in = True
            self._opened.pop(node, None)
            self._proofs.pop(node, None)
            self._context.timers.at(self._context.now + PROOF_S, self._prove_ring)
        else:
            self._opened[node] = self._context.now

    def down(self, node: NodeId) -> bool:
        """A link is gone; whether this node has hung up itself, so that it means nothing."""
        self._opened.pop(node, None)
        self._wanted.pop(node, None)
        return self._closing.pop(node, False)

    def _tend(self) -> None:
        """Every few seconds: heal, and close what nobody needs."""
        context = self._context
        context.timers.at(context.now + context.config.redial_dead_s, self._tend)
        self._tend_dead()
        self.keep_ring()
        self._prove_ring()
        self._redial_dead()
        self._close_surplus()
        self._close_dead()

    def _redial_dead(self) -> None:
        """One dead member at random; those that left in good order come back by themselves."""
        lost = [node for node in self._dead if self._is_lost(node)]
        if lost:
            self.reach(lost[int(self._context.rng.random() * len(lost))])

    def _is_lost(self, node: NodeId) -> bool:
        member = self._context.table.get(node)
        return member is not None and member.entry.state == MemberState.DEAD

    def _close_surplus(self) -> None:
        context = self._context
        if not self._dialled_in:
            return
        for node, since in list(self._opened.items()):
            needed = node in self.ring or node in self._wanted
            if not needed and context.now - since >= context.config.surplus_link_s:
                self._hang_up(node)

    def _close_dead(self) -> None:
        """Half-open links to the dead: they have had time to object over them."""
        context = self._context
        for node in list(context.links):
            since = self._dead.get(node)
            if since is not None and node not in self._closing and context.now - since >= context.config.redial_dead_s:
                self._hang_up(node)

    def _hang_up(self, node: NodeId) -> None:
        self._opened.pop(node, None)
        self._closing[node] = True
        self._context.out.append(Hangup(peer=node))


def _nothing(ended: DialEnded) -> None:
    """The end of a dial says enough: who answered is remembered, and a link tells of itself."""
