"""What a map/reduce job file says, checked when it is loaded.

::

    map(key, value)          yields or returns (key, value) pairs; may return a dict, or None for nothing; without it,
                             records go to reduce as they are
    combine(key, values)     optional: returns one value for many of a key, or yields some, before they travel; may be
                             called any number of times, also on its own results, or not at all
    partition(key, n)        optional: which of n partitions, 0..n-1
    sort_key(key)            optional: what keys are ordered by
    sort_key(key, value)     optional: what the values of a key are ordered by
    reduce(key, values)      optional: returns the key's value (None: leave the key out), or yields (key, value) pairs;
                             `values` is an iterator
    finish(pairs)            optional: all pairs of the result in one place; returns or yields the pairs of another
    sets = ["a", "b"]        several outputs: map gives (set, key, value), and the functions above but finish get the
                             set first
    reader = "lines"         how inputs become records: a name of `READERS`, or a function reader(stream)
    writer = "text"          how results become bytes: a name of `WRITERS`, or a function writer(pairs, stream)
    encoding = "utf-8"       of the inputs; None: map gets bytes
    errors = "strict"        what undecodable bytes do: "strict" fails the job, "replace", "ignore", ...
    delimiter, header        of CSV: between fields; whether the first row names them
    datasource               optional, in place of files: keys, and their values by indexing (`p2premap.worker.sources`)
    element = "item"         of XML: the tag of a record; None: the children of the root
"""

from __future__ import annotations

import builtins
import codecs
import functools
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import msgspec

from p2premap.tasks.mapreduce_plan import READERS, WRITERS
from p2premap.worker.keying import Keying, keying_for
from p2premap.worker.pairs import JobCodeError, Key, Pair, Value


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """The functions and settings of a job file.

    Args:
        map_yields, combine_yields, reduce_yields: they are generator functions.
        shuffles: the pairs of `map` are brought together by key, whether there is a `reduce` or not.
        datasource: None: there is none.
        keying: how the job's keys differ from those of the shuffle; None: not at all.
    """

    map: Callable[[Key, Value], Any]
    map_yields: bool
    combine: Callable[[Key, Any], Any] | None
    combine_yields: bool = False
    reduce: Callable[..., Any] | None
    reduce_yields: bool
    partition: Callable[[Key, int], int] | None
    finish: Callable[[Any], Any] | None = None
    shuffles: bool = False
    keying: Keying | None = None
    reader: str | Callable[[Any], Any]
    writer: str | Callable[[Any, Any], Any] = "text"
    encoding: str | None
    errors: str
    delimiter: str = ","
    header: bool = True
    element: str | None = None
    datasource: Any = None


def job_file(module: ModuleType) -> JobFile:
    """Read a loaded job file.

    Raises:
        JobCodeError: one sentence: no `map`, something that is not a function, an unknown reader or encoding.
    """
    mapper, combine, partition = (_function(module, name) for name in ("map", "combine", "partition"))
    reduce, sort_key = _function(module, "reduce"), _function(module, "sort_key")
    if mapper is None:
        if reduce is None:
            raise JobCodeError("The job file has no function map: define map(key, value).")
        mapper = _as_it_is
    encoding, errors = getattr(module, "encoding", "utf-8"), getattr(module, "errors", "strict")
    keying = keying_for(_sets(module), sort_key, partition)
    if keying is not None:
        mapper = keying.mapped(mapper)
        combine = None if combine is None else keying.combined(combine)
        partition = keying.partition
    return JobFile(
        map=mapper,
        map_yields=inspect.isgeneratorfunction(mapper),
        combine=combine,
        combine_yields=combine is not None and inspect.isgeneratorfunction(combine),
        reduce=reduce,
        reduce_yields=reduce is not None and inspect.isgeneratorfunction(reduce),
        partition=partition,
        finish=_function(module, "finish"),
        shuffles=reduce is not None or partition is not None,
        keying=keying,
        reader=_way(module, "reader", "lines", READERS),
        writer=_way(module, "writer", "text", WRITERS),
        encoding=None if encoding is None else _codec(encoding, errors),
        errors=errors,
        delimiter=_setting(module, "delimiter", ",", str),
        header=_setting(module, "header", True, bool),
        element=_setting(module, "element", None, str),
        datasource=getattr(module, "datasource", None),
    )


def _as_it_is(key: Key, value: Value) -> tuple[Pair]:
    return ((key, value),)


def _function(module: ModuleType, name: str) -> Callable[..., Any] | None:
    function = getattr(module, name, None)
    if function is None or function is functools.reduce or function is getattr(builtins, name, None):
        return None
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise JobCodeError(f"{name} in the job file is not a plain function.")
    return function  # type: ignore[no-any-return]


def _way(module: ModuleType, name: str, usual: str, known: Sequence[str]) -> str | Callable[..., Any]:
    """How records are read or written: by name, or by a function."""
    way = getattr(module, name, usual)
    if isinstance(way, str) and way in known:
        return way
    if not callable(way) or inspect.iscoroutinefunction(way):
        raise JobCodeError(f"{name} is {way!r}; say one of {', '.join(known)}, or define a function {name}.")
    return way  # type: ignore[no-any-return]


def _setting(module: ModuleType, name: str, usual: Any, kind: type) -> Any:  # noqa: ANN401  (of that kind)
    value = getattr(module, name, usual)
    if value is not usual and not isinstance(value, kind):
        raise JobCodeError(f"{name} is {value!r}; it must be of type {kind.__name__}.")
    return value


def _sets(module: ModuleType) -> tuple[str, ...]:
    sets = getattr(module, "sets", ())
    if not isinstance(sets, (list, tuple)) or not all(isinstance(name, str) for name in sets):
        raise JobCodeError(f"sets is {sets!r}; it must be a list of names.")
    return tuple(sets)


def _codec(encoding: object, errors: object) -> str:
    try:
        assert isinstance(encoding, str)
        assert isinstance(errors, str)
        codecs.lookup_error(errors)
        name = codecs.lookup(encoding).name
        ends_lines = "a\n".encode(name) == b"a\n"
    except (AssertionError, LookupError):
        raise JobCodeError(f"There is no encoding {encoding!r} with errors {errors!r}.") from None
    if not ends_lines:
        raise JobCodeError(f"Files in {encoding} cannot be cut at line ends; say encoding = None and decode in map.")
    return name
