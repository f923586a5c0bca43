"""Which calls go into which pack, and how many packs are under way: what a client decides, without any I/O.

Nobody knows how long a function takes before it has run. So the first calls of a function go alone, one a pack, and no
more of them than the cluster has places for; what they took decides how many of the next go together. A pack holds
about `PACK_S` of work, grows at most eightfold at a time, and takes at most half of an even share of what waits
(guided self-scheduling, as in `p2premap.tasks.batches`). Whatever is not under way waits here, where it can still be
cancelled for certain.

A pack that ended without an answer, as its worker process died, is taken apart: its calls go again, each alone, so
that only the guilty one fails.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from p2premap.ids import NodeId
from p2premap.tasks.calls import INLINE_BYTES_MAX
from p2premap.tasks.calls_refs import BlobAt, Ref

PACK_S: Final = 0.01
CALL_S_MIN: Final = 3e-7
"""What any call costs, with its share of everything around it."""
SHARE_S_MIN: Final = 0.001
"""No pack is made smaller than this for the sake of an even end."""
GROWTH: Final = 8
MEMORY: Final = 0.6
CALLS_MAX: Final = 1_024
ROWS_MAX: Final = 32_768
PACK_BYTES: Final = INLINE_BYTES_MAX * 3 // 4
"""What a pack's arguments or results should need at most, by what was seen so far."""
AHEAD_S: Final = 0.25
"""So much work for each slot is under way at least, as long as there is work."""
AHEAD_PACKS: Final = 4
UNDER_WAY_MAX: Final = 20_000
AHEAD_ROWS_S: Final = 2.0
"""So much work for each slot is taken from the inputs of a `map` before its results are."""
AHEAD_ROWS_BYTES: Final = 64 << 20
AHEAD_ROWS_MAX: Final = 250_000


class Call:
    """One call that waits or is under way.

    Args:
        data: the pickled arguments; where they are large, the blob.
        alone: it shares a pack with no other.
        things: what the arguments refer to: `Shared` values and futures.
        refs: the same as a pack says it, once that is known.
        node: that alone may run it; None: any.
        early: it refers to calls that are under way, and waits for them where the job is led.

    Attributes:
        pack, position: where it is, or was.
        followers: calls that can go once this one is under way.
    """

    __slots__ = (
        "alone",
        "blob",
        "data",
        "early",
        "followers",
        "function",
        "future",
        "node",
        "pack",
        "position",
        "refs",
        "things",
    )

    def __init__(self, function: int, data: bytes, future: Future[Any], blob: BlobAt | None = None) -> None:
        self.function = function
        self.data = data
        self.future = future
        self.blob = blob
        self.alone = blob is not None
        self.things: Sequence[object] = ()
        self.refs: Sequence[Ref] = ()
        self.node: NodeId | None = None
        self.pack: Pack | None = None
        self.position = 0
        self.early = False
        self.followers: list[Call] | None = None

    def follow(self, other: Call) -> None:
        """Go once that one is under way."""
        if other.followers is None:
            other.followers = []
        other.followers.append(self)

    def answered(self) -> None:
        """Nothing of what it refers to is needed any more: a chain shall not keep every link."""
        self.things = self.refs = ()


class Mapped:
    """Calls of one `map`, or a part of them.

    Args:
        rows: what each call is given.
        star: a row is a tuple of arguments.
        chunk: rows in a pack; 0: as many as are quick.
        sink: told of (first row, what it gave); (-1, why) if nothing more comes. See `p2premap.client.mapping`.
        first: the number of the first row among all of the `map`.
    """

    def __init__(
        self,
        function: int,
        rows: list[Any],
        *,
        star: bool,
        chunk: int,
        sink: Callable[[int, object], None],
        first: int = 0,
    ) -> None:
        self.function = function
        self.rows = rows
        self.star = star
        self.chunk = chunk
        self.dropped = False
        self.answered = 0
        self._sink = sink
        self._first = first
        self.waiting: deque[tuple[int, int]] = deque([(0, len(rows))] if rows else [])

    @property
    def left(self) -> int:
        """Rows that wait."""
        return sum(stop - start for start, stop in self.waiting)

    @property
    def over(self) -> bool:
        """Every row has its answer."""
        return self.answered >= len(self.rows)

    def tell(self, row: int, answer: object) -> None:
        """What the calls from this row on gave; -1: all of them."""
        self._sink(row if row < 0 else self._first + row, answer)

    def take(self, count: int) -> tuple[int, int]:
        """Up to so many rows that wait, side by side."""
        start, stop = self.waiting.popleft()
        if stop - start > count:
            self.waiting.appendleft((start + count, stop))
            stop = start + count
        return start, stop


@dataclass(slots=True, eq=False)
class Pack:
    """Calls on their way.

    Args:
        number: its task's; -1 until it has one.
        calls: those of `submit`; empty for a chunk.
        mapped, start, stop: of a chunk.
        seconds: how long it should take.
        blob_data: what its blob holds, for the next node if this one dies.
        early: as of its call.
    """

    function: int
    calls: list[Call] = field(default_factory=list)
    mapped: Mapped | None = None
    start: int = 0
    stop: int = 0
    seconds: float = 0.0
    number: int = -1
    body: bytes = b""
    blob_data: bytes = b""
    over: bool = False
    cancelled: bool = False
    early: bool = False


@dataclass(slots=True)
class _Pace:
    """What is known of a function's calls."""

    mean_s: float = 0.0
    answer_bytes: float = 0.0
    row_bytes: float = 0.0
    together: int = 1

    def room(self, slots: int, chunk: int) -> int:
        """How many rows of a `map` may be on their way, from its inputs to whoever takes its results."""
        least = AHEAD_PACKS * slots * max(chunk, 1)
        if not self.mean_s:
            return least
        size = max(self.row_bytes, self.answer_bytes, 1.0)
        return int(max(least, min(AHEAD_ROWS_S * slots / self.mean_s, AHEAD_ROWS_BYTES / size, AHEAD_ROWS_MAX)))

    def guess(self, calls: int) -> float:
        """How long so many calls should take; as long as packs still grow, each counts as a long one."""
        growing = not self.mean_s or calls == self.together < min(PACK_S / self.mean_s, CALLS_MAX)
        return AHEAD_S if growing else calls * self.mean_s

    def learn(self, calls: int, seconds: float, size: int) -> None:
        mean, each = max(seconds / calls, CALL_S_MIN), size / calls
        self.answer_bytes = max(each, self.answer_bytes * MEMORY + (1 - MEMORY) * each)
        self.mean_s = mean if not self.mean_s else MEMORY * self.mean_s + (1 - MEMORY) * mean
        self.together = max(self.together, calls * GROWTH)

    def count(self, waiting: int, slots: int, limit: int) -> int:
        """How many calls go into the next pack."""
        if not self.mean_s:
            return 1
        even = max(waiting / (2 * slots), SHARE_S_MIN / self.mean_s)
        count = min(PACK_S / self.mean_s, even, self.together, limit)
        for size in (self.answer_bytes, self.row_bytes):
            if size:
                count = min(count, PACK_BYTES / size)
        return max(1, int(count))


class Counts(NamedTuple):
    """The calls of one job. Those of an earlier job of the same program are not among them."""

    waiting: int
    under_way: int
    answered: int


class Packer:
    """See the module. Whoever uses it holds a lock.

    Args:
        slots: worker processes of the cluster.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.under_way: dict[int, Pack] = {}
        self.early = 0
        """Calls that wait for others where the job is led, or are about to."""
        self._early_packs = 0
        self._seconds = 0.0
        self._answered = 0
        self._lines: OrderedDict[object, deque[Call] | Mapped] = OrderedDict()
        self._paces: dict[int, _Pace] = {}
        self._again: deque[Call] = deque()

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not (self._lines or self.under_way or self._again)

    @property
    def open(self) -> bool:
        """Whether a pack should be made now."""
        if not (self._lines or self._again):
            return False
        many = len(self.under_way) - self._early_packs
        return many < AHEAD_PACKS * self.slots or (many < UNDER_WAY_MAX and self._seconds < AHEAD_S * self.slots)

    def add(self, call: Call) -> None:
        """A call that waits from now on."""
        line = self._lines.get(call.function)
        if line is None:
            self._lines[call.function] = deque([call])
            return
        assert isinstance(line, deque)
        line.append(call)

    def add_map(self, mapped: Mapped) -> None:
        """Calls that wait from now on."""
        if mapped.waiting:
            self._lines[mapped] = mapped

    def drop_map(self, mapped: Mapped) -> list[Pack]:
        """Nobody wants the rest: what is under way of it."""
        mapped.dropped = True
        mapped.waiting.clear()
        self._lines.pop(mapped, None)
        return [pack for pack in self.under_way.values() if pack.mapped is mapped]

    def room(self, mapped: Mapped) -> int:
        """How many rows of a `map` like this may be on their way."""
        return self._pace(mapped.function).room(self.slots, mapped.chunk)

    def count(self) -> Counts:
        """How many calls wait, are under way, and have their answers."""
        waiting = len(self._again) + sum(
            line.left if isinstance(line, Mapped) else len(line) for line in self._lines.values()
        )
        under_way = sum(pack.stop - pack.start if pack.mapped else len(pack.calls) for pack in self.under_way.values())
        return Counts(waiting, under_way, self._answered)

    def waiting(self) -> list[Call]:
        """Every call of `submit` that is not under way."""
        lines = [call for line in self._lines.values() if isinstance(line, deque) for call in line]
        return [*self._again, *lines]

    def maps(self) -> list[Mapped]:
        """Every `map` that has not got all it waits for."""
        waiting = [line for line in self._lines.values() if isinstance(line, Mapped)]
        return list(dict.fromkeys([*waiting, *(p.mapped for p in self.under_way.values() if p.mapped is not None)]))

    def next(self) -> Pack | None:
        """The next pack, not numbered yet; None if nothing waits."""
        while self._again:
            call = self._again.popleft()
            if not call.future.cancelled():
                return Pack(call.function, [call], seconds=self._pace(call.function).guess(1))
            self.leave(call)
        while self._lines:
            key, line = self._lines.popitem(last=False)
            pack = self._of_map(line) if isinstance(line, Mapped) else self._of_calls(line)
            if line.waiting if isinstance(line, Mapped) else line:
                self._lines[key] = line  # the others come first
            if pack is not None:
                return pack
        return None

    def _of_calls(self, line: deque[Call]) -> Pack | None:
        pace = self._pace(line[0].function)
        count, size = pace.count(len(line), self.slots, CALLS_MAX), 0
        calls: list[Call] = []
        while line and len(calls) < count and size < INLINE_BYTES_MAX:
            call = line[0]
            if call.alone and calls:
                break
            line.popleft()
            if call.future.cancelled():
                self.leave(call)
                continue
            calls.append(call)
            size += len(call.data)
            if call.alone or size > INLINE_BYTES_MAX:
                if size > INLINE_BYTES_MAX and len(calls) > 1:
                    line.appendleft(calls.pop())
                break
        if not calls:
            return None
        if calls[0].early:
            return Pack(calls[0].function, calls, early=True)
        return Pack(calls[0].function, calls, seconds=pace.guess(len(calls)))

    def _of_map(self, mapped: Mapped) -> Pack:
        pace = self._pace(mapped.function)
        start, stop = mapped.take(mapped.chunk or pace.count(mapped.left, self.slots, ROWS_MAX))
        return Pack(mapped.function, mapped=mapped, start=start, stop=stop, seconds=pace.guess(stop - start))

    def sent(self, pack: Pack, number: int) -> None:
        """The pack is under way."""
        pack.number = number
        self.under_way[number] = pack
        self._seconds += pack.seconds
        self._early_packs += pack.early
        for position, call in enumerate(pack.calls):
            call.pack, call.position = pack, position

    def leave(self, call: Call) -> None:
        """The call does not wait for others any more."""
        self.early -= call.early
        call.early = False

    def row_size(self, pack: Pack, size: int) -> None:
        """So long are the arguments of a chunk."""
        self._pace(pack.function).row_bytes = size / (pack.stop - pack.start)

    def ended(self, number: int) -> Pack | None:
        """The pack is over; None if it was before."""
        pack = self.under_way.pop(number, None)
        if pack is not None:
            pack.over = True
            if pack.early:
                self._early_packs -= 1
                self.leave(pack.calls[0])
            self._seconds = max(0.0, self._seconds - pack.seconds) if self.under_way else 0.0
        return pack

    def learn(self, pack: Pack, calls: int, seconds: float, size: int) -> None:
        """So many of its calls took so long, and gave so many bytes."""
        self._answered += calls
        if calls:
            self._pace(pack.function).learn(calls, seconds, size)

    def rest(self, pack: Pack, done: int) -> None:
        """What was left undone of a pack waits again, ahead of what came later."""
        if pack.mapped is not None:
            if pack.start + done < pack.stop and not pack.mapped.dropped:
                pack.mapped.waiting.appendleft((pack.start + done, pack.stop))
                self._lines[pack.mapped] = pack.mapped
        elif pack.calls[done:]:
            line = self._lines.setdefault(pack.function, deque())
            assert isinstance(line, deque)
            line.extendleft(reversed(pack.calls[done:]))

    def apart(self, pack: Pack) -> None:
        """The pack ended without an answer: its calls go again, each alone."""
        if pack.mapped is not None and not pack.mapped.dropped:
            middle = [(row, row + 1) for row in range(pack.start, pack.stop)]
            pack.mapped.waiting.extendleft(reversed(middle))
            self._lines[pack.mapped] = pack.mapped
        for call in pack.calls:
            call.alone = True
        self._again.extend(pack.calls)

    def _pace(self, function: int) -> _Pace:
        pace = self._paces.get(function)
        if pace is None:
            pace = self._paces[function] = _Pace()
        return pace


def calls_of(packs: Iterable[Pack]) -> list[Call]:
    """The calls of `submit` in these packs."""
    return [call for pack in packs for call in pack.calls]
