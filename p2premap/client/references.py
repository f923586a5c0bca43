"""What the arguments of a call may refer to instead of containing it: values that were put, and results of other calls.

A reference may be anywhere in the arguments, also within lists, dicts and objects: it pickles itself as a number
(`p2premap.worker.inputs.given`), and says so to whoever pickles the call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from p2premap.client.pickles import dumps
from p2premap.errors import LocalProtocolError
from p2premap.tasks.calls_refs import COPY, VALUE, BlobAt, Ref
from p2premap.worker.inputs import given

LARGE_BYTES: Final = 256 << 10
"""An argument beyond this travels by itself, and once for all calls that have the same."""


class _Found(threading.local):
    numbers: dict[int, int] | None = None
    things: list[object]


_found: Final = _Found()


def refer(thing: object) -> tuple[Callable[[int], Any], tuple[int]]:
    """For `__reduce__` of what may be referred to.

    Raises:
        LocalProtocolError: something else than the arguments of a call is being pickled.
    """
    if _found.numbers is None:
        raise LocalProtocolError(
            "A future, or a value that was put, can be an argument of a call, and not a part of a function or a result."
        )
    number = _found.numbers.setdefault(id(thing), len(_found.things))
    if number == len(_found.things):
        _found.things.append(thing)
    return given, (number,)


def dumps_referring(value: object) -> tuple[bytes, list[object]]:
    """A pickle that workers can open, and what it refers to, by number.

    Raises:
        Exception: it cannot be pickled.
    """
    _found.numbers, _found.things = {}, []
    try:
        return dumps(value), _found.things
    finally:
        _found.numbers = None


class Shared:
    """A value that was put, once for all calls that it is an argument of; see `Cluster.put`.

    Args:
        at: where it is.
        data: what it is, for another node if that one dies.
        head: the lengths of its pieces: a value with others is another one.
        own: each call gets its own; else all calls of a worker process get one.
    """

    __slots__ = ("__weakref__", "at", "data", "head", "own")

    def __init__(self, at: BlobAt, data: memoryview, head: bytes, *, own: bool = False) -> None:
        self.at = at
        self.data = data
        self.head = head
        self.own = own

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return refer(self)

    def __repr__(self) -> str:
        return f"<{self.at.size} bytes that were put, {self.at.digest.hex()[:8]}>"

    def ref(self) -> Ref:
        """For a pack."""
        return Ref(COPY if self.own else VALUE, self.at)


def weight(value: object) -> int:
    """How many bytes an argument has, where that can be told at once; 0: it cannot."""
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    size = getattr(value, "nbytes", 0)
    return size if isinstance(size, int) else 0
