"""A job file's `datasource`: keys that one task lists, and values that each map task looks up for itself.

::

    a dict, or anything with keys and []    map(key, datasource[key])
    a list, a range, anything with a length and []
                                            map(index, datasource[index])
    anything else that can be iterated      map(number, item): the items travel
    a function without arguments            what it returns; called once in each process that needs it

Only the keys travel where there is indexing, so that values may be large, or made on the spot.

The keys of an endless one are not listed: each process that maps some counts them off for itself (`Source.numbered`),
so they must be the same, in the same order, in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from p2premap.tasks.mapreduce_plan import pack_segments
from p2premap.worker.blocks import Columns, shorten
from p2premap.worker.merge import Run
from p2premap.worker.pairs import JobCodeError, Key, Pair
from p2premap.worker.readers import Records
from p2premap.worker.runtime import Context, Result, Segment
from p2premap.worker.shuffle import RunWriter

KEYS_MAX: Final = 10_000_000

_BLOCK_BYTES: Final = 64 << 10
_LOOKED_UP_AT_ONCE: Final = 16


class Source:
    """The datasource of a job, once in each process.

    Args:
        given: what the job file says.
        again: makes the same anew, for what can be iterated only once.
    """

    def __init__(self, given: Any, again: Callable[[], Any] | None = None) -> None:  # noqa: ANN401  (can be iterated)
        self._given, self._again = given, again
        self._of = given() if callable(given) and not hasattr(given, "__getitem__") else given
        indexed = hasattr(self._of, "__getitem__")
        self._by_place = indexed and not hasattr(self._of, "keys") and hasattr(self._of, "__len__")
        if isinstance(self._of, Iterator) or not (indexed or isinstance(self._of, Iterable)):
            indexed = False
        self._indexed = indexed
        self._rest: Iterator[Pair] | None = None
        self._next = 0

    def write_keys(self, tasks: int, context: Context) -> Result:
        """List the keys, as a blob with a segment for each of about so many map tasks.

        Raises:
            JobCodeError: it cannot be iterated, is endless, or empty.
        """
        pairs = self._pairs()
        a_task = max(-(-len(pairs) // tasks), 1)
        blob = context.new_blob()
        writer = RunWriter(blob.write, compression="none", block_bytes=_BLOCK_BYTES)
        segments = []
        for start in range(0, len(pairs), a_task):
            some = pairs[start : start + a_task]
            writer.add(Columns([key for key, _ in some], [value for _, value in some], False))
            segments.append(writer.end_segment())
        context.count(records_out=len(pairs))
        return Result(value=pack_segments(segments), blobs=(blob.finish(),))

    def records(self, segment: Segment) -> Iterator[Records]:
        """The records of a map task.

        Raises:
            JobCodeError: there is no value for a key.
            InputLost: the keys are not what they were announced to be.
        """
        run = Run(segment)
        while run.more:
            run.fill()
            for keys, values, _ in run.take_all():
                if not self._indexed:
                    yield Records(lambda keys=keys: iter(keys), values)  # type: ignore[misc]
                    continue
                for start in range(0, len(keys), _LOOKED_UP_AT_ONCE):
                    some = keys[start : start + _LOOKED_UP_AT_ONCE]
                    yield Records(lambda some=some: iter(some), self._values(some))  # type: ignore[misc]

    def numbered(self, first: int, count: int) -> Iterator[Records]:
        """The records of a map task that is given numbers of keys; fewer where the datasource has ended.

        Raises:
            JobCodeError: it cannot be iterated, or there is no value for a key.
        """
        pairs = self._from(first)
        while count and (some := list(itertools.islice(pairs, min(count, _LOOKED_UP_AT_ONCE)))):
            self._next += len(some)
            count -= len(some)
            keys = [key for key, _ in some]
            values = self._values(keys) if self._indexed else [value for _, value in some]
            yield Records(lambda keys=keys: iter(keys), values)  # type: ignore[misc]

    def _from(self, first: int) -> Iterator[Pair]:
        """The pairs from this number on."""
        if self._rest is None or first < self._next:
            if self._rest is not None and isinstance(self._of, Iterator):
                # what was passed over is gone: another attempt of an earlier task, which is rare
                fresh = Source(self._again() if self._again is not None else self._given)
                self._given, self._of = fresh._given, fresh._of
            self._rest, self._next = self._iterated(), 0
        for _ in itertools.islice(self._rest, first - self._next):
            self._next += 1
        return self._rest

    def _iterated(self) -> Iterator[Pair]:
        try:
            if self._by_place:
                return zip(range(len(self._of)), itertools.repeat(None))
            if self._indexed:
                return zip(iter(self._of), itertools.repeat(None))
            return enumerate(self._of)
        except TypeError as error:
            raise JobCodeError(f"datasource must be something that can be iterated: {error}.") from None

    def _values(self, keys: Sequence[Key]) -> list[Any]:
        values: list[Any] = []
        try:
            for key in keys:
                values.append(self._of[key])
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise JobCodeError(f"datasource has no value for its key {shorten(keys[len(values)])}: {said}.") from error
        return values

    def _pairs(self) -> list[Pair]:
        pairs = list(itertools.islice(self._iterated(), KEYS_MAX + 1))
        if len(pairs) > KEYS_MAX:
            raise JobCodeError(
                f"datasource has more than {KEYS_MAX} keys; say endless = True, or have more in each value."
            )
        if not pairs:
            raise JobCodeError("datasource is empty.")
        return pairs
