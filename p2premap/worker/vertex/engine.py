"""One epoch of a vertex job in one process: supersteps, one exchange with the other processes each.

It is a generator, so that whoever has the other processes drives it: it yields a frame for each seat, and is sent what
came from each (`p2premap.worker.gang.Gang.exchange` between processes, a scheduler of its own in the simulator). What
to do next is the barrier's word (`p2premap.vertex.barrier`).

A frame::

    kind (1) | mails (4) | bytes of head (8) | head | mails x (source (4) | target (4) | bytes (8)) | the mails

The head is pickled: members trust one another, and aggregates may be anything. Mail between two partitions of this
process takes no frame.

A process that cannot go on says so in its next frame, whatever the others wait for; they give up then, and only its own
attempts tell why.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from p2premap.vertex.barrier import (
    Agree,
    Barrier,
    Carried,
    Compute,
    Computed,
    Count,
    Counted,
    Effect,
    End,
    Globals,
    Head,
    Hello,
    Met,
    Program,
    Share,
    Tell,
    Told,
    Turn,
    VertexError,
)
from p2premap.vertex.plan import Settings
from p2premap.worker.gang import Buffer, Gang, PeerLost
from p2premap.worker.vertex.partition import Partition

T = TypeVar("T")
Frames = list[Sequence[Buffer]]
Exchanging = Generator[Frames, list[memoryview], T]
Mail = tuple[int, int, memoryview]
"""Target partition, source partition, bytes."""

HELLO: Final = 1
ASK: Final = 2
ANSWER: Final = 3
MAIL: Final = 4
BYE: Final = 5
ERROR: Final = 6

_PREFIX: Final = struct.Struct("<BIQ")
_ENTRY: Final = struct.Struct("<IIQ")
_ERROR_CHARACTERS_MAX: Final = 500


def drive(epoch: Exchanging[T], gang: Gang) -> T:
    """Run an epoch among the processes of a gang.

    Raises:
        PeerLost: one of them is gone, or cannot go on.
        VertexError, Exception: what this process's own part raises.
    """
    try:
        frames = next(epoch)
        while True:
            try:
                came = gang.exchange(frames)
            except PeerLost as lost:
                frames = epoch.throw(lost)
            else:
                frames = epoch.send(came)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        epoch.close()


class Epoch:
    """One epoch of one process.

    Args:
        seat: of this process.
        seats: partitions of every process.
        settings: of the job.
        program: its hooks.
        partitions: of this process, by number.
        fresh: one of them has just been made, and the others do not know it.
        superstep: the first one.
        carried: from the epoch before.
        change_s: since that ended here; 0: it did not.
        clock: seconds; only their difference counts.
        settled: called where `fresh`, when this process has computed for the first time.
    """

    def __init__(
        self,
        *,
        seat: int,
        seats: Sequence[Sequence[int]],
        settings: Settings,
        program: Program,
        partitions: Mapping[int, Partition],
        fresh: bool,
        superstep: int,
        carried: Carried,
        change_s: float,
        clock: Callable[[], float],
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        assert sorted(partitions) == sorted(seats[seat]), "the partitions of this seat"
        self._seat = seat
        self._seats = [sorted(tasks) for tasks in seats]
        self._partitions = [partitions[number] for number in self._seats[seat]]
        self._by_number = dict(partitions)
        self._fresh = fresh
        self._change_s = change_s
        self._clock = clock
        self._settled = settled
        self._settling = fresh
        self._dropped = dict.fromkeys(partitions, 0)
        self._inbox: list[Mail] = []
        self._barrier = Barrier(settings=settings, program=program, seat=seat, superstep=superstep, carried=carried)

    @property
    def superstep(self) -> int:
        """The next one."""
        return self._barrier.superstep

    def run(self) -> Exchanging[End]:
        """Compute until the barrier says that the epoch ends; the partitions can then be written.

        Raises:
            PeerLost: another process cannot go on.
            VertexError, Exception: this one cannot.
        """
        try:
            return (yield from self._run())
        except (PeerLost, GeneratorExit):
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS_MAX]
            frame = _frame(ERROR, pickle.dumps(text), ())
            with contextlib.suppress(PeerLost):  # they may be gone as soon as they know
                yield [() if seat == self._seat else frame for seat in range(len(self._seats))]
            raise

    def _run(self) -> Exchanging[End]:
        hellos = yield from self._greet(fresh=self._fresh)
        effects = self._barrier.step(self._clock(), Met(hellos, self._change_s))
        while True:
            for effect in effects:
                if isinstance(effect, End):
                    return (yield from self._take_leave(effect))
                follows = yield from self._perform(effect)
            assert follows is not None, "the last effect has an answer"
            effects = self._barrier.step(self._clock(), follows)

    def _take_leave(self, end: End) -> Exchanging[End]:
        """The last exchange: who cannot go on says so here at the latest, and all know what was dropped in the end."""
        pending = sum(self._dropped.values())
        dropped, _ = yield from self._exchange(BYE, pending, lambda _: ())
        return end._replace(carried=end.carried._replace(dropped=end.carried.dropped + sum(dropped)))

    def _perform(self, effect: Effect) -> Exchanging[Computed | Told | Counted | None]:
        match effect:
            case Compute(globals=globals):
                shares = tuple(self._compute(partition, globals) for partition in self._partitions)
                if self._settling:
                    self._settling = False
                    self._settled()
                return Computed(shares)
            case Tell(head=head):
                return Told((yield from self._post(head)))
            case Turn():
                self._turn()
            case Count():
                return Counted((yield from self._greet(fresh=self._fresh)))
            case Agree(changed=changed):
                yield from self._agree(changed=changed)
            case End():
                raise AssertionError("an end is not performed")
        return None

    # --- what effects come to -------------------------------------------------------------------------------------

    def _greet(self, *, fresh: bool) -> Exchanging[tuple[Hello, ...]]:
        counts = tuple((partition.number, *partition.counts()) for partition in self._partitions)
        hello = Hello(self._barrier.superstep, fresh, counts)
        heads, _ = yield from self._exchange(HELLO, hello, lambda _: ())
        return tuple(Hello(*head) for head in heads)

    def _compute(self, partition: Partition, globals: Globals) -> Share:
        did = partition.compute(globals.superstep, globals)
        dropped = self._dropped[partition.number]
        self._dropped[partition.number] = 0
        return Share(partition.number, did.active, did.computed, did.sent, dropped, did.changes, did.aggregates)

    def _post(self, head: Head) -> Exchanging[tuple[Head, ...]]:
        heads, self._inbox = yield from self._exchange(MAIL, head, lambda seat: self._outgoing(seat, _mail))
        return tuple(Head(h[0], tuple(Share(*share) for share in h[1]), *h[2:]) for h in heads)

    def _turn(self) -> None:
        for target, source, mail in self._inbox:
            self._by_number[target].deliver(source, mail)
        for partition in self._partitions:
            turned = partition.turn()
            self._fresh = self._fresh or turned.changed
            self._dropped[partition.number] += turned.dropped
        self._inbox = []

    def _agree(self, *, changed: bool) -> Exchanging[None]:
        self._fresh = False
        for partition in self._partitions:
            partition.renew(changed=changed)
        if not self._partitions or not self._partitions[0].agrees:
            return
        _, asked = yield from self._exchange(ASK, None, lambda seat: self._outgoing(seat, _requests))
        answers: dict[tuple[int, int], Sequence[Buffer]] = {}
        for target, source, request in asked:
            answers[target, source] = self._by_number[target].answers(source, request)
        _, answered = yield from self._exchange(
            ANSWER, None, lambda seat: self._outgoing(seat, lambda p, to: answers.get((p.number, to), ()))
        )
        for target, source, answer in answered:
            self._by_number[target].agreed(source, answer)

    # --- frames ---------------------------------------------------------------------------------------------------

    def _outgoing(self, seat: int, ask: Callable[[Partition, int], Sequence[Buffer]]) -> list[_Letter]:
        asked = ((p.number, to, ask(p, to)) for p in self._partitions for to in self._seats[seat])
        return [letter for letter in asked if letter[2]]

    def _exchange(
        self, kind: int, head: Hello | Head | int | None, outgoing: Callable[[int], Iterable[_Letter]]
    ) -> Exchanging[tuple[list[Any], list[Mail]]]:
        """Send every process a frame of this kind; all heads in order of seat, and the mail in order of source.

        Raises:
            PeerLost: a process says that it cannot go on.
            VertexError: a frame of another kind has come.
        """
        plain = _plain(head)
        packed = pickle.dumps(plain, 5)
        frames: Frames = []
        inbox: list[Mail] = []
        for seat in range(len(self._seats)):
            letters = outgoing(seat)
            if seat == self._seat:
                frames.append(())
                inbox += ((target, source, _joined(pieces)) for source, target, pieces in letters)
            else:
                frames.append(_frame(kind, packed, letters))
        came = yield frames
        heads: list[Any] = []
        for seat, frame in enumerate(came):
            if seat == self._seat:
                heads.append(plain)
                continue
            said, said_head, mails = _unpack(frame)
            if said == ERROR:
                raise PeerLost(seat, f"it cannot go on: {said_head}")
            if said != kind:
                raise VertexError(f"Process {seat} of the job is out of step: a frame of kind {said}, not {kind}.")
            heads.append(said_head)
            inbox += mails
        inbox.sort(key=_order)
        return heads, inbox


_Letter = tuple[int, int, Sequence[Buffer]]
"""Source partition, target partition, pieces."""


def _mail(partition: Partition, to: int) -> Sequence[Buffer]:
    return partition.mail(to)


def _requests(partition: Partition, to: int) -> Sequence[Buffer]:
    return partition.requests(to)


def _order(mail: Mail) -> tuple[int, int]:
    return mail[:2]


def _plain(head: Hello | Head | int | None) -> object:
    """As tuples: classes take longer to pickle than what they hold."""
    if isinstance(head, Head):
        return (head.superstep, tuple(map(tuple, head.shares)), *head[2:])
    return tuple(head) if isinstance(head, Hello) else head


def _joined(pieces: Sequence[Buffer]) -> memoryview:
    return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces)).cast("B")


def _frame(kind: int, head: bytes, letters: Iterable[_Letter]) -> list[Buffer]:
    table = bytearray()
    rest: list[Buffer] = []
    count = 0
    for source, target, pieces in letters:
        size = 0
        for piece in pieces:
            size += memoryview(piece).nbytes
            rest.append(piece)
        table += _ENTRY.pack(source, target, size)
        count += 1
    return [_PREFIX.pack(kind, count, len(head)) + head + table, *rest]


def _unpack(frame: memoryview) -> tuple[int, Any, list[Mail]]:
    """A frame's kind, head and mail."""
    kind, count, size = _PREFIX.unpack_from(frame)
    at = _PREFIX.size + size
    head = pickle.loads(frame[_PREFIX.size : at])  # noqa: S301  (of a member, in a worker)
    start = at + count * _ENTRY.size
    mails: list[Mail] = []
    for source, target, length in _ENTRY.iter_unpack(frame[at:start]):
        mails.append((target, source, frame[start : start + length]))
        start += length
    return kind, head, mails


_STATE: Final = struct.Struct("<Q")


def state_head(carried: Carried) -> bytes:
    """What every state blob begins with."""
    known = None if carried.globals is None else (*carried.globals[:5], dict(carried.globals.aggregates))
    packed = pickle.dumps((known, *carried[1:]), 5)
    return _STATE.pack(len(packed)) + packed


def split_state(state: memoryview) -> tuple[Carried, memoryview]:
    """What a state blob begins with, and the partition's snapshot."""
    (size,) = _STATE.unpack_from(state)
    end = _STATE.size + size
    known, *rest = pickle.loads(state[_STATE.size : end])  # noqa: S301  (of a member, in a worker)
    return Carried(None if known is None else Globals(*known), *rest), state[end:]
