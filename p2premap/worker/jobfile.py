"""What a map/reduce job file says, checked when it is loaded.

::

    map(key, value)          yields or returns (key, value) pairs; may return a dict, or None for nothing
    combine(key, values)     optional: one value for many of a key, before they travel; may be called any number of
                             times, also on its own results, or not at all
    reduce(key, values)      optional: returns the key's value (None: leave the key out), or yields (key, value) pairs;
                             `values` is an iterator
    partition(key, n)        optional: which of n partitions, 0..n-1
    reader = "lines"         map gets one line at a time, without its line end; key is (file name, byte offset)
    reader = "blocks"        map gets whole blocks of complete lines; key is (file name, byte offset)
    encoding = "utf-8"       of the inputs; None: map gets bytes
    errors = "strict"        what undecodable bytes do: "strict" fails the job, "replace", "ignore", ...
"""

from __future__ import annotations

import builtins
import codecs
import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from p2premap.errors import P2PRemapError

Key = Any
Value = Any
Pair = tuple[Key, Value]


class JobCodeError(P2PRemapError):
    """User code did what a job file must not do. Definite: the same attempt elsewhere would end the same."""


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """The functions and settings of a job file.

    Args:
        map_yields, reduce_yields: they are generator functions.
    """

    map: Callable[[Key, Value], Any]
    map_yields: bool
    combine: Callable[[Key, Any], Value] | None
    reduce: Callable[[Key, Any], Any] | None
    reduce_yields: bool
    partition: Callable[[Key, int], int] | None
    reader: str
    encoding: str | None
    errors: str


def job_file(module: ModuleType) -> JobFile:
    """Read a loaded job file.

    Raises:
        JobCodeError: one sentence: no `map`, something that is not a function, an unknown reader or encoding.
    """
    mapper, combine = _function(module, "map"), _function(module, "combine")
    reduce = _function(module, "reduce")
    if mapper is None:
        raise JobCodeError("The job file has no function map: define map(key, value).")
    if combine is not None and inspect.isgeneratorfunction(combine):
        raise JobCodeError("combine must return one value for the key, it must not yield.")
    reader = getattr(module, "reader", "lines")
    if reader not in ("lines", "blocks"):
        raise JobCodeError(f'reader is {reader!r}; say reader = "lines" or reader = "blocks".')
    encoding, errors = getattr(module, "encoding", "utf-8"), getattr(module, "errors", "strict")
    return JobFile(
        map=mapper,
        map_yields=inspect.isgeneratorfunction(mapper),
        combine=combine,
        reduce=reduce,
        reduce_yields=reduce is not None and inspect.isgeneratorfunction(reduce),
        partition=_function(module, "partition"),
        reader=reader,
        encoding=None if encoding is None else _codec(encoding, errors),
        errors=errors,
    )


def _function(module: ModuleType, name: str) -> Callable[..., Any] | None:
    function = getattr(module, name, None)
    if function is None or function is functools.reduce or function is getattr(builtins, name, None):
        return None
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise JobCodeError(f"{name} in the job file is not a plain function.")
    return function  # type: ignore[no-any-return]


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
