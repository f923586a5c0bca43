"""What `Cluster.map` gives: an iterator over results that arrive chunk by chunk, in any order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

from p2premap.client.pickles import exception, loads
from p2premap.errors import CallFailed
from p2premap.tasks.calls import RAISED, Done, unpack_chunk
from p2premap.worker.waiting import waiting


class Results:
    """Collects the chunks of one `map`.

    Args:
        total: how many results there will be.
        ordered: in the order of the inputs; else as they come.
    """

    def __init__(self, total: int, *, ordered: bool) -> None:
        self._total = total
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
                self._order.append(first)
            self._arrived.notify()

    def iterate(self, until: float | None, give_up: Callable[[], None]) -> Iterator[Any]:
        """The results.

        Args:
            until: by the monotonic clock; None waits for ever.
            give_up: called when nobody wants any more before all have come.

        Raises:
            TimeoutError: `until` has come.
            BaseException: what a call raised, in its place.
        """
        given = 0
        try:
            while given < self._total:
                values, error = self._open(self._next(given if self._ordered else None, until))
                given += len(values)
                values.reverse()
                yield from map(list.pop, repeat(values, len(values)))  # what has been given away is not kept here
                if error is not None:
                    raise error
        finally:
            if given < self._total:
                give_up()

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
        results, error = unpack_chunk(answer.data)
        return loads(results), exception(error) if answer.flags & RAISED else None
