"""Pairs held in memory by key: lists of values, or sums where the job only adds up.

Pouring pairs into a dict of lists and calling `combine` for whole lists is the cheapest way that Python offers for an
unknown `combine`. But lists cost memory and cache misses for each pair, and most combiners in the world are
``return sum(values)``. That one is recognised by its bytecode, and done pair by pair with ``+=``: what `combine` may
be called for, "any number of times, also on its own results", allows exactly this.
"""

from __future__ import annotations

import builtins
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import chain, compress, islice
from operator import add, length_hint
from types import FunctionType
from typing import Any, Final, Protocol

from p2premap.worker.blocks import Columns, shorten
from p2premap.worker.pairs import Key, Pair, Value

CHUNK_PAIRS: Final = 250_000
_ENTRY_BYTES: Final = 150
"""A dict entry, its share of the table, and a small object."""
_LIST_BYTES: Final = 90
_SAMPLE: Final = 50
_NUMBERS: Final = frozenset((int, float))

_CALL_FLAGS: Final = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
_END: Final = object()

Combine = Callable[[Key, Iterator[Value]], Any]


class Grouping(Protocol):
    """Pairs by key. Keys are in order of first appearance."""

    @property
    def groups(self) -> MutableMapping[Key, Any]:
        """What is held of each key; never None."""

    def add(self, pairs: Iterator[Pair], most: int = CHUNK_PAIRS) -> Iterator[Pair] | None:
        """Take some pairs, `most` at most; the rest, or None when all are taken.

        Raises:
            TypeError, ValueError: something that is not a pair, or a key that is not hashable (raised in this frame;
                what the iterator raises comes from deeper).
        """

    def add_mapping(self, mapping: Mapping[Key, Value]) -> None:
        """Take the items of a mapping, all of them."""

    def bytes_held(self) -> int:
        """About how many; costs a millisecond for some ten thousand keys."""

    def shrink(self) -> None:
        """Combine what can be combined."""

    def columns(self, keys: Sequence[Key], held: list[Any]) -> Columns:
        """These keys, combined.

        Args:
            held: what was held of each, taken out of `groups`.
        """


def grouping_for(combine: Combine | None, *, yields: bool = False) -> Grouping:
    """What holds the pairs of a job with this combiner best.

    Args:
        yields: the combiner yields values, any number of them.
    """
    return Sums() if combine is not None and adds_up(combine) else Lists(combine, yields=yields)


class Sums:
    """For a combiner that adds up."""

    def __init__(self) -> None:
        self.groups: defaultdict[Key, Any] = defaultdict(int)

    def add(self, pairs: Iterator[Pair], most: int = CHUNK_PAIRS) -> Iterator[Pair] | None:
        """See `Grouping`."""
        groups = self.groups
        for key, value in islice(pairs, most):
            groups[key] += value
        return _rest(pairs)

    def add_mapping(self, mapping: Mapping[Key, Value]) -> None:
        """See `Grouping`. A block's counts are merged in C."""
        groups = self.groups
        if not groups and set(map(type, mapping.values())) <= _NUMBERS:
            groups.update(mapping)
        else:
            groups.update(zip(mapping, map(add, map(groups.__getitem__, mapping), mapping.values()), strict=True))

    def bytes_held(self) -> int:
        """See `Grouping`."""
        return len(self.groups) * (_ENTRY_BYTES + _mean_size(islice(self.groups, _SAMPLE)))

    def shrink(self) -> None:
        """Nothing is left to combine."""

    def columns(self, keys: Sequence[Key], held: list[Any]) -> Columns:
        """See `Grouping`."""
        return Columns(keys, held, False)


class Lists:
    """For any combiner, or none."""

    def __init__(self, combine: Combine | None, *, yields: bool = False) -> None:
        self._combine = combine
        self._yields = yields
        self.groups: defaultdict[Key, list[Value]] = defaultdict(list)

    def add(self, pairs: Iterator[Pair], most: int = CHUNK_PAIRS) -> Iterator[Pair] | None:
        """See `Grouping`."""
        groups = self.groups
        for key, value in islice(pairs, most):
            groups[key].append(value)
        return _rest(pairs)

    def add_mapping(self, mapping: Mapping[Key, Value]) -> None:
        """See `Grouping`."""
        groups = self.groups
        for key, value in mapping.items():
            groups[key].append(value)

    def bytes_held(self) -> int:
        """See `Grouping`."""
        groups = self.groups
        keys = list(islice(groups, _SAMPLE))
        a_value = 8 + _mean_size(value for key in keys for value in groups[key][-1:])
        return sum(map(len, groups.values())) * a_value + len(groups) * (_ENTRY_BYTES + _LIST_BYTES + _mean_size(keys))

    def shrink(self) -> None:
        """Combine each list to one value, or what the combiner yields."""
        if self._combine is not None:
            keys = list(self.groups)
            made = combined(self._combine, keys, self.groups.values(), yields=self._yields)
            self.groups.update(zip(keys, made if self._yields else ([value] for value in made), strict=True))

    def columns(self, keys: Sequence[Key], held: list[Any]) -> Columns:
        """See `Grouping`."""
        here, lists = list(compress(keys, held)), list(filter(None, held))  # some have been combined to nothing
        if self._combine is None:
            return Columns(here, lists, True)
        made = combined(self._combine, here, lists, yields=self._yields)
        return (
            Columns(list(compress(here, made)), list(filter(None, made)), True)
            if self._yields
            else Columns(here, made, False)
        )


def combined(
    combine: Combine, keys: Sequence[Key], groups: Iterable[Iterable[Value]], *, yields: bool = False
) -> list[Value]:
    """One value a key; of a combiner that yields, a list of values.

    Raises:
        Exception: what user code raises, with a note that names the key.
    """
    names = iter(keys)
    try:
        if yields:
            return [list(combine(key, iter(values))) for key, values in zip(names, groups, strict=True)]
        return [
            values[0] if type(values) is list and len(values) == 1 else combine(key, iter(values))
            for key, values in zip(names, groups, strict=True)
        ]
    except Exception as error:
        error.add_note(f"combine was given the key {shorten(keys[len(keys) - length_hint(names) - 1])}.")
        raise


def _rest(pairs: Iterator[Pair]) -> Iterator[Pair] | None:
    following = next(pairs, _END)
    return None if following is _END else chain((following,), pairs)  # type: ignore[arg-type]


def _mean_size(things: Iterable[object]) -> int:
    """The mean size of an object in bytes, where the same one (a small integer, a constant) counts once."""
    sample = list(things)
    distinct = {id(thing): thing for thing in sample}
    return sum(map(sys.getsizeof, distinct.values())) // len(sample) if sample else 0


def _sum(key: Key, values: Iterator[Value]) -> Value:
    return sum(values)


def adds_up(combine: object) -> bool:
    """Whether a function provably does nothing but ``return sum(values)``, with the built-in `sum`."""
    if not isinstance(combine, FunctionType):
        return False
    code, template = combine.__code__, _sum.__code__
    return (
        (code.co_code, code.co_names, code.co_argcount) == (template.co_code, template.co_names, template.co_argcount)
        and not (code.co_flags ^ template.co_flags) & _CALL_FLAGS
        and "sum" not in combine.__globals__
        and vars(builtins).get("sum") is sum
    )
