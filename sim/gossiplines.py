"""The links and dials of a walk over gossip cores: in order while they are whole, and never whole for long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import Random

from p2premap.gossip.events import Dial, DialEnded, DialOutcome, GossipEvent, LinkDown, LinkUp, Received
from p2premap.ids import Address, NodeId
from p2premap.sim.gossipmodel import Seat, Violated
from p2premap.wire import Message


class Link:
    """A stream between two lives.

    Args:
        ends: whose it is.
    """

    __slots__ = ("boots", "ends", "nodes", "queues", "whole")

    def __init__(self, a: Seat, b: Seat) -> None:
        self.ends = (a, b)
        self.nodes = (a.node, b.node)
        self.boots = (a.boot, b.boot)
        self.whole = [True, True]
        """Each end that holds it still."""
        self.queues: tuple[deque[Message | None], deque[Message | None]] = (deque(), deque())
        """What is under way to each of them; None is the end of the stream."""

    def place(self, seat: Seat) -> int:
        """Which end it is."""
        return 0 if self.ends[0] is seat else 1


class Lines:
    """All links and dials of a walk.

    Args:
        at: the machines by their addresses.
        random: decides.
        step: lets a machine's core take an event.
    """

    def __init__(self, at: Mapping[Address, Seat], random: Random, step: Callable[[Seat, GossipEvent], None]) -> None:
        self._at = at
        self._random = random
        self._step = step
        self._links: list[Link] = []

    def send(self, seat: Seat, peer: NodeId, message: Message) -> None:
        """Write to the link; lost where there is none."""
        link = self._link(seat, peer)
        if link is not None:
            link.queues[1 - link.place(seat)].append(message)

    def hang_up(self, seat: Seat, peer: NodeId) -> None:
        """Close the link in good order; both ends hear of it."""
        link = self._link(seat, peer)
        if link is not None:
            for queue in link.queues:
                queue.append(None)

    def ended(self, seat: Seat, *, speaks: bool) -> None:
        """The process is no more; its kernel closes what it held, or nothing does."""
        for link in self._links:
            if seat in link.ends and link.whole[link.place(seat)]:
                far = 1 - link.place(seat)
                link.whole[1 - far] = False
                self._truncate(link.queues[far])
                if speaks:
                    link.queues[far].append(None)
        self._sweep()

    def _link(self, seat: Seat, peer: NodeId) -> Link | None:
        """The link that this process holds to the peer."""
        for link in self._links:
            place = link.place(seat)
            if seat in link.ends and link.whole[place] and link.nodes[1 - place] == peer:
                return link
        return None

    def hear(self) -> bool:
        """A link delivers its next message, or the news that it has ended."""
        waiting = [(link, end) for link in self._links for end in (0, 1) if link.queues[end] and link.whole[end]]
        if not waiting:
            return False
        link, end = self._random.choice(waiting)
        message = link.queues[end].popleft()
        if message is None:
            self._down(link, end)
        else:
            self._step(link.ends[end], Received(sender=link.nodes[1 - end], address=None, message=message))
        return True

    def _down(self, link: Link, end: int) -> None:
        """This end sees the link go."""
        if link.whole[end]:
            link.whole[end] = False
            link.queues[end].clear()
            self._sweep()
            self._step(link.ends[end], LinkDown(peer=link.nodes[1 - end], boot=link.boots[1 - end]))

    def unlink(self) -> bool:
        """A link breaks: the end of what was under way is lost, and each end hears of it some time."""
        if not self._links:
            return False
        for queue in self._random.choice(self._links).queues:
            self._truncate(queue)
            queue.append(None)
        return True

    def _truncate(self, queue: deque[Message | None]) -> None:
        while queue and self._random.random() < 0.7:
            queue.pop()

    def _sweep(self) -> None:
        self._links = [link for link in self._links if any(link.whole)]

    # --- dials --------------------------------------------------------------------------------------------------------

    def dial(self, seat: Seat, dial: Dial) -> None:
        """A process tries an address."""
        if dial.dial in seat.dials:
            raise Violated(f"dials: {seat} uses a number twice")
        seat.dials[dial.dial] = (dial.address, dial.keep)

    def dialled(self) -> bool:
        """A dial ends in a way in which it can: only where no process runs is it refused."""
        dialling = [seat for seat in self._at.values() if seat.dials]
        if not dialling:
            return False
        seat = self._random.choice(dialling)
        dial = self._random.choice(list(seat.dials))
        address, keep = seat.dials.pop(dial)
        target = self._at.get(address)
        if target is None or target.core is None:
            outcome = self._random.choice((DialOutcome.REFUSED, DialOutcome.REFUSED, DialOutcome.SILENT))
        elif self._random.random() < 0.75:
            return self._connected(seat, dial, target, keep=keep)
        else:
            outcome = self._random.choice((DialOutcome.SILENT, DialOutcome.STALLED))
        self._step(seat, DialEnded(dial=dial, address=address, outcome=outcome))
        return True

    def _connected(self, seat: Seat, dial: int, target: Seat, *, keep: bool) -> bool:
        life, node, boot = seat.life, target.node, target.boot
        if keep and target is not seat:
            self._join(seat, target)
        if seat.life == life and seat.core is not None:
            outcome = DialOutcome.CONNECTED
            ended = DialEnded(dial=dial, address=target.address, outcome=outcome, peer=node, boot=boot)
            self._step(seat, ended)
        return True

    def _join(self, seat: Seat, target: Seat) -> None:
        """Link two processes, unless they are; what one of them still holds of an earlier link goes first."""
        lives = seat.life, target.life
        held = self._link(seat, target.node)
        if held is not None and all(held.whole) and held is self._link(target, seat.node):
            return
        for one, other in ((target, seat), (seat, target)):
            stale = self._link(one, other.node)
            if stale is not None:
                self._down(stale, stale.place(one))
        link = Link(seat, target)
        for one, other, address in ((target, seat, None), (seat, target, target.address)):
            if (seat.life, target.life) != lives or seat.core is None or target.core is None:
                return
            if one is target:
                self._links.append(link)
            self._step(one, LinkUp(peer=other.node, boot=other.boot, address=address))
