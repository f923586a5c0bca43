"""The connections of a worker process to all others of its gang, and the exchange over them.

A pair of processes has one line. The lower seat dials at once, the higher one after `SECOND_S`, since a firewall may
let through one direction only; of several connections the lower seat chooses one, by a hello that the other returns::

    lower seat                                   higher seat
      | dials ------------------------------------>| door      or: <---- dials | (then it says that it is ready)
      | introduction, reply (`p2premap.node.introduction`)
      | hello(meeting), on one of them ----------->|
      |<---------------------------- hello(meeting)|  on the same; all others are closed

On one machine the door is a Unix socket in the runtime directory, which whoever belongs there can open. From another
machine one dials that node's daemon, which passes the connection on through the same door (SCM_RIGHTS).

A mesh outlives its meeting: the next one of the same seats begins with hellos over the lines that are there. Whatever
goes wrong closes all of them, and so tells the others at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Generator, Sequence
from typing import Final, NamedTuple, TypeAlias

from p2premap.node.introduction import (
    INTRODUCTION_BYTES,
    NONCE_BYTES,
    REPLY_BYTES,
    introduce,
    is_proved,
    keys_of,
    read_introduction,
    reply_to,
)
from p2premap.worker.gang import Buffer, PeerLost
from p2premap.worker.lines import Line, LineBroken
from p2premap.worker.messages import Peer, Table

SECOND_S: Final = 0.25
AGAIN_S: Final = 0.002
AGAIN_MAX_S: Final = 0.2
MEET_S: Final = 120.0
"""Processes whose inputs take long to come keep the others waiting; one that nobody can reach ends that."""
ACCEPTED_MAX: Final = 64
_BACKLOG: Final = 128
_IN: Final = select.POLLIN
_OUT: Final = select.POLLOUT
_HELLO: Final = b"hello"
_READY: Final = b"ready"

Talk: TypeAlias = Generator[tuple[int, int], None, tuple[int, Line]]
"""Says (descriptor, events) that it waits for; ends with a seat and the line to it, on which a hello may be said."""


class MeshGang:
    """One meeting; see `p2premap.worker.gang.Gang`."""

    def __init__(self, mesh: Mesh, table: Table) -> None:
        self.seat = table.seat
        self.seats = tuple(peer.tasks for peer in table.peers)
        self.meeting = table.meeting
        self._mesh = mesh

    def exchange(self, frames: Sequence[Sequence[Buffer]]) -> list[memoryview]:
        """See `p2premap.worker.gang.Gang.exchange`."""
        assert len(frames) == len(self.seats), "one frame a seat"
        return self._mesh.exchange(frames)


class Mesh:
    """All lines of a process.

    Args:
        scratch: a directory for what is too large for memory.
    """

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._lines: dict[int, Line] = {}
        self._roster: tuple[Peer, ...] = ()
        self._seat = -1

    def close(self) -> None:
        """Hang up everywhere."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def meet(self, table: Table) -> MeshGang:
        """Have a line to every other process of the gang, and know that it is in this meeting.

        Raises:
            PeerLost: one cannot be reached.
        """
        roster = tuple(Peer(node=peer.node, tasks=peer.tasks) for peer in table.peers)
        if (roster, table.seat) != (self._roster, self._seat):
            self.close()
            self._roster, self._seat = roster, table.seat
        kept, self._lines = self._lines, {}
        gathering = _Gathering(table, self._scratch, kept)
        try:
            self._lines = gathering.run()
        finally:
            gathering.close()
        return MeshGang(self, table)

    def exchange(self, frames: Sequence[Sequence[Buffer]]) -> list[memoryview]:
        """See `p2premap.worker.gang.Gang.exchange`."""
        came = [memoryview(b"")] * len(frames)
        poll = select.poll()
        waits: dict[int, tuple[int, Line, int]] = {}
        seat = self._seat
        try:
            for seat, line in self._lines.items():
                events = _IN if line.say(frames[seat]) else _IN | _OUT
                waits[line.fileno()] = seat, line, events
                poll.register(line.fileno(), events)
            for seat, line in self._lines.items():
                if (frame := line.heard()) is not None:
                    came[seat] = frame
                    _less(poll, waits, line, _IN)
            while waits:
                for descriptor, happened in poll.poll():
                    seat, line, events = waits[descriptor]
                    if events & _OUT and happened & ~_IN and line.go_on():
                        _less(poll, waits, line, _OUT)
                    if events & _IN and happened & ~_OUT and (frame := line.hear()) is not None:
                        came[seat] = frame
                        _less(poll, waits, line, _IN)
        except LineBroken as error:
            raise PeerLost(seat, str(error)) from None
        return came


def _less(poll: select.poll, waits: dict[int, tuple[int, Line, int]], line: Line, events: int) -> None:
    """Wait for less from a line."""
    seat, _, waited = waits[line.fileno()]
    if waited & ~events:
        waits[line.fileno()] = seat, line, waited & ~events
        poll.modify(line.fileno(), waited & ~events)
    else:
        del waits[line.fileno()]
        poll.unregister(line.fileno())


class _Dial(NamedTuple):
    """When a seat is dialled next.

    Args:
        turns: how often it has been.
    """

    at: float
    turns: int = 0


class _Gathering:
    """One process on its way to a meeting.

    Args:
        table: who meets, and where.
        scratch: for lines.
        kept: lines of the meeting before.
    """

    def __init__(self, table: Table, scratch: str, kept: dict[int, Line]) -> None:
        self._table = table
        self._scratch = scratch
        self._met: dict[int, Line] = {}
        self._chosen: dict[int, Line] = {}
        """Lines on which this seat, the lower one, has said hello."""
        self._poll = select.poll()
        self._talks: dict[int, tuple[int, Talk]] = {}
        """Descriptor -> the seat (-1: not known yet) and what is being said there."""
        self._dials: dict[int, _Dial] = {}
        self._door = _open_door(table.path)
        self._poll.register(self._door, _IN)
        now = time.monotonic()
        for seat in range(len(table.peers)):
            if seat == table.seat:
                continue
            if seat in kept:
                self._advance(seat, self._greet(seat, kept[seat]))
            elif seat > table.seat:
                self._dials[seat] = _Dial(now)
            else:
                self._dials[seat] = _Dial(now + SECOND_S)

    def close(self) -> None:
        """Let go of everything but the lines that were met on."""
        self._door.close()
        with contextlib.suppress(OSError):
            os.unlink(self._table.path)
        for _, talk in list(self._talks.values()):
            talk.close()

    def run(self) -> dict[int, Line]:
        """Until there is a line to everybody.

        Raises:
            PeerLost: one cannot be reached.
        """
        until = time.monotonic() + MEET_S
        others = len(self._table.peers) - 1
        try:
            while len(self._met) < others:
                now = time.monotonic()
                if now >= until:
                    raise PeerLost(self._missing(), "it cannot be reached")
                self._dial_due(now)
                due = min((dial.at for dial in self._dials.values()), default=until)
                for descriptor, _ in self._poll.poll(1000 * max(0.0, min(due, until) - now)):
                    if descriptor == self._door.fileno():
                        self._accept()
                    elif descriptor in self._talks:
                        self._go_on(descriptor)
        except BaseException:
            for line in self._met.values():
                line.close()
            raise
        return self._met

    def _missing(self) -> int:
        return next(s for s in range(len(self._table.peers)) if s != self._table.seat and s not in self._met)

    # --- what is going on at once ---------------------------------------------------------------------------------

    def _go_on(self, descriptor: int) -> None:
        seat, talk = self._talks.pop(descriptor)
        self._poll.unregister(descriptor)
        self._advance(seat, talk)

    def _advance(self, seat: int, talk: Talk) -> None:
        """Let a talk go on until it waits, ends well, or breaks off."""
        try:
            descriptor, events = next(talk)
        except StopIteration as end:
            self._on_met(*end.value)
        except (OSError, LineBroken):
            self._on_broken(seat)
        else:
            self._talks[descriptor] = seat, talk
            self._poll.register(descriptor, events)

    def _on_met(self, seat: int, line: Line) -> None:
        """Hellos have been said both ways: what else goes on with this seat is not needed."""
        if (before := self._met.get(seat)) is not None:
            before.close()
        self._met[seat] = line
        self._dials.pop(seat, None)
        for descriptor, (of, talk) in list(self._talks.items()):
            if of == seat:
                del self._talks[descriptor]
                self._poll.unregister(descriptor)
                talk.close()

    def _on_broken(self, seat: int) -> None:
        """Nothing came of it: the seat is dialled again, by whoever it is that does."""
        if seat >= 0 and seat not in self._met and seat not in self._dials:
            wait_s = AGAIN_S if seat > self._table.seat else SECOND_S
            self._dials[seat] = _Dial(time.monotonic() + wait_s, 1)

    def _dial_due(self, now: float) -> None:
        for seat, dial in list(self._dials.items()):
            if dial.at <= now:
                turns = dial.turns + 1
                self._dials[seat] = _Dial(now + min(AGAIN_S * 2**turns, AGAIN_MAX_S), turns)
                if not any(of == seat for of, _ in self._talks.values()):
                    self._advance(seat, self._dial(seat, turns))

    # --- talks ----------------------------------------------------------------------------------------------------

    def _dial(self, seat: int, turns: int) -> Talk:
        table, peer = self._table, self._table.peers[seat]
        family, where = _place(peer, turns)
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.connect(where)
            yield connection.fileno(), _OUT
            if error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
            _tune(connection)
            nonce = os.urandom(NONCE_BYTES)
            connection.send(introduce(table.key, table.meeting, table.seat, seat, nonce))
            reply = yield from _read(connection, REPLY_BYTES)
            keys = keys_of(table.key, nonce, reply)
            if keys is None:
                raise LineBroken("it is somebody else")
            sealing = None if family == socket.AF_UNIX else (keys.dialled, keys.accepted)
            line = Line(connection, self._scratch, sealing)
            if seat < table.seat:
                line.say((_READY,))
            met = yield from self._greet(seat, line)
        except BaseException:
            connection.close()
            raise
        return met

    def _greet(self, seat: int, line: Line) -> Talk:
        """Say or hear the hello, and hear or say the answer."""
        hello = _HELLO + self._table.meeting
        try:
            if seat > self._table.seat:
                if seat in self._chosen:
                    raise LineBroken("another line was chosen")
                self._chosen[seat] = line
                try:
                    line.say((hello,))
                    yield from _expect(line, hello)
                except BaseException:
                    self._chosen.pop(seat, None)
                    raise
            else:
                yield from _expect(line, hello)
                line.say((hello,))
        except BaseException:
            line.close()
            raise
        return seat, line

    def _answer(self, connection: socket.socket) -> Talk:
        """Somebody is at the door; or the daemon brings somebody who has come from another machine."""
        try:
            connection.setblocking(False)
            yield connection.fileno(), _IN
            data, passed, _, _ = socket.recv_fds(connection, INTRODUCTION_BYTES, 1)
            if passed:
                connection.close()
                connection = socket.socket(fileno=passed[0])
                connection.setblocking(False)
                _tune(connection)
            said = read_introduction(data)
            table = self._table
            if said is None or not is_proved(table.key, said) or said.meeting != table.meeting:
                raise LineBroken("it is somebody else")
            if said.to != table.seat or not 0 <= said.seat < len(table.peers) or said.seat == table.seat:
                raise LineBroken("it wants somebody else")
            reply = reply_to(table.key, said, os.urandom(NONCE_BYTES))
            keys = keys_of(table.key, said.nonce, reply)
            assert keys is not None, "it is our own reply"
            connection.send(reply)
            sealing = None if connection.family == socket.AF_UNIX else (keys.accepted, keys.dialled)
            line = Line(connection, self._scratch, sealing)
            if said.seat > table.seat:
                yield from _expect(line, _READY)
            met = yield from self._greet(said.seat, line)
        except BaseException:
            connection.close()
            raise
        return met

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._door.accept()
            if sum(seat < 0 for seat, _ in self._talks.values()) < ACCEPTED_MAX + len(self._table.peers):
                self._advance(-1, self._answer(connection))
            else:
                connection.close()


def _open_door(path: str) -> socket.socket:
    """A listening Unix socket.

    Raises:
        OSError: the directory cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a process that was to be here before, and has died
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.setblocking(False)
        door.bind(path)
        door.listen(_BACKLOG)
    except BaseException:
        door.close()
        raise
    return door


def _place(peer: Peer, turn: int) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """Where a seat is dialled this time: its addresses take turns, a door on this machine comes before each."""
    if peer.path and (not peer.addresses or turn < 8 or turn % 2):
        return socket.AF_UNIX, peer.path
    if not peer.addresses:
        raise LineBroken("it has no address")
    host, port = peer.addresses[turn % len(peer.addresses)]
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)


def _tune(connection: socket.socket) -> None:
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _read(connection: socket.socket, size: int) -> Generator[tuple[int, int], None, bytes]:
    data = b""
    while len(data) < size:
        yield connection.fileno(), _IN
        more = connection.recv(size - len(data))
        if not more:
            raise LineBroken("it has hung up")
        data += more
    return data


def _expect(line: Line, words: bytes) -> Generator[tuple[int, int], None, None]:
    """Wait for exactly this."""
    while (frame := line.heard()) is None:
        yield line.fileno(), _IN
        if (frame := line.hear()) is not None:
            break
    if bytes(frame) != words:
        raise LineBroken("it says what does not belong here")
