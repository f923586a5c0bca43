"""Dials, each with the outcome that it would truly have, and the links that they leave.

A dial is refused only where a kernel runs and no process listens; it is silent where nothing answers; it is stalled
where the kernel accepts for a process that does not run. Lost packets are sent again with TCP's patience (a SYN
after 1 s, data after 0.2 s, doubled each time), so that on a bad network a dial may be silent although all is well.

A link delivers in order whatever is not cut off. Its end is heard only while the other kernel can speak: a process
that is killed closes its sockets, a machine without power says nothing, and data towards it waits until it breaks
the link or the machine, booted anew, answers with a reset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from p2premap.gossip.events import Dial, DialEnded, DialOutcome, GossipEvent, LinkDown, LinkUp
from p2premap.ids import Boot, NodeId
from p2premap.sim.clock import Clock
from p2premap.sim.machines import Power, Seat
from p2premap.sim.network import Network
from p2premap.wire import Message

SYN_AGAIN_S: Final = 1.0
DATA_AGAIN_S: Final = 0.2
HANDSHAKE_LEGS: Final = 3
"""Packets one after the other from the accepted connection to both hellos (TLS 1.3 and one hello each way)."""

LINK_WAITING_MAX: Final = 10_000
"""Frames that wait in one link; the next one breaks it."""

Deliver = Callable[[Seat, int, GossipEvent], None]
"""Give an event to the process that had this life; if it is paused, when it runs again."""

Item: TypeAlias = tuple[bytes, Message]
"""A message, and bytes that stand for it: as many as it takes on the wire, or nearly."""

FrameArrived = Callable[[Seat, Seat, bytes, Message], None]
"""(target, source, bytes, message) of a frame."""


@dataclass(slots=True, eq=False)
class End:
    """One end of a link.

    Args:
        seat, life: whose process.
        whole: this process holds the link (it has not seen it go).
        waiting: what was written here and could not cross yet; None is the end of the stream.
        waits_since: since when something waits.
        last: the instant of the last delivery from here, so that nothing overtakes.
        up: this process has been told that the link is up.
    """

    seat: Seat
    life: int
    node: NodeId
    boot: Boot
    whole: bool = True
    up: bool = False
    last: float = 0.0
    waits_since: float = 0.0
    waiting: deque[Item | None] = field(default_factory=deque)


class Link:
    """A stream between two processes."""

    __slots__ = ("_a", "_b")

    def __init__(self, a: End, b: End) -> None:
        self._a = a
        self._b = b

    def end_of(self, seat: Seat) -> End:
        """The end at this machine."""
        return self._a if self._a.seat is seat else self._b

    def other(self, end: End) -> End:
        """The end opposite."""
        return self._b if self._a is end else self._a


@dataclass(slots=True, eq=False)
class _Dialling:
    """A dial under way."""

    seat: Seat
    life: int
    asked: Dial
    until: float
    accepted: bool = False
    over: bool = False


class Streams:
    """All dials and links of a world.

    Args:
        clock, network: of the world.
        deliver: see `Deliver`.
        frame: called for each frame that a running process reads.
    """

    def __init__(
        self,
        clock: Clock,
        network: Network,
        *,
        deliver: Deliver,
        frame: FrameArrived,
    ) -> None:
        self.clock = clock
        self.network = network
        self._deliver = deliver
        self._frame = frame
        self._waiting: dict[End, Link] = {}
        self.dials: dict[DialOutcome, int] = dict.fromkeys(DialOutcome, 0)
        network.healed.append(self._try_again)

    # --- dials ----------------------------------------------------------------------------------------------------

    def dial(self, seat: Seat, asked: Dial) -> None:
        """Try an address; exactly one `DialEnded` follows, if the process lives to hear it."""
        dialling = _Dialling(seat, seat.life, asked, self.clock.now + asked.timeout_s)
        self.clock.at(dialling.until, self._expire, dialling)
        self._syn(dialling, SYN_AGAIN_S)

    def _syn(self, dialling: _Dialling, again_s: float) -> None:
        if dialling.over or dialling.accepted:
            return
        self.clock.after(again_s, self._syn, dialling, again_s * 2)
        seat, target = dialling.seat, self.network.at(dialling.asked.address)
        if target is None or not (target.dialable or target is seat):
            return
        if self.network.reaches(seat, target) and not self.network.lost():
            self.clock.after(self.network.delay_s(seat, target), self._syn_arrived, dialling, target)

    def _syn_arrived(self, dialling: _Dialling, target: Seat) -> None:
        seat = dialling.seat
        if dialling.over or not self.network.reaches(target, seat) or self.network.lost() or not target.on:
            return
        back_s = self.network.delay_s(target, seat)
        if target.power is Power.STOPPED:
            self.clock.after(back_s, self._ended, dialling, DialOutcome.REFUSED, None)
            return
        dialling.accepted = True
        self._shake(dialling, target, target.life, HANDSHAKE_LEGS, DATA_AGAIN_S)

    def _shake(self, dialling: _Dialling, target: Seat, life: int, legs: int, again_s: float) -> None:
        """Carry the rest of the handshake, one packet after the other; the process must run to answer."""
        if dialling.over:
            return
        if target.frozen:
            target.backlog.append((self._shake, (dialling, target, life, legs, again_s)))
            return
        if target.life != life:
            self.clock.after(self.network.delay_s(target, dialling.seat), self._reset, dialling, target)
            return
        if not self.network.reaches(dialling.seat, target) or not self.network.reaches(target, dialling.seat):
            self.clock.after(again_s, self._shake, dialling, target, life, legs, again_s * 2)
            return
        if self.network.lost():
            self.clock.after(again_s, self._shake, dialling, target, life, legs, again_s * 2)
            return
        if legs:
            late_s = self.network.delay_s(dialling.seat, target)
            self.clock.after(late_s, self._shake, dialling, target, life, legs - 1, DATA_AGAIN_S)
            return
        self._shaken(dialling, target)

    def _reset(self, dialling: _Dialling, target: Seat) -> None:
        """The process died in the middle of the handshake: its kernel resets the connection."""
        if self.network.reaches(target, dialling.seat):
            self._ended(dialling, DialOutcome.REFUSED, None)

    def _shaken(self, dialling: _Dialling, target: Seat) -> None:
        """Both hellos are done at the target; the dialler hears of it one delay later."""
        link = None
        if dialling.asked.keep and target is not dialling.seat and dialling.seat.life == dialling.life:
            link = self._join(dialling, target)
        late_s = self.network.delay_s(target, dialling.seat)
        self.clock.after(late_s, self._ended, dialling, DialOutcome.CONNECTED, target, target.node, target.boot, link)

    def _expire(self, dialling: _Dialling) -> None:
        if not dialling.over:
            self._ended(dialling, DialOutcome.STALLED if dialling.accepted else DialOutcome.SILENT, None)

    def _ended(
        self,
        dialling: _Dialling,
        outcome: DialOutcome,
        target: Seat | None,
        node: NodeId | None = None,
        boot: Boot | None = None,
        link: Link | None = None,
    ) -> None:
        seat = dialling.seat
        if seat.life != dialling.life:
            return
        if dialling.over:
            if link is not None:  # the dialler gave up a moment before
                self._close(link, link.end_of(seat))
            return
        if seat.frozen:
            # when it runs again its own timer has run out, and it does not get to read what lies in the socket
            seat.backlog.append((self._ended, (dialling, outcome, target, node, boot, link)))
            return
        dialling.over = True
        asked = dialling.asked
        if outcome is DialOutcome.CONNECTED and self.clock.now > dialling.until:
            outcome, node, boot = DialOutcome.STALLED, None, None
            if link is not None:
                self._close(link, link.end_of(seat))
        self.dials[outcome] += 1
        if outcome is DialOutcome.CONNECTED and link is not None:
            self._told_up(link, link.end_of(seat), dialling)
        ended = DialEnded(dial=asked.dial, address=asked.address, outcome=outcome, peer=node, boot=boot)
        self._deliver(seat, dialling.life, ended)

    # --- links ----------------------------------------------------------------------------------------------------

    def _join(self, dialling: _Dialling, target: Seat) -> Link | None:
        """Make the link, unless the two hold one already; whoever hears that an old one is gone may die of it."""
        seat, life = dialling.seat, target.life
        held = target.links.get(seat.node)
        if held is not None:
            if held.end_of(seat).whole and held.end_of(seat).life == seat.life:
                return None
            self._gone(held, held.end_of(target))
        stale = seat.links.get(target.node)
        if stale is not None:
            self._gone(stale, stale.end_of(seat))
        if target.life != life or seat.life != dialling.life:
            return None
        near = End(seat, seat.life, seat.node, seat.boot)
        far = End(target, target.life, target.node, target.boot)
        link = Link(near, far)
        seat.links[target.node] = link
        target.links[seat.node] = link
        far.up = True
        self._deliver(target, target.life, LinkUp(peer=seat.node, boot=seat.boot, address=None))
        return link

    def _told_up(self, link: Link, end: End, dialling: _Dialling) -> None:
        if end.whole and not end.up:
            end.up = True
            far = link.other(end)
            self._deliver(end.seat, end.life, LinkUp(peer=far.node, boot=far.boot, address=dialling.asked.address))

    def send(self, seat: Seat, peer: NodeId, data: bytes, message: Message) -> bool:
        """Write to the link; False where there is none."""
        link = seat.links.get(peer)
        if link is None:
            return False
        end = link.end_of(seat)
        seat.frames_sent += 1
        seat.bytes_sent += len(data) + self.network.config.frame_overhead_bytes
        self._write(link, end, (data, message))
        return True

    def hangup(self, seat: Seat, peer: NodeId) -> None:
        """Close the link in good order; both ends hear that it is down."""
        link = seat.links.get(peer)
        if link is not None:
            self._close(link, link.end_of(seat))

    def process_ended(self, seat: Seat, *, kernel_speaks: bool) -> None:
        """The process is gone; its kernel closes what it held, or nothing does."""
        for link in tuple(seat.links.values()):
            end = link.end_of(seat)
            end.whole = False
            if kernel_speaks:
                self._write(link, end, None)
            else:
                self._forget(end)
        seat.links.clear()

    def _close(self, link: Link, end: End) -> None:
        self._write(link, end, None)
        self._gone(link, end)

    def _write(self, link: Link, end: End, item: Item | None) -> None:
        far = link.other(end)
        if end.waiting or not self.network.reaches(end.seat, far.seat):
            self._hold(link, end, item)
            return
        network, clock = self.network, self.clock
        late_s = network.delay_s(end.seat, far.seat)
        again_s = DATA_AGAIN_S
        while network.lost():
            late_s += again_s
            again_s *= 2
        arrives = clock.now + late_s
        if arrives > end.last:
            end.last = arrives
        clock.at(end.last, self._arrive, link, end, item)

    def _arrive(self, link: Link, end: End, item: Item | None) -> None:
        far = link.other(end)
        if not self.network.reaches(end.seat, far.seat):
            self._hold(link, end, item)
        elif far.seat.life != far.life or not far.whole:
            if item is not None and self.network.reaches(far.seat, end.seat):
                self.clock.after(self.network.delay_s(far.seat, end.seat), self._gone, link, end)
        elif item is None:
            self._gone(link, far)
        elif far.seat.frozen:
            far.seat.backlog.append((self._arrive, (link, end, item)))
        else:
            self._frame(far.seat, end.seat, *item)

    def _gone(self, link: Link, end: End) -> None:
        """This end has seen the link go."""
        if not end.whole:
            return
        end.whole = False
        self._forget(end)
        peer = link.other(end)
        if end.seat.life == end.life and end.seat.links.get(peer.node) is link:
            del end.seat.links[peer.node]
            if end.up:
                self._deliver(end.seat, end.life, LinkDown(peer=peer.node, boot=peer.boot))

    # --- what cannot cross ----------------------------------------------------------------------------------------

    def _hold(self, link: Link, end: End, item: Item | None) -> None:
        if not end.waiting:
            end.waits_since = self.clock.now
            self._waiting[end] = link
            self.clock.after(self.network.config.link_timeout_s, self._give_up, link, end, self.clock.now)
        end.waiting.append(item)
        if len(end.waiting) > LINK_WAITING_MAX:
            self._gone(link, end)

    def _give_up(self, link: Link, end: End, since: float) -> None:
        if end.waiting and end.waits_since == since:
            self._gone(link, end)
            self._forget(end)

    def _forget(self, end: End) -> None:
        end.waiting.clear()
        self._waiting.pop(end, None)

    def _try_again(self) -> None:
        """A path has changed: what waits is sent again, after the pause that TCP's back-off has reached."""
        for end, link in tuple(self._waiting.items()):
            if self.network.reaches(end.seat, link.other(end).seat):
                waited_s = self.clock.now - end.waits_since
                self.clock.after(self.network.random.uniform(0, max(DATA_AGAIN_S, waited_s)), self._resend, link, end)

    def _resend(self, link: Link, end: End) -> None:
        if not end.waiting or not end.seat.on or not self.network.reaches(end.seat, link.other(end).seat):
            return
        items = tuple(end.waiting)
        self._forget(end)
        for item in items:
            self._write(link, end, item)
