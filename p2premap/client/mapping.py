"""What `Cluster.map` gives: an iterator over results that arrive chunk by chunk, in any order.

Inputs that are few and at hand are handed in at once. Others (generators, endless ones too) are taken as there is
room: what has been taken and whose result nobody has taken yet is bounded, by time, bytes and number
(`p2premap.client.packs`). They are taken in the thread that takes the results, while it would have to wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import CancelledError
from contextlib import closing
from itertools import islice, repeat
from typing import Any, Final

from p2premap.client.pickles import exception, loads
from p2premap.errors import CallFailed
from p2premap.tasks.calls import RAISED, VALUES
from p2premap.tasks.calls_results import Done, unpack_chunk
from p2premap.worker.values import unpack_value, unpack_values
from p2premap.worker.waiting import waiting

AT_ONCE_MAX: Final = 1_000_000
"""So many inputs are handed in at once, where they can be counted."""
TAKE_S: Final = 0.01
"""Inputs that come slowly are handed in after this."""


class Feed:
    """The inputs of one `map`.

    Args:
        iterables: one for each argument.
        hand_in: takes inputs and the number of the first; returns how many may be on their way.

    Raises:
        Exception: what the iterables raise, where they are taken at once.
    """

    def __init__(self, iterables: tuple[Iterable[Any], ...], hand_in: Callable[[list[Any], int], int]) -> None:
        self._rows = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
        self._hand_in = hand_in
        self._room = 1
        self.taken = 0
        self.slow = False
        """They come slower than they are worked on."""
        self.over = False
        self.error: Exception | None = None
        """What ended them before their time."""
        sizes = [len(given) for given in iterables if isinstance(given, Sized)]
        if not iterables or (sizes and min(sizes) <= AT_ONCE_MAX):
            rows = list(self._rows)
            self.over = True
            if rows:
                hand_in(rows, 0)
            self.taken = len(rows)

    def fill(self, given: int) -> None:
        """Take inputs as long as there is room; so many results have been given away."""
        self.slow = False
        while not (self.over or self.slow) and self.taken - given <= self._room * 3 // 4:
            if rows := self._take(self._room - (self.taken - given)):
                self._room = self._hand_in(rows, self.taken)
                self.taken += len(rows)

    def _take(self, most: int) -> list[Any]:
        rows: list[Any] = []
        until, count = time.monotonic() + TAKE_S, 1
        try:
            while len(rows) < most and not self.over:
                before, some = len(rows), min(count, most - len(rows))
                rows.extend(islice(self._rows, some))
                self.over = len(rows) - before < some
                if time.monotonic() > until:
                    self.slow = len(rows) < most
                    break
                count *= 2
        except Exception as error:
            # its place is after the results of what came before it
            self.over, self.error = True, error
        return rows


class Results:
    """Collects the chunks of one `map`.

    Args:
        ordered: in the order of the inputs; else as they come.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._arrived = threading.Condition()
        self._chunks: dict[int, object] = {}
        self._order: deque[int] = deque()
        self._error: BaseException | None = None

    def take(self, first: int, answer: object) -> None:
        """A chunk that begins with this row: a `Done`, or the exception that stands in its place; -1: all is over."""
        with self._arrived:
            if first < 0:
                self._error = answer if isinstance(answer, BaseException) else None
            else:
                self._chunks[first] = answer
                if not self._ordered:
                    self._order.append(first)
            self._arrived.notify()

    def give_up(self) -> None:
        """Nobody wants any more: whoever waits in `chunks` does not go on waiting."""
        self.take(-1, CancelledError())

    def iterate(self, feed: Feed, until: float | None, give_up: Callable[[], None]) -> Iterator[Any]:
        """The results one by one; see `chunks`."""
        with closing(self.chunks(feed, until, give_up)) as chunks:
            for values in chunks:
                values.reverse()
                yield from map(list.pop, repeat(values, len(values)))  # what has been given away is not kept here

    def chunks(self, feed: Feed, until: float | None, give_up: Callable[[], None]) -> Generator[list[Any], None, None]:
        """The results, as many at a time as came together.

        Args:
            until: by the monotonic clock; None waits for ever.
            give_up: called when nobody wants any more before all have come.

        Raises:
            TimeoutError: `until` has come.
            BaseException: what a call raised, or an iterable, in its place.
        """
        given = 0
        try:
            while True:
                if not (feed.over or (feed.slow and self._ready(given))):
                    feed.fill(given)
                if given == feed.taken and feed.over:
                    break
                values, error = self._open(self._next(given if self._ordered else None, until))
                given += len(values)
                if values:
                    yield values
                if error is not None:
                    raise error
        finally:
            if not (feed.over and given == feed.taken):
                give_up()
        if feed.error is not None:
            raise feed.error

    def _ready(self, given: int) -> bool:
        return given in self._chunks if self._ordered else bool(self._order)

    def _next(self, wanted: int | None, until: float | None) -> object:
        with self._arrived:
            while True:
                if wanted is None and self._order:
                    return self._chunks.pop(self._order.popleft())
                if wanted is not None and wanted in self._chunks:
                    return self._chunks.pop(wanted)
                if self._error is not None:
                    return self._error
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                with waiting():
                    self._arrived.wait(left)

    def _open(self, answer: object) -> tuple[list[Any], BaseException | None]:
        if not isinstance(answer, Done):
            return [], answer if isinstance(answer, BaseException) else CallFailed("A result is missing.")
        if answer.flags & VALUES:  # only those of chunks in which nothing raised
            return unpack_value(unpack_values(answer.data)[0][0]), None
        results, error = unpack_chunk(answer.data)
        return loads(results), exception(error) if answer.flags & RAISED else None
