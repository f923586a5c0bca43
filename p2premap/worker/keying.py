"""Jobs whose keys are not those of the shuffle: several sets of pairs, and orders of their own.

The shuffle knows one thing: pairs, sorted and grouped by key. What a job asks for beyond that is put into the key and
taken out again before user code sees it::

    sets                  (number of the set, key)
    sort_key(key)         (what the key is ordered by, key)
    sort_key(key, value)  (key, what the value is ordered by): one group of the job is then several of the shuffle,
                          side by side (the *secondary sort* of Dean and Ghemawat's users; Hadoop's grouping comparator)
    sets and an order     (number of the set, ..., ...)

A job that asks for nothing of this has no `Keying`, and pays nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Final

from p2premap.worker.blocks import shorten
from p2premap.worker.grouping import adds_up
from p2premap.worker.pairs import JobCodeError, Key, Pair, Value
from p2premap.worker.partition import partitions_of

_first: Final = itemgetter(0)


def keying_for(
    sets: Sequence[str], sort_key: Callable[..., Any] | None, partition: Callable[..., int] | None
) -> Keying | None:
    """What a job with these needs; None: nothing."""
    return Keying(sets, sort_key, partition) if sets or sort_key is not None else None


class Keying:
    """Between a job's keys and the shuffle's, here called *marks*.

    Args:
        sets: names of the sets; empty: the job has no sets.
        sort_key, partition: as in the job file.
    """

    def __init__(
        self, sets: Sequence[str], sort_key: Callable[..., Any] | None, partition: Callable[..., int] | None
    ) -> None:
        self._sets = tuple(sets)
        self._numbers = {name: number for number, name in enumerate(sets)}
        self._sort_key = sort_key
        self._partition = partition
        self._by_value = sort_key is not None and _takes(sort_key, 2 + bool(sets))
        at = int(bool(sets)) + int(sort_key is not None and not self._by_value)
        self._key_of: Callable[[Any], Any] = itemgetter(at)
        # Marks that make one group of the job: without what values are ordered by.
        self._group_of: Callable[[Any], Any] = itemgetter(slice(at + 1))

    def mapped(self, map: Callable[[Key, Value], Any]) -> Callable[[Key, Value], Iterator[Pair]]:
        """A job's `map`, giving marks in place of keys.

        Raises (the function):
            JobCodeError: with sets: what `map` gave is no triple, or there is no such set.
        """

        def marked(key: Key, value: Value) -> Iterator[Pair]:
            given = map(key, value)
            if self._sets:
                for triple in given if given is not None else ():
                    yield self._of_triple(triple)
            else:
                for name, thing in given.items() if isinstance(given, dict) else given if given is not None else ():
                    yield self._mark((), name, thing), thing

        return marked

    def combined(self, combine: Callable[..., Any]) -> Callable[[Key, Iterator[Value]], Any]:
        """A job's `combine`, given marks."""
        if not self._sets and adds_up(combine):
            return combine
        if inspect.isgeneratorfunction(combine):

            def several(mark: Key, values: Iterator[Value]) -> Iterator[Value]:
                yield from combine(*self.arguments(mark), values)

            return several
        return lambda mark, values: combine(*self.arguments(mark), values)

    def partition(self, mark: Key, n: int) -> int:
        """The partition of a mark: those of a set lie side by side.

        Raises:
            JobCodeError: see `p2premap.worker.partition.partitions_of`.
        """
        key, own = self._key_of(mark), self._partition
        if not self._sets:
            return partitions_of([key], n, own)[0]
        number, each = mark[0], n // len(self._sets)
        chosen = None if own is None else lambda key, n: own(self._sets[number], key, n)
        return int(number * each + partitions_of([key], each, chosen)[0])

    def arguments(self, mark: Key) -> tuple[Any, ...]:
        """What user code is given in place of a mark: the key, or the set and the key."""
        key = self._key_of(mark)
        return (self._sets[mark[0]], key) if self._sets else (key,)

    def groups(
        self, entries: Iterable[tuple[Key, Iterable[Value]]]
    ) -> Iterator[tuple[tuple[Any, ...], Iterator[Value]]]:
        """The groups of the job, from those of the shuffle; each to be used before the next is asked for."""
        for _, some in groupby(entries, lambda entry: self._group_of(entry[0])):
            mark, values = next(some)
            yield self.arguments(mark), chain(values, chain.from_iterable(more for _, more in some))  # noqa: B031

    def _of_triple(self, triple: object) -> Pair:
        if not isinstance(triple, (tuple, list)) or len(triple) != 3:
            raise JobCodeError(f"map must give (set, key, value) in a job with sets, and gave {shorten(triple)}.")
        name, key, value = triple
        if name not in self._numbers:
            raise JobCodeError(f"map gave the set {shorten(name)}; the job file has {', '.join(self._sets)}.")
        return self._mark((self._numbers[name],), key, value), value

    def _mark(self, number: tuple[int, ...], key: Key, value: Value) -> tuple[Any, ...]:
        if self._sort_key is None:
            return (*number, key)
        named = tuple(self._sets[n] for n in number)
        if self._by_value:
            return (*number, key, self._sort_key(*named, key, value))
        return (*number, self._sort_key(*named, key), key)


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # of a built-in that does not tell: str, len, ... take one
        return False
    return True
