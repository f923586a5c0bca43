"""What must reach a peer, until there is a link to it. Pure.

Bounded for each peer: beyond `messages_max` the oldest message is dropped and counted. The task rooms survive that, as
they survive a broken link: what is missing is asked for again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Final

from p2premap.ids import NodeId
from p2premap.wire import Message

ASK_AGAIN_S: Final = 1.0


class Outbox:
    """Messages that wait for links.

    Args:
        messages_max: for each peer.
    """

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._waiting: dict[NodeId, deque[Message]] = {}
        self._ask_at: dict[NodeId, float] = {}
        self.dropped = 0

    def put(self, now: float, peer: NodeId, message: Message) -> None:
        """Keep a message until `take`."""
        waiting = self._waiting.setdefault(peer, deque())
        if len(waiting) >= self._messages_max:
            waiting.popleft()
            self.dropped += 1
        waiting.append(message)
        self._ask_at.setdefault(peer, now)

    def take(self, peer: NodeId) -> deque[Message]:
        """The link is up: everything for this peer, in order."""
        self._ask_at.pop(peer, None)
        return self._waiting.pop(peer, deque())

    def waiting(self) -> Iterator[Message]:
        """Everything that waits: what has been said, and has not left yet."""
        for messages in self._waiting.values():
            yield from messages

    def forget(self, peer: NodeId) -> None:
        """The peer is dead or has left."""
        self.take(peer)

    def deadline(self) -> float:
        """When to ask for a link (again)."""
        return min(self._ask_at.values()) if self._ask_at else math.inf

    def wanted(self, now: float) -> list[NodeId]:
        """Peers for which a link is to be asked for now."""
        if not self._ask_at:
            return []
        due = [peer for peer, at in self._ask_at.items() if at <= now]
        for peer in due:
            self._ask_at[peer] = now + ASK_AGAIN_S
        return due
