"""The links between the nodes of a walk over election cores: in order while they are whole, and broken at will."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import Random

from p2premap.election import events
from p2premap.ids import NodeId
from p2premap.sim.electionmodel import Node
from p2premap.wire import Message


class Wires:
    """All links, and who is cut off from whom.

    Args:
        nodes: of the walk.
        random: decides.
        step: lets a node's core take an event.
    """

    def __init__(
        self, nodes: Mapping[NodeId, Node], random: Random, step: Callable[[Node, events.ElectionEvent], None]
    ) -> None:
        self._nodes = nodes
        self._random = random
        self._step = step
        self._queues: dict[tuple[NodeId, NodeId], deque[Message]] = {}
        self.cuts: set[frozenset[NodeId]] = set()

    def waiting(self) -> list[tuple[NodeId, NodeId]]:
        """The links on which something is under way: from whom, to whom."""
        return [key for key, queue in self._queues.items() if queue]

    def busy(self, node: Node) -> bool:
        """Whether something is under way from or to this node."""
        return any(queue for key, queue in self._queues.items() if node.id in key)

    def open(self, node: Node, to: Node) -> bool:
        """Whether what one sends the other is under way."""
        return to.core is not None and frozenset((node.id, to.id)) not in self.cuts

    def send(self, node: Node, to: Node, message: Message) -> None:
        """A message is under way."""
        self._queues.setdefault((node.id, to.id), deque()).append(message)

    def deliver(self, links: list[tuple[NodeId, NodeId]]) -> None:
        """One of these links delivers a message, or a few."""
        sender, to = self._random.choice(links)
        for _ in range(self._random.choice((1, 1, 1, 2, 5))):
            if queue := self._queues.get((sender, to)):
                self._step(self._nodes[to], events.FromReplica(node=sender, message=queue.popleft()))

    def unlink(self, one: Node, other: Node, loses: float = 0.7) -> None:
        """The end of what was under way is lost, in both directions: more of it with this chance."""
        for key in ((one.id, other.id), (other.id, one.id)):
            queue = self._queues.get(key)
            while queue and self._random.random() < loses:
                queue.pop()
        for node, peer in ((one, other), (other, one)):
            if node.core is not None:
                self._step(node, events.PeerUnlinked(node=peer.id))

    def forget(self, node: Node) -> None:
        """The node does not run any more: what is under way to it reaches nobody."""
        for key in [key for key in self._queues if key[1] == node.id]:
            del self._queues[key]

    def cut(self, side: list[Node]) -> None:
        """These nodes and the others cannot talk."""
        for one in side:
            for other in self._nodes.values():
                if other not in side:
                    self.cuts.add(frozenset((one.id, other.id)))
                    self.unlink(one, other)

    def heal(self) -> None:
        """All who are cut from each other can talk again, or two of them."""
        if self._random.random() < 0.5:
            self.cuts.clear()
        else:
            self.cuts.remove(self._random.choice(sorted(self.cuts, key=sorted)))

    def truth(self, node: Node, other: Node) -> tuple[str, int] | None:
        """What gossip will say to a node of another one, once nothing changes any more."""
        if node is other or (other.core is None and other.boot == 0):
            return node.told.get(other.id)
        if not self.open(node, other):
            known = node.told.get(other.id)
            return known and ("gone", known[1])
        return ("seen", other.boot)
