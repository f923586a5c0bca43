"""A few gossip cores on one virtual clock, with a network that is as good or as bad as a test wants it.

Small on purpose: faults in the large are the simulator's. Messages travel as encoded bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from p2premap.config import GossipConfig
from p2premap.gossip.core import GossipCore
from p2premap.gossip.events import (
    Dial,
    DialEnded,
    DialOutcome,
    GossipEffect,
    GossipEvent,
    Hangup,
    Hinted,
    LinkDown,
    LinkUp,
    MemberState,
    Received,
    SendDatagram,
    SendLink,
    Tick,
)
from p2premap.gossip.invariants import disagreement
from p2premap.gossip.members import EMPTY, Base
from p2premap.gossip.messages import MESSAGES
from p2premap.ids import Address, Boot, NodeId
from p2premap.wire import Message, Registry

REGISTRY = Registry(MESSAGES, header_bytes_max=64 << 10)
HOP_S = 0.0005


def node_id(number: int) -> NodeId:
    """Ids as evenly spread as real ones, the same in every run."""
    return NodeId(Random(f"node {number}").randbytes(16))


@dataclass
class Node:
    """One simulated node: its core while it runs, and what became of it."""

    number: int
    core: GossipCore
    boot: int
    state: str = "running"
    inbox: list[GossipEvent] = field(default_factory=list)
    effects: list[tuple[float, GossipEffect]] = field(default_factory=list)
    links: set[int] = field(default_factory=set)
    dialable: bool = True

    @property
    def address(self) -> Address:
        return Address(f"10.0.{self.number // 250}.{self.number % 250 + 1}", 7321)


class Net:
    """The cluster.

    Args:
        count: nodes, numbered from 0; they do not know each other.
        loss: the part of all datagrams that is lost.
        base: give every node the same members from the start.
    """

    def __init__(
        self, count: int, *, seed: int = 0, loss: float = 0.0, config: GossipConfig | None = None, base: bool = False
    ) -> None:
        self.now = 100.0
        self.seed = seed
        self.rng = Random(f"net {seed}")
        self.loss = loss
        self.config = config or GossipConfig()
        self.cut: Callable[[int, int], bool] = lambda a, b: False
        self.nodes: dict[int, Node] = {}
        self.by_id: dict[NodeId, int] = {}
        self.by_address: dict[Address, int] = {}
        self.bytes_sent = 0
        self.sent: dict[str, int] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._news = True
        self._base: Base = EMPTY
        if base:
            alone = [self.make(n).core.own for n in range(count)]
            self._base = Base(alone)
            self.nodes.clear()
        for number in range(count):
            self.start(number)

    # --- nodes ---------------------------------------------------------------------------------------------------

    def make(self, number: int, boot: int = 1) -> Node:
        me = node_id(number)
        address = Address(f"10.0.{number // 250}.{number % 250 + 1}", 7321)
        core = GossipCore(
            me=me,
            boot=Boot(boot),
            name=f"node-{number}",
            addresses=(address,),
            config=self.config,
            rng=Random(f"{self.seed}/{number}/{boot}"),
            now=self.now,
            base=self._base,
        )
        self.by_id[me] = number
        self.by_address[address] = number
        return Node(number=number, core=core, boot=boot)

    def start(self, number: int, boot: int = 1) -> Node:
        node = self.nodes[number] = self.make(number, boot)
        return node

    def kill(self, number: int) -> None:
        """The process ends; its kernel closes its connections and refuses new ones."""
        node = self.nodes[number]
        node.state = "killed"
        for peer in sorted(node.links):
            self._drop_link(number, peer, tell=(peer,))

    def power_off(self, number: int) -> None:
        """The machine is gone: nothing answers, nothing is closed."""
        self.nodes[number].state = "off"

    def stop(self, number: int) -> None:
        """SIGSTOP: the kernel accepts, the process does not run."""
        self.nodes[number].state = "stopped"

    def resume(self, number: int) -> None:
        node = self.nodes[number]
        node.state = "running"
        waiting, node.inbox = node.inbox, []
        for event in waiting:
            self.give(number, event)

    def hint(self, number: int, other: int, *, named: bool = True) -> None:
        self.give(number, Hinted(address=self.nodes[other].address, node=node_id(other) if named else None))

    # --- steps ---------------------------------------------------------------------------------------------------

    def give(self, number: int, event: GossipEvent) -> list[GossipEffect]:
        node = self.nodes[number]
        if node.state == "stopped":
            node.inbox.append(event)
            return []
        if node.state != "running":
            return []
        effects = node.core.step(self.now, event)
        node.core.check_invariants()
        for effect in effects:
            self._news = self._news or not isinstance(effect, (SendDatagram, SendLink, Dial))
            node.effects.append((self.now, effect))
            self._perform(node, effect)
        return effects

    def _perform(self, node: Node, effect: GossipEffect) -> None:
        match effect:
            case SendDatagram(address=address, message=message):
                data = self._encode(message)
                assert len(data) <= self.config.datagram_bytes_max, f"{len(data)} bytes: {message}"
                target = self.by_address.get(address)
                if target is not None and self.rng.random() >= self.loss:
                    self._later(lambda: self._datagram(node.number, target, data))
            case SendLink(peer=peer, message=message):
                data = self._encode(message)
                other = self.by_id[peer]
                if other in node.links:
                    self._later(lambda: self._over_link(node, other, data))
            case Dial():
                self._later(lambda: self._dial(node.number, effect))
            case Hangup(peer=peer):
                other = self.by_id[peer]
                if other in node.links:
                    self._drop_link(node.number, other, tell=(other, node.number))
            case _:
                pass

    def _encode(self, message: Message) -> bytes:
        data = REGISTRY.encode(message)
        self.bytes_sent += len(data)
        name = type(message).__name__
        self.sent[name] = self.sent.get(name, 0) + 1
        return data

    def _later(self, what: Callable[[], None], delay_s: float = HOP_S) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._order, what))

    def _datagram(self, source: int, target: int, data: bytes) -> None:
        if not self.cut(source, target) and target in self.nodes:
            sender = self.nodes[source]
            self.give(target, Received(sender=node_id(source), address=sender.address, message=REGISTRY.decode(data)))

    def _over_link(self, source: Node, target: int, data: bytes) -> None:
        if target in source.links and self.nodes.get(source.number) is source and not self.cut(source.number, target):
            self.give(target, Received(sender=node_id(source.number), address=None, message=REGISTRY.decode(data)))

    def _dial(self, source: int, dial: Dial) -> None:
        target = self.by_address.get(dial.address)
        node = self.nodes.get(target) if target is not None else None

        def end(outcome: DialOutcome, delay_s: float) -> None:
            self._later(
                lambda: self.give(source, DialEnded(dial=dial.dial, address=dial.address, outcome=outcome)), delay_s
            ) if outcome != DialOutcome.CONNECTED else self._later(
                lambda: self._connect(source, target or 0, dial), delay_s
            )

        if node is None or node.state == "off" or not node.dialable or self.cut(source, node.number):
            end(DialOutcome.SILENT, dial.timeout_s)
        elif node.state == "killed":
            end(DialOutcome.REFUSED, HOP_S)
        elif node.state == "stopped":
            end(DialOutcome.STALLED, dial.timeout_s)
        else:
            end(DialOutcome.CONNECTED, HOP_S)

    def _connect(self, source: int, target: int, dial: Dial) -> None:
        a, b = self.nodes[source], self.nodes[target]
        if a.state != "running" or b.state != "running":
            self.give(source, DialEnded(dial=dial.dial, address=dial.address, outcome=DialOutcome.SILENT))
            return
        if dial.keep and target not in a.links and target != source:
            self._news = True
            a.links.add(target)
            b.links.add(source)
            self.give(target, LinkUp(peer=node_id(source), boot=Boot(a.boot), address=None))
            self.give(source, LinkUp(peer=node_id(target), boot=Boot(b.boot), address=dial.address))
        self.give(
            source,
            DialEnded(
                dial=dial.dial,
                address=dial.address,
                outcome=DialOutcome.CONNECTED,
                peer=node_id(target),
                boot=Boot(b.boot),
            ),
        )

    def _drop_link(self, a: int, b: int, tell: Iterable[int]) -> None:
        self.nodes[a].links.discard(b)
        self.nodes[b].links.discard(a)
        for number in tell:
            other = b if number == a else a
            event = LinkDown(peer=node_id(other), boot=Boot(self.nodes[other].boot))
            self._later(lambda number=number, event=event: self.give(number, event) and None)  # type: ignore[misc]

    # --- time ----------------------------------------------------------------------------------------------------

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass; stop when `until` holds, which only changed beliefs or links can bring. How long it took."""
        self._news = True
        start = self.now
        end = start + seconds
        while True:
            if until is not None and self._news and until():
                return self.now - start
            self._news = False
            ticks = [(n.core.deadline(), n.number) for n in self.nodes.values() if n.state == "running"]
            tick = min(ticks, default=(end + 1, -1))
            arrival = self._queue[0][0] if self._queue else end + 1
            if min(tick[0], arrival) > end:
                self.now = end
                return seconds
            if arrival <= tick[0]:
                self.now = max(self.now, arrival)
                heapq.heappop(self._queue)[2]()
            else:
                self.now = max(self.now, tick[0])
                self.give(tick[1], Tick())

    # --- what they believe ---------------------------------------------------------------------------------------

    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.state == "running"]

    def state(self, of: int, seen_by: int) -> MemberState | None:
        view = self.nodes[seen_by].core.member(node_id(of))
        return None if view is None else view.state

    def all_see(self, of: int, state: MemberState) -> bool:
        return all(self.state(of, node.number) == state for node in self.running() if node.number != of)

    def whole(self) -> bool:
        """Every running node sees all running nodes ALIVE."""
        numbers = [node.number for node in self.running()]
        return all(self.state(a, b) == MemberState.ALIVE for a in numbers for b in numbers)

    def disagreement(self) -> str:
        return disagreement([node.core.members() for node in self.running()])
