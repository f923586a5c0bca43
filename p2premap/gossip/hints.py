"""Addresses at which somebody may be: tried with back-off, until gossip knows whoever is there.

A hint is never evidence. Hints are tried a little apart and a few at a time: the first that leads to a member makes
most others superfluous, since it tells of all members at once, and each hello costs both sides some milliseconds.
Addresses of other clusters or versions are remembered and left alone for `stranger_s`, longer each time. When more than
`hints_max` are known, the oldest is dropped.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from p2premap.gossip.context import Context
from p2premap.gossip.events import DialEnded, DialOutcome, MemberState
from p2premap.gossip.timers import Timer
from p2premap.ids import Address, NodeId

STRANGE: Final = (DialOutcome.FOREIGN, DialOutcome.INCOMPATIBLE, DialOutcome.CONNECTED)
"""Nobody to meet there: another cluster, another version, or this node itself under another of its addresses."""


class Hint:
    """One address that may be a member's."""

    __slots__ = ("busy", "failures", "next_at", "node", "stranger", "tried_at")

    def __init__(self, node: NodeId | None, now: float) -> None:
        self.node = node
        self.failures = 0
        self.stranger = False
        self.busy = False
        self.next_at = now
        self.tried_at = now


class Hints:
    """Dials what the shell has been told of."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._timer: Timer | None = None
        self._running = 0
        self._dialled_at = -math.inf
        self.hints: dict[Address, Hint] = {}

    def hinted(self, address: Address, node: NodeId | None) -> None:
        """Somebody may be there; a hint that comes again is news, unless a stranger lives there."""
        if node == self._context.me or self._is_known(node):
            return
        hint = self.hints.get(address)
        if hint is None:
            if len(self.hints) >= self._context.config.hints_max:
                del self.hints[next(iter(self.hints))]
            self.hints[address] = Hint(node, self._context.now)
        else:
            hint.node = node if node is not None else hint.node
            soon = max(self._context.now, hint.tried_at + self._context.config.redial_dead_s)
            if not hint.stranger and soon < hint.next_at:
                hint.next_at = soon
        self._work()

    def _is_known(self, node: NodeId | None) -> bool:
        """Whether gossip already speaks with this node."""
        member = self._context.table.get(node) if node is not None else None
        return member is not None and member.entry.state == MemberState.ALIVE

    def _work(self) -> None:
        """Dial what is due, a few at a time; set the timer for the rest."""
        context = self._context
        next_at = math.inf
        apart_at = self._dialled_at + context.config.dial_stagger_s if self._running else context.now
        for address, hint in list(self.hints.items()):
            if hint.busy:
                continue
            if self._is_known(hint.node):
                del self.hints[address]
            elif hint.next_at > context.now:
                next_at = min(next_at, hint.next_at)
            elif apart_at > context.now:
                next_at = min(next_at, apart_at)
            elif self._running < context.config.hint_dials:
                self._dial(address, hint)
                apart_at = context.now + context.config.dial_stagger_s
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if next_at == math.inf else context.timers.at(next_at, self._work)

    def _dial(self, address: Address, hint: Hint) -> None:
        hint.busy = True
        hint.tried_at = self._dialled_at = self._context.now
        self._running += 1
        self._context.dial(
            address, keep=True, timeout_s=self._context.config.dial_s, done=partial(self._on_dialled, hint)
        )

    def _on_dialled(self, hint: Hint, ended: DialEnded) -> None:
        self._running -= 1
        hint.busy = False
        if ended.outcome == DialOutcome.CONNECTED and ended.peer != self._context.me:
            self.hints.pop(ended.address, None)
        else:
            hint.failures += 1
            hint.stranger = ended.outcome in STRANGE
            config = self._context.config
            first = config.stranger_s if hint.stranger else config.backoff_s
            most = max(config.backoff_max_s, first)
            wait = min(most, first * 2.0 ** min(16, hint.failures - 1))
            hint.next_at = self._context.now + wait * (0.75 + 0.5 * self._context.rng.random())
        self._work()
